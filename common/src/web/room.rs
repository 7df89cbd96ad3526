//! How many connections there are, and which of them go first where there are too many.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// Room for connections. Where it is full, one that has no request at work makes place for a new one.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    seats: Mutex<Seats>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Seat>,
}

#[derive(Clone, Debug)]
struct Seat {
    at_work: usize,
    /// Whether it has asked for something yet.
    has_asked: bool,
    /// Since when nothing is at work.
    since: Instant,
    leave: CancellationToken,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    room: Room,
    /// Told when it is to make place.
    pub(super) leave: CancellationToken,
}

impl Room {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max: max.max(1), seats: Mutex::default(), freed: Notify::new() }))
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, as soon as there is one.
    pub(super) async fn enter(&self) -> Place {
        loop {
            let freed = self.0.freed.notified();
            {
                let mut seats = self.seats();
                if seats.taken.len() < self.0.max || seats.send_away() {
                    return self.take(&mut seats);
                }
            }
            freed.await;
        }
    }

    fn take(&self, seats: &mut Seats) -> Place {
        let (id, leave) = (seats.next, CancellationToken::new());
        let seat = Seat { at_work: 0, has_asked: false, since: Instant::now(), leave: leave.clone() };
        seats.next += 1;
        seats.taken.insert(id, seat);
        Place { id, room: self.clone(), leave }
    }

    /// Sends a connection away that nothing is at work for, if there is one.
    pub(super) fn send_away(&self) -> bool {
        self.seats().send_away()
    }
}

impl Seats {
    /// Those that never asked for anything go first, and of them those that have been here for the longest time.
    fn send_away(&mut self) -> bool {
        let idle = self.taken.iter().filter(|(_, seat)| seat.at_work == 0);
        let Some((&id, _)) = idle.min_by_key(|(_, seat)| (seat.has_asked, seat.since)) else { return false };
        if let Some(seat) = self.taken.remove(&id) {
            seat.leave.cancel();
        }
        true
    }
}

impl Place {
    /// Until when it may stay, as things are: `first` is how long it may take to ask for the first time, `idle` how long
    /// it may have nothing at work later.
    pub(super) fn until(&self, first: Duration, idle: Duration) -> Instant {
        let seats = self.room.seats();
        match seats.taken.get(&self.id) {
            Some(Seat { at_work: 0, has_asked, since, .. }) => *since + if *has_asked { idle } else { first },
            Some(_) => Instant::now() + idle,
            None => Instant::now(),
        }
    }

    /// A request is at work from now on, until what this gives is dropped.
    pub(super) fn begin(&self) -> AtWork {
        if let Some(seat) = self.room.seats().taken.get_mut(&self.id) {
            seat.at_work += 1;
            seat.has_asked = true;
        }
        AtWork { id: self.id, room: self.room.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.seats().taken.remove(&self.id);
        self.room.0.freed.notify_one();
    }
}

/// A request that is at work.
#[derive(Debug)]
pub(super) struct AtWork {
    id: u64,
    room: Room,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut seats = self.room.seats();
        if let Some(seat) = seats.taken.get_mut(&self.id) {
            seat.at_work -= 1;
            seat.since = Instant::now();
        }
        drop(seats);
        // One who waits may take its place.
        self.room.0.freed.notify_one();
    }
}

/// A body whose request is at work until it has been sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) body: Body,
    pub(super) _at_work: AtWork,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_connections_make_place_and_those_at_work_do_not() {
        let (room, moment) = (Room::new(3), Duration::from_millis(20));
        let at_work = room.enter().await;
        let request = at_work.begin();
        tokio::time::sleep(moment).await;
        let asked = room.enter().await;
        drop(asked.begin());
        tokio::time::sleep(moment).await;
        let silent = room.enter().await;
        assert!(silent.until(moment, moment * 9) <= Instant::now() + moment);
        // The one that never asked goes first, though it came last; then the one that has nothing at work.
        let third = room.enter().await;
        let third_request = third.begin();
        assert!(silent.leave.is_cancelled() && !asked.leave.is_cancelled());
        assert!(silent.until(moment, moment) <= Instant::now());
        let fourth = room.enter().await;
        let fourth_request = fourth.begin();
        assert!(asked.leave.is_cancelled());
        let waiting = tokio::time::timeout(moment * 3, room.enter()).await;
        assert!(waiting.is_err() && !at_work.leave.is_cancelled());
        drop(fourth_request);
        room.enter().await;
        assert!(fourth.leave.is_cancelled());
        drop((request, third_request));
        assert!(!at_work.leave.is_cancelled() && !third.leave.is_cancelled());
    }
}
