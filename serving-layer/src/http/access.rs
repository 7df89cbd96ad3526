//! Who asks, and whether they may: every request passes here before its handler sees it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use common::{
    access::{Denied, Grant, Limits, Role, Scope, Tokens, bearer},
    clock::Clock,
    renewed::Renewed,
};

use super::{
    limits::{AtWork, Work},
    problem::{Kind, Problem},
};
use common::web::Peer;

/// Whom the outermost of so many proxies asks for: each adds at the end whom it has seen, and what is before that anyone
/// may have made up.
fn forwarded(headers: &HeaderMap, proxies: usize) -> Option<IpAddr> {
    let seen = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let seen: Vec<&str> = seen.flat_map(|value| value.split(',')).map(str::trim).collect();
    let address = seen.iter().rev().nth(proxies.checked_sub(1)?)?;
    let with_port = || address.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    address.trim_matches(['[', ']']).parse().ok().or_else(with_port)
}

/// What a route asks of those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: there is nothing in its answers to keep from anyone.
    Nothing,
    /// A role.
    Role(Role),
}

/// What each route asks for.
const NEEDS: [(&str, Need); 17] = [
    ("/", Need::Nothing),
    ("/healthz", Need::Nothing),
    ("/readyz", Need::Nothing),
    ("/v1/openapi.json", Need::Nothing),
    ("/v1/sql", Need::Role(Role::Query)),
    ("/v1/views", Need::Role(Role::Query)),
    ("/v1/views/{view}", Need::Role(Role::Query)),
    ("/v1/views/{view}/rows", Need::Role(Role::Query)),
    ("/v1/views/{view}/failed_events", Need::Role(Role::Query)),
    ("/v1/datasets", Need::Role(Role::Query)),
    ("/v1/datasets/{dataset}", Need::Role(Role::Query)),
    ("/v1/datasets/{dataset}/dead_letters", Need::Role(Role::Query)),
    ("/v1/datasets/{dataset}/events", Need::Role(Role::Ingest)),
    ("/v1/views/{view}/recompute", Need::Role(Role::Operate)),
    ("/v1/jobs", Need::Role(Role::Operate)),
    ("/v1/jobs/{id}", Need::Role(Role::Operate)),
    ("/metrics", Need::Role(Role::Operate)),
];

impl Need {
    /// Of a route. One that has been forgotten above is shut to all but `admin`.
    pub(super) fn of(route: &str) -> Self {
        NEEDS.iter().find(|(of, _)| *of == route).map_or(Self::Role(Role::Admin), |(_, need)| *need)
    }
}

/// Lets requests in, or not.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// `None` where everyone may do everything.
    pub(super) tokens: Option<Renewed<Tokens>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Arc<Limits>,
    pub(super) proxies: usize,
    pub(super) at_work: AtWork,
}

impl Gate {
    fn client(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Client, Problem> {
        let Some(tokens) = &self.tokens else {
            let name = forwarded(headers, self.proxies)
                .or(peer)
                .map_or_else(|| "somebody".to_owned(), |address| address.to_string());
            return Ok(self.client_of(name, Arc::new(Grant::everything())));
        };
        let authorization = headers.get(header::AUTHORIZATION);
        let Some(token) = authorization.and_then(|value| bearer(value.to_str().ok()?)) else {
            let detail = "the request does not say who asks";
            return Err(Problem::new(Kind::Unauthorized, detail));
        };
        match tokens.current().grant(token, self.clock.now_ms()) {
            Ok(grant) => Ok(self.client_of(grant.token.clone().unwrap_or_default(), grant.clone())),
            Err(Denied::Unknown) => Err(Problem::new(Kind::Unauthorized, "there is no such token")),
            Err(Denied::Expired) => Err(Problem::new(Kind::Unauthorized, "the token has expired")),
        }
    }

    fn client_of(&self, name: String, grant: Arc<Grant>) -> Client {
        Client { name: name.into(), grant, limits: self.limits.clone(), at_work: self.at_work.clone() }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    name: Arc<str>,
    grant: Arc<Grant>,
    limits: Arc<Limits>,
    at_work: AtWork,
}

impl Client {
    /// What there is for it.
    pub(super) fn scope(&self) -> &Scope {
        &self.grant.scope
    }

    /// Whether it has a role.
    pub(super) fn has(&self, role: Role) -> bool {
        self.grant.has(role)
    }

    /// What it may use.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Begins a query, if it has not too many at work; `wait` is time that it spends waiting for events.
    pub(super) fn begin(&self, wait: std::time::Duration) -> Result<Work, Problem> {
        self.at_work.begin(&self.name, &self.limits, wait)
    }
}

#[cfg(test)]
impl Client {
    /// Someone who may do everything.
    pub(super) fn for_tests() -> Self {
        let (limits, grant) = (Arc::new(Limits::default()), Arc::new(Grant::everything()));
        Self { name: "tests".into(), grant, limits, at_work: AtWork::new(super::lanes::Lanes::for_tests()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let client = parts.extensions.get::<Self>().cloned();
        client.ok_or_else(|| Problem::new(Kind::Unauthorized, "the request does not say who asks"))
    }
}

/// For routes that need nothing and say more to those who may know it.
#[derive(Debug)]
pub(super) struct Anyone(pub(super) Option<Client>);

impl<S: Send + Sync> FromRequestParts<S> for Anyone {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Client>().cloned()))
    }
}

/// Lets a request in if its client has the role that its route asks for.
pub(super) async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.ip());
    let client = gate.client(request.headers(), peer);
    // Where there is no route there is nothing to keep from anyone.
    let need = request.extensions().get::<MatchedPath>().map_or(Need::Nothing, |route| Need::of(route.as_str()));
    match (need, client) {
        (Need::Role(_), Err(problem)) => return problem.into_response(),
        (Need::Role(role), Ok(client)) if !client.has(role) => return forbidden(&client, role).into_response(),
        (_, Ok(client)) => {
            request.extensions_mut().insert(client);
        }
        (Need::Nothing, Err(_)) => {}
    }
    next.run(request).await
}

fn forbidden(client: &Client, role: Role) -> Problem {
    let has: Vec<String> = client.grant.roles.iter().map(|role| format!("`{role}`")).collect();
    let detail = format!("this needs the role `{role}`, and the token `{}` has {}", client.name, has.join(" and "));
    Problem::new(Kind::Forbidden, detail).member("role", role.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_say_whom_they_ask_for() {
        let check = |values: &[&str], proxies: usize, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            let expected = expected.map(|address| address.parse::<IpAddr>().unwrap());
            assert_eq!(forwarded(&headers, proxies), expected, "{values:?} {proxies}");
        };
        check(&["10.0.0.1"], 0, None);
        check(&["10.0.0.1"], 1, Some("10.0.0.1"));
        // What the client has made up is before what the proxy has seen.
        check(&["1.1.1.1, 10.0.0.1"], 1, Some("10.0.0.1"));
        check(&["1.1.1.1", "10.0.0.1, 10.0.0.2"], 2, Some("10.0.0.1"));
        check(&["[2001:db8::1]:443"], 1, Some("2001:db8::1"));
        check(&["10.0.0.1:5000"], 1, Some("10.0.0.1"));
        check(&["unknown"], 1, None);
        check(&["10.0.0.1"], 2, None);
        check(&[], 1, None);
    }

    #[test]
    fn a_route_that_was_forgotten_is_shut() {
        assert_eq!(Need::of("/v1/new"), Need::Role(Role::Admin));
    }
}
