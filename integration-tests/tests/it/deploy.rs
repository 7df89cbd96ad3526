//! A changed catalog takes effect while the layers run, each as a process of its own, and clients ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{catalog::Catalog, position::Frontier};
use integration_tests::{
    apart::Cluster,
    oracle::{Oracle, same_rows},
    traffic::CATALOG,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(240);
const BEFORE: &str = "CREATE MATERIALIZED VIEW changing WITH (refresh = '1 second') AS
SELECT store, count(*) AS orders FROM sales GROUP BY store;";
const AFTER: &str = "CREATE MATERIALIZED VIEW changing WITH (refresh = '1 second') AS
SELECT store, count(*) AS orders, sum(amount) AS amount FROM sales WHERE quantity > 1 GROUP BY store;
CREATE TABLE visits (page TEXT NOT NULL) WITH (partitions = 2);
CREATE MATERIALIZED VIEW pages WITH (refresh = '1 second') AS
SELECT page, count(*) AS visits FROM visits GROUP BY page;";
const BROKEN: &str = "CREATE MATERIALIZED VIEW changing AS SELECT store, count(*) AS orders FROM sails GROUP BY store;
CREATE MATERIALIZED VIEW total_2 AS SELECT summ(amount) AS amount FROM sales;";
const SQL: &str = "SELECT * FROM changing";

#[derive(Debug)]
struct Answer {
    rows: Vec<Value>,
    head: Frontier,
    definition: String,
}

/// What one client has got of one replica.
#[derive(Debug, Default)]
struct Client {
    url: String,
    stop: AtomicBool,
    answers: Mutex<Vec<Answer>>,
    failures: Mutex<Vec<String>>,
}

impl Client {
    async fn ask(self: Arc<Self>) {
        while !self.stop.load(Ordering::Relaxed) {
            match ask(&self.url, SQL).await {
                Ok((rows, stamp)) => {
                    let answer = Answer {
                        rows,
                        head: serde_json::from_value(stamp["head"]["sales"].clone()).unwrap(),
                        definition: stamp["views"]["changing"]["definition"].as_str().unwrap().to_owned(),
                    };
                    self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                }
                Err(failure) => self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn ask(url: &str, sql: &str) -> Result<(Vec<Value>, Value), String> {
    let client = reqwest::Client::new();
    let response = client.post(format!("{url}/v1/sql")).json(&json!({"sql": sql})).send().await;
    let response = response.map_err(|error| error.to_string())?;
    let status = response.status();
    let body: Value = response.json().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {body}"));
    }
    Ok((body["rows"].as_array().unwrap().clone(), body["stamp"].clone()))
}

fn parsed(view: &str) -> Arc<Catalog> {
    Arc::new(Catalog::parse(&[("sales.sql".to_owned(), format!("{CATALOG}{view}"))]).unwrap())
}

/// Waits until all replicas answer by a definition.
async fn answers_by(cluster: &Cluster, definition: &str) {
    let deadline = Instant::now() + PATIENCE;
    for url in cluster.urls() {
        loop {
            let answer = ask(&url, SQL).await;
            if answer.as_ref().is_ok_and(|(_, stamp)| stamp["views"]["changing"]["definition"] == definition) {
                break;
            }
            assert!(Instant::now() < deadline, "{url} answers {answer:?}:\n{}", cluster.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn said(cluster: &Cluster, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !cluster.said().contains(wanted) {
        assert!(Instant::now() < deadline, "nobody said `{wanted}`:\n{}", cluster.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_view_takes_effect_while_it_is_asked_for() {
    let (before, after) = (parsed(BEFORE), parsed(AFTER));
    let definition = |catalog: &Catalog| catalog.views["changing"].definition.clone();
    let cluster = Cluster::start(&["a", "a"], 2).await.unwrap();
    for place in 0..cluster.members.len() {
        cluster.ready(place).await.unwrap();
    }
    // Views that do not change are asked for all the time too.
    let users = cluster.users(1);
    cluster.more(&users.traffic, 20).await.unwrap();
    let unavailable = users.traffic.unavailable();

    cluster.write_catalog(&format!("{CATALOG}{BEFORE}")).unwrap();
    answers_by(&cluster, &definition(&before)).await;
    let clients: Vec<Arc<Client>> =
        cluster.urls().into_iter().map(|url| Arc::new(Client { url, ..Client::default() })).collect();
    #[allow(clippy::disallowed_methods, reason = "clients are no tasks of the system")]
    let asking: Vec<_> = clients.iter().map(|client| tokio::spawn(client.clone().ask())).collect();

    // Changed, with a dataset that is new.
    cluster.write_catalog(&format!("{CATALOG}{AFTER}")).unwrap();
    answers_by(&cluster, &definition(&after)).await;
    let url = &cluster.urls()[0];
    let sent = reqwest::Client::new()
        .post(format!("{url}/v1/datasets/visits/events"))
        .json(&json!([{"page": "home"}, {"page": "home"}]))
        .send()
        .await
        .unwrap();
    assert!(sent.status().is_success(), "{}", sent.text().await.unwrap());
    let positions: Value = sent.json().await.unwrap();
    let asked = json!({"sql": "SELECT visits FROM pages", "min_position": positions["frontier"], "wait": "60s"});
    let counted = reqwest::Client::new().post(format!("{url}/v1/sql")).json(&asked).send().await.unwrap();
    let counted: Value = counted.json().await.unwrap();
    assert_eq!(counted["rows"], json!([{"visits": 2}]), "{counted}\n{}", cluster.said());
    cluster.more(&users.traffic, 20).await.unwrap();

    // Faulty: all of it is told once, and nothing changes.
    cluster.write_catalog(&format!("{CATALOG}{BROKEN}")).unwrap();
    said(&cluster, "sails").await;
    cluster.more(&users.traffic, 20).await.unwrap();
    assert_eq!(cluster.said().matches("sails").count(), 1, "{}", cluster.said());
    assert!(cluster.said().contains("summ"), "{}", cluster.said());
    answers_by(&cluster, &definition(&after)).await;

    // A dataset that is another one is refused.
    cluster.write_catalog(&format!("{}{AFTER}", CATALOG.replace("store INT", "store BIGINT"))).unwrap();
    said(&cluster, "dataset `sales` is not defined as it was").await;

    // Rolled back.
    cluster.write_catalog(&format!("{CATALOG}{BEFORE}")).unwrap();
    answers_by(&cluster, &definition(&before)).await;
    assert!(ask(url, "SELECT * FROM pages").await.unwrap_err().contains("there is no view or dataset `pages`"));
    cluster.more(&users.traffic, 20).await.unwrap();

    for client in &clients {
        client.stop.store(true, Ordering::Relaxed);
    }
    for asking in asking {
        asking.await.unwrap();
    }
    let last = users.traffic.last_refusal();
    assert_eq!(users.traffic.unavailable(), unavailable, "a query failed: {last}\n{}", cluster.said());
    cluster.check(users).await.unwrap();
    let events = cluster.events("sales").await.unwrap();
    let mut oracles = BTreeMap::new();
    for catalog in [before, after] {
        oracles.insert(definition(&catalog), Oracle::new(catalog, "sales", &events).await.unwrap());
    }
    for client in &clients {
        let failures = client.failures.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failures.is_empty(), "{failures:#?}\n{}", cluster.said());
        let answers = client.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let definitions: BTreeSet<&String> = answers.iter().map(|answer| &answer.definition).collect();
        assert_eq!(definitions.len(), 2);
        println!("{} answers of {}", answers.len(), client.url);
    }
    for client in clients {
        let client = Arc::into_inner(client).unwrap();
        let answers = client.answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut last = Frontier::default();
        for answer in answers {
            let expected = oracles[&answer.definition].answer(SQL, &answer.head).await.unwrap();
            assert!(
                same_rows(&answer.rows, &expected, false),
                "at {}: {:?}, not {expected:?}",
                answer.head,
                answer.rows
            );
            assert!(answer.head.covers(&last), "time went back: {last} and then {}", answer.head);
            last = answer.head;
        }
    }
}
