//! When views are recomputed: on their schedules and on demand, one at a time.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use common::{
    catalog::View,
    fault::chain,
    jobs::{Job, Jobs, Kind, State, rfc3339},
    operate::Error,
    storage,
    view::Published,
};
use tokio::sync::Semaphore;

use crate::{
    Context,
    metrics::Metrics,
    recompute::{self, Recompute},
};

const HEARTBEAT: Duration = Duration::from_secs(5);
/// A refresh that failed is tried again after this, or after its own interval if that is shorter.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Runs recomputes.
#[derive(Debug)]
pub(crate) struct Scheduler {
    context: Arc<Context>,
    metrics: Metrics,
    jobs: Jobs,
    /// By view, the job that is queued or at work.
    running: Mutex<BTreeMap<String, String>>,
    /// One recompute at a time: each uses all that the machine has.
    turns: Semaphore,
}

impl Scheduler {
    /// Tidies up after earlier processes, and starts the schedules.
    pub(crate) async fn start(context: Arc<Context>, metrics: Metrics) -> Result<Arc<Self>, storage::Error> {
        let jobs = Jobs::new(context.storage.clone());
        jobs.tidy(&context.settings.owner, context.clock.as_ref()).await?;
        let scheduler = Arc::new(Self {
            context: context.clone(),
            metrics,
            jobs,
            running: Mutex::default(),
            turns: Semaphore::new(1),
        });
        for view in context.catalog.views.values().filter(|_| context.settings.schedule) {
            let (scheduler, view) = (scheduler.clone(), view.clone());
            let cancelled = context.supervisor.cancelled();
            context.supervisor.spawn(format!("schedule of {}", view.name), async move {
                tokio::select! {
                    () = cancelled.cancelled() => {}
                    () = scheduler.keep(view) => {}
                }
                Ok::<(), Infallible>(())
            });
        }
        Ok(scheduler)
    }

    /// Recomputes a view now and then, for ever.
    async fn keep(&self, view: Arc<View>) {
        let Some(refresh) = view.refresh else { return };
        loop {
            let began = Instant::now();
            let done = match self.claim(&view, Kind::ScheduledRecompute) {
                Ok(job) => self.work(view.clone(), job, true).await,
                // Somebody's own recompute is at work: that will do.
                Err(_) => true,
            };
            let wait = if done { refresh } else { refresh.min(AFTER_FAILURE) };
            tokio::time::sleep(wait.saturating_sub(began.elapsed()).max(Duration::from_millis(100))).await;
        }
    }

    /// Starts a recompute of `view`.
    pub(crate) async fn recompute(self: &Arc<Self>, view: &str, kind: Kind) -> Result<Job, Error> {
        let view = self.context.catalog.views.get(view).ok_or_else(|| Error::UnknownView { view: view.to_owned() })?;
        let job = self.claim(view, kind)?;
        if let Err(error) = self.jobs.put(&job).await {
            self.release(&view.name);
            return Err(Error::Unavailable(Box::new(error)));
        }
        let (scheduler, view, queued) = (self.clone(), view.clone(), job.clone());
        let cancelled = self.context.supervisor.cancelled();
        self.context.supervisor.spawn(format!("job {}", job.id), async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                _ = scheduler.work(view, queued, false) => {}
            }
            Ok::<(), Infallible>(())
        });
        Ok(job)
    }

    /// The newest jobs.
    pub(crate) async fn jobs(&self, limit: usize) -> Result<Vec<Job>, Error> {
        self.jobs.list(limit).await.map_err(|error| Error::Unavailable(Box::new(error)))
    }

    /// One job.
    pub(crate) async fn job(&self, id: &str) -> Result<Job, Error> {
        let job = self.jobs.get(id).await.map_err(|error| Error::Unavailable(Box::new(error)))?;
        job.ok_or_else(|| Error::UnknownJob { id: id.to_owned() })
    }

    /// Takes the view's turn, or says who has it.
    fn claim(&self, view: &View, kind: Kind) -> Result<Job, Error> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = running.get(&view.name) {
            return Err(Error::Running { view: view.name.clone(), id: id.clone() });
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
        running.insert(view.name.clone(), job.id.clone());
        Ok(job)
    }

    fn release(&self, view: &str) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(view);
    }

    /// Runs a claimed job to its end. Whether it did what it should.
    async fn work(&self, view: Arc<View>, mut job: Job, quietly: bool) -> bool {
        let name = view.name.clone();
        let began = Instant::now();
        let outcome = self.publish(view, &mut job).await;
        self.release(&name);
        let label = match &outcome {
            Ok(Some(published)) => {
                tracing::info!(view = name, batch_version = published.batch_version, rows = published.rows,
                    cut = %published.cut, seconds = began.elapsed().as_secs_f64(), "published a batch view version");
                job.batch_version = Some(published.batch_version);
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
        // A schedule that found nothing new leaves no record: there would soon be nothing else.
        if !(quietly && matches!(outcome, Ok(None))) {
            self.put(&job).await;
        }
        outcome.is_ok()
    }

    async fn publish(&self, view: Arc<View>, job: &mut Job) -> Result<Option<Published>, recompute::Error> {
        let _turn = self.turns.acquire().await;
        let recompute = Recompute::begin(self.context.clone(), view).await?;
        if recompute.is_current() {
            return Ok(None);
        }
        job.state = State::Running;
        job.started_at = Some(rfc3339(self.context.clock.now_ms()));
        // The speed layer keeps announced cuts possible, so they are announced before the first row is read.
        job.cut = Some(recompute.at().frontier.clone());
        self.put(job).await;
        let (read, rows) = (recompute.rows_read(), recompute.at().rows.max(1));
        let mut work = self.context.compute.spawn(recompute.run());
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.tick().await;
        // A job that is cancelled must not go on in the dark.
        let abort = AbortOnDrop(work.abort_handle());
        let done = loop {
            tokio::select! {
                done = &mut work => break done?,
                _ = heartbeat.tick() => {
                    #[allow(clippy::cast_precision_loss, reason = "a share, for people to read")]
                    let share = read.load(Ordering::Relaxed) as f64 / rows as f64;
                    job.progress = share.min(0.99);
                    job.heartbeat_ms = self.context.clock.now_ms();
                    self.put(job).await;
                }
            }
        };
        drop(abort);
        done.map(Some)
    }

    async fn put(&self, job: &Job) {
        if let Err(error) = self.jobs.put(job).await {
            tracing::warn!(job = job.id, "could not write the job's record: {}", chain(&error));
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
