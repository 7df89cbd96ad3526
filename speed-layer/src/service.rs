//! The speed layer as a service: Arrow Flight for the serving layer, `/healthz`, `/readyz` and `/metrics` for whoever
//! runs it, on one port. What is said is in [`common::speed::wire`].

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_server::{FlightService, FlightServiceServer},
};
use common::{
    access::Shared,
    fold::state_format,
    speed::{
        Error, KeyFilter, parts,
        wire::{self, Failure, FreezeAnswer, FreezeRequest, ReachAnswer, ReachRequest, StatusRequest, WorkerStatus},
    },
};
use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::DataType,
};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Request, Response, Status, Streaming};

use crate::SpeedLayer;

mod freezes;

use freezes::Freezes;

/// The longest that a worker is asked to wait for its head in one request.
const REACH_MAX: Duration = Duration::from_secs(60);

/// Gives out what a [`SpeedLayer`] holds.
#[derive(Debug)]
pub struct Service {
    layer: Arc<SpeedLayer>,
    secret: Option<Shared>,
    instance: String,
    leaving: AtomicBool,
    next: AtomicU64,
    frozen: Mutex<Freezes>,
}

impl Service {
    /// A service of `layer`, for whoever has the `secret`; for everyone without.
    pub fn new(layer: Arc<SpeedLayer>, secret: Option<Shared>) -> Arc<Self> {
        Arc::new(Self {
            layer,
            secret,
            instance: uuid::Uuid::now_v7().to_string(),
            leaving: AtomicBool::new(false),
            next: AtomicU64::new(0),
            frozen: Mutex::default(),
        })
    }

    /// Says from now on that another owner is to be preferred.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The gRPC routes.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        let server = FlightServiceServer::from_arc(Arc::new(Flight(self.clone())));
        tonic::service::Routes::new(server).prepare().into_axum_router()
    }

    fn status(&self, request: &StatusRequest) -> WorkerStatus {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner).release(&self.instance, &request.released);
        self.layer.holdings().values().for_each(|holding| holding.note_complete(&request.complete));
        let datasets = self.layer.holdings().into_iter().map(|(name, holding)| (name, holding.held()));
        WorkerStatus {
            instance: self.instance.clone(),
            datasets: datasets.collect(),
            leaving: self.leaving.load(Ordering::Relaxed),
        }
    }

    fn freeze(&self, request: &FreezeRequest) -> Result<FreezeAnswer, Failure> {
        if request.state_format != state_format() {
            return Err(Failure::Format { states: state_format() });
        }
        let holding = self.layer.holding(&request.dataset).map_err(|error| Failure::from(&error))?;
        let parts = holding.freeze(&request.partitions, &request.views).map_err(|error| Failure::from(&error))?;
        if parts.is_empty() {
            let partitions = request.partitions.iter().copied().collect();
            return Err(Failure::NoOwner { dataset: request.dataset.clone(), partitions });
        }
        let part = parts::merge(parts);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = FreezeAnswer {
            instance: self.instance.clone(),
            id,
            head: part.head,
            freshness_ms: part.freshness_ms,
            stopped: part.stopped,
            possible: part.views.iter().map(|view| view.possible.clone()).collect(),
            failed: part.views.iter().map(|view| view.failed.clone()).collect(),
        };
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner).keep(id, part.views);
        Ok(answer)
    }

    async fn read(&self, ticket: &wire::Ticket) -> Result<Vec<RecordBatch>, Failure> {
        if ticket.state_format != state_format() {
            return Err(Failure::Format { states: state_format() });
        }
        if ticket.instance != self.instance {
            return Err(Failure::Gone);
        }
        let states = {
            let frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
            frozen.states(ticket.id, ticket.view).ok_or(Failure::Gone)?
        };
        let internal = |reason: String| Failure::Internal { reason };
        let filter = match &ticket.filter {
            None => None,
            Some((key, values)) => {
                let values = wire::decode_values(values).map_err(|error| internal(error.to_string()))?;
                Some(KeyFilter { key: *key, values })
            }
        };
        let batches = states.read(ticket.cut, filter.as_ref()).await.map_err(|error: Error| Failure::from(&error))?;
        Ok(match filter {
            None => batches,
            Some(_) => batches.into_iter().map(compacted).collect(),
        })
    }

    async fn reach(&self, request: &ReachRequest) -> Result<ReachAnswer, Failure> {
        let holding = self.layer.holding(&request.dataset).map_err(|error| Failure::from(&error))?;
        let wait = Duration::from_millis(request.wait_ms).min(REACH_MAX);
        holding.reach(&request.position, wait).await.map_err(|error| Failure::from(&error))?;
        Ok(ReachAnswer { head: holding.status().head.unwrap_or_default() })
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let presented = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        match &self.secret {
            Some(secret) if !secret.admits(presented) => {
                Err(Status::unauthenticated("the layers' shared secret is missing or another one: set `secret` alike"))
            }
            _ => Ok(()),
        }
    }
}

