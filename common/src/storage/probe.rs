//! A race that a store without atomic conditional puts does not pass. Two puts in turn pass even on stores that lose
//! commits, so the puts have to meet.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, path::Path};

use super::{Error, Storage};

const KEYS: usize = 4;
const WRITERS: usize = 16;
const DEADLINE: Duration = Duration::from_secs(20);

/// Lets several writers create each of several objects at once: one must win, and its bytes must read back.
pub(super) async fn probe(storage: &Storage) -> Result<(), Error> {
    let unreachable = |source| Error::Unreachable { url: storage.url().to_string(), source };
    let races = try_join_all((0..KEYS).map(|_| race(storage)));
    match tokio::time::timeout(DEADLINE, races).await {
        Ok(raced) => raced.map(|_| ()),
        Err(elapsed) => Err(unreachable(StoreError::Generic {
            store: "probe",
            source: format!("no answer within 20 s: {elapsed}").into(),
        })),
    }
}

async fn race(storage: &Storage) -> Result<(), Error> {
    let unreachable = |source| Error::Unreachable { url: storage.url().to_string(), source };
    let broken = |detail: String| Error::NoConditionalPut { url: storage.url().to_string(), detail };
    let store = storage.objects();
    let path = Path::from(format!("probe/{}", uuid::Uuid::new_v4()));
    let contents: Vec<String> = (0..WRITERS).map(|writer| format!("{writer} {}", uuid::Uuid::new_v4())).collect();
    let puts = contents.iter().map(|content| store.put_opts(&path, content.clone().into(), PutMode::Create.into()));
    let mut winners = Vec::new();
    for (writer, put) in join_all(puts).await.into_iter().enumerate() {
        match put {
            Ok(_) => winners.push(writer),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(error) => return Err(unreachable(error)),
        }
    }
    let read = async { store.get(&path).await?.bytes().await };
    let bytes = read.await.map_err(unreachable)?;
    store.delete(&path).await.map_err(unreachable)?;
    match winners[..] {
        [winner] if bytes == contents[winner].as_bytes() => Ok(()),
        [_] => Err(broken("the object does not hold what its one creator wrote".to_owned())),
        _ => Err(broken(format!("{} of {WRITERS} writers were told that they created one object", winners.len()))),
    }
}
