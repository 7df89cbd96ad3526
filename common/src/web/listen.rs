//! Connections, with TLS and without.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

/// So long a client may take to agree on how to talk,
const PATIENCE: Duration = Duration::from_secs(10);

/// and so many may be at it; others wait to be accepted.
const HANDSHAKES: usize = 1024;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, Tcp>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Tcp>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, Tls>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Tls>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Accepts connections. What is written to them goes out at once, however small: answers are sent in parts.
#[derive(Debug)]
pub(super) struct Tcp(pub(super) TcpListener);

impl Listener for Tcp {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("could not set TCP_NODELAY: {error}");
        }
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

type Accepted = (TlsStream<TcpStream>, SocketAddr);

/// Accepts connections, and gives them out once TLS stands. Slow clients do not hold up others.
pub(super) struct Tls {
    listener: Tcp,
    acceptor: TlsAcceptor,
    handshakes: FuturesUnordered<BoxFuture<'static, Option<Accepted>>>,
}

impl Tls {
    pub(super) fn new(listener: Tcp, config: Arc<ServerConfig>) -> Self {
        Self { listener, acceptor: config.into(), handshakes: FuturesUnordered::new() }
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.next() => {
                    if let Some(accepted) = done {
                        return accepted;
                    }
                }
                (stream, address) = self.listener.accept(), if self.handshakes.len() < HANDSHAKES => {
                    let handshake = self.acceptor.accept(stream);
                    self.handshakes.push(Box::pin(async move {
                        match tokio::time::timeout(PATIENCE, handshake).await {
                            Ok(Ok(stream)) => return Some((stream, address)),
                            Ok(Err(error)) => tracing::debug!("no TLS with {address}: {error}"),
                            Err(_) => tracing::debug!("no TLS with {address}: it took too long"),
                        }
                        None
                    }));
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
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
