//! Takes a changed catalog up while the layer runs: new files that can be used are published for the other layers and
//! worked by; what cannot be used is told, and changes nothing.
//!
//! Files are taken once two looks, shortly after one another, have found the same: nobody writes a folder at one instant.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use common::{
    catalog::{Catalog, published},
    fault::chain,
    master,
    process::Failure,
    resources,
    storage::{self, Storage},
    view::ViewTable,
};

use crate::{BatchLayer, pinned};

/// Files that have changed are looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Where the catalog's files come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// A folder, or the address of one in an object store.
    pub place: String,
    /// Options of that object store.
    pub options: BTreeMap<String, String>,
    /// How often it is looked at.
    pub every: Duration,
}

impl Source {
    /// What the program's settings say.
    pub fn of(settings: &common::settings::Settings) -> Self {
        let (place, options) = (settings.catalog.clone(), settings.store.options.clone());
        Self { place, options, every: settings.batch.catalog_every }
    }

    /// The files that are there now, by name.
    pub async fn files(&self) -> Result<Vec<(String, String)>, Failure> {
        published::files(&self.place, &self.options).await
    }
}

/// What a layer starts with: the files of its source and their catalog. Where those cannot be used, the catalog that was
/// published last goes on, and why is told: a slip in a file must not keep a layer from starting that has run for years.
pub async fn begin(source: &Source, storage: &Storage) -> Result<(Vec<(String, String)>, Arc<Catalog>), Failure> {
    let refusal = match usable(source, storage).await {
        Ok(usable) => return Ok(usable),
        Err(refusal) => refusal,
    };
    // A store that cannot be read is no reason to hide what is wrong with the files.
    let Ok(Some(present)) = published::present(storage).await else { return Err(refusal) };
    let Ok(catalog) = present.newest.catalog() else { return Err(refusal) };
    let (place, version) = (&source.place, present.newest.version);
    tracing::warn!(
        version,
        "the catalog in `{place}` is not taken up, the one that was published last stays in force: {}",
        chain(refusal.as_ref())
    );
    Ok((present.newest.files, Arc::new(catalog)))
}

async fn usable(source: &Source, storage: &Storage) -> Result<(Vec<(String, String)>, Arc<Catalog>), Failure> {
    let files = source.files().await?;
    let catalog = Arc::new(Catalog::parse(&files)?);
    pinned::check(storage, &catalog).await?;
    Ok((files, catalog))
}

/// Publishes the files that `layer` has been started with, and follows their source, if there is one, from then on.
pub async fn follow(
    layer: Arc<BatchLayer>,
    source: Option<Source>,
    files: Vec<(String, String)>,
) -> Result<(), Failure> {
    let catalog = layer.at_work().catalog;
    if let Some(before) = publish(&layer, &catalog, &files).await? {
        layer.keep_up(&before);
    }
    let Some(source) = source else { return Ok(()) };
    let supervisor = layer.context.supervisor.clone();
    let cancelled = supervisor.cancelled();
    let mut deploy = Deploy { layer, source, taken: files, seen: None, told: None };
    supervisor.spawn("batch layer's view of the catalog", async move {
        let every = deploy.source.every;
        let mut wait = every;
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return Ok::<(), Infallible>(()),
                () = tokio::time::sleep(wait) => {}
            }
            wait = if deploy.look().await { every.min(LOOK_AGAIN) } else { every };
        }
    });
    Ok(())
}

/// Publishes files. Gives the catalog that answers until their views have been built.
async fn publish(
    layer: &BatchLayer,
    catalog: &Catalog,
    files: &[(String, String)],
) -> Result<Option<Arc<Catalog>>, Failure> {
    let storage = &layer.context.storage;
    create_tables(storage, catalog).await?;
    let published = published::publish(storage, files).await?;
    tracing::info!(version = published.version, "catalog is published");
    let present = published::present(storage).await?;
    Ok(present.and_then(|present| present.built).map(|(_, before)| before))
}

/// The other layers may be allowed to read only: what they open must be there, also where nothing is in it yet.
async fn create_tables(storage: &Storage, catalog: &Catalog) -> Result<(), storage::Error> {
    for dataset in catalog.datasets.values() {
        master::table(storage, &dataset.name)?.ensure(&dataset.schema).await?;
        master::dead_letters(storage, &dataset.name)?.ensure(&master::dead_letters_schema()).await?;
    }
    for view in catalog.views.values() {
        // One that fails is its own matter: its recomputes fail too, and tell.
        if let Err(error) = ViewTable::new(storage, view)?.open().await {
            tracing::warn!(view = view.name, "the view has no table for now: {}", chain(&error));
        }
    }
    Ok(())
}

struct Deploy {
    layer: Arc<BatchLayer>,
    source: Source,
    /// The files that are in force.
    taken: Vec<(String, String)>,
    /// Other ones, as the last look found them.
    seen: Option<Vec<(String, String)>>,
    /// What the last look told.
    told: Option<String>,
}

impl Deploy {
    /// Whether there is something to look at again soon.
    async fn look(&mut self) -> bool {
        match self.take().await {
            Ok(is_changing) => {
                self.told = if is_changing { self.told.take() } else { None };
                is_changing
            }
            Err(error) => {
                self.layer.metrics.catalog_refusals.inc();
                let reason = chain(error.as_ref());
                if self.told.as_ref() != Some(&reason) {
                    let place = &self.source.place;
                    tracing::warn!("the catalog in `{place}` is not taken up, the one before stays in force: {reason}");
                    self.told = Some(reason);
                }
                false
            }
        }
    }

    /// Takes the files up, if they are other ones than before. Whether they have changed since the last look.
    async fn take(&mut self) -> Result<bool, Failure> {
        let files = self.source.files().await?;
        if files == self.taken {
            self.seen = None;
            return Ok(false);
        }
        if self.seen.as_ref() != Some(&files) {
            self.seen = Some(files);
            return Ok(true);
        }
        let catalog = Arc::new(Catalog::parse(&files)?);
        self.layer.check(&catalog).await?;
        resources::partitions(self.layer.context.log.as_ref(), &catalog).await;
        let before = publish(&self.layer, &catalog, &files).await?;
        self.layer.take_up(catalog).await;
        if let Some(before) = before {
            self.layer.keep_up(&before);
        }
        self.taken = files;
        Ok(false)
    }
}
