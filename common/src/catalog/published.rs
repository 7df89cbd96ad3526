//! The catalog in the object store: the batch layer publishes it, version by version, for the other layers.

use std::path::Path as Folder;

use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};

use super::{Catalog, Faults, load};
use crate::storage::{Error, Storage};

const FOLDER: &str = "catalog/versions";

/// One version of the catalog, as its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// 1, 2, 3 and so on.
    pub version: u64,
    /// Names and contents, in their order.
    pub files: Vec<(String, String)>,
}

impl Published {
    /// The datasets and views.
    pub fn catalog(&self) -> Result<Catalog, Faults> {
        Catalog::parse(&self.files)
    }
}

fn path(version: u64) -> Path {
    Path::from(format!("{FOLDER}/{version:020}.json"))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(object_store::Error) -> Error {
    let path = path.to_string();
    move |source| Error::Object { action, path, source }
}

/// The newest version; `None` while there is none.
pub async fn newest(storage: &Storage) -> Result<Option<Published>, Error> {
    let folder = Path::from(FOLDER);
    let listed: Vec<_> = storage.objects().list(Some(&folder)).try_collect().await.map_err(failed("list", &folder))?;
    let Some(newest) = listed.into_iter().map(|object| object.location).max() else { return Ok(None) };
    let read = async { storage.objects().get(&newest).await?.bytes().await };
    let text = read.await.map_err(failed("read", &newest))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Error::Corrupt { table: newest.to_string(), detail: error.to_string() })
}

/// Publishes `files` as a new version, unless they are the newest one already. Gives that version.
pub async fn publish(storage: &Storage, files: &[(String, String)]) -> Result<Published, Error> {
    loop {
        let newest = newest(storage).await?;
        if let Some(newest) = newest.as_ref().filter(|newest| newest.files == files) {
            return Ok(newest.clone());
        }
        let version = newest.map_or(1, |newest| newest.version + 1);
        let new = Published { version, files: files.to_vec() };
        let path = path(version);
        let text = serde_json::to_vec(&new).unwrap_or_default();
        match storage.objects().put_opts(&path, text.into(), PutMode::Create.into()).await {
            Ok(_) => return Ok(new),
            // Somebody was faster: theirs may be the same.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(error) => return Err(failed("write", &path)(error)),
        }
    }
}

/// The `.sql` files of a catalog: in a folder, or under the address of an object store, which `options` are for.
pub async fn files(
    place: &str,
    options: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, crate::process::Failure> {
    if !place.contains("://") {
        return Ok(load::files(Folder::new(place))?);
    }
    let storage = Storage::open(place, options)?;
    let mut paths: Vec<Path> = storage
        .objects()
        .list(None)
        .map_ok(|object| object.location)
        .try_collect()
        .await
        .map_err(|source| Error::Object { action: "list", path: place.to_owned(), source })?;
    paths.retain(|path| path.extension() == Some("sql"));
    paths.sort();
    if paths.is_empty() {
        return Err(format!("there are no `.sql` files under `{place}`: put the catalog's there").into());
    }
    let mut files = Vec::new();
    for path in paths {
        let bytes = async { storage.objects().get(&path).await?.bytes().await };
        let bytes = bytes.await.map_err(failed("read", &path))?;
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|_| format!("`{path}` under `{place}` is no text in UTF-8: make it one"))?;
        files.push((path.to_string(), text));
    }
    Ok(files)
}
