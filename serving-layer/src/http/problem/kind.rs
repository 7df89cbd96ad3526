//! The kinds of problems: all of them, with what they are called and what to do about each.

use axum::http::StatusCode;
use common::web::refusal;

/// A kind of problem. Its `type` is `/problems/` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unauthorized,
    Forbidden,
    UnknownView,
    UnknownDataset,
    UnknownTable,
    UnknownColumn,
    UnknownJob,
    BadRequest,
    BadQuery,
    BadEvents,
    Running,
    ForeignHost,
    ForeignSite,
    NoRoute,
    NoMethod,
    NotAcceptable,
    MediaType,
    TooLarge,
    SlowBody,
    BodiesFull,
    NotReached,
    NotReady,
    Exhausted,
    TooMany,
    TooSlow,
    AnswerTooLarge,
    LogFailed,
    Unavailable,
    Internal,
}

/// What there is to say about a kind.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) kind: Kind,
    /// The last part of its `type`.
    pub(crate) name: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
    /// What to do, unless more is known.
    pub(crate) hint: &'static str,
}

const fn about(kind: Kind, name: &'static str, status: StatusCode, title: &'static str, hint: &'static str) -> About {
    About { kind, name, status, title, hint }
}

/// A kind that requests are refused by before they come here.
const fn refusal(kind: Kind, of: &'static refusal::About) -> About {
    about(kind, of.name, of.status, of.title, of.hint)
}

/// Every kind, in the order of `Kind`.
pub(crate) const KINDS: [About; 29] = {
    use Kind as K;
    use StatusCode as S;
    [
        about(
            K::Unauthorized,
            "unauthorized",
            S::UNAUTHORIZED,
            "a token is needed",
            "send one as `authorization: Bearer …`; who runs Lamina makes them with `lamina token new`",
        ),
        about(
            K::Forbidden,
            "forbidden",
            S::FORBIDDEN,
            "the token does not allow this",
            "ask who runs Lamina for a token with this role",
        ),
        about(K::UnknownView, "unknown-view", S::NOT_FOUND, "there is no such view", "see /v1/views for what there is"),
        about(
            K::UnknownDataset,
            "unknown-dataset",
            S::NOT_FOUND,
            "there is no such dataset",
            "see /v1/datasets for what there is",
        ),
        about(
            K::UnknownTable,
            "unknown-table",
            S::NOT_FOUND,
            "there is no such view or dataset",
            "see /v1/views and /v1/datasets for what there is",
        ),
        about(
            K::UnknownColumn,
            "unknown-column",
            S::BAD_REQUEST,
            "there is no such column",
            "see /v1/views/{view} for its columns; `limit`, `min_position` and `wait` are no columns",
        ),
        about(K::UnknownJob, "unknown-job", S::NOT_FOUND, "there is no such job", "see /v1/jobs for the newest"),
        about(
            K::BadRequest,
            "bad-request",
            S::BAD_REQUEST,
            "the request cannot be understood",
            "see /v1/openapi.json for what can be asked",
        ),
        about(
            K::BadQuery,
            "bad-query",
            S::BAD_REQUEST,
            "the query cannot be run",
            "correct the query; the dialect is DataFusion's SQL",
        ),
        about(
            K::BadEvents,
            "bad-events",
            S::UNPROCESSABLE_ENTITY,
            "the events cannot be used",
            "nothing was written; correct the record and send all of them again",
        ),
        about(K::Running, "running", S::CONFLICT, "this is being done already", "follow the job that does it"),
        refusal(K::ForeignHost, &refusal::FOREIGN_HOST),
        refusal(K::ForeignSite, &refusal::FOREIGN_SITE),
        about(K::NoRoute, "no-route", S::NOT_FOUND, "there is nothing here", "see /v1/openapi.json for what there is"),
        about(
            K::NoMethod,
            "no-method",
            S::METHOD_NOT_ALLOWED,
            "this cannot be done here",
            "the header `Allow` says what can",
        ),
        about(
            K::NotAcceptable,
            "not-acceptable",
            S::NOT_ACCEPTABLE,
            "answers have no such format",
            "accept one of application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream",
        ),
        refusal(K::MediaType, &refusal::MEDIA_TYPE),
        about(
            K::TooLarge,
            "too-large",
            S::PAYLOAD_TOO_LARGE,
            "the body is too large",
            "send less at once, or raise the setting `serving.body`",
        ),
        refusal(K::SlowBody, &refusal::SLOW_BODY),
        refusal(K::BodiesFull, &refusal::BODIES_FULL),
        about(
            K::NotReached,
            "not-reached",
            S::SERVICE_UNAVAILABLE,
            "the position has not been reached in time",
            "ask again, or wait longer with `wait`; `head` says how far it has come",
        ),
        about(
            K::NotReady,
            "not-ready",
            S::SERVICE_UNAVAILABLE,
            "not everything can be answered yet",
            "it is ready once every view can be answered: wait, or see the server's log",
        ),
        about(
            K::Exhausted,
            "exhausted",
            S::SERVICE_UNAVAILABLE,
            "the query needs more memory, or room to spill, than there is",
            "filter or aggregate more, or raise the settings `serving.memory` and `spill.size`",
        ),
        about(
            K::TooMany,
            "too-many-queries",
            S::TOO_MANY_REQUESTS,
            "too many queries at once",
            "wait for one of them to end, or raise the setting `serving.limits.queries`",
        ),
        about(
            K::TooSlow,
            "too-slow",
            S::SERVICE_UNAVAILABLE,
            "the query took too long and was stopped",
            "filter or aggregate more, or raise the setting `serving.limits.time`",
        ),
        about(
            K::AnswerTooLarge,
            "answer-too-large",
            S::PAYLOAD_TOO_LARGE,
            "the answer is too large",
            "ask for less, such as with `LIMIT`, or raise the settings `serving.limits.rows` and `serving.limits.bytes`",
        ),
        about(
            K::LogFailed,
            "log-failed",
            S::SERVICE_UNAVAILABLE,
            "the log failed",
            "the records below `frontier` are written: sending all of them again would double those",
        ),
        about(
            K::Unavailable,
            "unavailable",
            S::SERVICE_UNAVAILABLE,
            "this cannot be answered at the moment",
            "try again; /readyz says what is missing",
        ),
        about(K::Internal, "internal", S::INTERNAL_SERVER_ERROR, "Lamina failed", "the server's log says more"),
    ]
};

impl Kind {
    pub(crate) const fn about(self) -> &'static About {
        &KINDS[self as usize]
    }

    /// The problem's `type`.
    pub(crate) fn uri(self) -> String {
        format!("/problems/{}", self.about().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_kinds_order() {
        for (i, about) in KINDS.iter().enumerate() {
            assert_eq!((about.kind as usize, about.kind.about().name), (i, about.name));
        }
    }
}
