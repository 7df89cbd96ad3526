//! A dataset's definition is pinned when it is first used: a changed one would give two answers for one frontier.

use common::{
    catalog::Dataset,
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

/// Pins the definition, or compares it with the pinned one.
pub(crate) async fn check(storage: &Storage, dataset: &Dataset) -> Result<(), Error> {
    let path = Path::from(format!("catalog/datasets/{}.json", dataset.name));
    let failed = |action| {
        let path = path.to_string();
        move |source| Error::Storage(storage::Error::Object { action, path, source })
    };
    let mine = Pinned { definition: dataset.definition.clone(), sql: dataset.sql.clone() };
    let text = serde_json::to_vec_pretty(&mine).unwrap_or_default();
    match storage.objects().put_opts(&path, text.into(), PutMode::Create.into()).await {
        Ok(_) => return Ok(()),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
        Err(error) => return Err(failed("write")(error)),
    }
    let read = async { storage.objects().get(&path).await?.bytes().await };
    let text = read.await.map_err(failed("read"))?;
    let pinned: Pinned = serde_json::from_slice(&text).map_err(|error| {
        Error::Storage(storage::Error::Corrupt { table: path.to_string(), detail: error.to_string() })
    })?;
    if pinned.definition == dataset.definition {
        return Ok(());
    }
    Err(Error::DatasetChanged { dataset: dataset.name.clone(), difference: dataset.difference(&pinned.sql) })
}
