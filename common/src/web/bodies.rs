//! Bodies of requests: bounded together, and given up where they do not come.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::refusal::{About, BODIES_FULL, Refusal, SLOW_BODY};

/// A body that comes more slowly than so many bytes a second, or pauses for longer, is given up.
const RATE: u64 = 16 << 10;

/// What the bodies of all requests may take of memory.
#[derive(Clone, Debug)]
pub struct Bodies {
    room: Arc<Semaphore>,
    /// How much of one counts: what is longer is thrown away as it comes.
    longest: u64,
    pause: Duration,
}

impl Bodies {
    /// Room for `all` bytes; what of a body is beyond its `longest` is not kept, and so not counted. A body that pauses
    /// for longer than `pause` is given up.
    pub fn new(all: usize, longest: usize, pause: Duration) -> Self {
        let room = Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS)));
        Self { room, longest: longest as u64, pause }
    }
}

/// Lets a request on with a body that is watched. What it took is free again once the request has been answered.
pub(super) async fn watch(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    if axum::body::HttpBody::is_end_stream(request.body()) {
        return next.run(request).await;
    }
    let end = Arc::new(End::default());
    let (parts, body) = request.into_parts();
    let body = Body::from_stream(watched(body.into_data_stream(), bodies, end.clone()));
    let response = next.run(Request::from_parts(parts, body)).await;
    match end.given_up.get() {
        None => response,
        Some(&GivenUp(about)) => {
            let detail = match about.name == SLOW_BODY.name {
                true => format!("the body paused, or came at less than {RATE} bytes a second"),
                false => "there is no room for the body at the moment".to_owned(),
            };
            Refusal::new(about, detail).into_response()
        }
    }
}

/// What is left of a body when its request has been answered.
#[derive(Debug, Default)]
struct End {
    given_up: OnceLock<GivenUp>,
    /// Kept to the end: what was read is at work until then.
    taken: std::sync::Mutex<Option<OwnedSemaphorePermit>>,
}

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{}", .0.title)]
struct GivenUp(&'static About);

impl End {
    fn give_up(&self, about: &'static About) -> GivenUp {
        *self.given_up.get_or_init(|| GivenUp(about))
    }

    /// Takes room for more bytes, if there is.
    fn take(&self, room: &Arc<Semaphore>, bytes: u64) -> Result<(), GivenUp> {
        let full = || self.give_up(&BODIES_FULL);
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        let more = room.clone().try_acquire_many_owned(bytes).map_err(|_| full())?;
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match taken.as_mut() {
            Some(taken) => taken.merge(more),
            None => *taken = Some(more),
        }
        Ok(())
    }
}

type Part = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// The parts of a body, as long as they come in time and there is room for them.
fn watched(body: BodyDataStream, bodies: Bodies, end: Arc<End>) -> impl Stream<Item = Part> + Send + 'static {
    let state = (body, 0, None);
    stream::unfold(state, move |(mut body, mut read, began)| {
        let (bodies, end) = (bodies.clone(), end.clone());
        async move {
            let now = Instant::now();
            // It begins when it is first asked for: a handler may have its reasons to wait.
            let began = began.unwrap_or(now);
            let slowest = began + bodies.pause + Duration::from_secs(read / RATE);
            let part: Part = match tokio::time::timeout_at(slowest.min(now + bodies.pause), body.next()).await {
                Err(_) => Err(end.give_up(&SLOW_BODY).into()),
                Ok(None) => return None,
                Ok(Some(Err(error))) => Err(error.into()),
                Ok(Some(Ok(part))) => {
                    let counted = |read: u64| read.min(bodies.longest);
                    let before = counted(read);
                    read += part.len() as u64;
                    let taken = end.take(&bodies.room, counted(read) - before);
                    taken.map(|()| part).map_err(Into::into)
                }
            };
            Some((part, (body, read, Some(began))))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bodies: &Bodies, parts: &'static [(u64, usize)]) -> (Result<usize, &'static str>, Arc<End>) {
        let parts = stream::iter(parts).then(|&(pause, bytes)| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![0; bytes]))
        });
        let end = Arc::new(End::default());
        let mut body = Box::pin(watched(Body::from_stream(parts).into_data_stream(), bodies.clone(), end.clone()));
        let mut read = 0;
        while let Some(part) = body.next().await {
            match part {
                Ok(part) => read += part.len(),
                Err(_) => return (Err(end.given_up.get().unwrap().0.name), end),
            }
        }
        (Ok(read), end)
    }

    #[tokio::test]
    async fn bodies_share_their_room_and_have_a_slowest_pace() {
        let bodies = Bodies::new(100_000, 60_000, Duration::from_millis(200));
        let (whole, first) = read(&bodies, &[(10, 40_000), (90, 20_000)]).await;
        assert_eq!(whole, Ok(60_000));
        // What is beyond the longest does not count; what is below it has no room beside the first.
        assert_eq!(read(&bodies, &[(0, 40_000)]).await.0, Ok(40_000));
        assert_eq!(read(&bodies, &[(0, 60_000), (0, 60_000)]).await.0, Err("bodies-full"));
        drop(first);
        assert_eq!(read(&bodies, &[(0, 60_000), (0, 60_000)]).await.0, Ok(120_000));
        assert_eq!(read(&bodies, &[(0, 1), (400, 1)]).await.0, Err("slow-body"));
        assert_eq!(read(&bodies, &[(120, 1), (120, 1)]).await.0, Err("slow-body"));
        assert_eq!(bodies.room.available_permits(), 100_000);
    }
}
