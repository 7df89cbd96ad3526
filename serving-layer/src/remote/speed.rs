//! The speed layer as workers elsewhere: each partition is taken from one of those that hold it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use arrow_flight::{decode::FlightRecordBatchStream, error::FlightError};
use async_trait::async_trait;
use common::{
    fault::Fault,
    fold::state_format,
    position::{Frontier, Partition},
    speed::{
        CatchingUp, Error, Frozen, KeyFilter, Request, SpeedLayer, Status,
        parts::{Part, PartStates, PartView, combine},
        wire::{self, FreezeAnswer, FreezeId, FreezeRequest, Held, ReachAnswer, ReachRequest, WorkerStatus},
    },
    supervisor::Supervisor,
};
use datafusion::arrow::record_batch::RecordBatch;
use futures::{TryStreamExt, future::try_join_all};
use tokio::time::Instant;

use super::{
    Addresses, Connect,
    workers::{Worker, Workers},
};

/// How long a query waits for partitions to have an owner: longer than a worker takes to start again.
const PATIENCE: Duration = Duration::from_secs(15);
const TRY_EVERY: Duration = Duration::from_millis(20);
const FREEZE_WITHIN: Duration = Duration::from_secs(5);
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Workers of the speed layer, reached over Arrow Flight.
#[derive(Debug)]
pub struct RemoteSpeed {
    workers: Arc<Workers>,
    /// By dataset, how many partitions its topic has; of datasets that came later, once they have been asked for.
    partitions: RwLock<BTreeMap<String, Partition>>,
    memory: Mutex<Memory>,
}

/// What was answered last.
#[derive(Debug, Default)]
struct Memory {
    /// By dataset, the head: answers do not go back behind it.
    heads: BTreeMap<String, Frontier>,
    /// Whom a partition was taken from.
    owners: BTreeMap<(String, Partition), String>,
}

/// Which partitions to take from whom.
#[derive(Default)]
struct Plan {
    by_worker: Vec<(Arc<Worker>, BTreeSet<Partition>)>,
    missing: BTreeSet<Partition>,
}

impl RemoteSpeed {
    /// Follows the workers at `addresses`; `partitions` says how many partitions each dataset's topic has.
    pub async fn follow(
        addresses: Addresses,
        connect: Connect,
        partitions: BTreeMap<String, Partition>,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let workers = Workers::follow(addresses, connect, supervisor).await;
        Arc::new(Self { workers, partitions: RwLock::new(partitions), memory: Mutex::default() })
    }

    /// One owner for each partition: the one before while it is there, else the one that has come farthest.
    fn plan(&self, dataset: &str, wanted: &BTreeSet<Partition>, holds: impl Fn(&Held, Partition) -> bool) -> Plan {
        let workers: Vec<(Arc<Worker>, Arc<WorkerStatus>)> =
            self.workers.all().into_iter().filter_map(|worker| Some((worker.clone(), worker.seen()?))).collect();
        let mut plan = Plan::default();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        for &partition in wanted {
            let key = (dataset.to_owned(), partition);
            let before = memory.owners.get(&key);
            let best = workers
                .iter()
                .filter(|(_, status)| status.datasets.get(dataset).is_some_and(|held| holds(held, partition)))
                .max_by_key(|(worker, status)| {
                    let at = status.datasets.get(dataset).map_or(0, |held| held.head.get(partition));
                    (!status.leaving, before == Some(&worker.address.authority), at)
                });
            let Some((worker, _)) = best else {
                plan.missing.insert(partition);
                continue;
            };
            memory.owners.insert(key, worker.address.authority.clone());
            match plan.by_worker.iter_mut().find(|(other, _)| Arc::ptr_eq(other, worker)) {
                Some((_, partitions)) => {
                    partitions.insert(partition);
                }
                None => plan.by_worker.push((worker.clone(), [partition].into())),
            }
        }
        plan
    }

