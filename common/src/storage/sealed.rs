//! What is written is what is read: checksums of all that Lamina keeps in a store, looked at whenever it is read.
//!
//! Parquet files have a checksum a block, so that a lookup still reads little; entries of Delta logs and other JSON have
//! one for all of it. Objects without, of others or of an earlier Lamina, are read as they are, but none may be empty.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::{Debug, Display},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutPayloadMut, PutResult, RenameOptions,
    Result, path::Path,
};
use tokio::sync::watch;

mod json;
mod parquet;
mod upload;

use parquet::{BLOCK, Seal, Shown};
use upload::Upload;

/// So many bytes of a file's end are read to find its seal.
const END_BYTES: u64 = 64 << 10;
/// Seals of about so many bytes are kept: of some hundred gigabytes of files.
const KEPT_BYTES: usize = 32 << 20;

/// A Parquet file with checksums of its blocks.
pub(super) fn seal_parquet(file: Bytes) -> Bytes {
    parquet::seal(file)
}

/// An object that is not what was written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{path}` is damaged: {detail}; {remedy}")]
pub struct Damage {
    /// The object, by its path under the root.
    pub path: String,
    /// What is wrong with it.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

impl Damage {
    fn new(path: &str, detail: String) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        let remedy = match parts[..] {
            ["views", view, definition, ..] if path.contains("/_delta_log/") => format!(
                "restore it from a copy, or stop the batch layer, remove `views/{view}/{definition}` and start it again: \
                 the view is made anew"
            ),
            ["views", view, ..] => format!(
                "the view is made anew without further ado, unless the batch layer is away: then start it, or ask for it \
                 with `lamina recompute {view}`"
            ),
            ["master" | "dead_letters", dataset, ..] => format!(
                "restore it from a copy; without one, stop all layers, remove `master/{dataset}` and \
                 `dead_letters/{dataset}` and start them again: what the log still has is archived anew"
            ),
            ["jobs", ..] => "remove it: it only tells of a recompute".to_owned(),
            ["catalog", ..] => {
                "restore it from a copy, or remove it and start the batch layer again, which writes it anew".to_owned()
            }
            _ => "restore it from a copy".to_owned(),
        };
        Self { path: path.to_owned(), detail, remedy }
    }
}

/// The damage that an error comes from, however deep.
pub fn damage<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Damage> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref::<Damage>())
}

/// A store in front of another one.
#[derive(Debug)]
pub(super) struct Sealed {
    inner: Arc<dyn ObjectStore>,
    /// The root, which paths are told relative to.
    root: Path,
    kept: Mutex<Kept>,
    /// Paths of damaged objects that have been met.
    damaged: watch::Sender<BTreeSet<String>>,
}

/// The seals of files that have been read; `None` for a file without.
#[derive(Debug, Default)]
struct Kept {
    seals: HashMap<Path, Option<Arc<Seal>>>,
    bytes: usize,
}

/// How an object is sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Parquet,
    Json,
    Other,
}

fn form(path: &Path) -> Form {
    match path.extension() {
        Some("parquet") => Form::Parquet,
        Some("json") => Form::Json,
        _ => Form::Other,
    }
}

/// Whether an object is of a Delta table's log. Unlike others it may be written again under its name.
fn is_log(path: &Path) -> bool {
    path.parts().any(|part| part.as_ref() == "_delta_log")
}

