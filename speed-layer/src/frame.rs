//! A frame: the states of all views of a dataset at one head. Readers take a whole frame; the worker puts a new one in
//! its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use common::{
    catalog::View,
    fold::Failed,
    log::Chunk,
    position::{Frontier, Partition},
    speed::{
        CatchingUp, Error, Status, ViewRequest,
        parts::{Part, PartView},
    },
};
use tokio::sync::watch;

use crate::{
    piece::{Piece, Pieces},
    track::Track,
};

/// One view's states.
#[derive(Clone, Debug)]
pub(crate) struct ViewState {
    pub(crate) view: Arc<View>,
    pub(crate) tracks: BTreeMap<Partition, Track>,
    /// Why its SQL cannot be computed over the events; the other views go on.
    pub(crate) failed: Option<String>,
}

impl ViewState {
    /// The pieces from `cut` to the head; `None` when the states cannot be separated there.
    pub(crate) fn since(&self, cut: &Frontier) -> Option<Vec<Arc<Piece>>> {
        self.since_in(cut, |_| true)
    }

    /// The same for some of the partitions.
    fn since_in(&self, cut: &Frontier, is_wanted: impl Fn(Partition) -> bool) -> Option<Vec<Arc<Piece>>> {
        let mut pieces = Vec::new();
        for (&partition, track) in self.tracks.iter().filter(|&(&partition, _)| is_wanted(partition)) {
            pieces.extend_from_slice(track.since(cut.get(partition))?);
        }
        Some(pieces)
    }

    /// How much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.tracks.values().flat_map(Track::pieces).map(|piece| piece.bytes()).sum()
    }
}

/// Everything at one head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) head: Frontier,
    pub(crate) views: BTreeMap<String, Arc<ViewState>>,
}

/// An end of the log that was seen longer ago than this says nothing of what has been logged since.
const END_KNOWN_US: i64 = 5_000_000;

/// What is known of the log beyond the head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beyond {
    /// The log's end, and when it was known to be the end, microseconds since 1970.
    pub(crate) end: Option<(Frontier, i64)>,
    /// By partition, the log's time of the first event that has been read and is not below the head yet, milliseconds
    /// since 1970.
    pub(crate) first_ms: BTreeMap<Partition, i64>,
    /// By partition, a time at or after which whatever lies beyond the head was logged: the log's time of the last
    /// event below the head, or when the head was last seen to stand at the end. Milliseconds since 1970.
    pub(crate) after_ms: BTreeMap<Partition, i64>,
}

impl Beyond {
    /// Notes where the log ends.
    pub(crate) fn note_end(&mut self, head: &Frontier, end: Frontier, seen_us: i64) {
        for (partition, _) in end.iter().filter(|&(partition, end)| head.get(partition) >= end) {
            let after_ms = self.after_ms.entry(partition).or_insert(i64::MIN);
            *after_ms = (*after_ms).max(seen_us.div_euclid(1000));
        }
        self.end = Some((end, seen_us));
    }

    /// Notes what has been read and is about to be folded.
    pub(crate) fn note_read(&mut self, chunk: &Chunk) {
        if let Some((end, _)) = &mut self.end {
            end.advance(chunk.partition, chunk.next);
        }
        if let Some(&first_ms) = chunk.timestamps_ms.first() {
            self.first_ms.entry(chunk.partition).or_insert(first_ms);
        }
    }

    /// The age of the oldest event that is known to be logged and is not below `head`, 0 when there is none. An event
    /// that has not been read yet counts from a time at which it was not logged yet, so that it may be younger than
    /// told, never older.
    pub(crate) fn freshness_ms(&self, head: &Frontier, now_us: i64) -> Option<i64> {
        let (end, seen_us) = self.end.as_ref()?;
        let mut oldest_ms: Option<i64> = None;
        for (partition, _) in end.iter().filter(|&(partition, end)| head.get(partition) < end) {
            let ms = *self.first_ms.get(&partition).or_else(|| self.after_ms.get(&partition))?;
            oldest_ms = Some(oldest_ms.map_or(ms, |oldest| oldest.min(ms)));
        }
        match oldest_ms {
            Some(oldest_ms) => Some((now_us.div_euclid(1000) - oldest_ms).max(0)),
            None => (now_us - seen_us <= END_KNOWN_US).then_some(0),
        }
    }
}

