//! Which queries are answered does not depend on which groups the speed layer has touched, nor what the answer is.

use std::{sync::Arc, time::Duration};

use common::{
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord},
    storage::Storage,
};
use integration_tests::{
    memory_log::MemoryLog,
    oracle::same_rows,
    world::{Settings, World, at_least},
};
use serde_json::Value;
use serving_layer::engine::Options;

const SQL: &str = "
    CREATE TABLE m (k TEXT, g INT, ts TIMESTAMP, q BIGINT) WITH (partitions = 2);
    CREATE MATERIALIZED VIEW byk WITH (refresh = 'never') AS
        SELECT k, min(ts) AS first_at, max(ts) AS last_at, count(*) AS c, sum(q) AS s FROM m GROUP BY k;
    CREATE MATERIALIZED VIEW bykg WITH (refresh = 'never') AS
        SELECT k, g, count(*) AS c, min(q) AS low, max(q) AS high FROM m GROUP BY k, g HAVING count(*) > 1;
    CREATE MATERIALIZED VIEW total WITH (refresh = 'never') AS SELECT count(*) AS n, min(q) AS low FROM m;";

/// Queries over the views, with an order that is total where they have one.
const QUERIES: &[&str] = &[
    "SELECT k, c FROM byk WHERE first_at = last_at ORDER BY first_at, last_at, k",
    "SELECT k, c FROM byk WHERE last_at = first_at ORDER BY last_at, k, first_at",
    "SELECT k, row_number() OVER (ORDER BY first_at, last_at, k) AS r FROM byk WHERE first_at = last_at",
    "SELECT k, sum(c) OVER (PARTITION BY first_at ORDER BY last_at, k) AS r FROM byk WHERE first_at = last_at",
    "SELECT k, rank() OVER (PARTITION BY k ORDER BY c, s) AS r FROM byk WHERE c = s",
    "SELECT first_at, last_at, count(*) AS n FROM byk WHERE first_at = last_at GROUP BY first_at, last_at ORDER BY 1, 2",
    "SELECT DISTINCT first_at, last_at FROM byk WHERE first_at = last_at ORDER BY last_at, first_at",
    "SELECT k FROM byk WHERE k = 'k1' ORDER BY k, c",
    "SELECT k, c FROM byk WHERE c = 3 ORDER BY c, s, k LIMIT 3",
    "SELECT k, c FROM byk WHERE c = 3 AND s = c ORDER BY s, c, k",
    "SELECT k, c FROM byk ORDER BY c DESC, k LIMIT 4",
    "SELECT k, c FROM byk ORDER BY k LIMIT 4 OFFSET 2",
    "SELECT k, c FROM byk WHERE c > 2 ORDER BY s, k LIMIT 5",
    "SELECT * FROM byk LIMIT 1000",
    "SELECT count(*) AS n FROM byk",
    "SELECT count(*) AS n FROM byk WHERE first_at = last_at",
    "SELECT k, max(c) AS c FROM byk GROUP BY k ORDER BY k",
    "SELECT k, c FROM byk WHERE c = (SELECT max(c) FROM byk) ORDER BY k",
    "SELECT k, c FROM byk WHERE k IN (SELECT k FROM bykg WHERE low = high) ORDER BY k, c",
    "SELECT k, c FROM byk WHERE EXISTS (SELECT 1 FROM bykg WHERE bykg.k = byk.k AND low = high) ORDER BY k",
    "SELECT a.k, a.c, b.g, b.c AS d FROM byk a JOIN bykg b ON a.k = b.k WHERE low = high ORDER BY a.k, b.g, d",
    "SELECT a.k, b.g FROM byk a LEFT JOIN bykg b ON a.k = b.k AND b.low = b.high ORDER BY a.k, b.g",
    "SELECT a.k, b.g FROM byk a FULL JOIN bykg b ON a.k = b.k AND a.c = b.c ORDER BY a.k, b.g",
    "SELECT a.k AS l, b.k AS r FROM byk a JOIN byk b ON a.first_at = b.last_at ORDER BY 1, 2",
    "SELECT a.k, a.c FROM byk a CROSS JOIN total t WHERE a.c = t.low ORDER BY t.low, a.c, a.k",
    "SELECT k, g FROM bykg WHERE low = high ORDER BY low, high, k, g",
    "SELECT k, g, low FROM bykg WHERE low = high AND k = 'k1' ORDER BY k, low, high, g",
    "SELECT k, g, lag(high) OVER (PARTITION BY k ORDER BY low, high, g) AS before FROM bykg WHERE low = high",
    "SELECT g, count(*) AS n, sum(c) AS c FROM bykg GROUP BY g ORDER BY g",
    "SELECT k, count(DISTINCT g) AS n FROM bykg GROUP BY k ORDER BY k",
    "SELECT k, g FROM bykg WHERE g = 1 ORDER BY g, k",
    "SELECT k, c FROM byk WHERE first_at = last_at UNION ALL SELECT k, c FROM bykg WHERE low = high ORDER BY k, c",
    "SELECT k FROM byk WHERE c = s INTERSECT SELECT k FROM bykg ORDER BY k",
    "SELECT k FROM byk EXCEPT SELECT k FROM bykg WHERE low = high ORDER BY k",
    "SELECT k, c FROM (SELECT k, c, first_at, last_at FROM byk WHERE first_at = last_at ORDER BY first_at LIMIT 100) ORDER BY k",
    "WITH one AS (SELECT * FROM byk WHERE first_at = last_at) SELECT a.k, b.c FROM one a JOIN one b ON a.first_at = b.last_at ORDER BY a.k, b.c",
    "SELECT k, (SELECT max(b.high) FROM bykg b WHERE b.k = byk.k) AS high FROM byk WHERE first_at = last_at ORDER BY k, high",
    "SELECT n, low FROM total WHERE n = n ORDER BY n, low",
    "SELECT k, c FROM (SELECT k, c, row_number() OVER (PARTITION BY c ORDER BY k) AS r FROM byk) WHERE r <= 1 ORDER BY c, k",
];

