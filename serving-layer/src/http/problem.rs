//! Errors, as RFC 9457 problem JSON: every one of them, the framework's own too.

use axum::{
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use common::{
    catalog::near::near,
    fault::{Domain, Fault, chain, visible},
    log, operate, speed, storage,
};
use datafusion::{arrow::error::ArrowError, error::DataFusionError};
use serde_json::{Map, Value, json};

use crate::engine;

mod kind;

pub(crate) use kind::{KINDS, Kind};

/// What went wrong, as the client is told.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    hint: Option<String>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem of a kind, with the hint of its kind.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: visible(&detail.into()).into_owned(), hint: None, members: Map::new() }
    }

    /// A request that cannot be understood.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// Something that there is not, with names like it.
    pub(crate) fn unknown(kind: &str, name: &str, near: Vec<String>) -> Self {
        let detail = format!("there is no {kind} `{name}`");
        let kind = match kind {
            "view" => Kind::UnknownView,
            "dataset" => Kind::UnknownDataset,
            "column" => Kind::UnknownColumn,
            "job" => Kind::UnknownJob,
            _ => Kind::UnknownTable,
        };
        let problem = Self::new(kind, detail);
        if near.is_empty() {
            return problem;
        }
        let names: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        problem.hint(format!("did you mean {}?", names.join(" or "))).member("near", near)
    }

    /// Something that is not among `known`.
    pub(crate) fn not_among<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a String>) -> Self {
        let near = near(name, known.into_iter().map(String::as_str));
        Self::unknown(kind, name, near.into_iter().map(str::to_owned).collect())
    }

    /// What to do about it, instead of what its kind says.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What it is about.
    pub(crate) fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The status that it is sent with.
    pub(crate) fn status(&self) -> StatusCode {
        self.kind.about().status
    }

    /// The body that it is sent with.
    pub(crate) fn body(&self) -> Value {
        let about = self.kind.about();
        let mut body = json!({
            "type": self.kind.uri(), "title": about.title, "status": about.status.as_u16(), "detail": self.detail,
            "hint": self.hint.as_deref().unwrap_or(about.hint),
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.members.clone());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        if self.kind == Kind::Internal {
            tracing::error!("a request failed: {}", self.detail);
        }
        // Where Lamina keeps what is for those who run it to know: what is a client's fault shows its own words.
        if matches!(self.kind, Kind::Internal | Kind::Unavailable | Kind::LogFailed | Kind::Exhausted | Kind::NotReady)
        {
            let shown = without_folders(&self.detail);
            if shown != self.detail {
                tracing::warn!("a request failed: {}", self.detail);
                self.detail = shown;
            }
        }
        let mut response = (self.status(), self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="lamina""#));
            }
            _ => {}
        }
        response
    }
}

