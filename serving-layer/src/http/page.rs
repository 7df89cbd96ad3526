//! The page at `/`: what there is, how it stands, and a box to ask.

use axum::response::Html;

/// `GET /`.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}
