//! The API described: `GET /v1/openapi.json`.

use axum::Json;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::query::SqlRequest;

/// Schemas that are read off the types; the paths are described beside them.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Lamina",
        description = "Every answer equals the view's SQL over one exact prefix of the log, and says which prefix."
    ),
    components(schemas(SqlRequest))
)]
struct Described;

/// `GET /v1/openapi.json`.
pub(super) async fn document() -> Json<Value> {
    Json(describe())
}

/// Path, method, what it does, its parameters, its body, and the status of success.
type Operation =
    (&'static str, &'static str, &'static str, &'static [&'static str], Option<&'static str>, &'static str);

const OPERATIONS: &[Operation] = &[
    ("/", "get", "A page to look at", &[], None, "200"),
    ("/v1/sql", "post", "Run a read-only SQL query over views, or over datasets", &[], Some("SqlRequest"), "200"),
    ("/v1/views", "get", "All views", &[], None, "200"),
    ("/v1/views/{view}", "get", "One view, its columns and its published versions", &["view"], None, "200"),
    (
        "/v1/views/{view}/rows",
        "get",
        "Rows of a view; each other parameter is an equality on a column, repeated means IN",
        &["view", "limit", "min_position", "wait"],
        None,
        "200",
    ),
    ("/v1/views/{view}/recompute", "post", "Recompute a view from the master dataset", &["view"], None, "202"),
    ("/v1/datasets", "get", "All datasets", &[], None, "200"),
    ("/v1/datasets/{dataset}", "get", "One dataset", &["dataset"], None, "200"),
    ("/v1/datasets/{dataset}/dead_letters", "get", "Events that could not be used", &["dataset", "limit"], None, "200"),
    (
        "/v1/datasets/{dataset}/events",
        "post",
        "Append events: an object, an array, or one object a line; all are checked first",
        &["dataset"],
        Some("Events"),
        "200",
    ),
    ("/v1/jobs", "get", "The newest jobs", &["limit"], None, "200"),
    ("/v1/jobs/{id}", "get", "One job", &["id"], None, "200"),
    ("/v1/openapi.json", "get", "This document", &[], None, "200"),
    ("/healthz", "get", "Whether the process answers", &[], None, "200"),
    ("/readyz", "get", "Whether every view can be answered", &[], None, "200"),
    ("/metrics", "get", "Prometheus metrics", &[], None, "200"),
];

fn describe() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    document["components"]["schemas"]["Problem"] = json!({
        "type": "object", "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
            "detail": {"type": "string"}, "hint": {"type": "string"}, "near": {"type": "array", "items": {"type": "string"}},
            "line": {"type": "integer"}, "column": {"type": "integer"}, "record": {"type": "integer"},
        },
    });
    document["components"]["schemas"]["Events"] =
        json!({"oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]});
    let mut paths = serde_json::Map::new();
    for (path, method, summary, parameters, body, status) in OPERATIONS {
        let parameters: Vec<Value> = parameters.iter().map(|name| parameter(path, name)).collect();
        let mut operation = json!({
            "summary": summary, "parameters": parameters,
            "responses": {
                (*status): {"description": "as the documentation says", "content": content(path)},
                "default": {
                    "description": "what went wrong",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
            },
        });
        if let Some(schema) = body {
            operation["requestBody"] = json!({
                "required": true,
                "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}},
            });
        }
        paths.insert((*path).to_owned(), json!({(*method): operation}));
    }
    document["paths"] = Value::Object(paths);
    document
}

fn parameter(path: &str, name: &str) -> Value {
    let in_path = path.contains(&format!("{{{name}}}"));
    let kind = if name == "limit" { "integer" } else { "string" };
    json!({
        "name": name, "in": if in_path { "path" } else { "query" }, "required": in_path, "schema": {"type": kind},
    })
}

fn content(path: &str) -> Value {
    match path {
        "/" => json!({"text/html": {}}),
        "/metrics" => json!({"text/plain": {}}),
        "/v1/sql" | "/v1/views/{view}/rows" => json!({
            "application/json": {}, "application/x-ndjson": {}, "text/csv": {}, "application/vnd.apache.arrow.stream": {},
        }),
        _ => json!({"application/json": {}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let router = include_str!("../http.rs");
        let routes: Vec<&str> = router.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(routes.len() > 10);
        let described = describe();
        for route in &routes {
            assert!(described["paths"].get(route).is_some(), "`{route}` is not described");
        }
        assert_eq!(routes.len(), OPERATIONS.len());
    }
}
