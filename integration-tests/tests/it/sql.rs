//! SQL answers, as sqllogictest files in `integration-tests/sql`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{
    access::Scope,
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord},
    storage::Storage,
    values::output,
};
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use futures::TryStreamExt;
use integration_tests::{
    memory_log::MemoryLog,
    world::{Settings, World, at_least},
};
use serving_layer::engine::Options;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/sql"))
}

#[derive(Clone)]
struct Database(Arc<World>);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

#[async_trait]
impl AsyncDB for Database {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let failed = |error: &dyn std::error::Error| Failed(common::fault::chain(error));
        let answer = self.0.engine.sql(sql, &Options::default()).await.map_err(|error| failed(&error))?;
        let batches: Vec<RecordBatch> = answer.rows.try_collect().await.map_err(|error| failed(&error))?;
        let mut rows: Vec<Vec<String>> = Vec::new();
        for batch in &batches {
            rows.extend(
                (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| text(column, row)).collect()),
            );
        }
        let columns = rows.first().map_or(0, Vec::len);
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}
}

/// A value as the files have it: as an answer writes it, but for the quotes.
fn text(column: &ArrayRef, row: usize) -> String {
    let mut text = Vec::new();
    output::write_value(column, row, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    match text.as_str() {
        "null" => "NULL".to_owned(),
        text => serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned()),
    }
}

/// Two events in three go to partition 0; half of them are in the batch views, the rest in the speed layer.
async fn world() -> Arc<World> {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(0, Arc::new(System)));
    let store = Arc::new(object_store::memory::InMemory::new());
    let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
    let sql = std::fs::read_to_string(folder().join("catalog.sql")).unwrap();
    let catalog = Catalog::parse(&[("catalog.sql".to_owned(), sql)]).unwrap_or_else(|faults| panic!("{faults}"));
    let catalog = Arc::new(catalog);
    log.ensure_topic("everything", 2).await.unwrap();
    let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
    let events = std::fs::read_to_string(folder().join("events.ndjson")).unwrap();
    let events: Vec<&str> = events.lines().collect();
    let (first, second) = events.split_at(events.len() / 2);
    for (half, events) in [first, second].into_iter().enumerate() {
        for (i, event) in events.iter().enumerate() {
            let record = NewRecord { key: None, value: Some(event.to_string().into()) };
            log.append("everything", i32::try_from(i % 2).unwrap(), vec![record]).await.unwrap();
        }
        let end = log.bounds("everything").await.unwrap().end;
        let options = at_least("everything", &end, Duration::from_secs(30));
        world.query("SELECT count(*) FROM everything", &options).await.unwrap();
        world.query("SELECT * FROM whole", &options).await.unwrap();
        if half == 0 {
            for view in catalog.views.keys() {
                let job = world.recompute(view).await.unwrap();
                assert_eq!(job.batch_version, Some(1), "{job:?}");
            }
        }
    }
    Arc::new(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    let world = world().await;
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(files.len() >= 2);
    for file in files {
        let database = Database(world.clone());
        let mut runner = Runner::new(move || {
            let database = database.clone();
            async move { Ok(database) }
        });
        runner.run_file_async(&file).await.unwrap_or_else(|error| panic!("{error}"));
    }
    let (_, stamp) = world.query("SELECT * FROM whole", &Options::default()).await.unwrap();
    assert_eq!(stamp.views["whole"].batch_version, Some(1));
    Arc::into_inner(world).unwrap().stop().await.unwrap();
}

/// Also where files of the dead letters were merged, so that they do not come in the order of their commits.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_dead_letters_come_first() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(0, Arc::new(System)));
    let store = Arc::new(object_store::memory::InMemory::new());
    let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
    let sql = "CREATE TABLE sales (id BIGINT NOT NULL);".to_owned();
    let catalog = Arc::new(Catalog::parse(&[("catalog.sql".to_owned(), sql)]).unwrap());
    log.ensure_topic("sales", 2).await.unwrap();
    let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
    let (scope, commits) = (Scope::default(), 13);
    for commit in 0..commits {
        let broken = format!("broken {commit}").repeat(1 + commit % 3 * 40);
        log.append("sales", 1, vec![NewRecord { key: None, value: Some(broken.into()) }]).await.unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let archived = i64::try_from(commit).unwrap() + 1;
        while world.engine.dataset("sales", &scope).await.unwrap().master_frontier.get(1) < archived {
            assert!(std::time::Instant::now() < deadline, "dead letter {commit} is not archived");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for limit in [1, 5, 100] {
        let letters = world.engine.dead_letters("sales", limit, &scope).await.unwrap();
        let offsets: Vec<i64> = letters.iter().map(|letter| letter.offset).collect();
        let newest: Vec<i64> = (0..i64::try_from(commits).unwrap()).rev().take(limit).collect();
        assert_eq!(offsets, newest);
    }
    assert_eq!(world.engine.dataset("sales", &scope).await.unwrap().dead_letters, i64::try_from(commits).unwrap());
    world.stop().await.unwrap();
}
