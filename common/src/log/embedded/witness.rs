//! What the log held when it last told somebody that something is written, beside the log itself.
//!
//! A database that finds its newest commit damaged goes on from the one before and does not say so. Two small files, written
//! in turn and synced after each commit, do: one that is damaged leaves the other.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::position::{Offset, Partition};

/// Files grow by so much at a time: their size, which would have to be synced too, seldom changes.
const STEP: usize = 4096;

/// A topic: its number, and each partition's first readable and next offset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) id: u32,
    pub(super) bounds: BTreeMap<Partition, (Offset, Offset)>,
}

/// What is in the log after a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) commit: u64,
    pub(super) topics: BTreeMap<String, Known>,
}

/// The two files.
#[derive(Debug)]
pub(super) struct Witness {
    files: [File; 2],
}

fn paths(folder: &Path) -> [PathBuf; 2] {
    ["log.seen-0", "log.seen-1"].map(|name| folder.join(name))
}

impl Witness {
    /// What was seen last, if that is known.
    pub(super) fn read(folder: &Path) -> std::io::Result<Option<Seen>> {
        let mut newest: Option<Seen> = None;
        for path in paths(folder) {
            let mut text = Vec::new();
            match File::open(path) {
                Ok(mut file) => file.read_to_end(&mut text)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let Some(seen) = parse(&text)
                && newest.as_ref().is_none_or(|newest| newest.commit < seen.commit)
            {
                newest = Some(seen);
            }
        }
        Ok(newest)
    }

    /// Opens the files to write; they are made when they are missing.
    pub(super) fn open(folder: &Path) -> std::io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let [even, odd] = paths(folder);
        Ok(Self { files: [open(even)?, open(odd)?] })
    }

    /// Remembers what is in the log now.
    pub(super) fn write(&self, seen: &Seen) -> std::io::Result<()> {
        let text = serde_json::to_vec(seen)?;
        let mut padded = format!("{:08x}\n", crc32c::crc32c(&text)).into_bytes();
        padded.extend_from_slice(&text);
        padded.push(b'\n');
        padded.resize(padded.len().next_multiple_of(STEP), b' ');
        let mut file = &self.files[usize::from(seen.commit % 2 == 1)];
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&padded)?;
        file.sync_data()
    }
}

fn parse(text: &[u8]) -> Option<Seen> {
    let mut lines = text.split(|&byte| byte == b'\n');
    let (checksum, seen) = (lines.next()?, lines.next()?);
    let is_whole = checksum == format!("{:08x}", crc32c::crc32c(seen)).as_bytes();
    is_whole.then(|| serde_json::from_slice(seen).ok()).flatten()
}