/// A dataset as its readers see it.
#[derive(Debug)]
pub(crate) struct Shared {
    dataset: String,
    clock: Arc<dyn common::clock::Clock>,
    inner: RwLock<Inner>,
    head: watch::Sender<Frontier>,
    /// Where the log ended at the start: whoever was answered before that was at most there.
    target: OnceLock<Frontier>,
    cuts: Mutex<Cuts>,
}

/// What workers and the replicas that read them tell each other of cuts, by definition of a view.
#[derive(Debug, Default)]
struct Cuts {
    /// Those that are possible here, oldest first.
    possible: BTreeMap<String, Vec<Frontier>>,
    /// The newest that is possible on every owner, and when that was said, microseconds since 1970.
    complete: BTreeMap<String, (Frontier, i64)>,
}

#[derive(Debug, Default)]
struct Inner {
    frame: Option<Arc<Frame>>,
    beyond: Beyond,
    stopped: Option<String>,
    catching_up: Option<CatchingUp>,
}

impl Shared {
    /// A dataset that is not ready yet.
    pub(crate) fn new(dataset: &str, clock: Arc<dyn common::clock::Clock>) -> Self {
        let inner = Inner { stopped: Some("it has just been started".to_owned()), ..Inner::default() };
        Self {
            dataset: dataset.to_owned(),
            clock,
            inner: RwLock::new(inner),
            head: watch::Sender::new(Frontier::default()),
            target: OnceLock::new(),
            cuts: Mutex::default(),
        }
    }

    /// Notes which cuts are possible, and returns which are known to be possible on every owner.
    pub(crate) fn note_possible(&self, possible: BTreeMap<String, Vec<Frontier>>) -> BTreeMap<String, (Frontier, i64)> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.possible = possible;
        let Cuts { possible, complete } = &mut *cuts;
        complete.retain(|definition, _| possible.contains_key(definition));
        complete.clone()
    }

    /// Which cuts are possible.
    pub(crate) fn possible(&self) -> BTreeMap<String, Vec<Frontier>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).possible.clone()
    }

    /// Notes which cuts a replica has found possible on every owner. One that knows only an older one says nothing new.
    pub(crate) fn note_complete(&self, told: &BTreeMap<String, Frontier>) {
        let now_us = self.clock.now_us();
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let Cuts { possible, complete } = &mut *cuts;
        for (definition, at) in told.iter().filter(|(definition, _)| possible.contains_key(*definition)) {
            if complete.get(definition).is_none_or(|(known, _)| at.covers(known)) {
                complete.insert(definition.clone(), (at.clone(), now_us));
            }
        }
    }

    /// Where the log ended at the start, once it is known.
    pub(crate) fn target(&self) -> Option<&Frontier> {
        self.target.get()
    }

    /// Gives out no frame before its head has come to `end`. Only the first time counts: what is logged since then
    /// must not keep it from ever coming there.
    pub(crate) fn aim_at(&self, end: Frontier) {
        let _ = self.target.set(end);
    }

    /// Puts a new frame in the place of the last one. Not one whose head is below it in some partition, as after a
    /// start from the master dataset, and none that is below where the log ended when all was begun: answers never go
    /// back, not even those of the process before. Whether it has been put there.
    pub(crate) fn publish(&self, frame: Arc<Frame>, beyond: Beyond) -> bool {
        let head = frame.head.clone();
        {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            // Partitions that have gone to another worker are not asked for here any more.
            let goes_back = |last: &Arc<Frame>| head.iter().any(|(partition, next)| next < last.head.get(partition));
            if inner.frame.as_ref().is_some_and(goes_back) {
                return false;
            }
            if let (None, Some(target)) = (&inner.frame, self.target.get()) {
                let target: Frontier = head.partitions().map(|partition| (partition, target.get(partition))).collect();
                if !head.covers(&target) {
                    inner.catching_up = Some(CatchingUp { head, target });
                    return false;
                }
            }
            inner.catching_up = None;
            inner.frame = Some(frame);
            inner.beyond = beyond;
        }
        self.head.send_replace(head);
        true
    }

    /// Only what is known beyond the head has changed.
    pub(crate) fn look_beyond(&self, beyond: Beyond) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).beyond = beyond;
    }

    /// Says why the head does not move; `None` when it does.
    pub(crate) fn stopped(&self, reason: Option<String>) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).stopped = reason;
    }

    /// Freezes some partitions of the present frame, as far as it has them; `None` when it does not have one of the
    /// views.
    pub(crate) fn freeze(&self, views: &[ViewRequest], wanted: &BTreeSet<Partition>) -> Result<Option<Part>, Error> {
        let (frame, freshness_ms, stopped) = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            let Some(frame) = inner.frame.clone() else {
                if let Some(catching_up) = inner.catching_up.clone() {
                    return Err(catching_up.error(&self.dataset));
                }
                let reason = inner.stopped.clone().unwrap_or_default();
                return Err(Error::NotReady { dataset: self.dataset.clone(), reason });
            };
            let freshness_ms = inner.beyond.freshness_ms(&frame.head, self.clock.now_us());
            (frame, freshness_ms, inner.stopped.clone())
        };
        let mut parts = Vec::with_capacity(views.len());
        for view in views {
            let Some(part) = freeze_view(&frame, view, wanted)? else { return Ok(None) };
            parts.push(part);
        }
        let head = frame.head.iter().filter(|(partition, _)| wanted.contains(partition)).collect();
        Ok(Some(Part { head, freshness_ms, stopped, views: parts }))
    }

    /// The head, and the news when it moves.
    pub(crate) fn head(&self) -> watch::Receiver<Frontier> {
        self.head.subscribe()
    }

    /// By definition, the head of every view that can be answered for.
    pub(crate) fn views(&self) -> BTreeMap<String, Frontier> {
        let frame = self.inner.read().unwrap_or_else(PoisonError::into_inner).frame.clone();
        let Some(frame) = frame else { return BTreeMap::new() };
        frame.views.values().map(|state| (state.view.definition.clone(), frame.head.clone())).collect()
    }

    /// How many offsets of the log are above the head; `None` when its end cannot be told.
    pub(crate) fn unread(&self) -> Option<i64> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let (head, (end, _)) = (&inner.frame.as_ref()?.head, inner.beyond.end.as_ref()?);
        Some(end.iter().map(|(partition, end)| (end - head.get(partition)).max(0)).sum())
    }

    /// How the dataset stands.
    pub(crate) fn status(&self) -> Status {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let head = inner.frame.as_ref().map(|frame| frame.head.clone());
        let freshness_ms = head.as_ref().and_then(|head| inner.beyond.freshness_ms(head, self.clock.now_us()));
        Status { head, freshness_ms, stopped: inner.stopped.clone(), catching_up: inner.catching_up.clone() }
    }
}

