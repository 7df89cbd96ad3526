//! The page at `/`: what there is, how it stands, and a box to ask.

use axum::response::Html;

/// `GET /`.
#[utoipa::path(
    get, path = "/", operation_id = "page", tag = "operation", summary = "A page to look at and to ask from",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}
