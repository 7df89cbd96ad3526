//! Records of recomputes, kept in the object store so that they outlive the process.

use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    position::Frontier,
    storage::{Error, Storage},
};

/// One piece of the batch layer's work, as `/v1/jobs` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// A UUID whose order is the order of creation.
    pub id: String,
    /// The view it works on.
    pub view: String,
    /// The view's definition.
    pub definition: String,
    /// What it does.
    pub kind: Kind,
    /// How far it has come.
    pub state: State,
    /// The share that is done, 0 to 1.
    pub progress: f64,
    /// The cut that it works towards: announced before the first row is read.
    pub cut: Option<Frontier>,
    /// The batch view version that it published; `None` also when there was nothing new to publish.
    pub batch_version: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
    /// When it began, RFC 3339.
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
    /// The process that runs it.
    pub owner: String,
    /// When that process last said that it is at it, milliseconds since 1970.
    pub heartbeat_ms: i64,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Recompute of a view from the whole master dataset, on its schedule.
    ScheduledRecompute,
    /// The same, because somebody asked.
    Recompute,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for its turn.
    Queued,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Given up; `error` says why.
    Failed,
}

/// So many records are kept.
const KEPT: usize = 200;
/// A job whose process has not said for so long that it is at it has lost it.
const LOST_AFTER_MS: i64 = 30_000;

/// The job records under the store's root.
#[derive(Clone, Debug)]
pub struct Jobs {
    storage: Storage,
}

impl Jobs {
    /// The records in `storage`.
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    fn path(id: &str) -> Path {
        Path::from(format!("jobs/{id}.json"))
    }

    /// Writes a record, in the place of what it said before.
    pub async fn put(&self, job: &Job) -> Result<(), Error> {
        let path = Self::path(&job.id);
        let text = serde_json::to_vec(job).unwrap_or_default();
        let put = self.storage.objects().put(&path, text.into()).await;
        put.map(|_| ()).map_err(|source| Error::Object { action: "write", path: path.to_string(), source })
    }

    /// One record; `None` when there is none of that id.
    pub async fn get(&self, id: &str) -> Result<Option<Job>, Error> {
        let path = Self::path(id);
        let read = async { self.storage.objects().get(&path).await?.bytes().await };
        match read.await {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::Object { action: "read", path: path.to_string(), source }),
        }
    }

    /// The newest records first, at most `limit`.
    pub async fn list(&self, limit: usize) -> Result<Vec<Job>, Error> {
        let mut jobs = Vec::new();
        for id in self.ids().await?.iter().take(limit) {
            jobs.extend(self.get(id).await?);
        }
        Ok(jobs)
    }

    /// Ids, newest first: they sort by when they were made.
    async fn ids(&self) -> Result<Vec<String>, Error> {
        let prefix = Path::from("jobs");
        let listed: Result<Vec<_>, _> = self.storage.objects().list(Some(&prefix)).try_collect().await;
        let listed = listed.map_err(|source| Error::Object { action: "list", path: prefix.to_string(), source })?;
        let mut ids: Vec<String> = listed
            .iter()
            .filter_map(|object| object.location.filename()?.strip_suffix(".json").map(str::to_owned))
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Marks jobs whose process has ended as failed, and forgets the oldest.
    pub async fn tidy(&self, owner: &str, now: &dyn Clock) -> Result<(), Error> {
        let ids = self.ids().await?;
        for id in ids.iter().take(KEPT) {
            let Some(mut job) = self.get(id).await? else { continue };
            let lost = job.owner == owner || now.now_ms() - job.heartbeat_ms > LOST_AFTER_MS;
            if matches!(job.state, State::Queued | State::Running) && lost {
                job.state = State::Failed;
                job.error = Some("the process that ran it ended".to_owned());
                job.ended_at = Some(rfc3339(now.now_ms()));
                self.put(&job).await?;
            }
        }
        for id in ids.iter().skip(KEPT) {
            let path = Self::path(id);
            let deleted = self.storage.objects().delete(&path).await;
            deleted.map_err(|source| Error::Object { action: "delete", path: path.to_string(), source })?;
        }
        Ok(())
    }
}

/// A time as records have it.
pub fn rfc3339(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
