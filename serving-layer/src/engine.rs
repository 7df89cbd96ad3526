//! Queries: each is frozen at one head, merged, planned and run.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    access::Scope,
    catalog::near::near,
    catalog::{Catalog, Dataset, View},
    clock::Clock,
    fault::{Domain, Fault},
    log::Log,
    master,
    position::{Frontier, Partition},
    speed::SpeedLayer,
    storage::{self, Storage},
    supervisor::Supervisor,
    view::ViewTable,
};
use datafusion::{
    arrow::error::ArrowError, error::DataFusionError, execution::memory_pool::FairSpillPool,
    physical_plan::SendableRecordBatchStream,
};
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use crate::{published::Versions, stamp::Stamp};

mod by_name;
mod functions;
mod inspect;
mod offsets;
mod query;
mod rows;
mod session;
mod stop;

pub(crate) use stop::{Stop, StopOnDrop};

/// What the engine is started with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where the master dataset and the batch views are.
    pub storage: Storage,
    /// Where events come from, to tell its ends.
    pub log: Arc<dyn Log>,
    /// The datasets and views.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The states that the batch views lack.
    pub speed: Arc<dyn SpeedLayer>,
    /// Runs the tasks.
    pub supervisor: Supervisor,
    /// How it goes about its work.
    pub settings: Settings,
}

/// How the engine goes about its work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All queries together may use this many bytes; what would use more fails.
    pub memory_bytes: usize,
    /// How often new batch view versions are looked for.
    pub follow_every: Duration,
    /// Into how many parts a query is split, to run side by side.
    pub parallelism: usize,
}

impl Settings {
    /// What the program's settings say.
    pub fn of(settings: &common::settings::Settings) -> Self {
        Self { memory_bytes: common::settings::bytes(settings.serving.memory), ..Self::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let parallelism = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { memory_bytes: 1 << 30, follow_every: Duration::from_millis(200), parallelism }
    }
}

/// Tables that are looked at when somebody asks, by dataset: how far they have been followed, and when that was.
type Followed = BTreeMap<String, Mutex<Option<(master::Follower, Instant)>>>;

/// After a longer pause a table is opened anew: one by one its commits would be many, and the oldest may be gone.
const GOES_ON: Duration = Duration::from_secs(300);

/// Answers queries over views and datasets.
#[derive(Debug)]
pub struct Engine {
    context: Context,
    versions: Arc<Versions>,
    tables: BTreeMap<String, ViewTable>,
    base: session::Base,
    /// The master datasets, as far as queries have looked.
    masters: Followed,
    dead_letters: Followed,
}

/// What a query may demand.
#[derive(Clone, Debug)]
pub struct Options {
    /// By dataset, a frontier that the answer's head must cover.
    pub min_position: BTreeMap<String, Frontier>,
    /// How long to wait for it.
    pub wait: Duration,
    /// Whether partitions that nobody holds may be left out above the views' cuts; the stamp then names them.
    pub allow_partial: bool,
    /// Which views and datasets there are, for who asks.
    pub scope: Scope,
    /// The values of `$1`, `$2`, … in a query, as JSON.
    pub parameters: Vec<Box<RawValue>>,
    /// Stops the query, and whatever its functions are at, from without.
    pub stop: Stop,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            min_position: BTreeMap::new(),
            wait: Duration::from_secs(10),
            allow_partial: false,
            scope: Scope::default(),
            parameters: Vec::new(),
            stop: Stop::default(),
        }
    }
}

/// An answer that is still being computed.
pub struct Answer {
    /// Its rows; an error in it ends the answer.
    pub rows: SendableRecordBatchStream,
    /// The prefix it is over.
    pub stamp: Stamp,
    /// Stops what `rows` cannot be dropped amid.
    pub(crate) stop: Stop,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

/// A view as `/v1/views` shows it.
#[derive(Clone, Debug)]
pub struct ViewInfo {
    /// The view's name.
    pub name: String,
    /// Its dataset.
    pub dataset: String,
    /// Its definition.
    pub definition: String,
    /// Its SQL.
    pub sql: String,
    /// How often it is recomputed.
    pub refresh: Option<Duration>,
    /// Its columns.
    pub columns: datafusion::arrow::datatypes::SchemaRef,
    /// The newest batch view version; `None` before the first.
    pub batch_version: Option<i64>,
    /// Its cut.
    pub cut: Frontier,
    /// The speed layer's head; `None` while it cannot be answered.
    pub head: Option<Frontier>,
}

/// One published version of a view.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// The batch view version.
    pub batch_version: i64,
    /// Its cut.
    pub cut: Frontier,
    /// When it was published, milliseconds since 1970.
    pub published_at_ms: i64,
    /// How many groups it has.
    pub rows: i64,
    /// How many events below its cut are in none of them because the view cannot be computed over them.
    pub failed_events: i64,
    /// Of how many groups something could not be computed.
    pub failed_groups: i64,
}

