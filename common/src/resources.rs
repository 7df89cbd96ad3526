//! Store and log, opened as the settings say.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;

use crate::{
    catalog::{Catalog, Dataset},
    clock::Clock,
    fault::chain,
    log::{Log, embedded::Embedded, kafka::Kafka},
    position::Partition,
    process::Failure,
    settings::{Settings, StoreSettings},
    storage::{self, Storage},
};

/// So many topics are asked for at once.
const TOPICS_AT_ONCE: usize = 16;

/// Opens the object store. One that does not keep Lamina's promises is refused.
pub async fn storage(settings: &Settings) -> Result<Storage, Failure> {
    let storage = storage_to_read(settings)?;
    storage.probe().await?;
    for path in storage.take_back_empty().await? {
        tracing::warn!(
            "`{path}` was empty, or named what was, as after a power failure: it was removed, and is made anew"
        );
    }
    Ok(storage)
}

/// Opens the object store without asking anything of it: for layers that only read.
pub fn storage_to_read(settings: &Settings) -> Result<Storage, Failure> {
    let StoreSettings { options, sync, .. } = &settings.store;
    let storage = Storage::open_with(&settings.store_url()?, options, *sync)?;
    Ok(storage.with_spill(settings.spill.clone()))
}

/// Opens the log: Kafka, or else the embedded one.
pub async fn log(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Log>, Failure> {
    Ok(match settings.log.kafka {
        Some(_) => Arc::new(kafka(settings, clock).await?),
        None => Arc::new(Embedded::open(&settings.data.join("log"), clock.clone())?),
    })
}

/// Opens the log of a layer that runs apart: processes meet only in Kafka.
pub async fn kafka(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Kafka, Failure> {
    let Some(brokers) = &settings.log.kafka else {
        return Err("layers that run apart meet in Kafka: give its brokers with `--kafka`, or run all of them in one \
                    process with `lamina up`"
            .into());
    };
    let kafka = Kafka::connect(brokers, &settings.log.settings, clock.clone()).await?;
    Ok(kafka.creating_topics(settings.log.create_topics))
}

/// The name of whoever keeps its things in the data folder: made once, and another one in every other folder.
pub fn instance(settings: &Settings) -> std::io::Result<String> {
    let file = settings.data.join("instance");
    match std::fs::read_to_string(&file) {
        Ok(known) if !known.trim().is_empty() => return Ok(known.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::fs::create_dir_all(&settings.data)?;
    let new = uuid::Uuid::new_v4().to_string();
    std::fs::write(file, &new)?;
    Ok(new)
}

/// Does something until it succeeds, for what another layer brings about.
pub async fn until_there<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<Option<T>, storage::Error>>,
{
    let mut is_told = false;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::info!("waiting for {what}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A topic's partitions by dataset; topics that are missing are created. A topic that cannot be used is told, and costs
/// its own dataset alone: it is left out here, and whoever needs it asks again.
pub async fn partitions(log: &dyn Log, catalog: &Catalog) -> BTreeMap<String, Partition> {
    let asked: Vec<_> = catalog.datasets.values().map(|dataset| partitions_of(log, dataset.clone())).collect();
    let found: Vec<_> = futures::stream::iter(asked).buffer_unordered(TOPICS_AT_ONCE).collect().await;
    found.into_iter().flatten().collect()
}

async fn partitions_of(log: &dyn Log, dataset: Arc<Dataset>) -> Option<(String, Partition)> {
    match log.ensure_topic(&dataset.topic, dataset.partitions).await {
        Ok(count) => Some((dataset.name.clone(), count)),
        Err(error) => {
            tracing::warn!(dataset = dataset.name, "the dataset is out of reach for now: {}", chain(&error));
            None
        }
    }
}