    fn counts<T>(&self, look: impl FnOnce(&BTreeMap<String, Partition>) -> T) -> T {
        look(&self.partitions.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn try_freeze(&self, request: &Request) -> Result<Frozen, Error> {
        let holds = |held: &Held, partition| {
            let has = |definition: &String| {
                held.views.get(definition).is_some_and(|head| head.partitions().any(|other| other == partition))
            };
            request.views.iter().all(|view| has(&view.definition))
        };
        let plan = self.plan(&request.dataset, &request.partitions, holds);
        if !plan.missing.is_empty() && !request.allow_partial {
            return Err(self.nobody_holds(&request.dataset, plan.missing));
        }
        let freezing = plan.by_worker.into_iter().map(|(worker, partitions)| freeze(worker, partitions, request));
        combine(request, &try_join_all(freezing).await?)
    }

    /// Why some partitions cannot be taken from anybody: a worker is on its way with them, or there is none.
    fn nobody_holds(&self, dataset: &str, missing: BTreeSet<Partition>) -> Error {
        match self.catching_up(dataset, &missing) {
            Some(catching_up) => catching_up.error(dataset),
            None => Error::NoOwner { dataset: dataset.to_owned(), partitions: missing.into_iter().collect() },
        }
    }

    /// How far workers have come that have not read yet, of all partitions in `missing`, what the log had when they were
    /// started. Of several workers with one partition the one that is ahead.
    fn catching_up(&self, dataset: &str, missing: &BTreeSet<Partition>) -> Option<CatchingUp> {
        let mut all = CatchingUp::default();
        for status in self.workers.all().iter().filter_map(|worker| worker.seen()) {
            let Some(one) = status.datasets.get(dataset).and_then(|held| held.status.catching_up.as_ref()) else {
                continue;
            };
            all.head.join(&one.head);
            all.target.join(&one.target);
        }
        let within = |at: &Frontier| at.iter().filter(|(partition, _)| missing.contains(partition)).collect();
        let all = CatchingUp { head: within(&all.head), target: within(&all.target) };
        missing.iter().all(|wanted| all.target.partitions().any(|partition| partition == *wanted)).then_some(all)
    }

    /// How far answers have come: one that is asked for from now on does not go back behind it.
    fn answered(&self, dataset: &str) -> Frontier {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.heads.get(dataset).cloned().unwrap_or_default()
    }

    fn remember(&self, dataset: &str, head: &Frontier) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.heads.entry(dataset.to_owned()).or_default().join(head);
    }
}

async fn freeze(worker: Arc<Worker>, partitions: BTreeSet<Partition>, request: &Request) -> Result<Part, Error> {
    let question = FreezeRequest {
        dataset: request.dataset.clone(),
        partitions,
        views: request.views.clone(),
        state_format: state_format(),
    };
    let answer: FreezeAnswer = worker.ask(wire::FREEZE, &question, FREEZE_WITHIN).await?;
    let FreezeAnswer { instance, id, head, freshness_ms, stopped, possible, mut failed } = answer;
    failed.resize(possible.len(), Vec::new());
    let kept = Arc::new(Kept { worker, freeze: FreezeId { instance, id } });
    let views = possible.into_iter().zip(failed).enumerate().map(|(view, (possible, failed))| PartView {
        possible,
        failed,
        states: Arc::new(RemoteStates { kept: kept.clone(), view }),
    });
    Ok(Part { head, freshness_ms, stopped, views: views.collect() })
}

/// What a worker keeps frozen for as long as somebody may read it.
#[derive(Debug)]
struct Kept {
    worker: Arc<Worker>,
    freeze: FreezeId,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.worker.release(self.freeze.clone());
    }
}

/// The states of one view that a worker has frozen.
#[derive(Debug)]
struct RemoteStates {
    kept: Arc<Kept>,
    view: usize,
}

#[async_trait]
impl PartStates for RemoteStates {
    async fn read(&self, cut_index: usize, filter: Option<&KeyFilter>) -> Result<Vec<RecordBatch>, Error> {
        let internal = |error: Box<dyn std::error::Error + Send + Sync>| Error::Internal(error);
        let filter = match filter {
            None => None,
            Some(filter) => {
                let values = wire::encode_values(&filter.values).map_err(|error| internal(error.into()))?;
                Some((filter.key, values))
            }
        };
        let (worker, FreezeId { instance, id }) = (&self.kept.worker, self.kept.freeze.clone());
        let view = self.view;
        let ticket = wire::Ticket { instance, id, view, cut: cut_index, state_format: state_format(), filter };
        let ticket = serde_json::to_vec(&ticket).map_err(|error| internal(error.into()))?;
        let request = worker.request(arrow_flight::Ticket { ticket: ticket.into() }, READ_WITHIN);
        let reading = async {
            let data = worker.client().do_get(request).await?.into_inner();
            FlightRecordBatchStream::new_from_flight_data(data.map_err(FlightError::from)).try_collect().await
        };
        reading.await.map_err(|error: FlightError| match error {
            FlightError::Tonic(status) => worker.failed(*status),
            error => Error::Unreachable(Box::new(error)),
        })
    }
}

