//! What a request must be before a handler sees it, whatever it asks for: sent to this server's name, by no other site's
//! page, with a body that no page may send unasked. Browsers then never act for a stranger where no token is asked for.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::refusal::{About, FOREIGN_HOST, FOREIGN_SITE, MEDIA_TYPE, Refusal};

/// Which names of this server are answered. A stranger can make a name of theirs lead to this machine, and a page under
/// that name is to a browser the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Whom it answers beside loopback names.
    pub others: Others,
    /// Names that are its own, whatever else is answered.
    pub names: Vec<String>,
}

/// Which names are answered beside loopback ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// None.
    Nobody,
    /// Addresses, and names without a dot: no stranger has one of those.
    Unowned,
    /// All: who asks shows what no page has.
    Everybody,
}

impl Default for Hosts {
    fn default() -> Self {
        Self { others: Others::Nobody, names: Vec::new() }
    }
}

impl Hosts {
    /// Whether a host, with its port or without, is answered.
    pub fn answer(&self, host: &str) -> bool {
        if self.others == Others::Everybody {
            return true;
        }
        let Some(name) = name(host) else { return false };
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().ok();
        let is_loopback = match address {
            Some(address) => address.to_canonical().is_loopback(),
            None => name == "localhost" || name.ends_with(".localhost"),
        };
        is_loopback || self.others == Others::Unowned && (address.is_some() || !name.contains('.')) || self.names(&name)
    }

