//! Through the whole system, as a user has it: a `lamina` process that is stopped and killed while events flow,
//! recomputes publish and a client queries without pause. The oracle checks every answer.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    catalog::Catalog,
    clock::System,
    log::{Log, embedded::Embedded, kafka::Kafka},
    position::Frontier,
};
use integration_tests::{
    oracle::{Event, Oracle, read_log, same_rows},
    sandbox::{
        self, cache,
        process::{Lamina, free_port},
        s3::S3,
    },
    workload::{Sales, broken},
};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::{Value, json};

const CATALOG: &str = "
CREATE TABLE sales (
  order_id BIGINT NOT NULL, product_id BIGINT NOT NULL, customer_id TEXT, store INT NOT NULL,
  quantity INT NOT NULL CHECK (quantity > 0), amount DECIMAL(12,2) NOT NULL, created_at TIMESTAMP NOT NULL
) WITH (partitions = 3);
CREATE MATERIALIZED VIEW by_product WITH (refresh = '1 second') AS
SELECT product_id, count(*) AS orders, sum(amount) AS amount, avg(amount) AS average FROM sales GROUP BY product_id;
CREATE MATERIALIZED VIEW by_store WITH (refresh = '2 seconds') AS
SELECT store, count(*) AS orders, approx_distinct(customer_id) AS customers, max(amount) AS largest
FROM sales GROUP BY store HAVING count(*) > 2;
CREATE MATERIALIZED VIEW total WITH (refresh = '1 second') AS SELECT count(*) AS orders, sum(amount) AS amount FROM sales;
";

const QUERIES: [&str; 5] = [
    "SELECT * FROM total",
    "SELECT * FROM by_product WHERE product_id = 7",
    "SELECT product_id, amount FROM by_product ORDER BY amount DESC, product_id LIMIT 5",
    "SELECT * FROM by_store",
    "SELECT sum(orders) AS orders FROM by_product",
];

#[derive(Clone, Debug)]
struct Answer {
    sql: &'static str,
    life: u64,
    rows: Vec<Value>,
    head: Frontier,
    batch_version: Option<i64>,
}

/// What the threads of one run share.
struct Shared {
    url: String,
    stop: AtomicBool,
    life: AtomicU64,
    answers: Mutex<Vec<Answer>>,
    /// Positions that were acknowledged.
    acknowledged: Mutex<Frontier>,
    errors: AtomicU64,
}

