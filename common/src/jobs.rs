//! Records of recomputes, kept in the object store so that they outlive the process.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    position::Frontier,
    storage::{Error, Storage, damage},
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
/// An id is a UUID.
const ID_LENGTH_MAX: usize = 64;
/// So many records are read at once.
const AT_ONCE: usize = 16;
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
        // What is no id is not looked for: a store has its own view of long names.
        if id.len() > ID_LENGTH_MAX {
            return Ok(None);
        }
        let path = Self::path(id);
        let read = async { self.storage.objects().get(&path).await?.bytes().await };
        let text = match read.await {
            Ok(text) => text,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => {
                return Err(match damage(&source) {
                    Some(damage) => Error::Corrupt { table: path.to_string(), detail: damage.to_string() },
                    None => Error::Object { action: "read", path: path.to_string(), source },
                });
            }
        };
        let job = serde_json::from_slice(&text);
        job.map(Some).map_err(|error| Error::Corrupt { table: path.to_string(), detail: error.to_string() })
    }

    /// The newest records first, at most `limit`. One that cannot be read is left out, with a warning: it must not
    /// hide the others.
    pub async fn list(&self, limit: usize) -> Result<Vec<Job>, Error> {
        self.read(self.ids().await?.into_iter().take(limit).collect()).await
    }

    async fn read(&self, ids: Vec<String>) -> Result<Vec<Job>, Error> {
        let mut records = stream::iter(ids).map(|id| async move { self.get(&id).await }).buffered(AT_ONCE);
        let mut jobs = Vec::new();
        while let Some(record) = records.next().await {
            match record {
                Ok(job) => jobs.extend(job),
                Err(Error::Corrupt { table, detail }) => tracing::warn!("job record `{table}` is unreadable: {detail}"),
                Err(error) => return Err(error),
            }
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

    /// At the start of a process: jobs of `owner`'s earlier process, and those whose process has not said for a while
    /// that it is at them, have failed.
    pub async fn end_lost(&self, owner: &str, now: &dyn Clock) -> Result<(), Error> {
        let is_old = |job: &Job| now.now_ms() - job.heartbeat_ms > LOST_AFTER_MS;
        self.end(|job| job.owner == owner || is_old(job), now).await
    }

    /// Later: jobs of others whose process has not said for a while that it is at them have failed. One that was killed
    /// shortly before this process began had not been silent for long enough then.
    pub async fn end_abandoned(&self, owner: &str, now: &dyn Clock) -> Result<(), Error> {
        let is_old = |job: &Job| now.now_ms() - job.heartbeat_ms > LOST_AFTER_MS;
        self.end(|job| job.owner != owner && is_old(job), now).await
    }

    async fn end(&self, is_lost: impl Fn(&Job) -> bool, now: &dyn Clock) -> Result<(), Error> {
        for mut job in self.list(KEPT).await? {
            if matches!(job.state, State::Queued | State::Running) && is_lost(&job) {
                job.state = State::Failed;
                job.error = Some("the process that ran it ended".to_owned());
                job.ended_at = Some(rfc3339(now.now_ms()));
                self.put(&job).await?;
            }
        }
        Ok(())
    }

    /// Forgets all but the newest records.
    pub async fn prune(&self) -> Result<(), Error> {
        for id in self.ids().await?.iter().skip(KEPT) {
            let path = Self::path(id);
            match self.storage.objects().delete(&path).await {
                // Another process may prune too.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(Error::Object { action: "delete", path: path.to_string(), source }),
            }
        }
        Ok(())
    }
}

/// The cuts that running jobs have announced.
#[derive(Debug)]
pub struct Announced {
    jobs: Jobs,
    /// Jobs that have ended: their records are not read again.
    ended: BTreeSet<String>,
}

impl Announced {
    /// Those of the records in `storage`.
    pub fn new(storage: Storage) -> Self {
        Self { jobs: Jobs::new(storage), ended: BTreeSet::new() }
    }

    /// By view, the cuts that running jobs work towards: its states must stay separable there. A job that is no longer
    /// named has ended, so what it published can be seen by now.
    pub async fn look(&mut self) -> Result<BTreeMap<String, Vec<Frontier>>, Error> {
        let ids: Vec<String> = self.jobs.ids().await?.into_iter().take(KEPT).collect();
        self.ended.retain(|id| ids.contains(id));
        let open = ids.into_iter().filter(|id| !self.ended.contains(id)).collect();
        let mut announced: BTreeMap<String, Vec<Frontier>> = BTreeMap::new();
        for job in self.jobs.read(open).await? {
            match job.state {
                State::Queued => {}
                State::Running => announced.entry(job.view).or_default().extend(job.cut),
                State::Succeeded | State::Failed => {
                    self.ended.insert(job.id);
                }
            }
        }
        Ok(announced)
    }
}

/// A time as records have it.
pub fn rfc3339(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    /// Long after 1970, and always the same.
    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn now_us(&self) -> i64 {
            1_700_000_000_000_000
        }
    }

    fn jobs() -> Jobs {
        Jobs::new(Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap())
    }

    fn job(id: usize, owner: &str, state: State, heartbeat_age_ms: i64) -> Job {
        Job {
            id: format!("{id:04}"),
            view: "daily".to_owned(),
            definition: "d".to_owned(),
            kind: Kind::Recompute,
            state,
            progress: 0.5,
            cut: Some([(0, i64::try_from(id).unwrap())].into_iter().collect()),
            batch_version: None,
            error: None,
            created_at: rfc3339(0),
            started_at: None,
            ended_at: None,
            owner: owner.to_owned(),
            heartbeat_ms: Stopped.now_ms() - heartbeat_age_ms,
        }
    }

    #[tokio::test]
    async fn jobs_that_nobody_runs_have_failed() {
        let cases = [
            ("of the same owner", job(1, "me", State::Running, 0), State::Failed),
            ("queued, of the same owner", job(2, "me", State::Queued, 0), State::Failed),
            ("of another owner that beats", job(3, "other", State::Running, 29_000), State::Running),
            ("of another owner that is silent", job(4, "other", State::Running, 31_000), State::Failed),
            ("done long ago", job(5, "me", State::Succeeded, 99_000), State::Succeeded),
        ];
        let jobs = jobs();
        for (_, job, _) in &cases {
            jobs.put(job).await.unwrap();
        }
        jobs.end_lost("me", &Stopped).await.unwrap();
        for (what, before, expected) in &cases {
            let after = jobs.get(&before.id).await.unwrap().unwrap();
            assert_eq!(after.state, *expected, "{what}");
            let reason = (after.state != before.state).then_some("the process that ran it ended");
            assert_eq!(after.error.as_deref(), reason, "{what}");
        }
    }

    #[tokio::test]
    async fn jobs_of_others_that_fall_silent_fail_later() {
        let jobs = jobs();
        let silent = LOST_AFTER_MS + 1;
        for (id, owner, age) in [(1, "other", silent), (2, "me", silent), (3, "other", 0)] {
            jobs.put(&job(id, owner, State::Running, age)).await.unwrap();
        }
        jobs.end_abandoned("me", &Stopped).await.unwrap();
        let states: Vec<State> = jobs.list(3).await.unwrap().into_iter().map(|job| job.state).collect();
        assert_eq!(states, [State::Running, State::Running, State::Failed], "newest first");
    }

    #[tokio::test]
    async fn a_running_job_announces_its_cut() {
        let jobs = jobs();
        let mut announced = Announced::new(jobs.storage.clone());
        let cut = |at| Frontier::from_iter([(0, at)]);
        assert_eq!(announced.look().await.unwrap(), BTreeMap::new());
        for (id, state) in [(1, State::Queued), (2, State::Running), (3, State::Succeeded), (4, State::Running)] {
            jobs.put(&job(id, "me", state, 0)).await.unwrap();
        }
        let daily = |cuts: &[Frontier]| BTreeMap::from([("daily".to_owned(), cuts.to_vec())]);
        assert_eq!(announced.look().await.unwrap(), daily(&[cut(4), cut(2)]));
        for (id, state) in [(1, State::Running), (2, State::Failed)] {
            jobs.put(&job(id, "me", state, 0)).await.unwrap();
        }
        assert_eq!(announced.look().await.unwrap(), daily(&[cut(4), cut(1)]));
        assert_eq!(announced.ended.iter().map(String::as_str).collect::<Vec<_>>(), ["0002", "0003"]);
    }

    #[tokio::test]
    async fn the_newest_are_kept_and_come_first() {
        let jobs = jobs();
        for id in 0..KEPT + 3 {
            jobs.put(&job(id, "me", State::Succeeded, 0)).await.unwrap();
        }
        jobs.prune().await.unwrap();
        let ids = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
        assert_eq!(ids(jobs.list(2).await.unwrap()), ["0202", "0201"]);
        assert_eq!(jobs.list(usize::MAX).await.unwrap().len(), KEPT);
        assert!(jobs.get("0002").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_no_missing_one() {
        let jobs = jobs();
        jobs.put(&job(1, "me", State::Succeeded, 0)).await.unwrap();
        jobs.storage.objects().put(&Jobs::path("0002"), "{".into()).await.unwrap();
        assert!(matches!(jobs.get("0002").await, Err(Error::Corrupt { .. })));
        assert_eq!(jobs.list(9).await.unwrap().len(), 1);
    }
}
