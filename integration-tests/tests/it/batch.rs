//! The batch layer alone, over a log and a store that are handed in: appending exactly once, recomputes, and what is
//! left after a stop.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use batch_layer::{BatchLayer, Context, Settings};
use common::{
    catalog::Catalog,
    clock::{Clock, System},
    jobs::{Job, Jobs, Kind, State, rfc3339},
    log::{Log, NewRecord},
    master,
    operate::{self, BatchLayer as _},
    position::{Frontier, Offset, Partition},
    storage::{
        Storage,
        scan::Scan,
        table::{DataFile, Table},
    },
    supervisor::Supervisor,
    view::{Published, ViewTable},
};
use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{Int32Type, Int64Type, SchemaRef},
    },
    execution::{TaskContext, memory_pool::UnboundedMemoryPool},
    physical_plan::collect,
};
use integration_tests::{
    faults::{Fate, Faulty, Odds},
    memory_log::MemoryLog,
    oracle::{Oracle, read_log, same_rows},
    workload::Sales,
};
use serde_json::Value;

use crate::simulation::wait_for;

const CATALOG: &str = "
CREATE TABLE sales (
  order_id BIGINT NOT NULL, product_id BIGINT NOT NULL, customer_id TEXT, store INT NOT NULL,
  quantity INT NOT NULL CHECK (quantity > 0), amount DECIMAL(12,2) NOT NULL, created_at TIMESTAMP NOT NULL
) WITH (partitions = 3);
CREATE MATERIALIZED VIEW by_product WITH (refresh = 'never') AS
SELECT product_id, count(*) AS orders, sum(quantity) AS quantity, sum(amount) AS amount, avg(amount) AS average
FROM sales GROUP BY product_id;
CREATE MATERIALIZED VIEW by_order WITH (refresh = 'never') AS
SELECT order_id, customer_id, max(amount) AS amount, count(DISTINCT store) AS stores
FROM sales GROUP BY order_id, customer_id;
CREATE MATERIALIZED VIEW often WITH (refresh = 'never') AS
SELECT CASE WHEN product_id % 5 = 0 THEN NULL ELSE product_id END AS product, max(created_at) AS newest,
       last_value(customer_id ORDER BY created_at) AS customer
FROM sales WHERE quantity > 2 GROUP BY 1 HAVING count(*) > 3;
CREATE MATERIALIZED VIEW total WITH (refresh = 'never') AS
SELECT count(*) AS orders, sum(amount) AS amount, approx_distinct(customer_id) AS customers FROM sales;
CREATE MATERIALIZED VIEW none WITH (refresh = 'never') AS
SELECT store, count(*) AS orders FROM sales WHERE quantity > 1000 GROUP BY store;
";

/// A log and a store, and what has been put into the log.
struct Bed {
    log: MemoryLog,
    store: Arc<Faulty>,
    storage: Storage,
    catalog: Arc<Catalog>,
    sales: Sales,
    random: fastrand::Rng,
    usable: Vec<(Partition, Offset)>,
    dead: Vec<(Partition, Offset)>,
    end: Frontier,
}

/// A batch layer at work.
struct Layer {
    batch: Arc<BatchLayer>,
    supervisor: Supervisor,
    registry: prometheus::Registry,
}

impl Bed {
    async fn new(seed: u64) -> Self {
        let store = Arc::new(Faulty::new(Arc::new(object_store::memory::InMemory::new()), seed));
        let log = MemoryLog::new(seed, Arc::new(System));
        log.ensure_topic("sales", 3).await.unwrap();
        Self {
            log,
            storage: Storage::with_store("memory:///lamina/".parse().unwrap(), store.clone()).unwrap(),
            store,
            catalog: catalog(CATALOG),
            sales: Sales::new(seed, 100_000, 40),
            random: fastrand::Rng::with_seed(seed),
            usable: Vec::new(),
            dead: Vec::new(),
            end: Frontier::default(),
        }
    }