/// A dataset as `/v1/datasets` shows it.
#[derive(Clone, Debug)]
pub struct DatasetInfo {
    /// The dataset's name.
    pub name: String,
    /// Its columns as events have them.
    pub columns: datafusion::arrow::datatypes::SchemaRef,
    /// Its topic.
    pub topic: String,
    /// The log's first readable offsets; `None` when the log cannot be reached.
    pub log_start: Option<Frontier>,
    /// The log's next offsets; `None` when the log cannot be reached.
    pub log_end: Option<Frontier>,
    /// The master dataset's frontier.
    pub master_frontier: Frontier,
    /// The master dataset's Delta version.
    pub master_version: i64,
    /// Events in the master dataset.
    pub events: i64,
    /// Dead letters below the master's frontier.
    pub dead_letters: i64,
}

/// A dead letter as the API shows it.
#[derive(Clone, Debug)]
pub struct DeadLetterInfo {
    /// The partition.
    pub partition: common::position::Partition,
    /// The offset.
    pub offset: common::position::Offset,
    /// The log's own time, microseconds since 1970.
    pub timestamp_us: i64,
    /// Why it cannot be used.
    pub reason: String,
    /// Its bytes; `None` for a tombstone.
    pub raw: Option<Vec<u8>>,
}

impl Engine {
    /// Opens the views' tables and follows them.
    pub async fn start(context: Context) -> Result<Arc<Self>, Error> {
        let pool = Arc::new(FairSpillPool::new(context.settings.memory_bytes));
        let runtime = context.storage.runtime(pool).map_err(Error::Execution)?;
        let base = session::Base::new(runtime, context.settings.parallelism);
        Self::with(context, base).await
    }

    /// An engine for another catalog, within this one's memory.
    pub async fn succeeded_by(&self, catalog: Arc<Catalog>) -> Result<Arc<Self>, Error> {
        Self::with(Context { catalog, ..self.context.clone() }, self.base.clone()).await
    }

    async fn with(context: Context, base: session::Base) -> Result<Arc<Self>, Error> {
        let storage_failed = |source: storage::Error| Error::storage("open the batch views", source);
        let follow_every = context.settings.follow_every;
        let versions = Versions::follow(&context.storage, &context.catalog, follow_every, &context.supervisor)
            .await
            .map_err(storage_failed)?;
        let mut tables = BTreeMap::new();
        for view in context.catalog.views.values() {
            tables.insert(view.name.clone(), ViewTable::new(&context.storage, view).map_err(storage_failed)?);
        }
        let (mut masters, mut dead_letters) = (BTreeMap::new(), BTreeMap::new());
        for dataset in context.catalog.datasets.values() {
            masters.insert(dataset.name.clone(), Mutex::new(None));
            dead_letters.insert(dataset.name.clone(), Mutex::new(None));
        }
        Ok(Arc::new(Self { context, versions, tables, base, masters, dead_letters }))
    }

