//! The worker of one dataset: follows the log for freshness and the master's commits for boundaries.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    catalog::{Dataset, View},
    fault::chain,
    fold::panicked,
    log::{self, Chunk, Reader},
    master,
    position::Partition,
    speed::CatchingUp,
    storage,
};
use datafusion::{
    error::DataFusionError,
    execution::{TaskContext, memory_pool::UnboundedMemoryPool},
    prelude::SessionConfig,
};
use futures::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Context,
    frame::{Shared, ViewState},
    ingest::{Folded, fold_chunk},
    metrics::Metrics,
    rebuild::{Wanted, rebuild},
};

mod background;
mod follow;
mod state;

use background::{Background, Done};
use follow::{Following, Update};
use state::{Owners, State};

const POLL_WAIT: Duration = Duration::from_millis(20);
/// How long to leave a log alone that could not be read.
const LOG_PAUSE: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Keeps one dataset's states.
pub(crate) struct Worker {
    context: Arc<Context>,
    dataset: Arc<Dataset>,
    views: Arc<Vec<Arc<View>>>,
    shared: Arc<Shared>,
    metrics: Metrics,
    /// Which partitions it holds; `None` for all.
    keep: watch::Receiver<Option<BTreeSet<Partition>>>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error("could not fold the events of the dataset")]
    Fold(#[from] DataFusionError),
    #[error("the head fell behind a published cut while its memory was full: starting again from there")]
    Behind,
    #[error("the log's reader left out what follows the head: starting again")]
    Hole,
    #[error("events that had expired before they were archived were recorded as lost: starting again without them")]
    Lost,
    #[error("the task that follows the tables has ended")]
    Following,
    #[error("the dataset's worker stopped where it should not")]
    Panicked(#[source] DataFusionError),
}

impl Worker {
    pub(crate) fn new(
        context: Arc<Context>,
        dataset: Arc<Dataset>,
        views: Arc<Vec<Arc<View>>>,
        shared: Arc<Shared>,
        metrics: Metrics,
        keep: watch::Receiver<Option<BTreeSet<Partition>>>,
    ) -> Self {
        Self { context, dataset, views, shared, metrics, keep }
    }

    /// Works until it is cancelled; whatever goes wrong is tried again from the master dataset.
    pub(crate) async fn run(self, cancelled: CancellationToken) -> Result<(), Infallible> {
        let mut backoff = Duration::from_millis(100);
        loop {
            let began = Instant::now();
            let session = tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                session = AssertUnwindSafe(self.session()).catch_unwind() => session,
            };
            // What panics here is no view's fold: it is this dataset's matter, not that of the others.
            let session = session.unwrap_or_else(|panic| Err(Error::Panicked(panicked(panic.as_ref()))));
            let Err(error) = session else { return Ok(()) };
            if began.elapsed() > BACKOFF_MAX {
                backoff = Duration::from_millis(100);
            }
            let reason = chain(&error);
            // No failure: the way on.
            if matches!(error, Error::Behind | Error::Lost) {
                tracing::info!(dataset = self.dataset.name, "speed layer: {reason}");
                self.shared.stopped(Some(reason));
                continue;
            }
            tracing::warn!(dataset = self.dataset.name, "speed layer: {reason}; trying again in {backoff:?}");
            self.shared.stopped(Some(reason));
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// From a rebuild until something goes wrong.
    async fn session(&self) -> Result<(), Error> {
        let log = &self.context.log;
        let topic = &self.dataset.topic;
        let count = log.ensure_topic(topic, self.dataset.partitions).await?;
        if self.shared.target().is_none() {
            self.shared.aim_at(log.bounds(topic).await?.end);
        }
        let mut keep = self.keep.clone();
        let kept = keep.borrow_and_update().clone();
        let partitions = Arc::new(kept.unwrap_or_else(|| (0..count).collect()));
        let following = Following::open(&self.context, &self.dataset, &self.views, count).await?;
        let task_context = self.task_context()?;
        let mut state = self.rebuilt(&following, partitions.clone(), &task_context).await?;
        master::verify(log.as_ref(), topic, following.master()).await?;
        let mut reader = self.reader(&state).await?;
        self.show(&mut state, true);

        let (updates, mut inbox) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(following.run(updates, self.context.settings.follow_every));
        let mut background =
            Background::new(self.context.clone(), self.dataset.clone(), partitions, task_context.clone());
        let mut housekeeping = Instant::now();
        loop {
            let kept = if keep.has_changed().unwrap_or(false) { keep.borrow_and_update().clone() } else { None };
            if let Some(kept) = kept {
                state.shrink(kept);
                background.shrink(state.partitions.clone());
                reader = self.reader(&state).await?;
                self.show(&mut state, true);
            }
            let chunks = match state.paused {
                Some(_) => Self::pause().await,
                None => self.poll(&mut reader, &mut state).await?,
            };
            let log::HeldBack { written, reason } = reader.held_back();
            if let Some((mut end, seen_us)) = reader.end_seen() {
                // What cannot be read yet is logged all the same: without it nothing is complete.
                end.join(&written);
                state.beyond.note_end(&state.frame.head, end, seen_us);
            }
            state.held_back = reason;
            let mut changed = !chunks.is_empty();
            if changed {
                if !state.note_read(&chunks) {
                    return Err(Error::Hole);
                }
                // Answers that are given meanwhile lack what has been read.
                self.show(&mut state, false);
                self.apply(&mut state, chunks, &task_context).await;
            }
            loop {
                match inbox.try_recv() {
                    Ok(Update::Master(version)) if version.is_lost => return Err(Error::Lost),
                    Ok(update) => {
                        self.update(&mut state, update, &task_context).await;
                        changed = true;
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return Err(Error::Following),
                }
            }
            while let Some(done) = background.done() {
                changed |= state.take(done);
            }
            if housekeeping.elapsed() >= self.context.settings.follow_every {
                housekeeping = Instant::now();
                changed |= self.keep_house(&mut state, &mut background);
                changed |= self.mind_memory(&mut state, &task_context).await?;
            }
            self.show(&mut state, changed);
        }
    }

    /// A reader from the head on.
    async fn reader(&self, state: &State) -> Result<Box<dyn Reader>, log::Error> {
        let only = Some(state.partitions.as_ref());
        self.context.log.reader(&self.dataset.topic, &state.frame.head, only).await
    }

    /// Lets readers have what there is, once the head has passed what they were answered before (a process before this
    /// one included), and says why the head does not move.
    fn show(&self, state: &mut State, changed: bool) {
        if changed && self.shared.publish(Arc::new(state.frame.clone()), state.beyond.clone()) {
            if !std::mem::replace(&mut state.is_shown, true) {
                tracing::info!(dataset = self.dataset.name, head = %state.frame.head, "speed layer is ready");
            }
        } else if state.is_shown {
            self.shared.look_beyond(state.beyond.clone());
        }
        let reason = || match self.shared.status().catching_up {
            Some(CatchingUp { head, target }) => {
                format!("the log has been read up to {head} of {target}, where it ended when this was started")
            }
            None => "the log is being read again up to where answers stood before".to_owned(),
        };
        let coming = (!state.is_shown).then(reason);
        self.shared.stopped(
            state.stalled.clone().or_else(|| state.paused.clone()).or(coming).or_else(|| state.held_back.clone()),
        );
    }

    async fn pause() -> Vec<Chunk> {
        tokio::time::sleep(POLL_WAIT).await;
        Vec::new()
    }

    async fn poll(&self, reader: &mut Box<dyn Reader>, state: &mut State) -> Result<Vec<Chunk>, Error> {
        let mut read = Ok(Vec::new());
        if state.stalled.is_some() {
            tokio::time::sleep(LOG_PAUSE).await;
            read = self.reopened(state).await.map(|reopened| {
                *reader = reopened;
                Vec::new()
            });
        }
        if read.is_ok() {
            read = reader.poll(self.context.settings.poll_records, POLL_WAIT).await;
        }
        match read {
            Ok(chunks) => {
                state.stalled = None;
                Ok(chunks)
            }
            // The states are still good: only the reader has to be opened again, at the head.
            Err(error) if common::fault::Fault::retryable(&error) => {
                let reason = chain(&error);
                tracing::warn!(dataset = self.dataset.name, "speed layer cannot read the log: {reason}");
                state.stalled = Some(reason);
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A reader from the head on. What was out of reach may have come back as another log.
    async fn reopened(&self, state: &State) -> Result<Box<dyn Reader>, log::Error> {
        master::verify(self.context.log.as_ref(), &self.dataset.topic, &state.sealed).await?;
        self.reader(state).await
    }

    fn task_context(&self) -> Result<Arc<TaskContext>, Error> {
        let runtime = self.context.storage.runtime(Arc::new(UnboundedMemoryPool::default()))?;
        let config = SessionConfig::new().with_target_partitions(1);
        Ok(Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime)))
    }

    /// Begins a view's counts at 0: whoever looks for an increase would miss one from nothing.
    fn begin_counts(&self) {
        for view in self.views.iter() {
            self.metrics.failed_events.with_label_values(&[&view.name]).inc_by(0);
        }
    }

    /// All views, rebuilt from the master version that `following` stands at.
    async fn rebuilt(
        &self,
        following: &Following,
        partitions: Arc<BTreeSet<Partition>>,
        context: &Arc<TaskContext>,
    ) -> Result<State, Error> {
        let at = following.master();
        self.begin_counts();
        let wanted: Vec<Wanted> =
            self.views.iter().map(|view| Wanted { view: view.clone(), cut: following.cut(&view.name) }).collect();
        self.shared.stopped(Some(format!("it is being rebuilt from {} files of the master dataset", at.files.len())));
        self.metrics.rebuilds.with_label_values(&[&self.dataset.name]).inc();
        let rebuilt = rebuild(&self.context.storage, &self.dataset, at, &partitions, &wanted, context).await?;
        let mut state = State::new(at.clone(), partitions, self.context.clock.now_us());
        for (wanted, rebuilt) in wanted.into_iter().zip(rebuilt) {
            let (tracks, failed) = match rebuilt {
                Ok(tracks) => (tracks, None),
                Err(reason) => (BTreeMap::new(), Some(reason)),
            };
            state.cuts.insert(wanted.view.name.clone(), vec![state::Cut::new(wanted.cut)]);
            let view = ViewState { view: wanted.view.clone(), tracks, failed };
            state.frame.views.insert(wanted.view.name.clone(), Arc::new(view));
        }
        Ok(state)
    }

    /// Decodes and folds chunks, side by side, and adds them in order.
    async fn apply(&self, state: &mut State, chunks: Vec<Chunk>, context: &Arc<TaskContext>) {
        let runtime = tokio::runtime::Handle::current();
        let views: Vec<Arc<View>> = state.frame.views.values().map(|state| state.view.clone()).collect();
        let folding: Vec<_> = chunks
            .into_iter()
            .map(|chunk| {
                let fold = fold_chunk(self.dataset.clone(), views.clone(), chunk, context.clone());
                let runtime = runtime.clone();
                tokio::task::spawn_blocking(move || runtime.block_on(fold))
            })
            .collect();
        for folded in folding {
            match folded.await {
                Ok(folded) => self.push(state, folded, context).await,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
    }

    async fn push(&self, state: &mut State, folded: Folded, context: &Arc<TaskContext>) {
        let dataset = [self.dataset.name.as_str()];
        self.metrics.events.with_label_values(&dataset).inc_by(folded.tail.rows.num_rows() as u64);
        self.metrics.dead_letters.with_label_values(&dataset).inc_by(folded.dead as u64);
        for (view, states) in state.frame.views.keys().zip(&folded.states) {
            let failed = states.as_ref().map_or(0, |(_, failed)| failed.count());
            if failed > 0 {
                let failed = u64::try_from(failed).unwrap_or_default();
                self.metrics.failed_events.with_label_values(&[view]).inc_by(failed);
            }
        }
        let partition = folded.partition;
        state.push(folded);
        state.join_small(partition, context).await;
        state.seal(partition, context).await;
    }

    async fn update(&self, state: &mut State, update: Update, context: &Arc<TaskContext>) {
        match update {
            Update::Master(version) => {
                state.boundary(*version, self.context.clock.now_us());
                for &partition in state.partitions.clone().iter() {
                    state.seal(partition, context).await;
                }
            }
            Update::Published { view, cut } => state.published(&view, cut),
            Update::Announced(announced) => state.announced = announced,
        }
    }

    /// Retires cuts, merges pieces, and rebuilds what cannot be cut. Whether states have changed.
    fn keep_house(&self, state: &mut State, background: &mut Background) -> bool {
        let settings = &self.context.settings;
        let now_us = self.context.clock.now_us();
        let retire_after = if state.paused.is_some() { 0 } else { micros(settings.retire_after) };
        // Who holds all partitions has nobody to agree with.
        let is_shared = self.keep.borrow().is_some();
        let complete = is_shared.then(|| self.shared.note_possible(state.possible_cuts()));
        let owners = match &complete {
            Some(complete) if state.paused.is_none() => Owners::Told(complete),
            _ => Owners::None,
        };
        let changed = state.retire(now_us, retire_after, micros(settings.keep_boundaries), owners);
        if background.is_idle() {
            state.rebuilding = None;
            if let Some(wanted) = state.unreachable_cut() {
                tracing::info!(dataset = self.dataset.name, view = wanted.view.name, cut = %wanted.cut, "rebuilding a view's states");
                self.metrics.rebuilds.with_label_values(&[&self.dataset.name]).inc();
                state.rebuilding = Some(state.sealed.frontier.clone());
                background.rebuild(wanted, state.sealed.clone());
            } else if let Some(run) = state.next_run() {
                background.merge(run);
            }
        }
        let dataset = [self.dataset.name.as_str()];
        let failed = state.frame.views.values().filter(|view| view.failed.is_some()).count();
        self.metrics.failed_views.with_label_values(&dataset).set(i64::try_from(failed).unwrap_or(i64::MAX));
        self.metrics.pieces.with_label_values(&dataset).set(i64::try_from(state.pieces()).unwrap_or(i64::MAX));
        changed
    }

    /// Over the bound, first the tail is folded; where that is not enough, the head stops. Whether states have changed.
    async fn mind_memory(&self, state: &mut State, context: &Arc<TaskContext>) -> Result<bool, Error> {
        let limit = self.context.settings.memory_bytes;
        // Folding and going on have to be worth it, or there would soon be nothing else.
        let enough = limit / 10 * 9;
        let mut bytes = state.bytes();
        let mut changed = false;
        if bytes > if state.paused.is_some() { enough } else { limit } {
            // A cut that waits for a boundary would lose the next one too.
            if !state.needs_a_boundary() {
                changed = self.squeeze(state, context).await;
                bytes = state.bytes();
            }
            if state.paused.is_some() && state.is_behind_a_cut() {
                return Err(Error::Behind);
            }
            // What has been answered before must be reached again.
            if bytes > enough && state.paused.is_none() && state.is_shown {
                let reason = format!(
                    "its states take {bytes} bytes of the {limit} of `speed.memory`: the head stands still until a \
                     newer batch view version lets go of some"
                );
                tracing::warn!(dataset = self.dataset.name, "speed layer: {reason}");
                state.paused = Some(reason);
            }
        }
        if bytes <= enough {
            state.paused = None;
        }
        self.metrics.memory.with_label_values(&[&self.dataset.name]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(changed)
    }

    /// Makes the states as small as they can be: without rows, and without boundaries that nobody has asked for. The
    /// head waits for it. Whether there was anything to do.
    async fn squeeze(&self, state: &mut State, context: &Arc<TaskContext>) -> bool {
        let mut changed = state.retire(self.context.clock.now_us(), 0, 0, Owners::None);
        changed |= state.give_up_tail(context).await;
        while let Some(run) = state.next_run() {
            let context = context.clone();
            let merged = tokio::task::spawn_blocking(move || run.merge(&context)).await;
            if !merged.is_ok_and(|done| state.take(done)) {
                break;
            }
            changed = true;
        }
        changed
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}