/// A text in which files are named without the folders that they are in.
fn without_folders(text: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || "`'\"(),;<>".contains(letter);
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(begin) = rest.find('/') {
        let (before, path) = rest.split_at(begin);
        let end = path.find(ends).unwrap_or(path.len());
        let (path, after) = path.split_at(end);
        let is_absolute = before.is_empty() && shown.is_empty() || before.ends_with(ends) || before.ends_with("file:");
        let name = path.trim_end_matches([':', '.']).rsplit_once('/').filter(|(folders, _)| !folders.is_empty());
        shown.push_str(before.strip_suffix("file:").unwrap_or(before));
        match name.filter(|_| is_absolute) {
            Some((folders, _)) => {
                shown.push('…');
                shown.push_str(&path[folders.len()..]);
            }
            None => shown.push_str(path),
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

fn of_domain(domain: Domain, detail: String) -> Problem {
    let kind = match domain {
        Domain::User => Kind::BadRequest,
        Domain::External => Kind::Unavailable,
        Domain::Internal => Kind::Internal,
    };
    Problem::new(kind, detail)
}

impl From<engine::Error> for Problem {
    fn from(error: engine::Error) -> Self {
        let detail = chain(&error);
        match error {
            engine::Error::Unknown { kind, name, near } => Self::unknown(kind, &name, near),
            engine::Error::Refused { reason, hint, at } => {
                let problem = Self { hint, ..Self::new(Kind::BadQuery, reason) };
                match at {
                    Some((line, column)) => problem.member("line", line).member("column", column),
                    None => problem,
                }
            }
            engine::Error::Speed(speed::Error::NotReached { dataset, head, wanted }) => {
                let position = |frontier| json!({(&dataset): frontier});
                Self::new(Kind::NotReached, detail).member("head", position(head)).member("wanted", position(wanted))
            }
            engine::Error::Speed(speed::Error::CatchingUp { dataset, head, target }) => {
                let position = |frontier| json!({(&dataset): frontier});
                Self::new(Kind::NotReady, detail)
                    .hint("ask again: it answers once it has read all that the log had when it was started")
                    .member("head", position(head))
                    .member("target", position(target))
            }
            engine::Error::Speed(speed::Error::NoCommonCut { .. }) => Self::new(Kind::Unavailable, detail)
                .hint("ask for one of the views at a time, or again once a worker holds the partitions"),
            engine::Error::Execution(error) if is_exhausted(&error) => {
                Self::new(Kind::Exhausted, error.strip_backtrace())
            }
            engine::Error::Execution(error) => {
                if let Some(damage) = storage::damage(&error) {
                    let detail = format!("`{}` is damaged: {}", damage.path, damage.detail);
                    return Self::new(Kind::Unavailable, detail).hint(damage.remedy.clone());
                }
                let detail = error.strip_backtrace();
                match engine::Error::Execution(error).domain() {
                    Domain::User => Self::new(Kind::BadQuery, detail),
                    domain => of_domain(domain, detail),
                }
            }
            error => of_domain(error.domain(), detail),
        }
    }
}

/// Whether there is no room, in memory or on the disk: what is spilled is written by Arrow.
fn is_exhausted(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => true,
        DataFusionError::ArrowError(error, _) => matches!(error.as_ref(), ArrowError::IoError(..)),
        _ => false,
    }
}

impl From<operate::Error> for Problem {
    fn from(error: operate::Error) -> Self {
        let detail = chain(&error);
        match error {
            operate::Error::UnknownView { view } => Self::unknown("view", &view, Vec::new()),
            operate::Error::UnknownJob { id } => Self::unknown("job", &id, Vec::new()),
            operate::Error::Running { id, .. } => {
                Self::new(Kind::Running, detail).hint(format!("follow it at /v1/jobs/{id}")).member("job", id)
            }
            error @ operate::Error::Unavailable(_) => of_domain(error.domain(), detail),
        }
    }
}

impl From<log::Error> for Problem {
    /// What is wrong with a topic is the operator's to put right, not the client's.
    fn from(error: log::Error) -> Self {
        let domain = if error.domain() == Domain::Internal { Domain::Internal } else { Domain::External };
        of_domain(domain, chain(&error))
    }
}

/// For paths that lead nowhere.
pub(super) async fn no_route(uri: Uri) -> Problem {
    Problem::new(Kind::NoRoute, format!("nothing answers at `{}`", uri.path()))
}

/// For methods that a path does not have.
pub(super) async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::new(Kind::NoMethod, format!("`{}` does not take {method}", uri.path()))
}

/// For defects.
pub(super) fn panicked() -> Response {
    Problem::new(Kind::Internal, "the request met a defect").into_response()
}

#[cfg(test)]
mod tests {
    use common::{position::Frontier, storage};

    use super::*;

    #[test]
    fn files_are_named_without_their_folders() {
        let check = |text: &str, expected: &str| assert_eq!(without_folders(text), expected);
        check("could not read `/srv/lamina/store/master/a.parquet`: gone", "could not read `…/a.parquet`: gone");
        check("/srv/data/a.json: no such file", "…/a.json: no such file");
        check("at file:///srv/lamina/a, (/tmp/b)", "at …/a, (…/b)");
        check("Object at location /srv/x/y: denied", "Object at location …/y: denied");
        check("see /readyz, 1/2 of 3 and https://host/a/b", "see /readyz, 1/2 of 3 and https://host/a/b");
        check("master/sales is gone", "master/sales is gone");
    }

    #[test]
    fn errors_have_the_status_and_type_of_their_kind() {
        let frontier = || Frontier::from_iter([(0, 3)]);
        let dataset = || "sales".to_owned();
        let unknown =
            |kind| engine::Error::Unknown { kind, name: "dayly".to_owned(), near: vec!["daily_sales".to_owned()] };
        let execution = engine::Error::Execution;
        let external = |error: Box<dyn std::error::Error + Send + Sync>| execution(DataFusionError::External(error));
        let not_ready = || speed::Error::NotReady { dataset: dataset(), reason: "it began just now".to_owned() };
        let cases: Vec<(Problem, u16, &str, Value)> = vec![
            (unknown("view").into(), 404, "unknown-view", json!({"near": ["daily_sales"]})),
            (unknown("column").into(), 400, "unknown-column", json!({"near": ["daily_sales"]})),
            (unknown("view or dataset").into(), 404, "unknown-table", json!({})),
            (
                engine::Error::Refused { reason: "no".to_owned(), hint: None, at: Some((2, 7)) }.into(),
                400,
                "bad-query",
                json!({"line": 2, "column": 7, "hint": Kind::BadQuery.about().hint}),
            ),
            (
                engine::Error::from(speed::Error::NotReached {
                    dataset: dataset(),
                    head: frontier(),
                    wanted: frontier(),
                })
                .into(),
                503,
                "not-reached",
                json!({"head": {"sales": {"0": 3}}, "wanted": {"sales": {"0": 3}}}),
            ),
            (engine::Error::from(not_ready()).into(), 503, "unavailable", json!({})),
            (
                engine::Error::from(speed::Error::CatchingUp {
                    dataset: dataset(),
                    head: frontier(),
                    target: Frontier::from_iter([(0, 9)]),
                })
                .into(),
                503,
                "not-ready",
                json!({"head": {"sales": {"0": 3}}, "target": {"sales": {"0": 9}}}),
            ),
            (external(Box::new(not_ready())).into(), 503, "unavailable", json!({})),
            (
                external(Box::new(storage::Damage {
                    path: "master/sales/part-1.parquet".to_owned(),
                    detail: "it is empty".to_owned(),
                    remedy: "restore it".to_owned(),
                }))
                .into(),
                503,
                "unavailable",
                json!({"hint": "restore it", "detail": "`master/sales/part-1.parquet` is damaged: it is empty"}),
            ),
            (external("a defect".into()).into(), 500, "internal", json!({})),
            (execution(DataFusionError::Execution("overflow".to_owned())).into(), 400, "bad-query", json!({})),
            (execution(DataFusionError::NotImplemented("`f`".to_owned())).into(), 400, "bad-query", json!({})),
            (execution(DataFusionError::ResourcesExhausted(String::new())).into(), 503, "exhausted", json!({})),
            (
                execution(ArrowError::IoError("full".to_owned(), std::io::Error::other("full")).into()).into(),
                503,
                "exhausted",
                json!({}),
            ),
            (
                operate::Error::Running { view: dataset(), id: "j1".to_owned() }.into(),
                409,
                "running",
                json!({"job": "j1", "hint": "follow it at /v1/jobs/j1"}),
            ),
            (log::Error::UnknownTopic { topic: dataset() }.into(), 503, "unavailable", json!({})),
            (log::Error::Corrupt("a page".to_owned()).into(), 500, "internal", json!({})),
        ];
        for (problem, status, name, members) in cases {
            let body = problem.body();
            assert_eq!(body["status"], status, "{body}");
            assert_eq!(body["type"], format!("/problems/{name}"), "{body}");
            for (member, value) in members.as_object().unwrap() {
                assert_eq!(&body[member], value, "{body}");
            }
            assert!(["title", "detail", "hint"].iter().all(|member| body[member].is_string()), "{body}");
        }
    }

    /// A defect is never answered as the caller's fault, nor the caller's fault as a defect.
    #[test]
    fn the_status_follows_from_whose_failure_it_is() {
        fn check<E: Fault + Into<Problem>>(error: E, expected: Domain) {
            let (domain, said) = (error.domain(), chain(&error));
            let status = error.into().status().as_u16();
            assert_eq!(domain, expected, "{said}");
            let fits = match domain {
                Domain::User => (400..500).contains(&status),
                Domain::External => status == 503,
                Domain::Internal => status == 500,
            };
            assert!(fits, "{status}: {said}");
        }
        use ArrowError as A;
        use DataFusionError as E;
        let dataset = || "sales".to_owned();
        let external = |error: Box<dyn std::error::Error + Send + Sync>| E::External(error);
        let corrupt = || storage::Error::Corrupt { table: dataset(), detail: "two heads".to_owned() };
        let no_url = || storage::Error::Url { url: dataset(), reason: "no scheme".to_owned() };
        let arrow = |error: A| E::ArrowError(Box::new(error), None);
        let executions = [
            (E::Internal("a column is gone".to_owned()), Domain::Internal),
            (E::Execution("overflow".to_owned()), Domain::User),
            (E::NotImplemented("a cast of that kind".to_owned()), Domain::User),
            (E::ResourcesExhausted("memory".to_owned()), Domain::External),
            (external("a defect".into()), Domain::Internal),
            (external(Box::new(corrupt())), Domain::Internal),
            (external(Box::new(no_url())), Domain::External),
            (external(Box::new(log::Error::UnknownTopic { topic: dataset() })), Domain::External),
            (external(Box::new(speed::Error::Internal("a panic".into()))), Domain::Internal),
            (arrow(A::DivideByZero), Domain::User),
            (arrow(A::CastError("no number".to_owned())), Domain::User),
            (arrow(A::OffsetOverflowError(1 << 31)), Domain::User),
            (arrow(A::SchemaError("no such field".to_owned())), Domain::Internal),
            (arrow(A::IpcError("no such message".to_owned())), Domain::Internal),
            (arrow(A::InvalidArgumentError("column types must match schema types".to_owned())), Domain::Internal),
            (arrow(A::InvalidArgumentError("12 is too large for precision 1".to_owned())), Domain::User),
            (E::Context("in a projection".to_owned(), Box::new(E::Internal("gone".to_owned()))), Domain::Internal),
        ];
        for (error, domain) in executions {
            check(engine::Error::Execution(error), domain);
        }
        let storage =
            |source: storage::Error| engine::Error::Storage { action: "read".to_owned(), source: source.into() };
        check(engine::Error::Defect("the speed layer chose a cut that was not offered".to_owned()), Domain::Internal);
        check(storage(corrupt()), Domain::Internal);
        check(storage(no_url()), Domain::External);
        check(engine::Error::Speed(speed::Error::Internal("a panic".into())), Domain::Internal);
        check(engine::Error::Speed(speed::Error::Unreachable("gone".into())), Domain::External);
        check(engine::Error::Speed(speed::Error::NoCut { view: dataset() }), Domain::External);
        let unknown = engine::Error::Unknown { kind: "view", name: dataset(), near: Vec::new() };
        check(unknown, Domain::User);
        check(engine::Error::Refused { reason: "no".to_owned(), hint: None, at: None }, Domain::User);
        check(operate::Error::UnknownJob { id: dataset() }, Domain::User);
        check(operate::Error::Unavailable("gone".into()), Domain::External);
        check(log::Error::Corrupt("a page".to_owned()), Domain::Internal);
        assert_eq!(panicked().status().as_u16(), 500);
    }
}
