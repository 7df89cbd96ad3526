//! Which workers there are and what each holds, looked at again and again.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use arrow_flight::{Action, flight_service_client::FlightServiceClient};
use common::{
    position::Frontier,
    speed::{
        Error,
        wire::{self, Failure, FreezeId, StatusRequest, WorkerStatus},
    },
    supervisor::Supervisor,
};
use futures::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Request, Status, transport::Channel};

use super::{
    Connect,
    addresses::{self, Addresses},
};

/// How often workers are asked how they stand,
const ASK_EVERY: Duration = Duration::from_millis(200);
/// and how long they may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often addresses are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);
/// States of many groups are large.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A worker of the speed layer.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) address: addresses::Worker,
    channel: Channel,
    authorization: Option<String>,
    /// How it stood when it was last asked; `None` while it does not answer.
    seen: RwLock<Option<Arc<WorkerStatus>>>,
    /// What it has frozen and need not keep; it is told when it is asked the next time.
    released: Mutex<Vec<FreezeId>>,
}

impl Worker {
    pub(super) fn seen(&self) -> Option<Arc<WorkerStatus>> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, status: Option<WorkerStatus>) {
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = status.map(Arc::new);
    }

    /// Notes that what was frozen is not needed any more.
    pub(super) fn release(&self, freeze: FreezeId) {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).push(freeze);
    }

    /// What of `complete` lets the worker let go of a cut.
    fn news(&self, complete: &BTreeMap<String, Frontier>) -> BTreeMap<String, Frontier> {
        let Some(seen) = self.seen() else { return BTreeMap::new() };
        let all = seen.datasets.values().flat_map(|held| &held.cuts);
        let several = all.filter(|(_, cuts)| cuts.len() > 1);
        several.filter_map(|(definition, _)| Some((definition.clone(), complete.get(definition)?.clone()))).collect()
    }

    fn take_released(&self) -> Vec<FreezeId> {
        std::mem::take(&mut *self.released.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn client(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) fn request<T>(&self, message: T, within: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(within);
        if let Some(value) = self.authorization.as_ref().and_then(|text| text.parse().ok()) {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// Asks for one of the actions of [`wire`].
    pub(super) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        action: &str,
        question: &Q,
        within: Duration,
    ) -> Result<A, Error> {
        let internal = |error: serde_json::Error| Error::Internal(Box::new(error));
        let body = serde_json::to_vec(question).map_err(internal)?.into();
        let request = self.request(Action { r#type: action.to_owned(), body }, within);
        let asking = async {
            let mut answers = self.client().do_action(request).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::unavailable("there was no answer"))
        };
        let answer = match tokio::time::timeout(within, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => return Err(self.failed(status)),
            Err(elapsed) => return Err(self.lost(Box::new(elapsed))),
        };
        serde_json::from_slice(&answer.body).map_err(internal)
    }

    /// What a status says; one that is not the service's own means that the worker cannot be reached.
    pub(super) fn failed(&self, status: Status) -> Error {
        match serde_json::from_str::<Failure>(status.message()) {
            Ok(failure) => failure.into(),
            Err(_) => self.lost(Box::new(status)),
        }
    }

    fn lost(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        tracing::debug!(worker = self.address.authority, "speed layer: {source}");
        self.see(None);
        Error::Unreachable(source)
    }
}

/// All workers.
#[derive(Debug)]
pub(super) struct Workers {
    addresses: Addresses,
    connect: Connect,
    known: RwLock<BTreeMap<addresses::Worker, Arc<Worker>>>,
}

impl Workers {
    /// Follows the workers at `addresses` from now on.
    pub(super) async fn follow(addresses: Addresses, connect: Connect, supervisor: &Supervisor) -> Arc<Self> {
        let workers = Arc::new(Self { addresses, connect, known: RwLock::default() });
        workers.resolve().await;
        workers.ask_all().await;
        let (resolving, asking, cancelled) = (workers.clone(), workers.clone(), supervisor.cancelled());
        supervisor.spawn("serving layer's view of the speed layer", async move {
            let resolve = async {
                loop {
                    tokio::time::sleep(RESOLVE_EVERY).await;
                    resolving.resolve().await;
                }
            };
            let ask = async {
                loop {
                    tokio::time::sleep(ASK_EVERY).await;
                    asking.ask_all().await;
                }
            };
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = resolve => {}
                () = ask => {}
            }
            Ok::<(), Infallible>(())
        });
        workers
    }

    pub(super) fn all(&self) -> Vec<Arc<Worker>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    async fn resolve(&self) {
        let found: BTreeSet<addresses::Worker> = self.addresses.resolve(self.connect.tls.is_some()).await;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // A name server that is out for a moment does not take workers away that answer.
        known.retain(|address, worker| found.contains(address) || worker.seen().is_some());
        for address in found {
            let Entry::Vacant(place) = known.entry(address) else { continue };
            match self.connect.channel(place.key()) {
                Ok(channel) => {
                    let authorization = self.connect.secret.as_ref().map(common::access::Shared::authorization);
                    let address = place.key().clone();
                    let (seen, released) = (RwLock::default(), Mutex::default());
                    place.insert(Arc::new(Worker { address, channel, authorization, seen, released }));
                }
                Err(error) => tracing::warn!(worker = place.key().authority, "speed layer: {error}"),
            }
        }
    }

    async fn ask_all(&self) {
        let workers = self.all();
        let seen: Option<Vec<Arc<WorkerStatus>>> = workers.iter().map(|worker| worker.seen()).collect();
        // One that does not answer may be behind with its cuts.
        let complete = &seen.map(|seen| complete(&seen)).unwrap_or_default();
        join_all(workers.iter().map(|worker| async move {
            // One that does not answer lets go of what it keeps by age.
            let question = StatusRequest { released: worker.take_released(), complete: worker.news(complete) };
            match worker.ask::<_, WorkerStatus>(wire::STATUS, &question, ANSWER_WITHIN).await {
                Ok(status) => worker.see(Some(status)),
                Err(error) => {
                    if worker.seen().is_some() {
                        tracing::warn!(worker = worker.address.authority, "{}", common::fault::chain(&error));
                    }
                    worker.see(None);
                }
            }
        }))
        .await;
    }
}

/// By definition of a view, the newest cut that is possible on every worker that holds a part of it.
fn complete(workers: &[Arc<WorkerStatus>]) -> BTreeMap<String, Frontier> {
    let mut common: BTreeMap<&String, Vec<&Frontier>> = BTreeMap::new();
    for held in workers.iter().flat_map(|status| status.datasets.values()) {
        for definition in held.views.keys() {
            // A worker that does not say where it can be cut may not be so far.
            let cuts: Vec<&Frontier> = held.cuts.get(definition).into_iter().flatten().collect();
            match common.entry(definition) {
                Entry::Vacant(place) => drop(place.insert(cuts)),
                Entry::Occupied(mut known) => known.get_mut().retain(|cut| cuts.contains(cut)),
            }
        }
    }
    let newest =
        common.into_iter().filter_map(|(definition, cuts)| Some((definition.clone(), (*cuts.last()?).clone())));
    newest.collect()
}

#[cfg(test)]
mod tests {
    use common::speed::wire::Held;

    use super::*;

    #[test]
    fn a_cut_is_complete_once_every_owner_has_it() {
        let at = |offset| Frontier::from_iter([(0, offset), (1, offset)]);
        let worker = |cuts: Option<&[i64]>| {
            let view = "orders".to_owned();
            let views = BTreeMap::from([(view.clone(), at(100))]);
            let cuts = cuts.map(|cuts| (view, cuts.iter().copied().map(at).collect())).into_iter().collect();
            let held = Held { views, cuts, ..Held::default() };
            let datasets = BTreeMap::from([("sales".to_owned(), held)]);
            Arc::new(WorkerStatus { datasets, ..WorkerStatus::default() })
        };
        let check = |workers: &[Option<&[i64]>], expected: Option<i64>| {
            let workers: Vec<Arc<WorkerStatus>> = workers.iter().map(|cuts| worker(*cuts)).collect();
            assert_eq!(complete(&workers).get("orders"), expected.map(at).as_ref());
        };
        check(&[Some(&[10, 20]), Some(&[10, 20])], Some(20));
        check(&[Some(&[10, 20, 30]), Some(&[10, 20])], Some(20));
        check(&[Some(&[20]), Some(&[10])], None);
        check(&[Some(&[10, 20]), Some(&[])], None);
        check(&[Some(&[10, 20]), None], None);
        check(&[], None);
    }
}
