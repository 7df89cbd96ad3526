//! Answers to queries, streamed, in the format that the client asks for.
//!
//! The status line waits for the first rows, so that what fails early is a problem with a status of its own. What fails
//! later breaks the connection off: an answer never ends as if it were complete.
//!
//! A query stops when its client leaves, and at its limits. It runs on a thread of its own: then the connection notices
//! that the client has left while the query is at work, and the query its time while the client does not read.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use common::values::output::{self, Numbers};
use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Fields, SchemaRef},
        ipc::writer::StreamWriter,
    },
    error::DataFusionError,
    physical_plan::SendableRecordBatchStream,
};
use futures::{Stream, StreamExt, stream};
use tokio::{sync::mpsc, time::Instant};

use super::{
    dto,
    lanes::Lane,
    limits::{Stopped, Used, Work},
    negotiate::{Format, Written},
    problem::{Kind, Problem},
};
use crate::{
    engine::{self, Answer, Stop, StopOnDrop},
    stamp::Stamp,
};

/// The header that carries the stamp where the body has no room for it.
pub(super) const STAMP: &str = "lamina-stamp";

/// So long is waited for a second part of an answer before the first is sent.
const SHORT: Duration = Duration::from_millis(2);

/// The response of an answer.
pub(super) async fn respond(answer: Answer, written: impl Into<Written>, work: Work) -> Result<Response, Problem> {
    let Written { format, numbers } = written.into();
    let Answer { rows, stamp, stop } = answer;
    let (schema, mut used) = (rows.schema(), work.used());
    if let Some(name) = twice(schema.fields(), format) {
        return Err(two_members(&name));
    }
    let mut rows = Running::start(rows, work, &stop);
    let failed = |error: DataFusionError| Problem::from(engine::Error::Execution(error));
    // Up to the first batch with rows an error is still an answer of its own.
    let mut first = None;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(problem)?;
        if batch.num_rows() > 0 {
            first = Some(batch);
            break;
        }
    }
    let stamp = in_ascii(&stamp).map_err(|error| failed(DataFusionError::External(Box::new(error))))?;
    let mut writer = Writer { format, numbers, schema, stamp: stamp.clone(), begun: false, arrow: None };
    let mut begun = Vec::new();
    writer.head(&mut begun).map_err(failed)?;
    if let Some(batch) = &first {
        writer.rows(batch, &mut begun).map_err(failed)?;
    }
    used.bytes(begun.len())?;
    // A short answer is over by now, or soon: then it is sent whole, with its length.
    let next = match first {
        Some(_) => tokio::time::timeout(SHORT, rows.next()).await.ok(),
        None => Some(None),
    };
    let body = match next {
        Some(None) => {
            writer.foot(&mut begun).map_err(failed)?;
            Body::from(begun)
        }
        next => Body::from_stream(body(begun, writer, next.flatten(), rows, used)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if format != Format::Json {
        let stamp = HeaderValue::from_str(&stamp);
        headers.insert(STAMP, stamp.map_err(|error| failed(DataFusionError::External(Box::new(error))))?);
    }
    Ok(response)
}

/// A name that one JSON object would have twice: most that read it keep the last value and lose the others. In CSV and
/// Arrow columns go by their place; what a cell of CSV holds is JSON.
fn twice(fields: &Fields, format: Format) -> Option<String> {
    let is_object = matches!(format, Format::Json | Format::Ndjson);
    let mut seen = BTreeSet::new();
    let column = fields.iter().find(|field| is_object && !seen.insert(field.name()));
    let name = column.map(|field| field.name().clone());
    name.or_else(|| fields.iter().filter(|_| format != Format::Arrow).find_map(|field| twice_in(field.data_type())))
}

fn twice_in(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Struct(members) => twice(members, Format::Json),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element)
        | DataType::FixedSizeList(element, _)
        | DataType::Map(element, _) => twice_in(element.data_type()),
        _ => None,
    }
}

fn two_members(name: &str) -> Problem {
    let detail = format!("`{name}` is there twice, and a JSON object can hold one of them");
    Problem::new(Kind::BadQuery, detail).hint(format!(
        "name the columns: `SELECT a.{name} AS {name}_a, b.{name} AS {name}_b, …` instead of `SELECT *`, or ask for \
         `text/csv` or Arrow, whose columns go by their place"
    ))
}

/// A query that is at work, elsewhere. Dropped, it stops.
#[derive(Debug)]
struct Running {
    batches: mpsc::Receiver<Batch>,
    task: Lane<()>,
    until: Instant,
    time: Duration,
    _stop: StopOnDrop,
}

type Batch = Result<RecordBatch, DataFusionError>;

