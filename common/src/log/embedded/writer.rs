//! The one thread that writes: it commits together whatever waits together.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use redb::{Database, ReadableTable};
use tokio::sync::{mpsc, oneshot};

use super::{
    BATCHES, BOUNDS, Shared,
    batch::{self, Encoder, Head},
    count,
};
use crate::{
    log::{Error, NewRecord},
    position::{Offset, Partition},
};

/// So many bytes at most go into one commit, about.
const COMMIT_BYTES: usize = 16 << 20;

/// How often it is tried whether a file that could not be written can be again, and looked for requests meanwhile.
const TRY_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Something to write.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) topic: String,
    pub(super) id: u32,
    pub(super) partition: Partition,
    pub(super) what: What,
    pub(super) reply: oneshot::Sender<Result<Vec<Offset>, Error>>,
}

/// What to write.
#[derive(Debug)]
pub(super) enum What {
    Append(Vec<NewRecord>),
    Skip(Offset),
    Trim(Offset),
}

impl Request {
    fn bytes(&self) -> usize {
        match &self.what {
            What::Append(records) => records
                .iter()
                .map(|record| {
                    24 + record.key.as_ref().map_or(0, |k| k.len()) + record.value.as_ref().map_or(0, |v| v.len())
                })
                .sum(),
            What::Skip(_) | What::Trim(_) => 16,
        }
    }
}

/// Serves requests until nobody can send any.
pub(super) fn run(shared: &Arc<Shared>, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.blocking_recv() {
        let mut bytes = first.bytes();
        let mut together = vec![first];
        while bytes < COMMIT_BYTES {
            let Ok(request) = requests.try_recv() else { break };
            bytes += request.bytes();
            together.push(request);
        }
        match commit(shared, &together) {
            Ok(offsets) => {
                shared.commits.send_modify(|commits| *commits += 1);
                for (request, offsets) in together.into_iter().zip(offsets) {
                    let _ = request.reply.send(Ok(offsets));
                }
            }
            Err(error) => {
                refuse(together, &error.to_string());
                if !recover(shared, &mut requests, error.to_string(), bytes) {
                    return;
                }
            }
        }
    }
}

fn refuse(requests: Vec<Request>, reason: &str) {
    for request in requests {
        let total = if let What::Append(records) = &request.what { records.len() } else { 0 };
        let failed = Error::Append {
            topic: request.topic,
            partition: request.partition,
            offsets: Vec::new(),
            written: 0,
            total,
            source: format!("{reason}; it goes on by itself once the file can be written").into(),
        };
        let _ = request.reply.send(Err(failed));
    }
}

/// Whether a commit that failed is on the disk shows only when the file is opened again; the database takes no more until
/// then, so nothing can come after what is in doubt. Tries until there is room for what failed, and refuses meanwhile what
/// comes. `false`: nobody can send any more.
fn recover(shared: &Shared, requests: &mut mpsc::Receiver<Request>, reason: String, bytes: usize) -> bool {
    tracing::warn!("the embedded log cannot be written: {reason}");
    let mut reason = reason;
    loop {
        shared.fails(Some(reason.clone()));
        match shared.reopen(bytes) {
            Ok(()) => break,
            Err(error) => reason = error.to_string(),
        }
        let until = Instant::now() + TRY_EVERY;
        while Instant::now() < until {
            match requests.try_recv() {
                Ok(request) => refuse(vec![request], &reason),
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(LOOK_EVERY),
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }
    shared.fails(None);
    shared.commits.send_modify(|commits| *commits += 1);
    tracing::info!("the embedded log can be written again");
    true
}

/// One transaction with all requests in it: either all are durable or none. Gives each one's offsets.
fn commit(shared: &Shared, requests: &[Request]) -> Result<Vec<Vec<Offset>>, redb::Error> {
    shared.with(|database| commit_to(shared, database, requests))
}

fn commit_to(shared: &Shared, database: &Database, requests: &[Request]) -> Result<Vec<Vec<Offset>>, redb::Error> {
    let now_ms = shared.clock.now_ms();
    let mut moved: BTreeMap<(&str, u32, Partition), (Offset, Offset)> = BTreeMap::new();
    // Where a batch begins, and its records.
    let mut values: BTreeMap<(&str, u32, Partition), (Offset, Encoder)> = BTreeMap::new();
    let mut answers = Vec::with_capacity(requests.len());
    let witness = shared.witness.lock().unwrap_or_else(PoisonError::into_inner);
    let transaction = database.begin_write()?;
    let commit = count(&transaction)?;
    {
        let mut bounds = transaction.open_table(BOUNDS)?;
        let mut batches = transaction.open_table(BATCHES)?;
        for request in requests {
            let place = (request.topic.as_str(), request.id, request.partition);
            let known = match moved.get(&place) {
                Some(&known) => known,
                None => bounds.get((place.1, place.2))?.map_or((0, 0), |bounds| bounds.value()),
            };
            let (mut start, mut end) = known;
            let mut offsets = Vec::new();
            match &request.what {
                What::Append(records) => {
                    let (_, encoder) = values.entry(place).or_insert_with(|| (end, Encoder::default()));
                    for record in records {
                        encoder.push(end, now_ms, record);
                        offsets.push(end);
                        end += 1;
                    }
                }
                What::Skip(by) => {
                    values.entry(place).or_insert_with(|| (end, Encoder::default()));
                    end += by;
                }
                What::Trim(below) => {
                    while let Some((first, next)) = whole_batch_below(&batches, place, start, *below)? {
                        batches.remove((place.1, place.2, first))?;
                        start = next;
                    }
                }
            }
            moved.insert(place, (start, end));
            answers.push(offsets);
        }
        for (place @ (topic, id, partition), (first, encoder)) in values {
            let end = moved.get(&place).map_or(first, |&(_, end)| end);
            let value = encoder.finish(&Head { commit, topic, partition, offsets: first..end });
            batches.insert((id, partition, first), value.as_slice())?;
        }
        for ((_, id, partition), now) in &moved {
            bounds.insert((*id, *partition), *now)?;
        }
    }
    transaction.commit()?;
    let mut topics = shared.topics.read().unwrap_or_else(PoisonError::into_inner).clone();
    for ((topic, _, partition), (start, end)) in moved {
        if let Some(topic) = topics.get_mut(topic) {
            topic.bounds.start.set(partition, start);
            topic.bounds.end.set(partition, end);
        }
    }
    shared.remember(&witness, commit, topics)?;
    Ok(answers)
}

/// The first batch at or after `start` whose records are all below `below`: its key, and where its records end.
fn whole_batch_below(
    batches: &impl ReadableTable<(u32, i32, i64), &'static [u8]>,
    (topic, id, partition): (&str, u32, Partition),
    start: Offset,
    below: Offset,
) -> Result<Option<(Offset, Offset)>, redb::Error> {
    let Some(entry) = batches.range((id, partition, start)..(id, partition, below.max(start)))?.next() else {
        return Ok(None);
    };
    let (key, value) = entry?;
    let first = key.value().2;
    // A batch that cannot be read is kept: it may be all that is left to repair the log from.
    let next = batch::records(value.value(), topic, partition, first).map(|(next, _)| next);
    Ok(next.filter(|&next| first < next && next <= below).map(|next| (first, next)))
}
