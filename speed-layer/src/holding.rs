//! What this process holds of one dataset: workers, each with partitions of its own.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use common::{
    catalog::Dataset,
    position::{Frontier, Partition},
    speed::{Error, Status, ViewRequest, parts::Part, wire},
};
use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Context,
    frame::Shared,
    metrics::{Look, Metrics},
    worker::Worker,
};

/// How long to wait for a head at most before workers that have come or gone are looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The workers of one dataset.
#[derive(Debug)]
pub(crate) struct Holding {
    context: Arc<Context>,
    dataset: Arc<Dataset>,
    metrics: Metrics,
    workers: RwLock<Vec<Arc<Held>>>,
}

/// One worker, seen from outside.
#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    /// What it is to hold; `None` for all partitions.
    keep: watch::Sender<Option<BTreeSet<Partition>>>,
    /// Ends it once nobody holds on to it.
    _end: DropGuard,
}

impl Holding {
    pub(crate) fn new(context: Arc<Context>, dataset: Arc<Dataset>, metrics: Metrics) -> Self {
        Self { context, dataset, metrics, workers: RwLock::default() }
    }

    /// Holds all partitions.
    pub(crate) fn hold_all(&self) {
        self.begin(None);
    }

    /// Holds `partitions` too, of which it holds none yet.
    pub(crate) fn add(&self, partitions: BTreeSet<Partition>) {
        tracing::info!(dataset = self.dataset.name, ?partitions, "speed layer takes partitions");
        self.begin(Some(partitions));
    }

    /// Lets go of everything but `kept`.
    pub(crate) fn shrink(&self, kept: &BTreeSet<Partition>) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|held| {
            let Some(partitions) = held.keep.borrow().clone() else { return true };
            let left: BTreeSet<Partition> = partitions.intersection(kept).copied().collect();
            if left.len() < partitions.len() {
                let gone: Vec<Partition> = partitions.difference(&left).copied().collect();
                tracing::info!(dataset = self.dataset.name, ?gone, "speed layer lets partitions go");
            }
            let is_left = !left.is_empty();
            if is_left && left.len() < partitions.len() {
                held.keep.send_replace(Some(left));
            }
            is_left
        });
    }

    /// The topic that its events come from.
    pub(crate) fn topic(&self) -> String {
        self.dataset.topic.clone()
    }

    /// The partitions that it was told to hold.
    pub(crate) fn partitions(&self) -> BTreeSet<Partition> {
        self.workers().iter().filter_map(|held| held.keep.borrow().clone()).flatten().collect()
    }

    fn begin(&self, partitions: Option<BTreeSet<Partition>>) {
        let (context, dataset) = (self.context.clone(), self.dataset.clone());
        let shared = Arc::new(Shared::new(&dataset.name, context.clock.clone()));
        let keep = watch::Sender::new(partitions);
        let end: CancellationToken = context.supervisor.cancelled().child_token();
        let supervisor = context.supervisor.clone();
        let worker = Worker::new(context, dataset, shared.clone(), self.metrics.clone(), keep.subscribe());
        supervisor.spawn(format!("speed layer of {}", self.dataset.name), worker.run(end.clone()));
        let held = Arc::new(Held { shared, keep, _end: end.drop_guard() });
        self.workers.write().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    fn workers(&self) -> Vec<Arc<Held>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Freezes those of `wanted` that it holds, each taken from one worker.
    pub(crate) fn freeze(&self, wanted: &BTreeSet<Partition>, views: &[ViewRequest]) -> Result<Vec<Part>, Error> {
        let (mut left, mut parts, mut not_ready) = (wanted.clone(), Vec::new(), None);
        let workers = self.workers();
        for held in &workers {
            match held.shared.freeze(views, &left) {
                Ok(Some(part)) => {
                    for partition in part.head.partitions() {
                        left.remove(&partition);
                    }
                    parts.push(part);
                }
                Ok(None) => {}
                Err(error @ Error::NotReady { .. }) => not_ready = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (parts.is_empty(), not_ready, views.first()) {
            (true, Some(not_ready), _) => Err(not_ready),
            (true, None, Some(view)) if !workers.is_empty() => Err(Error::NoCut { view: view.view.clone() }),
            _ => Ok(parts),
        }
    }

    /// How far all workers have come together.
    fn head(&self) -> Frontier {
        let mut head = Frontier::default();
        for held in self.workers() {
            head.join(&held.shared.head().borrow());
        }
        head
    }

    /// Waits until the head has reached `position`.
    pub(crate) async fn reach(&self, position: &Frontier, wait: Duration) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // The news first: what comes after it is not missed.
            let mut news: Vec<_> = self.workers().iter().map(|held| held.shared.head()).collect();
            news.iter_mut().for_each(|head| drop(head.borrow_and_update()));
            let head = self.head();
            if head.covers(position) {
                return Ok(());
            }
            let now = tokio::time::Instant::now();
            if now >= deadline {
                let dataset = self.dataset.name.clone();
                return Err(Error::NotReached { dataset, head, wanted: position.clone() });
            }
            let until = deadline.min(now + LOOK_AGAIN);
            if news.is_empty() {
                tokio::time::sleep_until(until).await;
            } else {
                let moved = select_all(news.iter_mut().map(|head| Box::pin(head.changed())));
                let _ = tokio::time::timeout_at(until, moved).await;
            }
        }
    }

    /// How everything that it holds stands together.
    pub(crate) fn status(&self) -> Status {
        let all: Vec<Status> = self.workers().iter().map(|held| held.shared.status()).collect();
        let mut head = Frontier::default();
        all.iter().filter_map(|status| status.head.as_ref()).for_each(|at| head.join(at));
        let is_ready = !all.is_empty() && all.iter().all(|status| status.head.is_some());
        let ages: Option<Vec<i64>> = all.iter().map(|status| status.freshness_ms).collect();
        Status {
            head: is_ready.then_some(head),
            freshness_ms: ages.and_then(|ages| ages.into_iter().max()),
            stopped: all.into_iter().find_map(|status| status.stopped),
        }
    }

    /// How it stands, for as long as it is there: whoever looks does not keep it.
    pub(crate) fn look(this: &Arc<Self>) -> Look {
        let this = Arc::downgrade(this);
        Box::new(move || {
            let this = this.upgrade()?;
            let unread: Option<Vec<i64>> = this.workers().iter().map(|held| held.shared.unread()).collect();
            Some((this.status(), unread.map(|unread| unread.into_iter().sum())))
        })
    }

    /// What it can be asked for.
    pub(crate) fn held(&self) -> wire::Held {
        let mut held = wire::Held { status: self.status(), ..wire::Held::default() };
        for worker in self.workers() {
            if let Some(head) = worker.shared.status().head {
                held.head.join(&head);
            }
            for (definition, head) in worker.shared.views() {
                held.views.entry(definition).or_default().join(&head);
            }
        }
        held
    }
}
