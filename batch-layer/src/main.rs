//! The `batch-layer` program: archives the log, recomputes views, and publishes the catalog for the other layers.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use batch_layer::{BatchLayer, Settings as How, deploy, service};
use clap::Parser;
use common::{
    clock::{Clock, System},
    operate::BatchLayer as _,
    process::{self, Failure, Runtimes},
    resources,
    settings::Settings,
    supervisor::Supervisor,
    web,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lamina's batch layer: archives the log in the master dataset and recomputes views from it.
#[derive(Debug, Parser)]
#[command(name = "batch-layer")]
struct Command {
    #[command(flatten)]
    layer: process::Layer,
}

fn main() -> ExitCode {
    process::layer("batch-layer", &process::parse::<Command>(&["tokens"]).layer, 8788, start)
}

async fn start(
    settings: Settings,
    listen: SocketAddr,
    supervisor: Supervisor,
    runtimes: Runtimes,
) -> Result<impl Future<Output = ()>, Failure> {
    let door = settings.back_door(listen)?;
    settings.renew_certificates(&door.front, &supervisor)?;
    let opening = web::open(web::bind(listen).await?, door.front, &supervisor);
    let registry = prometheus::Registry::new();
    let clock: Arc<dyn Clock> = Arc::new(System);
    let source = deploy::Source::of(&settings);
    opening.says("the object store is opened");
    let storage = resources::storage(&settings).await?;
    opening.says("the catalog is read");
    let (files, catalog) = deploy::begin(&source, &storage).await?;
    opening.says("Kafka is connected to");
    let log = Arc::new(resources::kafka(&settings, &clock).await?);
    resources::partitions(log.as_ref(), &catalog).await;
    opening.says("the master dataset and the batch views are looked at");
    let owner = format!("{}/{}", settings.data.display(), uuid::Uuid::new_v4());
    let batch = BatchLayer::start(batch_layer::Context {
        storage,
        log,
        catalog,
        clock,
        supervisor: supervisor.clone(),
        registry: registry.clone(),
        compute: runtimes.compute,
        settings: How::of(&settings, owner),
    })
    .await?;
    // Only now: a dataset that has changed is refused above, and no other layer must take it up.
    deploy::follow(batch.clone(), Some(source), files).await?;
    let asked = batch.clone();
    let ready = move || Some(asked.troubles().join("; ")).filter(|troubles| !troubles.is_empty());
    let router = web::probes(Arc::new(ready), registry).merge(service::router(batch, door.secret));
    opening.answer(router);
    tracing::info!("batch layer answers at {listen}");
    Ok(async {})
}
