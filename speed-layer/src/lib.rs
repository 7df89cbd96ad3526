//! Lamina's speed layer: keeps every view fresh from the log, exactly, between the batch layer's cuts.
//!
//! Its state is derived: it can be lost at any moment and is rebuilt from the master dataset and the log. In reading
//! order: a [`piece`] is the state of one range of offsets, a [`track`] holds the pieces of one view and partition, a
//! [`frame`] is everything at one head, [`ingest`] makes pieces of the log's records and [`rebuild`] of the master's
//! files, [`compact`] merges pieces, and a [`worker`] drives it all for some partitions of one dataset. A [`holding`] is
//! what this process has of a dataset, a [`group`] says what it should have, [`deploy`] takes newer catalogs up, and the
//! [`service`] gives it all out over Arrow Flight.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use common::{
    catalog::{Catalog, Dataset, View, published},
    clock::Clock,
    log::{Log, Membership},
    position::Frontier,
    speed::{Error, Frozen, Request, Status, parts},
    storage::{self, Storage},
    supervisor::Supervisor,
};

mod compact;
mod deploy;
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

/// How long an answer waits for workers that are behind what was answered before.
const CATCH_UP: Duration = Duration::from_secs(5);
const TRY_EVERY: Duration = Duration::from_millis(5);

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
    /// Views that were replaced are held for so long after they could be done without, and after they were last asked for.
    pub let_go_after: Duration,
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
            let_go_after: Duration::from_secs(60),
        }
    }
}

/// The speed layer of one process. It holds all partitions of all datasets, or those that its consumer group gives it.
#[derive(Debug)]
pub struct SpeedLayer {
    context: Arc<Context>,
    metrics: metrics::Metrics,
    standing: metrics::Standing,
    /// Whether it holds all partitions.
    is_alone: bool,
    holdings: RwLock<BTreeMap<String, Arc<Holding>>>,
    catalogs: Mutex<Catalogs>,
}

/// Which catalogs it works by.
#[derive(Clone, Debug)]
struct Catalogs {
    /// The one that is wanted.
    wanted: Arc<Catalog>,
    /// The one whose views are held beside those until they are built.
    before: Arc<Catalog>,
    /// When they were found to be built, and to be ready here.
    built: Option<Instant>,
}

impl SpeedLayer {
    /// Starts a worker for each dataset, which holds all its partitions. Returns at once: until a dataset has been
    /// rebuilt, it is not ready.
    pub fn start(context: Context) -> Result<Arc<Self>, prometheus::Error> {
        Self::new(context, true)
    }

    /// Holds what `membership` gives it, from now on. What is taken away is kept for `linger`, so that whoever gets it
    /// has time to build it up.
    pub fn join(context: Context, membership: Membership, linger: Duration) -> Result<Arc<Self>, prometheus::Error> {
        let supervisor = context.supervisor.clone();
        let layer = Self::new(context, false)?;
        supervisor
            .spawn("speed layer's group", group::follow(layer.clone(), membership, linger, supervisor.cancelled()));
        Ok(layer)
    }

    /// Takes up the versions of the catalog that are published above `version`.
    pub fn follow_catalog(self: &Arc<Self>, version: u64) {
        let supervisor = &self.context.supervisor;
        let following = deploy::follow(self.clone(), version, supervisor.cancelled());
        supervisor.spawn("speed layer's view of the catalog", following);
    }

    /// Works by another catalog from now on, and by the one before until what is new has been built.
    pub fn take_up(&self, catalog: Arc<Catalog>) {
        let mut catalogs = self.catalogs();
        let mut holdings = self.holdings.write().unwrap_or_else(PoisonError::into_inner);
        for (name, holding) in holdings.iter() {
            holding.want(views_of(&catalog, name));
        }
        for dataset in catalog.datasets.values().filter(|dataset| !catalogs.wanted.datasets.contains_key(&dataset.name))
        {
            holdings.entry(dataset.name.clone()).or_insert_with(|| self.hold(dataset, &catalog));
        }
        catalogs.wanted = catalog;
        catalogs.built = None;
    }

    /// While one catalog replaces another: how long what is done without is held.
    fn changing_for(&self) -> Option<Duration> {
        let catalogs = self.catalogs();
        (!Arc::ptr_eq(&catalogs.wanted, &catalogs.before)).then_some(self.context.settings.let_go_after)
    }

