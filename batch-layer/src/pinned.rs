//! A dataset's definition is pinned when it is first used: a changed one would give two answers for one frontier.

use common::{
    catalog::{Catalog, Dataset},
    storage::{self, Storage},
};
use object_store::{ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};

use crate::Error;

#[derive(Debug, Serialize, Deserialize)]
struct Pinned {
    definition: String,
    sql: String,
}

/// Compares all definitions with the pinned ones; if none has changed, pins those that are new.
pub(crate) async fn check(storage: &Storage, catalog: &Catalog) -> Result<(), Error> {
    let mut new = Vec::new();
    for dataset in catalog.datasets.values() {
        if !is_pinned(storage, dataset).await? {
            new.push(dataset);
        }
    }
    for dataset in new {
        let path = path(dataset);
        let mine = Pinned { definition: dataset.definition.clone(), sql: dataset.sql.clone() };
        let text = serde_json::to_vec_pretty(&mine).unwrap_or_default();
        match storage.objects().put_opts(&path, text.into(), PutMode::Create.into()).await {
            Ok(_) => {}
            // Somebody was faster: theirs may be the same.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                is_pinned(storage, dataset).await?;
            }
            Err(source) => return Err(failed("write", &path)(source)),
        }
    }
    Ok(())
}

/// Whether a definition is pinned; it must then be the same.
async fn is_pinned(storage: &Storage, dataset: &Dataset) -> Result<bool, Error> {
    let path = path(dataset);
    let read = async { storage.objects().get(&path).await?.bytes().await };
    let text = match read.await {
        Ok(text) => text,
        Err(object_store::Error::NotFound { .. }) => return Ok(false),
        Err(source) => return Err(failed("read", &path)(source)),
    };
    let pinned: Pinned = serde_json::from_slice(&text).map_err(|error| {
        Error::Storage(storage::Error::Corrupt { table: path.to_string(), detail: error.to_string() })
    })?;
    if pinned.definition == dataset.definition {
        return Ok(true);
    }
    Err(Error::DatasetChanged { dataset: dataset.name.clone(), difference: dataset.difference(&pinned.sql) })
}

fn path(dataset: &Dataset) -> Path {
    Path::from(format!("catalog/datasets/{}.json", dataset.name))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(object_store::Error) -> Error {
    let path = path.to_string();
    move |source| Error::Storage(storage::Error::Object { action, path, source })
}
