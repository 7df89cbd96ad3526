//! The contract of a log, as a suite that is run on every implementation. Each check uses a topic of its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Chunk, Error, Log, NewRecord, Reader};
use crate::position::{Frontier, Offset, Partition};

const WAIT: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_secs(30);

/// A record of a log: its offset, and its value if it has one.
pub type Read = (Offset, Option<Vec<u8>>);

fn record(value: impl Into<Bytes>) -> NewRecord {
    NewRecord { key: None, value: Some(value.into()) }
}

fn numbered(numbers: std::ops::Range<usize>) -> Vec<NewRecord> {
    numbers.map(|number| record(format!("value {number}"))).collect()
}

/// Reads until every partition has come to `end`; everything must be in order and without a hole.
async fn read_to(
    reader: &mut Box<dyn Reader>,
    from: &Frontier,
    end: &Frontier,
) -> Result<Vec<(Partition, Read)>, Error> {
    read_by(1000, reader, from, end).await
}

/// The same, with at most about so many records at once.
async fn read_by(
    max_records: usize,
    reader: &mut Box<dyn Reader>,
    from: &Frontier,
    end: &Frontier,
) -> Result<Vec<(Partition, Read)>, Error> {
    let mut at = from.clone();
    let mut read = Vec::new();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !at.covers(end) {
        assert!(tokio::time::Instant::now() < deadline, "stood at {at} and did not come to {end}");
        for chunk in reader.poll(max_records, WAIT).await? {
            assert_eq!(chunk.from, at.get(chunk.partition), "chunks follow one another");
            at.set(chunk.partition, chunk.next);
            read.extend(records(&chunk).into_iter().map(|record| (chunk.partition, record)));
        }
    }
    Ok(read)
}

fn records(chunk: &Chunk) -> Vec<Read> {
    (0..chunk.len()).map(|i| (chunk.offsets[i], (!chunk.tombstones[i]).then(|| chunk.value(i).to_vec()))).collect()
}

/// What is appended is read back, in order, from any frontier.
pub async fn what_is_written_is_read(log: &Arc<dyn Log>, topic: &str) -> Result<(), Error> {
    assert_eq!(log.ensure_topic(topic, 3).await?, 3);
    assert_eq!(log.ensure_topic(topic, 7).await?, 3, "a topic stays as it is");
    assert_eq!(log.append(topic, 0, numbered(0..500)).await?, (0..500).collect::<Vec<Offset>>());
    assert_eq!(log.append(topic, 0, numbered(500..510)).await?, (500..510).collect::<Vec<Offset>>());
    let special = vec![
        record(""),
        NewRecord { key: Some("key".into()), value: None },
        NewRecord { key: Some(Bytes::new()), value: Some("x".into()) },
        record(vec![7_u8; 700_000]),
    ];
    log.append(topic, 2, special).await?;
    let bounds = log.bounds(topic).await?;
    assert_eq!(bounds.end, Frontier::from_iter([(0, 510), (1, 0), (2, 4)]));
    assert_eq!(bounds.end.partitions().count(), 3, "every partition is named");
    for first in [0, 1, 499, 500, 509, 510] {
        let from = Frontier::from_iter([(0, first), (2, 4)]);
        let mut reader = log.reader(topic, &from, None).await?;
        let read = read_by(7, &mut reader, &from, &bounds.end).await?;
        let expected = (first..510).map(|n| (0, (n, Some(format!("value {n}").into_bytes())))).collect::<Vec<_>>();
        assert_eq!(read, expected, "from {first}");
    }
    let from = Frontier::from_iter([(0, 510)]);
    let read = read_to(&mut log.reader(topic, &from, None).await?, &from, &bounds.end).await?;
    let values: Vec<Option<usize>> = read.iter().map(|(_, (_, value))| value.as_ref().map(Vec::len)).collect();
    assert_eq!(values, [Some(0), None, Some(1), Some(700_000)]);
    Ok(())
}

/// At the end a poll waits, and gives what comes; a poll that is cancelled loses nothing.
pub async fn a_reader_waits_at_the_end(log: &Arc<dyn Log>, topic: &str) -> Result<(), Error> {
    log.ensure_topic(topic, 1).await?;
    let start = Frontier::default();
    let mut reader = log.reader(topic, &start, None).await?;
    assert!(reader.poll(10, Duration::from_millis(50)).await?.is_empty());
    for round in 0..20_i64 {
        // Given up in the middle, at another moment each time.
        let short = Duration::from_micros(200 * u64::try_from(round).unwrap_or(0));
        let mut chunks = tokio::time::timeout(short, reader.poll(10, WAIT)).await.unwrap_or(Ok(Vec::new()))?;
        assert_eq!(log.append(topic, 0, numbered(0..1)).await?, [round]);
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while chunks.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "record {round} did not come");
            chunks = reader.poll(10, WAIT).await?;
        }
        assert_eq!((chunks.len(), chunks[0].offsets.clone(), chunks[0].from), (1, vec![round], round));
    }
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while reader.end_seen().is_none_or(|(end, _)| end.get(0) < 20) {
        assert!(tokio::time::Instant::now() < deadline, "the end was not seen");
        reader.poll(10, WAIT).await?;
    }
    Ok(())
}

