//! The speed layer's own promises, with the other layers around it: cuts that are announced, its memory, its age.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    catalog::Catalog,
    clock::System,
    jobs::State,
    log::{Log, NewRecord},
    master,
    operate::BatchLayer as _,
    position::Frontier,
    speed::{SpeedLayer as _, Status},
    storage::Storage,
};
use integration_tests::{
    faults::{Fate, Faulty},
    memory_log::MemoryLog,
    oracle::{Oracle, read_log, same_rows},
    workload::Sales,
    world::{Settings, World, at_least},
};
use serde_json::Value;
use serving_layer::{engine::Options, stamp::Stamp};

use crate::simulation::wait_for;

const TABLE: &str = "
CREATE TABLE sales (
  order_id BIGINT NOT NULL, product_id BIGINT NOT NULL, customer_id TEXT, store INT NOT NULL,
  quantity INT NOT NULL CHECK (quantity > 0), amount DECIMAL(12,2) NOT NULL, created_at TIMESTAMP NOT NULL
) WITH (partitions = 2);
";
/// Few groups: states are small, however many events there are.
const BY_PRODUCT: &str = "
CREATE MATERIALIZED VIEW by_product WITH (refresh = 'never') AS
SELECT product_id, count(*) AS orders, sum(amount) AS amount FROM sales GROUP BY product_id;
";
/// Two keys.
const BY_STORE_AND_PRODUCT: &str = "
CREATE MATERIALIZED VIEW by_store_and_product WITH (refresh = 'never') AS
SELECT store, product_id, count(*) AS orders, sum(amount) AS amount FROM sales GROUP BY store, product_id;
";
/// A group an event: states are as many as events.
const BY_ORDER: &str = "
CREATE MATERIALIZED VIEW by_order WITH (refresh = 'never') AS
SELECT order_id, count(*) AS orders, sum(amount) AS amount FROM sales GROUP BY order_id;
";
/// Writes that make master versions.
const MASTER: &str = "master/sales/_delta_log";

/// All layers, over a log and a store that can be made to fail.
struct Bed {
    log: MemoryLog,
    store: Arc<Faulty>,
    /// What is behind `store`, as another process reaches it.
    behind: Storage,
    storage: Storage,
    catalog: Arc<Catalog>,
    sales: Sales,
    world: World,
    produced: usize,
}