/// A few rows of many would else carry all the texts of the batch that they came from.
fn compacted(batch: RecordBatch) -> RecordBatch {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()) as ArrayRef,
            _ => column.clone(),
        })
        .collect();
    RecordBatch::try_new(batch.schema(), columns).unwrap_or(batch)
}

fn failed(failure: &Failure) -> Status {
    let message = serde_json::to_string(failure).unwrap_or_default();
    match failure {
        Failure::Format { .. } | Failure::Failed { .. } => Status::failed_precondition(message),
        Failure::Internal { .. } => Status::internal(message),
        _ => Status::unavailable(message),
    }
}

fn asked<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(body)
        .map_err(|error| Status::invalid_argument(format!("the request is unreadable: {error}")))
}

fn answered<T: Serialize>(
    answer: &T,
) -> Result<Response<BoxStream<'static, Result<arrow_flight::Result, Status>>>, Status> {
    let body = serde_json::to_vec(answer).map_err(|error| Status::internal(error.to_string()))?.into();
    Ok(Response::new(stream::once(async { Ok(arrow_flight::Result { body }) }).boxed()))
}

/// The Flight protocol's side of the service.
struct Flight(Arc<Service>);

#[tonic::async_trait]
impl FlightService for Flight {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let service = &self.0;
        service.admit(&request)?;
        let Action { r#type, body } = request.into_inner();
        match r#type.as_str() {
            // A replica that is older than this worker says nothing.
            wire::STATUS => answered(&service.status(&asked(&body).unwrap_or_default())),
            wire::FREEZE => answered(&service.freeze(&asked(&body)?).map_err(|failure| failed(&failure))?),
            wire::REACH => answered(&service.reach(&asked(&body)?).await.map_err(|failure| failed(&failure))?),
            other => Err(Status::unimplemented(format!("there is no action `{other}`"))),
        }
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.0.admit(&request)?;
        let ticket: wire::Ticket = asked(&request.into_inner().ticket)?;
        let batches = self.0.read(&ticket).await.map_err(|failure| failed(&failure))?;
        let batches = stream::iter(batches.into_iter().map(Ok::<_, FlightError>));
        let data = FlightDataEncoderBuilder::new().build(batches).map_err(Status::from);
        Ok(Response::new(data.boxed()))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let action = |name: &str, description: &str| {
            Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
        };
        let actions = [
            action(wire::STATUS, "how the worker stands"),
            action(wire::FREEZE, "freezes partitions for one query"),
            action(wire::REACH, "waits until the head has come so far"),
        ];
        Ok(Response::new(stream::iter(actions).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(unknown("Handshake"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(unknown("ListFlights"))
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(unknown("GetFlightInfo"))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(unknown("PollFlightInfo"))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(unknown("GetSchema"))
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(unknown("DoPut"))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(unknown("DoExchange"))
    }
}

fn unknown(method: &str) -> Status {
    Status::unimplemented(format!("`{method}` is not answered: freeze with an action, then `DoGet`"))
}
