//! What every program of Lamina's answers over HTTP, and how: connections with TLS or without, probes, metrics.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::ServerConfig;

use crate::{renewed::Renewed, supervisor::Supervisor};

mod bodies;
mod guard;
mod listen;
mod opening;
pub mod refusal;
mod room;
mod stalls;

pub use bodies::Bodies;
pub use guard::{Hosts, Others};
pub use listen::{Patience, Peer, Unbound, bind};
pub use opening::{Opening, open};

/// How a server meets those who ask.
#[derive(Clone, Debug)]
pub struct Front {
    /// TLS, where it is set up.
    pub tls: Option<Renewed<ServerConfig>>,
    /// Which of its names are answered.
    pub hosts: Arc<Hosts>,
    /// So many connections there are at once.
    pub connections: usize,
    /// What the bodies of all requests may take.
    pub bodies: Bodies,
    /// How long clients are waited for.
    pub patience: Patience,
}

impl Default for Front {
    /// At loopback names alone, without TLS.
    fn default() -> Self {
        let patience = Patience::default();
        let bodies = Bodies::new(256 << 20, 16 << 20, patience.body);
        Self { tls: None, hosts: Arc::default(), connections: 1024, bodies, patience }
    }
}

/// Answers with `router` until told to stop; then takes no new requests, and lets those at work end.
pub fn serve(listener: tokio::net::TcpListener, front: Front, router: Router, supervisor: &Supervisor) {
    open(listener, front, supervisor).answer(router);
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
        metrics(&registry, |_, _| true).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    };
    Router::new()
        .route("/healthz", get(|| async { Json(serde_json::json!({"status": "ok"})) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// Metrics in Prometheus' text format: those whose labels, by name and value, may all be shown.
pub fn metrics(registry: &Registry, may_show: impl Fn(&str, &str) -> bool) -> Result<Response, prometheus::Error> {
    let mut families = registry.gather();
    for family in &mut families {
        let is_shown = |metric: &prometheus::proto::Metric| {
            metric.get_label().iter().all(|label| may_show(label.name(), label.value()))
        };
        family.mut_metric().retain(is_shown);
    }
    // One without metrics is an error to the encoder.
    families.retain(|family| !family.get_metric().is_empty());
    let text = TextEncoder::new().encode_to_string(&families)?;
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
