//! What every program of Lamina's answers over HTTP, and how: connections with TLS or without, probes, metrics.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::connect_info::Connected,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::{IncomingStream, Listener},
};
use prometheus::{Registry, TextEncoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::ServerConfig;

use crate::supervisor::Supervisor;

mod listen;

pub use listen::{Peer, Unbound, bind};

/// How long requests may go on once the server has been told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Answers requests until told to stop; then takes no new ones, and lets those at work end.
pub fn serve(
    listener: tokio::net::TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    supervisor: &Supervisor,
) {
    let listener = listen::Tcp(listener);
    match tls {
        Some(tls) => answer(listen::Tls::new(listener, tls), router, supervisor),
        None => answer(listener, router, supervisor),
    }
}

fn answer<L>(listener: L, router: Router, supervisor: &Supervisor)
where
    L: Listener<Addr = SocketAddr>,
    Peer: for<'a> Connected<IncomingStream<'a, L>>,
{
    let cancelled = supervisor.cancelled();
    supervisor.spawn("http server", async move {
        let stop = cancelled.clone();
        let service = router.into_make_service_with_connect_info::<Peer>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(async move { stop.cancelled().await });
        tokio::select! {
            served = serving => served,
            () = async {
                cancelled.cancelled().await;
                tokio::time::sleep(GRACE).await;
            } => Ok(()),
        }
    });
}

/// Says why a layer is not ready; `None` when it is.
pub type Ready = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// `/healthz`, `/readyz` and `/metrics` of a layer that runs apart. They need no secret.
pub fn probes(ready: Ready, registry: Registry) -> Router {
    let readyz = move || async move {
        match ready() {
            None => (StatusCode::OK, Json(serde_json::json!({"status": "ready"}))),
            Some(reason) => {
                (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({"status": "not ready", "reason": reason})))
            }
        }
    };
    let metrics = move || async move {
        metrics(&registry).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    };
    Router::new()
        .route("/healthz", get(|| async { Json(serde_json::json!({"status": "ok"})) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// All metrics, in Prometheus' text format.
pub fn metrics(registry: &Registry) -> Result<Response, prometheus::Error> {
    let text = TextEncoder::new().encode_to_string(&registry.gather())?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

/// Asks the program at `address` for its health, over HTTP by hand: a container's check should need nothing else.
pub async fn health(address: SocketAddr, secure: bool) -> Result<(), crate::process::Failure> {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let asking = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        if secure {
            // The certificate is for another name than this address: that it listens has to do.
            return Ok(());
        }
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        match status {
            "200" => Ok(()),
            _ => Err(std::io::Error::other(format!("it answered `{status}`"))),
        }
    };
    let failed = |error: std::io::Error| format!("`{address}` is not well: {error}");
    match tokio::time::timeout(Duration::from_secs(3), asking).await {
        Ok(asked) => Ok(asked.map_err(failed)?),
        Err(_) => Err(failed(std::io::Error::other("it did not answer within 3 s")).into()),
    }
}
