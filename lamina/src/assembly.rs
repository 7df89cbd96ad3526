//! All three layers in one process: the same code as apart, with calls where there would be a network.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use batch_layer::BatchLayer;
use common::{
    catalog::Catalog,
    clock::{Clock, System},
    log::{Log, embedded::Embedded, kafka::Kafka},
    storage::Storage,
    supervisor::Supervisor,
};
use serving_layer::{
    engine::{self, Engine},
    http,
};
use speed_layer::SpeedLayer;

use crate::{
    lock::{self, Lock},
    settings::Settings,
};

/// What has been started.
#[derive(Debug)]
pub struct Running {
    /// Where it answers.
    pub address: SocketAddr,
    /// Whether it answers over TLS.
    pub secure: bool,
    /// Answers queries.
    pub engine: Arc<Engine>,
    /// Where events go.
    pub log: Arc<dyn Log>,
    /// Datasets and views.
    pub catalog: Arc<Catalog>,
    _lock: Lock,
}

/// Starts everything. `compute` runs recomputes, apart from what must answer quickly.
pub async fn start(
    settings: &Settings,
    catalog: Catalog,
    supervisor: &Supervisor,
    compute: tokio::runtime::Handle,
) -> Result<Running> {
    let door = settings.door()?;
    let lock = lock::take(&settings.data, settings.listen)?;
    let catalog = Arc::new(catalog);
    let clock: Arc<dyn Clock> = Arc::new(System);
    let registry = prometheus::Registry::new();
    // The address first: what is taken already should not cost a start.
    let listener = http::bind(settings.listen)
        .await
        .with_context(|| format!("could not listen at `{}`: choose another address with --listen", settings.listen))?;
    let address = listener.local_addr()?;
    let storage = Storage::open(&settings.store_url()?, &settings.store.options)?;
    storage.probe().await?;
    let log = open_log(settings, &clock).await?;
    for dataset in catalog.datasets.values() {
        log.ensure_topic(&dataset.topic, dataset.partitions).await?;
    }
    let batch = BatchLayer::start(batch_layer::Context {
        storage: storage.clone(),
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        supervisor: supervisor.clone(),
        registry: registry.clone(),
        compute,
        settings: batch_settings(settings),
    })
    .await?;
    let speed = SpeedLayer::start(speed_layer::Context {
        storage: storage.clone(),
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        supervisor: supervisor.clone(),
        registry: registry.clone(),
        settings: speed_layer::Settings {
            memory_bytes: bytes(settings.speed.memory),
            ..speed_layer::Settings::default()
        },
    })?;
    let engine = Engine::start(engine::Context {
        storage,
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        speed,
        supervisor: supervisor.clone(),
        settings: engine::Settings { memory_bytes: bytes(settings.serving.memory), ..engine::Settings::default() },
    })
    .await?;
    let router = http::router(http::Context {
        engine: engine.clone(),
        catalog: catalog.clone(),
        log: log.clone(),
        batch,
        registry,
        body_bytes_max: bytes(settings.serving.body),
        tokens: door.tokens,
        limits: settings.serving.limits.clone(),
        clock,
    })?;
    let secure = door.tls.is_some();
    http::serve(listener, door.tls, router, supervisor);
    Ok(Running { address, secure, engine, log, catalog, _lock: lock })
}

async fn open_log(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Log>> {
    Ok(match &settings.log.kafka {
        Some(brokers) => Arc::new(Kafka::connect(brokers, &settings.log.settings, clock.clone()).await?),
        None => Arc::new(Embedded::open(&settings.data.join("log"), clock.clone())?),
    })
}

fn batch_settings(settings: &Settings) -> batch_layer::Settings {
    batch_layer::Settings {
        flush_rows: settings.batch.flush_rows,
        flush_bytes: bytes(settings.batch.flush_bytes),
        flush_age: settings.batch.flush_age,
        memory_bytes: bytes(settings.batch.memory),
        retention: settings.batch.retention,
        owner: settings.data.display().to_string(),
        ..batch_layer::Settings::default()
    }
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}
