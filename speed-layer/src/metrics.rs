//! What the speed layer counts.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use common::speed::Status;
use prometheus::{
    IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Events folded, by dataset.
pub const EVENTS: &str = "lamina_speed_events_total";
/// Dead letters passed, by dataset.
pub const DEAD_LETTERS: &str = "lamina_speed_dead_letters_total";
/// Events that a view cannot be computed over, by view, as they are read from the log.
pub const FAILED_EVENTS: &str = "lamina_speed_failed_events_total";
/// Views that cannot be computed at all, by dataset. Their queries and the log say why.
pub const FAILED_VIEWS: &str = "lamina_speed_failed_views";
/// Bytes of states and tail, by dataset.
pub const MEMORY: &str = "lamina_speed_memory_bytes";
/// How many bytes a dataset may take before its head stops.
pub const MEMORY_LIMIT: &str = "lamina_speed_memory_limit_bytes";
/// State pieces, by dataset.
pub const PIECES: &str = "lamina_speed_pieces";
/// Age of the oldest logged event that answers lack, by dataset; -1 while it cannot be told.
pub const FRESHNESS: &str = "lamina_speed_freshness_ms";
/// Offsets of the log above the head, by dataset; -1 while they cannot be told.
pub const UNREAD: &str = "lamina_speed_unread_offsets";
/// Whether the head stands still or there is none, by dataset: 1 or 0. `/readyz` and the log say why.
pub const STOPPED: &str = "lamina_speed_stopped";
/// Rebuilds from the master dataset, by dataset.
pub const REBUILDS: &str = "lamina_speed_rebuilds_total";

/// The speed layer's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) events: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) failed_events: IntCounterVec,
    pub(crate) failed_views: IntGaugeVec,
    pub(crate) memory: IntGaugeVec,
    pub(crate) pieces: IntGaugeVec,
    pub(crate) rebuilds: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), &["dataset"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let failed_events =
            IntCounterVec::new(Opts::new(FAILED_EVENTS, "Events that a view cannot be computed over"), &["view"])?;
        registry.register(Box::new(failed_events.clone()))?;
        let registered = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = gauge(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            events: counter(EVENTS, "Events folded into the speed layer's states")?,
            dead_letters: counter(DEAD_LETTERS, "Events that the speed layer passed because they cannot be used")?,
            failed_events,
            failed_views: registered(FAILED_VIEWS, "Views that cannot be computed")?,
            memory: registered(MEMORY, "Bytes of states and tail in the speed layer")?,
            pieces: registered(PIECES, "State pieces in the speed layer")?,
            rebuilds: counter(REBUILDS, "Rebuilds of speed states from the master dataset")?,
        })
    }
}

fn gauge(name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), &["dataset"])
}

/// Looks at a dataset: how it stands, and how many offsets are unread; `None` once it is not held any more.
pub(crate) type Look = Box<dyn Fn() -> Option<(Status, Option<i64>)> + Send + Sync>;

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing").finish_non_exhaustive()
    }
}

/// How the datasets stand at the moment that somebody looks: a worker that has failed, or is being rebuilt, would leave
/// numbers behind that still look fresh. Clones share the datasets.
#[derive(Clone)]
pub(crate) struct Standing {
    datasets: Arc<RwLock<BTreeMap<String, Look>>>,
    memory_bytes: usize,
    freshness: IntGaugeVec,
    unread: IntGaugeVec,
    stopped: IntGaugeVec,
    memory_limit: IntGaugeVec,
}

impl Standing {
    /// Of no dataset yet, each of which may take `memory_bytes`.
    pub(crate) fn new(memory_bytes: usize) -> Result<Self, prometheus::Error> {
        Ok(Self {
            datasets: Arc::default(),
            memory_bytes,
            freshness: gauge(
                FRESHNESS,
                "Age of the oldest logged event that answers lack, in milliseconds; -1 while it cannot be told",
            )?,
            unread: gauge(UNREAD, "Offsets of the log above the head; -1 while unknown")?,
            stopped: gauge(STOPPED, "Whether the head stands still or there is none")?,
            memory_limit: gauge(MEMORY_LIMIT, "Bytes of states and tail at which the head stops")?,
        })
    }

    /// One more dataset.
    pub(crate) fn add(&self, dataset: String, look: Look) {
        let bytes = i64::try_from(self.memory_bytes).unwrap_or(i64::MAX);
        self.memory_limit.with_label_values(&[&dataset]).set(bytes);
        self.datasets.write().unwrap_or_else(PoisonError::into_inner).insert(dataset, look);
    }

    fn gauges(&self) -> [&IntGaugeVec; 4] {
        [&self.freshness, &self.unread, &self.stopped, &self.memory_limit]
    }
}

impl Collector for Standing {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.datasets.write().unwrap_or_else(PoisonError::into_inner).retain(|dataset, look| {
            let labels = [dataset.as_str()];
            let Some((status, unread)) = look() else {
                for gauge in self.gauges() {
                    let _ = gauge.remove_label_values(&labels);
                }
                return false;
            };
            self.freshness.with_label_values(&labels).set(status.freshness_ms.unwrap_or(-1));
            self.unread.with_label_values(&labels).set(unread.unwrap_or(-1));
            self.stopped.with_label_values(&labels).set(i64::from(status.stopped.is_some()));
            true
        });
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::{clock::System, position::Frontier};
    use prometheus::TextEncoder;

    use super::*;
    use crate::frame::{Beyond, Frame, Shared};

    #[test]
    fn a_dataset_that_stands_still_does_not_look_fresh() {
        let shared = Arc::new(Shared::new("sales", Arc::new(System)));
        let registry = Registry::new();
        let looked_at = shared.clone();
        let look: Look = Box::new(move || Some((looked_at.status(), looked_at.unread())));
        let standing = Standing::new(1024).unwrap();
        standing.add("sales".to_owned(), look);
        registry.register(Box::new(standing)).unwrap();
        let check = |name: &str, is_expected: &dyn Fn(i64) -> bool| {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{dataset=\"sales\"}} ")));
            let value: i64 = line.unwrap().parse().unwrap();
            assert!(is_expected(value), "{name} is {value}");
        };
        check(STOPPED, &|stopped| stopped == 1);
        check(FRESHNESS, &|ms| ms == -1);
        check(UNREAD, &|offsets| offsets == -1);
        check(MEMORY_LIMIT, &|bytes| bytes == 1024);
        let frontier = |at| Frontier::from_iter([(0, at)]);
        let frame = Frame { head: frontier(10), ..Frame::default() };
        let beyond =
            Beyond { end: Some((frontier(13), 5_000_000)), after_ms: [(0, 4_000)].into(), ..Beyond::default() };
        shared.publish(Arc::new(frame), beyond);
        shared.stopped(None);
        check(STOPPED, &|stopped| stopped == 0);
        check(UNREAD, &|offsets| offsets == 3);
        // The worker says nothing any more: what it said last is from 1970, and grows old.
        check(FRESHNESS, &|ms| ms > 1_000_000);
    }
}