impl Shared {
    fn new(port: u16) -> Arc<Self> {
        Arc::new(Self {
            url: format!("http://127.0.0.1:{port}"),
            stop: AtomicBool::new(false),
            life: AtomicU64::new(0),
            answers: Mutex::default(),
            acknowledged: Mutex::default(),
            errors: AtomicU64::new(0),
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Asks without pause.
async fn ask(shared: Arc<Shared>) {
    let client = reqwest::Client::new();
    for sql in QUERIES.iter().cycle() {
        if shared.stopped() {
            return;
        }
        let life = shared.life.load(Ordering::Relaxed);
        let asked = client.post(format!("{}/v1/sql", shared.url)).json(&json!({"sql": sql})).send().await;
        let Ok(response) = asked else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let status = response.status();
        // A process that is killed breaks its answers off; one that ends like this is no answer.
        let Ok(body) = response.json::<Value>().await else { continue };
        if !status.is_success() {
            assert_eq!(status, 503, "{body}");
            shared.errors.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let head = serde_json::from_value(body["stamp"]["head"]["sales"].clone()).unwrap();
        let view = body["stamp"]["views"].as_object().unwrap().values().next().unwrap();
        let batch_version = view["batch_version"].as_i64();
        let rows = body["rows"].as_array().unwrap().clone();
        shared.answers.lock().unwrap().push(Answer { sql, life, rows, head, batch_version });
    }
}

/// Sends events over HTTP; what was acknowledged is noted.
async fn send(shared: Arc<Shared>) {
    let client = reqwest::Client::new();
    let mut sales = Sales::new(3, 1_000_000, 40);
    while !shared.stopped() {
        let events: Vec<Vec<u8>> = sales.by_ref().take(20).collect();
        let body = events.join(&b'\n');
        let request = client
            .post(format!("{}/v1/datasets/sales/events", shared.url))
            .header("content-type", "application/x-ndjson");
        if let Ok(response) = request.body(body).send().await
            && response.status().is_success()
            && let Ok(answer) = response.json::<Value>().await
        {
            let frontier: Frontier = serde_json::from_value(answer["frontier"]["sales"].clone()).unwrap();
            shared.acknowledged.lock().unwrap().join(&frontier);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Produces events with Kafka's own kind of client, some of them broken.
fn produce(shared: &Shared, brokers: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).set("enable.idempotence", "true").create().unwrap();
    let mut sales = Sales::new(4, 1_000_000, 40);
    let mut random = fastrand::Rng::with_seed(4);
    while !shared.stopped() {
        for event in sales.by_ref().take(20) {
            let event = if random.u8(0..40) == 0 { broken(&mut random) } else { event };
            let record = BaseRecord::<(), [u8]>::to("sales").partition(random.i32(0..3)).payload(&event);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

struct Setup {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    port: u16,
}

impl Setup {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = folder.path().join("catalog");
        std::fs::create_dir_all(&catalog).unwrap();
        std::fs::write(catalog.join("sales.sql"), CATALOG).unwrap();
        let file = folder.path().join("lamina.toml");
        std::fs::write(&file, format!("{settings}\n[batch]\nflush_age = '300ms'\nflush_rows = 2000\n")).unwrap();
        let arguments = [
            "--catalog".to_owned(),
            catalog.display().to_string(),
            "--data".to_owned(),
            folder.path().join("data").display().to_string(),
            "--settings".to_owned(),
            file.display().to_string(),
        ];
        Self { arguments: arguments.to_vec(), port: free_port().unwrap(), folder }
    }

    async fn up(&self) -> Lamina {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Lamina::up(self.port, &arguments, &self.output()).await.unwrap()
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    fn catalog(&self) -> Arc<Catalog> {
        let catalog = Catalog::load(&self.folder.path().join("catalog"));
        Arc::new(catalog.unwrap_or_else(|faults| panic!("{faults}")))
    }
}

/// In each of its lives the process has answered so often, and from so many batch view versions, before it ends.
const ANSWERS_A_LIFE: usize = 100;
const VERSIONS_A_LIFE: usize = 2;
const LIFE_MAX: Duration = Duration::from_secs(120);

/// Runs, kills, stops and starts the process while it is used.
async fn lives(setup: &Setup, shared: &Arc<Shared>) {
    for life in 0..4 {
        shared.life.store(life, Ordering::Relaxed);
        let lamina = setup.up().await;
        live(shared, life, setup).await;
        match life {
            1 => assert!(lamina.stop().await.unwrap(), "it did not stop in order"),
            3 => {
                shared.stop.store(true, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert!(lamina.stop().await.unwrap(), "it did not stop in order");
            }
            _ => lamina.kill().unwrap(),
        }
    }
}

async fn live(shared: &Shared, life: u64, setup: &Setup) {
    let deadline = Instant::now() + LIFE_MAX;
    loop {
        let (answers, versions) = {
            let answers = shared.answers.lock().unwrap();
            let these = answers.iter().filter(|answer| answer.life == life);
            let versions: std::collections::BTreeSet<Option<i64>> =
                these.clone().map(|answer| answer.batch_version).collect();
            (these.count(), versions.len())
        };
        if answers >= ANSWERS_A_LIFE && versions >= VERSIONS_A_LIFE {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "life {life}: {answers} answers from {versions} versions\n{}",
            std::fs::read_to_string(setup.output()).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every answer is what the oracle says, and time never went back within one life of the process.
async fn check(shared: &Shared, catalog: Arc<Catalog>, events: &[Event]) -> (usize, usize) {
    let oracle = Oracle::new(catalog, "sales", events).await.unwrap();
    let answers = shared.answers.lock().unwrap().clone();
    let mut known: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let (mut versions, mut last): (std::collections::BTreeSet<i64>, Option<(u64, Frontier)>) = Default::default();
    for answer in &answers {
        let key = format!("{} {}", answer.sql, answer.head);
        if !known.contains_key(&key) {
            known.insert(key.clone(), oracle.answer(answer.sql, &answer.head).await.unwrap());
        }
        let ordered = answer.sql.contains("ORDER BY");
        assert!(same_rows(&answer.rows, &known[&key], ordered), "{answer:?}\nexpected {:?}", known[&key]);
        if let Some((life, head)) = &last {
            assert!(
                *life != answer.life || answer.head.covers(head),
                "time went back: {head} and then {}",
                answer.head
            );
        }
        last = Some((answer.life, answer.head.clone()));
        versions.extend(answer.batch_version);
    }
    println!(
        "{} answers over {} batch versions, {} distinct, {} unavailable, {} events of which {} dead",
        answers.len(),
        versions.len(),
        known.len(),
        shared.errors.load(Ordering::Relaxed),
        events.len(),
        oracle.dead
    );
    assert!(answers.len() >= 4 * ANSWERS_A_LIFE && versions.len() > 3, "{} versions", versions.len());
    (oracle.usable, oracle.dead)
}

/// What other engines find in the tables.
fn python(script: &str, arguments: &[String]) -> String {
    let python = cache().join("python/bin/python");
    let output = std::process::Command::new(&python).arg("-c").arg(script).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("`{}`: {error}; run integration-tests/install.sh", python.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const COUNT: &str = "
import json, sys, deltalake, duckdb, polars
root, options = sys.argv[1], json.loads(sys.argv[2])
table = lambda path: deltalake.DeltaTable(f'{root}/{path}', storage_options=options)
sales = table('master/sales').to_pyarrow_dataset()
master = duckdb.connect().execute('select count(*), count(distinct (_partition, _offset)), sum(amount) from sales').fetchone()
dead = table('dead_letters/sales').to_pyarrow_table().num_rows if deltalake.DeltaTable.is_deltatable(f'{root}/dead_letters/sales', options) else 0
import glob
view = polars.from_arrow(table(sys.argv[3]).to_pyarrow_table())
print(json.dumps({'rows': master[0], 'distinct': master[1], 'amount': str(master[2]), 'dead': dead, 'view_orders': int(view['orders'].sum())}))
";

fn other_engines(root: &str, options: &BTreeMap<String, String>, catalog: &Catalog) -> Value {
    let view = format!("views/by_product/{}", catalog.views["by_product"].definition);
    let options = serde_json::to_string(options).unwrap();
    serde_json::from_str(&python(COUNT, &[root.to_owned(), options, view])).unwrap()
}

/// Starts once more, until everything is archived; then what the tables have is what the log has.
async fn archived(setup: &Setup, end: &Frontier) {
    let lamina = setup.up().await;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let dataset: Value =
            reqwest::get(format!("{}/v1/datasets/sales", lamina.url)).await.unwrap().json().await.unwrap();
        let frontier: Frontier = serde_json::from_value(dataset["master"]["frontier"].clone()).unwrap();
        if frontier.covers(end) {
            break;
        }
        assert!(Instant::now() < deadline, "archived up to {frontier} of {end}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    loop {
        let url = format!("{}/v1/views/by_product", lamina.url);
        let view: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let cut: Frontier = serde_json::from_value(view["cut"].clone()).unwrap();
        if cut.covers(end) {
            break;
        }
        assert!(Instant::now() < deadline, "recomputed up to {cut} of {end}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nothing comes any more, so answers lack nothing, time after time.
    let mut fresh = 0;
    while fresh < 10 {
        let url = format!("{}/v1/views/by_product/rows?limit=1", lamina.url);
        let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        fresh = if answer["stamp"]["freshness_ms"] == json!(0) { fresh + 1 } else { 0 };
        assert!(Instant::now() < deadline, "the answer lacks something: {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(lamina.stop().await.unwrap());
}

fn assert_complete(found: &Value, usable: usize, dead: usize, events: usize) {
    assert_eq!(usable + dead, events);
    assert_eq!(
        (found["rows"].as_u64(), found["distinct"].as_u64()),
        (Some(usable as u64), Some(usable as u64)),
        "{found}"
    );
    assert_eq!(found["dead"].as_u64(), Some(dead as u64), "{found}");
    assert_eq!(found["view_orders"].as_u64(), Some(usable as u64), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_while_it_is_killed() {
    let setup = Setup::new("");
    let shared = Shared::new(setup.port);
    let users = [tokio::spawn(ask(shared.clone())), tokio::spawn(send(shared.clone()))];
    lives(&setup, &shared).await;
    for user in users {
        user.await.unwrap();
    }
    let open = || Embedded::open(&setup.folder.path().join("data/log"), Arc::new(System)).unwrap();
    let events = read_log(&open(), "sales").await.unwrap();
    let end = open().bounds("sales").await.unwrap().end;
    assert!(end.covers(&shared.acknowledged.lock().unwrap()), "an acknowledged event is lost");
    let (usable, dead) = check(&shared, setup.catalog(), &events).await;
    archived(&setup, &end).await;
    let root = setup.folder.path().join("data/store").display().to_string();
    assert_complete(&other_engines(&root, &BTreeMap::new(), &setup.catalog()), usable, dead, events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_and_s3_while_it_is_killed() {
    let broker = sandbox::kafka::Kafka::start().unwrap();
    let store = S3::start().unwrap();
    let options: Vec<String> = store.options().iter().map(|(name, value)| format!("{name} = '{value}'")).collect();
    let settings = format!(
        "[log]\nkafka = '{}'\n[store]\nurl = '{}'\noptions = {{ {} }}",
        broker.brokers(),
        store.url("lamina"),
        options.join(", ")
    );
    let setup = Setup::new(&settings);
    let log = Kafka::connect(&broker.brokers(), &BTreeMap::new(), Arc::new(System)).await.unwrap();
    log.ensure_topic("sales", 3).await.unwrap();
    let shared = Shared::new(setup.port);
    let asking = tokio::spawn(ask(shared.clone()));
    let producing = {
        let (shared, brokers) = (shared.clone(), broker.brokers());
        std::thread::spawn(move || produce(&shared, &brokers))
    };
    lives(&setup, &shared).await;
    asking.await.unwrap();
    producing.join().unwrap();
    let events = read_log(&log, "sales").await.unwrap();
    let (usable, dead) = check(&shared, setup.catalog(), &events).await;
    assert!(dead > 0, "some events were broken");
    let last = events.iter().fold(Frontier::default(), |mut last, event| {
        last.advance(event.partition, event.offset + 1);
        last
    });
    archived(&setup, &last).await;
    let found = other_engines(&store.url("lamina"), &store.options(), &setup.catalog());
    assert_complete(&found, usable, dead, events.len());
}

#[tokio::test]
async fn a_data_folder_has_one_holder() {
    let setup = Setup::new("");
    let first = setup.up().await;
    let second = std::process::Command::new(sandbox::s3::binary("lamina").unwrap())
        .arg("up")
        .args(&setup.arguments)
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && message.contains("is held by process"), "{message}");
    assert!(first.stop().await.unwrap());
}
