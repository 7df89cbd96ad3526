//! How records stand in a value: as many as were committed together, one after the other, behind a head that says whose
//! they are and a checksum of all of it.
//!
//! Batches of a partition follow one another without a hole: one that is missing is seen. Where offsets hold no records, a
//! batch without records says so.

use std::ops::Range;

use crate::{
    log::{Chunk, NewRecord},
    position::{Offset, Partition},
};

const NONE: u32 = u32::MAX;
/// What a batch begins with. Before there were checksums it was its first offset, which is never negative.
pub(super) const MARK: [u8; 8] = *b"LAMBATC\xff";
/// The mark, how many bytes follow the checksum, and the checksum.
pub(super) const PREFIX: usize = 16;
/// The commit, both offsets, the partition and the length of the topic's name.
const HEAD: usize = 30;

/// Whose records a batch has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) commit: u64,
    pub(super) topic: &'a str,
    pub(super) partition: Partition,
    /// The offsets that it stands for.
    pub(super) offsets: Range<Offset>,
}

/// Writes records into one value.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    records: Vec<u8>,
}

impl Encoder {
    /// Adds a record.
    pub(super) fn push(&mut self, offset: Offset, timestamp_ms: i64, record: &NewRecord) {
        self.records.extend_from_slice(&offset.to_le_bytes());
        self.records.extend_from_slice(&timestamp_ms.to_le_bytes());
        for part in [&record.key, &record.value] {
            let length = part.as_ref().map_or(NONE, |part| u32::try_from(part.len()).unwrap_or(NONE - 1));
            self.records.extend_from_slice(&length.to_le_bytes());
        }
        for part in [&record.key, &record.value].into_iter().flatten() {
            self.records.extend_from_slice(part);
        }
    }

    /// The value.
    pub(super) fn finish(self, head: &Head<'_>) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(HEAD + head.topic.len() + self.records.len());
        sealed.extend_from_slice(&head.commit.to_le_bytes());
        sealed.extend_from_slice(&head.offsets.start.to_le_bytes());
        sealed.extend_from_slice(&head.offsets.end.to_le_bytes());
        sealed.extend_from_slice(&head.partition.to_le_bytes());
        sealed.extend_from_slice(&u16::try_from(head.topic.len()).unwrap_or(u16::MAX).to_le_bytes());
        sealed.extend_from_slice(head.topic.as_bytes());
        sealed.extend_from_slice(&self.records);
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes();
        [MARK.as_slice(), &length, &crc32c::crc32c(&sealed).to_le_bytes(), &sealed].concat()
    }
}

/// How many bytes follow a prefix; `None` where there is none.
pub(super) fn length(prefix: &[u8; PREFIX]) -> Option<usize> {
    let (length, _) = prefix.strip_prefix(&MARK)?.split_first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

/// The head of a value and its records; `None` where it is not what was written.
pub(super) fn open(value: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let (prefix, sealed) = value.split_first_chunk::<PREFIX>()?;
    let checksum = u32::from_le_bytes(*prefix.last_chunk::<4>()?);
    if length(prefix)? != sealed.len() || crc32c::crc32c(sealed) != checksum {
        return None;
    }
    parse(sealed)
}

/// What a value says of itself that is not what was written, as far as that can be read.
pub(super) fn claimed(value: &[u8]) -> Option<Head<'_>> {
    parse(value.get(PREFIX..)?).map(|(head, _)| head)
}

fn parse(mut rest: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let commit = u64::from_le_bytes(*take::<8>(&mut rest)?);
    let offsets = i64::from_le_bytes(*take::<8>(&mut rest)?)..i64::from_le_bytes(*take::<8>(&mut rest)?);
    let partition = i32::from_le_bytes(*take::<4>(&mut rest)?);
    let name = usize::from(u16::from_le_bytes(*take::<2>(&mut rest)?));
    let (topic, records) = rest.split_at_checked(name)?;
    Some((Head { commit, topic: std::str::from_utf8(topic).ok()?, partition, offsets }, records))
}

/// Where the batch of a partition ends that begins at `first`, and its records. `None` when it is damaged.
pub(super) fn records<'a>(
    value: &'a [u8],
    topic: &str,
    partition: Partition,
    first: Offset,
) -> Option<(Offset, &'a [u8])> {
    if value.starts_with(&MARK) {
        let (head, records) = open(value)?;
        let is_its = head.topic == topic && head.partition == partition && head.offsets.start == first;
        return is_its.then_some((head.offsets.end, records));
    }
    // Before there were checksums: the last record is where it ends.
    let mut all = Chunk::new(partition, first);
    let begins = i64::from_le_bytes(*value.first_chunk::<8>()?) == first;
    (begins && decode_into(value, &mut all, usize::MAX)?).then_some((all.next, value))
}

/// Adds records from `chunk.next` on, up to `limit` in the chunk. `None` when they are damaged; else whether all of them
/// have been read.
pub(super) fn decode_into(mut bytes: &[u8], chunk: &mut Chunk, limit: usize) -> Option<bool> {
    while !bytes.is_empty() {
        if chunk.len() >= limit {
            return Some(false);
        }
        let offset = i64::from_le_bytes(*take::<8>(&mut bytes)?);
        let timestamp_ms = i64::from_le_bytes(*take::<8>(&mut bytes)?);
        let key = u32::from_le_bytes(*take::<4>(&mut bytes)?);
        let value = u32::from_le_bytes(*take::<4>(&mut bytes)?);
        if key != NONE {
            bytes = bytes.get(usize::try_from(key).ok()?..)?;
        }
        let length = if value == NONE { 0 } else { usize::try_from(value).ok()? };
        let (record, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        if offset >= chunk.next {
            chunk.push(offset, timestamp_ms, (value != NONE).then_some(record));
        }
    }
    Some(true)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(head)
}
