//! Lamina as separate processes on Apache Kafka and an S3 server, each of which can be stopped, killed and started.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use common::{
    catalog::Catalog,
    clock::System,
    log::{Log, kafka::Kafka as KafkaLog},
    position::Frontier,
};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    oracle::{Event, read_log},
    sandbox::{
        kafka::Kafka,
        process::{Program, free_port},
        s3::S3,
    },
    traffic::{CATALOG, Outcome, Traffic, count_elsewhere},
};

/// How long anything may take that must come about.
const PATIENCE: Duration = Duration::from_secs(240);

/// One cluster at a time: each is a dozen processes, and two of them on a small machine are in each other's way.
static TURN: Mutex<()> = Mutex::const_new(());

/// One process of a cluster.
#[derive(Debug)]
pub struct Member {
    /// `batch-layer`, `speed-layer` or `serving-layer`.
    pub program: &'static str,
    port: u16,
    arguments: Vec<String>,
    running: Option<Program>,
}

/// All processes of a deployment, and what they use.
#[derive(Debug)]
pub struct Cluster {
    _turn: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    broker: Kafka,
    store: S3,
    /// The batch layer, the speed layer's workers, the serving layer's replicas, in this order.
    pub members: Vec<Member>,
}

/// What each kind of process is started with, beside its settings file.
fn member(program: &'static str, settings: &std::path::Path, more: &[String]) -> Result<Member> {
    let mut arguments = vec!["--settings".to_owned(), settings.display().to_string()];
    arguments.extend_from_slice(more);
    Ok(Member { program, port: free_port()?, arguments, running: None })
}

impl Cluster {
    /// Starts a batch layer, a worker for each of `groups` (members of one group share the partitions), and so many
    /// serving replicas.
    pub async fn start(groups: &[&str], replicas: usize) -> Result<Self> {
        let turn = TURN.lock().await;
        let (broker, store) = (Kafka::start()?, S3::start()?);
        let folder = tempfile::tempdir()?;
        let catalog = folder.path().join("catalog");
        std::fs::create_dir_all(&catalog)?;
        std::fs::write(catalog.join("sales.sql"), CATALOG)?;
        let log = KafkaLog::connect(&broker.brokers(), &BTreeMap::new(), Arc::new(System)).await?;
        log.ensure_topic("sales", 3).await?;
        let file = folder.path().join("lamina.toml");
        let mut members = vec![member("batch-layer", &file, &[])?];
        for group in groups {
            // Each worker has a file of its own for the group's name.
            let own = folder.path().join(format!("speed-{}.toml", members.len()));
            let mut worker = member("speed-layer", &own, &[])?;
            worker.arguments.extend(["--data".to_owned(), folder.path().display().to_string()]);
            members.push(worker);
            std::fs::write(own, format!("group = '{group}'"))?;
        }
        let speed: Vec<String> =
            members[1..].iter().map(|worker| format!("http://127.0.0.1:{}", worker.port)).collect();
        let settings = format!(
            "catalog = '{}'\nsecret = '{}'\n{}[batch]\nflush_age = '300ms'\nflush_rows = 2000\ncatalog_every = '300ms'\n[serving]\nspeed = '{}'\n\
             batch = 'http://127.0.0.1:{}'\n",
            catalog.display(),
            "5ecret".repeat(8),
            store.settings(&broker.brokers()),
            speed.join(","),
            members[0].port,
        );
        std::fs::write(&file, &settings)?;
        for (place, group) in groups.iter().enumerate() {
            let own = folder.path().join(format!("speed-{}.toml", place + 1));
            std::fs::write(own, format!("{settings}[speed]\ngroup = '{group}'\nlinger = '5s'\n"))?;
        }
        for _ in 0..replicas {
            members.push(member("serving-layer", &file, &[])?);
        }
        let mut cluster = Self { _turn: turn, folder, broker, store, members };
        for place in 0..cluster.members.len() {
            cluster.run(place)?;
        }
        for place in 0..cluster.members.len() {
            cluster.answers(place).await?;
        }
        Ok(cluster)
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// What all processes have written.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.output()).unwrap_or_default()
    }

