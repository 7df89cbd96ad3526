//! What is refused before any handler sees it, as problem JSON (RFC 9457), the same in every layer.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// What there is to say about a kind of refusal.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// The last part of its `type`.
    pub name: &'static str,
    /// What it is sent with.
    pub status: StatusCode,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// The request was sent to a name that is not this server's.
pub const FOREIGN_HOST: About = About {
    name: "foreign-host",
    status: StatusCode::MISDIRECTED_REQUEST,
    title: "this server does not go by that name",
    hint: "ask at `127.0.0.1` or `localhost`, name the host in the setting `hosts`, or set `tokens` (`secret` for a layer \
           that runs apart): then every name is answered",
};

/// Another site's page has sent the request.
pub const FOREIGN_SITE: About = About {
    name: "foreign-site",
    status: StatusCode::FORBIDDEN,
    title: "pages of other sites are not answered",
    hint: "ask from a program or from Lamina's own page; where a proxy changes `host`, name the page's host in the setting \
           `hosts`",
};

/// The body is of a type that every web page may send.
pub const MEDIA_TYPE: About = About {
    name: "media-type",
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    title: "the body has another type",
    hint: "send JSON with `content-type: application/json`",
};

/// The body came too slowly.
pub const SLOW_BODY: About = About {
    name: "slow-body",
    status: StatusCode::REQUEST_TIMEOUT,
    title: "the body did not come in time",
    hint: "send it without pauses, or less at once; nothing of it was taken",
};

/// There is no room for the body beside those of others.
pub const BODIES_FULL: About = About {
    name: "bodies-full",
    status: StatusCode::SERVICE_UNAVAILABLE,
    title: "the bodies of all requests take all the room that they have",
    hint: "nothing of it was taken: send it again in a moment, or raise the setting `serving.bodies`",
};

/// The layer is not there yet.
pub const STARTING: About = About {
    name: "not-ready",
    status: StatusCode::SERVICE_UNAVAILABLE,
    title: "not everything can be answered yet",
    hint: "ask again in a moment; the server's log says more",
};

/// One that is sent.
#[derive(Debug)]
pub struct Refusal {
    about: &'static About,
    detail: String,
    members: Map<String, Value>,
}

impl Refusal {
    /// A refusal of a kind.
    pub fn new(about: &'static About, detail: impl Into<String>) -> Self {
        Self { about, detail: detail.into(), members: Map::new() }
    }

    /// Which kind it is of.
    #[cfg(test)]
    pub(super) fn about_name(&self) -> &'static str {
        self.about.name
    }

    /// What it is about.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let About { name, status, title, hint } = self.about;
        let mut body = json!({
            "type": format!("/problems/{name}"), "title": title, "status": status.as_u16(), "detail": self.detail,
            "hint": hint,
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.members);
        }
        let mut response = (*status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if *status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
