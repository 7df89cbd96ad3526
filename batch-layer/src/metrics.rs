//! What the batch layer counts.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::retry::Troubles;

/// Events archived in the master dataset.
pub const EVENTS: &str = "lamina_batch_events_total";
/// Events that cannot be used, archived as dead letters.
pub const DEAD_LETTERS: &str = "lamina_batch_dead_letters_total";
/// Commits to the master dataset.
pub const COMMITS: &str = "lamina_batch_commits_total";
/// Times that small files of the master dataset were merged into one.
pub const MERGES: &str = "lamina_batch_file_merges_total";
/// Time of a commit with its files, in seconds.
pub const COMMIT_SECONDS: &str = "lamina_batch_commit_seconds";
/// Times that an appender began again after an error.
pub const RESTARTS: &str = "lamina_batch_appender_restarts_total";
/// Offsets of the log above the master's frontier: what is not archived yet.
pub const UNARCHIVED: &str = "lamina_batch_unarchived_offsets";
/// Offsets below the master's frontier that the log still has, of the partition with the fewest: what retention may still
/// take before it takes what is not archived. Only where the log expires.
pub const RETAINED: &str = "lamina_batch_retained_offsets";
/// Recomputes by view and outcome.
pub const RECOMPUTES: &str = "lamina_batch_recomputes_total";
/// Time of a recompute, in seconds.
pub const RECOMPUTE_SECONDS: &str = "lamina_batch_recompute_seconds";

/// Groups of the newest batch view version of which something could not be computed, by view.
pub const FAILED_GROUPS: &str = "lamina_batch_failed_groups";

/// Looks at the catalog's files that found what cannot be taken up. The log says why.
pub const CATALOG_REFUSALS: &str = "lamina_batch_catalog_refusals_total";

/// The batch layer's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) events: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) commits: IntCounterVec,
    pub(crate) merges: IntCounterVec,
    pub(crate) commit_seconds: Histogram,
    pub(crate) restarts: IntCounterVec,
    pub(crate) unarchived: IntGaugeVec,
    pub(crate) retained: IntGaugeVec,
    pub(crate) recomputes: IntCounterVec,
    pub(crate) recompute_seconds: HistogramVec,
    pub(crate) failed_groups: IntGaugeVec,
    pub(crate) catalog_refusals: IntCounter,
    /// For people rather than for counting.
    pub(crate) troubles: Troubles,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let buckets = prometheus::exponential_buckets(0.005, 2.0, 16)?;
        let commit_seconds = Histogram::with_opts(
            HistogramOpts::new(COMMIT_SECONDS, "Time of a commit with its files").buckets(buckets.clone()),
        )?;
        registry.register(Box::new(commit_seconds.clone()))?;
        let options = HistogramOpts::new(RECOMPUTE_SECONDS, "Time of a recompute").buckets(buckets);
        let recompute_seconds = HistogramVec::new(options, &["view"])?;
        registry.register(Box::new(recompute_seconds.clone()))?;
        let catalog_refusals =
            IntCounter::new(CATALOG_REFUSALS, "Looks at the catalog's files that found what cannot be taken up")?;
        registry.register(Box::new(catalog_refusals.clone()))?;
        let gauge = |name: &str, help: &str, label: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            events: counter(EVENTS, "Events archived in the master dataset", &["dataset"])?,
            dead_letters: counter(DEAD_LETTERS, "Events archived as dead letters", &["dataset"])?,
            commits: counter(COMMITS, "Commits to the master dataset", &["dataset"])?,
            merges: counter(MERGES, "Times that small files of the master dataset were merged", &["dataset"])?,
            restarts: counter(RESTARTS, "Times that an appender began again after an error", &["dataset"])?,
            recomputes: counter(RECOMPUTES, "Recomputes by outcome", &["view", "outcome"])?,
            commit_seconds,
            unarchived: gauge(UNARCHIVED, "Offsets of the log above the master's frontier", "dataset")?,
            retained: gauge(RETAINED, "Offsets below the master's frontier that the log still has", "dataset")?,
            failed_groups: gauge(FAILED_GROUPS, "Groups of which something could not be computed", "view")?,
            recompute_seconds,
            catalog_refusals,
            troubles: Troubles::default(),
        })
    }

    /// Begins a dataset's counts at 0: whoever looks for an increase would miss one from nothing.
    pub(crate) fn begin(&self, dataset: &str) {
        for counter in [&self.events, &self.dead_letters, &self.commits, &self.restarts] {
            counter.with_label_values(&[dataset]).inc_by(0);
        }
    }
}