/// Appends side by side all get offsets of their own.
pub async fn appends_side_by_side(log: &Arc<dyn Log>, topic: &str) -> Result<(), Error> {
    log.ensure_topic(topic, 2).await?;
    let appends = (0..40).map(|i| log.append(topic, i % 2, numbered(0..25)));
    let mut offsets: Vec<(i32, Offset)> = Vec::new();
    for (i, appended) in (0..).zip(futures::future::join_all(appends).await) {
        offsets.extend(appended?.into_iter().map(|offset| (i % 2, offset)));
    }
    offsets.sort_unstable();
    let expected: Vec<(i32, Offset)> =
        (0..2).flat_map(|partition| (0..500).map(move |offset| (partition, offset))).collect();
    assert_eq!(offsets, expected);
    let end = log.bounds(topic).await?.end;
    let read = read_to(&mut log.reader(topic, &Frontier::default(), None).await?, &Frontier::default(), &end).await?;
    assert_eq!(read.len(), 1000);
    Ok(())
}

/// What cannot be read is said, and never skipped.
pub async fn what_is_not_there(log: &Arc<dyn Log>, topic: &str) -> Result<(), Error> {
    let unknown = log.bounds(&format!("{topic}-unknown")).await;
    assert!(matches!(unknown, Err(Error::UnknownTopic { .. })), "{unknown:?}");
    log.ensure_topic(topic, 1).await?;
    log.append(topic, 0, numbered(0..3)).await?;
    let beyond = log.reader(topic, &Frontier::from_iter([(0, 4)]), None).await;
    assert!(matches!(beyond, Err(Error::Truncated { wanted: 4, end: 3, .. })), "{beyond:?}");
    let no_such_partition = log.reader(topic, &Frontier::from_iter([(5, 1)]), None).await;
    assert!(
        matches!(no_such_partition, Err(Error::Truncated { partition: 5, wanted: 1, end: 0, .. })),
        "{no_such_partition:?}"
    );
    let nowhere = log.append(&format!("{topic}-unknown"), 0, numbered(0..1)).await;
    assert!(matches!(nowhere, Err(Error::UnknownTopic { .. })), "{nowhere:?}");
    for partition in [-1, 1] {
        let nowhere = log.append(topic, partition, numbered(0..1)).await;
        assert!(nowhere.is_err(), "partition {partition}: {nowhere:?}");
    }
    Ok(())
}

/// Records that have expired are an error, also for a reader that is open: never a hole. `expire` removes what is
/// below a frontier of partition 0.
pub async fn what_has_expired_is_said<F: Future<Output = ()>>(
    log: &Arc<dyn Log>,
    topic: &str,
    expire: impl Fn(Frontier) -> F,
) -> Result<(), Error> {
    log.ensure_topic(topic, 1).await?;
    log.append(topic, 0, numbered(0..10)).await?;
    log.append(topic, 0, numbered(10..20)).await?;
    let start = Frontier::default();
    let mut open = log.reader(topic, &start, None).await?;
    expire(Frontier::from_iter([(0, 10)])).await;
    let bounds = log.bounds(topic).await?;
    assert_eq!((bounds.start.get(0), bounds.end.get(0)), (10, 20));
    // It may have had the records at hand before.
    match read_to(&mut open, &start, &bounds.end).await {
        Ok(read) => assert_eq!(read.len(), 20, "a hole"),
        Err(error) => assert!(matches!(error, Error::Expired { wanted: 0, start: 10, .. }), "{error:?}"),
    }
    for wanted in [0, 9] {
        let expired = log.reader(topic, &Frontier::from_iter([(0, wanted)]), None).await;
        assert!(matches!(expired, Err(Error::Expired { start: 10, .. })), "from {wanted}: {expired:?}");
    }
    let from = Frontier::from_iter([(0, 10)]);
    let read = read_to(&mut log.reader(topic, &from, None).await?, &from, &bounds.end).await?;
    assert_eq!(read.len(), 10);
    Ok(())
}

/// A gap at the end is passed over, and one in the middle too. `gap` makes one in partition 0.
pub async fn gaps_are_passed<F: Future<Output = ()>>(
    log: &Arc<dyn Log>,
    topic: &str,
    gap: impl Fn() -> F,
) -> Result<(), Error> {
    log.ensure_topic(topic, 1).await?;
    log.append(topic, 0, numbered(0..2)).await?;
    let mut reader = log.reader(topic, &Frontier::default(), None).await?;
    gap().await;
    // A transaction's marker may come a while after the transaction has ended.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let end = loop {
        let end = log.bounds(topic).await?.end;
        if end.get(0) > 2 {
            break end;
        }
        assert!(tokio::time::Instant::now() < deadline, "the gap takes no offsets: {end}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let read = read_to(&mut reader, &Frontier::default(), &end).await?;
    assert!(read.len() >= 2);
    let appended = log.append(topic, 0, numbered(0..1)).await?;
    assert_eq!(appended, [end.get(0)]);
    let after = log.bounds(topic).await?.end;
    let read = read_to(&mut reader, &end, &after).await?;
    assert_eq!(read.len(), 1);
    Ok(())
}
