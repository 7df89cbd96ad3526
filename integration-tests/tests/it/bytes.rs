//! Bytes that are not what was written: an answer is right, or an error that names the object and what to do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{
    catalog::{Catalog, View, published},
    clock::System,
    fault::chain,
    jobs::{Jobs, State},
    log::{Log, NewRecord},
    master::{self, Version},
    position::Frontier,
    storage::{Storage, scan::Scan, table::DataFile},
    view::ViewTable,
};
use datafusion::{
    arrow::{datatypes::SchemaRef, util::pretty::pretty_format_batches},
    execution::{TaskContext, memory_pool::UnboundedMemoryPool},
    physical_plan::collect,
};
use futures::TryStreamExt;
use integration_tests::{
    memory_log::MemoryLog,
    workload::{Sales, broken},
    world::{Settings, World, at_least},
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use serde_json::Value;

const CATALOG: &str = "
CREATE TABLE sales (
    order_id BIGINT NOT NULL, product_id BIGINT NOT NULL, customer_id TEXT, quantity INT NOT NULL CHECK (quantity > 0),
    amount DECIMAL(12,2) NOT NULL, created_at TIMESTAMP NOT NULL
) WITH (partitions = 2);
CREATE MATERIALIZED VIEW products WITH (refresh = 'never') AS
SELECT product_id, count(*) AS n, sum(amount) AS total, min(1 / (quantity - 1)) AS share FROM sales GROUP BY product_id;
";

/// A store with everything in it that Lamina writes, and what is in it as it was written.
struct Bed {
    raw: Arc<InMemory>,
    catalog: Arc<Catalog>,
    log: Arc<dyn Log>,
    end: Frontier,
    world: World,
}

impl Bed {
    /// So many rounds of events, each archived by commits of its own.
    async fn new(rounds: usize) -> Self {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(5, Arc::new(System)));
        let raw = Arc::new(InMemory::new());
        let storage = storage(&raw);
        let files = [("sales.sql".to_owned(), CATALOG.to_owned())];
        let catalog = Arc::new(Catalog::parse(&files).unwrap_or_else(|faults| panic!("{faults}")));
        published::publish(&storage, &files).await.unwrap();
        let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
        let (mut sales, mut end) = (Sales::new(5, u64::MAX, 40), Frontier::default());
        for _ in 0..rounds {
            append(&log, &mut sales, &mut end).await;
            archived(&storage, &end).await;
        }
        let bed = Self { raw, catalog, log, end, world };
        let job = bed.world.recompute("products").await.unwrap();
        assert_eq!(job.state, State::Succeeded, "{job:?}");
        bed
    }

    /// Data files of a table.
    async fn parts(&self, table: &str) -> Vec<Path> {
        let mut paths = objects(&self.raw, table).await;
        paths.retain(|path| path.filename().is_some_and(|name| name.starts_with("part-")));
        assert!(!paths.is_empty(), "{table}");
        paths
    }

    async fn ask(&self, sql: &str) -> anyhow::Result<Vec<Value>> {
        let (mut rows, _) = self.world.query(sql, &at_least("sales", &self.end, Duration::from_secs(30))).await?;
        rows.sort_by_key(ToString::to_string);
        Ok(rows)
    }
}

fn storage(raw: &Arc<InMemory>) -> Storage {
    Storage::with_store("memory:///lamina/".parse().unwrap(), raw.clone()).unwrap()
}

/// Appends events to each partition, one of them broken.
async fn append(log: &Arc<dyn Log>, sales: &mut Sales, end: &mut Frontier) {
    let mut random = fastrand::Rng::with_seed(5);
    for partition in 0..2 {
        let events = sales.take(60).collect::<Vec<_>>().into_iter().chain([broken(&mut random)]);
        let records = events.map(|event| NewRecord { key: None, value: Some(event.into()) }).collect();
        let offsets = log.append("sales", partition, records).await.unwrap();
        end.advance(partition, offsets[offsets.len() - 1] + 1);
    }
}

/// Waits until the log is archived.
async fn archived(storage: &Storage, wanted: &Frontier) {
    let table = master::table(storage, "sales").unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let at = table.load(None).await.unwrap();
        if Version::of(&table, &at, "sales", 2).await.unwrap().frontier == *wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{wanted} is not archived");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn objects(raw: &InMemory, prefix: &str) -> Vec<Path> {
    let prefix = Path::from(format!("lamina/{prefix}"));
    let mut paths: Vec<Path> = raw.list(Some(&prefix)).map_ok(|object| object.location).try_collect().await.unwrap();
    paths.sort();
    paths
}

