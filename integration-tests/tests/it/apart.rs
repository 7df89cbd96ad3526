//! The layers as separate processes, on Apache Kafka and an S3 server.

use std::{sync::atomic::AtomicBool, time::Duration};

use common::position::Frontier;
use integration_tests::apart::{Cluster, under_fire};
use serde_json::{Value, json};

/// Stops and starts the members at `places`, one after the other and with one more line in their settings, while clients
/// ask: no query is refused, and every answer is right.
async fn upgraded_in_turn(mut cluster: Cluster, places: &[usize], setting: Option<&str>) {
    for place in 0..cluster.members.len() {
        cluster.ready(place).await.unwrap();
    }
    let users = cluster.users(2);
    cluster.more(&users.traffic, 100).await.unwrap();
    let before = users.traffic.unavailable();
    for &place in places {
        cluster.stop(place).await.unwrap();
        if let Some(line) = setting {
            cluster.set(place, line).unwrap();
        }
        cluster.run(place).unwrap();
        cluster.ready(place).await.unwrap();
        cluster.more(&users.traffic, 50).await.unwrap();
    }
    let refused = users.traffic.unavailable() - before;
    assert_eq!(refused, 0, "queries failed: {}\n{}", users.traffic.last_refusal(), cluster.said());
    let outcome = cluster.check(users).await.unwrap();
    println!("{outcome:?}");
}

/// Two workers of one group: partitions move between them.
#[tokio::test(flavor = "multi_thread")]
async fn every_layer_is_upgraded_while_it_is_used() {
    let cluster = Cluster::start(&["a", "a"], 2).await.unwrap();
    let places: Vec<usize> = (0..cluster.members.len()).collect();
    upgraded_in_turn(cluster, &places, None).await;
}

/// A raised format of states: the new one is built up beside the old one, which goes on until nobody asks for it. With
/// two groups each partition has an owner of either kind meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn states_of_another_format_take_over() {
    let cluster = Cluster::start(&["a", "b"], 2).await.unwrap();
    let (batch, group_a, group_b, replicas) = (0, 1, 2, [3, 4]);
    let places = [batch, group_b, replicas[0], replicas[1], group_a];
    upgraded_in_turn(cluster, &places, Some("state_format = 2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_fire_ten_times() {
    let outcome = under_fire(1, 10, &AtomicBool::new(false), |line| println!("{line}")).await.unwrap();
    println!("{outcome:?}");
    assert!(outcome.answers > 100 && outcome.dead > 0, "{outcome:?}");
}

/// What can be answered while a layer is down is; the rest says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_down_is_named() {
    let mut cluster = Cluster::start(&["a"], 1).await.unwrap();
    let (batch, worker, replica) = (0, 1, 2);
    cluster.ready(replica).await.unwrap();
    let users = cluster.users(1);
    cluster.more(&users.traffic, 50).await.unwrap();
    let url = cluster.urls()[0].clone();
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Value| {
        let response = http.post(format!("{url}{path}")).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let recomputed = post("/v1/views/total/recompute", Value::Null).await;
    assert!(matches!(recomputed.0, 202 | 409), "{recomputed:?}");

    // Layers take nothing from those who do not know their secret.
    for place in [batch, worker] {
        let path =
            if place == batch { "v1/views/total/recompute" } else { "arrow.flight.protocol.FlightService/DoAction" };
        let strange = http.post(format!("{}/{path}", cluster.address(place))).send().await.unwrap();
        let refused = strange.status() == 401 || strange.headers().get("grpc-status").is_some_and(|code| code != "0");
        assert!(refused, "{path}: {strange:?}");
    }

    cluster.kill(batch).unwrap();
    let (status, body) = post("/v1/views/total/recompute", Value::Null).await;
    assert_eq!((status, body["detail"].as_str().unwrap_or_default().contains("batch layer")), (503, true), "{body}");
    let jobs = http.get(format!("{url}/v1/jobs")).send().await.unwrap();
    assert!(jobs.status().is_success(), "their records are in the store");
    cluster.more(&users.traffic, 20).await.unwrap();

    cluster.kill(worker).unwrap();
    let sql = "SELECT * FROM total";
    let partial = loop {
        let (status, body) = post("/v1/sql", json!({"sql": sql, "allow_partial": true})).await;
        assert_eq!(status, 200, "{body}");
        if !body["stamp"]["missing"].is_null() {
            break body;
        }
    };
    assert_eq!(partial["stamp"]["missing"], json!({"sales": [0, 1, 2]}));
    let frontier = |value: &Value| serde_json::from_value::<Frontier>(value.clone()).unwrap();
    let (head, cut) = (&partial["stamp"]["head"]["sales"], &partial["stamp"]["views"]["total"]["cut"]);
    assert_eq!(frontier(head), frontier(cut));
    assert_eq!(partial["stamp"]["freshness_ms"], Value::Null);
    let (status, body) = post("/v1/sql", json!({"sql": sql})).await;
    assert_eq!(status, 503, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("partitions [0, 1, 2]"), "{body}");

    cluster.run(worker).unwrap();
    cluster.run(batch).unwrap();
    cluster.more(&users.traffic, 20).await.unwrap();

    // For longer than the group remembers its members, and members keep what they have lost.
    cluster.kill_broker().unwrap();
    tokio::time::sleep(Duration::from_secs(16)).await;
    let (status, body) = post("/v1/sql", json!({"sql": sql})).await;
    assert_eq!(status, 200, "what the log had is known: {body}");
    cluster.run_broker().unwrap();
    cluster.more(&users.traffic, 20).await.unwrap();
    let outcome = cluster.check(users).await.unwrap();
    println!("{outcome:?}");
}
