//! Recovery: batches say themselves whose they are, so they are found in a file whose order is lost. A new file is made of
//! those that are whole; what cannot be found is told, and nothing is given up that nobody agreed to.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use redb::Database;

use super::{
    BATCHES, BOUNDS, COMMIT, COMMITS, TOPICS,
    batch::{self, Encoder, Head, MARK, PREFIX},
    witness::Seen,
};
use crate::{
    log::Error,
    position::{Offset, Partition},
};

/// A file of this name beside the log agrees to the loss of what cannot be found.
const AGREED: &str = "accept-loss";
const WINDOW: usize = 4 << 20;
/// So much is looked at of a batch whose length cannot be.
const HEAD_BYTES: u64 = 1024;
/// So many bytes at most are written in one commit, about.
const COMMIT_BYTES: usize = 64 << 20;

/// A batch in the file.
#[derive(Clone, Debug)]
struct Found {
    commit: u64,
    at: u64,
    length: usize,
    end: Offset,
}

/// By topic, partition and first offset.
type Batches = BTreeMap<(String, Partition, Offset), Found>;

/// Makes a new file of what is whole in `file`, as far as it was seen, and puts it in its place; the damaged one is kept
/// beside it.
pub(super) fn recover(folder: &Path, file: &Path, seen: &Seen, reason: &str) -> Result<(), Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
        action: format!("recover the embedded log `{}`, which is damaged: {reason}", file.display()),
        source,
    };
    let mut damaged = File::open(file).map_err(|error| failed(error.into()))?;
    let found = scan(&mut damaged).map_err(|error| failed(error.into()))?;
    let (kept, lost) = choose(&found, seen);
    let agreed = folder.join(AGREED);
    let told: Vec<String> = lost
        .iter()
        .map(|(topic, partition, offsets)| {
            format!("{} to {} of `{topic}` partition {partition}", offsets.start, offsets.end)
        })
        .collect();
    if !lost.is_empty() && !agreed.exists() {
        return Err(Error::Corrupt(format!(
            "the embedded log `{}` is damaged: {reason}; of what was acknowledged, offsets {} cannot be read any more; \
             restore its folder from a copy, or give them up: create the empty file `{}` and start again",
            file.display(),
            told.join(", "),
            agreed.display(),
        )));
    }
    let new = folder.join("log.redb.recovered");
    let mut writing = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if new.exists() {
            std::fs::remove_file(&new)?;
        }
        write(&new, &mut damaged, seen, &kept, &lost)?;
        let aside = (0..).map(|i| folder.join(format!("log.redb.damaged-{i}"))).find(|path| !path.exists());
        std::fs::rename(file, aside.unwrap_or_else(|| folder.join("log.redb.damaged")))?;
        std::fs::rename(&new, file)?;
        File::open(folder)?.sync_all()?;
        if agreed.exists() {
            std::fs::remove_file(&agreed)?;
        }
        Ok(())
    };
    let batches = kept.len();
    writing().map_err(failed)?;
    let lost = if told.is_empty() { "nothing".to_owned() } else { told.join(", ") };
    tracing::warn!(
        batches,
        lost,
        "the embedded log `{}` was damaged, {reason}: a new file has what is whole",
        file.display()
    );
    Ok(())
}

/// What is kept of each partition, in order, and what is lost.
type Chosen<'a> = (Vec<(u32, Partition, Offset, &'a Found)>, Vec<(String, Partition, Range<Offset>)>);

fn choose<'a>(found: &'a Batches, seen: &Seen) -> Chosen<'a> {
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for (topic, known) in &seen.topics {
        for (&partition, &(start, end)) in &known.bounds {
            let key = |offset: Offset| (topic.clone(), partition, offset);
            let mut at = start;
            loop {
                match found.get(&key(at)).filter(|batch| batch.end > at) {
                    Some(batch) => {
                        kept.push((known.id, partition, at, batch));
                        at = batch.end;
                    }
                    None if at >= end => break,
                    None => {
                        let next = found.range(key(at + 1)..key(end)).next().map_or(end, |((_, _, next), _)| *next);
                        lost.push((topic.clone(), partition, at..next));
                        at = next;
                    }
                }
            }
        }
    }
    (kept, lost)
}

