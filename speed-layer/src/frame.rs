//! A frame: the states of all views of a dataset at one head. Readers take a whole frame; the worker puts a new one in
//! its place.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use common::{
    catalog::View,
    position::{Frontier, Partition},
    speed::{Error, Frozen, FrozenView, Request, Status, ViewRequest},
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
        let mut pieces = Vec::new();
        for (&partition, track) in &self.tracks {
            pieces.extend_from_slice(track.since(cut.get(partition))?);
        }
        let known = cut.partitions().all(|partition| self.tracks.contains_key(&partition) || cut.get(partition) == 0);
        known.then_some(pieces)
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

    /// Freezes the present frame for a request.
    pub(crate) fn freeze(&self, request: &Request) -> Result<Frozen, Error> {
        let (frame, freshness_ms) = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            let Some(frame) = inner.frame.clone() else {
                let reason = inner.stopped.clone().unwrap_or_default();
                return Err(Error::NotReady { dataset: self.dataset.clone(), reason });
            };
            let freshness_ms = inner.beyond.freshness_ms(&frame.head, self.clock.now_us());
            (frame, freshness_ms)
        };
        let views: Result<Vec<FrozenView>, Error> =
            request.views.iter().map(|wanted| freeze_view(&frame, wanted)).collect();
        Ok(Frozen { head: frame.head.clone(), freshness_ms, views: views? })
    }

    /// Waits until the head has reached `position`.
    pub(crate) async fn reach(&self, position: &Frontier, wait: Duration) -> Result<(), Error> {
        let mut head = self.head.subscribe();
        let reached = tokio::time::timeout(wait, head.wait_for(|head| head.covers(position))).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::NotReached {
                dataset: self.dataset.clone(),
                head: self.head.borrow().clone(),
                wanted: position.clone(),
            }),
        }
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
        Status { head, freshness_ms, stopped: inner.stopped.clone() }
    }
}

fn freeze_view(frame: &Frame, wanted: &ViewRequest) -> Result<FrozenView, Error> {
    let state = frame.views.get(&wanted.view).filter(|state| state.view.definition == wanted.definition);
    let Some(state) = state else { return Err(Error::NoCut { view: wanted.view.clone() }) };
    if let Some(reason) = &state.failed {
        return Err(Error::Failed { view: wanted.view.clone(), reason: reason.clone() });
    }
    let found = wanted.cuts.iter().enumerate().find_map(|(cut_index, cut)| Some((cut_index, state.since(cut)?)));
    let Some((cut_index, pieces)) = found else { return Err(Error::NoCut { view: wanted.view.clone() }) };
    let states = Arc::new(Pieces { schema: state.view.fold.state().clone(), pieces });
    Ok(FrozenView { cut_index, states })
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
