//! Events that a view cannot be computed over, through the whole system: each costs its row in that view alone, and one
//! prefix has the same failed events and groups however it is come to.

use std::{sync::Arc, time::Duration};

use common::{
    access::Scope,
    catalog::Catalog,
    clock::System,
    jobs::State,
    log::{Log, NewRecord},
    position::Frontier,
    storage::Storage,
};
use integration_tests::{
    memory_log::MemoryLog,
    oracle::{Oracle, read_log, same_rows},
    world::{Settings, World, at_least},
};
use serde_json::{Value, json};
use serving_layer::stamp::Stamp;

const CATALOG: &str = "
CREATE TABLE m (k TEXT NOT NULL, a INT, b INT, t TEXT) WITH (partitions = 2);
CREATE TABLE other (k TEXT NOT NULL) WITH (partitions = 1);
CREATE MATERIALIZED VIEW divided WITH (refresh = 'never') AS SELECT sum(a / b) AS s, count(*) AS n FROM m;
CREATE MATERIALIZED VIEW casts WITH (refresh = 'never') AS SELECT k, sum(CAST(t AS INT)) AS s FROM m GROUP BY k;
CREATE MATERIALIZED VIEW wher WITH (refresh = 'never') AS SELECT count(*) AS n FROM m WHERE b <> 0 AND 10 / b > 1;
CREATE MATERIALIZED VIEW ratio WITH (refresh = 'never') AS SELECT k, sum(a) / sum(b) AS r, count(*) AS n FROM m GROUP BY k;
CREATE MATERIALIZED VIEW large WITH (refresh = 'never') AS
SELECT k, count(*) AS n FROM m GROUP BY k HAVING sum(a) / sum(b) >= 1;
CREATE MATERIALIZED VIEW plain WITH (refresh = 'never') AS SELECT k, count(*) AS n FROM m GROUP BY k;
CREATE MATERIALIZED VIEW others WITH (refresh = 'never') AS SELECT count(*) AS n FROM other;
";

const VIEWS: [&str; 6] = ["divided", "casts", "wher", "ratio", "large", "plain"];

struct Bed {
    log: Arc<dyn Log>,
    storage: Storage,
    catalog: Arc<Catalog>,
    world: World,
    end: Frontier,
}

