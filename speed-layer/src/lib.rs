//! Lamina's speed layer: keeps every view fresh from the log, exactly, between the batch layer's cuts.
//!
//! Its state is derived: it can be lost at any moment and is rebuilt from the master dataset and the log. In reading
//! order: a [`piece`] is the state of one range of offsets, a [`track`] holds the pieces of one view and partition, a
//! [`frame`] is everything at one head, [`ingest`] makes pieces of the log's records and [`rebuild`] of the master's
//! files, [`compact`] merges pieces, and a [`worker`] drives it all for some partitions of one dataset. A [`holding`] is
//! what this process has of a dataset, a [`group`] says what it should have, and the [`service`] gives it out over
//! Arrow Flight.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{
    catalog::{Catalog, Dataset},
    clock::Clock,
    log::{Log, Membership},
    position::Frontier,
    speed::{Error, Frozen, Request, Status, parts},
    storage::Storage,
    supervisor::Supervisor,
};

mod compact;
mod frame;
mod group;
mod holding;
mod ingest;
pub mod metrics;
mod piece;
mod rebuild;
pub mod service;
mod track;
mod worker;

use holding::Holding;

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
    /// Above this many bytes of states and tail the tail is folded into few states; where that is not enough, the head
    /// stops until a newer batch view version lets go of some.
    pub memory_bytes: usize,
    /// How many records are read at once, at most.
    pub poll_records: usize,
    /// How often the master dataset and the batch views are looked at.
    pub follow_every: Duration,
    /// A cut at a master version is kept possible for so long after the next version, and for as long as a job
    /// announces it.
    pub keep_boundaries: Duration,
    /// How long a batch view version is kept possible after a newer one.
    pub retire_after: Duration,
}

impl Settings {
    /// What the program's settings say.
    pub fn of(settings: &common::settings::Settings) -> Self {
        Self { memory_bytes: common::settings::bytes(settings.speed.memory), ..Self::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            poll_records: 65_536,
            follow_every: Duration::from_millis(200),
            keep_boundaries: Duration::from_secs(60),
            retire_after: Duration::from_secs(30),
        }
    }
}

/// The speed layer of one process. It holds all partitions of all datasets, or those that its consumer group gives it.
#[derive(Debug)]
pub struct SpeedLayer {
    holdings: BTreeMap<String, Arc<Holding>>,
}

impl SpeedLayer {
    /// Starts a worker for each dataset, which holds all its partitions. Returns at once: until a dataset has been
    /// rebuilt, it is not ready.
    pub fn start(context: Context) -> Result<Arc<Self>, prometheus::Error> {
        let layer = Self::new(context)?;
        layer.holdings.values().for_each(|holding| holding.hold_all());
        Ok(layer)
    }

    /// Holds what `membership` gives it, from now on. What is taken away is kept for `linger`, so that whoever gets it
    /// has time to build it up.
    pub fn join(context: Context, membership: Membership, linger: Duration) -> Result<Arc<Self>, prometheus::Error> {
        let supervisor = context.supervisor.clone();
        let layer = Self::new(context)?;
        supervisor
            .spawn("speed layer's group", group::follow(layer.clone(), membership, linger, supervisor.cancelled()));
        Ok(layer)
    }

    fn new(context: Context) -> Result<Arc<Self>, prometheus::Error> {
        let metrics = metrics::Metrics::new(&context.registry)?;
        let context = Arc::new(context);
        let datasets = context.catalog.datasets.values();
        let holding = |dataset: &Arc<Dataset>| Holding::new(context.clone(), dataset.clone(), metrics.clone());
        let holdings: BTreeMap<String, Arc<Holding>> =
            datasets.map(|dataset| (dataset.name.clone(), Arc::new(holding(dataset)))).collect();
        let looks = holdings.iter().map(|(name, holding)| (name.clone(), Holding::look(holding))).collect();
        let standing = metrics::Standing::new(looks, context.settings.memory_bytes)?;
        context.registry.register(Box::new(standing))?;
        Ok(Arc::new(Self { holdings }))
    }

    fn holding(&self, dataset: &str) -> Result<&Arc<Holding>, Error> {
        self.holdings.get(dataset).ok_or_else(|| Error::NotReady {
            dataset: dataset.to_owned(),
            reason: "it is not in the catalog".to_owned(),
        })
    }
}

#[async_trait]
impl common::speed::SpeedLayer for SpeedLayer {
    async fn freeze(&self, request: &Request) -> Result<Frozen, Error> {
        let parts = self.holding(&request.dataset)?.freeze(&request.partitions, &request.views)?;
        parts::combine(request, &parts)
    }

    async fn reach(&self, dataset: &str, position: &Frontier, wait: Duration) -> Result<(), Error> {
        self.holding(dataset)?.reach(position, wait).await
    }

    fn status(&self, dataset: &str) -> Status {
        self.holding(dataset).map(|holding| holding.status()).unwrap_or_default()
    }
}
