//! What is read anew while it is used: tokens and certificates, so that neither takes a restart.

use std::{
    convert::Infallible,
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::{fault::chain, process::Failure, supervisor::Supervisor};

/// Something that is replaced now and then. Clones share it.
#[derive(Debug)]
pub struct Renewed<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for Renewed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Renewed<T> {
    /// The first one.
    pub fn new(first: impl Into<Arc<T>>) -> Self {
        Self(Arc::new(RwLock::new(first.into())))
    }

    /// The present one.
    pub fn current(&self) -> Arc<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, next: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl<T: Send + Sync + 'static> Renewed<T> {
    /// Looks every so often at what it is made of, and makes it anew where that is not what it was made of last, which is
    /// `known`. What cannot be used is told, and changes nothing: the one before goes on.
    pub fn follow<S: PartialEq + Send + 'static>(
        &self,
        what: &'static str,
        every: Duration,
        supervisor: &Supervisor,
        known: S,
        look: impl Fn() -> Result<(S, Arc<T>), Failure> + Send + Sync + 'static,
    ) {
        let (this, cancelled, look) = (self.clone(), supervisor.cancelled(), Arc::new(look));
        let following = async move {
            let (mut known, mut told) = (known, None);
            loop {
                tokio::time::sleep(every).await;
                let look = look.clone();
                // Files are read: that may take its time.
                let looked = tokio::task::spawn_blocking(move || look()).await;
                match looked.unwrap_or_else(|died| Err(died.into())) {
                    Ok((seen, next)) if seen != known => {
                        this.put(next);
                        tracing::info!("{what} are taken up as they are now");
                        (known, told) = (seen, None);
                    }
                    Ok(_) => told = None,
                    Err(error) => {
                        let reason = chain(error.as_ref());
                        if told.as_ref() != Some(&reason) {
                            tracing::error!("{what} are not taken up, those before stay in force: {reason}");
                            told = Some(reason);
                        }
                    }
                }
            }
        };
        supervisor.spawn(what, async move {
            tokio::select! {
                () = cancelled.cancelled() => Ok::<(), Infallible>(()),
                () = following => Ok(()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn what_has_changed_is_taken_up_and_what_is_broken_is_not() {
        let source = Arc::new(Mutex::new(Some(1)));
        let renewed = Renewed::new(1);
        let (supervisor, read) = (Supervisor::new(), source.clone());
        renewed.follow("numbers", Duration::from_millis(5), &supervisor, 1, move || {
            let number = read.lock().unwrap().ok_or("there is none")?;
            Ok((number, Arc::new(number)))
        });
        let becomes = async |expected: i32| {
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while *renewed.current() != expected {
                assert!(std::time::Instant::now() < deadline);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        *source.lock().unwrap() = Some(2);
        becomes(2).await;
        *source.lock().unwrap() = None;
        tokio::time::sleep(Duration::from_millis(50)).await;
        becomes(2).await;
        *source.lock().unwrap() = Some(3);
        becomes(3).await;
        supervisor.stop();
        supervisor.wait().await.unwrap();
    }
}
