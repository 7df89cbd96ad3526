//! The layers as separate processes, on Apache Kafka and an S3 server.

use integration_tests::apart::{Cluster, under_fire};

#[tokio::test(flavor = "multi_thread")]
async fn every_layer_is_upgraded_while_it_is_used() {
    // Two workers of one group: partitions move between them.
    let mut cluster = Cluster::start(&["a", "a"], 2).await.unwrap();
    for place in 0..cluster.members.len() {
        cluster.ready(place).await.unwrap();
    }
    let users = cluster.users(2);
    cluster.more(&users.traffic, 100).await.unwrap();
    let before = users.traffic.unavailable();
    for place in 0..cluster.members.len() {
        cluster.stop(place).await.unwrap();
        cluster.run(place).unwrap();
        cluster.ready(place).await.unwrap();
        cluster.more(&users.traffic, 50).await.unwrap();
    }
    let refused = users.traffic.unavailable() - before;
    assert_eq!(refused, 0, "queries failed: {}\n{}", users.traffic.last_refusal(), cluster.said());
    let outcome = cluster.check(users).await.unwrap();
    println!("{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_fire_ten_times() {
    let outcome = under_fire(1, 10, |line| println!("{line}")).await.unwrap();
    println!("{outcome:?}");
    assert!(outcome.answers > 100 && outcome.dead > 0, "{outcome:?}");
}
