//! Seeded simulations: a seed draws the steps and the faults; whatever happens, every answer is exact.

use std::{sync::Arc, time::Duration};

use common::{
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord},
    master,
    position::Frontier,
    speed::SpeedLayer as _,
    storage::Storage,
};
use integration_tests::{
    faults::{Faulty, Odds},
    memory_log::MemoryLog,
    oracle::{Oracle, read_log, same_rows},
    workload::{Sales, broken},
    world::{Settings, World, at_least},
};
use serde_json::Value;
use serving_layer::{engine::Options, stamp::Stamp};

const CATALOG: &str = "
CREATE TABLE sales (
  order_id BIGINT NOT NULL, product_id BIGINT NOT NULL, customer_id TEXT, store INT NOT NULL,
  quantity INT NOT NULL CHECK (quantity > 0), amount DECIMAL(12,2) NOT NULL, created_at TIMESTAMP NOT NULL
) WITH (partitions = 3);
CREATE MATERIALIZED VIEW by_product WITH (refresh = 'never') AS
SELECT product_id, count(*) AS orders, sum(quantity) AS quantity, sum(amount) AS amount, avg(amount) AS average
FROM sales GROUP BY product_id;
CREATE MATERIALIZED VIEW often WITH (refresh = 'never') AS
SELECT CASE WHEN product_id % 5 = 0 THEN NULL ELSE product_id END AS product, count(DISTINCT store) AS stores,
       max(created_at) AS newest, last_value(customer_id ORDER BY created_at) AS customer
FROM sales WHERE quantity > 2 GROUP BY 1 HAVING count(*) > 3;
CREATE MATERIALIZED VIEW total WITH (refresh = 'never') AS
SELECT count(*) AS orders, sum(amount) AS amount, approx_distinct(customer_id) AS customers FROM sales;
";

const QUERIES: [&str; 6] = [
    "SELECT * FROM by_product",
    "SELECT * FROM by_product WHERE product_id = 7",
    "SELECT * FROM often",
    "SELECT * FROM total",
    "SELECT product_id, amount FROM by_product WHERE amount > 500 ORDER BY amount DESC, product_id LIMIT 5",
    "SELECT t.orders, sum(p.orders) AS all_orders FROM total t, by_product p GROUP BY t.orders",
];

struct Simulation {
    random: fastrand::Rng,
    log: MemoryLog,
    store: Arc<Faulty>,
    storage: Storage,
    catalog: Arc<Catalog>,
    world: Option<World>,
    sales: Sales,
    answers: Vec<(&'static str, Vec<Value>, Stamp)>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let store = Arc::new(Faulty::new(Arc::new(object_store::memory::InMemory::new()), seed));
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store.clone()).unwrap();
        let catalog =
            Catalog::parse(&[("sales.sql".to_owned(), CATALOG.to_owned())]).unwrap_or_else(|faults| panic!("{faults}"));
        Self {
            random: fastrand::Rng::with_seed(seed),
            log: MemoryLog::new(seed, Arc::new(System)),
            store,
            storage,
            catalog: Arc::new(catalog),
            world: None,
            sales: Sales::new(seed, 100_000, 40),
            answers: Vec::new(),
        }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    async fn start(&mut self) {
        if self.world.is_none() {
            let mut settings = Settings::hasty();
            if self.random.u8(0..4) == 0 {
                settings.speed.memory_bytes = self.random.usize(40_000..240_000);
            }
            // The store may be failing: then there is no world yet.
            self.world = World::start(&self.storage, &self.log(), &self.catalog, settings).await.ok();
        }
    }

    async fn step(&mut self) {
        match self.random.u8(0..20) {
            0..6 => self.produce().await,
            6..13 => self.answer().await,
            13..16 => self.recompute().await,
            16 => {
                let partition = self.random.i32(0..3);
                self.log.skip("sales", partition, 2);
            }
            17 => {
                if let Some(world) = self.world.take() {
                    world.stop().await.unwrap();
                }
            }
            18 => tokio::time::sleep(Duration::from_millis(self.random.u64(1..60))).await,
            _ => {
                let odds = match self.random.bool() {
                    true => Odds { before: self.random.u32(0..150), after: self.random.u32(0..80), stall: 20 },
                    false => Odds::default(),
                };
                self.store.set(odds);
                self.log.fail(self.random.u32(0..40));
            }
        }
        self.start().await;
    }

    async fn produce(&mut self) {
        let count = self.random.usize(1..120);
        let partition = self.random.i32(0..3);
        let mut records = Vec::new();
        for _ in 0..count {
            let event = self.sales.next().unwrap();
            let value = match self.random.u8(0..30) {
                0 => Some(broken(&mut self.random)),
                1 => None,
                _ => Some(event),
            };
            records.push(NewRecord { key: None, value: value.map(Into::into) });
        }
        self.log.ensure_topic("sales", 3).await.unwrap();
        self.log.append("sales", partition, records).await.unwrap();
    }