    /// Where the serving layer's replicas answer.
    pub fn urls(&self) -> Vec<String> {
        let replicas = self.members.iter().filter(|member| member.program == "serving-layer");
        replicas.map(|member| format!("http://127.0.0.1:{}", member.port)).collect()
    }

    /// Where a member answers.
    pub fn address(&self, place: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[place].port)
    }

    /// Where Kafka's clients find it.
    pub fn brokers(&self) -> String {
        self.broker.brokers()
    }

    /// The catalog that the batch layer publishes.
    pub fn catalog(&self) -> Result<Arc<Catalog>> {
        let catalog = Catalog::load(&self.folder.path().join("catalog"));
        Ok(Arc::new(catalog.map_err(|faults| anyhow::anyhow!("{faults}"))?))
    }

    /// Puts another catalog in the place of the one that the batch layer looks at.
    pub fn write_catalog(&self, sql: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join("catalog/sales.sql"), sql)?)
    }

    /// All that the log has of `topic`.
    pub async fn events(&self, topic: &str) -> Result<Vec<Event>> {
        read_log(&KafkaLog::connect(&self.brokers(), &BTreeMap::new(), Arc::new(System)).await?, topic).await
    }

    /// Starts a member.
    pub fn run(&mut self, place: usize) -> Result<()> {
        let output = self.output();
        let member = &mut self.members[place];
        let arguments: Vec<&str> = member.arguments.iter().map(String::as_str).collect();
        member.running = Some(Program::start(member.program, member.port, &arguments, &output)?);
        Ok(())
    }

    /// One more line for a member's settings, from its next start on.
    pub fn set(&mut self, place: usize, line: &str) -> Result<()> {
        let own = self.folder.path().join(format!("member-{place}.toml"));
        let file = self.members[place].arguments.get_mut(1).context("its settings file")?;
        // Tables follow the lines that belong to none.
        let settings = format!("{line}\n{}", std::fs::read_to_string(&*file)?);
        std::fs::write(&own, settings)?;
        *file = own.display().to_string();
        Ok(())
    }

    /// Waits until a member answers.
    pub async fn answers(&mut self, place: usize) -> Result<()> {
        let output = self.output();
        let running = self.members[place].running.as_mut();
        running.context("it was not started")?.answers(&output).await
    }

    /// Waits until a member says that it is ready.
    pub async fn ready(&self, place: usize) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.members[place].port);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "`{url}` is not ready:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `kill -9` of a member.
    pub fn kill(&mut self, place: usize) -> Result<()> {
        self.members[place].running.take().context("it does not run")?.kill()
    }

    /// `kill -9` of the broker.
    pub fn kill_broker(&mut self) -> Result<()> {
        self.broker.kill()
    }

    /// Starts the broker again, with what it had, and waits until it answers.
    pub fn run_broker(&mut self) -> Result<()> {
        tokio::task::block_in_place(|| self.broker.run())
    }

    /// Stops a member in order.
    pub async fn stop(&mut self, place: usize) -> Result<()> {
        let stopped = self.members[place].running.take().context("it does not run")?.stop().await?;
        ensure!(stopped, "a member did not stop in order:\n{}", self.said());
        Ok(())
    }

    /// Waits until `traffic` has so many more answers.
    pub async fn more(&self, traffic: &Traffic, answers: usize) -> Result<()> {
        let wanted = traffic.answers() + answers;
        let deadline = Instant::now() + PATIENCE;
        while traffic.answers() < wanted {
            ensure!(Instant::now() < deadline, "no answers come any more:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Users of it: `clients` ask without pause, and a producer writes to Kafka.
    pub fn users(&self, clients: usize) -> Users {
        self.users_of(Traffic::new(self.urls()), clients)
    }

    fn users_of(&self, traffic: Arc<Traffic>, clients: usize) -> Users {
        #[allow(clippy::disallowed_methods, reason = "users are no tasks of the system")]
        let asking = (0..clients).map(|user| tokio::spawn(traffic.clone().ask(user))).collect();
        let (producing, brokers) = (traffic.clone(), self.brokers());
        let producing = std::thread::spawn(move || producing.produce(&brokers));
        Users { traffic, asking, producing }
    }

    /// Ends the users, waits until everything is archived and recomputed, and lets the oracle and other engines check.
    pub async fn check(&self, users: Users) -> Result<Outcome> {
        let Users { traffic, asking, producing } = users;
        traffic.stop();
        for asking in asking {
            asking.await?;
        }
        producing.join().map_err(|_| anyhow::anyhow!("the producer died"))??;
        let log = KafkaLog::connect(&self.brokers(), &BTreeMap::new(), Arc::new(System)).await?;
        let events = self.events("sales").await?;
        let end = log.bounds("sales").await?.end;
        let outcome = traffic.check(self.catalog()?, &events).await?;
        let definition = self.archived(&end).await?;
        count_elsewhere(&self.store.url("lamina"), &self.store.options(), &definition, &outcome)?;
        Ok(outcome)
    }

    /// Waits until view `by_product` has been recomputed up to `end`. Gives its definition.
    async fn archived(&self, end: &Frontier) -> Result<String> {
        let url = self.urls().first().context("a replica")?.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = reqwest::get(format!("{url}/v1/views/by_product")).await?;
            if answer.status().is_success() {
                let view: Value = answer.json().await?;
                let cut: Frontier = serde_json::from_value(view["cut"].clone())?;
                if cut.covers(end) {
                    return Ok(view["definition"].as_str().context("its definition")?.to_owned());
                }
                ensure!(Instant::now() < deadline, "recomputed up to {cut} of {end}:\n{}", self.said());
            }
            ensure!(Instant::now() < deadline, "there is no answer:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// In a run of more kills, users rest after each answer.
const UNRESTING: usize = 50;

/// Who uses a cluster.
#[derive(Debug)]
pub struct Users {
    /// What they have seen.
    pub traffic: Arc<Traffic>,
    asking: Vec<tokio::task::JoinHandle<()>>,
    producing: std::thread::JoinHandle<Result<()>>,
}

/// What can be killed.
#[derive(Clone, Copy, Debug)]
enum Target {
    Member(usize),
    Broker,
    Store,
}

/// Kills members, the broker and the store at random moments, `kills` times; the seed draws whom and when. What is
/// killed is started again, and answers have to come before the next one. Ends before that once `enough` is set.
pub async fn under_fire(seed: u64, kills: usize, enough: &AtomicBool, mut say: impl FnMut(String)) -> Result<Outcome> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::start(&["a", "a"], 2).await?;
    // Each answer is checked with a query over all events before it.
    let rest = if kills > UNRESTING { Duration::from_millis(100) } else { Duration::ZERO };
    let users = cluster.users_of(Traffic::resting(cluster.urls(), rest), 2);
    cluster.more(&users.traffic, 20).await?;
    for kill in 1..=kills {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        let targets = cluster.members.len() + 2;
        let target = match random.usize(0..targets) {
            place if place < cluster.members.len() => Target::Member(place),
            place if place == cluster.members.len() => Target::Broker,
            _ => Target::Store,
        };
        tokio::time::sleep(Duration::from_millis(random.u64(0..1000))).await;
        let down = Duration::from_millis(random.u64(0..1500));
        match target {
            Target::Member(place) => {
                cluster.kill(place)?;
                tokio::time::sleep(down).await;
                cluster.run(place)?;
                cluster.answers(place).await?;
            }
            Target::Broker => {
                cluster.kill_broker()?;
                tokio::time::sleep(down).await;
                cluster.run_broker()?;
            }
            Target::Store => {
                cluster.store.kill()?;
                tokio::time::sleep(down).await;
                tokio::task::block_in_place(|| cluster.store.run())?;
            }
        }
        cluster
            .more(&users.traffic, 10)
            .await
            .with_context(|| format!("kill {kill}, of {target:?}, after {} answers", users.traffic.answers()))?;
        let what = match target {
            Target::Member(place) => cluster.members[place].program,
            Target::Broker => "broker",
            Target::Store => "store",
        };
        say(format!(
            "{kill} of {kills}: {what} was down for {down:?}; {} answers, {} times told to come back later",
            users.traffic.answers(),
            users.traffic.unavailable()
        ));
    }
    cluster.check(users).await
}
