//! What a client may use: how many queries at once, and how long, how many rows and how many bytes each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use common::{access::Limits, sql::Stop};
use datafusion::error::DataFusionError;
use tokio::time::Instant;

use super::{
    lanes::Lanes,
    problem::{Kind, Problem},
};

/// How many queries of each client are at work, and where they are. Clones share the counts.
#[derive(Clone, Debug)]
pub(super) struct AtWork {
    counts: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    lanes: Lanes,
}

impl AtWork {
    /// Nothing yet.
    pub(super) fn new(lanes: Lanes) -> Self {
        Self { counts: Arc::default(), lanes }
    }

    /// Counts anew which queries are frozen.
    pub(super) fn look(&self) {
        let _ = self.lanes.look();
    }

    /// Begins a query, if its client has not too many at work.
    pub(super) fn begin(&self, client: &Arc<str>, limits: &Arc<Limits>, wait: Duration) -> Result<Work, Problem> {
        if let Err(frozen) = self.lanes.look() {
            let detail = format!("{frozen} queries did not stop when they were told to, and no more begin beside them");
            return Err(Problem::new(Kind::Unavailable, detail)
                .hint("ask again once one of them has ended; who runs Lamina can start it again to be rid of them"));
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client.clone()).or_default();
        if *count >= limits.queries {
            let detail = format!("{count} queries of `{client}` are at work, and one client has no more at once");
            return Err(Problem::new(Kind::TooMany, detail).member("queries_max", limits.queries));
        }
        *count += 1;
        let slot = Arc::new(Slot { client: client.clone(), counts: self.counts.clone() });
        let until = Instant::now() + wait + limits.time;
        Ok(Work { until, rows: 0, limits: limits.clone(), lanes: self.lanes.clone(), slot })
    }
}

/// A query's place among those of its client, until it is dropped.
#[derive(Debug)]
struct Slot {
    client: Arc<str>,
    counts: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// A query at work, and what it has used.
#[derive(Debug)]
pub(super) struct Work {
    until: Instant,
    rows: u64,
    limits: Arc<Limits>,
    lanes: Lanes,
    slot: Arc<Slot>,
}

/// Why a query was stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stopped {
    #[error("the query took longer than {}", humantime::format_duration(*.0))]
    Time(Duration),
    #[error("the answer has more than {0} rows")]
    Rows(u64),
    #[error("the answer is longer than {0} bytes")]
    Bytes(u64),
}

impl Work {
    /// What `step` gives, unless the query's time is over before.
    pub(super) async fn within<T>(&self, step: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::time::timeout_at(self.until, step).await.map_err(|_| Stopped::Time(self.limits.time))
    }

    /// The same, on a thread of its own: for what a query says is to be computed. It is stopped where nobody waits for it.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        stop: &Stop,
        step: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stopped> {
        // As long as it is at work, it has its client's place.
        let slot = self.slot.clone();
        let lane = self.lanes.run(async move {
            let outcome = step.await;
            drop(slot);
            outcome
        });
        let stop = stop.on_drop();
        match self.within(lane).await? {
            Ok(outcome) => {
                stop.let_go();
                Ok(outcome)
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Where queries have threads of their own.
    pub(super) fn lanes(&self) -> Lanes {
        self.lanes.clone()
    }

    /// Counts rows of the answer.
    pub(super) fn rows(&mut self, rows: usize) -> Result<(), Stopped> {
        self.rows += rows as u64;
        if self.rows > self.limits.rows { Err(Stopped::Rows(self.limits.rows)) } else { Ok(()) }
    }

    /// When its time is over.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// How much time that is, beside what it waits for events.
    pub(super) fn time(&self) -> Duration {
        self.limits.time
    }

    /// What its answer's body may use.
    pub(super) fn used(&self) -> Used {
        Used { bytes: 0, limits: self.limits.clone() }
    }
}

/// What an answer's body has used.
#[derive(Debug)]
pub(super) struct Used {
    bytes: u64,
    limits: Arc<Limits>,
}

impl Used {
    /// Counts bytes of the answer.
    pub(super) fn bytes(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.bytes += bytes as u64;
        let max = self.limits.bytes.as_u64();
        if self.bytes > max { Err(Stopped::Bytes(max)) } else { Ok(()) }
    }
}

#[cfg(test)]
impl Work {
    /// A query that is alone.
    pub(super) fn for_tests(limits: Limits) -> Self {
        AtWork::new(Lanes::for_tests()).begin(&"tests".into(), &Arc::new(limits), Duration::ZERO).unwrap()
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        let kind = match stopped {
            Stopped::Time(_) => Kind::TooSlow,
            Stopped::Rows(_) | Stopped::Bytes(_) => Kind::AnswerTooLarge,
        };
        Self::new(kind, stopped.to_string())
    }
}

impl From<Stopped> for DataFusionError {
    fn from(stopped: Stopped) -> Self {
        Self::External(Box::new(stopped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_over_a_limit_is_stopped() {
        let limits = Arc::new(Limits { queries: 2, time: Duration::from_millis(30), rows: 5, ..Limits::default() });
        let at_work = AtWork::new(Lanes::for_tests());
        let begin = |client: &str| at_work.begin(&client.into(), &limits, Duration::from_millis(10));
        let (mut first, second) = (begin("a").unwrap(), begin("a").unwrap());
        assert_eq!(begin("a").unwrap_err().status().as_u16(), 429);
        drop((begin("b").unwrap(), second));
        let again = begin("a").unwrap();
        assert_eq!(first.rows(5), Ok(()));
        assert_eq!(first.rows(1), Err(Stopped::Rows(5)));
        let began = Instant::now();
        let stopped = first.within(std::future::pending::<()>()).await;
        assert_eq!(stopped, Err(Stopped::Time(limits.time)));
        assert!(began.elapsed() >= Duration::from_millis(35));
        drop((first, again));
        assert!(at_work.counts.lock().unwrap().is_empty());
    }
}
