//! When views are recomputed: on their schedules and on demand, one at a time.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use common::{
    catalog::{View, published},
    fault::chain,
    jobs::{Job, Jobs, Kind, State, rfc3339},
    operate::Error,
    storage,
    view::{Published, ViewTable},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    Context,
    metrics::Metrics,
    recompute::{self, Recompute},
    retry::Retry,
    turns::Turns,
};

const HEARTBEAT: Duration = Duration::from_secs(5);
/// A refresh that failed is tried again after this, or after its own interval if that is shorter. The next pauses are each
/// twice as long as the one before, up to [`AFTER_FAILURES`].
const AFTER_FAILURE: Duration = Duration::from_secs(10);
const AFTER_FAILURES: Duration = Duration::from_secs(300);
/// How often it is looked whether views that replace others have been built.
const BUILT_EVERY: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// A view's name and definition: two definitions of one view are recomputed side by side while one replaces the other.
type Of = (String, String);

fn of(view: &View) -> Of {
    (view.name.clone(), view.definition.clone())
}

/// Ends the records of jobs that earlier processes have left.
pub(crate) async fn end_lost(context: &Context) -> Result<(), storage::Error> {
    let jobs = Jobs::new(context.storage.clone());
    jobs.end_lost(&context.settings.owner, context.clock.as_ref()).await.map(drop)
}

/// Runs recomputes.
#[derive(Debug)]
pub(crate) struct Scheduler {
    context: Arc<Context>,
    metrics: Metrics,
    jobs: Jobs,
    /// By view and definition, the job that is queued or at work.
    claimed: Mutex<BTreeMap<Of, Claim>>,
    /// One recompute at a time: each uses all that the machine has.
    turns: Turns,
}

#[derive(Debug)]
struct Claim {
    job: Job,
    /// Whether somebody may ask for it by its id: then it leaves a record, whatever comes of it.
    is_known: bool,
}

impl Scheduler {
    /// Starts the schedules.
    pub(crate) fn start(context: Arc<Context>, metrics: Metrics) -> Arc<Self> {
        let jobs = Jobs::new(context.storage.clone());
        let scheduler = Arc::new(Self {
            context: context.clone(),
            metrics,
            jobs,
            claimed: Mutex::default(),
            turns: Turns::default(),
        });
        for view in context.catalog.views.values().filter(|_| context.settings.schedule) {
            let Some(refresh) = view.refresh else { continue };
            let kept = scheduler.clone().keep(view.clone(), refresh, context.supervisor.cancelled());
            context.supervisor.spawn(format!("schedule of {}", view.name), kept);
        }
        scheduler
    }

