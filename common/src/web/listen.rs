//! Connections, with TLS and without: accepted as long as there is room, and ended when nothing comes of them.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Front,
    room::{Place, Room, Sent},
    stalls::Stalls,
};

/// How long requests may go on once the server has been told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// How often the other end of a connection with HTTP/2 is asked whether it is there, and how long it has to say so.
const ALIVE_EVERY: Duration = Duration::from_secs(20);

/// What one request's head may take; the longest SQL, written for an address, is three times as long as it is.
const HEAD_BYTES: usize = 256 << 10;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// How long clients are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From a connection to its first request, TLS and the head of it included.
    pub first: Duration,
    /// From the end of a request to the head of the next one. Longer than clients and proxies keep connections that they
    /// do not use: who closes one first knows that nothing is on its way.
    pub idle: Duration,
    /// Between two parts of a body.
    pub body: Duration,
    /// While nothing of an answer is read.
    pub stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(15),
            idle: Duration::from_secs(120),
            body: Duration::from_secs(15),
            stalled: Duration::from_secs(60),
        }
    }
}

/// Answers until it is told to stop; then lets those at work end, for a while.
pub(super) async fn answer(listener: TcpListener, front: Front, router: Router, stop: CancellationToken) {
    let room = Room::new(front.connections);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_client(&error) => continue,
            Err(error) => {
                tracing::warn!("could not accept a connection: {error}");
                room.send_away();
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = room.enter() => place,
        };
        connections.spawn(one(stream, Peer(peer), place, front.clone(), router.clone(), stop.clone()));
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, ended).await;
}

/// Whether it was the client that gave up.
fn is_of_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionRefused | E::ConnectionAborted | E::ConnectionReset)
}

async fn one(stream: TcpStream, peer: Peer, place: Place, front: Front, router: Router, stop: CancellationToken) {
    // What is written goes out at once, however small: answers are sent in parts.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("could not set TCP_NODELAY: {error}");
    }
    let stream = Stalls::new(stream, front.patience.stalled);
    // Certificates are taken up from one connection to the next.
    let Some(tls) = front.tls.as_ref().map(crate::renewed::Renewed::current) else {
        return talk(stream, peer, place, front.patience, router, stop).await;
    };
    let leave = place.leave.clone();
    let agreed = tokio::select! {
        () = stop.cancelled() => return,
        () = leave.cancelled() => return,
        agreed = tokio::time::timeout(front.patience.first, TlsAcceptor::from(tls).accept(stream)) => agreed,
    };
    match agreed {
        Ok(Ok(stream)) => talk(stream, peer, place, front.patience, router, stop).await,
        Ok(Err(error)) => tracing::debug!("no TLS with {}: {error}", peer.0),
        Err(_) => tracing::debug!("no TLS with {}: it took too long", peer.0),
    }
}

async fn talk<S>(stream: S, peer: Peer, place: Place, patience: Patience, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let at = place.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let at_work = at.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let answered = router.clone().oneshot(request);
        async move {
            let answer = answered.await?;
            Ok::<_, Infallible>(answer.map(|body| Sent { body, _at_work: at_work }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.idle).max_buf_size(HEAD_BYTES);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(ALIVE_EVERY).keep_alive_timeout(ALIVE_EVERY);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut is_stopping = false;
    loop {
        let until = place.until(patience.first, patience.idle);
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("the connection of {} broke: {error}", peer.0);
                }
                return;
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = place.leave.cancelled() => return,
            () = tokio::time::sleep_until(until) => {
                if place.until(patience.first, patience.idle) <= tokio::time::Instant::now() {
                    return;
                }
            }
        }
    }
}

/// An address that cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("could not listen at `{address}`: choose another address with --listen")]
pub struct Unbound {
    address: SocketAddr,
    source: std::io::Error,
}

/// Binds an address; the port 0 means any that is free.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Unbound> {
    TcpListener::bind(address).await.map_err(|source| Unbound { address, source })
}
