//! Work beside the head: merging pieces and rebuilding views, one thing at a time.

use std::{collections::BTreeSet, sync::Arc};

use common::{
    catalog::{Dataset, View},
    fold::Failed,
    master,
    position::{Frontier, Partition},
};
use datafusion::{arrow::array::RecordBatch, execution::TaskContext};
use tokio::task::JoinSet;

use crate::{
    Context,
    piece::Piece,
    rebuild::{Rebuilt, Wanted, rebuild},
};

/// What a piece of work came to.
pub(super) enum Done {
    /// Neighbours have become one.
    Merged {
        /// Of which view.
        view: String,
        /// Of which partition.
        partition: Partition,
        /// The one.
        piece: Piece,
    },
    /// A view has been rebuilt from its cut up to a master version.
    Rebuilt {
        /// Which view.
        view: String,
        /// From where.
        cut: Frontier,
        /// Up to where.
        until: Frontier,
        /// Its tracks.
        tracks: Rebuilt,
    },
    /// A view's states cannot be merged.
    Failed {
        /// Of which view.
        view: String,
        /// Why.
        reason: String,
    },
    /// It came to nothing; it will be tried again.
    Nothing,
}

/// Neighbours of one track that are to become one piece.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) view: Arc<View>,
    pub(super) partition: Partition,
    pub(super) pieces: Vec<Arc<Piece>>,
}

impl Run {
    /// Merges them. This is work for the processor: not for a thread that other tasks wait for.
    pub(super) fn merge(self, context: &Arc<TaskContext>) -> Done {
        let Self { view, partition, pieces } = self;
        let states: Vec<RecordBatch> = pieces.iter().map(|piece| piece.states.clone()).collect();
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Done::Nothing };
        match tokio::runtime::Handle::current().block_on(view.fold.reduce(states, context)) {
            Ok(states) => {
                let failed = Failed::sum(pieces.iter().map(|piece| &piece.failed));
                let piece = Piece { from: first.from, to: last.to, states, failed, level: 1 };
                Done::Merged { view: view.name.clone(), partition, piece }
            }
            Err(error) => Done::Failed { view: view.name.clone(), reason: error.strip_backtrace() },
        }
    }
}

/// Runs the work.
pub(super) struct Background {
    context: Arc<Context>,
    dataset: Arc<Dataset>,
    partitions: Arc<BTreeSet<Partition>>,
    task_context: Arc<TaskContext>,
    tasks: JoinSet<Done>,
}

impl Background {
    pub(super) fn new(
        context: Arc<Context>,
        dataset: Arc<Dataset>,
        partitions: Arc<BTreeSet<Partition>>,
        task_context: Arc<TaskContext>,
    ) -> Self {
        Self { context, dataset, partitions, task_context, tasks: JoinSet::new() }
    }

    /// From now on only some of the partitions are held.
    pub(super) fn shrink(&mut self, partitions: Arc<BTreeSet<Partition>>) {
        self.partitions = partitions;
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// What has been done since the last look.
    pub(super) fn done(&mut self) -> Option<Done> {
        match self.tasks.try_join_next()? {
            Ok(done) => Some(done),
            Err(error) => {
                tracing::error!(dataset = self.dataset.name, "speed layer's background work died: {error}");
                Some(Done::Nothing)
            }
        }
    }

    /// Merges neighbours into one piece.
    pub(super) fn merge(&mut self, run: Run) {
        let context = self.task_context.clone();
        self.tasks.spawn_blocking(move || run.merge(&context));
    }

    /// Rebuilds a view from its cut up to master version `at`, beside the states that serve.
    pub(super) fn rebuild(&mut self, wanted: Wanted, at: master::Version) {
        let (context, dataset, partitions) = (self.context.clone(), self.dataset.clone(), self.partitions.clone());
        let task_context = self.task_context.clone();
        self.tasks.spawn(async move {
            let wanted = [wanted];
            let rebuilt = rebuild(&context.storage, &dataset, &at, &partitions, &wanted, &task_context).await;
            let [Wanted { view, cut }] = wanted;
            match rebuilt.map(|mut rebuilt| rebuilt.pop()) {
                Ok(Some(tracks)) => Done::Rebuilt { view: view.name.clone(), cut, until: at.frontier, tracks },
                Ok(None) => Done::Nothing,
                Err(error) => {
                    tracing::warn!(view = view.name, "speed layer could not rebuild the view, trying again: {error}");
                    Done::Nothing
                }
            }
        });
    }
}
