//! The catalog in the object store: the batch layer publishes it, version by version, for the other layers.
//!
//! A version takes effect by itself, layer by layer: the batch layer builds its views, the speed layer holds their states
//! beside those of the version before, and the serving layer switches once both have what is new in it. Until then the
//! version before answers; if it never comes to that, it goes on.

use std::{collections::BTreeSet, path::Path as Folder, sync::Arc};

use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};

use super::{Catalog, Faults, View, load};
use crate::{
    master,
    storage::{Error, Storage},
    view::ViewTable,
};

const FOLDER: &str = "catalog/versions";
/// So many versions are looked at for one whose views have been built.
const LOOK_BACK: usize = 16;

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

/// Where all versions are, the newest first.
async fn listed(storage: &Storage) -> Result<Vec<Path>, Error> {
    let folder = Path::from(FOLDER);
    let listed: Vec<_> = storage.objects().list(Some(&folder)).try_collect().await.map_err(failed("list", &folder))?;
    let mut paths: Vec<Path> = listed.into_iter().map(|object| object.location).collect();
    paths.sort_by(|a, b| b.cmp(a));
    Ok(paths)
}

async fn read(storage: &Storage, path: &Path) -> Result<Published, Error> {
    let read = async { storage.objects().get(path).await?.bytes().await };
    let text = read.await.map_err(failed("read", path))?;
    serde_json::from_slice(&text).map_err(|error| Error::Corrupt { table: path.to_string(), detail: error.to_string() })
}

/// The newest version; `None` while there is none.
pub async fn newest(storage: &Storage) -> Result<Option<Published>, Error> {
    newer(storage, 0).await
}

/// The newest version, if it is above `version`.
pub async fn newer(storage: &Storage, version: u64) -> Result<Option<Published>, Error> {
    match listed(storage).await?.first().filter(|&newest| *newest > path(version)) {
        Some(newest) => read(storage, newest).await.map(Some),
        None => Ok(None),
    }
}

/// What a layer that starts has to know.
#[derive(Clone, Debug)]
pub struct Present {
    /// The newest version that can be used.
    pub newest: Published,
    /// While its views have not been built: the newest version before it whose views have been.
    pub built: Option<(Published, Arc<Catalog>)>,
}

impl Present {
    /// The version that answers, and its catalog.
    pub fn answering(&self) -> Result<(u64, Arc<Catalog>), Faults> {
        match &self.built {
            Some((built, catalog)) => Ok((built.version, catalog.clone())),
            None => Ok((self.newest.version, Arc::new(self.newest.catalog()?))),
        }
    }
}

/// The newest version, and the one that answers until its views have been built; `None` while there is none.
pub async fn present(storage: &Storage) -> Result<Option<Present>, Error> {
    let paths = listed(storage).await?;
    let mut newest: Option<Published> = None;
    for path in paths.iter().take(LOOK_BACK) {
        let version = read(storage, path).await?;
        // What an earlier program took may be faulty for this one.
        let catalog = match version.catalog() {
            Ok(catalog) => catalog,
            Err(faults) => {
                tracing::warn!(version = version.version, "a published catalog is passed over: {faults}");
                continue;
            }
        };
        let newest = newest.get_or_insert_with(|| version.clone());
        if is_built(storage, catalog.views.values()).await? {
            let is_older = version.version != newest.version;
            let built = is_older.then(|| (version, Arc::new(catalog)));
            return Ok(Some(Present { newest: newest.clone(), built }));
        }
    }
    Ok(match (newest, paths.first()) {
        (Some(newest), _) => Some(Present { newest, built: None }),
        // None of them can be used: what is wrong with the newest is for the caller to say.
        (None, Some(path)) => Some(Present { newest: read(storage, path).await?, built: None }),
        (None, None) => None,
    })
}

/// Whether all of `views` that have a schedule have a batch view version, or no event to make one of.
pub async fn is_built(storage: &Storage, views: impl IntoIterator<Item = &Arc<View>>) -> Result<bool, Error> {
    let mut without_events = BTreeSet::new();
    for view in views {
        if view.refresh.is_none() || without_events.contains(&view.dataset.name) {
            continue;
        }
        let table = ViewTable::new(storage, view)?;
        if table.table().exists().await? && table.published(&table.table().load(None).await?).await?.is_some() {
            continue;
        }
        let master = master::table(storage, &view.dataset.name)?;
        if master.exists().await? && !master.load(None).await?.files().is_empty() {
            return Ok(false);
        }
        without_events.insert(view.dataset.name.clone());
    }
    Ok(true)
}

