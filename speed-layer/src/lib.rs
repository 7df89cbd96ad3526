//! Lamina's speed layer: keeps every view fresh from the log, exactly, between the batch layer's cuts.
//!
//! Its state is derived: it can be lost at any moment and is rebuilt from the master dataset and the log. In reading
//! order: a [`piece`] is the state of one range of offsets, a [`track`] holds the pieces of one view and partition, a
//! [`frame`] is everything at one head, [`ingest`] makes pieces of the log's records and [`rebuild`] of the master's
//! files, [`compact`] merges pieces, and the [`worker`] drives it all for one dataset.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{
    catalog::Catalog,
    clock::Clock,
    log::Log,
    position::Frontier,
    speed::{Error, Frozen, Request, Status},
    storage::Storage,
    supervisor::Supervisor,
};

mod compact;
mod frame;
mod ingest;
pub mod metrics;
mod piece;
mod rebuild;
mod track;
mod worker;

/// What the speed layer is started with.
#[derive(Debug)]
pub struct Context {
    /// Where the master dataset and the batch views are.
    pub storage: Storage,
    /// Where events come from.
    pub log: Arc<dyn Log>,
    /// The datasets and views.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Runs the tasks.
    pub supervisor: Supervisor,
    /// Takes the metrics.
    pub registry: prometheus::Registry,
    /// How it goes about its work.
    pub settings: Settings,
}

/// How the speed layer goes about its work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Above this many bytes of states and tail the head stops until a newer batch view version lets go of some.
    pub memory_bytes: usize,
    /// How many records are read at once, at most.
    pub poll_records: usize,
    /// How often the master dataset and the batch views are looked at.
    pub follow_every: Duration,
    /// Cuts at master versions younger than this are kept possible.
    pub keep_boundaries: Duration,
    /// How long a batch view version is kept possible after a newer one.
    pub retire_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            poll_records: 65_536,
            follow_every: Duration::from_millis(200),
            keep_boundaries: Duration::from_secs(600),
            retire_after: Duration::from_secs(30),
        }
    }
}

/// The speed layer of one process: it holds all partitions of all datasets.
#[derive(Debug)]
pub struct SpeedLayer {
    datasets: BTreeMap<String, Arc<frame::Shared>>,
}

impl SpeedLayer {
    /// Starts a worker for each dataset. Returns at once: until a dataset has been rebuilt, it is not ready.
    pub fn start(context: Context) -> Result<Arc<Self>, prometheus::Error> {
        let metrics = metrics::Metrics::new(&context.registry)?;
        let context = Arc::new(context);
        let mut datasets = BTreeMap::new();
        for dataset in context.catalog.datasets.values() {
            let shared = Arc::new(frame::Shared::new(&dataset.name, context.clock.clone()));
            datasets.insert(dataset.name.clone(), shared.clone());
            let worker = worker::Worker::new(context.clone(), dataset.clone(), shared, metrics.clone());
            context.supervisor.spawn(format!("speed layer of {}", dataset.name), worker.run());
        }
        let standing = metrics::Standing::new(datasets.clone(), context.settings.memory_bytes)?;
        context.registry.register(Box::new(standing))?;
        Ok(Arc::new(Self { datasets }))
    }

    fn dataset(&self, dataset: &str) -> Result<&Arc<frame::Shared>, Error> {
        self.datasets.get(dataset).ok_or_else(|| Error::NotReady {
            dataset: dataset.to_owned(),
            reason: "it is not in the catalog".to_owned(),
        })
    }
}

#[async_trait]
impl common::speed::SpeedLayer for SpeedLayer {
    async fn freeze(&self, request: &Request) -> Result<Frozen, Error> {
        self.dataset(&request.dataset)?.freeze(request)
    }

    async fn reach(&self, dataset: &str, position: &Frontier, wait: Duration) -> Result<(), Error> {
        self.dataset(dataset)?.reach(position, wait).await
    }

    fn status(&self, dataset: &str) -> Status {
        self.dataset(dataset).map(|shared| shared.status()).unwrap_or_default()
    }
}
