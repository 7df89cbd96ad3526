//! An object store whose failures are drawn from a seed: a call fails before it has done anything, fails after it has,
//! or takes its time.

use std::{
    fmt::{Debug, Display},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does what it should.
    Well,
    /// It fails, and nothing has happened.
    FailsBefore,
    /// It fails, and it has happened all the same.
    FailsAfter,
    /// It takes a while.
    Stalls,
    /// It does not come to an end while it is doomed.
    Hangs,
}

/// How often calls fail, in a thousand each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// Fails, and nothing has happened.
    pub before: u32,
    /// Fails, and it has happened all the same.
    pub after: u32,
    /// Takes a while.
    pub stall: u32,
}

/// A store in front of another one.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    odds: Mutex<(fastrand::Rng, Odds)>,
    doomed: Mutex<Option<(String, Fate)>>,
}

impl Faulty {
    /// A store that fails never, until it is told to.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        Self { inner, odds: Mutex::new((fastrand::Rng::with_seed(seed), Odds::default())), doomed: Mutex::default() }
    }

    /// From now on calls fail like this.
    pub fn set(&self, odds: Odds) {
        self.odds.lock().unwrap_or_else(PoisonError::into_inner).1 = odds;
    }

    /// From now on writes to paths that contain `part` come to `fate`.
    pub fn doom(&self, part: &str, fate: Fate) {
        *self.doomed.lock().unwrap_or_else(PoisonError::into_inner) = Some((part.to_owned(), fate));
    }

    /// From now on no path is worse off than the others.
    pub fn spare(&self) {
        *self.doomed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn fate_of_write(&self, location: &Path) -> Result<Fate> {
        let doom = || {
            let doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            doomed.filter(|(part, _)| location.as_ref().contains(part)).map(|(_, fate)| fate)
        };
        while doom() == Some(Fate::Hangs) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match doom() {
            Some(Fate::FailsBefore) => Err(failure()),
            Some(fate) => Ok(fate),
            None => self.fate().await,
        }
    }

    async fn fate(&self) -> Result<Fate> {
        let fate = {
            let mut guard = self.odds.lock().unwrap_or_else(PoisonError::into_inner);
            let (random, odds) = &mut *guard;
            let drawn = random.u32(0..1000);
            if drawn < odds.before {
                Fate::FailsBefore
            } else if drawn < odds.before + odds.after {
                Fate::FailsAfter
            } else if drawn < odds.before + odds.after + odds.stall {
                Fate::Stalls
            } else {
                Fate::Well
            }
        };
        match fate {
            Fate::FailsBefore => Err(failure()),
            Fate::Stalls => {
                tokio::time::sleep(Duration::from_millis(30)).await;
                Ok(fate)
            }
            fate => Ok(fate),
        }
    }
}

fn failure() -> Error {
    Error::Generic { store: "faulty", source: "the simulation says no".into() }
}

fn end<T>(fate: Fate, result: Result<T>) -> Result<T> {
    if fate == Fate::FailsAfter { result.and(Err(failure())) } else { result }
}

impl Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fate = self.fate_of_write(location).await?;
        end(fate, self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let fate = self.fate().await?;
        end(fate, self.inner.put_multipart_opts(location, opts).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.fate().await?;
        end(fate, self.inner.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.fate().await?;
        end(fate, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fate = self.fate().await?;
        end(fate, self.inner.copy_opts(from, to, options).await)
    }
}