/// Views of `catalog` that are not in `before` as they are.
pub fn changed(catalog: &Catalog, before: &Catalog) -> Vec<Arc<View>> {
    let is_as_before = |view: &View| before.views.get(&view.name).is_some_and(|old| old.definition == view.definition);
    catalog.views.values().filter(|view| !is_as_before(view)).cloned().collect()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use object_store::memory::InMemory;

    use super::*;
    use crate::storage::table::DataFile;

    const DATASET: &str = "CREATE TABLE sales (store INT NOT NULL);";

    fn files(view: &str) -> Vec<(String, String)> {
        vec![("sales.sql".to_owned(), format!("{DATASET}{view}"))]
    }

    fn file() -> DataFile {
        DataFile { path: "part-1.parquet".to_owned(), size: 6, rows: 1, ranges: BTreeMap::new() }
    }

    /// Publishes a batch view version of `view`.
    async fn build(storage: &Storage, catalog: &Catalog, view: &str) {
        let table = ViewTable::new(storage, &catalog.views[view]).unwrap();
        let version = crate::view::Published {
            batch_version: 1,
            master_version: 1,
            cut: [(0, 1)].into_iter().collect(),
            rows: 1,
            failed_events: 0,
            failed_groups: 0,
            published_at_ms: 0,
            files: Arc::new(vec![file()]),
        };
        table.publish(&table.open().await.unwrap(), &version).await.unwrap();
    }

    #[tokio::test]
    async fn the_version_before_answers_until_the_newest_is_built() {
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap();
        let check = async |newest: u64, answering: u64| {
            let present = present(&storage).await.unwrap().unwrap();
            assert_eq!((present.newest.version, present.answering().unwrap().0), (newest, answering));
        };
        assert!(present(&storage).await.unwrap().is_none());
        let view = |select: &str| files(&format!("CREATE MATERIALIZED VIEW v AS {select} FROM sales GROUP BY store;"));
        let first = publish(&storage, &view("SELECT store, count(*) AS n")).await.unwrap();
        // Without events there is nothing to build.
        check(1, 1).await;
        let catalog = first.catalog().unwrap();
        let master = master::table(&storage, "sales").unwrap();
        master.ensure(&catalog.datasets["sales"].schema).await.unwrap();
        let at = master.load(None).await.unwrap();
        master.commit(&at, &[file()], Vec::new(), &BTreeMap::new(), 0).await.unwrap();
        // Nothing is built: then it is the newest.
        check(1, 1).await;
        build(&storage, &catalog, "v").await;
        assert_eq!(publish(&storage, &first.files).await.unwrap(), first);
        let second = publish(&storage, &view("SELECT store, max(store) AS n")).await.unwrap();
        check(2, 1).await;
        assert_eq!(newer(&storage, 1).await.unwrap(), Some(second.clone()));
        assert_eq!(newer(&storage, 2).await.unwrap(), None);
        // One that is faulty for this program is passed over.
        publish(&storage, &files("CREATE MATERIALIZED VIEW v AS SELECT 1;")).await.unwrap();
        publish(&storage, &second.files).await.unwrap();
        check(4, 1).await;
        build(&storage, &second.catalog().unwrap(), "v").await;
        check(4, 4).await;
        // A view without a schedule is not waited for.
        let never = "CREATE MATERIALIZED VIEW w WITH (refresh = 'never') AS SELECT count(*) AS n FROM sales;";
        let text = format!("{}{never}", second.files[0].1);
        let last = publish(&storage, &[("sales.sql".to_owned(), text)]).await.unwrap();
        check(last.version, last.version).await;
        let names = |views: Vec<Arc<View>>| views.iter().map(|view| view.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(changed(&last.catalog().unwrap(), &catalog)), ["v", "w"]);
        assert_eq!(names(changed(&catalog, &last.catalog().unwrap())), ["v"]);
    }
}
