//! The API described: `GET /v1/openapi.json`, from the handlers and the types that they read and write.

use std::{collections::BTreeSet, sync::LazyLock};

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{
    access::Need,
    datasets, described, events, health, jobs, page,
    problem::{KINDS, Kind, Problem},
    query, views,
};

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Lamina",
        description = "Every answer equals the view's SQL over one exact prefix of the log, and says which prefix. \
                       Every error is a problem (RFC 9457)."
    ),
    paths(
        page::page,
        query::sql,
        query::sql_by_address,
        query::rows,
        views::list,
        views::one,
        views::failed_events,
        jobs::recompute,
        datasets::list,
        datasets::one,
        datasets::dead_letters,
        events::append,
        jobs::list,
        jobs::one,
        document,
        health::healthz,
        health::readyz,
        health::metrics,
    ),
    components(schemas(described::Problem))
)]
struct Described;

/// `GET /v1/openapi.json`.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "openapi", tag = "operation", summary = "This document",
    responses((status = 200, description = "The document", body = Object))
)]
pub(super) async fn document() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| describe().to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// What can go wrong where, beside what can go wrong everywhere.
const PROBLEMS: &[(&str, &[Kind])] = &[
    (
        "/v1/sql",
        &[
            Kind::UnknownTable,
            Kind::BadQuery,
            Kind::BadRequest,
            Kind::NotAcceptable,
            Kind::MediaType,
            Kind::TooLarge,
            Kind::SlowBody,
            Kind::BodiesFull,
            Kind::NotReached,
            Kind::Exhausted,
            Kind::TooMany,
            Kind::TooSlow,
            Kind::AnswerTooLarge,
            Kind::Unavailable,
        ],
    ),
    (
        "/v1/views/{view}/rows",
        &[
            Kind::UnknownView,
            Kind::UnknownColumn,
            Kind::BadQuery,
            Kind::BadRequest,
            Kind::NotAcceptable,
            Kind::NotReached,
            Kind::Exhausted,
            Kind::TooMany,
            Kind::TooSlow,
            Kind::AnswerTooLarge,
            Kind::Unavailable,
        ],
    ),
    ("/v1/views/{view}/recompute", &[Kind::UnknownView, Kind::Running, Kind::MediaType, Kind::Unavailable]),
    ("/v1/views/{view}", &[Kind::UnknownView, Kind::Unavailable]),
    (
        "/v1/views/{view}/failed_events",
        &[Kind::UnknownView, Kind::BadRequest, Kind::TooMany, Kind::TooSlow, Kind::Unavailable],
    ),
    ("/v1/datasets", &[Kind::Unavailable]),
    ("/v1/datasets/{dataset}", &[Kind::UnknownDataset, Kind::Unavailable]),
    (
        "/v1/datasets/{dataset}/dead_letters",
        &[Kind::UnknownDataset, Kind::BadRequest, Kind::TooMany, Kind::TooSlow, Kind::Unavailable],
    ),
    (
        "/v1/datasets/{dataset}/events",
        &[
            Kind::UnknownDataset,
            Kind::BadRequest,
            Kind::BadEvents,
            Kind::MediaType,
            Kind::TooLarge,
            Kind::SlowBody,
            Kind::BodiesFull,
            Kind::LogFailed,
            Kind::Unavailable,
        ],
    ),
    ("/v1/jobs", &[Kind::BadRequest, Kind::Unavailable]),
    ("/v1/jobs/{id}", &[Kind::UnknownJob, Kind::Unavailable]),
    ("/readyz", &[Kind::NotReady]),
];

