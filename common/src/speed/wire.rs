//! What serving layer and speed layer say to each other over Arrow Flight. Requests and short answers are JSON in the
//! bodies of actions and tickets; states are streams of record batches in the fold's state schema.
//!
//! A query is two steps. `freeze` names every view, cut and partition that it needs and freezes each partition once for
//! all of them; the worker keeps what it has frozen until the asker is done with it, [`KEPT`] at most. `DoGet` then
//! reads the states of one view from the cut that was chosen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use datafusion::arrow::{
    array::{ArrayRef, RecordBatch},
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use serde::{Deserialize, Serialize};

use super::{Error, Status, ViewRequest};
use crate::{
    fold::Failed,
    position::{Frontier, Partition},
};

/// Action: how the worker stands. Body [`StatusRequest`]; answered with [`WorkerStatus`].
pub const STATUS: &str = "lamina.status";
/// Action: freeze partitions. Body [`FreezeRequest`], answered with [`FreezeAnswer`].
pub const FREEZE: &str = "lamina.freeze";
/// Action: wait until the head has come so far. Body [`ReachRequest`], answered with [`ReachAnswer`].
pub const REACH: &str = "lamina.reach";

/// How long a worker keeps what it has frozen for an asker that does not say when it is done.
pub const KEPT: Duration = Duration::from_secs(60);

/// Asks how a worker stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatusRequest {
    /// What was frozen for the asker, and is not needed any more.
    #[serde(default)]
    pub released: Vec<FreezeId>,
    /// By definition of a view, the newest cut that the asker has found possible on every owner: older ones can go.
    #[serde(default)]
    pub complete: BTreeMap<String, Frontier>,
}

/// Names what was frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeId {
    /// The process: another one gives the same numbers to other queries.
    pub instance: String,
    /// The number of the freeze in it.
    pub id: u64,
}

/// What a worker holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Another value is another process: what the one before had frozen is gone.
    pub instance: String,
    /// By dataset.
    pub datasets: BTreeMap<String, Held>,
    /// Whether it is about to stop: another owner is to be preferred.
    pub leaving: bool,
}

/// What a worker holds of a dataset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// The next offset of each partition whose states are built up.
    pub head: Frontier,
    /// By definition of a view, the next offset of each partition that it can be answered for.
    pub views: BTreeMap<String, Frontier>,
    /// By definition of a view, the batch views' cuts that its states can be taken from, oldest first.
    #[serde(default)]
    pub cuts: BTreeMap<String, Vec<Frontier>>,
    /// How the worker's part of it stands.
    pub status: Status,
}

/// Asks for partitions to be frozen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FreezeRequest {
    /// The dataset.
    pub dataset: String,
    /// Which of its partitions.
    pub partitions: BTreeSet<Partition>,
    /// The views.
    pub views: Vec<ViewRequest>,
    /// The format of states that the asker can read.
    pub state_format: u32,
}

/// What has been frozen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FreezeAnswer {
    /// Names it in tickets, together with the process: another one gives the same numbers to other queries.
    pub instance: String,
    /// Names it in tickets.
    pub id: u64,
    /// The partitions, and the next offset of each.
    pub head: Frontier,
    /// The age of the oldest logged event that is not in it.
    pub freshness_ms: Option<i64>,
    /// Why the head does not move; absent in answers of workers that are older than this member.
    #[serde(default)]
    pub stopped: Option<String>,
    /// For each view, which of its cuts are possible.
    pub possible: Vec<Vec<bool>>,
    /// For each view and cut, the failed events from there to the head.
    #[serde(default)]
    pub failed: Vec<Vec<Failed>>,
}

/// Asks for the states of one view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// By which process.
    pub instance: String,
    /// What was frozen.
    pub id: u64,
    /// Which of the request's views.
    pub view: usize,
    /// Which of its cuts.
    pub cut: usize,
    /// The format of states that the asker can read.
    pub state_format: u32,
    /// Which group key is to have which values: its place, and an Arrow IPC stream of one column, in base64.
    pub filter: Option<(usize, String)>,
}

/// Asks to wait for a head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReachRequest {
    /// The dataset.
    pub dataset: String,
    /// What the head has to reach.
    pub position: Frontier,
    /// How long to wait for it.
    pub wait_ms: u64,
}