    async fn answer(&mut self) {
        let Some(world) = &self.world else { return };
        let sql = QUERIES[self.random.usize(0..QUERIES.len())];
        // While faults are on, an answer may be an error. It may not be wrong.
        if let Ok((rows, stamp)) = world.query(sql, &Options::default()).await {
            self.answers.push((sql, rows, stamp));
        }
    }

    async fn recompute(&mut self) {
        let Some(world) = &self.world else { return };
        let views = ["by_product", "often", "total"];
        let view = views[self.random.usize(0..3)];
        match self.random.bool() {
            true => drop(world.batch_recompute(view).await),
            false => drop(tokio::time::timeout(Duration::from_secs(5), world.recompute(view)).await),
        }
    }

    /// Without faults, everything is archived, answered and equal.
    async fn end(mut self, seed: u64) {
        self.store.set(Odds::default());
        self.log.fail(0);
        self.start().await;
        let world = self.world.take().expect("nothing fails any more");
        let log = self.log();
        let end = log.bounds("sales").await.unwrap().end;
        for view in ["by_product", "often", "total"] {
            wait_for("the end of the log", || async {
                let options = at_least("sales", &end, Duration::from_secs(2));
                let is_there = world.query(&format!("SELECT * FROM {view}"), &options).await.is_ok();
                // Where the memory is full, a newer version makes room.
                if !is_there && world.speed.status("sales").stopped.is_some() {
                    let _ = world.recompute(view).await;
                }
                is_there
            })
            .await;
        }
        let events = read_log(log.as_ref(), "sales").await.unwrap();
        let oracle = Oracle::new(self.catalog.clone(), "sales", &events).await.unwrap();
        for sql in QUERIES {
            let (rows, stamp) = world.query(sql, &at_least("sales", &end, Duration::from_secs(20))).await.unwrap();
            self.answers.push((sql, rows, stamp));
        }
        for (sql, rows, stamp) in &self.answers {
            let expected = oracle.answer(sql, &stamp.head["sales"]).await.unwrap();
            assert!(
                same_rows(rows, &expected, sql.contains("ORDER BY") && sql.contains("LIMIT")),
                "seed {seed}: {sql}\n{stamp:?}\ngot {rows:?}\nexpected {expected:?}"
            );
        }
        println!(
            "seed {seed}: {} events, {} answers, batch versions up to {:?}",
            events.len(),
            self.answers.len(),
            newest(&self.answers)
        );
        self.nothing_is_lost(&oracle, &events).await;
        world.stop().await.unwrap();
    }

    async fn nothing_is_lost(&self, oracle: &Oracle, events: &[integration_tests::oracle::Event]) {
        let dataset = &self.catalog.datasets["sales"];
        let last: Frontier = events.iter().fold(Frontier::default(), |mut last, event| {
            last.advance(event.partition, event.offset + 1);
            last
        });
        let mut at = master::Version::default();
        wait_for("the master to have all events", || {
            let (storage, dataset, last) = (self.storage.clone(), dataset.clone(), last.clone());
            async move {
                let at = master::Follower::open(&storage, &dataset, 3).await.unwrap();
                at.at().frontier.covers(&last)
            }
        })
        .await;
        let follower = master::Follower::open(&self.storage, dataset, 3).await.unwrap();
        at.clone_from(follower.at());
        let dead = master::Follower::open_dead_letters(&self.storage, dataset, 3).await.unwrap();
        assert_eq!(at.rows_in_files(), at.rows);
        let count = |rows: i64| usize::try_from(rows).unwrap();
        assert_eq!((count(at.rows), count(dead.at().rows)), (oracle.usable, oracle.dead));
        assert_eq!(dead.at().rows_in_files(), dead.at().rows);
    }
}

/// The newest batch view version that an answer was made from.
fn newest(answers: &[(&'static str, Vec<Value>, Stamp)]) -> Option<i64> {
    answers.iter().flat_map(|(_, _, stamp)| stamp.views.values()).filter_map(|view| view.batch_version).max()
}

pub(crate) async fn wait_for<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(std::time::Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn run(seed: u64, steps: usize) {
    let mut simulation = Simulation::new(seed);
    simulation.log.ensure_topic("sales", 3).await.unwrap();
    simulation.start().await;
    for _ in 0..steps {
        simulation.step().await;
    }
    simulation.end(seed).await;
}

/// `LAMINA_SEED=n` runs one seed, `LAMINA_SEEDS=n` that many.
#[allow(clippy::disallowed_methods, reason = "a test's own switch")]
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    match number("LAMINA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LAMINA_SEEDS").unwrap_or(100),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_exact_whatever_fails() {
    for seed in seeds() {
        let began = std::time::Instant::now();
        let task = tokio::task::spawn(async move { run(seed, 60).await });
        if let Err(error) = task.await {
            panic!("LAMINA_SEED={seed} replays this: {error}");
        }
        println!("seed {seed}: {:?}", began.elapsed());
    }
}