    /// Appends events, of which some are dead, and leaves a gap now and then.
    async fn produce(&mut self, count: usize) {
        for _ in 0..count.div_ceil(100) {
            let partition = self.random.i32(0..3);
            let mut is_dead = Vec::new();
            let mut records = Vec::new();
            for _ in 0..count.min(100) {
                let value = self.sales.next().unwrap();
                let (dead, value) = match self.random.u8(0..20) {
                    0 => (true, Some(b"{\"order_id\": 1".to_vec())),
                    1 => (true, None),
                    2 => {
                        (true, Some(String::from_utf8(value).unwrap().replace("quantity\": ", "quantity\": -").into()))
                    }
                    _ => (false, Some(value)),
                };
                is_dead.push(dead);
                records.push(NewRecord { key: None, value: value.map(Into::into) });
            }
            let offsets = self.log.append("sales", partition, records).await.unwrap();
            for (dead, offset) in is_dead.into_iter().zip(offsets) {
                let positions = if dead { &mut self.dead } else { &mut self.usable };
                positions.push((partition, offset));
            }
            if self.random.bool() {
                self.log.skip("sales", partition, 2);
            }
        }
        self.end = self.log.bounds("sales").await.unwrap().end;
    }

    async fn start(&self, settings: Settings) -> Layer {
        self.try_start(&self.catalog, settings).await.unwrap()
    }

    async fn try_start(&self, catalog: &Arc<Catalog>, settings: Settings) -> Result<Layer, batch_layer::Error> {
        let (supervisor, registry) = (Supervisor::new(), prometheus::Registry::new());
        let batch = BatchLayer::start(Context {
            storage: self.storage.clone(),
            log: Arc::new(self.log.clone()),
            catalog: catalog.clone(),
            clock: Arc::new(System),
            supervisor: supervisor.clone(),
            registry: registry.clone(),
            compute: tokio::runtime::Handle::current(),
            settings,
        })
        .await?;
        Ok(Layer { batch, supervisor, registry })
    }

    async fn master(&self) -> master::Follower {
        master::Follower::open(&self.storage, &self.catalog.datasets["sales"], 3).await.unwrap()
    }

    async fn dead_letters(&self) -> master::Follower {
        master::Follower::open_dead_letters(&self.storage, &self.catalog.datasets["sales"], 3).await.unwrap()
    }

    async fn wait_until_archived(&self) {
        let dataset = &self.catalog.datasets["sales"];
        wait_for("the end of the log in the master", || async {
            // The store may be failing.
            let master = master::Follower::open(&self.storage, dataset, 3).await;
            master.is_ok_and(|master| master.at().frontier == self.end)
        })
        .await;
    }

    /// Every usable event is in the master once, every other one is a dead letter once, and the counts say so.
    async fn check_archived(&mut self, what: &str) {
        let (master, dead) = (self.master().await, self.dead_letters().await);
        let dataset = &self.catalog.datasets["sales"];
        let cases = [
            ("usable", &master, dataset.schema.clone(), &mut self.usable),
            ("dead", &dead, master::dead_letters_schema(), &mut self.dead),
        ];
        for (kind, table, schema, expected) in cases {
            let found = positions(&self.storage, table, schema).await;
            expected.sort_unstable();
            assert_eq!(&found, expected, "{what}: {kind} events");
            assert_eq!(table.at().rows, i64::try_from(found.len()).unwrap(), "{what}: count of {kind} events");
        }
        assert_eq!(master.at().frontier, self.end, "{what}");
    }

    async fn published(&self, view: &str) -> Option<Published> {
        let table = ViewTable::new(&self.storage, &self.catalog.views[view]).unwrap();
        table.published(&table.open().await.unwrap()).await.unwrap()
    }

