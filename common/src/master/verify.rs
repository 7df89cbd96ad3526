//! Whether a log still holds what was archived from it: a recreated or truncated topic uses its offsets again.

use std::{collections::BTreeSet, time::Duration};

use super::{Version, fingerprint};
use crate::{
    log::{self, Log},
    position::{Frontier, Offset, Partition},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the last archived record of every partition again and compares it with what the master says of it.
pub async fn verify(log: &dyn Log, topic: &str, at: &Version) -> Result<(), log::Error> {
    let bounds = log.bounds(topic).await?;
    for (partition, next) in at.frontier.iter() {
        let (start, end) = (bounds.start.get(partition), bounds.end.get(partition));
        if end < next {
            return Err(log::Error::Truncated { topic: topic.to_owned(), partition, wanted: next, end });
        }
        if start > next {
            return Err(log::Error::Expired { topic: topic.to_owned(), partition, wanted: next, start });
        }
    }
    let still_there = |partition, offset| offset >= bounds.start.get(partition);
    for (&partition, &(offset, known)) in &at.last {
        if still_there(partition, offset) {
            compare(log, topic, partition, offset, known).await?;
        }
    }
    Ok(())
}

async fn compare(
    log: &dyn Log,
    topic: &str,
    partition: Partition,
    offset: Offset,
    known: i64,
) -> Result<(), log::Error> {
    let only = BTreeSet::from([partition]);
    let mut reader = log.reader(topic, &Frontier::from_iter([(partition, offset)]), Some(&only)).await?;
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            for chunk in reader.poll(1, Duration::from_millis(200)).await? {
                if chunk.partition == partition && chunk.next > offset {
                    return Ok(chunk);
                }
            }
        }
    });
    let chunk = waited.await.map_err(|elapsed| log::Error::Unavailable {
        action: format!("read `{topic}` partition {partition} offset {offset} again within 10 s"),
        source: Box::new(elapsed),
    })??;
    let found = chunk
        .offsets
        .iter()
        .position(|&found| found == offset)
        .map(|i| fingerprint(offset, chunk.timestamps_ms[i], (!chunk.tombstones[i]).then(|| chunk.value(i))));
    if found == Some(known) {
        return Ok(());
    }
    Err(log::Error::Corrupt(format!(
        "the log of `{topic}` partition {partition} holds another record at offset {offset} than the one that was \
         archived: the topic was recreated or truncated; restore it, or start with a new store"
    )))
}
