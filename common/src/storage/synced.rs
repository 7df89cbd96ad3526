//! A folder as store whose objects outlast a power failure: an object and its name are on the disk before anybody is told
//! that it has been written. The library that writes folders leaves that to the system's good time.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::File,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, local::LocalFileSystem, path::Path,
};

/// A folder store that syncs what it writes.
#[derive(Debug)]
pub(super) struct Synced {
    inner: LocalFileSystem,
    root: Arc<FilePath>,
    /// Folders whose own names are known to be on the disk.
    folders: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Synced {
    /// What is under the folder `root`, which is there.
    pub(super) fn new(root: &FilePath) -> Self {
        // The folder's own name, as far as that is ours to sync.
        if let Some(above) = root.parent() {
            let _ = File::open(above).and_then(|folder| folder.sync_all());
        }
        Self { inner: LocalFileSystem::new(), root: root.into(), folders: Arc::default() }
    }

    async fn sync(&self, location: &Path) -> Result<()> {
        let (path, root, folders) = (self.inner.path_to_filesystem(location)?, self.root.clone(), self.folders.clone());
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic { store: "synced folder", source };
        let syncing = tokio::task::spawn_blocking(move || sync(&path, &root, &folders));
        syncing.await.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))
    }
}

/// Syncs a file and its name; for a new folder, its name too, and so on.
fn sync(path: &FilePath, root: &FilePath, known: &Mutex<BTreeSet<PathBuf>>) -> std::io::Result<()> {
    File::open(path)?.sync_all()?;
    let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let mut named = Vec::new();
    for folder in path.ancestors().skip(1) {
        File::open(folder)?.sync_all()?;
        if known().contains(folder) {
            break;
        }
        named.push(folder.to_owned());
        if folder == root {
            break;
        }
    }
    // Only now: whoever finds a folder here takes the names above it for synced.
    known().extend(named);
    Ok(())
}

impl Display for Synced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Synced({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Synced {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, options).await?;
        self.sync(location).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // Lamina's own objects are put whole.
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn what_is_told_is_synced_up_to_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::from_absolute_path(folder.path()).unwrap();
        let path = Path::from(format!("{root}/views/v/part-1.parquet"));
        let store = Synced::new(folder.path());
        store.put(&path, "groups".into()).await.unwrap();
        let synced = store.folders.lock().unwrap().clone();
        let expected = ["", "views", "views/v"].map(|name| folder.path().join(name));
        assert!(synced.len() == 3 && expected.iter().all(|folder| synced.contains(folder)), "{synced:?}");
        store.put(&path, "more".into()).await.unwrap();
        assert_eq!(*store.folders.lock().unwrap(), synced);
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "more");
    }
}
