//! A start: nothing is answered before all is read that the log had then, so that time does not go back for anybody.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    access::Scope,
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord, embedded::Embedded},
    position::Frontier,
    speed,
    storage::Storage,
    supervisor::Supervisor,
};
use futures::TryStreamExt;
use integration_tests::world::at_least;
use serving_layer::{
    engine::{self, Engine, Error, Options},
    stamp::Stamp,
};

const SQL: &str = "CREATE TABLE sales (id BIGINT NOT NULL) WITH (partitions = 2);
                   CREATE MATERIALIZED VIEW totals WITH (refresh = 'never') AS SELECT count(*) AS n FROM sales;";
const EVENTS: i64 = 30_000;

/// The speed and the serving layer of one process. Nothing is archived.
struct Process {
    engine: Arc<Engine>,
    supervisor: Supervisor,
}

impl Process {
    async fn start(log: &Arc<dyn Log>) -> Self {
        let store = Arc::new(object_store::memory::InMemory::new());
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
        let catalog = Arc::new(Catalog::parse(&[("sales.sql".to_owned(), SQL.to_owned())]).unwrap());
        let (clock, supervisor) = (Arc::new(System), Supervisor::new());
        let speed = speed_layer::SpeedLayer::start(speed_layer::Context {
            storage: storage.clone(),
            log: log.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
            registry: prometheus::Registry::new(),
            // Small steps, so that there is much to see of the way.
            settings: speed_layer::Settings { poll_records: 200, ..speed_layer::Settings::default() },
        })
        .unwrap();
        let engine = Engine::start(engine::Context {
            storage,
            log: log.clone(),
            catalog,
            clock,
            speed,
            supervisor: supervisor.clone(),
            settings: engine::Settings::default(),
        })
        .await
        .unwrap();
        Self { engine, supervisor }
    }

    async fn count(&self, options: &Options) -> Result<(i64, Stamp), Error> {
        let answer = self.engine.sql("SELECT n FROM totals", options).await?;
        let batches: Vec<_> = answer.rows.try_collect().await.unwrap();
        let mut text = Vec::new();
        common::values::output::write_rows(&batches[0], &mut text, b"\n").unwrap();
        let row: serde_json::Value = serde_json::from_slice(&text).unwrap();
        Ok((row["n"].as_i64().unwrap(), answer.stamp))
    }
}

async fn append(log: &Arc<dyn Log>, from: i64, count: i64) {
    let records = |part: i64| {
        let ids = (from..from + count).filter(|id| id % 2 == part);
        ids.map(|id| NewRecord { key: None, value: Some(format!("{{\"id\":{id}}}").into()) }).collect()
    };
    for part in [0, 1] {
        log.append("sales", i32::try_from(part).unwrap(), records(part)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_lacks_nothing_that_was_there_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let log: Arc<dyn Log> = Arc::new(Embedded::open(folder.path(), Arc::new(System)).unwrap());
    log.ensure_topic("sales", 2).await.unwrap();
    append(&log, 0, EVENTS).await;
    let end = log.bounds("sales").await.unwrap().end;
    // Twice, as after a kill: a process leaves nothing behind but the log.
    for life in 0..2 {
        let process = Process::start(&log).await;
        // Events that go on coming are none to wait for.
        let (producing, stop) = (log.clone(), Supervisor::new());
        let stopped = stop.cancelled();
        let producer = tokio::spawn(async move {
            let mut next = EVENTS;
            while !stopped.is_cancelled() {
                append(&producing, next, 100).await;
                next += 100;
            }
        });
        let (mut seen, deadline) = (BTreeSet::new(), Instant::now() + Duration::from_secs(60));
        let first = loop {
            assert!(Instant::now() < deadline, "it never answers: {seen:?}");
            let ready = process.engine.ready().await;
            match process.count(&Options::default()).await {
                Ok((n, _)) => break n,
                Err(Error::Speed(speed::Error::CatchingUp { head, target, .. })) => {
                    assert!(target.covers(&end) && !head.covers(&target), "{head} of {target}");
                    let reasons = ready.unwrap_err().join("; ");
                    assert!(reasons.contains("of the log") || !reasons.is_empty());
                    seen.insert(head.get(0));
                }
                Err(Error::Speed(speed::Error::NotReady { .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
            tokio::task::yield_now().await;
        };
        assert!(first >= EVENTS, "life {life}: the first answer has {first} of {EVENTS} events");
        assert!(seen.len() > 1, "it was asked on the way: {seen:?}");
        stop.stop();
        producer.await.unwrap();
        assert!(process.engine.ready().await.is_ok());
        process.supervisor.stop();
        process.supervisor.wait().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_position_waits_for_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let log: Arc<dyn Log> = Arc::new(Embedded::open(folder.path(), Arc::new(System)).unwrap());
    log.ensure_topic("sales", 2).await.unwrap();
    append(&log, 0, EVENTS).await;
    let process = Process::start(&log).await;
    let early = Frontier::from_iter([(0, 1)]);
    let options = Options { scope: Scope::default(), ..at_least("sales", &early, Duration::from_secs(60)) };
    let (n, stamp) = process.count(&options).await.unwrap();
    assert_eq!((n, stamp.head["sales"].get(0)), (EVENTS, EVENTS / 2));
    process.supervisor.stop();
    process.supervisor.wait().await.unwrap();
}
