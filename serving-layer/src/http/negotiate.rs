//! Which format an answer is written in: what the client accepts, in the order that it prefers.

use axum::http::{HeaderMap, header};
use common::values::output::Numbers;

use super::problem::{Kind, Problem};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

/// How an answer is written, and numbers in it where it is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) format: Format,
    pub(super) numbers: Numbers,
}

impl From<Format> for Written {
    fn from(format: Format) -> Self {
        Self { format, numbers: Numbers::default() }
    }
}

impl Written {
    /// What a request names, and without it what the client accepts.
    pub(super) fn asked(format: Option<&str>, numbers: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let numbers = match numbers {
            None | Some("digits") => Numbers::Digits,
            Some("text") => Numbers::Text,
            Some(other) => {
                return Err(Problem::bad_request(format!("there is no `numbers={other}`")).hint(
                    "write `text` for strings where a double would lose digits, or `digits` for numbers everywhere",
                ));
            }
        };
        Ok(Self { format: Format::asked(format, headers)?, numbers })
    }
}

/// Types and names. Where a client accepts several alike, the first one.
const FORMATS: [(&str, &str, Format); 4] = [
    ("application/json", "json", Format::Json),
    ("application/x-ndjson", "ndjson", Format::Ndjson),
    ("text/csv", "csv", Format::Csv),
    ("application/vnd.apache.arrow.stream", "arrow", Format::Arrow),
];

impl Format {
    /// What a request's parameter names; without it, what the client accepts. Programs that are given an address and
    /// nothing else cannot say what they accept.
    pub(super) fn asked(named: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(named) = named else { return Self::of(headers) };
        FORMATS.iter().find(|(_, name, _)| *name == named).map(|(_, _, format)| *format).ok_or_else(|| {
            Problem::bad_request(format!("there is no `format={named}`"))
                .hint("write `json`, `ndjson`, `csv` or `arrow`")
        })
    }

    /// What the client prefers of what there is (RFC 9110: the most specific range of a type counts).
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accepted: Vec<&str> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let ranges: Vec<Range> = accepted.iter().flat_map(|value| value.split(',')).filter_map(Range::parse).collect();
        if ranges.is_empty() {
            return Ok(Self::Json);
        }
        let mut best: Option<(u16, usize, Self)> = None;
        for (name, _, format) in FORMATS {
            let range = ranges.iter().enumerate().filter(|(_, range)| range.takes(name));
            // Of ranges that are as specific, the first one.
            let Some((at, range)) = range.min_by_key(|(_, range)| range.wide) else { continue };
            let better = best
                .is_none_or(|(quality, first, _)| range.quality > quality || range.quality == quality && at < first);
            if range.quality > 0 && better {
                best = Some((range.quality, at, format));
            }
        }
        best.map(|(_, _, format)| format).ok_or_else(|| {
            Problem::new(Kind::NotAcceptable, format!("answers are not written as `{}`", accepted.join(", ")))
        })
    }

    /// The `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        FORMATS.iter().find(|(.., format)| *format == self).map_or("application/json", |(name, ..)| name)
    }
}

/// One part of an `Accept` header.
#[derive(Debug)]
struct Range {
    name: String,
    /// In thousandths.
    quality: u16,
    /// 0 for a type, 1 for `application/*`, 2 for `*/*`.
    wide: u8,
}

impl Range {
    fn parse(part: &str) -> Option<Self> {
        let mut parts = part.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .and_then(|(_, quality)| quality.trim().parse::<f64>().ok())
            .unwrap_or(1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1000")]
        let quality = (quality.clamp(0.0, 1.0) * 1000.0).round() as u16;
        let wide = if name == "*/*" { 2 } else { u8::from(name.ends_with("/*")) };
        Some(Self { name, quality, wide })
    }

    fn takes(&self, content_type: &str) -> bool {
        match self.wide {
            0 => self.name == content_type,
            1 => content_type.starts_with(self.name.trim_end_matches('*')),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(accept: &[&'static str], expected: Option<Format>) {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, HeaderValue::from_static(value));
        }
        match (Format::of(&headers), expected) {
            (Ok(format), Some(expected)) => assert_eq!(format, expected, "{accept:?}"),
            (Err(problem), None) => assert_eq!(problem.body()["status"], 406),
            (format, expected) => panic!("{accept:?}: {format:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_named_format_goes_before_what_is_accepted() {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("image/png, */*;q=0.1"))]);
        assert_eq!(Format::asked(None, &headers).unwrap(), Format::Json);
        for (_, name, format) in FORMATS {
            assert_eq!(Format::asked(Some(name), &headers).unwrap(), format);
        }
        assert_eq!(Format::asked(Some("xml"), &headers).unwrap_err().status().as_u16(), 400);
        for (named, numbers) in
            [(None, Numbers::Digits), (Some("digits"), Numbers::Digits), (Some("text"), Numbers::Text)]
        {
            let written = Written::asked(Some("json"), named, &headers).unwrap();
            assert_eq!(written, Written { format: Format::Json, numbers });
        }
        assert_eq!(Written::asked(None, Some("strings"), &headers).unwrap_err().status().as_u16(), 400);
    }

    #[test]
    fn the_client_gets_what_it_prefers() {
        check(&[], Some(Format::Json));
        check(&[""], Some(Format::Json));
        check(&["*/*"], Some(Format::Json));
        check(&["text/csv"], Some(Format::Csv));
        check(&["Text/CSV; charset=utf-8"], Some(Format::Csv));
        check(&["text/*"], Some(Format::Csv));
        check(&["application/*"], Some(Format::Json));
        check(&["text/csv, application/json"], Some(Format::Csv));
        check(&["text/csv;q=0.5, application/json"], Some(Format::Json));
        check(&["text/csv;q=0.5", "application/x-ndjson;q=0.6"], Some(Format::Ndjson));
        check(&["*/*, application/vnd.apache.arrow.stream"], Some(Format::Json));
        check(&["*/*;q=0.1, application/vnd.apache.arrow.stream"], Some(Format::Arrow));
        check(&["application/json;q=0, */*"], Some(Format::Ndjson));
        check(&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Some(Format::Json));
        check(&["image/png"], None);
        check(&["text/csv;q=0"], None);
    }
}