/// Flips a bit of an object that `choose` chooses out of so many; gives which, and what the object was.
async fn flip(raw: &InMemory, path: &Path, choose: impl FnOnce(usize) -> usize) -> (usize, bytes::Bytes) {
    let before = raw.get(path).await.unwrap().bytes().await.unwrap();
    let bit = choose(before.len() * 8);
    let mut flipped = before.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    raw.put(path, flipped.into()).await.unwrap();
    (bit, before)
}

/// All rows of a table's files.
async fn rows(storage: &Storage, table: &str, schema: SchemaRef, files: &[DataFile]) -> anyhow::Result<String> {
    let runtime = storage.runtime(Arc::new(UnboundedMemoryPool::default()))?;
    let plan = Scan::whole(table, schema, files).plan(&runtime)?;
    let context = Arc::new(TaskContext::default().with_runtime(runtime));
    Ok(pretty_format_batches(&collect(plan, context).await?)?.to_string())
}

/// What a process that starts now reads of the part of the store that `path` is in.
async fn read(raw: &Arc<InMemory>, path: &Path, catalog: &Catalog) -> anyhow::Result<String> {
    let storage = storage(raw);
    let parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
    let is_data = path.extension() == Some("parquet") && !path.as_ref().contains("_delta_log");
    let (dataset, view): (_, &View) = (&catalog.datasets["sales"], &catalog.views["products"]);
    match parts[1].as_str() {
        area @ ("master" | "dead_letters") => {
            let (table, schema) = match area {
                "master" => (master::table(&storage, "sales")?, dataset.schema.clone()),
                _ => (master::dead_letters(&storage, "sales")?, master::dead_letters_schema()),
            };
            let at = Version::of(&table, &table.load(None).await?, "sales", 2).await?;
            let files: Vec<DataFile> = at.files.iter().map(|file| (**file).clone()).collect();
            let rows = if is_data { rows(&storage, table.path(), schema, &files).await? } else { String::new() };
            Ok(format!("{at:?}\n{rows}"))
        }
        "views" => {
            let table = ViewTable::new(&storage, view)?;
            let published = table.published(&table.open().await?).await?.unwrap();
            let failed = table.failed(&published).await?;
            let read = if is_data {
                rows(&storage, table.table().path(), table.schema().clone(), &published.files).await?
            } else {
                String::new()
            };
            Ok(format!("{published:?} {failed:?}\n{read}"))
        }
        "jobs" => {
            Ok(format!("{:?}", Jobs::new(storage).get(path.filename().unwrap().trim_end_matches(".json")).await?))
        }
        "catalog" if parts[2] == "versions" => Ok(format!("{:?}", published::newest(&storage).await?)),
        _ => {
            let relative: Path = path.parts().skip(1).collect();
            let text = storage.objects().get(&relative).await?.bytes().await?;
            let read: BTreeMap<String, Value> = serde_json::from_slice(&text)?;
            let known = |name: &str| read.get(name).cloned().ok_or_else(|| anyhow::anyhow!("no `{name}`"));
            Ok(format!("{} {}", known("definition")?, known("sql")?))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_is_silent() {
    let bed = Bed::new(7).await;
    let Bed { raw, catalog, world, .. } = bed;
    // What is in the store stays as it is from now on.
    world.stop().await.unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut told, mut right) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, usize>::new());
    for (area, flips) in [("master", 900), ("dead_letters", 300), ("views", 700), ("catalog", 200), ("jobs", 100)] {
        let mut paths = Vec::new();
        let mut expected = BTreeMap::new();
        for path in objects(&raw, area).await {
            let whole = read(&raw, &path, &catalog).await.unwrap();
            // What is not read at all, such as files that have been merged, is not worth a flip.
            let before = raw.get(&path).await.unwrap().bytes().await.unwrap();
            raw.put(&path, "no more".into()).await.unwrap();
            if !read(&raw, &path, &catalog).await.is_ok_and(|read| read == whole) {
                expected.insert(path.clone(), whole);
                paths.push(path.clone());
            }
            raw.put(&path, before.into()).await.unwrap();
        }
        assert!(!paths.is_empty(), "{area}");
        for i in 0..flips {
            let path = &paths[i % paths.len()];
            let (bit, before) = flip(&raw, path, |bits| random.usize(0..bits)).await;
            match read(&raw, path, &catalog).await {
                Ok(read) => {
                    assert_eq!(read, expected[path], "bit {bit} of `{path}` is silent");
                    *right.entry(area).or_default() += 1;
                }
                Err(error) => {
                    let said = chain(error.as_ref());
                    let is_data = path.extension() == Some("parquet");
                    assert!(
                        !is_data
                            || said.contains("is damaged") && said.contains("restore it from a copy")
                            || said.contains("made anew"),
                        "bit {bit} of `{path}`: {said}"
                    );
                    *told.entry(area).or_default() += 1;
                }
            }
            raw.put(path, before.into()).await.unwrap();
        }
    }
    println!("told {told:?}, right {right:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_view_is_made_anew() {
    let bed = Bed::new(2).await;
    let sql = "SELECT * FROM products";
    let expected = bed.ask(sql).await.unwrap();
    let before = bed.world.query(sql, &Default::default()).await.unwrap().1.views["products"].batch_version;
    for path in bed.parts("views").await {
        flip(&bed.raw, &path, |bits| bits / 3).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut told = 0;
    loop {
        match bed.ask(sql).await {
            Ok(rows) => {
                assert_eq!(rows, expected);
                break;
            }
            Err(error) => {
                let said = chain(error.as_ref());
                assert!(said.contains("views/products/") && said.contains("is damaged"), "{said}");
                told += 1;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "the view is not made anew");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(told > 0, "nobody was told");
    let after = bed.world.query(sql, &Default::default()).await.unwrap().1.views["products"].batch_version;
    assert!(after > before, "{before:?} {after:?}");
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_master_is_told() {
    let bed = Bed::new(2).await;
    let sql = "SELECT count(*) AS n, sum(amount) AS total FROM sales";
    let expected = bed.ask(sql).await.unwrap();
    let mut before = Vec::new();
    for path in bed.parts("master/sales").await {
        let (_, was) = flip(&bed.raw, &path, |bits| bits / 3).await;
        before.push((path, was));
    }
    let said = chain(bed.ask(sql).await.unwrap_err().as_ref());
    assert!(said.contains("master/sales/part-") && said.contains("restore it from a copy"), "{said}");
    bed.log.append("sales", 0, vec![NewRecord { key: None, value: Some("{}".into()) }]).await.unwrap();
    let job = loop {
        let job = bed.world.recompute("products").await.unwrap();
        if job.state == State::Failed {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let said = job.error.unwrap();
    assert!(said.contains("is damaged") && said.contains("restore it from a copy"), "{said}");
    for (path, was) in before {
        bed.raw.put(&path, was.into()).await.unwrap();
    }
    assert_eq!(bed.ask(sql).await.unwrap(), expected);
    bed.world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_failure_took_is_archived_again() {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(5, Arc::new(System)));
    let catalog = Catalog::parse(&[("sales.sql".to_owned(), CATALOG.to_owned())]);
    let catalog = Arc::new(catalog.unwrap_or_else(|faults| panic!("{faults}")));
    let (mut sales, mut end) = (Sales::new(5, u64::MAX, 40), Frontier::default());
    let open = || Storage::open(url.as_str(), &BTreeMap::new()).unwrap();
    let storage = open();
    let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
    for _ in 0..3 {
        append(&log, &mut sales, &mut end).await;
        archived(&storage, &end).await;
    }
    let sql = "SELECT count(*) AS n, sum(amount) AS total FROM sales";
    let (expected, _) = world.query(sql, &at_least("sales", &end, Duration::from_secs(30))).await.unwrap();
    world.stop().await.unwrap();
    // The newest commit by name only, and the file of the one before.
    let table = master::table(&storage, "sales").unwrap();
    let newest = table.load(None).await.unwrap().version();
    let before = table.load(Some(newest - 1)).await.unwrap();
    let master = folder.path().join("master/sales");
    std::fs::write(master.join(format!("_delta_log/{newest:020}.json")), "").unwrap();
    let last = before.files().into_iter().map(|file| file.path).max().unwrap();
    std::fs::write(master.join(last), "").unwrap();
    let storage = open();
    let told = chain(&master::table(&storage, "sales").unwrap().load(None).await.unwrap_err());
    assert!(told.contains("is empty"), "{told}");
    assert!(!storage.take_back_empty().await.unwrap().is_empty());
    let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
    archived(&storage, &end).await;
    let (rows, _) = world.query(sql, &at_least("sales", &end, Duration::from_secs(30))).await.unwrap();
    assert_eq!(rows, expected);
    world.stop().await.unwrap();
}
