//! All three layers in one process over a log and a store that are handed in: what simulations and tests drive.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use batch_layer::BatchLayer;
use common::{
    catalog::Catalog,
    clock::{Clock, System},
    jobs::{Job, State},
    log::Log,
    operate::BatchLayer as _,
    position::Frontier,
    storage::Storage,
    supervisor::Supervisor,
};
use futures::TryStreamExt;
use serde_json::Value;
use serving_layer::{
    engine::{self, Engine, Options},
    stamp::Stamp,
};
use speed_layer::SpeedLayer;

/// The layers, started together.
#[derive(Debug)]
pub struct World {
    /// The batch layer.
    pub batch: Arc<BatchLayer>,
    /// The serving layer.
    pub engine: Arc<Engine>,
    /// The speed layer.
    pub speed: Arc<SpeedLayer>,
    /// The metrics of all.
    pub registry: prometheus::Registry,
    supervisor: Supervisor,
}

/// How the layers go about their work in a test.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The batch layer's settings.
    pub batch: batch_layer::Settings,
    /// The speed layer's settings.
    pub speed: speed_layer::Settings,
}

impl Settings {
    /// Everything happens often.
    pub fn hasty() -> Self {
        Self {
            batch: batch_layer::Settings {
                flush_rows: 200,
                flush_age: Duration::from_millis(30),
                merge_files: 3,
                schedule: false,
                ..batch_layer::Settings::default()
            },
            speed: speed_layer::Settings {
                follow_every: Duration::from_millis(10),
                keep_boundaries: Duration::from_millis(500),
                retire_after: Duration::from_millis(50),
                ..speed_layer::Settings::default()
            },
        }
    }
}

impl World {
    /// Starts the layers.
    pub async fn start(
        storage: &Storage,
        log: &Arc<dyn Log>,
        catalog: &Arc<Catalog>,
        settings: Settings,
    ) -> Result<Self> {
        let supervisor = Supervisor::new();
        let clock: Arc<dyn Clock> = Arc::new(System);
        let registry = prometheus::Registry::new();
        let batch = BatchLayer::start(batch_layer::Context {
            storage: storage.clone(),
            log: log.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
            registry: registry.clone(),
            compute: tokio::runtime::Handle::current(),
            settings: settings.batch,
        })
        .await?;
        serving_layer::mend::follow(storage, batch.clone(), &supervisor);
        let speed = SpeedLayer::start(speed_layer::Context {
            storage: storage.clone(),
            log: log.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
            registry: registry.clone(),
            settings: settings.speed,
        })?;
        let engine = Engine::start(engine::Context {
            storage: storage.clone(),
            log: log.clone(),
            catalog: catalog.clone(),
            clock,
            speed: speed.clone(),
            supervisor: supervisor.clone(),
            settings: engine::Settings { follow_every: Duration::from_millis(10), ..engine::Settings::default() },
        })
        .await;
        match engine {
            Ok(engine) => Ok(Self { batch, engine, speed, registry, supervisor }),
            Err(error) => {
                supervisor.stop();
                let _ = supervisor.wait().await;
                Err(error.into())
            }
        }
    }

    /// Stops the layers in order.
    pub async fn stop(self) -> Result<()> {
        self.supervisor.stop();
        self.supervisor.wait().await.map_err(anyhow::Error::msg)
    }

    /// The rows and the stamp of a query.
    pub async fn query(&self, sql: &str, options: &Options) -> Result<(Vec<Value>, Stamp)> {
        let answer = self.engine.sql(sql, options).await?;
        let batches: Vec<_> = answer.rows.try_collect().await?;
        let mut text = Vec::new();
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            if !text.is_empty() {
                text.push(b'\n');
            }
            common::values::output::write_rows(batch, &mut text, b"\n")?;
        }
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let rows: Result<Vec<Value>, _> = lines.map(serde_json::from_slice).collect();
        Ok((rows?, answer.stamp))
    }

    /// Starts a recompute of a view and does not wait for it.
    pub async fn batch_recompute(&self, view: &str) -> Result<Job> {
        Ok(self.batch.recompute(view).await?)
    }

    /// Recomputes a view and waits for the job to end.
    pub async fn recompute(&self, view: &str) -> Result<Job> {
        let mut job = self.batch.recompute(view).await?;
        while matches!(job.state, State::Queued | State::Running) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            // The store may be failing: then the record is asked for again.
            if let Ok(now) = self.batch.job(&job.id).await {
                job = now;
            }
        }
        Ok(job)
    }
}

/// Options that wait for a position.
pub fn at_least(dataset: &str, position: &Frontier, wait: Duration) -> Options {
    Options { min_position: [(dataset.to_owned(), position.clone())].into(), wait, ..Options::default() }
}