fn describe() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    let Some(paths) = document["paths"].as_object_mut() else { return document };
    for (path, operations) in paths {
        let kinds = PROBLEMS.iter().find(|(of, _)| of == path).map_or(&[][..], |(_, kinds)| kinds);
        let (need, mut kinds) = (Need::of(path), kinds.to_vec());
        kinds.extend([Kind::ForeignHost, Kind::ForeignSite]);
        if need != Need::Nothing {
            kinds.extend([Kind::Unauthorized, Kind::Forbidden]);
        }
        for operation in operations.as_object_mut().into_iter().flat_map(|operations| operations.values_mut()) {
            let statuses: BTreeSet<u16> = kinds.iter().map(|kind| kind.about().status.as_u16()).collect();
            for status in statuses {
                let kinds = kinds.iter().filter(|kind| kind.about().status.as_u16() == status);
                operation["responses"][status.to_string()] = response(kinds);
            }
            operation["security"] = match need {
                Need::Nothing => json!([]),
                // The second says that a token is not asked for everywhere.
                Need::Role(role) => json!([{"token": [role.name()]}, {}]),
            };
            operation["responses"]["default"] = response([&Kind::Internal]);
        }
    }
    document["components"]["securitySchemes"] = json!({"token": {
        "type": "http", "scheme": "bearer",
        "description": "A token with the role that the operation names, or `admin`. Views and datasets outside its \
                        scope do not exist for it. A Lamina without tokens asks for none.",
    }});
    document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] =
        KINDS.iter().map(|about| about.kind.uri()).collect();
    document
}

/// The problems of some kinds with one status, each as an example.
fn response<'a>(kinds: impl IntoIterator<Item = &'a Kind>) -> Value {
    let (mut titles, mut examples) = (Vec::new(), serde_json::Map::new());
    for kind in kinds {
        let about = kind.about();
        titles.push(about.title);
        let detail = "what exactly, with the value that it is about";
        examples.insert(about.name.to_owned(), json!({"value": Problem::new(*kind, detail).body()}));
    }
    json!({
        "description": titles.join(", or "),
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples,
        }},
    })
}

#[cfg(test)]
mod tests {
    use common::position::Frontier;

    use super::*;
    use crate::stamp::{Stamp, ViewStamp};

    #[test]
    fn every_route_is_described() {
        let router = include_str!("../http.rs");
        let mut routes = BTreeSet::new();
        for route in router.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once("\", ").unwrap();
            // `get(…)`, or `get(…).post(…)`.
            let methods = rest.split_once('\n').unwrap().0.split('(');
            routes.extend(methods.filter_map(|text| text.rsplit('.').next()).filter_map(|method| {
                ["get", "post", "put", "delete"].iter().find(|known| **known == method).map(|method| (path, *method))
            }));
        }
        let document = describe();
        let described: BTreeSet<(&str, &str)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                operations.as_object().unwrap().keys().map(|method| (path.as_str(), method.as_str()))
            })
            .collect();
        assert!(routes.len() > 10);
        assert_eq!(routes, described);
        let known: BTreeSet<&str> = described.iter().map(|(path, _)| *path).collect();
        assert!(PROBLEMS.iter().all(|(path, _)| known.contains(path)));
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
                    }
                    members.values().for_each(|member| check(member, document));
                }
                Value::Array(elements) => elements.iter().for_each(|element| check(element, document)),
                _ => {}
            }
        }
        let document = describe();
        check(&document, &document);
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn the_stamp_is_as_described() {
        let view = ViewStamp {
            definition: String::new(),
            batch_version: None,
            cut: Frontier::default(),
            failed_events: 1,
            failed_groups: 1,
        };
        // Nothing empty: members that are only there when they say something are described too.
        let stamp = Stamp {
            head: [("d".to_owned(), Frontier::default())].into(),
            views: [("v".to_owned(), view.clone())].into(),
            freshness_ms: Some(0),
            stopped: [("d".to_owned(), String::new())].into(),
            missing: [("d".to_owned(), [0].into())].into(),
        };
        let document = describe();
        let check = |value: Value, schema: &str| {
            let described = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
            assert_eq!(described.keys().collect::<BTreeSet<_>>(), value.as_object().unwrap().keys().collect());
        };
        check(serde_json::to_value(stamp).unwrap(), "Stamp");
        check(serde_json::to_value(view).unwrap(), "ViewStamp");
    }
}
