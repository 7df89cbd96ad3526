//! What the speed layer counts.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// Events folded, by dataset.
pub const EVENTS: &str = "lamina_speed_events_total";
/// Dead letters passed, by dataset.
pub const DEAD_LETTERS: &str = "lamina_speed_dead_letters_total";
/// Bytes of states and tail, by dataset.
pub const MEMORY: &str = "lamina_speed_memory_bytes";
/// State pieces, by dataset.
pub const PIECES: &str = "lamina_speed_pieces";
/// Age of the oldest logged event that answers lack, by dataset; -1 while it cannot be told.
pub const FRESHNESS: &str = "lamina_speed_freshness_ms";
/// Rebuilds from the master dataset, by dataset.
pub const REBUILDS: &str = "lamina_speed_rebuilds_total";

/// The speed layer's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) events: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) memory: IntGaugeVec,
    pub(crate) pieces: IntGaugeVec,
    pub(crate) freshness: IntGaugeVec,
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
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["dataset"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            events: counter(EVENTS, "Events folded into the speed layer's states")?,
            dead_letters: counter(DEAD_LETTERS, "Events that the speed layer passed because they cannot be used")?,
            memory: gauge(MEMORY, "Bytes of states and tail in the speed layer")?,
            pieces: gauge(PIECES, "State pieces in the speed layer")?,
            freshness: gauge(
                FRESHNESS,
                "Age of the oldest logged event that answers lack, in milliseconds; -1 while it cannot be told",
            )?,
            rebuilds: counter(REBUILDS, "Rebuilds of speed states from the master dataset")?,
        })
    }
}