fn freeze_view(
    frame: &Frame,
    wanted: &ViewRequest,
    partitions: &BTreeSet<Partition>,
) -> Result<Option<PartView>, Error> {
    let state = frame.views.get(&wanted.view).filter(|state| state.view.definition == wanted.definition);
    let Some(state) = state else { return Ok(None) };
    if let Some(reason) = &state.failed {
        return Err(Error::Failed { view: wanted.view.clone(), reason: reason.clone() });
    }
    let by_cut: Vec<Option<Vec<Arc<Piece>>>> =
        wanted.cuts.iter().map(|cut| state.since_in(cut, |partition| partitions.contains(&partition))).collect();
    let possible = by_cut.iter().map(Option::is_some).collect();
    let failed = by_cut.iter().map(|pieces| {
        let failed = pieces.iter().flatten().map(|piece| &piece.failed);
        if wanted.with_failed { Failed::sum(failed) } else { Failed::of(failed.map(Failed::count).sum()) }
    });
    let failed = failed.collect();
    let states = Arc::new(Pieces { schema: state.view.fold.state().clone(), by_cut });
    Ok(Some(PartView { possible, failed, states }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_the_age_of_what_is_missing() {
        let frontier = |at| Frontier::from_iter([(0, at)]);
        let check = |end: Option<i64>, first: Option<i64>, after: Option<i64>, now_ms: i64, expected: Option<i64>| {
            let beyond = Beyond {
                end: end.map(|end| (frontier(end), 1_000_000)),
                first_ms: first.map(|ms| (0, ms)).into_iter().collect(),
                after_ms: after.map(|ms| (0, ms)).into_iter().collect(),
            };
            assert_eq!(beyond.freshness_ms(&frontier(10), now_ms * 1000), expected);
        };
        check(None, None, Some(900), 1500, None);
        check(Some(10), None, Some(900), 1500, Some(0));
        check(Some(10), None, Some(900), 6000, Some(0));
        check(Some(10), None, Some(900), 6001, None);
        check(Some(11), None, Some(900), 1500, Some(600));
        check(Some(11), None, Some(900), 9900, Some(9000));
        check(Some(11), Some(950), Some(900), 1500, Some(550));
        check(Some(11), Some(1600), None, 1500, Some(0));
        check(Some(11), None, None, 1500, None);
    }

    #[test]
    fn an_idle_log_is_no_old_event() {
        let frontier = |at| Frontier::from_iter([(0, at)]);
        let mut beyond = Beyond::default();
        beyond.after_ms.insert(0, 1_000);
        beyond.note_end(&frontier(10), frontier(10), 60_000_000);
        assert_eq!(beyond.freshness_ms(&frontier(10), 60_050_000), Some(0));
        beyond.note_end(&frontier(10), frontier(11), 60_100_000);
        assert_eq!(beyond.freshness_ms(&frontier(10), 60_150_000), Some(150));
        let mut chunk = Chunk::new(0, 10);
        chunk.push(10, 60_090, None);
        chunk.push(11, 60_120, None);
        beyond.note_read(&chunk);
        assert_eq!(beyond.freshness_ms(&frontier(10), 60_150_000), Some(60));
        assert_eq!(beyond.end, Some((frontier(12), 60_100_000)));
    }

    #[test]
    fn answers_never_go_back() {
        let shared = Shared::new("sales", Arc::new(common::clock::System));
        let frame = |a, b| Arc::new(Frame { head: Frontier::from_iter([(0, a), (1, b)]), views: BTreeMap::new() });
        let check = |a, b, is_shown, head: (i64, i64)| {
            assert_eq!(shared.publish(frame(a, b), Beyond::default()), is_shown, "{a} {b}");
            assert_eq!(shared.status().head, Some(frame(head.0, head.1).head.clone()));
        };
        check(5, 5, true, (5, 5));
        check(6, 4, false, (5, 5));
        check(6, 5, true, (6, 5));
        shared.aim_at(Frontier::from_iter([(0, 9), (1, 9)]));
        check(7, 5, true, (7, 5));
        let left = Arc::new(Frame { head: Frontier::from_iter([(1, 5)]), views: BTreeMap::new() });
        assert!(shared.publish(left, Beyond::default()), "the other partition is held elsewhere");
    }

    #[test]
    fn the_first_answer_has_all_that_the_log_had_at_the_start() {
        let shared = Shared::new("sales", Arc::new(common::clock::System));
        let frontier = |a, b| Frontier::from_iter([(0, a), (1, b)]);
        let publish =
            |head: Frontier| shared.publish(Arc::new(Frame { head, views: BTreeMap::new() }), Beyond::default());
        let freeze = || shared.freeze(&[], &BTreeSet::from([0, 1]));
        assert!(matches!(freeze(), Err(Error::NotReady { .. })), "it is not known yet where the log ends");
        shared.aim_at(Frontier::from_iter([(0, 5), (1, 5), (2, 5)]));
        shared.aim_at(frontier(9, 9));
        for (a, b) in [(0, 0), (9, 4)] {
            assert!(!publish(frontier(a, b)));
            let (head, target) = (frontier(a, b), frontier(5, 5));
            assert_eq!(shared.status().catching_up, Some(CatchingUp { head: head.clone(), target: target.clone() }));
            assert_eq!((shared.status().head, shared.head().borrow().clone()), (None, Frontier::default()));
            match freeze() {
                Err(Error::CatchingUp { head: at, target: to, .. }) => assert_eq!((at, to), (head, target)),
                frozen => panic!("{frozen:?}"),
            }
        }
        assert!(publish(frontier(9, 5)), "partition 2 is held elsewhere");
        assert_eq!((shared.status().head, shared.status().catching_up), (Some(frontier(9, 5)), None));
        assert_eq!(freeze().unwrap().unwrap().head, frontier(9, 5));
    }
}