impl Bed {
    async fn new() -> Self {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(3, Arc::new(System)));
        let store = Arc::new(object_store::memory::InMemory::new());
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
        let catalog = Catalog::parse(&[("catalog.sql".to_owned(), CATALOG.to_owned())]);
        let catalog = Arc::new(catalog.unwrap_or_else(|faults| panic!("{faults}")));
        let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
        Self { log, storage, catalog, world, end: Frontier::default() }
    }

    async fn append(&mut self, partition: i32, events: &[Value]) {
        let records = events.iter().map(|event| NewRecord { key: None, value: Some(event.to_string().into()) });
        let offsets = self.log.append("m", partition, records.collect()).await.unwrap();
        self.end.advance(partition, offsets[offsets.len() - 1] + 1);
    }

    async fn ask(&self, sql: &str) -> (Vec<Value>, Stamp) {
        self.world.query(sql, &at_least("m", &self.end, Duration::from_secs(30))).await.unwrap()
    }

    /// All views as they must be, and what their stamps say of failures: `[failed_events, failed_groups]`.
    async fn check(&self, failures: [[i64; 2]; 6], what: &str) {
        let events = read_log(self.log.as_ref(), "m").await.unwrap();
        let oracle = Oracle::new(self.catalog.clone(), "m", &events).await.unwrap();
        for (view, expected) in VIEWS.into_iter().zip(failures) {
            let sql = format!("SELECT * FROM {view}");
            let (rows, stamp) = self.ask(&sql).await;
            let said = &stamp.views[view];
            assert_eq!([said.failed_events, said.failed_groups], expected, "{what}: {view} {rows:?}");
            let answer = oracle.answer(&sql, &stamp.head["m"]).await.unwrap();
            assert!(same_rows(&rows, &answer, false), "{what}: {view}\n{rows:?}\n{answer:?}");
            let failed = self.world.engine.failed_events(view, &Scope::default()).await.unwrap();
            assert_eq!(failed.count(), expected[0], "{what}: {view}");
            assert_eq!(failed.newest(100).len(), usize::try_from(expected[0]).unwrap(), "{what}: {view}");
        }
        assert_eq!(self.world.engine.ready().await, Ok(()), "{what}");
    }

    /// What `casts` says of its failed events.
    async fn reasons(&self) -> Vec<(i32, i64, String)> {
        let failed = self.world.engine.failed_events("casts", &Scope::default()).await.unwrap();
        failed.newest(10).into_iter().map(|event| (event.partition, event.offset, event.reason)).collect()
    }

    async fn recompute(&self) {
        // What has been archived is recomputed: all of it, before one looks.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while self.world.engine.dataset("m", &Scope::default()).await.unwrap().master_frontier != self.end {
            assert!(std::time::Instant::now() < deadline, "not archived");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for view in VIEWS {
            let job = self.world.recompute(view).await.unwrap();
            assert_eq!(job.state, State::Succeeded, "{view}: {:?}", job.error);
        }
        loop {
            let mut newest = true;
            for view in VIEWS {
                let (_, stamp) = self.ask(&format!("SELECT * FROM {view}")).await;
                newest &= stamp.views[view].cut == self.end;
            }
            if newest {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "the new versions do not serve");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn restart(self) -> Self {
        self.world.stop().await.unwrap();
        let world = World::start(&self.storage, &self.log, &self.catalog, Settings::hasty()).await.unwrap();
        Self { world, ..self }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_prefix_has_the_same_failures_however_it_is_come_to() {
    let mut bed = Bed::new().await;
    let event = |k: &str, a: i64, b: i64, t: &str| json!({"k": k, "a": a, "b": b, "t": t});
    bed.append(0, &[event("x", 6, 2, "1"), event("bad", 6, 0, "2"), event("y", 1, 0, "zwei"), event("y", 4, 4, "3")])
        .await;
    bed.append(1, &[event("z", 9, 3, ""), event("z", -9, 3, "4")]).await;
    let first = [[2, 0], [2, 0], [0, 0], [0, 1], [0, 1], [0, 0]];
    bed.check(first, "from the log").await;
    let reasons = bed.reasons().await;
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().all(|(.., reason)| reason.contains("`t` = `")), "{reasons:?}");

    bed.recompute().await;
    bed.check(first, "recomputed").await;
    assert_eq!(bed.reasons().await, reasons);

    // A group that had no value gets one, another loses its own; more events fail above the cut.
    bed.append(0, &[event("bad", 1, 1, "x"), event("x", 0, -2, "1")]).await;
    bed.append(1, &[event("w", 1, 0, "5")]).await;
    let second = [[3, 0], [3, 0], [0, 0], [0, 2], [0, 2], [0, 0]];
    bed.check(second, "above the cut").await;
    let (rows, stamp) = bed.ask("SELECT r FROM ratio WHERE k = 'bad'").await;
    assert_eq!((rows, stamp.views["ratio"].failed_groups), (vec![json!({"r": 7})], 0));
    let (rows, stamp) = bed.ask("SELECT r FROM ratio WHERE k IN ('x', 'y')").await;
    assert_eq!((rows.len(), stamp.views["ratio"].failed_groups), (2, 1));
    let reasons = bed.reasons().await;
    bed = bed.restart().await;
    bed.check(second, "restarted").await;
    assert_eq!(bed.reasons().await, reasons);
    bed.recompute().await;
    bed.check(second, "recomputed again").await;
    assert_eq!(bed.reasons().await, reasons);
    let (rows, stamp) = bed.ask("SELECT r FROM ratio WHERE k = 'w'").await;
    assert_eq!((rows, stamp.views["ratio"].failed_groups), (vec![json!({"r": null})], 1));
    let (rows, _) = bed.world.query("SELECT n FROM others", &serving_layer::engine::Options::default()).await.unwrap();
    assert_eq!(rows, [json!({"n": 0})]);
    bed.world.stop().await.unwrap();
}
