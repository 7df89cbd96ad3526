//! Answers to queries, streamed, in the format that the client asks for.
//!
//! The status line waits for the first rows, so that what fails early is a problem with a status of its own. What fails
//! later breaks the connection off: an answer never ends as if it were complete.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::values::{output, sql_type_name};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef, ipc::writer::StreamWriter},
    error::DataFusionError,
    physical_plan::SendableRecordBatchStream,
};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::engine::{self, Answer};

/// The header that carries the stamp where the body has no room for it.
pub(super) const STAMP: &str = "lamina-stamp";

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

const FORMATS: [(&str, Format); 4] = [
    ("application/json", Format::Json),
    ("application/x-ndjson", Format::Ndjson),
    ("text/csv", Format::Csv),
    ("application/vnd.apache.arrow.stream", Format::Arrow),
];

impl Format {
    /// What the client accepts: the first of its types that there is.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accepted: Vec<&str> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        if accepted.is_empty() {
            return Ok(Self::Json);
        }
        let wanted =
            accepted.iter().flat_map(|value| value.split(',')).map(|part| part.split(';').next().unwrap_or("").trim());
        for wanted in wanted {
            if matches!(wanted, "*/*" | "application/*") {
                return Ok(Self::Json);
            }
            if let Some((_, format)) =
                FORMATS.iter().find(|(name, _)| *name == wanted || (wanted == "text/*" && *name == "text/csv"))
            {
                return Ok(*format);
            }
        }
        let known: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
        let detail = format!("answers are not written as `{}`", accepted.join(", "));
        Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "no such format", detail)
            .hint(format!("accept one of {}", known.join(", "))))
    }

    fn content_type(self) -> &'static str {
        FORMATS.iter().find(|(_, format)| *format == self).map_or("application/json", |(name, _)| name)
    }
}

/// Parts of a body are sent once they have about so many bytes; a smaller answer is sent whole.
const PART_BYTES: usize = 64 << 10;

/// The response of an answer.
pub(super) async fn respond(answer: Answer, format: Format) -> Result<Response, Problem> {
    let Answer { rows, stamp } = answer;
    let stamp = serde_json::to_value(&stamp).unwrap_or_default();
    let header_value = HeaderValue::from_str(&stamp.to_string());
    let mut body = Parts { writer: Writer::new(format, rows.schema(), stamp), rows, text: Vec::new(), ended: false };
    // Up to the first part an error is still an answer of its own.
    let first = body.next().await.map_err(|error| Problem::from(engine::Error::Execution(error)))?;
    let body = match body.ended {
        true => Body::from(first),
        false => Body::from_stream(stream::iter([Ok(first)]).chain(body.rest())),
    };
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let (true, Ok(value)) = (format != Format::Json, header_value) {
        response.headers_mut().insert(STAMP, value);
    }
    Ok(response)
}

/// A body in parts: its foot is written only if all went well.
struct Parts {
    writer: Writer,
    rows: SendableRecordBatchStream,
    text: Vec<u8>,
    ended: bool,
}

impl Parts {
    /// The next part.
    async fn next(&mut self) -> Result<Bytes, DataFusionError> {
        while self.text.len() < PART_BYTES {
            match self.rows.next().await {
                Some(batch) => self.writer.rows(&batch?, &mut self.text)?,
                None => {
                    self.writer.foot(&mut self.text)?;
                    self.ended = true;
                    break;
                }
            }
        }
        Ok(std::mem::take(&mut self.text).into())
    }

    /// The parts that follow.
    fn rest(self) -> impl Stream<Item = Result<Bytes, DataFusionError>> + Send + 'static {
        stream::unfold(Some(self), |parts| async move {
            let mut parts = parts.filter(|parts| !parts.ended)?;
            match parts.next().await {
                Ok(part) => Some((Ok(part), Some(parts))),
                Err(error) => {
                    tracing::warn!("an answer broke off: {error}");
                    Some((Err(error), None))
                }
            }
        })
    }
}

struct Writer {
    format: Format,
    schema: SchemaRef,
    stamp: Value,
    /// Whether the head has been written.
    begun: bool,
    /// Whether there has been a row.
    any: bool,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl Writer {
    fn new(format: Format, schema: SchemaRef, stamp: Value) -> Self {
        Self { format, schema, stamp, begun: false, any: false, arrow: None }
    }

    fn head(&mut self, text: &mut Vec<u8>) -> Result<(), DataFusionError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        match self.format {
            Format::Json => {
                text.extend_from_slice(format!("{{\"columns\":{},\"rows\":[", columns(&self.schema)).as_bytes())
            }
            Format::Ndjson => {}
            Format::Csv => output::write_csv(&RecordBatch::new_empty(self.schema.clone()), true, text)?,
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
                text.append(writer.get_mut());
                self.arrow = Some(writer);
            }
        }
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, text: &mut Vec<u8>) -> Result<(), DataFusionError> {
        self.head(text)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match self.format {
            Format::Json => {
                if std::mem::replace(&mut self.any, true) {
                    text.push(b',');
                }
                output::write_rows(batch, text, b",")?;
            }
            Format::Ndjson => {
                output::write_rows(batch, text, b"\n")?;
                text.push(b'\n');
            }
            Format::Csv => output::write_csv(batch, false, text)?,
            Format::Arrow => {
                if let Some(writer) = &mut self.arrow {
                    writer.write(batch)?;
                    text.append(writer.get_mut());
                }
            }
        }
        Ok(())
    }

    fn foot(&mut self, text: &mut Vec<u8>) -> Result<(), DataFusionError> {
        self.head(text)?;
        match self.format {
            Format::Json => text.extend_from_slice(format!("],\"stamp\":{}}}\n", self.stamp).as_bytes()),
            Format::Ndjson | Format::Csv => {}
            Format::Arrow => {
                if let Some(mut writer) = self.arrow.take() {
                    writer.finish()?;
                    text.append(writer.get_mut());
                }
            }
        }
        Ok(())
    }
}

/// Columns by name and SQL type.
pub(super) fn columns(schema: &SchemaRef) -> Value {
    let columns =
        schema.fields().iter().map(|field| json!({"name": field.name(), "type": sql_type_name(field.data_type())}));
    Value::Array(columns.collect())
}
