//! Users of a whole system: they produce and ask without pause while its processes are stopped, killed and started, and
//! the oracle checks every answer afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use common::{catalog::Catalog, position::Frontier};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::{Value, json};

use crate::{
    oracle::{Event, Oracle, same_rows},
    sandbox::cache,
    workload::{Sales, broken},
};

/// What is asked for: sums, digests, `HAVING`, and a view without keys.
pub const CATALOG: &str = "
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

/// An answer, and who gave it.
#[derive(Clone, Debug)]
struct Answer {
    sql: &'static str,
    user: usize,
    life: u64,
    /// As JSON: there are many answers.
    rows: String,
    head: Frontier,
    batch_version: Option<i64>,
}

/// What the users of one run share.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Where to ask; a user whose address does not answer takes the next one.
    urls: Vec<String>,
    /// How long users rest after an answer, and the producer after a handful of events.
    rest: Duration,
    stop: AtomicBool,
    life: AtomicU64,
    answers: Mutex<Vec<Answer>>,
    acknowledged: Mutex<Frontier>,
    unavailable: AtomicU64,
    last_refusal: Mutex<String>,
    wrong: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of a run.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Answers, all of them right.
    pub answers: usize,
    /// Batch view versions that they were made from.
    pub versions: usize,
    /// Requests that were told to come back later.
    pub unavailable: u64,
    /// Events in the log that can be used.
    pub usable: usize,
    /// Events in the log that cannot.
    pub dead: usize,
}

impl Traffic {
    /// For systems that answer at `urls`.
    pub fn new(urls: Vec<String>) -> Arc<Self> {
        Self::resting(urls, Duration::ZERO)
    }

    /// The same, with users who rest after each answer: for runs so long that nobody could check all answers otherwise.
    pub fn resting(urls: Vec<String>, rest: Duration) -> Arc<Self> {
        Arc::new(Self { urls, rest, ..Self::default() })
    }

    /// Ends all users.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// From now on answers are another life's: time may go back between two.
    pub fn begin_life(&self, life: u64) {
        self.life.store(life, Ordering::Relaxed);
    }

    /// How many answers there were in a life, and from how many batch view versions.
    pub fn seen(&self, life: u64) -> (usize, usize) {
        let answers = locked(&self.answers);
        let these = answers.iter().filter(|answer| answer.life == life);
        let versions: BTreeSet<Option<i64>> = these.clone().map(|answer| answer.batch_version).collect();
        (these.count(), versions.len())
    }

    /// How many answers there were.
    pub fn answers(&self) -> usize {
        locked(&self.answers).len()
    }

    /// Requests that were told to come back later.
    pub fn unavailable(&self) -> u64 {
        self.unavailable.load(Ordering::Relaxed)
    }

    /// Why the last one was.
    pub fn last_refusal(&self) -> String {
        locked(&self.last_refusal).clone()
    }

    /// The positions that were acknowledged to those who sent events over HTTP.
    pub fn acknowledged(&self) -> Frontier {
        locked(&self.acknowledged).clone()
    }

