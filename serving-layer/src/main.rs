//! The `serving-layer` program: a replica that answers queries over HTTP. It keeps nothing of its own.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use clap::Parser;
use common::{
    catalog::published,
    clock::{Clock, System},
    process::{self, Failure, Runtimes},
    resources,
    settings::Settings,
    supervisor::Supervisor,
    tls, web,
};
use serving_layer::{
    deploy,
    engine::{self, Engine},
    http, mend,
    remote::{Addresses, Connect, RemoteBatch, RemoteSpeed},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lamina's serving layer: merges batch views and speed states on every query, and answers over HTTP.
#[derive(Debug, Parser)]
#[command(name = "serving-layer")]
struct Command {
    #[command(flatten)]
    layer: process::Layer,
}

fn main() -> ExitCode {
    process::layer("serving-layer", &process::parse::<Command>(&["catalog"]).layer, 8787, start)
}

async fn start(
    settings: Settings,
    listen: SocketAddr,
    supervisor: Supervisor,
    _: Runtimes,
) -> Result<impl Future<Output = ()>, Failure> {
    let door = settings.door(listen)?;
    let secret = settings.back_door(SocketAddr::from(([127, 0, 0, 1], 0)))?.secret;
    let speed: Addresses = settings.serving.speed.parse()?;
    let batch: url::Url = settings.serving.batch.parse().map_err(|error| {
        format!(
            "`serving.batch` is `{}`, which is no address: {error}; write `http://127.0.0.1:8788`",
            settings.serving.batch
        )
    })?;
    settings.renew_tokens(&door, &supervisor)?;
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
    // While the newest version's views are built, the one before answers.
    let (version, catalog) = published.answering()?;
    opening.says("the topics and the speed layer's workers are looked at");
    let partitions = resources::partitions(log.as_ref(), &catalog).await;
    let over = |protocols| Ok::<_, Failure>(Connect { tls: settings.tls.client(protocols)?, secret: secret.clone() });
    let speed = RemoteSpeed::follow(speed, over(tls::HTTP2)?, partitions, &supervisor).await;
    let batch = Arc::new(RemoteBatch::new(batch, &over(tls::HTTP)?, &storage)?);
    let engine = Engine::start(engine::Context {
        storage: storage.clone(),
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        speed,
        supervisor: supervisor.clone(),
        settings: engine::Settings::of(&settings),
    })
    .await?;
    mend::follow(&storage, batch.clone(), &supervisor);
    let current = http::Current::from(http::Context {
        engine,
        catalog,
        log,
        batch,
        registry,
        body_bytes_max: settings.serving.body_bytes(),
        tokens: door.tokens,
        limits: settings.serving.limits.clone(),
        proxies: settings.serving.proxies,
        clock,
    });
    let router = http::router(current.clone())?;
    deploy::follow(current, storage, version, &supervisor);
    opening.answer(router);
    tracing::info!("serving layer answers at {listen}");
    Ok(async {})
}