    /// Keeps the schedules of `views` until all of `next` have been built.
    pub(crate) fn keep_up(self: &Arc<Self>, views: &[Arc<View>], next: &[Arc<View>]) {
        let (storage, next) = (self.context.storage.clone(), next.to_vec());
        let replaced = self.context.supervisor.cancelled().child_token();
        for view in views.iter().filter(|_| self.context.settings.schedule) {
            let Some(refresh) = view.refresh else { continue };
            let kept = self.clone().keep(view.clone(), refresh, replaced.clone());
            self.context.supervisor.spawn(format!("schedule of {} until it is replaced", view.name), kept);
        }
        self.context.supervisor.spawn("end of the schedules of views that are replaced", async move {
            let built = async {
                // Where the store cannot be reached, a later look tells.
                while !matches!(published::is_built(&storage, &next).await, Ok(true)) {
                    tokio::time::sleep(BUILT_EVERY).await;
                }
            };
            let stopped = replaced.clone();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = built => replaced.cancel(),
            }
            Ok::<(), Infallible>(())
        });
    }

    /// Recomputes a view now and then, until it is told to stop.
    async fn keep(
        self: Arc<Self>,
        view: Arc<View>,
        refresh: Duration,
        cancelled: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut wait = self.until_due(&view, refresh).await;
        let mut failures = 0;
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            let began = Instant::now();
            let is_done = match self.claim(&view, Kind::ScheduledRecompute) {
                Ok(job) => self.work(view.clone(), job, failures > 0).await,
                // Somebody's own recompute is at work: that will do.
                Err(_) => true,
            };
            failures = if is_done { 0 } else { failures + 1 };
            wait = match failures {
                0 => refresh.saturating_sub(began.elapsed()).max(PAUSE_MIN),
                failures => pause(refresh, failures, began.elapsed()),
            };
        }
    }

    /// A view is due one interval after its last batch version; without any, at once.
    async fn until_due(&self, view: &View, refresh: Duration) -> Duration {
        let last = async {
            let table = ViewTable::new(&self.context.storage, view)?;
            table.published(&table.open().await?).await
        };
        match last.await {
            Ok(Some(last)) => {
                let age_ms = self.context.clock.now_ms() - last.published_at_ms;
                refresh.saturating_sub(Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)))
            }
            Ok(None) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(view = view.name, "could not see when it was last recomputed: {}", chain(&error));
                Duration::ZERO
            }
        }
    }

    /// Starts a recompute of `view`.
    pub(crate) async fn recompute(self: &Arc<Self>, view: &str, kind: Kind) -> Result<Job, Error> {
        let view = self.context.catalog.views.get(view).ok_or_else(|| Error::UnknownView { view: view.to_owned() })?;
        let job = self.claim(view, kind)?;
        let (scheduler, view, queued) = (self.clone(), view.clone(), job.clone());
        let (recorded, is_recorded) = oneshot::channel();
        // Whoever asks may go away at any time, and must not leave the view claimed by a job that nobody runs.
        self.context.supervisor.spawn(format!("job {}", job.id), async move {
            let put = scheduler.jobs.put(&queued).await;
            let is_put = put.is_ok();
            if !is_put {
                scheduler.claimed().remove(&of(&view));
            }
            let _ = recorded.send(put);
            if is_put {
                scheduler.work(view, queued, false).await;
            }
            Ok::<(), Infallible>(())
        });
        match is_recorded.await {
            Ok(Ok(())) => Ok(job),
            Ok(Err(error)) => Err(Error::Unavailable(Box::new(error))),
            Err(stopped) => Err(Error::Unavailable(Box::new(stopped))),
        }
    }

    /// The newest jobs.
    pub(crate) async fn jobs(&self, limit: usize) -> Result<Vec<Job>, Error> {
        self.jobs.list(limit).await.map_err(|error| Error::Unavailable(Box::new(error)))
    }

    /// One job.
    pub(crate) async fn job(&self, id: &str) -> Result<Job, Error> {
        let own = self.claimed().values().find(|claim| claim.job.id == id).map(|claim| claim.job.clone());
        if let Some(job) = own {
            return Ok(job);
        }
        let job = self.jobs.get(id).await.map_err(|error| Error::Unavailable(Box::new(error)))?;
        job.ok_or_else(|| Error::UnknownJob { id: id.to_owned() })
    }

    fn claimed(&self) -> MutexGuard<'_, BTreeMap<Of, Claim>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the view's turn, or says who has it.
    fn claim(&self, view: &View, kind: Kind) -> Result<Job, Error> {
        let mut claimed = self.claimed();
        if let Some(claim) = claimed.get_mut(&of(view)) {
            claim.is_known |= kind == Kind::Recompute;
            return Err(Error::Running { view: view.name.clone(), id: claim.job.id.clone() });
        }
        let now_ms = self.context.clock.now_ms();
        let job = Job {
            id: uuid::Uuid::now_v7().to_string(),
            view: view.name.clone(),
            definition: view.definition.clone(),
            kind,
            state: State::Queued,
            progress: 0.0,
            cut: None,
            batch_version: None,
            error: None,
            created_at: rfc3339(now_ms),
            started_at: None,
            ended_at: None,
            owner: self.context.settings.owner.clone(),
            heartbeat_ms: now_ms,
        };
        let claim = Claim { job: job.clone(), is_known: kind == Kind::Recompute };
        claimed.insert(of(view), claim);
        Ok(job)
    }

    /// Runs a claimed job to its end; one that `has_failed` before lets others go first. Whether it did what it should.
    async fn work(&self, view: Arc<View>, mut job: Job, has_failed: bool) -> bool {
        let (name, claimed) = (view.name.clone(), of(&view));
        let began = Instant::now();
        let outcome = self.publish(view, &mut job, has_failed).await;
        let label = match &outcome {
            Ok(Some(published)) => {
                tracing::info!(view = name, batch_version = published.batch_version, rows = published.rows,
                    cut = %published.cut, seconds = began.elapsed().as_secs_f64(), "published a batch view version");
                job.batch_version = Some(published.batch_version);
                self.metrics.failed_groups.with_label_values(&[&name]).set(published.failed_groups);
                self.metrics.recompute_seconds.with_label_values(&[&name]).observe(began.elapsed().as_secs_f64());
                "published"
            }
            Ok(None) => "nothing new",
            Err(error) => {
                let reason = chain(error);
                tracing::warn!(view = name, "recompute: {reason}");
                job.error = Some(reason);
                "failed"
            }
        };
        self.metrics.recomputes.with_label_values(&[name.as_str(), label]).inc();
        job.state = if outcome.is_ok() { State::Succeeded } else { State::Failed };
        job.progress = if outcome.is_ok() { 1.0 } else { job.progress };
        job.ended_at = Some(rfc3339(self.context.clock.now_ms()));
        let is_known = self.claimed().remove(&claimed).is_none_or(|claim| claim.is_known);
        // A schedule that found nothing new leaves no record: there would soon be nothing else.
        if is_known || job.started_at.is_some() || !matches!(outcome, Ok(None) | Err(recompute::Error::Stopped)) {
            self.put_last(&job).await;
        }
        outcome.is_ok()
    }

    async fn publish(
        &self,
        view: Arc<View>,
        job: &mut Job,
        has_failed: bool,
    ) -> Result<Option<Published>, recompute::Error> {
        let beginning = async {
            let turn = self.turns.take(has_failed).await;
            Ok::<_, recompute::Error>((turn, Recompute::begin(self.context.clone(), view).await?))
        };
        let (_turn, recompute) = self.while_beating(job, || 0.0, beginning).await??;
        if recompute.is_current() {
            // Whoever asks may have met a damaged file: then the same is published once more.
            let asked = job.kind == Kind::Recompute;
            if !asked || !self.while_beating(job, || 0.0, recompute.is_damaged()).await?? {
                return Ok(None);
            }
        }
        job.state = State::Running;
        job.started_at = Some(rfc3339(self.context.clock.now_ms()));
        // The speed layer keeps announced cuts possible, so they are announced before the first row is read.
        job.cut = Some(recompute.at().frontier.clone());
        self.put(job).await;
        let (read, rows) = (recompute.rows_read(), recompute.at().rows.max(1));
        #[allow(clippy::cast_precision_loss, reason = "a share, for people to read")]
        let progress = || (read.load(Ordering::Relaxed) as f64 / rows as f64).min(0.99);
        let work = self.context.compute.spawn(recompute.run());
        // A job that is told to stop must not go on in the dark.
        let _abort = AbortOnDrop(work.abort_handle());
        self.while_beating(job, progress, work).await??.map(Some)
    }

    /// Waits for `work`, and says now and then that somebody is at it and how far it has come.
    async fn while_beating<T>(
        &self,
        job: &mut Job,
        progress: impl Fn() -> f64,
        work: impl Future<Output = T>,
    ) -> Result<T, recompute::Error> {
        let cancelled = self.context.supervisor.cancelled();
        let mut work = pin!(work);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.tick().await;
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = cancelled.cancelled() => return Err(recompute::Error::Stopped),
                _ = heartbeat.tick() => {
                    job.progress = progress();
                    job.heartbeat_ms = self.context.clock.now_ms();
                    self.put(job).await;
                }
            }
        }
    }

    /// Writes how a job stands. Where that fails, the next heartbeat does it.
    async fn put(&self, job: &Job) {
        let is_known = self.claimed().get_mut(&(job.view.clone(), job.definition.clone())).is_none_or(|claim| {
            claim.job.clone_from(job);
            claim.is_known
        });
        if !is_known && job.state == State::Queued {
            return;
        }
        if let Err(error) = self.jobs.put(job).await {
            tracing::warn!(job = job.id, "could not write the job's record: {}", chain(&error));
        }
    }

    /// Writes how a job has ended. Nothing else will, and whoever follows the job waits for it.
    async fn put_last(&self, job: &Job) {
        let mut retry = Retry::new(self.context.supervisor.cancelled(), &self.metrics.troubles);
        while let Err(error) = self.jobs.put(job).await {
            if !retry.after(&format!("write how job `{}` has ended", job.id), &error).await {
                return;
            }
        }
    }
}

/// How long to leave a view alone whose refresh has failed so often in a row, the last time after `took`: one that fails
/// late would else be all that there is ever time for.
fn pause(refresh: Duration, failures: u32, took: Duration) -> Duration {
    let doubled = refresh.min(AFTER_FAILURE).saturating_mul(2_u32.saturating_pow(failures - 1));
    doubled.min(AFTER_FAILURES).max(took).max(PAUSE_MIN)
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_failures_grow() {
        let seconds = Duration::from_secs;
        for (refresh, failures, took, expected) in [
            (300, 1, 0, 10),
            (300, 2, 0, 20),
            (300, 5, 0, 160),
            (3600, 6, 0, 300),
            (3600, 40, 0, 300),
            (3600, 1, 900, 900),
            (1, 1, 0, 1),
            (1, 3, 0, 4),
        ] {
            let got = pause(seconds(refresh), failures, seconds(took));
            assert_eq!(got, seconds(expected), "{refresh} {failures} {took}");
        }
    }
}
