//! Trying again what failed outside Lamina, for as long as nobody says stop.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::fault::chain;
use tokio_util::sync::CancellationToken;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// What is tried again at the moment, with the reasons. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles(Arc<Mutex<BTreeMap<u64, String>>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The pauses between tries: each twice as long as the one before, up to ten seconds.
#[derive(Debug)]
pub(crate) struct Retry {
    cancelled: CancellationToken,
    pause: Duration,
    failures: u32,
    id: u64,
    troubles: Troubles,
}

impl Retry {
    /// No failure yet. Those that come are among the `troubles` until something has worked.
    pub(crate) fn new(cancelled: CancellationToken, troubles: &Troubles) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { cancelled, pause: FIRST, failures: 0, id, troubles: troubles.clone() }
    }

    /// Says what failed and how often, and waits before the next try. `false`: there is to be none.
    pub(crate) async fn after(&mut self, what: &str, error: &(dyn std::error::Error + Sync)) -> bool {
        self.failures += 1;
        let (failures, pause) = (self.failures, self.pause);
        if self.cancelled.is_cancelled() {
            tracing::warn!("{what}: {}; told to stop, so this was the last try", chain(error));
            return false;
        }
        self.troubles.lock().insert(self.id, format!("{what}: {}", chain(error)));
        tracing::warn!("{what}: {}; failure {failures}, trying again in {pause:?}", chain(error));
        self.pause = (pause * 2).min(LONGEST);
        tokio::select! {
            () = self.cancelled.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// From now on the pauses are as long as they get: the failure is not one that passes by itself.
    pub(crate) fn slow(&mut self) {
        self.pause = LONGEST;
    }

    /// Something has worked: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.pause = FIRST;
        self.failures = 0;
        self.troubles.lock().remove(&self.id);
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        self.troubles.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_double_until_it_is_told_to_stop() {
        let cancelled = CancellationToken::new();
        let troubles = Troubles::default();
        let mut retry = Retry::new(cancelled.clone(), &troubles);
        let error = std::io::Error::other("away");
        assert!(retry.after("write", &error).await);
        assert_eq!((retry.failures, retry.pause), (1, FIRST * 2));
        assert_eq!(troubles.all(), ["write: away"]);
        retry.reset();
        assert!(troubles.all().is_empty());
        assert_eq!((retry.failures, retry.pause), (0, FIRST));
        cancelled.cancel();
        assert!(!retry.after("write", &error).await);
    }
}
