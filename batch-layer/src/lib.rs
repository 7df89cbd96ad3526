//! Lamina's batch layer: archives the log in the master dataset and recomputes views from it.
//!
//! In reading order: the [`appender`] moves events from the log to the master dataset, exactly once; [`recompute`] makes
//! a batch view version of a view; the [`scheduler`] says when, and does it on demand; [`maintenance`] deletes the files
//! that nobody can read any more; [`pinned`] keeps a dataset's definition from changing under its data; [`deploy`] takes a
//! changed catalog up while all that goes on.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use common::{
    catalog::{Catalog, published},
    clock::Clock,
    jobs::{Job, Kind},
    log::Log,
    operate,
    settings::bytes,
    storage::Storage,
    supervisor::Supervisor,
};

mod appender;
pub mod deploy;
pub mod lost;
mod maintenance;
pub mod metrics;
mod pinned;
mod recompute;
mod retry;
mod scheduler;
pub mod service;
mod turns;

/// What the batch layer is started with.
#[derive(Clone, Debug)]
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
    /// Runs recomputes, apart from what must answer quickly.
    pub compute: tokio::runtime::Handle,
    /// How it goes about its work.
    pub settings: Settings,
}

/// How the batch layer goes about its work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A batch is archived once it has this many events,
    pub flush_rows: usize,
    /// or this many bytes as they came,
    pub flush_bytes: usize,
    /// or its first event has waited this long.
    pub flush_age: Duration,
    /// So many files of the master dataset that are about as large as one another are merged into one.
    pub merge_files: usize,
    /// A recompute may use this many bytes, and spills to disk beyond.
    pub memory_bytes: usize,
    /// Into how many parts a recompute is split, to run side by side.
    pub parallelism: usize,
    /// Files of old batch view versions are deleted after this time: longer than any query and job.
    pub retention: Duration,
    /// A file of a batch view holds so many groups, at most.
    pub file_rows: usize,
    /// Whether views are recomputed on their schedules; on demand they always are.
    pub schedule: bool,
    /// Who runs the jobs of this process, by the name of its data folder or host.
    pub owner: String,
}

impl Settings {
    /// What the program's settings say; `owner` names the process in job records.
    pub fn of(settings: &common::settings::Settings, owner: String) -> Self {
        Self {
            flush_rows: settings.batch.flush_rows,
            flush_bytes: bytes(settings.batch.flush_bytes),
            flush_age: settings.batch.flush_age,
            memory_bytes: bytes(settings.batch.memory),
            retention: settings.batch.retention,
            owner,
            ..Self::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_rows: 500_000,
            flush_bytes: 64 << 20,
            flush_age: Duration::from_secs(5),
            merge_files: 16,
            memory_bytes: 2 << 30,
            parallelism: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            retention: Duration::from_secs(1800),
            file_rows: 256 << 10,
            schedule: true,
            owner: "lamina".to_owned(),
        }
    }
}

/// Why the batch layer does not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error(
        "dataset `{dataset}` is not defined as it was when its first events were archived, and its events would be read \
         in two ways: {difference}; restore the definition, or give the changed dataset another name"
    )]
    DatasetChanged { dataset: String, difference: String },
    #[error(
        "dataset `{dataset}` was archived from topic `{before}`, and `{topic}` has other events at the same positions; \
         restore the topic, or give the changed dataset another name"
    )]
    TopicChanged { dataset: String, before: String, topic: String },
    #[error(transparent)]
    Storage(#[from] common::storage::Error),
    #[error(transparent)]
    Log(#[from] common::log::Error),
    #[error("could not register metrics")]
    Metrics(#[from] prometheus::Error),
}

/// The batch layer of one process.
#[derive(Debug)]
pub struct BatchLayer {
    /// Its catalog is the one that it was started with.
    context: Context,
    metrics: metrics::Metrics,
    at_work: RwLock<AtWork>,
}

/// What works by one catalog.
#[derive(Clone, Debug)]
struct AtWork {
    catalog: Arc<Catalog>,
    tasks: Supervisor,
    scheduler: Arc<scheduler::Scheduler>,
}

impl BatchLayer {
    /// Checks the datasets' definitions and starts appenders, schedules and maintenance.
    pub async fn start(context: Context) -> Result<Arc<Self>, Error> {
        let metrics = metrics::Metrics::new(&context.registry)?;
        pinned::check(&context.storage, &context.catalog).await?;
        scheduler::end_lost(&context).await?;
        let at_work = RwLock::new(AtWork::begin(&context, context.catalog.clone(), &metrics));
        Ok(Arc::new(Self { context, metrics, at_work }))
    }

    /// Whether `catalog` could be taken up.
    async fn check(&self, catalog: &Catalog) -> Result<(), Error> {
        let present = self.at_work().catalog;
        for dataset in catalog.datasets.values() {
            let before = present.datasets.get(&dataset.name).map(|before| &before.topic);
            if let Some(before) = before.filter(|before| **before != dataset.topic) {
                let (dataset, topic) = (dataset.name.clone(), dataset.topic.clone());
                return Err(Error::TopicChanged { dataset, before: before.clone(), topic });
            }
        }
        pinned::check(&self.context.storage, catalog).await
    }

    /// Works by another catalog from now on. What is at work ends in order first: appenders commit what they have, jobs
    /// are told to stop.
    async fn take_up(&self, catalog: Arc<Catalog>) {
        self.at_work().tasks.end().await;
        let new = AtWork::begin(&self.context, catalog, &self.metrics);
        *self.at_work.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Recomputes the views of `before` that are other ones now on their schedules, until the present ones have been
    /// built: until then they are what answers come from.
    fn keep_up(&self, before: &Catalog) {
        let AtWork { catalog, scheduler, .. } = self.at_work();
        scheduler.keep_up(&published::changed(before, &catalog), &published::changed(&catalog, before));
    }

    fn at_work(&self) -> AtWork {
        self.at_work.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl AtWork {
    fn begin(context: &Context, catalog: Arc<Catalog>, metrics: &metrics::Metrics) -> Self {
        let tasks = context.supervisor.child();
        let context = Arc::new(Context { catalog: catalog.clone(), supervisor: tasks.clone(), ..context.clone() });
        for dataset in catalog.datasets.values() {
            let appender = appender::Appender::new(context.clone(), dataset.clone(), metrics.clone());
            tasks.spawn(format!("appender of {}", dataset.name), appender.run());
        }
        let scheduler = scheduler::Scheduler::start(context.clone(), metrics.clone());
        tasks.spawn("maintenance of the views", maintenance::run(context));
        Self { catalog, tasks, scheduler }
    }
}

#[async_trait]
impl operate::BatchLayer for BatchLayer {
    async fn recompute(&self, view: &str) -> Result<Job, operate::Error> {
        self.at_work().scheduler.recompute(view, Kind::Recompute).await
    }

    async fn jobs(&self, limit: usize) -> Result<Vec<Job>, operate::Error> {
        self.at_work().scheduler.jobs(limit).await
    }

    async fn job(&self, id: &str) -> Result<Job, operate::Error> {
        self.at_work().scheduler.job(id).await
    }

    fn troubles(&self) -> Vec<String> {
        self.metrics.troubles.all()
    }
}
