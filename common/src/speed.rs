//! What the serving layer asks of the speed layer: the states of what the batch views do not have yet.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        compute::filter_record_batch,
        datatypes::{DataType, Float32Type, Float64Type, Schema},
        record_batch::RecordBatch,
    },
    common::{ScalarValue, cast::as_boolean_array},
    error::DataFusionError,
    physical_expr::expressions::{Column, in_list, lit},
    physical_plan::PhysicalExpr,
};
use serde::{Deserialize, Serialize};

use crate::{
    fault::{Domain, Fault},
    fold::Failed,
    position::{Frontier, Partition},
    sql::{canonical_f32, canonical_f64},
};

pub mod parts;
pub mod wire;

/// The speed layer, as the serving layer sees it.
#[async_trait]
pub trait SpeedLayer: Send + Sync + Debug {
    /// Freezes a dataset at one head and gives the states of every view asked for, from its cut to that head. Each
    /// partition is frozen once for all of them, so all views of one answer stand at one head.
    async fn freeze(&self, request: &Request) -> Result<Frozen, Error>;

    /// Waits until the head of `dataset` has reached `position`; fails with [`Error::NotReached`] after `wait`.
    async fn reach(&self, dataset: &str, position: &Frontier, wait: Duration) -> Result<(), Error>;

    /// How the dataset stands, over all its partitions; the default for a dataset that is not known.
    fn status(&self, dataset: &str) -> Status;
}

/// Which states are wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The dataset.
    pub dataset: String,
    /// The partitions that the answer is to be over: all that the topic has.
    pub partitions: BTreeSet<Partition>,
    /// Its views.
    pub views: Vec<ViewRequest>,
    /// Whether partitions that nobody holds may be left at the views' cuts; the answer then names them.
    pub allow_partial: bool,
}

/// The states of one view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ViewRequest {
    /// The view's name.
    pub view: String,
    /// Its definition; another one's states are of no use.
    pub definition: String,
    /// The cuts that the serving layer could complete, the best one first.
    pub cuts: Vec<Frontier>,
    /// Whether the newest failed events are wanted, not only how many there are.
    #[serde(default)]
    pub with_failed: bool,
}

/// One prefix of a dataset's log.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Its end: every partition's next offset.
    pub head: Frontier,
    /// The age of the oldest logged event that is not in it; 0 if there is none, `None` if that cannot be told.
    pub freshness_ms: Option<i64>,
    /// Why the head does not move, in whichever part of it does not; `None` when all is well.
    pub stopped: Option<String>,
    /// The views, in the request's order.
    pub views: Vec<FrozenView>,
    /// Partitions that nobody holds: nothing above the views' cuts is in the answer. Empty unless asked for.
    pub missing: BTreeSet<Partition>,
}

/// One view's states from its cut to the head.
#[derive(Clone, Debug)]
pub struct FrozenView {
    /// Which of the request's cuts the states begin at.
    pub cut_index: usize,
    /// The events from there to the head that are not in the states because the view cannot be computed over them.
    pub failed: Failed,
    /// The states.
    pub states: Arc<dyn States>,
}

/// Frozen states: however often they are read, they are the same.
#[async_trait]
pub trait States: Send + Sync + Debug {
    /// The state rows, in the fold's state schema; a group may have several. With `filter`, at least the rows of the
    /// groups that it names.
    async fn read(&self, filter: Option<&KeyFilter>) -> Result<Vec<RecordBatch>, Error>;
}

/// Groups by the value of one of their keys.
#[derive(Clone, Debug)]
pub struct KeyFilter {
    /// Which group key.
    pub key: usize,
    /// Its values, of the key's type; none is null.
    pub values: ArrayRef,
}

/// The values as group keys have them: of those that are equal and have several bit patterns, one.
pub fn canonical(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float32 => Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(canonical_f32)),
        DataType::Float64 => Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical_f64)),
        _ => values.clone(),
    }
}

impl KeyFilter {
    /// Groups whose key number `key` equals one of `values`.
    pub fn new(key: usize, values: &ArrayRef) -> Self {
        Self { key, values: canonical(values) }
    }

    /// The same over rows of `schema`, whose column number `key` is that group key.
    pub fn predicate(&self, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let column = Arc::new(Column::new(schema.field(self.key).name(), self.key));
        let values: Result<Vec<Arc<dyn PhysicalExpr>>, DataFusionError> =
            (0..self.values.len()).map(|i| Ok(lit(ScalarValue::try_from_array(&self.values, i)?))).collect();
        in_list(column, values?, &false, schema)
    }
}

/// The rows of `batch` that pass `predicate`.
pub fn keep(batch: &RecordBatch, predicate: &dyn PhysicalExpr) -> Result<RecordBatch, DataFusionError> {
    let passes = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
    Ok(filter_record_batch(batch, as_boolean_array(&passes)?)?)
}

/// How a dataset stands in the speed layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The head, once the dataset can be answered from.
    pub head: Option<Frontier>,
    /// The age of the oldest logged event that is not below the head, as in [`Frozen`].
    pub freshness_ms: Option<i64>,
    /// Why the head does not move or there is none; `None` when all is well.
    pub stopped: Option<String>,
    /// How far it has come, while it has not read yet what the log had when it was started: until then there is no head.
    #[serde(default)]
    pub catching_up: Option<CatchingUp>,
}

/// A start that goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CatchingUp {
    /// How far the log has been read.
    pub head: Frontier,
    /// Where the log ended at the start.
    pub target: Frontier,
}

impl CatchingUp {
    /// The same as an error, for `dataset`.
    pub fn error(self, dataset: &str) -> Error {
        Error::CatchingUp { dataset: dataset.to_owned(), head: self.head, target: self.target }
    }
}

/// Why the speed layer cannot give the states.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error("dataset `{dataset}` is being rebuilt in the speed layer: {reason}")]
    NotReady { dataset: String, reason: String },
    #[error("the speed layer has read `{dataset}` up to {head} of {target}, where the log ended when it was started")]
    CatchingUp { dataset: String, head: Frontier, target: Frontier },
    #[error("the speed layer cannot complete any known cut of view `{view}`: it is being rebuilt")]
    NoCut { view: String },
    #[error(
        "no worker holds partitions {partitions:?} of dataset `{dataset}`, where the batch views of {views} end at \
         different positions"
    )]
    NoCommonCut { dataset: String, partitions: Vec<Partition>, views: String },
    #[error("view `{view}` cannot be computed: {reason}; correct its SQL, or the events it fails on")]
    Failed { view: String, reason: String },
    #[error("no worker holds partitions {partitions:?} of dataset `{dataset}`")]
    NoOwner { dataset: String, partitions: Vec<Partition> },
    #[error("the head of `{dataset}` stands at {head} and has not reached {wanted} in time")]
    NotReached { dataset: String, head: Frontier, wanted: Frontier },
    #[error("a worker of the speed layer did not answer")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the speed layer failed")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Fault for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::NotReady { .. }
            | Self::CatchingUp { .. }
            | Self::NoCut { .. }
            | Self::NoCommonCut { .. }
            | Self::NoOwner { .. }
            | Self::NotReached { .. }
            | Self::Unreachable(_) => Domain::External,
            Self::Failed { .. } | Self::Internal(_) => Domain::Internal,
        }
    }
}
