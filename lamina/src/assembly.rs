//! All three layers in one process: the same code as apart, with calls where there would be a network.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use batch_layer::{BatchLayer, deploy};
use common::{
    catalog::{Catalog, published},
    clock::{Clock, System},
    fault::chain,
    log::Log,
    resources,
    settings::Settings,
    storage::Storage,
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

/// Where the catalog comes from.
#[derive(Debug)]
pub enum Origin {
    /// These files, for good.
    Files(Vec<(String, String)>),
    /// What is there, and what changes there while it runs.
    Source(deploy::Source),
}

impl Origin {
    async fn begin(self, storage: &Storage) -> Result<(Vec<(String, String)>, Arc<Catalog>, Option<deploy::Source>)> {
        match self {
            Self::Files(files) => {
                let catalog = Arc::new(Catalog::parse(&files)?);
                Ok((files, catalog, None))
            }
            Self::Source(source) => match deploy::begin(&source, storage).await {
                Ok((files, catalog)) => Ok((files, catalog, Some(source))),
                Err(refusal) => Err(check::unusable(&source.place, &chain(refusal.as_ref()))),
            },
        }
    }
}

/// Starts everything by a catalog. `compute` runs
/// recomputes, apart from what must answer quickly.
pub async fn start(
    settings: &Settings,
    catalog: Origin,
    supervisor: &Supervisor,
    compute: tokio::runtime::Handle,
) -> Result<Running> {
    let listen = settings.listen.unwrap_or(LISTEN);
    let door = settings.door(listen).map_err(anyhow::Error::from_boxed)?;
    let lock = lock::take(&settings.data, listen)?;
    let clock: Arc<dyn Clock> = Arc::new(System);
    let registry = prometheus::Registry::new();
    // The address first: what is taken already should not cost a start.
    let listener = web::bind(listen).await?;
    let address = listener.local_addr()?;
    let secure = door.front.tls.is_some();
    settings.renew_tokens(&door, supervisor).map_err(anyhow::Error::from_boxed)?;
    settings.renew_certificates(&door.front, supervisor).map_err(anyhow::Error::from_boxed)?;
    let opening = web::open(listener, door.front, supervisor);
    opening.says("the object store is opened");
    let storage = resources::storage(settings).await.map_err(anyhow::Error::from_boxed)?;
    opening.says("the catalog is read");
    let (files, newest, source) = catalog.begin(&storage).await?;
    opening.says("the log is opened");
    let log = resources::log(settings, &clock).await.map_err(anyhow::Error::from_boxed)?;
    opening.says("the topics are looked at");
    resources::partitions(log.as_ref(), &newest).await;
    opening.says("the master dataset and the batch views are looked at");
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
        proxies: settings.serving.proxies,
        clock,
    });
    let router = http::router(current.clone())?;
    serving_layer::deploy::follow(current.clone(), storage, version, supervisor);
    opening.answer(router);
    Ok(Running { address, secure, current, log, _lock: lock })
}
