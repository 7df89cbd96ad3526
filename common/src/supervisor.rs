//! Tasks that nobody forgets: named, cancelled together, and none fails without a word.

use std::{fmt::Debug, future::Future, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks and stops them in order. Clones share one set of tasks.
///
/// The first task that fails cancels all the others; its name and error are what [`Supervisor::wait`] returns.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    tasks: TaskTracker,
    cancel: CancellationToken,
    failure: Arc<std::sync::Mutex<Option<String>>>,
    /// Those that this one is a child of, the nearest last.
    above: Vec<Supervisor>,
}

impl Supervisor {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A supervisor for some of this one's tasks: they are told to stop and waited for with all others, a failure of
    /// theirs is this one's, and they can be ended before.
    pub fn child(&self) -> Self {
        let above = self.above.iter().cloned().chain([Self { above: Vec::new(), ..self.clone() }]).collect();
        Self { tasks: TaskTracker::new(), cancel: self.cancel.child_token(), failure: self.failure.clone(), above }
    }

    /// Told when the tasks should stop.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Starts a task. An error that it returns, or a panic, cancels all tasks of this supervisor.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<E: Debug + std::fmt::Display + Send + 'static>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let name = name.into();
        let this = self.clone();
        let inner = tokio::spawn(task);
        let waited_for: Vec<_> = self.above.iter().map(|above| above.tasks.token()).collect();
        self.tasks.spawn(async move {
            let _waited_for = waited_for;
            let failure = match inner.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{name}: {error}"),
                Err(panic) => format!("{name} died: {panic}"),
            };
            tracing::error!(task = name, "{failure}");
            if let Ok(mut first) = this.failure.lock() {
                first.get_or_insert(failure);
            }
            this.above.first().unwrap_or(&this).cancel.cancel();
        });
    }

    /// Tells all tasks to stop.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    /// Tells all tasks to stop, and waits until they have ended.
    pub async fn end(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until all tasks have ended. Gives the first failure, if there was one.
    pub async fn wait(&self) -> Result<(), String> {
        self.tasks.close();
        self.tasks.wait().await;
        match self.failure.lock().ok().and_then(|mut failure| failure.take()) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn a_child_ends_alone_and_fails_for_all() {
        let whole = Supervisor::new();
        let until_told = |supervisor: &Supervisor| {
            let cancelled = supervisor.cancelled();
            supervisor.spawn("waits", async move {
                cancelled.cancelled().await;
                Ok::<(), Infallible>(())
            });
        };
        until_told(&whole);
        let part = whole.child();
        until_told(&part);
        part.end().await;
        assert!(!whole.cancelled().is_cancelled());
        let part = whole.child();
        until_told(&part);
        part.spawn("fails", async { Err::<(), _>("broken") });
        assert_eq!(whole.wait().await, Err("fails: broken".to_owned()));
    }
}