    /// Asks and asks. A user passes the head of its last answer on, so that whoever answers next does not go back.
    pub async fn ask(self: Arc<Self>, user: usize) {
        let client = reqwest::Client::new();
        let (mut place, mut last) = (user, None);
        for sql in QUERIES.iter().cycle().skip(user) {
            if self.is_stopped() {
                return;
            }
            let life = self.life.load(Ordering::Relaxed);
            let mut body = json!({"sql": sql});
            if self.urls.len() > 1
                && let Some(head) = &last
            {
                body["min_position"] = json!({"sales": head});
            }
            let url = format!("{}/v1/sql", self.urls[place % self.urls.len()]);
            match self.ask_once(&client, &url, &body).await {
                Asked::Answered(body) => match answer(&body, sql, user, life) {
                    Ok(answer) => {
                        last = Some(answer.head.clone());
                        locked(&self.answers).push(answer);
                        if !self.rest.is_zero() {
                            tokio::time::sleep(self.rest).await;
                        }
                    }
                    Err(error) => locked(&self.wrong).push(format!("{error:#}: {body}")),
                },
                Asked::Later(why) => {
                    self.unavailable.fetch_add(1, Ordering::Relaxed);
                    *locked(&self.last_refusal) = why;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Asked::Wrong(reason) => locked(&self.wrong).push(reason),
                Asked::Nobody => {
                    // As a load balancer does.
                    place += 1;
                    if self.urls.len() < 2 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        }
    }

    async fn ask_once(&self, client: &reqwest::Client, url: &str, body: &Value) -> Asked {
        let Ok(response) = client.post(url).json(body).send().await else { return Asked::Nobody };
        let status = response.status();
        // A process that is killed breaks its answers off; one that ends like this is no answer.
        match response.json::<Value>().await {
            Err(_) => Asked::Nobody,
            Ok(body) if status.is_success() => Asked::Answered(body),
            Ok(body) if body["starting"] == true => Asked::Nobody,
            Ok(body) if status == 503 => Asked::Later(body.to_string()),
            Ok(body) => Asked::Wrong(format!("status {status}: {body}")),
        }
    }

    /// Sends events over HTTP; what was acknowledged is noted.
    pub async fn send(self: Arc<Self>) {
        let client = reqwest::Client::new();
        let mut sales = Sales::new(3, 1_000_000, 40);
        for place in 0.. {
            if self.is_stopped() {
                return;
            }
            let events: Vec<Vec<u8>> = sales.by_ref().take(20).collect();
            let url = format!("{}/v1/datasets/sales/events", self.urls[place % self.urls.len()]);
            let request = client.post(url).header("content-type", "application/x-ndjson").body(events.join(&b'\n'));
            if let Ok(response) = request.send().await
                && response.status().is_success()
                && let Ok(answer) = response.json::<Value>().await
                && let Ok(frontier) = serde_json::from_value::<Frontier>(answer["frontier"]["sales"].clone())
            {
                locked(&self.acknowledged).join(&frontier);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Produces events with Kafka's own kind of client, some of them broken.
    pub fn produce(&self, brokers: &str) -> Result<()> {
        let producer: ThreadedProducer<DefaultProducerContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).set("enable.idempotence", "true").create()?;
        let mut sales = Sales::new(4, 1_000_000, 40);
        let mut random = fastrand::Rng::with_seed(4);
        let handful = if self.rest.is_zero() { 20 } else { 2 };
        while !self.is_stopped() {
            for event in sales.by_ref().take(handful) {
                let event = if random.u8(0..40) == 0 { broken(&mut random) } else { event };
                let record = BaseRecord::<(), [u8]>::to("sales").partition(random.i32(0..3)).payload(&event);
                producer.send(record).map_err(|(error, _)| error)?;
            }
            std::thread::sleep(self.rest + Duration::from_millis(50));
        }
        producer.flush(Duration::from_secs(60)).context("produce the last events")
    }

    /// Every answer is what the oracle says, and time never went back for a user within one life.
    pub async fn check(&self, catalog: Arc<Catalog>, events: &[Event]) -> Result<Outcome> {
        let wrong = locked(&self.wrong).clone();
        ensure!(wrong.is_empty(), "{} requests were answered as none may be, first: {}", wrong.len(), wrong[0]);
        let oracle = Oracle::new(catalog, "sales", events).await?;
        let mut answers = std::mem::take(&mut *locked(&self.answers));
        let (mut versions, mut last): (BTreeSet<i64>, BTreeMap<(usize, u64), Frontier>) = Default::default();
        for answer in &answers {
            let before = last.insert((answer.user, answer.life), answer.head.clone()).unwrap_or_default();
            ensure!(answer.head.covers(&before), "time went back: {before} and then {}", answer.head);
            versions.extend(answer.batch_version);
        }
        // What is to be the same comes together.
        answers.sort_by_cached_key(|answer| (answer.sql, answer.head.to_string()));
        for alike in answers.chunk_by(|a, b| (a.sql, &a.head) == (b.sql, &b.head)) {
            let expected = oracle.answer(alike[0].sql, &alike[0].head).await?;
            for answer in alike {
                let rows: Vec<Value> = serde_json::from_str(&answer.rows)?;
                let is_right = same_rows(&rows, &expected, answer.sql.contains("ORDER BY"));
                ensure!(is_right, "wrong: {answer:?}\nexpected {expected:?}");
            }
        }
        Ok(Outcome {
            answers: answers.len(),
            versions: versions.len(),
            unavailable: self.unavailable(),
            usable: oracle.usable,
            dead: oracle.dead,
        })
    }
}

/// What a request came to.
enum Asked {
    Answered(Value),
    Later(String),
    Nobody,
    Wrong(String),
}

fn answer(body: &Value, sql: &'static str, user: usize, life: u64) -> Result<Answer> {
    let stamp = &body["stamp"];
    ensure!(stamp["missing"].is_null(), "nobody asked for a partial answer");
    let head = serde_json::from_value(stamp["head"]["sales"].clone()).context("the stamp's head")?;
    let view = stamp["views"].as_object().and_then(|views| views.values().next());
    let batch_version = view.context("the stamp's view")?["batch_version"].as_i64();
    ensure!(body["rows"].is_array(), "there are no rows");
    let rows = body["rows"].to_string();
    Ok(Answer { sql, user, life, rows, head, batch_version })
}

/// What other engines find in the tables.
fn python(script: &str, arguments: &[String]) -> Result<Value> {
    let python = cache().join("python/bin/python");
    let output = std::process::Command::new(&python).arg("-c").arg(script).args(arguments).output();
    let output = output.with_context(|| format!("`{}`: run integration-tests/install.sh", python.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Counts with three engines.
const COUNT: &str = "
import json, os, sys, deltalake, duckdb, polars
root, options = sys.argv[1], json.loads(sys.argv[2])
table = lambda path: deltalake.DeltaTable(f'{root}/{path}', storage_options=options)
sales = table('master/sales').to_pyarrow_dataset()
master = duckdb.connect().execute('select count(*), count(distinct (_partition, _offset)), sum(amount) from sales').fetchone()
dead = table('dead_letters/sales').to_pyarrow_table().num_rows if deltalake.DeltaTable.is_deltatable(f'{root}/dead_letters/sales', options) else 0
view = polars.from_arrow(table(sys.argv[3]).to_pyarrow_table())
print(json.dumps({'rows': master[0], 'distinct': master[1], 'amount': str(master[2]), 'dead': dead, 'view_orders': int(view['orders'].sum())}), flush=True)
# The engines' threads are still there, and one that is when the interpreter takes itself apart aborts it.
os._exit(0)
";

/// What Python's `deltalake`, DuckDB and Polars count in the store at `root`, and in view `by_product` of a definition: as
/// many as the log has, no fewer, none twice.
pub fn count_elsewhere(
    root: &str,
    options: &BTreeMap<String, String>,
    definition: &str,
    outcome: &Outcome,
) -> Result<()> {
    let options = serde_json::to_string(options)?;
    let found = python(COUNT, &[root.to_owned(), options, format!("views/by_product/{definition}")])?;
    let (usable, dead) = (outcome.usable, outcome.dead);
    let expected = json!({"rows": usable, "distinct": usable, "dead": dead, "view_orders": usable});
    for (name, expected) in expected.as_object().into_iter().flatten() {
        ensure!(found[name] == *expected, "`{name}` is not {expected}: {found}");
    }
    Ok(())
}