    fn names(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The name in `name:port`, as names are compared.
fn name(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    Some(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

/// Where the request was sent. Browsers always say it; HTTP/1.0 need not.
fn host(request: &Request) -> Option<&str> {
    let of_header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    request.uri().authority().map(Authority::as_str).or(of_header)
}

/// Lets a request on, or says why not.
pub(super) async fn check(State(hosts): State<std::sync::Arc<Hosts>>, request: Request, next: Next) -> Response {
    let mut response = match refused(&hosts, &request) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    for (name, value) in headers() {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// What keeps browsers from taking answers for something else. A page that is to be shown says so itself.
fn headers() -> [(HeaderName, HeaderValue); 5] {
    let of = HeaderValue::from_static;
    [
        (header::X_CONTENT_TYPE_OPTIONS, of("nosniff")),
        (header::X_FRAME_OPTIONS, of("DENY")),
        (header::REFERRER_POLICY, of("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), of("same-origin")),
        (header::CONTENT_SECURITY_POLICY, of("default-src 'none'; frame-ancestors 'none'")),
    ]
}

fn refused(hosts: &Hosts, request: &Request) -> Option<Refusal> {
    let host = host(request);
    if let Some(host) = host.filter(|host| !hosts.answer(host)) {
        return Some(of(&FOREIGN_HOST, format!("the request was sent to `{host}`")));
    }
    let headers = request.headers();
    if let Some(site) = other_site(hosts, host, request) {
        return Some(of(&FOREIGN_SITE, site));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    match content_type(headers) {
        Some(kind) if kind.contains("json") || kind.starts_with("application/grpc") => None,
        Some(kind) => Some(of(&MEDIA_TYPE, format!("the body is said to be `{kind}`"))),
        None if axum::body::HttpBody::is_end_stream(request.body()) => None,
        None => Some(of(&MEDIA_TYPE, "the request does not say what its body is".to_owned())),
    }
}

fn of(about: &'static About, detail: String) -> Refusal {
    tracing::debug!("a request is refused: {detail}");
    Refusal::new(about, detail)
}

/// Says which other site's page has sent a request. Following a link to the page at `/` is no request of that kind.
fn other_site(hosts: &Hosts, host: Option<&str>, request: &Request) -> Option<String> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_link = request.method() == Method::GET
        && request.uri().path() == "/"
        && header("sec-fetch-mode") == Some("navigate")
        && header("sec-fetch-dest") == Some("document");
    match (header("sec-fetch-site"), header("origin")) {
        (Some("same-origin" | "none"), _) | (None, None) => None,
        (Some(_), _) if is_link => None,
        (Some(site), None) => Some(format!("the request is `{site}`")),
        // Browsers leave the first header out where the connection is not secure.
        (site, Some(origin)) => {
            let of_page = origin.split_once("://").map_or(origin, |(_, authority)| authority);
            let is_own = site.is_none() && host.is_some_and(|host| host.eq_ignore_ascii_case(of_page));
            let is_named = name(of_page).is_some_and(|name| hosts.names(&name));
            (!is_own && !is_named).then(|| format!("the request comes from a page of `{origin}`"))
        }
    }
}

/// The declared type of a body, without parameters, in lower case.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let declared = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(declared.split(';').next().unwrap_or("").trim().to_ascii_lowercase()).filter(|kind| !kind.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn only_names_that_no_stranger_has_are_answered() {
        let hosts = |others| Hosts { others, names: vec!["lamina.example.com".to_owned()] };
        let check = |host: &str, nobody: bool, unowned: bool| {
            assert_eq!(hosts(Others::Nobody).answer(host), nobody, "{host}");
            assert_eq!(hosts(Others::Unowned).answer(host), unowned, "{host}");
            assert!(hosts(Others::Everybody).answer(host), "{host}");
        };
        for host in
            ["localhost", "LOCALHOST:8787", "localhost.:1", "a.localhost", "127.0.0.1:8787", "127.9.9.9", "[::1]:1"]
        {
            check(host, true, true);
        }
        check("lamina.example.com:443", true, true);
        for host in ["10.0.0.1:8787", "[2001:db8::1]:1", "0.0.0.0:1", "serving:8787"] {
            check(host, false, true);
        }
        for host in ["evil.example", "localhost.evil.example:8787", "127.0.0.1.nip.io", "notlocalhost.com", "", "a b"] {
            check(host, false, false);
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let hosts = Hosts { names: vec!["page.example".to_owned()], ..Hosts::default() };
        let check = |method: &str, path: &str, headers: &[(&str, &str)], body: &'static str, expected: Option<&str>| {
            let request = Request::builder().method(method).uri(path).header("host", "localhost:8787");
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let request = request.body(if body.is_empty() { Body::empty() } else { Body::from(body) }).unwrap();
            let refused = refused(&hosts, &request).map(|refusal| refusal.about_name());
            assert_eq!(refused, expected, "{method} {path} {headers:?}");
        };
        let json = ("content-type", "application/json; charset=utf-8");
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        check("GET", "/v1/sql", &[], "", None);
        check("GET", "/v1/sql", &[("sec-fetch-site", "same-origin")], "", None);
        check("GET", "/v1/sql", &[("sec-fetch-site", "none")], "", None);
        check("GET", "/", &link, "", None);
        check("GET", "/", &frame, "", Some("foreign-site"));
        check("GET", "/v1/sql", &link, "", Some("foreign-site"));
        check("GET", "/v1/sql", &[("sec-fetch-site", "same-site")], "", Some("foreign-site"));
        check("POST", "/v1/sql", &[json, ("origin", "http://localhost:8787")], "{}", None);
        check("POST", "/v1/sql", &[json, ("origin", "https://page.example")], "{}", None);
        check("POST", "/v1/sql", &[json, ("origin", "http://evil.example")], "{}", Some("foreign-site"));
        check("POST", "/v1/sql", &[json, ("origin", "http://localhost:3000")], "{}", Some("foreign-site"));
        check("POST", "/v1/views/a/recompute", &[("origin", "null")], "", Some("foreign-site"));
        check("POST", "/v1/views/a/recompute", &[], "", None);
        check("POST", "/v1/datasets/a/events", &[json], "{}", None);
        check("POST", "/v1/datasets/a/events", &[("content-type", "application/x-ndjson")], "{}", None);
        for kind in
            ["text/plain", "text/plain;application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
        {
            check("POST", "/v1/datasets/a/events", &[("content-type", kind)], "{}", Some("media-type"));
            check("POST", "/v1/views/a/recompute", &[("content-type", kind)], "", Some("media-type"));
        }
        check("POST", "/v1/datasets/a/events", &[], "{}", Some("media-type"));
    }
}