#[async_trait]
impl SpeedLayer for RemoteSpeed {
    async fn freeze(&self, request: &Request) -> Result<Frozen, Error> {
        if self.counts(|counts| !counts.contains_key(&request.dataset)) {
            let count = request.partitions.last().map_or(0, |last| last + 1);
            let mut counts = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
            counts.insert(request.dataset.clone(), count);
        }
        let deadline = Instant::now() + PATIENCE;
        // Only answers from before this one was asked for: those that are asked at once have no order.
        let before = self.answered(&request.dataset);
        loop {
            let failure = match self.try_freeze(request).await {
                // A partial answer is behind on purpose, and says so.
                Ok(frozen) if !frozen.missing.is_empty() => return Ok(frozen),
                Ok(frozen) if frozen.head.covers(&before) => {
                    self.remember(&request.dataset, &frozen.head);
                    return Ok(frozen);
                }
                Ok(frozen) => {
                    let (dataset, head, wanted) = (request.dataset.clone(), frozen.head, before.clone());
                    Error::NotReached { dataset, head, wanted }
                }
                // Other versions may do.
                Err(error @ (Error::NoCut { .. } | Error::NoCommonCut { .. })) => return Err(error),
                Err(error) if error.retryable() => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    async fn reach(&self, dataset: &str, position: &Frontier, wait: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + wait;
        let wanted: BTreeSet<Partition> = position.iter().filter(|&(_, next)| next > 0).map(|(p, _)| p).collect();
        loop {
            let holds = |held: &Held, partition| held.head.partitions().any(|other| other == partition);
            let plan = self.plan(dataset, &wanted, holds);
            let left = deadline.saturating_duration_since(Instant::now());
            let asking = plan.by_worker.iter().map(|(worker, partitions)| async move {
                let position = position.iter().filter(|(partition, _)| partitions.contains(partition)).collect();
                let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                let question = ReachRequest { dataset: dataset.to_owned(), position, wait_ms };
                worker.ask::<_, ReachAnswer>(wire::REACH, &question, left + FREEZE_WITHIN).await
            });
            let failure = match try_join_all(asking).await {
                Ok(_) if plan.missing.is_empty() => return Ok(()),
                Ok(_) => Error::NoOwner { dataset: dataset.to_owned(), partitions: plan.missing.into_iter().collect() },
                Err(error) if error.retryable() => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn status(&self, dataset: &str) -> Status {
        let count = self.counts(|counts| counts.get(dataset).copied()).unwrap_or_default();
        let wanted: BTreeSet<Partition> = (0..count).collect();
        let mut head = Frontier::default();
        let (mut ages, mut stopped) = (Vec::new(), None);
        let mut left = wanted;
        for status in self.workers.all().iter().filter_map(|worker| worker.seen()) {
            let Some(held) = status.datasets.get(dataset) else { continue };
            stopped = stopped.or_else(|| held.status.stopped.clone());
            head.join(&held.head);
            left.retain(|&partition| held.head.partitions().all(|other| other != partition));
            ages.push(held.status.freshness_ms);
        }
        if left.is_empty() {
            let freshness_ms = ages.into_iter().collect::<Option<Vec<i64>>>().and_then(|ages| ages.into_iter().max());
            return Status { head: Some(head), freshness_ms, stopped, catching_up: None };
        }
        let catching_up = self.catching_up(dataset, &left);
        let nobody = self.nobody_holds(dataset, left);
        let stopped = Some(stopped.unwrap_or_else(|| nobody.to_string()));
        Status { head: None, freshness_ms: None, stopped, catching_up }
    }
}