impl Sealed {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, root: Path) -> Self {
        Self { inner, root, kept: Mutex::default(), damaged: watch::Sender::default() }
    }

    /// Damaged objects that have been met, by their paths under the root; whoever sees to one takes it out.
    pub(super) fn damaged(&self) -> &watch::Sender<BTreeSet<String>> {
        &self.damaged
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, path: &Path, seal: Option<Arc<Seal>>) {
        if is_log(path) {
            return;
        }
        let mut kept = self.kept();
        if kept.bytes > KEPT_BYTES {
            *kept = Kept::default();
        }
        kept.bytes += 128 + path.as_ref().len() + seal.as_ref().map_or(0, |seal| seal.bytes());
        kept.seals.insert(path.clone(), seal);
    }

    fn is_damaged(&self, path: &Path, detail: impl Into<String>) -> Error {
        let under_root: Option<Path> = path.prefix_match(&self.root).map(|parts| parts.collect());
        let damage = Damage::new(under_root.as_ref().unwrap_or(path).as_ref(), detail.into());
        self.damaged.send_if_modified(|damaged| damaged.insert(damage.path.clone()));
        Error::Generic { store: "Lamina", source: Box::new(damage) }
    }

    /// The seal that the end of a file shows, of which `end` is known.
    async fn seal_of(&self, path: &Path, mut end: Bytes, size: u64) -> Result<Option<Arc<Seal>>> {
        if size == 0 {
            return Err(self.is_damaged(path, "it is empty"));
        }
        loop {
            let seal = match Seal::read(&end, size).map_err(|detail| self.is_damaged(path, detail))? {
                Shown::Seal(seal) => Some(Arc::new(seal)),
                Shown::None => None,
                Shown::More(more) => {
                    end = self.inner.get_range(path, size.saturating_sub(more)..size).await?;
                    continue;
                }
            };
            self.keep(path, seal.clone());
            return Ok(seal);
        }
    }

    async fn seal(&self, path: &Path) -> Result<Option<Arc<Seal>>> {
        let kept = self.kept().seals.get(path).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        // Not every store has ends of objects to give, least of all more of one than there is.
        let size = self.inner.head(path).await?.size;
        let end = match size {
            0 => Bytes::new(),
            size => self.inner.get_range(path, size.saturating_sub(END_BYTES)..size).await?,
        };
        self.seal_of(path, end, size).await
    }

    fn check(&self, path: &Path, seal: &Seal, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        let is_short = bytes.len() as u64 != range.end - range.start;
        let checked = if is_short { Err(range.clone()) } else { seal.check(range.start, bytes) };
        checked.map_err(|Range { start, end }| {
            self.is_damaged(path, format!("its bytes {start} to {end} are not what was written"))
        })
    }

    /// Ranges of a file, each out of whole blocks; what is side by side is read and checked once.
    async fn ranges(&self, path: &Path, seal: &Seal, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut wide: Vec<Range<u64>> = ranges.iter().map(|range| seal.widen(range)).collect();
        wide.sort_unstable_by_key(|range| range.start);
        wide.dedup_by(|next, before| {
            let meets = next.start <= before.end;
            if meets {
                before.end = before.end.max(next.end);
            }
            meets
        });
        let read = self.inner.get_ranges(path, &wide).await?;
        for (range, bytes) in wide.iter().zip(&read) {
            self.check(path, seal, range, bytes)?;
        }
        let cut = |range: &Range<u64>| {
            let at = wide.partition_point(|wide| wide.start <= range.start).checked_sub(1)?;
            let from = usize::try_from(range.start - wide[at].start).ok()?;
            let to = usize::try_from(range.end.min(wide[at].end) - wide[at].start).ok()?;
            (from <= to).then(|| read[at].slice(from..to))
        };
        let missing = || self.is_damaged(path, "it is shorter than its table says");
        ranges.iter().map(|range| cut(range).ok_or_else(missing)).collect()
    }

    async fn get_parquet(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let wanted = options.range.clone();
        let kept = self.kept().seals.get(path).cloned();
        let kept = match kept {
            Some(None) => return self.inner.get_opts(path, options).await,
            kept => kept.flatten(),
        };
        // The first look at a file is at its end, as a rule: what is read for that shows the seal, too.
        let range = match (&wanted, &kept) {
            (Some(GetRange::Bounded(range)), Some(seal)) if range.start < range.end => {
                Some(GetRange::Bounded(seal.widen(range)))
            }
            (Some(GetRange::Bounded(range)), None) if range.start < range.end => {
                Some(GetRange::Bounded(range.start / BLOCK * BLOCK..range.end))
            }
            (Some(GetRange::Offset(from)), _) => Some(GetRange::Offset(from / BLOCK * BLOCK)),
            (other, _) => other.clone(),
        };
        let read = self.inner.get_opts(path, GetOptions { range, ..options }).await?;
        let (meta, got, attributes) = (read.meta.clone(), read.range.clone(), read.attributes.clone());
        let bytes = read.bytes().await?;
        let seal = match kept {
            Some(seal) => Some(seal),
            None if got.end == meta.size => self.seal_of(path, bytes.clone(), meta.size).await?,
            None => self.seal(path).await?,
        };
        let wanted = wanted.map_or(Ok(got.clone()), |wanted| wanted.as_range(meta.size)).map_err(generic)?;
        let bytes = match &seal {
            Some(seal) if seal.widen(&got) == got => {
                self.check(path, seal, &got, &bytes)?;
                cut(&bytes, &got, &wanted)
            }
            Some(seal) => self.ranges(path, seal, std::slice::from_ref(&wanted)).await?.pop(),
            None => cut(&bytes, &got, &wanted),
        };
        let bytes = bytes.ok_or_else(|| self.is_damaged(path, "it is shorter than its table says"))?;
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range: wanted, attributes })
    }

    async fn get_json(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let read = self.inner.get_opts(path, GetOptions { range: None, ..options.clone() }).await?;
        let (meta, attributes) = (read.meta.clone(), read.attributes.clone());
        let text = read.bytes().await?;
        // A table's log has no such entry; one that is left of a power failure would look like a commit of nothing.
        if text.is_empty() {
            return Err(self.is_damaged(path, "it is empty"));
        }
        json::check(&text, is_log(path)).map_err(|detail| self.is_damaged(path, detail))?;
        let whole = 0..text.len() as u64;
        let wanted = options.range.map_or(Ok(whole.clone()), |wanted| wanted.as_range(whole.end)).map_err(generic)?;
        let bytes = cut(&text, &whole, &wanted).unwrap_or_default();
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range: wanted, attributes })
    }
}