impl Running {
    fn start(mut rows: SendableRecordBatchStream, mut work: Work, stop: &Stop) -> Self {
        let (sender, batches) = mpsc::channel(1);
        let (until, time, lanes) = (work.until(), work.time(), work.lanes());
        let task = lanes.run(async move {
            let step = async {
                // First there is room for a batch, and then it is computed.
                while let Ok(room) = sender.reserve().await {
                    let Some(batch) = rows.next().await else { return };
                    let batch = batch.and_then(|batch| {
                        work.rows(batch.num_rows())?;
                        Ok(batch)
                    });
                    let failed = batch.is_err();
                    room.send(batch);
                    if failed {
                        return;
                    }
                }
            };
            let stopped = tokio::time::timeout_at(until, step).await.is_err();
            // What it held is free before anyone reads how it went.
            drop((rows, work));
            if stopped {
                let _ = sender.send(Err(Stopped::Time(time).into())).await;
            }
        });
        Self { batches, task, until, time, _stop: stop.on_drop() }
    }

    /// The next batch; `None` once there are no more.
    async fn next(&mut self) -> Option<Batch> {
        // The task tells when its time is over, unless it is amid something.
        let late = self.until + Duration::from_millis(100);
        match tokio::time::timeout_at(late, self.batches.recv()).await {
            Err(_) => Some(Err(Stopped::Time(self.time).into())),
            Ok(Some(batch)) => Some(batch),
            Ok(None) => match (&mut self.task).await {
                Err(died) => Some(Err(DataFusionError::External(Box::new(died)))),
                Ok(()) => None,
            },
        }
    }
}

/// Why there is no answer, before there is any.
fn problem(error: DataFusionError) -> Problem {
    match stopped(&error) {
        Some(stopped) => stopped.clone().into(),
        None => engine::Error::Execution(error).into(),
    }
}

fn stopped(error: &DataFusionError) -> Option<&Stopped> {
    match error.find_root() {
        DataFusionError::External(error) => error.downcast_ref(),
        _ => None,
    }
}

