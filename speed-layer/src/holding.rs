//! What this process holds of one dataset: workers, each with partitions of its own.
//!
//! A view that changes has other states, so it gets other workers, for all views of the dataset: what a query reads is
//! then in one worker, at one head. Those before go on as long as somebody needs them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use common::{
    catalog::{Dataset, View},
    position::{Frontier, Partition},
    speed::{CatchingUp, Error, Status, ViewRequest, parts::Part, wire},
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
    /// The last one has the views that are wanted; those before it go on until nobody needs them. Never empty.
    sets: RwLock<Vec<Set>>,
    /// How far answers of this process have come.
    answered: Mutex<Frontier>,
}

/// Workers that compute the same views, each for partitions of its own.
#[derive(Debug)]
struct Set {
    views: Arc<Vec<Arc<View>>>,
    workers: Vec<Arc<Held>>,
    /// When somebody last asked for what no other set has.
    needed: Mutex<Option<Instant>>,
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

impl Set {
    fn of(views: Arc<Vec<Arc<View>>>) -> Self {
        Self { views, workers: Vec::new(), needed: Mutex::default() }
    }

    /// Whether it computes just these views.
    fn is_of(&self, views: &[Arc<View>]) -> bool {
        let as_here = |(a, b): (&Arc<View>, &Arc<View>)| a.name == b.name && a.definition == b.definition;
        self.views.len() == views.len() && self.views.iter().zip(views).all(as_here)
    }

    /// Whether it computes all that is asked for.
    fn has(&self, asked: &[ViewRequest]) -> bool {
        let has = |asked: &ViewRequest| {
            self.views.iter().any(|view| view.name == asked.view && view.definition == asked.definition)
        };
        asked.iter().all(has)
    }

    fn needed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.needed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far all its workers have come together.
    fn head(&self) -> Frontier {
        let mut head = Frontier::default();
        self.workers.iter().for_each(|held| head.join(&held.shared.head().borrow()));
        head
    }

    fn is_ready(&self) -> bool {
        self.workers.iter().all(|held| held.shared.status().head.is_some())
    }
}

impl Holding {
    pub(crate) fn new(context: Arc<Context>, dataset: Arc<Dataset>, metrics: Metrics, views: Vec<Arc<View>>) -> Self {
        Self {
            context,
            dataset,
            metrics,
            sets: RwLock::new(vec![Set::of(Arc::new(views))]),
            answered: Mutex::default(),
        }
    }

    /// Holds all partitions.
    pub(crate) fn hold_all(&self) {
        self.hold(None);
    }

    /// Holds `partitions` too, of which it holds none yet.
    pub(crate) fn add(&self, partitions: BTreeSet<Partition>) {
        tracing::info!(dataset = self.dataset.name, ?partitions, "speed layer takes partitions");
        self.hold(Some(partitions));
    }

    fn hold(&self, partitions: Option<BTreeSet<Partition>>) {
        for set in self.sets_mut().iter_mut() {
            set.workers.push(self.begin(&set.views, partitions.clone()));
        }
    }

    /// Computes `views` from now on, beside what there is.
    pub(crate) fn want(&self, views: Vec<Arc<View>>) {
        let mut sets = self.sets_mut();
        if sets.last().is_some_and(|set| set.is_of(&views)) {
            return;
        }
        let is_one_beside_others = sets.len() > 1;
        let wanted = match sets.iter().position(|set| set.is_of(&views)) {
            Some(place) => sets.remove(place),
            None => {
                let mut wanted = Set::of(Arc::new(views));
                for held in sets.last().iter().flat_map(|set| &set.workers) {
                    wanted.workers.push(self.begin(&wanted.views, held.keep.borrow().clone()));
                }
                tracing::info!(
                    dataset = self.dataset.name,
                    views = wanted.views.len(),
                    "speed layer builds other views"
                );
                wanted
            }
        };
        // What was wanted before and nobody has asked for yet, nobody will.
        if is_one_beside_others && sets.last().is_some_and(|set| set.needed().is_none()) {
            sets.pop();
        }
        sets.push(wanted);
    }

    /// Whether what is wanted can be answered for.
    pub(crate) fn is_ready(&self) -> bool {
        self.sets().last().is_some_and(Set::is_ready)
    }

    /// Lets go of what is not wanted any more and nobody has needed for so long. Whether nothing of it is left.
    pub(crate) fn let_go(&self, after: Duration) -> bool {
        let mut sets = self.sets_mut();
        let Some(wanted) = sets.pop() else { return true };
        let head = wanted.head();
        // Answers do not go back: what takes another's place has come as far.
        sets.retain(|set| {
            let is_needed = set.needed().is_some_and(|at| at.elapsed() < after);
            let stays = is_needed || !wanted.is_ready() || !head.covers(&set.head());
            if !stays {
                tracing::info!(dataset = self.dataset.name, "speed layer lets go of views that were replaced");
            }
            stays
        });
        sets.push(wanted);
        sets.len() == 1
    }

