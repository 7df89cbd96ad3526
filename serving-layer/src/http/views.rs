//! Views.

use axum::{
    Json,
    extract::{Path, State},
};
use common::jobs::rfc3339;
use serde_json::{Value, json};

use super::{Context, answer::columns, problem::Problem};
use crate::engine::ViewInfo;

/// `GET /v1/views`.
pub(super) async fn list(State(context): State<Context>) -> Result<Json<Value>, Problem> {
    let views = context.engine.views().await?;
    Ok(Json(json!({"views": views.iter().map(summary).collect::<Vec<_>>()})))
}

fn summary(view: &ViewInfo) -> Value {
    json!({
        "name": view.name, "dataset": view.dataset, "definition": view.definition,
        "batch_version": view.batch_version, "cut": view.cut, "head": view.head,
    })
}

/// `GET /v1/views/{view}`.
pub(super) async fn one(State(context): State<Context>, Path(view): Path<String>) -> Result<Json<Value>, Problem> {
    let (view, history) = context.engine.view(&view).await?;
    let mut answer = summary(&view);
    answer["columns"] = columns(&view.columns);
    answer["sql"] = json!(view.sql);
    answer["refresh"] =
        json!(view.refresh.map_or("never".to_owned(), |refresh| humantime::format_duration(refresh).to_string()));
    answer["history"] = history
        .iter()
        .map(|version| {
            json!({
                "batch_version": version.batch_version, "cut": version.cut,
                "published_at": rfc3339(version.published_at_ms), "rows": version.rows,
            })
        })
        .collect();
    Ok(Json(answer))
}