    /// The rows of a batch view version, file by file.
    async fn view_files(&self, view: &str, version: &Published) -> Vec<RecordBatch> {
        let table = ViewTable::new(&self.storage, &self.catalog.views[view]).unwrap();
        let mut files = Vec::new();
        for file in version.files.iter() {
            let rows = read(&self.storage, table.table(), table.schema().clone(), std::slice::from_ref(file)).await;
            files.push(datafusion::arrow::compute::concat_batches(table.schema(), &rows).unwrap());
        }
        files
    }

    /// The batch view version holds what the view's SQL gives at its cut, each file sorted by the group keys.
    async fn check_view(&self, view: &str, version: &Published, what: &str) {
        let events = read_log(&self.log, "sales").await.unwrap();
        let oracle = Oracle::new(self.catalog.clone(), "sales", &events).await.unwrap();
        let expected = oracle.answer(&format!("SELECT * FROM {view}"), &version.cut).await.unwrap();
        let fold = &self.catalog.views[view].fold;
        let mut found = Vec::new();
        let mut groups = 0;
        for rows in self.view_files(view, version).await {
            groups += rows.num_rows();
            let keys: Vec<_> = fold.keys().iter().map(|&key| rows.column(key).clone()).collect();
            assert!(is_sorted(&keys), "{what}: a file of {view} is not sorted by its keys");
            found.extend(visible_rows(fold, &rows));
        }
        assert_eq!(version.rows, i64::try_from(groups).unwrap(), "{what}: groups of {view}");
        assert!(same_rows(&found, &expected, false), "{what}: {view}\ngot {found:?}\nexpected {expected:?}");
    }
}

impl Layer {
    async fn stop(self) {
        self.supervisor.stop();
        tokio::time::timeout(Duration::from_secs(20), self.supervisor.wait()).await.expect("it stops").unwrap();
    }

    async fn recompute(&self, view: &str) -> Job {
        let job = self.batch.recompute(view).await.unwrap();
        self.end_of(&job.id).await
    }

    async fn end_of(&self, id: &str) -> Job {
        self.job_when(id, |job| matches!(job.state, State::Succeeded | State::Failed)).await
    }

    async fn job_when(&self, id: &str, is_so: impl Fn(&Job) -> bool) -> Job {
        let found = std::cell::RefCell::new(None);
        wait_for("the job", || async {
            let job = self.batch.job(id).await.unwrap();
            let so = is_so(&job);
            *found.borrow_mut() = Some(job);
            so
        })
        .await;
        found.into_inner().unwrap()
    }

    fn restarts(&self) -> f64 {
        let families = self.registry.gather();
        let restarts = families.iter().find(|family| family.name() == batch_layer::metrics::RESTARTS);
        restarts.map_or(0.0, |family| family.get_metric()[0].get_counter().get_value())
    }
}

fn catalog(sql: &str) -> Arc<Catalog> {
    Arc::new(Catalog::parse(&[("sales.sql".to_owned(), sql.to_owned())]).unwrap_or_else(|faults| panic!("{faults}")))
}

/// Small batches, soon.
fn hasty(owner: &str) -> Settings {
    Settings {
        flush_rows: 200,
        flush_age: Duration::from_millis(20),
        merge_files: 3,
        parallelism: 3,
        owner: owner.to_owned(),
        ..Settings::default()
    }
}

async fn read(storage: &Storage, table: &Table, schema: SchemaRef, files: &[DataFile]) -> Vec<RecordBatch> {
    let runtime = storage.runtime(Arc::new(UnboundedMemoryPool::default())).unwrap();
    let plan = Scan::whole(table.path(), schema, files).plan(&runtime).unwrap();
    collect(plan, Arc::new(TaskContext::default().with_runtime(runtime))).await.unwrap()
}

