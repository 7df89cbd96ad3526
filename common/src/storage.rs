//! The object store: one root, and the Delta tables under it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

use datafusion::{
    datasource::object_store::ObjectStoreUrl,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::MemoryPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
};
use deltalake::logstore::{StorageConfig, default_logstore};
use object_store::{ObjectStore, path::Path, prefix::PrefixStore};
use tokio::sync::watch;
use url::Url;

use crate::{
    fault::{Domain, Fault},
    settings::SpillSettings,
};

mod emptied;
mod indexed;
pub mod parquet;
mod probe;
pub mod scan;
mod sealed;
mod synced;
pub mod table;
mod txns;

use sealed::Sealed;
pub use sealed::{Damage, damage};
use synced::Synced;

/// One root in an object store: `file://`, `s3://`, and what else `object_store` speaks.
#[derive(Clone, Debug)]
pub struct Storage {
    url: Url,
    /// The whole store, as delta-rs addresses it by URL.
    whole: Arc<Sealed>,
    /// What is under the root.
    objects: Arc<dyn ObjectStore>,
    spill: SpillSettings,
}

impl Storage {
    /// The store at `url`, with `options` as `object_store` names them (`aws_endpoint`, `aws_access_key_id`, …).
    /// A folder is created when it is missing, and what is written to it outlasts a power failure.
    pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Self, Error> {
        Self::open_with(url, options, true)
    }

    /// The same; without `sync` the system takes its time with what is written to a folder.
    pub fn open_with(url: &str, options: &BTreeMap<String, String>, sync: bool) -> Result<Self, Error> {
        let bad = |reason: String| Error::Url { url: url.to_owned(), reason };
        let mut parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if !matches!(parsed.scheme(), "s3" | "s3a" | "https" | "file" | "memory") {
            let scheme = parsed.scheme();
            return Err(bad(format!(
                "tables are kept in S3, in what speaks its API, or in a folder, not at `{scheme}:`"
            )));
        }
        if !parsed.path().ends_with('/') {
            parsed.set_path(&format!("{}/", parsed.path()));
        }
        if parsed.scheme() == "file" {
            let folder = parsed.to_file_path().map_err(|()| bad("it names no local folder".to_owned()))?;
            std::fs::create_dir_all(&folder).map_err(|error| bad(error.to_string()))?;
            if sync {
                return Self::with_store(parsed, Arc::new(Synced::new(&folder)));
            }
        }
        let (whole, _) = object_store::parse_url_opts(&parsed, options).map_err(|error| bad(error.to_string()))?;
        Self::with_store(parsed, Arc::from(whole))
    }

    /// A root at `url` in a store that is handed in: a simulation's, or one that injects faults.
    pub fn with_store(mut url: Url, whole: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| Error::Url { url: url.to_string(), reason: error.to_string() })?;
        let whole = Arc::new(Sealed::new(whole, prefix.clone()));
        let objects = Arc::new(PrefixStore::new(whole.clone() as Arc<dyn ObjectStore>, prefix));
        Ok(Self { url, whole, objects, spill: SpillSettings::default() })
    }

    /// The same store, for runtimes that have this room for what does not fit into memory.
    pub fn with_spill(self, spill: SpillSettings) -> Self {
        Self { spill, ..self }
    }

    /// The root.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What is under the root, by paths relative to it.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Damaged objects that have been met while reading, by their paths under the root; who sees to one takes it out.
    pub fn damaged(&self) -> &watch::Sender<BTreeSet<String>> {
        self.whole.damaged()
    }

    /// Makes sure that the store can be reached and keeps its promise that of several writers who create one object
    /// only one succeeds. Delta tables on a store that breaks it lose commits without a word.
    pub async fn probe(&self) -> Result<(), Error> {
        probe::probe(self).await
    }

    /// Takes back what a power failure has left of a folder that is not synced: newest objects without contents. What they
    /// were to say is in the log, or is made anew. Only for the one who writes, before it does. Gives what is removed.
    pub async fn take_back_empty(&self) -> Result<Vec<Path>, Error> {
        if self.url.scheme() == "file" { emptied::take_back(self).await } else { Ok(Vec::new()) }
    }

    /// The Delta table at `path` under the root; it need not exist yet.
    pub fn table(&self, path: &str) -> Result<table::Table, Error> {
        let url = self
            .url
            .join(&format!("{path}/"))
            .map_err(|error| Error::Url { url: path.to_owned(), reason: error.to_string() })?;
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| Error::Url { url: url.to_string(), reason: error.to_string() })?;
        let prefixed = Arc::new(PrefixStore::new(self.whole.clone() as Arc<dyn ObjectStore>, prefix));
        let log_store = default_logstore(prefixed, self.whole.clone(), &url, &StorageConfig::default());
        Ok(table::Table::new(path.to_owned(), log_store, self.objects.clone()))
    }

    /// Under which name DataFusion knows this store, in a runtime made by [`Storage::runtime`].
    pub fn datafusion_url() -> ObjectStoreUrl {
        ObjectStoreUrl::local_filesystem()
    }

    /// A DataFusion runtime that reads this store, with `pool` for memory.
    pub fn runtime(&self, pool: Arc<dyn MemoryPool>) -> Result<Arc<RuntimeEnv>, datafusion::error::DataFusionError> {
        let mode = match &self.spill.folder {
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                DiskManagerMode::Directories(vec![folder.clone()])
            }
            None => DiskManagerMode::OsTmpDirectory,
        };
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(self.spill.size.as_u64());
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc()?;
        runtime.register_object_store(Self::datafusion_url().as_ref(), self.objects.clone());
        Ok(runtime)
    }
}

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error("`{url}` is no usable object store: {reason}; write for example `s3://bucket/prefix` or `file:///folder`")]
    Url { url: String, reason: String },
    #[error("the object store `{url}` cannot be used")]
    Unreachable { url: String, source: object_store::Error },
    #[error(
        "the object store `{url}` does not keep conditional puts: {detail}; Delta tables would lose commits on it, use a store that supports `If-None-Match: *`"
    )]
    NoConditionalPut { url: String, detail: String },
    #[error("could not {action} table `{table}`")]
    Table { action: &'static str, table: String, source: Box<deltalake::DeltaTableError> },
    #[error("another writer has committed to table `{table}` first")]
    Conflict { table: String },
    #[error("could not {action} `{path}`")]
    Object { action: &'static str, path: String, source: object_store::Error },
    #[error("could not {action}")]
    Parquet { action: String, source: ::parquet::errors::ParquetError },
    #[error(
        "table `{table}` has events of partition {added}, and its topic had {partitions} partitions when this process \
         asked: partitions have been added, start this process again"
    )]
    PartitionAdded { table: String, added: i64, partitions: crate::position::Partition },
    #[error("table `{table}` is not as it should be: {detail}")]
    Corrupt { table: String, detail: String },
}

impl Fault for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::Url { .. } | Self::NoConditionalPut { .. } => Domain::User,
            Self::Unreachable { .. }
            | Self::Table { .. }
            | Self::Conflict { .. }
            | Self::Object { .. }
            | Self::PartitionAdded { .. } => Domain::External,
            Self::Parquet { .. } | Self::Corrupt { .. } => Domain::Internal,
        }
    }
}