fn write(
    path: &Path,
    damaged: &mut File,
    seen: &Seen,
    kept: &[(u32, Partition, Offset, &Found)],
    lost: &[(String, Partition, Range<Offset>)],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let database = Database::create(path)?;
    let mut ends: BTreeMap<(u32, Partition), Offset> = BTreeMap::new();
    let mut rest = kept;
    while !rest.is_empty() {
        let transaction = database.begin_write()?;
        {
            let mut batches = transaction.open_table(BATCHES)?;
            let mut bytes = 0;
            while let Some((&(id, partition, first, batch), after)) = rest.split_first()
                && bytes < COMMIT_BYTES
            {
                let mut value = vec![0; batch.length];
                damaged.seek(SeekFrom::Start(batch.at))?;
                damaged.read_exact(&mut value)?;
                batches.insert((id, partition, first), value.as_slice())?;
                ends.insert((id, partition), batch.end);
                (bytes, rest) = (bytes + batch.length, after);
            }
        }
        transaction.commit()?;
    }
    let transaction = database.begin_write()?;
    {
        let mut batches = transaction.open_table(BATCHES)?;
        for (topic, partition, offsets) in lost {
            let Some(id) = seen.topics.get(topic).map(|known| known.id) else { continue };
            let head = Head { commit: seen.commit, topic, partition: *partition, offsets: offsets.clone() };
            batches.insert((id, *partition, offsets.start), Encoder::default().finish(&head).as_slice())?;
        }
        let mut bounds = transaction.open_table(BOUNDS)?;
        let mut topics = transaction.open_table(TOPICS)?;
        for (name, known) in &seen.topics {
            for (&partition, &(start, end)) in &known.bounds {
                let found = ends.get(&(known.id, partition)).copied().unwrap_or(end);
                bounds.insert((known.id, partition), (start, found.max(end)))?;
            }
            topics.insert(name.as_str(), (known.id, i32::try_from(known.bounds.len())?))?;
        }
        // Whatever was under way when it was damaged had the next number.
        transaction.open_table(COMMITS)?.insert(COMMIT, seen.commit + 1)?;
    }
    transaction.commit()?;
    Ok(())
}

/// All batches in a file that are whole, wherever they stand; of two of one offset the one that was written last.
fn scan(file: &mut File) -> std::io::Result<Batches> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut found = Batches::new();
    // By what they say of themselves, those that are not whole: an older one of the same offset is none of what was told.
    let mut broken: BTreeMap<(String, Partition, Offset), u64> = BTreeMap::new();
    let (mut window, mut begins) = (Vec::new(), 0_u64);
    let mut at = 0_u64;
    while at + PREFIX as u64 <= size {
        let inside = usize::try_from(at.saturating_sub(begins)).unwrap_or(usize::MAX);
        if at < begins || inside + PREFIX > window.len() {
            begins = at;
            file.seek(SeekFrom::Start(at))?;
            window.clear();
            file.by_ref().take(WINDOW as u64).read_to_end(&mut window)?;
            continue;
        }
        let bytes = &window[inside..];
        let Some(place) = bytes.windows(MARK.len()).position(|bytes| bytes == MARK) else {
            at += (bytes.len() - (MARK.len() - 1)) as u64;
            continue;
        };
        at += place as u64;
        let Some(prefix) = bytes[place..].first_chunk::<PREFIX>() else { continue };
        let length = batch::length(prefix).map_or(u64::MAX, |length| (length + PREFIX) as u64);
        let mut value = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.by_ref().take(if length <= size - at { length } else { HEAD_BYTES }).read_to_end(&mut value)?;
        let key = |head: &Head<'_>| (head.topic.to_owned(), head.partition, head.offsets.start);
        let Some((head, _)) = batch::open(&value) else {
            if let Some(head) = batch::claimed(&value) {
                let commit = broken.entry(key(&head)).or_default();
                *commit = head.commit.max(*commit);
            }
            at += MARK.len() as u64;
            continue;
        };
        let batch = Found { commit: head.commit, at, length: value.len(), end: head.offsets.end };
        let key = key(&head);
        if found.get(&key).is_none_or(|known| known.commit <= batch.commit) {
            found.insert(key, batch);
        }
        at += length;
    }
    found.retain(|key, batch| broken.get(key).is_none_or(|&commit| commit <= batch.commit));
    Ok(found)
}
