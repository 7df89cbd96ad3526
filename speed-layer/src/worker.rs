//! The worker of one dataset: follows the log for freshness and the master's commits for boundaries.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    catalog::{Dataset, View},
    fault::chain,
    log::{self, Chunk, Reader},
    master,
    position::Partition,
    storage,
};
use datafusion::{
    error::DataFusionError,
    execution::{TaskContext, memory_pool::UnboundedMemoryPool},
    prelude::SessionConfig,
};
use tokio::{sync::mpsc, task::JoinSet};

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
use state::State;

const POLL_WAIT: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Keeps one dataset's states.
pub(crate) struct Worker {
    context: Arc<Context>,
    dataset: Arc<Dataset>,
    views: Vec<Arc<View>>,
    shared: Arc<Shared>,
    metrics: Metrics,
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
    #[error("the task that follows the tables has ended")]
    Following,
}

impl Worker {
    pub(crate) fn new(context: Arc<Context>, dataset: Arc<Dataset>, shared: Arc<Shared>, metrics: Metrics) -> Self {
        let views = context.catalog.views.values().filter(|view| view.dataset.name == dataset.name).cloned().collect();
        Self { context, dataset, views, shared, metrics }
    }

    /// Works until it is cancelled; whatever goes wrong is tried again from the master dataset.
    pub(crate) async fn run(self) -> Result<(), Infallible> {
        let cancelled = self.context.supervisor.cancelled();
        let mut backoff = Duration::from_millis(100);
        loop {
            let began = Instant::now();
            let session = tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                session = self.session() => session,
            };
            let Err(error) = session else { return Ok(()) };
            if began.elapsed() > BACKOFF_MAX {
                backoff = Duration::from_millis(100);
            }
            let reason = chain(&error);
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
        let partitions = log.ensure_topic(topic, self.dataset.partitions).await?;
        let following = Following::open(&self.context, &self.dataset, &self.views, partitions).await?;
        let task_context = self.task_context()?;
        let mut state = self.rebuilt(&following, partitions, &task_context).await?;
        master::verify(log.as_ref(), topic, following.master()).await?;
        let mut reader = log.reader(topic, &state.frame.head).await?;
        self.shared.publish(Arc::new(state.frame.clone()), state.beyond.clone());
        self.shared.stopped(None);
        tracing::info!(dataset = self.dataset.name, head = %state.frame.head, "speed layer is ready");

        let (updates, mut inbox) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(following.run(updates, self.context.settings.follow_every));
        let mut background =
            Background::new(self.context.clone(), self.dataset.clone(), partitions, task_context.clone());
        let mut housekeeping = Instant::now();
        loop {
            let chunks = if state.paused { Self::pause().await } else { self.poll(&mut reader, &mut state).await? };
            let moved = !chunks.is_empty();
            if moved {
                self.apply(&mut state, chunks, &task_context).await;
            }
            let mut changed = moved;
            loop {
                match inbox.try_recv() {
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
            state.beyond.end = reader.end_seen();
            if changed {
                self.shared.publish(Arc::new(state.frame.clone()), state.beyond.clone());
            } else {
                self.shared.look_beyond(state.beyond.clone());
            }
            if housekeeping.elapsed() >= self.context.settings.follow_every {
                housekeeping = Instant::now();
                self.keep_house(&mut state, &mut background)?;
            }
        }
    }

    async fn pause() -> Vec<Chunk> {
        tokio::time::sleep(POLL_WAIT).await;
        Vec::new()
    }

    async fn poll(&self, reader: &mut Box<dyn Reader>, state: &mut State) -> Result<Vec<Chunk>, Error> {
        match reader.poll(self.context.settings.poll_records, POLL_WAIT).await {
            Ok(chunks) => {
                if std::mem::take(&mut state.stalled) {
                    self.shared.stopped(None);
                }
                Ok(chunks)
            }
            // The states are still good: only the reader has to be opened again, at the head.
            Err(error) if common::fault::Fault::retryable(&error) => {
                let reason = chain(&error);
                tracing::warn!(dataset = self.dataset.name, "speed layer cannot read the log: {reason}");
                self.shared.stopped(Some(reason));
                state.stalled = true;
                tokio::time::sleep(Duration::from_secs(1)).await;
                *reader = self.context.log.reader(&self.dataset.topic, &state.frame.head).await?;
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn task_context(&self) -> Result<Arc<TaskContext>, Error> {
        let runtime = self.context.storage.runtime(Arc::new(UnboundedMemoryPool::default()))?;
        let config = SessionConfig::new().with_target_partitions(1);
        Ok(Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime)))
    }

    /// All views, rebuilt from the master version that `following` stands at.
    async fn rebuilt(
        &self,
        following: &Following,
        partitions: Partition,
        context: &Arc<TaskContext>,
    ) -> Result<State, Error> {
        let at = following.master();
        let wanted: Vec<Wanted> =
            self.views.iter().map(|view| Wanted { view: view.clone(), cut: following.cut(&view.name) }).collect();
        self.shared.stopped(Some(format!("it is being rebuilt from {} files of the master dataset", at.files.len())));
        self.metrics.rebuilds.with_label_values(&[&self.dataset.name]).inc();
        let rebuilt = rebuild(&self.context.storage, &self.dataset, at, partitions, &wanted, context).await?;
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
        let partition = folded.partition;
        state.push(folded);
        state.join_small(partition, context).await;
        state.seal(partition, context).await;
    }

    async fn update(&self, state: &mut State, update: Update, context: &Arc<TaskContext>) {
        match update {
            Update::Master(version) => {
                state.boundary(*version, self.context.clock.now_us());
                for partition in 0..state.partitions {
                    state.seal(partition, context).await;
                }
            }
            Update::Published { view, cut } => state.published(&view, cut),
        }
    }

    /// Retires cuts, merges pieces, rebuilds what cannot be cut, and minds the memory.
    fn keep_house(&self, state: &mut State, background: &mut Background) -> Result<(), Error> {
        let settings = &self.context.settings;
        let now_us = self.context.clock.now_us();
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let retire_after = if state.paused { 0 } else { micros(settings.retire_after) };
        state.retire(now_us, retire_after, micros(settings.keep_boundaries));
        if background.is_idle() {
            if let Some(wanted) = state.unreachable_cut() {
                tracing::info!(dataset = self.dataset.name, view = wanted.view.name, cut = %wanted.cut, "rebuilding a view's states");
                self.metrics.rebuilds.with_label_values(&[&self.dataset.name]).inc();
                background.rebuild(wanted, state.sealed.clone());
            } else if let Some((view, partition, run)) = state.next_run() {
                background.merge(view, partition, run);
            }
        }
        let dataset = [self.dataset.name.as_str()];
        let bytes = state.bytes();
        self.metrics.memory.with_label_values(&dataset).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.pieces.with_label_values(&dataset).set(i64::try_from(state.pieces()).unwrap_or(i64::MAX));
        self.mind_memory(state, bytes)
    }

    fn mind_memory(&self, state: &mut State, bytes: usize) -> Result<(), Error> {
        let limit = self.context.settings.memory_bytes;
        if bytes > limit && !state.paused {
            let reason = format!(
                "its states take {bytes} bytes, more than the {limit} of `speed.memory`: the head stands still until a \
                 newer batch view version lets go of some"
            );
            tracing::warn!(dataset = self.dataset.name, "speed layer: {reason}");
            self.shared.stopped(Some(reason));
            state.paused = true;
        } else if state.paused && bytes <= limit / 10 * 9 {
            self.shared.stopped(None);
            state.paused = false;
        } else if state.paused && state.is_behind_a_cut() {
            return Err(Error::Behind);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}
