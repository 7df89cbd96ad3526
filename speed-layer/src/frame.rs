//! A frame: the states of all views of a dataset at one head. Readers take a whole frame; the worker puts a new one in
//! its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

use common::{
    catalog::View,
    position::{Frontier, Partition},
    speed::{
        Error, Status, ViewRequest,
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

/// What is known of the log beyond the head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beyond {
    /// The log's end, and when it was known to be the end, microseconds since 1970.
    pub(crate) end: Option<(Frontier, i64)>,
    /// By partition, the log's time of the last event below the head, milliseconds since 1970.
    pub(crate) last_ms: BTreeMap<Partition, i64>,
}

impl Beyond {
    /// An upper bound of the age of the oldest event that is not below `head`. An event that nobody has seen yet was
    /// logged after the end was looked at; one of a partition that lags was logged after the last one below the head.
    pub(crate) fn freshness_ms(&self, head: &Frontier, now_us: i64) -> Option<i64> {
        let (end, seen_us) = self.end.as_ref()?;
        let mut oldest_ms = seen_us.div_euclid(1000);
        for (partition, end) in end.iter() {
            if head.get(partition) < end {
                oldest_ms = oldest_ms.min(*self.last_ms.get(&partition)?);
            }
        }
        Some((now_us.div_euclid(1000) - oldest_ms).max(0))
    }
}

/// A dataset as its readers see it.
#[derive(Debug)]
pub(crate) struct Shared {
    dataset: String,
    clock: Arc<dyn common::clock::Clock>,
    inner: RwLock<Inner>,
    head: watch::Sender<Frontier>,
}

#[derive(Debug, Default)]
struct Inner {
    frame: Option<Arc<Frame>>,
    beyond: Beyond,
    stopped: Option<String>,
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
        }
    }

    /// Puts a new frame in the place of the last one.
    pub(crate) fn publish(&self, frame: Arc<Frame>, beyond: Beyond) {
        let head = frame.head.clone();
        {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            inner.frame = Some(frame);
            inner.beyond = beyond;
        }
        self.head.send_replace(head);
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
        let (frame, freshness_ms) = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            let Some(frame) = inner.frame.clone() else {
                let reason = inner.stopped.clone().unwrap_or_default();
                return Err(Error::NotReady { dataset: self.dataset.clone(), reason });
            };
            let freshness_ms = inner.beyond.freshness_ms(&frame.head, self.clock.now_us());
            (frame, freshness_ms)
        };
        let mut parts = Vec::with_capacity(views.len());
        for view in views {
            let Some(part) = freeze_view(&frame, view, wanted)? else { return Ok(None) };
            parts.push(part);
        }
        let head = frame.head.iter().filter(|(partition, _)| wanted.contains(partition)).collect();
        Ok(Some(Part { head, freshness_ms, views: parts }))
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

    /// How the dataset stands.
    pub(crate) fn status(&self) -> Status {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let head = inner.frame.as_ref().map(|frame| frame.head.clone());
        let freshness_ms = head.as_ref().and_then(|head| inner.beyond.freshness_ms(head, self.clock.now_us()));
        Status { head, freshness_ms, stopped: inner.stopped.clone() }
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
    let states = Arc::new(Pieces { schema: state.view.fold.state().clone(), by_cut });
    Ok(Some(PartView { possible, states }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_an_upper_bound() {
        let frontier = |at| Frontier::from_iter([(0, at)]);
        let check = |end: Option<i64>, last: Option<i64>, expected: Option<i64>| {
            let beyond = Beyond {
                end: end.map(|end| (frontier(end), 1_000_000)),
                last_ms: last.map(|ms| (0, ms)).into_iter().collect(),
            };
            assert_eq!(beyond.freshness_ms(&frontier(10), 1_500_000), expected);
        };
        check(None, Some(900), None);
        check(Some(10), Some(900), Some(500));
        check(Some(11), Some(900), Some(600));
        check(Some(11), None, None);
    }
}