/// Positions in the rows of a master table or of its dead letters, sorted; doubled ones twice.
async fn positions(storage: &Storage, at: &master::Follower, schema: SchemaRef) -> Vec<(Partition, Offset)> {
    let files: Vec<DataFile> = at.at().files.iter().map(|file| file.as_ref().clone()).collect();
    let mut positions = Vec::new();
    for rows in read(storage, at.table(), schema, &files).await {
        let partitions = rows.column_by_name("_partition").unwrap().as_primitive::<Int32Type>().values().to_vec();
        let offsets = rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
        positions.extend(partitions.into_iter().zip(offsets));
    }
    positions.sort_unstable();
    positions
}

fn is_sorted(keys: &[datafusion::arrow::array::ArrayRef]) -> bool {
    use datafusion::arrow::row::{RowConverter, SortField};
    if keys.is_empty() {
        return true;
    }
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    let rows = RowConverter::new(fields).unwrap().convert_columns(keys).unwrap();
    (1..rows.num_rows()).all(|i| rows.row(i - 1) < rows.row(i))
}

fn visible_rows(fold: &common::fold::Fold, rows: &RecordBatch) -> Vec<Value> {
    let passes = fold.has_having().then(|| rows.column_by_name(common::fold::HAVING).unwrap().as_boolean().clone());
    let visible = rows.project(&(0..fold.visible()).collect::<Vec<_>>()).unwrap();
    let mut text = Vec::new();
    common::values::output::write_rows(&visible, &mut text, b"\n").unwrap();
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .enumerate()
        .filter(|(i, _)| passes.as_ref().is_none_or(|passes| passes.is_valid(*i) && passes.value(*i)))
        .map(|(_, row)| row)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_archived_once_whatever_the_store_does() {
    let cases = [
        ("a store that is well", Odds::default(), 1),
        ("calls that fail before", Odds { before: 120, ..Odds::default() }, 1),
        ("calls that fail after", Odds { after: 120, ..Odds::default() }, 1),
        ("calls that fail or stall", Odds { before: 60, after: 60, stall: 100 }, 1),
        ("a second appender", Odds::default(), 2),
        ("a second appender and failing calls", Odds { before: 50, after: 50, stall: 50 }, 2),
    ];
    for (seed, (what, odds, appenders)) in (1..).zip(cases) {
        let mut bed = Bed::new(seed).await;
        let mut layers = Vec::new();
        for appender in 0..appenders {
            layers.push(bed.start(hasty(&format!("appender {appender}"))).await);
        }
        for _ in 0..6 {
            bed.store.set(odds);
            for _ in 0..5 {
                bed.produce(100).await;
                // Each handful is a batch of its own, if all goes well.
                let _ = tokio::time::timeout(Duration::from_millis(50), bed.wait_until_archived()).await;
            }
            bed.store.set(Odds::default());
            let stopped = layers.remove(0);
            stopped.stop().await;
            layers.push(bed.start(hasty("the next")).await);
        }
        bed.wait_until_archived().await;
        for layer in layers {
            layer.stop().await;
        }
        bed.check_archived(what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_are_merged_and_no_event_changes() {
    let mut bed = Bed::new(8).await;
    let layer = bed.start(hasty("only")).await;
    for _ in 0..30 {
        bed.produce(100).await;
        bed.wait_until_archived().await;
    }
    layer.stop().await;
    for table in [bed.master().await, bed.dead_letters().await] {
        let (path, files) = (table.table().path(), table.at().files.len());
        assert!(table.at().version > 30, "{path}: {}", table.at().version);
        assert!(files < 10, "{path}: {files} files");
    }
    bed.check_archived("with merged files").await;
    let master = bed.master().await;
    assert_eq!(master.table().vacuum(Duration::from_secs(3600)).await.unwrap(), 0, "somebody may still read them");
    assert!(master.table().vacuum(Duration::ZERO).await.unwrap() > 20);
    bed.check_archived("without the files that were merged").await;
    // Commits that say nothing of events are none to go by.
    let layer = bed.start(hasty("next")).await;
    bed.produce(300).await;
    bed.wait_until_archived().await;
    assert_eq!(layer.recompute("by_product").await.state, State::Succeeded);
    layer.stop().await;
    bed.check_archived("after all").await;
    let version = bed.published("by_product").await.unwrap();
    assert_eq!(version.cut, bed.end);
    bed.check_view("by_product", &version, "after all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_archives_what_has_been_read() {
    let mut bed = Bed::new(7).await;
    let patient = Settings { flush_age: Duration::from_secs(3600), flush_rows: usize::MAX, ..hasty("patient") };
    let layer = bed.start(patient).await;
    bed.produce(300).await;
    let seen = |layer: &Layer| {
        let families = layer.registry.gather();
        let behind = families.iter().find(|family| family.name() == batch_layer::metrics::UNARCHIVED);
        behind.is_some_and(|family| family.get_metric()[0].get_gauge().get_value() >= 300.0)
    };
    // What is only read is no less behind.
    wait_for("the events to be seen", || async { seen(&layer) }).await;
    let frontier = bed.master().await.at().frontier.clone();
    assert!(frontier.is_empty(), "{frontier}");
    layer.stop().await;
    assert!(!bed.master().await.at().frontier.is_empty());
    // What had not been read by then is, by the next.
    let layer = bed.start(hasty("next")).await;
    bed.wait_until_archived().await;
    layer.stop().await;
    bed.check_archived("after a stop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_not_doubled_when_the_master_did_not_follow() {
    let mut bed = Bed::new(3).await;
    let layer = bed.start(hasty("first")).await;
    wait_for("the tables", || async { bed.master().await.table().exists().await.unwrap() }).await;
    wait_for("the tables", || async { bed.dead_letters().await.table().exists().await.unwrap() }).await;
    bed.store.doom("master/sales/_delta_log", Fate::FailsBefore);
    bed.produce(1000).await;
    wait_for("dead letters", || async { bed.dead_letters().await.at().rows > 0 }).await;
    layer.stop().await;
    assert!(bed.master().await.at().frontier.is_empty());
    let archived = bed.dead_letters().await.at().rows;
    bed.store.spare();
    let layer = bed.start(hasty("second")).await;
    bed.wait_until_archived().await;
    layer.stop().await;
    assert!(bed.dead_letters().await.at().rows >= archived);
    bed.check_archived("after the replay").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_is_tried_again_with_the_same_files() {
    let mut bed = Bed::new(4).await;
    let layer = bed.start(hasty("only")).await;
    wait_for("the tables", || async { bed.dead_letters().await.table().exists().await.unwrap() }).await;
    let stored = || async {
        let prefix = object_store::path::Path::from("master/sales");
        let listed = bed.storage.objects().list_with_delimiter(Some(&prefix)).await.unwrap();
        listed.objects.len()
    };
    for fate in [Fate::FailsBefore, Fate::FailsAfter] {
        let before = stored().await;
        bed.store.doom("master/sales/_delta_log", fate);
        let partition = bed.random.i32(0..3);
        let value = bed.sales.next().unwrap();
        let record = NewRecord { key: None, value: Some(value.into()) };
        let offsets = bed.log.append("sales", partition, vec![record]).await.unwrap();
        bed.usable.push((partition, offsets[0]));
        bed.end = bed.log.bounds("sales").await.unwrap().end;
        wait_for("the file", || async { stored().await > before }).await;
        if fate == Fate::FailsBefore {
            // Several tries come to nothing.
            assert!(tokio::time::timeout(Duration::from_millis(400), bed.wait_until_archived()).await.is_err());
            bed.store.spare();
        }
        bed.wait_until_archived().await;
        assert_eq!(stored().await, before + 1, "{fate:?}");
        bed.store.spare();
    }
    assert_eq!(layer.restarts(), 0.0);
    layer.stop().await;
    bed.check_archived("after all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_at_the_end_is_archived_too() {
    let mut bed = Bed::new(5).await;
    let layer = bed.start(hasty("only")).await;
    bed.produce(10).await;
    bed.wait_until_archived().await;
    bed.log.skip("sales", 1, 3);
    bed.end = bed.log.bounds("sales").await.unwrap().end;
    bed.wait_until_archived().await;
    layer.stop().await;
    bed.check_archived("with a gap").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_made_anew_stops_the_line() {
    let mut bed = Bed::new(6).await;
    let layer = bed.start(hasty("first")).await;
    bed.produce(500).await;
    bed.wait_until_archived().await;
    layer.stop().await;
    let (before, usable, dead) = (bed.master().await.at().clone(), bed.usable.clone(), bed.dead.clone());
    let cases = [("longer than the old one", 2000), ("shorter than the old one", 100), ("empty", 0)];
    for (seed, (what, events)) in (60..).zip(cases) {
        bed.log = MemoryLog::new(seed, Arc::new(System));
        bed.log.ensure_topic("sales", 3).await.unwrap();
        bed.produce(events).await;
        let layer = bed.start(hasty("second")).await;
        wait_for("an error", || async { layer.restarts() >= 1.0 }).await;
        layer.stop().await;
        assert_eq!(bed.master().await.at().version, before.version, "{what}");
    }
    (bed.usable, bed.dead, bed.end) = (usable, dead, before.frontier);
    bed.check_archived("in the end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recompute_gives_what_the_plain_query_gives() {
    let cases = [("no events", 0, 2 << 30, 3), ("one partition", 400, 2 << 30, 1), ("several", 3000, 2 << 30, 3)];
    let mut bed = Bed::new(8).await;
    let mut batch_version = 0;
    for (what, events, memory_bytes, parallelism) in cases {
        bed.produce(events).await;
        let layer = bed.start(Settings { memory_bytes, parallelism, ..hasty("only") }).await;
        bed.wait_until_archived().await;
        batch_version += i64::from(events > 0);
        for view in bed.catalog.views.keys() {
            let job = layer.recompute(view).await;
            let error = job.error.as_deref();
            assert_eq!((job.state, error), (State::Succeeded, None), "{what}: {view}");
            assert_eq!(job.batch_version, (events > 0).then_some(batch_version), "{what}: {view}");
            let Some(version) = bed.published(view).await else { continue };
            assert_eq!((version.batch_version, &version.cut), (batch_version, &bed.end), "{what}: {view}");
            bed.check_view(view, &version, what).await;
        }
        // Nothing is new: nothing is published.
        let job = layer.recompute("total").await;
        assert_eq!((job.state, job.batch_version), (State::Succeeded, None), "{what}");
        layer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_all_dead_are_a_version_too() {
    let mut bed = Bed::new(14).await;
    let records = vec![NewRecord { key: None, value: Some("{".into()) }; 3];
    for offset in bed.log.append("sales", 0, records).await.unwrap() {
        bed.dead.push((0, offset));
    }
    bed.end = bed.log.bounds("sales").await.unwrap().end;
    let layer = bed.start(hasty("only")).await;
    bed.wait_until_archived().await;
    for view in bed.catalog.views.keys() {
        let job = layer.recompute(view).await;
        assert_eq!((job.state, job.batch_version), (State::Succeeded, Some(1)), "{view}: {:?}", job.error);
        let version = bed.published(view).await.unwrap();
        bed.check_view(view, &version, "without usable events").await;
    }
    layer.stop().await;
    bed.check_archived("without usable events").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_recomputes_one_wins_and_the_other_says_so() {
    let mut bed = Bed::new(9).await;
    bed.produce(2000).await;
    let (one, other) = (bed.start(hasty("one")).await, bed.start(hasty("other")).await);
    bed.wait_until_archived().await;
    ViewTable::new(&bed.storage, &bed.catalog.views["by_product"]).unwrap().open().await.unwrap();
    bed.store.doom("views/by_product", Fate::FailsBefore);
    let jobs = [one.batch.recompute("by_product").await.unwrap(), other.batch.recompute("by_product").await.unwrap()];
    // In one process it is not even begun.
    let refused = one.batch.recompute("by_product").await;
    assert!(matches!(refused, Err(operate::Error::Running { ref id, .. }) if *id == jobs[0].id), "{refused:?}");
    assert!(matches!(one.batch.recompute("nope").await, Err(operate::Error::UnknownView { .. })));
    one.end_of(&jobs[0].id).await;
    other.end_of(&jobs[1].id).await;
    assert_eq!(bed.published("by_product").await, None, "no file could be written");

    // Both have seen the table before either can commit to it.
    bed.store.doom("views/by_product/", Fate::Stalls);
    bed.store.doom("_delta_log/00000000000000000001.json", Fate::FailsBefore);
    let jobs = [one.batch.recompute("by_product").await.unwrap(), other.batch.recompute("by_product").await.unwrap()];
    one.job_when(&jobs[0].id, |job| job.cut.is_some()).await;
    other.job_when(&jobs[1].id, |job| job.cut.is_some()).await;
    bed.store.spare();
    let ended = [one.end_of(&jobs[0].id).await, other.end_of(&jobs[1].id).await];
    let won: Vec<_> = ended.iter().filter(|job| job.state == State::Succeeded).collect();
    let lost: Vec<_> = ended.iter().filter(|job| job.state == State::Failed).collect();
    assert_eq!((won.len(), lost.len()), (1, 1), "{ended:?}");
    assert_eq!(won[0].batch_version, Some(1));
    let said = lost[0].error.as_deref().unwrap();
    assert!(said.contains("another recompute published batch version 1 of view `by_product`"), "{said}");
    let version = bed.published("by_product").await.unwrap();
    assert_eq!(version.batch_version, 1);
    bed.check_view("by_product", &version, "the winner's").await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_whose_commit_says_it_failed_is_looked_at() {
    let mut bed = Bed::new(10).await;
    bed.produce(2000).await;
    let settings = Settings { retention: Duration::from_millis(400), file_rows: 500, ..hasty("only") };
    let layer = bed.start(settings).await;
    bed.wait_until_archived().await;
    let views = ["by_order", "total", "none"];
    for view in views {
        ViewTable::new(&bed.storage, &bed.catalog.views[view]).unwrap().open().await.unwrap();
    }
    bed.store.doom("_delta_log/00000000000000000001.json", Fate::FailsAfter);
    for view in views {
        let job = layer.recompute(view).await;
        assert_eq!((job.state, job.batch_version), (State::Succeeded, Some(1)), "{view}: {:?}", job.error);
        let version = bed.published(view).await.unwrap();
        bed.check_view(view, &version, "after a commit that was durable").await;
    }
    assert!(bed.published("by_order").await.unwrap().files.len() > 1, "several files, in whatever order");

    // Files that have waited too long for their commit may be deleted at any time: they are given up.
    ViewTable::new(&bed.storage, &bed.catalog.views["often"]).unwrap().open().await.unwrap();
    bed.store.doom("_delta_log/00000000000000000001.json", Fate::FailsBefore);
    let job = layer.recompute("often").await;
    let said = job.error.as_deref().unwrap_or_default();
    assert!(job.state == State::Failed && said.contains("batch.retention"), "{job:?}");
    assert_eq!(bed.published("often").await, None);
    layer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_else_has_changed_is_not_published_from() {
    let mut bed = Bed::new(11).await;
    bed.produce(500).await;
    let layer = bed.start(hasty("only")).await;
    bed.wait_until_archived().await;
    let master = bed.master().await;
    let snapshot = master.table().load(None).await.unwrap();
    let removed = snapshot.removals().into_iter().take(1).collect();
    master.table().commit(&snapshot, &[], removed, &[].into(), System.now_ms()).await.unwrap();
    let job = layer.recompute("total").await;
    let said = job.error.as_deref().unwrap_or_default();
    assert!(job.state == State::Failed && said.contains("nothing is published"), "{job:?}");
    assert_eq!(bed.published("total").await, None);
    layer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_and_jobs_go_on_after_a_restart() {
    let mut bed = Bed::new(12).await;
    bed.catalog = catalog(&CATALOG.replacen("refresh = 'never'", "refresh = '1 hour'", 1));
    bed.produce(500).await;
    let jobs = Jobs::new(bed.storage.clone());
    let left = |id: &str, owner: &str| Job {
        id: id.to_owned(),
        view: "total".to_owned(),
        definition: bed.catalog.views["total"].definition.clone(),
        kind: Kind::Recompute,
        state: State::Running,
        progress: 0.3,
        cut: None,
        batch_version: None,
        error: None,
        created_at: rfc3339(0),
        started_at: Some(rfc3339(0)),
        ended_at: None,
        owner: owner.to_owned(),
        heartbeat_ms: System.now_ms(),
    };
    jobs.put(&left("1", "mine")).await.unwrap();
    jobs.put(&left("2", "somebody else")).await.unwrap();
    // A view that has no batch version is due at once, and again while there is nothing to read.
    let layer = bed.start(hasty("mine")).await;
    assert_eq!(layer.batch.job("1").await.unwrap().error.as_deref(), Some("the process that ran it ended"));
    assert_eq!(layer.batch.job("2").await.unwrap().state, State::Running);
    assert!(matches!(layer.batch.job("3").await, Err(operate::Error::UnknownJob { .. })));
    bed.wait_until_archived().await;
    let done = layer.recompute("total").await;
    layer.stop().await;

    let layer = bed.start(hasty("mine")).await;
    assert_eq!(layer.batch.job(&done.id).await.unwrap(), done);
    wait_for("the scheduled version", || async { bed.published("by_product").await.is_some() }).await;
    layer.stop().await;
    let ended: BTreeSet<_> = jobs.list(usize::MAX).await.unwrap().into_iter().map(|job| (job.view, job.state)).fold(
        BTreeSet::new(),
        |mut seen, (view, state)| {
            seen.insert((view, format!("{state:?}")));
            seen
        },
    );
    assert!(ended.contains(&("by_product".to_owned(), "Succeeded".to_owned())), "{ended:?}");

    // Once it has one, a restart is no reason for another.
    let version = bed.published("by_product").await.unwrap();
    bed.produce(100).await;
    let layer = bed.start(hasty("mine")).await;
    bed.wait_until_archived().await;
    layer.recompute("total").await;
    assert_eq!(bed.published("by_product").await.unwrap().batch_version, version.batch_version);
    layer.stop().await;
}

#[tokio::test]
async fn a_changed_dataset_is_refused() {
    let bed = Bed::new(13).await;
    bed.start(hasty("first")).await.stop().await;
    bed.start(hasty("the same again")).await.stop().await;
    let cases = [
        (CATALOG.replace("quantity INT NOT NULL", "quantity BIGINT NOT NULL"), Some("`INT NOT NULL`")),
        (CATALOG.replace("(quantity > 0)", "(quantity > 1)"), Some("is new")),
        (CATALOG.replace("partitions = 3", "partitions = 4"), None),
    ];
    for (sql, said) in cases {
        let started = bed.try_start(&catalog(&sql), hasty("changed")).await;
        match (started, said) {
            (Err(error), Some(said)) => {
                let error = error.to_string();
                assert!(error.contains("`sales`") && error.contains(said), "{error}");
            }
            (Ok(layer), None) => layer.stop().await,
            (started, said) => panic!("{said:?}: {:?}", started.err()),
        }
    }
}
