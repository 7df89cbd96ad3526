//! What a power failure leaves of a folder that is not synced: the newest files by name and without contents.
//!
//! What they were to say is in the log, or is made anew: a table's newest commits that lost something go, and the table
//! goes on from the one before. Anything older that is empty is an error when it is read.

use std::collections::{BTreeMap, BTreeSet};

use deltalake::{kernel::Action, logstore::get_actions};
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};

use super::{Error, Storage};

/// Takes back what was written last and is empty. Gives what it has removed.
pub(super) async fn take_back(storage: &Storage) -> Result<Vec<Path>, Error> {
    let root = Path::default();
    let listed: Vec<_> = storage.objects().list(None).try_collect().await.map_err(failed("list", &root))?;
    let empty: BTreeSet<Path> =
        listed.iter().filter(|object| object.size == 0).map(|object| object.location.clone()).collect();
    let mut removed = Vec::new();
    if empty.is_empty() {
        return Ok(removed);
    }
    let all: BTreeSet<Path> = listed.into_iter().map(|object| object.location).collect();
    // By table, the entries of its log in their order.
    let mut logs: BTreeMap<String, Vec<Path>> = BTreeMap::new();
    for path in all.iter().filter(|path| path.extension() == Some("json")) {
        if let Some((table, _)) = path.as_ref().split_once("/_delta_log/") {
            logs.entry(table.to_owned()).or_default().push(path.clone());
        }
    }
    for (table, mut entries) in logs {
        while let Some(newest) = entries.pop() {
            let is_lost = empty.contains(&newest)
                || adds(storage, &table, &newest).await?.iter().any(|file| empty.contains(file));
            if !is_lost {
                break;
            }
            let version = newest.filename().unwrap_or_default().trim_end_matches(".json");
            let beside = [format!("{version}.checkpoint.parquet"), "_last_checkpoint".to_owned()];
            let beside = beside.map(|name| Path::from(format!("{table}/_delta_log/{name}")));
            // The entry last: until it is gone, the rest is looked at again.
            for path in beside.into_iter().filter(|path| all.contains(path)).chain([newest]) {
                remove(storage, path, &mut removed).await?;
            }
        }
    }
    let is_made_anew = |path: &Path| {
        let name = path.filename().unwrap_or_default();
        let parts: Vec<_> = path.parts().collect();
        let is_record = parts.first().is_some_and(|area| matches!(area.as_ref(), "jobs" | "catalog"));
        is_record || name == "_last_checkpoint" || name.ends_with(".checkpoint.parquet")
    };
    for path in empty.into_iter().filter(is_made_anew) {
        remove(storage, path, &mut removed).await?;
    }
    Ok(removed)
}

/// The files that an entry of a table's log adds; none where it cannot be read: who reads it says so.
async fn adds(storage: &Storage, table: &str, entry: &Path) -> Result<Vec<Path>, Error> {
    let read = async { storage.objects().get(entry).await?.bytes().await };
    let Ok(actions) = get_actions(0, &read.await.unwrap_or_default()) else { return Ok(Vec::new()) };
    let added = actions.into_iter().filter_map(|action| match action {
        Action::Add(add) => Some(Path::from(format!("{table}/{}", add.path))),
        _ => None,
    });
    Ok(added.collect())
}

async fn remove(storage: &Storage, path: Path, removed: &mut Vec<Path>) -> Result<(), Error> {
    match storage.objects().delete(&path).await {
        Ok(()) => removed.push(path),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(source) => return Err(failed("delete", &path)(source)),
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(object_store::Error) -> Error {
    let path = path.to_string();
    move |source| Error::Object { action, path, source }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::storage::table::DataFile;

    #[tokio::test]
    async fn a_table_goes_on_from_its_newest_whole_commit() {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let storage = Storage::open(url.as_str(), &BTreeMap::new()).unwrap();
        let table = storage.table("master/sales").unwrap();
        table.ensure(&Schema::new(vec![Field::new("id", DataType::Int64, true)])).await.unwrap();
        for i in 1..=24_i64 {
            let file = DataFile { path: format!("part-{i}.parquet"), size: 6, rows: 1, ranges: [].into() };
            table.put(&file.path, "groups".into()).await.unwrap();
            let at = table.load(None).await.unwrap();
            table.commit(&at, &[file], Vec::new(), &[("id".to_owned(), i)].into(), 0).await.unwrap();
        }
        let storage = Storage::open(url.as_str(), &BTreeMap::new()).unwrap();
        assert!(take_back(&storage).await.unwrap().is_empty());
        let emptied = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        emptied("master/sales/_delta_log/00000000000000000024.json");
        emptied("master/sales/part-23.parquet");
        emptied("master/sales/part-7.parquet");
        emptied("master/sales/_delta_log/_last_checkpoint");
        std::fs::create_dir_all(folder.path().join("jobs")).unwrap();
        emptied("jobs/1.json");
        // Without a word nothing is a commit of nothing.
        let said = crate::fault::chain(&storage.table("master/sales").unwrap().load(None).await.unwrap_err());
        assert!(said.contains("is empty"), "{said}");
        let removed = take_back(&storage).await.unwrap();
        assert_eq!(removed.len(), 4, "{removed:?}");
        let table = storage.table("master/sales").unwrap();
        let at = table.load(None).await.unwrap();
        let ids = ["id".to_owned()];
        assert_eq!((at.version(), table.txns(&at, &ids).await.unwrap()["id"]), (22, 22));
        let file = DataFile { path: "part-25.parquet".to_owned(), size: 6, rows: 1, ranges: [].into() };
        let after = table.commit(&at, &[file], Vec::new(), &[("id".to_owned(), 23)].into(), 0).await.unwrap();
        assert_eq!(after.version(), 23);
        assert!(folder.path().join("master/sales/part-7.parquet").exists(), "what is older stays, and is told");
    }
}