impl Bed {
    async fn start(view: &str, settings: Settings) -> Self {
        let log = MemoryLog::new(1, Arc::new(System));
        log.ensure_topic("sales", 2).await.unwrap();
        let memory = Arc::new(object_store::memory::InMemory::new());
        let store = Arc::new(Faulty::new(memory.clone(), 1));
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store.clone()).unwrap();
        let behind = Storage::with_store("memory:///lamina/".parse().unwrap(), memory).unwrap();
        let catalog = Catalog::parse(&[("sales.sql".to_owned(), format!("{TABLE}{view}"))]);
        let catalog = Arc::new(catalog.unwrap_or_else(|faults| panic!("{faults}")));
        let handed: Arc<dyn Log> = Arc::new(log.clone());
        let world = World::start(&storage, &handed, &catalog, settings).await.unwrap();
        Self { log, store, behind, storage, catalog, sales: Sales::new(1, 1_000_000, 40), world, produced: 0 }
    }

    /// Appends events to one partition after the other.
    async fn produce(&mut self, count: usize) {
        let events = self.sales.by_ref().take(count);
        let records = events.map(|event| NewRecord { key: None, value: Some(event.into()) }).collect();
        let partition = i32::try_from(self.produced % 2).unwrap();
        self.log.append("sales", partition, records).await.unwrap();
        self.produced += 1;
    }

    async fn end(&self) -> Frontier {
        self.log.bounds("sales").await.unwrap().end
    }

    fn status(&self) -> Status {
        self.world.speed.status("sales")
    }

    async fn wait_until_archived(&self) {
        let end = self.end().await;
        wait_for("the master to have all events", || async {
            let dataset = &self.catalog.datasets["sales"];
            master::Follower::open(&self.storage, dataset, 2).await.unwrap().at().frontier.covers(&end)
        })
        .await;
    }

    /// An answer is what the oracle says of its head.
    async fn check(&self, view: &str, options: &Options) -> Stamp {
        self.check_sql(&format!("SELECT * FROM {view}"), options).await
    }

    async fn check_sql(&self, sql: &str, options: &Options) -> Stamp {
        let (rows, expected, stamp) = self.compare(sql, options).await;
        assert!(same_rows(&rows, &expected, false), "{sql}\n{stamp:?}\ngot {rows:?}\nexpected {expected:?}");
        stamp
    }

    /// The rows of an answer, and what the oracle says of its head.
    async fn compare(&self, sql: &str, options: &Options) -> (Vec<Value>, Vec<Value>, Stamp) {
        let (rows, stamp) = self.world.query(sql, options).await.unwrap();
        let oracle = Oracle::new(self.catalog.clone(), "sales", &read_log(&self.log, "sales").await.unwrap()).await;
        let expected = oracle.unwrap().answer(sql, &stamp.head["sales"]).await.unwrap();
        (rows, expected, stamp)
    }

    /// The same of an answer over all events.
    async fn check_all(&self, view: &str) -> Stamp {
        self.check(view, &at_least("sales", &self.end().await, Duration::from_secs(20))).await
    }

    /// How often states have been made from the master dataset.
    fn rebuilds(&self) -> f64 {
        let families = self.world.registry.gather();
        let family = families.iter().find(|family| family.name() == speed_layer::metrics::REBUILDS);
        family.map_or(0.0, |family| family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_cut_outlives_the_boundaries_around_it() {
    let mut settings = Settings::hasty();
    settings.speed.keep_boundaries = Duration::from_millis(300);
    let mut bed = Bed::start(BY_PRODUCT, settings).await;
    bed.produce(300).await;
    bed.wait_until_archived().await;
    let cut = bed.end().await;
    bed.check_all("by_product").await;

    bed.store.doom("views/by_product", Fate::Hangs);
    let job = bed.world.batch_recompute("by_product").await.unwrap();
    wait_for("the cut to be announced", || async {
        bed.world.batch.job(&job.id).await.unwrap().cut == Some(cut.clone())
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        bed.produce(50).await;
        bed.wait_until_archived().await;
        bed.check_all("by_product").await;
    }
    assert_eq!(bed.world.batch.job(&job.id).await.unwrap().state, State::Running);
    bed.store.spare();

    wait_for("the recompute's version", || async {
        bed.check_all("by_product").await.views["by_product"].batch_version == Some(1)
    })
    .await;
    assert_eq!(bed.check_all("by_product").await.views["by_product"].cut, cut);
    assert_eq!(bed.rebuilds(), 1.0, "no rebuild but that of the start");
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_fit_are_kept_fresh_though_the_tail_does_not_fit() {
    let mut settings = Settings::hasty();
    settings.speed.memory_bytes = 500_000;
    let mut bed = Bed::start(BY_PRODUCT, settings).await;
    bed.produce(100).await;
    bed.wait_until_archived().await;
    bed.store.doom(MASTER, Fate::Hangs);
    for _ in 0..60 {
        bed.produce(1000).await;
        let end = bed.end().await;
        bed.world.speed.reach("sales", &end, Duration::from_secs(20)).await.unwrap();
        assert_eq!(bed.status().stopped, None);
    }
    bed.check_all("by_product").await;

    // The master versions that come now end where the states cannot be cut any more, until one does.
    bed.store.spare();
    bed.wait_until_archived().await;
    let job = bed.world.recompute("by_product").await.unwrap();
    assert_eq!(job.state, State::Succeeded, "{:?}", job.error);
    bed.produce(100).await;
    wait_for("the recompute's version", || async {
        bed.check_all("by_product").await.views["by_product"].batch_version == Some(1)
    })
    .await;
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_stops_the_head_until_a_version_is_published() {
    let mut settings = Settings::hasty();
    settings.speed.memory_bytes = 300_000;
    let mut bed = Bed::start(BY_ORDER, settings).await;
    bed.store.doom(MASTER, Fate::Hangs);
    while bed.status().stopped.is_none_or(|reason| !reason.contains("speed.memory")) {
        assert!(bed.produced < 1000, "the head does not stop");
        bed.produce(500).await;
        let _ = bed.world.speed.reach("sales", &bed.end().await, Duration::from_millis(200)).await;
    }
    bed.produce(500).await;
    let ready = bed.world.engine.ready().await.unwrap_err();
    assert!(ready.iter().any(|reason| reason.contains("speed.memory")), "{ready:?}");
    let stamp = bed.check("by_order", &Options::default()).await;
    assert!(!stamp.head["sales"].is_empty() && !stamp.head["sales"].covers(&bed.end().await), "{stamp:?}");
    assert!(stamp.stopped["sales"].contains("speed.memory"), "{stamp:?}");
    wait_for("the answer to get old", || async {
        bed.check("by_order", &Options::default()).await.freshness_ms.is_some_and(|ms| ms > 300)
    })
    .await;

    bed.store.spare();
    bed.wait_until_archived().await;
    let job = bed.world.recompute("by_order").await.unwrap();
    assert_eq!(job.state, State::Succeeded, "{:?}", job.error);
    let stamp = bed.check_all("by_order").await;
    assert_eq!(stamp.views["by_order"].batch_version, Some(1));
    wait_for("it to be ready", || async { bed.world.engine.ready().await.is_ok() }).await;
    bed.produce(100).await;
    let stamp = bed.check_all("by_order").await;
    assert!(stamp.stopped.is_empty(), "{stamp:?}");
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_out_of_reach_costs_no_state_and_takes_nothing_back() {
    let mut bed = Bed::start(BY_PRODUCT, Settings::hasty()).await;
    bed.store.doom(MASTER, Fate::Hangs);
    bed.produce(500).await;
    assert_eq!(bed.check_all("by_product").await.freshness_ms, Some(0));
    let before = bed.end().await;
    bed.log.fail(1000);
    bed.produce(500).await;
    wait_for("the log to be missed", || async { bed.status().stopped.is_some() }).await;
    for _ in 0..20 {
        let (_, stamp) = bed.world.query("SELECT * FROM by_product", &Options::default()).await.unwrap();
        assert_eq!(stamp.head["sales"], before);
        assert!(stamp.stopped.contains_key("sales"), "{stamp:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bed.log.fail(0);
    assert_eq!(bed.check_all("by_product").await.head["sales"], bed.end().await);
    assert_eq!(bed.rebuilds(), 1.0, "no rebuild but that of the start");
    bed.store.spare();
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_view_is_held_as_long_as_it_is_asked_for() {
    let mut settings = Settings::hasty();
    settings.speed.let_go_after = Duration::from_millis(300);
    let mut bed = Bed::start(BY_PRODUCT, settings).await;
    bed.produce(300).await;
    bed.check_all("by_product").await;

    let old = bed.catalog.views["by_product"].clone();
    let changed =
        format!("{TABLE}{}", BY_PRODUCT.replace("count(*) AS orders", "count(*) AS sold, max(amount) AS most"));
    let catalog = Arc::new(Catalog::parse(&[("sales.sql".to_owned(), changed)]).unwrap());
    bed.world.speed.take_up(catalog.clone());
    bed.world.speed.follow_catalog(0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        bed.produce(20).await;
        bed.check_all("by_product").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    bed.world.engine = bed.world.engine.succeeded_by(catalog.clone()).await.unwrap();
    bed.catalog = catalog;
    let request = common::speed::Request {
        dataset: "sales".to_owned(),
        partitions: [0, 1].into(),
        views: vec![common::speed::ViewRequest {
            view: old.name.clone(),
            definition: old.definition.clone(),
            cuts: vec![Frontier::default()],
            with_failed: false,
        }],
        allow_partial: false,
    };
    let began = Instant::now();
    let mut last = Frontier::default();
    while began.elapsed() < Duration::from_secs(6) {
        bed.produce(20).await;
        // Not to the end: what is there is answered, and never less than before.
        let stamp = bed.check("by_product", &Options::default()).await;
        assert!(stamp.head["sales"].covers(&last), "time went back: {last} and then {}", stamp.head["sales"]);
        last = stamp.head["sales"].clone();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let gone = bed.world.speed.freeze(&request).await;
    assert!(matches!(gone, Err(common::speed::Error::NoCut { .. })), "{gone:?}");
    bed.check_all("by_product").await;
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_named_by_all_its_keys_is_that_group_whatever_else_was_touched() {
    let mut bed = Bed::start(BY_STORE_AND_PRODUCT, Settings::hasty()).await;
    bed.produce(300).await;
    bed.wait_until_archived().await;
    let job = bed.world.recompute("by_store_and_product").await.unwrap();
    assert_eq!(job.state, State::Succeeded, "{:?}", job.error);
    wait_for("the recompute's version", || async {
        bed.check_all("by_store_and_product").await.views["by_store_and_product"].batch_version == Some(1)
    })
    .await;
    // One event: of the groups of its store one is touched, the others are in the batch view alone.
    bed.store.doom(MASTER, Fate::Hangs);
    bed.produce(1).await;
    bed.check_all("by_store_and_product").await;
    let sql = "SELECT store, product_id FROM by_store_and_product ORDER BY store, product_id";
    let (groups, _) = bed.world.query(sql, &Options::default()).await.unwrap();
    assert!(groups.len() > 50, "{} groups", groups.len());
    for group in groups.iter().step_by(3) {
        let (store, product) = (&group["store"], &group["product_id"]);
        let pinned = format!("FROM by_store_and_product WHERE store = {store} AND product_id = {product}");
        for wanted in ["*", "orders", "count(*)"] {
            bed.check_sql(&format!("SELECT {wanted} {pinned}"), &Options::default()).await;
        }
        let nobody = format!("SELECT * {pinned} AND product_id = {product} + 1");
        bed.check_sql(&nobody, &Options::default()).await;
    }
    bed.store.spare();
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recompute_is_done_though_whoever_asked_for_it_has_gone() {
    let mut bed = Bed::start(BY_PRODUCT, Settings::hasty()).await;
    bed.produce(300).await;
    bed.wait_until_archived().await;
    bed.store.doom("jobs", Fate::Hangs);
    let asked = tokio::time::timeout(Duration::from_millis(300), bed.world.batch_recompute("by_product")).await;
    assert!(asked.is_err(), "the job's record cannot be written: {asked:?}");
    bed.store.spare();
    wait_for("the recompute's version", || async {
        bed.check_all("by_product").await.views["by_product"].batch_version == Some(1)
    })
    .await;
    let job = bed.world.recompute("by_product").await.unwrap();
    assert_eq!(job.state, State::Succeeded, "{:?}", job.error);
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_as_lost_leaves_the_answers() {
    let mut bed = Bed::start(BY_PRODUCT, Settings::hasty()).await;
    bed.store.doom(MASTER, Fate::Hangs);
    bed.produce(100).await;
    bed.produce(100).await;
    bed.check_all("by_product").await;
    bed.log.trim("sales", 0, 60);
    let dataset = bed.catalog.datasets["sales"].clone();
    let lost = batch_layer::lost::record(&bed.behind, &bed.log, &dataset, &System).await.unwrap();
    assert_eq!(lost, [batch_layer::lost::Lost { partition: 0, from: 0, to: 60 }]);
    wait_for("the answers to be without them", || async {
        let (rows, expected, _) = bed.compare("SELECT * FROM by_product", &Options::default()).await;
        same_rows(&rows, &expected, false)
    })
    .await;
    bed.check_all("by_product").await;
    bed.store.spare();
    bed.produce(100).await;
    bed.wait_until_archived().await;
    let job = bed.world.recompute("by_product").await.unwrap();
    assert_eq!(job.state, State::Succeeded, "{:?}", job.error);
    bed.check_all("by_product").await;
    bed.world.stop().await.unwrap();
}
