//! Through the whole system, as a user has it: a `lamina` process that is stopped and killed while events flow,
//! recomputes publish and a client queries without pause. The oracle checks every answer.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    catalog::Catalog,
    clock::System,
    log::{Log, embedded::Embedded, kafka::Kafka},
    position::Frontier,
};
use integration_tests::{
    oracle::read_log,
    sandbox::{
        self,
        process::{Program, free_port},
        s3::S3,
    },
    traffic::{CATALOG, Traffic, count_elsewhere},
};
use serde_json::{Value, json};

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

    async fn up(&self) -> Program {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Program::lamina(self.port, &arguments, &self.output()).await.unwrap()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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
const ANSWERS_A_LIFE: usize = 250;
const VERSIONS_A_LIFE: usize = 2;
const LIFE_MAX: Duration = Duration::from_secs(120);

/// Runs, kills, stops and starts the process while it is used.
async fn lives(setup: &Setup, traffic: &Arc<Traffic>) {
    for life in 0..4 {
        traffic.begin_life(life);
        let lamina = setup.up().await;
        live(traffic, life, setup).await;
        match life {
            1 => assert!(lamina.stop().await.unwrap(), "it did not stop in order"),
            3 => {
                traffic.stop();
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert!(lamina.stop().await.unwrap(), "it did not stop in order");
            }
            _ => lamina.kill().unwrap(),
        }
    }
}

async fn live(traffic: &Traffic, life: u64, setup: &Setup) {
    let deadline = Instant::now() + LIFE_MAX;
    loop {
        let (answers, versions) = traffic.seen(life);
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

#[tokio::test(flavor = "multi_thread")]
async fn embedded_while_it_is_killed() {
    let setup = Setup::new("");
    let traffic = Traffic::new(vec![setup.url()]);
    let users = [tokio::spawn(traffic.clone().ask(0)), tokio::spawn(traffic.clone().send())];
    lives(&setup, &traffic).await;
    for user in users {
        user.await.unwrap();
    }
    let open = || Embedded::open(&setup.folder.path().join("data/log"), Arc::new(System)).unwrap();
    let events = read_log(&open(), "sales").await.unwrap();
    let end = open().bounds("sales").await.unwrap().end;
    assert!(end.covers(&traffic.acknowledged()), "an acknowledged event is lost");
    let outcome = traffic.check(setup.catalog(), &events).await.unwrap();
    println!("{outcome:?}");
    assert!(outcome.answers >= 4 * ANSWERS_A_LIFE && outcome.versions > 3, "{outcome:?}");
    archived(&setup, &end).await;
    let root = setup.folder.path().join("data/store").display().to_string();
    count_elsewhere(&root, &BTreeMap::new(), &setup.catalog().views["by_product"].definition, &outcome).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_and_s3_while_it_is_killed() {
    let broker = sandbox::kafka::Kafka::start().unwrap();
    let store = S3::start().unwrap();
    let setup = Setup::new(&store.settings(&broker.brokers()));
    let log = Kafka::connect(&broker.brokers(), &BTreeMap::new(), Arc::new(System)).await.unwrap();
    log.ensure_topic("sales", 3).await.unwrap();
    let traffic = Traffic::new(vec![setup.url()]);
    let asking = tokio::spawn(traffic.clone().ask(0));
    let producing = {
        let (traffic, brokers) = (traffic.clone(), broker.brokers());
        std::thread::spawn(move || traffic.produce(&brokers))
    };
    lives(&setup, &traffic).await;
    asking.await.unwrap();
    producing.join().unwrap().unwrap();
    let events = read_log(&log, "sales").await.unwrap();
    let outcome = traffic.check(setup.catalog(), &events).await.unwrap();
    println!("{outcome:?}");
    assert!(outcome.answers >= 4 * ANSWERS_A_LIFE && outcome.versions > 3, "{outcome:?}");
    assert!(outcome.dead > 0, "some events were broken");
    archived(&setup, &log.bounds("sales").await.unwrap().end).await;
    count_elsewhere(&store.url("lamina"), &store.options(), &setup.catalog().views["by_product"].definition, &outcome)
        .unwrap();
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
