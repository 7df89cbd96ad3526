//! Whose turn it is to recompute: one at a time, since each uses all that the machine has.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The turn. Whoever asks first has it first, but what has failed before lets everything else go first.
#[derive(Debug)]
pub(crate) struct Turns {
    turn: Semaphore,
    /// How many wait that have not failed.
    waiting: AtomicUsize,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), waiting: AtomicUsize::new(0) }
    }
}

/// One that waits, until it does not any more.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turns {
    /// Waits for the turn, which lasts for as long as what it gives is held.
    pub(crate) async fn take(&self, has_failed: bool) -> Option<SemaphorePermit<'_>> {
        if !has_failed {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let _waits = Waits(&self.waiting);
            return self.turn.acquire().await.ok();
        }
        loop {
            let turn = self.turn.acquire().await.ok()?;
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return Some(turn);
            }
            // Those who wait are served in the order in which they came: asked for again, it comes after them.
            drop(turn);
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn what_has_failed_goes_last() {
        let (turns, order) = (Arc::new(Turns::default()), Arc::new(Mutex::new(Vec::new())));
        let first = turns.take(false).await;
        let mut tasks = tokio::task::JoinSet::new();
        for (name, has_failed) in [("a", true), ("b", false), ("c", true), ("d", false)] {
            let (turns, order) = (turns.clone(), order.clone());
            tasks.spawn(async move {
                let _turn = turns.take(has_failed).await;
                order.lock().unwrap().push(name);
            });
            tokio::task::yield_now().await;
        }
        drop(first);
        tasks.join_all().await;
        assert_eq!(order.lock().unwrap()[..2], ["b", "d"]);
        assert_eq!(order.lock().unwrap().len(), 4);
    }
}
