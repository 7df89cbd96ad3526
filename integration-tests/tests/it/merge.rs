//! Speed and serving layer together, without a batch layer: answers from the empty cut.

use std::{sync::Arc, time::Duration};

use common::{
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord},
    position::Frontier,
    storage::Storage,
    supervisor::Supervisor,
};
use futures::TryStreamExt;
use integration_tests::{
    memory_log::MemoryLog,
    oracle::{Oracle, read_log, same_rows},
    workload::{Sales, broken},
    world::at_least,
};
use serving_layer::engine::{self, Engine, Options};

/// The example's catalog.
fn catalog() -> Arc<Catalog> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/sales");
    Arc::new(Catalog::load(folder.as_ref()).unwrap_or_else(|faults| panic!("{faults}")))
}

async fn rows(engine: &Engine, sql: &str, options: &Options) -> (Vec<serde_json::Value>, serving_layer::stamp::Stamp) {
    let answer = engine.sql(sql, options).await.unwrap();
    let batches: Vec<_> = answer.rows.try_collect().await.unwrap();
    let mut text = Vec::new();
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        if !text.is_empty() {
            text.push(b'\n');
        }
        common::values::output::write_rows(batch, &mut text, b"\n").unwrap();
    }
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    (lines.map(|line| serde_json::from_slice(line).unwrap()).collect(), answer.stamp)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_exact_from_the_log_alone() {
    let clock = Arc::new(System);
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(1, clock.clone()));
    let store = Arc::new(object_store::memory::InMemory::new());
    let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
    let (catalog, supervisor) = (catalog(), Supervisor::new());
    log.ensure_topic("sales", 4).await.unwrap();
    let speed = speed_layer::SpeedLayer::start(speed_layer::Context {
        storage: storage.clone(),
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        supervisor: supervisor.clone(),
        registry: prometheus::Registry::new(),
        settings: speed_layer::Settings::default(),
    })
    .unwrap();
    let engine = Engine::start(engine::Context {
        storage,
        log: log.clone(),
        catalog: catalog.clone(),
        clock,
        speed,
        supervisor: supervisor.clone(),
        settings: engine::Settings::default(),
    })
    .await
    .unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut end = Frontier::default();
    for event in Sales::new(7, 3000, 50) {
        let value = if random.u8(0..20) == 0 { broken(&mut random) } else { event };
        let partition = random.i32(0..4);
        let offsets =
            log.append("sales", partition, vec![NewRecord { key: None, value: Some(value.into()) }]).await.unwrap();
        end.advance(partition, offsets[0] + 1);
    }
    let options = at_least("sales", &end, Duration::from_secs(30));
    let oracle = Oracle::new(catalog.clone(), "sales", &read_log(log.as_ref(), "sales").await.unwrap()).await.unwrap();
    for view in catalog.views.keys() {
        let sql = format!("SELECT * FROM {view}");
        let (got, stamp) = rows(&engine, &sql, &options).await;
        assert_eq!(stamp.head["sales"], end);
        assert_eq!(stamp.views[view].batch_version, None);
        let expected = oracle.answer(&sql, &stamp.head["sales"]).await.unwrap();
        assert!(!got.is_empty() && same_rows(&got, &expected, false), "{view}\n{got:?}\n{expected:?}");
    }
    supervisor.stop();
    supervisor.wait().await.unwrap();
}
