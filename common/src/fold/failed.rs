//! Failed events: those whose row cannot be computed for a view. They are dead letters of that view alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::position::{Offset, Partition};

/// So many of the newest are kept with their reasons; all are counted.
const KEPT: usize = 200;
/// A reason is cut to so many characters.
const REASON_MAX: usize = 500;

/// An event whose row cannot be computed for a view. Their order is that of age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailedEvent {
    /// The log's own time, microseconds since 1970.
    pub timestamp_us: i64,
    /// Where it is.
    pub partition: Partition,
    /// Where it is.
    pub offset: Offset,
    /// What cannot be computed, and why.
    pub reason: String,
}

/// The failed events of a range of the log: how many there are, and the newest of them. Those of two ranges are the
/// failed events of both, so they go with states wherever those are cut and merged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    count: i64,
    newest: Vec<FailedEvent>,
}

impl Failed {
    /// So many, of which nothing else is known.
    pub fn of(count: i64) -> Self {
        Self { count, newest: Vec::new() }
    }

    /// How many.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The newest of them, at most `limit`, the newest first.
    pub fn newest(&self, limit: usize) -> Vec<FailedEvent> {
        let mut newest = self.newest.clone();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.truncate(limit);
        newest
    }

    /// One more.
    pub fn add(&mut self, mut event: FailedEvent) {
        if let Some((end, _)) = event.reason.char_indices().nth(REASON_MAX) {
            event.reason.truncate(end);
            event.reason.push('…');
        }
        self.count += 1;
        self.newest.push(event);
        self.trim(2 * KEPT);
    }

    /// Those of another range too.
    pub fn join(&mut self, other: &Self) {
        self.count += other.count;
        self.newest.extend_from_slice(&other.newest);
        self.trim(KEPT);
    }

    /// Those of several ranges.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|failed| sum.join(failed));
        sum
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.newest.iter().map(|event| size_of::<FailedEvent>() + event.reason.capacity()).sum()
    }

    fn trim(&mut self, most: usize) {
        if self.newest.len() > most {
            self.newest.sort_unstable_by(|a, b| b.cmp(a));
            self.newest.truncate(KEPT);
        }
    }
}

/// Takes in the failed events of the streams of one plan. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Collector(Arc<Mutex<Failed>>);

impl Collector {
    /// What has been taken in.
    pub fn failed(&self) -> Failed {
        self.inner().clone()
    }

    pub(super) fn join(&self, failed: &Failed) {
        if failed.count > 0 {
            self.inner().join(failed);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Failed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_newest_kept() {
        let event = |at: i64| FailedEvent { timestamp_us: at, partition: 0, offset: at, reason: "x".repeat(600) };
        let range = |from: i64, to: i64| {
            let mut failed = Failed::default();
            (from..to).for_each(|at| failed.add(event(at)));
            failed
        };
        let sum = Failed::sum([&range(700, 1000), &range(0, 700)]);
        assert_eq!(sum.count(), 1000);
        let offsets: Vec<i64> = sum.newest(3).iter().map(|event| event.offset).collect();
        assert_eq!(offsets, [999, 998, 997]);
        assert_eq!(sum.newest(5000).len(), KEPT);
        assert_eq!(sum.newest(1)[0].reason.chars().count(), REASON_MAX + 1);
    }
}