    /// Lets go of everything but `kept`.
    pub(crate) fn shrink(&self, kept: &BTreeSet<Partition>) {
        for set in self.sets_mut().iter_mut() {
            set.workers.retain(|held| {
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
    }

    fn holds(&self, partition: Partition) -> bool {
        let has =
            |held: &Arc<Held>| held.keep.borrow().as_ref().is_none_or(|partitions| partitions.contains(&partition));
        self.workers().iter().any(has)
    }

    /// The topic that its events come from.
    pub(crate) fn topic(&self) -> String {
        self.dataset.topic.clone()
    }

    /// The partitions that it was told to hold.
    pub(crate) fn partitions(&self) -> BTreeSet<Partition> {
        self.workers().iter().filter_map(|held| held.keep.borrow().clone()).flatten().collect()
    }

    fn begin(&self, views: &Arc<Vec<Arc<View>>>, partitions: Option<BTreeSet<Partition>>) -> Arc<Held> {
        let (context, dataset) = (self.context.clone(), self.dataset.clone());
        let shared = Arc::new(Shared::new(&dataset.name, context.clock.clone()));
        let keep = watch::Sender::new(partitions);
        let end: CancellationToken = context.supervisor.cancelled().child_token();
        let supervisor = context.supervisor.clone();
        let (views, metrics) = (views.clone(), self.metrics.clone());
        let worker = Worker::new(context, dataset, views, shared.clone(), metrics, keep.subscribe());
        supervisor.spawn(format!("speed layer of {}", self.dataset.name), worker.run(end.clone()));
        Arc::new(Held { shared, keep, _end: end.drop_guard() })
    }

    fn sets(&self) -> RwLockReadGuard<'_, Vec<Set>> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sets_mut(&self) -> RwLockWriteGuard<'_, Vec<Set>> {
        self.sets.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn workers(&self) -> Vec<Arc<Held>> {
        self.sets().iter().flat_map(|set| set.workers.clone()).collect()
    }

    /// The workers that most answers come from: those of the first set.
    fn answering(&self) -> Vec<Arc<Held>> {
        self.sets().first().map(|set| set.workers.clone()).unwrap_or_default()
    }

    /// Freezes those of `wanted` that it holds, each taken from one worker.
    pub(crate) fn freeze(&self, wanted: &BTreeSet<Partition>, views: &[ViewRequest]) -> Result<Vec<Part>, Error> {
        let (mut left, mut parts, mut not_ready) = (wanted.clone(), Vec::new(), None);
        // Locked to the end: a set that is let go of meanwhile could have come further than the one in its place.
        let sets = self.sets();
        let mut able: Vec<&Set> = sets.iter().filter(|set| set.has(views)).collect();
        // Whoever asks for what is new is soon answered by nothing else: two sets do not stand at one head, and an answer
        // from one would have to wait for what the other has answered.
        if sets.last().is_some_and(|newest| newest.needed().is_some()) {
            able.reverse();
        }
        if let [only] = able.as_slice() {
            *only.needed() = Some(Instant::now());
        }
        for held in able.iter().flat_map(|set| &set.workers) {
            match held.shared.freeze(views, &left) {
                Ok(Some(part)) => {
                    for partition in part.head.partitions() {
                        left.remove(&partition);
                    }
                    parts.push(part);
                }
                Ok(None) => {}
                Err(error @ (Error::NotReady { .. } | Error::CatchingUp { .. })) => not_ready = Some(error),
                Err(error) => return Err(error),
            }
        }
        let is_held = sets.iter().any(|set| !set.workers.is_empty());
        match (parts.is_empty(), not_ready, views.first()) {
            (true, Some(not_ready), _) => Err(not_ready),
            (true, None, Some(view)) if is_held => Err(Error::NoCut { view: view.view.clone() }),
            _ => Ok(parts),
        }
    }

    /// How far answers have come: one that is asked for from now on does not go back behind it.
    pub(crate) fn answered(&self) -> Frontier {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers an answer at `head`.
    pub(crate) fn remember(&self, head: &Frontier) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).join(head);
    }

    /// How far all workers have come together.
    fn head(&self) -> Frontier {
        let mut head = Frontier::default();
        self.sets().iter().for_each(|set| head.join(&set.head()));
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
            // What has been let go of will not come: somebody else has it.
            let gone = position.iter().filter(|&(partition, next)| next > 0 && !self.holds(partition));
            let partitions: Vec<Partition> = gone.map(|(partition, _)| partition).collect();
            if !partitions.is_empty() {
                return Err(Error::NoOwner { dataset: self.dataset.name.clone(), partitions });
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
        let all: Vec<Status> = self.answering().iter().map(|held| held.shared.status()).collect();
        let mut head = Frontier::default();
        all.iter().filter_map(|status| status.head.as_ref()).for_each(|at| head.join(at));
        let is_ready = !all.is_empty() && all.iter().all(|status| status.head.is_some());
        let ages: Option<Vec<i64>> = all.iter().map(|status| status.freshness_ms).collect();
        let mut catching_up: Option<CatchingUp> = None;
        for one in all.iter().filter_map(|status| status.catching_up.as_ref()) {
            let all = catching_up.get_or_insert_default();
            all.head.join(&one.head);
            all.target.join(&one.target);
        }
        Status {
            head: is_ready.then_some(head),
            freshness_ms: ages.and_then(|ages| ages.into_iter().max()),
            stopped: all.into_iter().find_map(|status| status.stopped),
            catching_up,
        }
    }

    /// How it stands, for as long as it is there: whoever looks does not keep it.
    pub(crate) fn look(this: &Arc<Self>) -> Look {
        let this = Arc::downgrade(this);
        Box::new(move || {
            let this = this.upgrade()?;
            let unread: Option<Vec<i64>> = this.answering().iter().map(|held| held.shared.unread()).collect();
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
        for worker in self.workers() {
            for (definition, possible) in worker.shared.possible() {
                match held.cuts.entry(definition) {
                    Entry::Vacant(place) => drop(place.insert(possible)),
                    // Other partitions, which another worker of this process holds, may be cut elsewhere.
                    Entry::Occupied(mut known) => known.get_mut().retain(|cut| possible.contains(cut)),
                }
            }
        }
        held
    }

    /// Notes which cuts are possible on every owner.
    pub(crate) fn note_complete(&self, complete: &BTreeMap<String, Frontier>) {
        self.workers().iter().for_each(|worker| worker.shared.note_complete(complete));
    }
}
