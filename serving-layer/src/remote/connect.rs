//! Connections to other layers: TLS where it is set up, and the secret that the layers share.

use std::{sync::Arc, time::Duration};

use common::access::Shared;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::addresses::Worker;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// How other layers are reached.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    /// Whom to trust, with HTTP/2 alone; `None` for plain connections.
    pub tls: Option<rustls::ClientConfig>,
    /// What to show.
    pub secret: Option<Shared>,
}

impl Connect {
    /// A connection to a worker that is made when it is first needed, and again when it is lost.
    pub(super) fn channel(&self, worker: &Worker) -> Result<Channel, tonic::transport::Error> {
        // TLS is the connector's affair.
        let endpoint = Endpoint::from_shared(format!("http://{}", worker.authority))?
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_EVERY)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let Some(tls) = self.tls.clone().filter(|_| worker.secure) else { return Ok(endpoint.connect_lazy()) };
        let (connector, name) = (TlsConnector::from(Arc::new(tls)), worker.name.clone());
        let connect = tower::service_fn(move |address: Uri| {
            let (connector, name) = (connector.clone(), name.clone());
            async move {
                let authority = address.authority().map(ToString::to_string).unwrap_or_default();
                let tcp = TcpStream::connect(authority).await?;
                tcp.set_nodelay(true)?;
                let name = rustls::pki_types::ServerName::try_from(name).map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connect))
    }
}
