//! How records stand in a value: as many as were committed together, one after the other.

use crate::{
    log::{Chunk, NewRecord},
    position::Offset,
};

const NONE: u32 = u32::MAX;

/// Writes records into one value.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// Adds a record.
    pub(super) fn push(&mut self, offset: Offset, timestamp_ms: i64, record: &NewRecord) {
        self.bytes.extend_from_slice(&offset.to_le_bytes());
        self.bytes.extend_from_slice(&timestamp_ms.to_le_bytes());
        for part in [&record.key, &record.value] {
            let length = part.as_ref().map_or(NONE, |part| u32::try_from(part.len()).unwrap_or(NONE - 1));
            self.bytes.extend_from_slice(&length.to_le_bytes());
        }
        for part in [&record.key, &record.value].into_iter().flatten() {
            self.bytes.extend_from_slice(part);
        }
    }

    /// The value.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Adds the records of a value from `chunk.next` on, up to `limit` in the chunk. `None` when the value is damaged;
/// else whether all of it has been read.
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