/// Events of groups `from` to `to`; every third group has one event, others have more.
fn events(from: i64, to: i64) -> Vec<String> {
    let mut events = Vec::new();
    for k in from..to {
        for i in 0..=(k % 3) {
            let second = (k * 7 + i) % 60;
            let q = if k % 2 == 0 { 1 } else { i };
            events
                .push(format!("{{\"k\":\"k{k}\",\"g\":{},\"ts\":\"2026-01-05T00:00:{second:02}\",\"q\":{q}}}", i / 2));
        }
    }
    events
}

async fn append(world: &World, log: &Arc<dyn Log>, events: Vec<String>) -> Options {
    for (i, event) in events.into_iter().enumerate() {
        let record = NewRecord { key: None, value: Some(event.into()) };
        log.append("m", i32::try_from(i % 2).unwrap(), vec![record]).await.unwrap();
    }
    let end = log.bounds("m").await.unwrap().end;
    let options = at_least("m", &end, Duration::from_secs(60));
    world.query("SELECT count(*) FROM m", &options).await.unwrap();
    options
}

async fn answers(world: &World, options: &Options) -> Vec<Result<Vec<Value>, String>> {
    let mut answers = Vec::new();
    for sql in QUERIES {
        let answer = world.query(sql, options).await;
        answers.push(answer.map(|(rows, _)| rows).map_err(|error| format!("{error:#}")));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_does_not_depend_on_what_is_touched() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(0, Arc::new(System)));
    let store = Arc::new(object_store::memory::InMemory::new());
    let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
    let catalog = Catalog::parse(&[("m.sql".to_owned(), SQL.to_owned())]).unwrap_or_else(|faults| panic!("{faults}"));
    let catalog = Arc::new(catalog);
    log.ensure_topic("m", 2).await.unwrap();
    let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
    // No batch view version, then groups of both layers and of either; each against a recompute at the same head.
    for (from, to) in [(0, 20), (10, 30)] {
        let options = append(&world, &log, events(from, to)).await;
        let before = answers(&world, &options).await;
        for view in catalog.views.keys() {
            let job = world.recompute(view).await.unwrap();
            assert!(job.error.is_none(), "{job:?}");
        }
        let after = answers(&world, &options).await;
        for ((sql, before), after) in QUERIES.iter().zip(before).zip(after) {
            let is_ordered = sql.contains("ORDER BY") && !sql.contains("OVER");
            let (before, after) =
                (before.unwrap_or_else(|e| panic!("{sql}: {e}")), after.unwrap_or_else(|e| panic!("{sql}: {e}")));
            assert!(same_rows(&before, &after, is_ordered), "{sql}\n{before:?}\n{after:?}");
        }
    }
    world.stop().await.unwrap();
}
