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

/// The response of an answer.
pub(super) async fn respond(answer: Answer, format: Format) -> Result<Response, Problem> {
    let Answer { mut rows, stamp } = answer;
    let schema = rows.schema();
    // Up to the first batch with rows an error is still an answer of its own.
    let mut first = None;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| Problem::from(engine::Error::Execution(error)))?;
        if batch.num_rows() > 0 {
            first = Some(batch);
            break;
        }
    }
    let stamp = serde_json::to_value(&stamp).unwrap_or_default();
    let header_value = HeaderValue::from_str(&stamp.to_string());
    let batches = stream::iter(first.map(Ok)).chain(rows);
    let writer = Writer { format, schema, stamp, begun: false, arrow: None };
    let mut response = Body::from_stream(body(writer, batches)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let (true, Ok(value)) = (format != Format::Json, header_value) {
        response.headers_mut().insert(STAMP, value);
    }
    Ok(response)
}

/// The body's parts: a head, a part a batch, and a foot only if all went well.
fn body(
    writer: Writer,
    batches: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, DataFusionError>> + Send + 'static {
    enum At<S> {
        Head(Writer, S),
        Rows(Writer, S),
        End,
    }
    let batches: SendableBatches = Box::pin(batches);
    stream::unfold(At::Head(writer, batches), |at| async move {
        match at {
            At::Head(mut writer, batches) => Some((writer.head(), At::Rows(writer, batches))),
            At::Rows(mut writer, mut batches) => match batches.next().await {
                Some(Ok(batch)) => match writer.rows(&batch) {
                    Ok(bytes) => Some((Ok(bytes), At::Rows(writer, batches))),
                    Err(error) => Some((Err(error), At::End)),
                },
                Some(Err(error)) => {
                    tracing::warn!("an answer broke off: {error}");
                    Some((Err(error), At::End))
                }
                None => Some((writer.foot(), At::End)),
            },
            At::End => None,
        }
    })
}

type SendableBatches = std::pin::Pin<Box<dyn Stream<Item = Result<RecordBatch, DataFusionError>> + Send>>;

struct Writer {
    format: Format,
    schema: SchemaRef,
    stamp: Value,
    begun: bool,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl Writer {
    fn head(&mut self) -> Result<Bytes, DataFusionError> {
        match self.format {
            Format::Json => Ok(format!("{{\"columns\":{},\"rows\":[", columns(&self.schema)).into()),
            Format::Ndjson => Ok(Bytes::new()),
            Format::Csv => {
                let mut text = Vec::new();
                output::write_csv(&RecordBatch::new_empty(self.schema.clone()), true, &mut text)?;
                Ok(text.into())
            }
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
                let bytes = std::mem::take(writer.get_mut());
                self.arrow = Some(writer);
                Ok(bytes.into())
            }
        }
    }

    fn rows(&mut self, batch: &RecordBatch) -> Result<Bytes, DataFusionError> {
        if batch.num_rows() == 0 {
            return Ok(Bytes::new());
        }
        let mut text = Vec::new();
        match self.format {
            Format::Json => {
                if std::mem::replace(&mut self.begun, true) {
                    text.push(b',');
                }
                output::write_rows(batch, &mut text, b",")?;
            }
            Format::Ndjson => {
                output::write_rows(batch, &mut text, b"\n")?;
                text.push(b'\n');
            }
            Format::Csv => output::write_csv(batch, false, &mut text)?,
            Format::Arrow => {
                if let Some(writer) = &mut self.arrow {
                    writer.write(batch)?;
                    text = std::mem::take(writer.get_mut());
                }
            }
        }
        Ok(text.into())
    }

    fn foot(&mut self) -> Result<Bytes, DataFusionError> {
        match self.format {
            Format::Json => Ok(format!("],\"stamp\":{}}}\n", self.stamp).into()),
            Format::Ndjson | Format::Csv => Ok(Bytes::new()),
            Format::Arrow => {
                let Some(mut writer) = self.arrow.take() else { return Ok(Bytes::new()) };
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
        }
    }
}

/// Columns by name and SQL type.
pub(super) fn columns(schema: &SchemaRef) -> Value {
    let columns =
        schema.fields().iter().map(|field| json!({"name": field.name(), "type": sql_type_name(field.data_type())}));
    Value::Array(columns.collect())
}
