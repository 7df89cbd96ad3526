//! The page at `/`: what there is, how it stands, and a box to ask.

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{Html, IntoResponse},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

/// What a browser lets the page do: its own script and style, and requests to where it came from.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| BASE64_STANDARD.encode(Sha256::digest(within(tag)));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
});

/// What the page has between a tag and its end.
fn within(tag: &str) -> &'static str {
    let begin = PAGE.split_once(&format!("<{tag}>")).map_or("", |(_, after)| after);
    begin.split_once(&format!("</{tag}>")).map_or("", |(text, _)| text)
}

/// `GET /`.
#[utoipa::path(
    get, path = "/", operation_id = "page", tag = "operation", summary = "A page to look at and to ask from",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
pub(super) async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY.as_str())], Html(PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_knows_all_that_the_page_does() {
        for tag in ["script", "style"] {
            assert!(!within(tag).is_empty());
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        let markup = PAGE.replace(within("script"), "");
        assert!(!markup.contains(" style=") && !markup.contains(" onclick=") && !markup.contains(" src="));
        assert_eq!(POLICY.matches("'sha256-").count(), 2);
    }
}