/// The stamp as JSON that a header can carry.
fn in_ascii(stamp: &Stamp) -> serde_json::Result<String> {
    let json = serde_json::to_string(stamp)?;
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for letter in json.chars() {
        match letter.is_ascii() {
            true => text.push(letter),
            // Letters like these stand within strings only, where they can be written by number.
            false => text.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    Ok(text)
}

/// The body's parts: what has begun, a part a batch, and a foot only if all went well.
fn body(
    begun: Vec<u8>,
    writer: Writer,
    next: Option<Batch>,
    rows: Running,
    used: Used,
) -> impl Stream<Item = Result<Bytes, DataFusionError>> + Send + 'static {
    let rest = stream::unfold(Some((writer, next, rows, used)), |state| async move {
        let (mut writer, next, mut rows, mut used) = state?;
        let next = match next {
            Some(batch) => Some(batch),
            None => rows.next().await,
        };
        let over = next.is_none();
        let mut text = Vec::new();
        let written = match next {
            Some(batch) => batch.and_then(|batch| writer.rows(&batch, &mut text)),
            None => writer.foot(&mut text),
        };
        match written.and_then(|()| Ok(used.bytes(text.len())?)) {
            Ok(()) => Some((Ok(text.into()), (!over).then_some((writer, None, rows, used)))),
            Err(error) => {
                tracing::warn!("an answer broke off: {error}");
                // A connection that ends keeps what it has not sent to itself: the parts before go out first.
                tokio::task::yield_now().await;
                Some((Err(error), None))
            }
        }
    });
    stream::iter([Ok(Bytes::from(begun))]).chain(rest)
}

/// Writes one answer in one format.
struct Writer {
    format: Format,
    numbers: Numbers,
    schema: SchemaRef,
    stamp: String,
    begun: bool,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl Writer {
    fn head(&mut self, out: &mut Vec<u8>) -> Result<(), DataFusionError> {
        match self.format {
            Format::Json => {
                out.extend_from_slice(b"{\"columns\":");
                serde_json::to_writer(&mut *out, &dto::columns(&self.schema))
                    .map_err(|error| DataFusionError::External(Box::new(error)))?;
                out.extend_from_slice(b",\"rows\":[");
            }
            Format::Ndjson => {}
            Format::Csv => output::write_csv(&RecordBatch::new_empty(self.schema.clone()), true, out)?,
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
                out.append(writer.get_mut());
                self.arrow = Some(writer);
            }
        }
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), DataFusionError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match self.format {
            Format::Json => {
                if std::mem::replace(&mut self.begun, true) {
                    out.push(b',');
                }
                output::write_rows_with(batch, out, b",", self.numbers)?;
            }
            Format::Ndjson => {
                output::write_rows_with(batch, out, b"\n", self.numbers)?;
                out.push(b'\n');
            }
            Format::Csv => output::write_csv(batch, false, out)?,
            Format::Arrow => {
                if let Some(writer) = &mut self.arrow {
                    writer.write(batch)?;
                    out.append(writer.get_mut());
                }
            }
        }
        Ok(())
    }

    fn foot(&mut self, out: &mut Vec<u8>) -> Result<(), DataFusionError> {
        match self.format {
            Format::Json => {
                out.extend_from_slice(b"],\"stamp\":");
                out.extend_from_slice(self.stamp.as_bytes());
                out.extend_from_slice(b"}\n");
            }
            Format::Ndjson | Format::Csv => {}
            Format::Arrow => {
                if let Some(mut writer) = self.arrow.take() {
                    writer.finish()?;
                    out.append(writer.get_mut());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use axum::body::to_bytes;
    use common::{access::Limits, position::Frontier};
    use datafusion::{
        arrow::{
            array::{ArrayRef, Int64Array},
            datatypes::Field,
            ipc::reader::StreamReader,
        },
        physical_plan::stream::RecordBatchStreamAdapter,
    };

    use super::*;

    /// A batch, or an error in its place.
    type Part<'a> = Option<&'a [i64]>;

    /// An answer of some batches.
    fn answer(batches: &[Part<'_>]) -> Answer {
        let batch = |values: &[i64]| {
            let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
            RecordBatch::try_from_iter([("größe", values)]).unwrap()
        };
        let schema = batch(&[]).schema();
        let failure = || DataFusionError::Execution("overflow".to_owned());
        let batches: Vec<_> = batches.iter().map(|values| values.map(batch).ok_or_else(failure)).collect();
        // Each batch comes late, as from a query that is at work.
        let batches = stream::iter(batches).then(|batch| async {
            tokio::task::yield_now().await;
            batch
        });
        let head = BTreeMap::from([("größe".to_owned(), Frontier::from_iter([(0, 7)]))]);
        let stamp = Stamp { head, ..Stamp::default() };
        Answer { rows: Box::pin(RecordBatchStreamAdapter::new(schema, batches)), stamp, stop: Stop::default() }
    }

    async fn text(batches: &[Part<'_>], format: Format) -> Vec<u8> {
        let response = respond(answer(batches), format, Work::for_tests(Limits::default())).await.unwrap();
        to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
    }

    #[tokio::test]
    async fn formats() {
        let stamp = r#"{"head":{"gr\u00f6\u00dfe":{"0":7}},"views":{},"freshness_ms":null}"#;
        let json = |rows: &str| {
            format!(
                "{{\"columns\":[{{\"name\":\"größe\",\"type\":\"BIGINT\"}}],\"rows\":[{rows}],\"stamp\":{stamp}}}\n"
            )
        };
        let cases: [(&[Part<'_>], Format, String); 7] = [
            (&[], Format::Json, json("")),
            (&[Some(&[]), Some(&[1]), Some(&[])], Format::Json, json(r#"{"größe":1}"#)),
            (&[Some(&[1]), Some(&[2, 3])], Format::Json, json(r#"{"größe":1},{"größe":2},{"größe":3}"#)),
            (&[], Format::Ndjson, String::new()),
            (&[Some(&[1]), Some(&[2])], Format::Ndjson, "{\"größe\":1}\n{\"größe\":2}\n".to_owned()),
            (&[], Format::Csv, "größe\r\n".to_owned()),
            (&[Some(&[1, 2]), Some(&[3])], Format::Csv, "größe\r\n1\r\n2\r\n3\r\n".to_owned()),
        ];
        for (batches, format, expected) in cases {
            assert_eq!(String::from_utf8(text(batches, format).await).unwrap(), expected);
        }
        let arrow = text(&[Some(&[1]), Some(&[2, 3])], Format::Arrow).await;
        let batches: Result<Vec<_>, _> = StreamReader::try_new(arrow.as_slice(), None).unwrap().collect();
        assert_eq!(batches.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    }

    #[test]
    fn a_name_is_there_once_in_an_object() {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let int = |name: &str| field(name, DataType::Int32);
        let object = |members: [Field; 2]| DataType::Struct(Fields::from(members.to_vec()));
        let list = |element: DataType| DataType::List(Arc::new(field("element", element)));
        // What is there twice in JSON and NDJSON, CSV, Arrow.
        let check = |fields: Vec<Field>, expected: [Option<&str>; 3]| {
            let fields = Fields::from(fields);
            for (format, expected) in [(0, Format::Json), (0, Format::Ndjson), (1, Format::Csv), (2, Format::Arrow)]
                .map(|(place, format)| (format, expected[place]))
            {
                assert_eq!(twice(&fields, format).as_deref(), expected, "{fields:?} {format:?}");
            }
        };
        check(vec![int("a"), int("A")], [None; 3]);
        check(vec![int("a"), int("b"), int("a")], [Some("a"), None, None]);
        let twice = object([int("m"), int("m")]);
        check(vec![field("a", twice.clone())], [Some("m"), Some("m"), None]);
        check(vec![field("a", list(list(twice)))], [Some("m"), Some("m"), None]);
        check(vec![int("m"), field("a", object([int("m"), int("n")]))], [None; 3]);
        let body = two_members("customer_id").body();
        assert_eq!((&body["status"], &body["type"]), (&400.into(), &"/problems/bad-query".into()));
        assert!(body["hint"].as_str().unwrap().contains("a.customer_id AS customer_id_a"));
    }

    #[tokio::test]
    async fn the_stamp_is_in_a_header_that_is_json() {
        let response = respond(answer(&[Some(&[1])]), Format::Csv, Work::for_tests(Limits::default())).await.unwrap();
        let stamp = response.headers()[STAMP].to_str().unwrap();
        assert_eq!(serde_json::from_str::<Stamp>(stamp).unwrap(), answer(&[]).stamp);
    }

    #[tokio::test]
    async fn a_failure_is_a_problem_before_the_first_row_and_breaks_the_answer_off_after_it() {
        for format in [Format::Json, Format::Ndjson, Format::Csv, Format::Arrow] {
            let work = || Work::for_tests(Limits::default());
            let early = respond(answer(&[Some(&[]), None]), format, work()).await.unwrap_err();
            assert_eq!((early.status().as_u16(), &early.body()["type"]), (400, &"/problems/bad-query".into()));
            let late = respond(answer(&[Some(&[1]), Some(&[2]), None]), format, work()).await.unwrap();
            assert!(late.status().is_success());
            to_bytes(late.into_body(), usize::MAX).await.unwrap_err();
        }
    }

    /// Over a connection the head must come, however soon the failure: without it a client could not tell an answer that
    /// broke off from a server that is gone.
    #[tokio::test]
    async fn an_answer_that_breaks_off_at_once_has_a_head() {
        let route = axum::routing::get(|| async {
            respond(answer(&[Some(&[1]), None]), Format::Csv, Work::for_tests(Limits::default())).await.unwrap()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move { axum::serve(listener, axum::Router::new().route("/", route)).await });
        for _ in 0..20 {
            let response = reqwest::get(&url).await.unwrap();
            assert!(response.status().is_success());
            response.bytes().await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn an_answer_over_its_limits_is_a_problem_or_breaks_off() {
        let limits = |rows, bytes| Limits { rows, bytes: bytesize::ByteSize::b(bytes), ..Limits::default() };
        let batches: &[Part<'_>] = &[Some(&[1, 2]), Some(&[3, 4])];
        for (limits, early) in [(limits(1, 9_999), true), (limits(3, 9_999), false), (limits(9, 9), true)] {
            let response = respond(answer(batches), Format::Csv, Work::for_tests(limits)).await;
            match early {
                true => assert_eq!(response.unwrap_err().status().as_u16(), 413),
                false => drop(to_bytes(response.unwrap().into_body(), usize::MAX).await.unwrap_err()),
            }
        }
        let response = respond(answer(batches), Format::Csv, Work::for_tests(limits(4, 9_999))).await.unwrap();
        to_bytes(response.into_body(), usize::MAX).await.unwrap();
    }

    /// Rows without end, and whether they are still wanted.
    fn endless() -> (Answer, std::sync::Weak<()>) {
        let wanted = Arc::new(());
        let watched = Arc::downgrade(&wanted);
        let one = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let schema = one.schema();
        let batches = stream::repeat_with(move || {
            let _ = &wanted;
            Ok(one.clone())
        });
        (
            Answer {
                rows: Box::pin(RecordBatchStreamAdapter::new(schema, batches)),
                stamp: Stamp::default(),
                stop: Stop::default(),
            },
            watched,
        )
    }

    async fn gone(wanted: &std::sync::Weak<()>) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while wanted.upgrade().is_some() {
            assert!(tokio::time::Instant::now() < deadline, "the query goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_query_stops_when_its_client_leaves_or_stops_to_read() {
        let (answer, wanted) = endless();
        let response = respond(answer, Format::Csv, Work::for_tests(Limits::default())).await.unwrap();
        let mut body = response.into_body().into_data_stream();
        for _ in 0..3 {
            body.next().await.unwrap().unwrap();
        }
        assert!(wanted.upgrade().is_some());
        drop(body);
        gone(&wanted).await;

        let (answer, wanted) = endless();
        let limits = Limits { time: Duration::from_millis(200), ..Limits::default() };
        let response = respond(answer, Format::Csv, Work::for_tests(limits)).await.unwrap();
        assert!(wanted.upgrade().is_some());
        gone(&wanted).await;
        to_bytes(response.into_body(), usize::MAX).await.unwrap_err();
    }
}