    /// The catalog that it works by.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalogs().wanted.clone()
    }

    /// Lets go of what has been replaced or removed, once that is possible.
    async fn settle(&self) -> Result<(), storage::Error> {
        let Catalogs { wanted, before, built } = self.catalogs().clone();
        let holdings = self.holdings();
        if self.changing_for().is_none() {
            return Ok(());
        }
        let Some(built) = built else {
            let is_ready = holdings.values().all(|holding| holding.is_ready());
            if is_ready && published::is_built(&self.context.storage, &published::changed(&wanted, &before)).await? {
                self.catalogs().built = Some(Instant::now());
            }
            return Ok(());
        };
        let after = self.context.settings.let_go_after;
        if built.elapsed() < after {
            return Ok(());
        }
        // All of them are told to, so no short circuit.
        let is_done = holdings.values().filter(|holding| !holding.let_go(after)).count() == 0;
        if is_done {
            let mut holdings = self.holdings.write().unwrap_or_else(PoisonError::into_inner);
            holdings.retain(|dataset, _| wanted.datasets.contains_key(dataset));
            self.catalogs().before = wanted;
        }
        Ok(())
    }

    fn new(context: Context, is_alone: bool) -> Result<Arc<Self>, prometheus::Error> {
        let metrics = metrics::Metrics::new(&context.registry)?;
        let standing = metrics::Standing::new(context.settings.memory_bytes)?;
        context.registry.register(Box::new(standing.clone()))?;
        let catalog = context.catalog.clone();
        let catalogs = Catalogs { wanted: catalog.clone(), before: catalog.clone(), built: None };
        let layer = Self {
            context: Arc::new(context),
            metrics,
            standing,
            is_alone,
            holdings: RwLock::default(),
            catalogs: Mutex::new(catalogs),
        };
        let hold = |dataset: &Arc<Dataset>| (dataset.name.clone(), layer.hold(dataset, &catalog));
        let holdings = catalog.datasets.values().map(hold).collect();
        Ok(Arc::new(Self { holdings: RwLock::new(holdings), ..layer }))
    }

    fn hold(&self, dataset: &Arc<Dataset>, catalog: &Catalog) -> Arc<Holding> {
        let views = views_of(catalog, &dataset.name);
        let holding = Arc::new(Holding::new(self.context.clone(), dataset.clone(), self.metrics.clone(), views));
        self.standing.add(dataset.name.clone(), Holding::look(&holding));
        if self.is_alone {
            holding.hold_all();
        }
        holding
    }

    fn catalogs(&self) -> MutexGuard<'_, Catalogs> {
        self.catalogs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holdings(&self) -> BTreeMap<String, Arc<Holding>> {
        self.holdings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn holding(&self, dataset: &str) -> Result<Arc<Holding>, Error> {
        let holdings = self.holdings.read().unwrap_or_else(PoisonError::into_inner);
        holdings.get(dataset).cloned().ok_or_else(|| Error::NotReady {
            dataset: dataset.to_owned(),
            reason: "it is not in the catalog".to_owned(),
        })
    }
}

fn views_of(catalog: &Catalog, dataset: &str) -> Vec<Arc<View>> {
    catalog.views.values().filter(|view| view.dataset.name == dataset).cloned().collect()
}

#[async_trait]
impl common::speed::SpeedLayer for SpeedLayer {
    async fn freeze(&self, request: &Request) -> Result<Frozen, Error> {
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        let holding = self.holding(&request.dataset)?;
        // Only answers from before this one was asked for: those that are asked at once have no order.
        let before = holding.answered();
        loop {
            let frozen = parts::combine(request, &holding.freeze(&request.partitions, &request.views)?)?;
            // Two sets of workers do not stand at one head.
            if frozen.head.covers(&before) {
                holding.remember(&frozen.head);
                return Ok(frozen);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::NotReached { dataset: request.dataset.clone(), head: frozen.head, wanted: before });
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    async fn reach(&self, dataset: &str, position: &Frontier, wait: Duration) -> Result<(), Error> {
        self.holding(dataset)?.reach(position, wait).await
    }

    fn status(&self, dataset: &str) -> Status {
        self.holding(dataset).map(|holding| holding.status()).unwrap_or_default()
    }
}