    /// The datasets and views.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.context.catalog
    }

    fn view_named(&self, view: &str, scope: &Scope) -> Result<&Arc<View>, Error> {
        let there_are = || self.context.catalog.views.keys().filter(|name| scope.views.allow(name));
        let view_of = self.context.catalog.views.get(view).filter(|_| scope.views.allow(view));
        view_of.ok_or_else(|| Error::unknown("view", view, there_are()))
    }

    fn dataset_named(&self, dataset: &str, scope: &Scope) -> Result<&Arc<Dataset>, Error> {
        let there_are = || self.context.catalog.datasets.keys().filter(|name| scope.datasets.allow(name));
        let dataset_of = self.context.catalog.datasets.get(dataset).filter(|_| scope.datasets.allow(dataset));
        dataset_of.ok_or_else(|| Error::unknown("dataset", dataset, there_are()))
    }

    /// How many partitions a dataset's topic has. The log remembers what it has found.
    async fn partitions(&self, dataset: &Dataset) -> Result<Partition, Error> {
        let count = self.context.log.ensure_topic(&dataset.topic, dataset.partitions).await;
        count.map_err(|source| Error::storage(&format!("reach the log of `{}`", dataset.name), source))
    }

    /// The master dataset at its newest version.
    async fn master(&self, dataset: &Dataset) -> Result<master::Version, Error> {
        self.newest(&self.masters, dataset, false).await
    }

    async fn newest(
        &self,
        followers: &Followed,
        dataset: &Dataset,
        dead_letters: bool,
    ) -> Result<master::Version, Error> {
        let failed = |source| Error::storage("read the newest version of the dataset", source);
        let Some(follower) = followers.get(&dataset.name) else {
            return Err(Error::unknown("dataset", &dataset.name, followers.keys()));
        };
        let partitions = self.partitions(dataset).await?;
        let mut looked = follower.lock().await;
        let mut follower = match looked.take().filter(|(_, at)| at.elapsed() < GOES_ON) {
            Some((follower, _)) => follower,
            None => {
                let storage = &self.context.storage;
                let opened = match dead_letters {
                    true => master::Follower::open_dead_letters(storage, dataset, partitions).await,
                    false => master::Follower::open(storage, dataset, partitions).await,
                };
                opened.map_err(failed)?
            }
        };
        while follower.advance().await.map_err(failed)? {}
        let newest = follower.at().clone();
        *looked = Some((follower, Instant::now()));
        Ok(newest)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error("there is no {kind} `{name}`")]
    Unknown {
        /// `view`, `dataset`, `column` or `job`.
        kind: &'static str,
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    #[error("{reason}")]
    Refused {
        /// Why the query cannot be run, in the user's terms.
        reason: String,
        hint: Option<String>,
        /// Where in the SQL, both from 1.
        at: Option<(u64, u64)>,
    },
    #[error(transparent)]
    Speed(#[from] common::speed::Error),
    #[error("could not {action}")]
    Storage { action: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the query failed")]
    Execution(#[source] datafusion::error::DataFusionError),
    /// Something that cannot be, unless Lamina is wrong.
    #[error("{0}")]
    Defect(String),
}

impl Error {
    fn unknown<'a>(kind: &'static str, name: &str, candidates: impl IntoIterator<Item = &'a String>) -> Self {
        let near = near(name, candidates.into_iter().map(String::as_str)).into_iter().map(str::to_owned).collect();
        Self::Unknown { kind, name: name.to_owned(), near }
    }

    fn storage(action: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Storage { action: action.to_owned(), source: Box::new(source) }
    }

    fn refused(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), hint: Some(hint.into()), at: None }
    }

    /// Whether the planner gives two columns one name.
    fn is_of_names(&self) -> bool {
        let said = ["unique expression names", "duplicate unqualified field name", "duplicate qualified field name"];
        matches!(self, Self::Refused { reason, .. } if said.iter().any(|said| reason.contains(said)))
    }
}

impl Fault for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::Unknown { .. } | Self::Refused { .. } => Domain::User,
            Self::Speed(error) => error.domain(),
            Self::Storage { source, .. } => {
                not_the_users(source.downcast_ref::<storage::Error>().map_or(Domain::External, Fault::domain))
            }
            Self::Execution(error) => domain_of_execution(error),
            Self::Defect(_) => Domain::Internal,
        }
    }
}

/// Whose failure an error is that came up while a query ran: of its values, of what is around Lamina, or Lamina's own.
fn domain_of_execution(error: &DataFusionError) -> Domain {
    use ArrowError as A;
    use DataFusionError as E;
    match error.find_root() {
        E::Execution(_) | E::Plan(_) | E::SQL(..) | E::NotImplemented(_) => Domain::User,
        E::ArrowError(error, _) => match error.as_ref() {
            // What a batch's parts must be is nothing that a query says.
            A::InvalidArgumentError(said) if said.contains("match schema") || said.contains("number of columns") => {
                Domain::Internal
            }
            A::NotYetImplemented(_)
            | A::CastError(_)
            | A::ParseError(_)
            | A::ComputeError(_)
            | A::DivideByZero
            | A::ArithmeticOverflow(_)
            | A::OffsetOverflowError(_)
            | A::InvalidArgumentError(_) => Domain::User,
            A::MemoryError(_) | A::IoError(..) => Domain::External,
            _ => Domain::Internal,
        },
        E::ObjectStore(_) | E::IoError(_) | E::ResourcesExhausted(_) => Domain::External,
        E::External(error) => {
            let of_speed = error.downcast_ref::<common::speed::Error>().map(Fault::domain);
            let of_storage = || error.downcast_ref::<storage::Error>().map(Fault::domain);
            let of_log = || error.downcast_ref::<common::log::Error>().map(Fault::domain);
            not_the_users(of_speed.or_else(of_storage).or_else(of_log).unwrap_or(Domain::Internal))
        }
        _ => Domain::Internal,
    }
}

/// What is wrong with a store or a topic is the operator's to put right, not the caller's.
fn not_the_users(domain: Domain) -> Domain {
    if domain == Domain::User { Domain::External } else { domain }
}
