//! All three layers in one process: the same code as apart, with calls where there would be a network.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use batch_layer::{BatchLayer, deploy};
use common::{
    catalog::{Catalog, published},
    clock::{Clock, System},
    log::Log,
    resources,
    settings::Settings,
    supervisor::Supervisor,
    web,
};
use serving_layer::{
    engine::{self, Engine},
    http,
};
use speed_layer::SpeedLayer;

use crate::{
    check,
    lock::{self, Lock},
};

/// Where it answers unless told.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8787);

/// What has been started.
#[derive(Debug)]
pub struct Running {
    /// Where it answers.
    pub address: SocketAddr,
    /// Whether it answers over TLS.
    pub secure: bool,
    /// What answers at present.
    pub current: http::Current,
    /// Where events go.
    pub log: Arc<dyn Log>,
    _lock: Lock,
}

/// Starts everything by the catalog in `files`, and takes changes up where they have a `source`. `compute` runs
/// recomputes, apart from what must answer quickly.
pub async fn start(
    settings: &Settings,
    files: Vec<(String, String)>,
    source: Option<deploy::Source>,
    supervisor: &Supervisor,
    compute: tokio::runtime::Handle,
) -> Result<Running> {
    // All that is wrong with the catalog is told before anything is opened.
    let newest = Catalog::parse(&files).map_err(|faults| check::unusable(&settings.catalog, &faults))?;
    let newest = Arc::new(newest);
    let listen = settings.listen.unwrap_or(LISTEN);
    let door = settings.door(listen).map_err(anyhow::Error::from_boxed)?;
    let lock = lock::take(&settings.data, listen)?;
    let clock: Arc<dyn Clock> = Arc::new(System);
    let registry = prometheus::Registry::new();
    // The address first: what is taken already should not cost a start.
    let listener = web::bind(listen).await?;
    let address = listener.local_addr()?;
    let storage = resources::storage(settings).await.map_err(anyhow::Error::from_boxed)?;
    let log = resources::log(settings, &clock).await.map_err(anyhow::Error::from_boxed)?;
    resources::partitions(log.as_ref(), &newest).await?;
    let batch = BatchLayer::start(batch_layer::Context {
        storage: storage.clone(),
        log: log.clone(),
        catalog: newest.clone(),
        clock: clock.clone(),
        supervisor: supervisor.clone(),
        registry: registry.clone(),
        compute,
        settings: batch_layer::Settings::of(settings, resources::instance(settings)?),
    })
    .await?;
    deploy::follow(batch.clone(), source, files).await.map_err(anyhow::Error::from_boxed)?;
    let present = published::present(&storage).await?.context("the catalog has been published and is not there")?;
    let (version, catalog) = present.answering()?;
    let speed = SpeedLayer::start(speed_layer::Context {
        storage: storage.clone(),
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        supervisor: supervisor.clone(),
        registry: registry.clone(),
        settings: speed_layer::Settings::of(settings),
    })?;
    if present.built.is_some() {
        speed.take_up(newest);
    }
    speed.follow_catalog(present.newest.version);
    let engine = Engine::start(engine::Context {
        storage: storage.clone(),
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        speed,
        supervisor: supervisor.clone(),
        settings: engine::Settings::of(settings),
    })
    .await?;
    serving_layer::mend::follow(&storage, batch.clone(), supervisor);
    let current = http::Current::from(http::Context {
        engine,
        catalog,
        log: log.clone(),
        batch,
        registry,
        body_bytes_max: settings.serving.body_bytes(),
        tokens: door.tokens,
        limits: settings.serving.limits.clone(),
        clock,
    });
    let router = http::router(current.clone())?;
    serving_layer::deploy::follow(current.clone(), storage, version, supervisor);
    let secure = door.tls.is_some();
    web::serve(listener, door.tls, router, supervisor);
    Ok(Running { address, secure, current, log, _lock: lock })
}