/// The part `wanted` of the bytes at `got`.
fn cut(bytes: &Bytes, got: &Range<u64>, wanted: &Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(wanted.start.checked_sub(got.start)?).ok()?;
    let to = usize::try_from(wanted.end.checked_sub(got.start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

fn generic(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "Lamina", source: Box::new(error) }
}

impl Display for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Sealed {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.kept().seals.remove(location);
        let payload = match form(location) {
            Form::Json => json::seal(&Bytes::from(payload), is_log(location)).into(),
            // A table's data files are sealed already: their size stands in their commit.
            Form::Parquet if is_log(location) => parquet::seal(payload.into()).into(),
            _ => payload,
        };
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.kept().seals.remove(location);
        if form(location) != Form::Parquet || !is_log(location) {
            return self.inner.put_multipart_opts(location, options).await;
        }
        let PutMultipartOptions { tags, attributes, extensions } = options;
        let options = PutOptions { tags, attributes, extensions, ..PutOptions::default() };
        let store = Arc::new(Self::new(self.inner.clone(), self.root.clone()));
        Ok(Box::new(Upload { store, path: location.clone(), options, parts: PutPayloadMut::default() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match form(location) {
            _ if options.head => self.inner.get_opts(location, options).await,
            Form::Parquet => self.get_parquet(location, options).await,
            Form::Json => self.get_json(location, options).await,
            Form::Other => self.inner.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match form(location) {
            Form::Parquet => match self.seal(location).await? {
                Some(seal) => self.ranges(location, &seal, ranges).await,
                None => self.inner.get_ranges(location, ranges).await,
            },
            Form::Json => {
                let mut parts = Vec::with_capacity(ranges.len());
                for range in ranges {
                    parts.push(self.get_range(location, range.clone()).await?);
                }
                Ok(parts)
            }
            Form::Other => self.inner.get_ranges(location, ranges).await,
        }
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
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
