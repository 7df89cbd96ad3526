//! The `speed-layer` program: a worker that holds the partitions which its consumer group gives it.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use clap::Parser;
use common::{
    catalog::published,
    clock::{Clock, System},
    process::{self, Failure, Runtimes},
    resources,
    settings::Settings,
    speed::SpeedLayer as _,
    supervisor::Supervisor,
    web,
};
use speed_layer::{Context, SpeedLayer, service::Service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lamina's speed layer: keeps every view fresh from the log, between the batch layer's cuts.
#[derive(Debug, Parser)]
#[command(name = "speed-layer")]
struct Command {
    #[command(flatten)]
    layer: process::Layer,
}

fn main() -> ExitCode {
    process::layer("speed-layer", &process::parse::<Command>(&["catalog", "tokens"]).layer, 8789, start)
}

async fn start(
    settings: Settings,
    listen: SocketAddr,
    supervisor: Supervisor,
    _: Runtimes,
) -> Result<impl Future<Output = ()>, Failure> {
    let door = settings.back_door(listen)?;
    settings.renew_certificates(&door.front, &supervisor)?;
    let opening = web::open(web::bind(listen).await?, door.front, &supervisor);
    let registry = prometheus::Registry::new();
    let clock: Arc<dyn Clock> = Arc::new(System);
    let storage = resources::storage_to_read(&settings)?;
    opening.says("Kafka is connected to");
    let log = Arc::new(resources::kafka(&settings, &clock).await?);
    opening.says("it waits for the batch layer to publish a catalog");
    let published =
        resources::until_there("the batch layer to publish a catalog", || published::present(&storage)).await?;
    let newest = Arc::new(published.newest.catalog()?);
    opening.says("the topics are looked at");
    resources::partitions(log.as_ref(), &newest).await;
    let (_, catalog) = published.answering()?;
    let topics: Vec<&str> = catalog.datasets.values().map(|dataset| dataset.topic.as_str()).collect();
    let leave = supervisor.cancelled().child_token();
    let membership = log.join(&settings.speed.group, &topics, leave.clone())?;
    let context = Context {
        storage,
        log,
        catalog,
        clock,
        supervisor: supervisor.clone(),
        registry: registry.clone(),
        settings: speed_layer::Settings::of(&settings),
    };
    let layer = SpeedLayer::join(context, membership, settings.speed.linger)?;
    if published.built.is_some() {
        layer.take_up(newest);
    }
    layer.follow_catalog(published.newest.version);
    let service = Service::new(layer.clone(), door.secret);
    let ready = Arc::new(move || {
        let waiting = |dataset: &String| {
            let status = layer.status(dataset);
            let reason = || status.stopped.unwrap_or_else(|| "it has no partitions yet".to_owned());
            status.head.is_none().then(|| format!("dataset `{dataset}`: {}", reason()))
        };
        layer.catalog().datasets.keys().find_map(waiting)
    });
    let router = web::probes(ready, registry).merge(service.router());
    opening.answer(router);
    tracing::info!(group = settings.speed.group, "speed layer answers at {listen}");
    Ok(async move {
        // The others build up what was held here, while it is still given out.
        service.leave();
        leave.cancel();
        tokio::time::sleep(settings.speed.linger).await;
    })
}
