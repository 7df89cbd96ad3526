//! Events in over HTTP: all are checked before any is written, and they are written as they were sent.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::{Json, body::Bytes, extract::State, http::HeaderMap};
use common::{
    catalog::Dataset,
    fault::chain,
    log::{self, Log, NewRecord},
    position::{Frontier, Offset, Partition},
};
use futures::future::join_all;
use serde_json::json;

use super::{
    Context,
    access::Client,
    described, dto,
    extract::{Name, Whole, content_type},
    problem::{Kind, Problem},
};

mod assign;
mod records;

/// Requests without a key take turns among the partitions.
static TURN: AtomicU32 = AtomicU32::new(0);

/// Bodies larger than this are checked apart from the threads that answer.
const LARGE_BYTES: usize = 64 << 10;

/// `POST /v1/datasets/{dataset}/events`.
#[utoipa::path(
    post, path = "/v1/datasets/{dataset}/events", operation_id = "append_events", tag = "datasets",
    summary = "Append events to the log",
    description = "A JSON object, an array of objects, or one object a line. All are checked before any is written; \
                   once the answer is there they are durable.",
    params(("dataset" = String, Path, example = "sales")),
    request_body(content(
        (described::Events = "application/json", example = json!([{"order_id": 1, "product_id": 7, "amount": 19.90}])),
        (String = "application/x-ndjson", example = "{\"order_id\": 1, \"product_id\": 7, \"amount\": 19.90}\n"),
    )),
    responses((status = 200, description = "All are written", body = dto::Accepted))
)]
pub(super) async fn append(
    State(context): State<Context>,
    client: Client,
    Name(name): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Json<dto::Accepted>, Problem> {
    let datasets = &context.catalog.datasets;
    let within = |name: &&String| client.scope().datasets.allow(name);
    let dataset = datasets.get(&name).filter(|dataset| within(&&dataset.name));
    let dataset = dataset.ok_or_else(|| Problem::not_among("dataset", &name, datasets.keys().filter(within)))?.clone();
    let partitions = context.log.ensure_topic(&dataset.topic, dataset.partitions).await?;
    let of_lines = content_type(&headers) == "application/x-ndjson";
    let large = body.len() > LARGE_BYTES;
    let topic_of = dataset.clone();
    let prepare = move || {
        let records = records::split(&body, of_lines)?;
        let by_partition = assign::assign(&dataset, &records, partitions, TURN.fetch_add(1, Ordering::Relaxed))?;
        Ok::<_, Problem>((records, by_partition))
    };
    let (records, by_partition) = match large {
        false => prepare()?,
        true => match tokio::task::spawn_blocking(prepare).await {
            Ok(prepared) => prepared?,
            Err(died) => std::panic::resume_unwind(died.into_panic()),
        },
    };
    let log = context.log.as_ref();
    refuse_too_large(log, &topic_of.topic, &records, &by_partition).await?;
    write(log, &topic_of, by_partition).await.map(Json)
}

/// Refuses what the log would refuse of one record, once others of the same request were written.
async fn refuse_too_large(
    log: &dyn Log,
    topic: &str,
    records: &[Bytes],
    by_partition: &BTreeMap<Partition, Vec<NewRecord>>,
) -> Result<(), Problem> {
    let bytes = |record: &NewRecord| [&record.key, &record.value].into_iter().flatten().map(Bytes::len).sum::<usize>();
    let all = || by_partition.values().flatten();
    let Some(limit) = log.refuses(topic, all().map(bytes).max().unwrap_or(0)).await? else { return Ok(()) };
    let place = |record: &NewRecord| {
        let value = record.value.as_ref()?.as_ptr();
        records.iter().position(|sent| sent.as_ptr() == value)
    };
    let too_large = all().filter(|record| bytes(record) > limit.bytes).map(|record| (place(record), bytes(record)));
    let Some((Some(record), bytes)) = too_large.min() else { return Ok(()) };
    let detail = format!("an event has {bytes} bytes, and the log takes at most {} of one", limit.bytes);
    Err(Problem::new(Kind::TooLarge, detail)
        .hint(format!("nothing was written; send less in one event, or raise {}", limit.setting))
        .member("record", record)
        .member("bytes_max", limit.bytes))
}

/// Writes to all partitions side by side: the log makes durable together what comes together.
async fn write(
    log: &dyn Log,
    dataset: &Dataset,
    by_partition: BTreeMap<Partition, Vec<NewRecord>>,
) -> Result<dto::Accepted, Problem> {
    let appends = by_partition
        .into_iter()
        .map(async |(partition, records)| (partition, log.append(&dataset.topic, partition, records).await));
    let (mut accepted, mut frontier, mut failure) = (0, Frontier::default(), None);
    for (partition, appended) in join_all(appends).await {
        let offsets = match appended {
            Ok(offsets) => offsets,
            Err(error) => {
                let offsets = written(&error).to_vec();
                failure.get_or_insert(error);
                offsets
            }
        };
        accepted += offsets.len();
        if let Some(last) = offsets.iter().max() {
            frontier.advance(partition, last + 1);
        }
    }
    let Some(failure) = failure else {
        return Ok(dto::Accepted { accepted, frontier: BTreeMap::from([(dataset.name.clone(), frontier)]) });
    };
    let problem = Problem::new(Kind::LogFailed, chain(&failure));
    let problem = match accepted {
        0 => problem.hint("none of the records is known to be written; send them again"),
        _ => problem,
    };
    Err(problem.member("accepted", accepted).member("frontier", json!({(&dataset.name): frontier})))
}

/// What was written all the same.
fn written(error: &log::Error) -> &[Offset] {
    match error {
        log::Error::Append { offsets, .. } => offsets,
        _ => &[],
    }
}

/// A part of a body, without a copy of it.
fn part(body: &Bytes, text: &[u8]) -> Bytes {
    if text.is_empty() { Bytes::new() } else { body.slice_ref(text) }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use async_trait::async_trait;
    use common::{
        catalog::Catalog,
        log::{Bounds, Reader},
    };

    use super::*;

    /// A log whose partition 1 fails after its first record.
    #[derive(Debug)]
    struct Failing;

    #[async_trait]
    impl Log for Failing {
        async fn ensure_topic(&self, _: &str, partitions: Partition) -> Result<Partition, log::Error> {
            Ok(partitions)
        }

        async fn refuses(&self, _: &str, bytes: usize) -> Result<Option<log::RecordLimit>, log::Error> {
            Ok((bytes > 9).then(|| log::RecordLimit { bytes: 9, setting: "`message.max.bytes`".to_owned() }))
        }

        async fn bounds(&self, _: &str) -> Result<Bounds, log::Error> {
            Ok(Bounds::default())
        }

        async fn append(
            &self,
            topic: &str,
            partition: Partition,
            records: Vec<NewRecord>,
        ) -> Result<Vec<Offset>, log::Error> {
            tokio::time::timeout(Duration::from_secs(5), tokio::task::yield_now()).await.unwrap();
            let offsets: Vec<Offset> = (40..).take(records.len()).collect();
            match partition {
                1 => Err(log::Error::Append {
                    topic: topic.to_owned(),
                    partition,
                    offsets: vec![40],
                    written: 1,
                    total: records.len(),
                    source: "no space left".into(),
                }),
                _ => Ok(offsets),
            }
        }

        async fn reader(
            &self,
            topic: &str,
            _: &Frontier,
            _: Option<&BTreeSet<Partition>>,
        ) -> Result<Box<dyn Reader>, log::Error> {
            Err(log::Error::UnknownTopic { topic: topic.to_owned() })
        }
    }

    #[tokio::test]
    async fn an_event_that_the_log_would_not_take_is_named_before_any_is_written() {
        let check = async |sent: &[&'static str], expected: Option<u64>| {
            let sent: Vec<Bytes> = sent.iter().map(|record| Bytes::from(*record)).collect();
            let mut by_partition = BTreeMap::<Partition, Vec<NewRecord>>::new();
            for (partition, record) in [2, 1, 0].into_iter().zip(&sent) {
                let key = Some(Bytes::from("k"));
                by_partition.entry(partition).or_default().push(NewRecord { key, value: Some(record.clone()) });
            }
            let refused = refuse_too_large(&Failing, "sales", &sent, &by_partition).await;
            let body = refused.err().map(|problem| problem.body());
            let found = body.as_ref().map(|body| (body["status"].as_u64(), body["record"].as_u64()));
            assert_eq!(found, expected.map(|record| (Some(413), Some(record))));
            assert!(body.is_none_or(|body| body["hint"].as_str().unwrap().contains("raise `message.max.bytes`")));
        };
        check(&["{}", "12345678"], None).await;
        check(&["{}", "123456789", "1234567890"], Some(1)).await;
        check(&["1234567890", "{}", "123456789"], Some(0)).await;
    }

    #[tokio::test]
    async fn a_log_that_fails_midway_says_what_is_written() {
        let sql = "CREATE TABLE sales (a INT) WITH (partitions = 2);".to_owned();
        let catalog = Catalog::parse(&[("a.sql".to_owned(), sql)]).unwrap();
        let dataset = &catalog.datasets["sales"];
        let records = |count: usize| vec![NewRecord { key: None, value: Some("{}".into()) }; count];
        let all = write(&Failing, dataset, BTreeMap::from([(0, records(3)), (2, records(1))])).await.unwrap();
        assert_eq!(
            serde_json::to_value(all).unwrap(),
            json!({"accepted": 4, "frontier": {"sales": {"0": 43, "2": 41}}})
        );
        let some = write(&Failing, dataset, BTreeMap::from([(0, records(3)), (1, records(2))])).await.unwrap_err();
        let body = some.body();
        assert_eq!((body["status"].clone(), body["accepted"].clone()), (json!(503), json!(4)));
        assert_eq!(body["frontier"], json!({"sales": {"0": 43, "1": 41}}));
        assert!(body["detail"].as_str().unwrap().contains("no space left"), "{body}");
    }
}