/// How far the head has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReachAnswer {
    /// The head.
    pub head: Frontier,
}

/// An error of a worker's, in the message of a Flight status.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `Error`")]
pub enum Failure {
    NotReady {
        dataset: String,
        reason: String,
    },
    CatchingUp {
        dataset: String,
        head: Frontier,
        target: Frontier,
    },
    NoCut {
        view: String,
    },
    NoCommonCut {
        dataset: String,
        partitions: Vec<Partition>,
        views: String,
    },
    Failed {
        view: String,
        reason: String,
    },
    NoOwner {
        dataset: String,
        partitions: Vec<Partition>,
    },
    NotReached {
        dataset: String,
        head: Frontier,
        wanted: Frontier,
    },
    /// What was frozen is not kept any more.
    Gone,
    /// The worker's states are of another format.
    Format {
        states: u32,
    },
    Internal {
        reason: String,
    },
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::NotReady { dataset, reason } => Self::NotReady { dataset: dataset.clone(), reason: reason.clone() },
            Error::CatchingUp { dataset, head, target } => {
                Self::CatchingUp { dataset: dataset.clone(), head: head.clone(), target: target.clone() }
            }
            Error::NoCut { view } => Self::NoCut { view: view.clone() },
            Error::NoCommonCut { dataset, partitions, views } => {
                Self::NoCommonCut { dataset: dataset.clone(), partitions: partitions.clone(), views: views.clone() }
            }
            Error::Failed { view, reason } => Self::Failed { view: view.clone(), reason: reason.clone() },
            Error::NoOwner { dataset, partitions } => {
                Self::NoOwner { dataset: dataset.clone(), partitions: partitions.clone() }
            }
            Error::NotReached { dataset, head, wanted } => {
                Self::NotReached { dataset: dataset.clone(), head: head.clone(), wanted: wanted.clone() }
            }
            Error::Unreachable(_) | Error::Internal(_) => Self::Internal { reason: crate::fault::chain(error) },
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotReady { dataset, reason } => Self::NotReady { dataset, reason },
            Failure::CatchingUp { dataset, head, target } => Self::CatchingUp { dataset, head, target },
            Failure::NoCut { view } => Self::NoCut { view },
            Failure::NoCommonCut { dataset, partitions, views } => Self::NoCommonCut { dataset, partitions, views },
            Failure::Failed { view, reason } => Self::Failed { view, reason },
            Failure::NoOwner { dataset, partitions } => Self::NoOwner { dataset, partitions },
            Failure::NotReached { dataset, head, wanted } => Self::NotReached { dataset, head, wanted },
            Failure::Gone => Self::Unreachable("what it had frozen for the query is gone".into()),
            Failure::Format { states } => Self::Unreachable(
                format!("its states are of format {states}, which this serving layer cannot read: upgrade it").into(),
            ),
            Failure::Internal { reason } => Self::Internal(reason.into()),
        }
    }
}

/// Key values as an Arrow IPC stream of one column, in base64: how a [`Ticket`] carries them.
pub fn encode_values(values: &ArrayRef) -> Result<String, ArrowError> {
    let batch = RecordBatch::try_from_iter_with_nullable([("key", values.clone(), true)])?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    Ok(BASE64.encode(writer.into_inner()?))
}

/// What [`encode_values`] wrote.
pub fn decode_values(text: &str) -> Result<ArrayRef, ArrowError> {
    let bytes = BASE64.decode(text).map_err(|error| ArrowError::ParseError(error.to_string()))?;
    let batch = StreamReader::try_new(bytes.as_slice(), None)?.next();
    let batch = batch.ok_or_else(|| ArrowError::ParseError("there are no key values".to_owned()))??;
    Ok(batch.column(0).clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn key_values_come_back_as_they_were() {
        let check = |values: ArrayRef| {
            let text = encode_values(&values).unwrap();
            assert_eq!(&decode_values(&text).unwrap(), &values);
        };
        check(Arc::new(Int64Array::from(vec![1, i64::MAX])));
        check(Arc::new(StringViewArray::from(vec!["", "a text that does not fit into a view"])));
    }
}
