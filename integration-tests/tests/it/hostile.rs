//! Queries that would end a process of Lamina's, or hold it up: the others notice nothing.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use integration_tests::{
    functions::Trials,
    sandbox::process::{Program, free_port},
};
use serde_json::{Value, json};

const CATALOG: &str = "
    CREATE TABLE sales (id BIGINT NOT NULL, name TEXT) WITH (partitions = 1);
    CREATE MATERIALIZED VIEW per_name AS SELECT name, count(*) AS n FROM sales GROUP BY name;
";

/// A program that is alone with its data, whose queries have so much time.
struct Alone {
    program: Program,
    folder: tempfile::TempDir,
    http: reqwest::Client,
}

impl Alone {
    async fn start(time: &str) -> Self {
        Self::with(&format!("[serving.limits]\ntime = '{time}'\n")).await
    }

    async fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(path("catalog")).unwrap();
        std::fs::write(path("catalog/sales.sql"), CATALOG).unwrap();
        std::fs::write(path("lamina.toml"), settings).unwrap();
        let arguments = ["--catalog", &path("catalog"), "--data", &path("data"), "--settings", &path("lamina.toml")];
        let program = Program::lamina(free_port().unwrap(), &arguments, &PathBuf::from(path("output"))).await.unwrap();
        Self { program, folder, http: reqwest::Client::new() }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.program.url)).json(&body);
        let response = request.send().await.unwrap_or_else(|error| panic!("{body}: {error}\n{}", self.output()));
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn sql(&self, sql: &str) -> (u16, Value) {
        self.post("/v1/sql", json!({"sql": sql})).await
    }

    /// How long `/healthz` takes to answer, so often.
    async fn healths(&self, count: usize) -> Vec<Duration> {
        let mut took = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            let response = self.http.get(format!("{}/healthz", self.program.url)).send().await.unwrap();
            assert!(response.status().is_success());
            took.push(began.elapsed());
        }
        took.sort_unstable();
        took
    }

    async fn metric(&self, name: &str) -> f64 {
        let metrics = self.http.get(format!("{}/metrics", self.program.url)).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Constants are computed while a query is planned, and what columns go into batch by batch.
const FROZEN: [&str; 2] = [
    "SELECT levenshtein(repeat('a',1000000),repeat('b',1000000))",
    "SELECT sum(levenshtein(repeat('a', n), repeat('b', n))) FROM (VALUES (1000000), (999999)) t(n)",
];

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_frozen_query() {
    let alone = Alone::start("1s").await;
    let usual = alone.healths(200).await[100];
    for sql in FROZEN {
        let began = Instant::now();
        let (status, body) = alone.sql(sql).await;
        assert_eq!((status, &body["type"]), (503, &json!("/problems/too-slow")), "{sql}: {body}");
        assert!(began.elapsed() < Duration::from_secs(10), "{sql}: {:?}", began.elapsed());
    }
    // Both are still at work.
    let took = alone.healths(200).await;
    assert!(took[100] < usual + Duration::from_millis(50), "{:?} and usually {usual:?}", took[100]);
    assert!(took[199] < Duration::from_secs(2), "{:?}", took[199]);
    let (status, body) = alone.post("/v1/datasets/sales/events", json!({"id": 1, "name": "a"})).await;
    assert_eq!(status, 200, "{body}");
    let query = json!({"sql": "SELECT n FROM per_name", "min_position": body["frontier"], "wait": "30s"});
    let (status, body) = alone.post("/v1/sql", query).await;
    assert_eq!((status, &body["rows"]), (200, &json!([{"n": 1}])), "{body}");
    assert_eq!(alone.metric("lamina_serving_queries_frozen").await, 2.0);
    // A client that leaves leaves a frozen one too; and there is an end of it.
    let mut left = 0;
    loop {
        let asked = alone.sql(FROZEN[0]);
        match tokio::time::timeout(Duration::from_millis(300), asked).await {
            Err(_) => left += 1,
            Ok((status, body)) => {
                assert_eq!((status, &body["type"]), (503, &json!("/problems/unavailable")), "{body}");
                break;
            }
        }
        assert!(left < 200, "more and more of them are begun");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(left > 0);
    assert_eq!(
        alone.metric("lamina_serving_queries_given_up_total").await,
        alone.metric("lamina_serving_queries_frozen").await
    );
    alone.healths(20).await;
    let began = Instant::now();
    assert!(alone.program.stop().await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// What made values of any size, and what it is told instead. It took a process 0.3 s to end by the first.
const LARGE: [&str; 12] = [
    "SELECT rpad('a', v) FROM (VALUES (9223372036854775807)) t(v)",
    "SELECT lpad('a', v) FROM (VALUES (9223372036854775807)) t(v)",
    "SELECT repeat(arrow_cast('a','LargeUtf8'), v) FROM (VALUES (1000000000000000000)) t(v)",
    "SELECT array_resize([1], v, 0) FROM (VALUES (1000000000000000000)) t(v)",
    "SELECT array_length(range(0,1000000000))",
    "SELECT array_length(range(TIMESTAMP '2026-01-01', TIMESTAMP '2026-03-01', INTERVAL '1 month -30 days'))",
    "SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)') FROM range(0, 8192)",
    "SELECT repeat('a', 1000000) FROM range(0, 8192)",
    "SELECT concat(repeat('a', 60000000), v) FROM (VALUES (repeat('b', 60000000))) t(v)",
    "SELECT repeat('a', 60000000) || v FROM (VALUES (repeat('b', 60000000))) t(v)",
    "SELECT replace(repeat('a', 60000), 'a', v) FROM (VALUES (repeat('b', 60000))) t(v)",
    "SELECT array_to_string(range(0, 100000), v) FROM (VALUES (repeat('b', 60000))) t(v)",
];

#[tokio::test(flavor = "multi_thread")]
async fn values_of_any_size_are_refused_before_they_take_memory() {
    let alone = Alone::start("60s").await;
    alone.sql("SELECT count(*) FROM sales").await;
    let before = alone.program.memory().unwrap();
    for sql in LARGE {
        let (status, body) = alone.sql(sql).await;
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(status == 400 && detail.contains("makes at most"), "{sql}: {status} {body}");
    }
    let took = alone.program.memory().unwrap().saturating_sub(before) >> 20;
    assert!(took < 512, "{took} MiB");
    assert!(alone.program.stop().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spilled_has_a_place_and_a_size() {
    let spill = tempfile::tempdir().unwrap();
    let folder = spill.path().join("spill").display().to_string();
    let settings = format!("[serving]\nmemory = '128MiB'\n[spill]\nfolder = '{folder}'\nsize = '1MiB'\n");
    let alone = Alone::with(&settings).await;
    let sql = "SELECT max(length(text)) AS n FROM (SELECT text, row_number() OVER (ORDER BY text) AS place FROM \
               (SELECT repeat(value::text, 100) AS text FROM range(0, 400000)) a) t WHERE place > 0";
    let (status, body) = alone.sql(sql).await;
    assert_eq!((status, &body["type"]), (503, &json!("/problems/exhausted")), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("disk space"), "{body}");
    assert!(std::fs::read_dir(&folder).unwrap().count() > 0);
    assert_eq!(alone.sql("SELECT 1 AS one").await.0, 200);
    assert!(alone.program.stop().await.unwrap());
}

/// Every function with arguments at the edges, for a while: no answer is a failure of the server's.
#[tokio::test(flavor = "multi_thread")]
async fn functions_with_any_arguments() {
    let alone = Alone::start("5s").await;
    let seed = 1;
    let mut trials = Trials::new(seed, Duration::from_secs(5));
    let outcome = trials.run(&alone.program.url, Duration::from_secs(30)).await;
    eprintln!("{}", trials.summary());
    let faults = trials.faults(&alone.output());
    assert!(outcome.is_ok() && faults.is_empty(), "seed {seed}: {outcome:?} {faults:#?}");
    assert!(alone.program.stop().await.unwrap());
}
