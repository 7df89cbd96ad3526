//! What handlers take from a request, where everything that is wrong with it is a problem.

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{FromRef, FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::{
    Context, Current,
    problem::{Kind, Problem},
};

/// So much of a body that is too large is read and thrown away, so that the client gets to read why.
const THROWN_AWAY: usize = 64 << 20;

/// A name in the path.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// The parameters after the `?`.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// A whole body, of any type.
#[derive(Debug)]
pub(super) struct Whole(pub(super) Bytes);

impl FromRequest<Current> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, current: &Current) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let detail = format!("the body is encoded as `{}`", String::from_utf8_lossy(encoding.as_bytes()));
            return Err(Problem::new(Kind::MediaType, detail).hint("send it as it is, without `content-encoding`"));
        }
        read(&parts.headers, body, Context::from_ref(current).body_bytes_max).await.map(Self)
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Current> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, current: &Current) -> Result<Self, Problem> {
        let content_type = content_type(request.headers());
        if content_type != "application/json" && !content_type.ends_with("+json") {
            let detail = match content_type.as_str() {
                "" => "the request does not say what its body is".to_owned(),
                other => format!("the body is said to be `{other}`"),
            };
            return Err(Problem::new(Kind::MediaType, detail));
        }
        let Whole(body) = Whole::from_request(request, current).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            Problem::bad_request(format!("the body cannot be used: {error}"))
                .member("line", error.line())
                .member("column", error.column())
        })
    }
}

/// The declared type of a body, without parameters, in lower case.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    declared.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut body = body.into_data_stream();
    if declared.is_some_and(|declared| declared > max) {
        // A client that asks before it sends has sent nothing yet, and need not.
        if !headers.contains_key(header::EXPECT) {
            throw_away(&mut body).await;
        }
        return Err(too_large(max));
    }
    let mut whole = Vec::new();
    let mut first: Option<Bytes> = None;
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        if first.as_ref().map_or(whole.len(), Bytes::len) + part.len() > max {
            throw_away(&mut body).await;
            return Err(too_large(max));
        }
        match first.take() {
            None if whole.is_empty() => first = Some(part),
            before => {
                whole.extend_from_slice(before.as_deref().unwrap_or_default());
                whole.extend_from_slice(&part);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.into()))
}

fn too_large(max: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("the body has more than the {max} bytes that are taken"))
        .member("bytes_max", max)
}

async fn throw_away(body: &mut BodyDataStream) {
    let mut thrown = 0;
    while let Some(Ok(part)) = body.next().await {
        thrown += part.len();
        if thrown > THROWN_AWAY {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn bodies_have_a_limit() {
        async fn check(parts: &[&'static str], declared: Option<usize>, expected: Result<&'static str, u16>) {
            let parts: Vec<Result<_, std::io::Error>> = parts.iter().map(|part| Ok(Bytes::from(*part))).collect();
            let mut headers = HeaderMap::new();
            if let Some(declared) = declared {
                headers.insert(header::CONTENT_LENGTH, declared.into());
            }
            let whole = read(&headers, Body::from_stream(stream::iter(parts)), 5).await;
            let whole = whole.map_err(|problem| problem.status().as_u16());
            assert_eq!(whole, expected.map(Bytes::from));
        }
        check(&[], None, Ok("")).await;
        check(&["abc"], None, Ok("abc")).await;
        check(&["a", "", "bc", "de"], Some(5), Ok("abcde")).await;
        check(&["", "a"], None, Ok("a")).await;
        check(&["abc", "def"], None, Err(413)).await;
        check(&["abcdef"], Some(6), Err(413)).await;
    }
}
