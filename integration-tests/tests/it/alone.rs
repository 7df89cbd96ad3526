//! What is wrong with one topic, one view or the newest catalog costs that alone, and is said.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use common::{
    catalog::Catalog,
    clock::System,
    log::{Bounds, Error, Log, NewRecord, Reader},
    operate::BatchLayer as _,
    position::{Frontier, Offset, Partition},
    resources,
    storage::Storage,
};
use integration_tests::{
    memory_log::MemoryLog,
    world::{Settings, World, at_least},
};
use serde_json::{Value, json};
use serving_layer::engine::Options;

use crate::signals::{ask, ended, signal, start};

/// A log with one topic that is compacted.
#[derive(Debug)]
struct Except {
    inner: MemoryLog,
    topic: &'static str,
}

impl Except {
    fn check(&self, topic: &str) -> Result<(), Error> {
        match topic == self.topic {
            true => Err(Error::Compacted { topic: topic.to_owned() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Log for Except {
    async fn ensure_topic(&self, topic: &str, partitions: Partition) -> Result<Partition, Error> {
        self.check(topic)?;
        self.inner.ensure_topic(topic, partitions).await
    }

    async fn bounds(&self, topic: &str) -> Result<Bounds, Error> {
        self.check(topic)?;
        self.inner.bounds(topic).await
    }

    async fn append(&self, topic: &str, partition: Partition, records: Vec<NewRecord>) -> Result<Vec<Offset>, Error> {
        self.check(topic)?;
        self.inner.append(topic, partition, records).await
    }

    async fn reader(
        &self,
        topic: &str,
        from: &Frontier,
        partitions: Option<&BTreeSet<Partition>>,
    ) -> Result<Box<dyn Reader>, Error> {
        self.check(topic)?;
        self.inner.reader(topic, from, partitions).await
    }
}

const CATALOG: &str = r#"
    CREATE TABLE sales (id BIGINT NOT NULL, ts TIMESTAMPTZ NOT NULL) WITH (partitions = 1);
    CREATE TABLE visits (page TEXT NOT NULL) WITH (partitions = 1);
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM sales;
    CREATE MATERIALIZED VIEW berlin AS
        SELECT arrow_cast(ts, 'Timestamp(Microsecond, Some("Europe/Berlin"))') AS t, count(*) AS n,
               max(arrow_cast(ts, 'Timestamp(Microsecond, Some("Europe/Berlin"))')) AS newest FROM sales GROUP BY t;
    CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS n FROM visits GROUP BY page;
"#;

/// A compacted topic kept all layers from starting, and so did a view with times of a zone that Delta does not know.
#[tokio::test(flavor = "multi_thread")]
async fn one_topic_or_view_costs_that_alone() {
    let log: Arc<dyn Log> = Arc::new(Except { inner: MemoryLog::new(0, Arc::new(System)), topic: "visits" });
    let store = Arc::new(object_store::memory::InMemory::new());
    let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
    let catalog = Catalog::parse(&[("catalog.sql".to_owned(), CATALOG.to_owned())]);
    let catalog = Arc::new(catalog.unwrap_or_else(|faults| panic!("{faults}")));
    let partitions = resources::partitions(log.as_ref(), &catalog).await;
    assert_eq!(partitions, [("sales".to_owned(), 1)].into());
    let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
    let record = |id: i64| json!({"id": id, "ts": "2026-01-03T10:00:00Z"}).to_string();
    let records = (0..10).map(|id| NewRecord { key: None, value: Some(record(id).into()) }).collect();
    log.append("sales", 0, records).await.unwrap();
    let end = log.bounds("sales").await.unwrap().end;
    let wait = at_least("sales", &end, Duration::from_secs(60));
    for _ in 0..2 {
        let (rows, _) = world.query("SELECT n FROM total", &wait).await.unwrap();
        assert_eq!(rows, [json!({"n": 10})]);
        let (rows, _) = world.query("SELECT n, t = newest AS same FROM berlin", &wait).await.unwrap();
        assert_eq!(rows, [json!({"n": 10, "same": true})]);
        // Then from batch views.
        while world.query("SELECT count(*) AS n FROM sales", &Options::default()).await.unwrap().0 != [json!({"n": 10})]
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for view in ["total", "berlin"] {
            let job = world.recompute(view).await.unwrap();
            assert_eq!(job.error, None, "{view}");
        }
    }
    let error = world.query("SELECT * FROM pages", &Options::default()).await.unwrap_err();
    assert!(format!("{error:#}").contains("compacted"), "{error:#}");
    let reasons = world.engine.ready().await.unwrap_err().join("; ");
    assert!(reasons.contains("pages") && reasons.contains("compacted"), "{reasons}");
    assert!(world.batch.jobs(10).await.is_ok());
    world.stop().await.unwrap();
}

async fn query(url: &str, sql: &str) -> (u16, Value) {
    let asked = reqwest::Client::new().post(format!("{url}/v1/sql")).json(&json!({"sql": sql})).send().await.unwrap();
    (asked.status().as_u16(), asked.json().await.unwrap())
}

/// Waits for an answer.
async fn answers(url: &str, sql: &str, expected: &Value) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, body) = query(url, sql).await;
        if status == 200 && body["rows"] == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {status} {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_catalog_keeps_nothing_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog/a.sql");
    std::fs::create_dir(folder.path().join("catalog")).unwrap();
    std::fs::write(folder.path().join("settings.toml"), "[batch]\ncatalog_every = '1s'\n").unwrap();
    let up = ["up", "--settings", "settings.toml"];
    let good = "CREATE TABLE sales (id BIGINT NOT NULL);
        CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM sales;";
    let better = format!("{good} CREATE MATERIALIZED VIEW highest AS SELECT max(id) AS id FROM sales;");

    // Nothing has been published: what is wrong is all that there is to say.
    std::fs::write(&file, "CREATE TABEL sales (id BIGINT);").unwrap();
    let (mut child, _) = start("lamina", &up, folder.path());
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    assert!(!status.success() && said.contains("cannot be used") && said.contains("a.sql"), "{status}: {said}");

    std::fs::write(&file, good).unwrap();
    let (mut child, url) = start("lamina", &up, folder.path());
    while ask(&url, "/readyz").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = reqwest::Client::new().post(format!("{url}/v1/datasets/sales/events")).json(&json!({"id": 7}));
    assert_eq!(sent.send().await.unwrap().status(), 200);
    answers(&url, "SELECT n FROM total", &json!([{"n": 1}])).await;
    signal(&child);
    ended(&mut child, folder.path()).await;

    std::fs::write(&file, "CREATE TABEL sales (id BIGINT);").unwrap();
    let (mut child, url) = start("lamina", &up, folder.path());
    while ask(&url, "/readyz").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answers(&url, "SELECT n FROM total", &json!([{"n": 1}])).await;
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    assert!(said.contains("stays in force") && said.contains("TABEL"), "{said}");
    // And it takes up what can be used.
    std::fs::write(&file, better).unwrap();
    answers(&url, "SELECT id FROM highest", &json!([{"id": 7}])).await;
    signal(&child);
    ended(&mut child, folder.path()).await;
}
