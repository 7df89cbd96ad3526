//! Errors, as RFC 9457 problem JSON: every one of them, the framework's own too.

use axum::{
    extract::rejection::{BytesRejection, JsonRejection, QueryRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use common::{
    fault::{Domain, Fault, chain},
    operate,
};
use serde_json::{Map, Value, json};

use crate::engine;

/// What went wrong, as the client is told.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    hint: Option<String>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem of a kind: `kind` is the last part of its `type`.
    pub(crate) fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, title, detail: detail.into(), hint: None, members: Map::new() }
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What it is about.
    pub(crate) fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// A request that cannot be understood.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "the request cannot be understood", detail)
    }

    /// Something that there is not.
    pub(crate) fn unknown(kind: &str, name: &str, near: Vec<String>) -> Self {
        let problem = Self::new(
            StatusCode::NOT_FOUND,
            "unknown",
            "there is no such thing",
            format!("there is no {kind} `{name}`"),
        );
        if near.is_empty() {
            return problem.hint("see /v1/views and /v1/datasets for what there is");
        }
        let names: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        problem.hint(format!("did you mean {}?", names.join(" or "))).member("near", near)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("/problems/{}", self.kind), "title": self.title, "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.hint.map(|hint| ("hint".to_owned(), hint.into())));
            object.extend(self.members);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn of_domain(domain: Domain, detail: String) -> Problem {
    match domain {
        Domain::User => Problem::bad_request(detail),
        Domain::External => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "this cannot be answered at the moment",
            detail,
        )
        .hint("try again; /readyz says what is missing"),
        Domain::Internal => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Lamina failed", detail)
            .hint("the server's log says more"),
    }
}

impl From<engine::Error> for Problem {
    fn from(error: engine::Error) -> Self {
        let detail = chain(&error);
        match error {
            // A column that there is not is a flaw of the request to a view that there is.
            engine::Error::Unknown { kind: "column", name, near } => {
                let mut problem = Self::unknown("column", &name, near);
                problem.status = StatusCode::BAD_REQUEST;
                problem
            }
            engine::Error::Unknown { kind, name, near } => Self::unknown(kind, &name, near),
            engine::Error::Refused { reason, hint, at } => {
                let mut problem = Self::new(StatusCode::BAD_REQUEST, "query", "the query cannot be run", reason);
                problem.hint = hint;
                if let Some((line, column)) = at {
                    problem = problem.member("line", line).member("column", column);
                }
                problem
            }
            engine::Error::Speed(common::speed::Error::NotReached { head, wanted, .. }) => {
                let members = |value| serde_json::to_value(value).unwrap_or_default();
                of_domain(Domain::External, detail).member("head", members(&head)).member("wanted", members(&wanted))
            }
            engine::Error::Execution(error) => of_execution(&error),
            error => of_domain(error.domain(), detail),
        }
    }
}

/// An error while a query ran: of its values, of the limits, or ours.
fn of_execution(error: &datafusion::error::DataFusionError) -> Problem {
    use datafusion::error::DataFusionError as E;
    let detail = error.strip_backtrace();
    match error.find_root() {
        E::ResourcesExhausted(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "exhausted",
            "the query needs more memory than there is",
            detail,
        )
        .hint("filter or aggregate more, or raise `serving.memory`"),
        E::ArrowError(..) | E::Execution(_) | E::SchemaError(..) | E::Plan(_) | E::SQL(..) => {
            Problem::new(StatusCode::BAD_REQUEST, "query", "the query cannot be run", detail)
        }
        E::ObjectStore(_) | E::IoError(_) => of_domain(Domain::External, detail),
        _ => of_domain(Domain::Internal, detail),
    }
}

impl From<operate::Error> for Problem {
    fn from(error: operate::Error) -> Self {
        let detail = chain(&error);
        match error {
            operate::Error::UnknownView { view } => Self::unknown("view", &view, Vec::new()),
            operate::Error::UnknownJob { id } => {
                Self::unknown("job", &id, Vec::new()).hint("see /v1/jobs for the newest")
            }
            operate::Error::Running { id, .. } => {
                Self::new(StatusCode::CONFLICT, "running", "this is being done already", detail)
                    .hint(format!("follow it at /v1/jobs/{id}"))
                    .member("job", id)
            }
            error @ operate::Error::Unavailable(_) => of_domain(error.domain(), detail),
        }
    }
}

impl From<common::log::Error> for Problem {
    fn from(error: common::log::Error) -> Self {
        of_domain(if error.retryable() { Domain::External } else { error.domain() }, chain(&error))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        framework(rejection.status(), rejection.body_text())
            .hint(r#"send for example {"sql": "SELECT 1"} with content-type: application/json"#)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        framework(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        framework(rejection.status(), rejection.body_text())
    }
}

fn framework(status: StatusCode, detail: String) -> Problem {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(status, "too-large", "the body is too large", detail)
            .hint("send less at once, or raise `serving.body`"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(status, "media-type", "the body has another type", detail),
        _ => Problem::bad_request(detail),
    }
}

/// For paths that lead nowhere.
pub(super) async fn no_route(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-route",
        "there is nothing here",
        format!("nothing answers at `{}`", uri.path()),
    )
    .hint("see /v1/openapi.json for what does")
}

/// For methods that a path does not have.
pub(super) async fn no_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("`{}` does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", "this cannot be done here", detail)
        .hint("see /v1/openapi.json for what can")
}

/// For defects.
pub(super) fn panicked() -> Response {
    of_domain(Domain::Internal, "the request met a defect".to_owned()).into_response()
}
