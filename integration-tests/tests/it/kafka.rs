//! The Kafka log against a real broker.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{
    clock::System,
    log::{Error, Log, kafka::Kafka, suite},
};
use integration_tests::sandbox;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

async fn connect(broker: &sandbox::kafka::Kafka) -> Arc<dyn Log> {
    Arc::new(Kafka::connect(&broker.brokers(), &BTreeMap::new(), Arc::new(System)).await.unwrap())
}

/// A transaction that is aborted: its records and its marker take offsets and are never given out.
fn aborted_transaction(brokers: &str, topic: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", format!("gap in {topic}"))
        .create()
        .unwrap();
    let patience = Duration::from_secs(20);
    producer.init_transactions(patience).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), str>::to(topic).partition(0).payload("never seen")).unwrap();
    producer.flush(patience).unwrap();
    producer.abort_transaction(patience).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_of_a_log() {
    let broker = sandbox::kafka::Kafka::start().unwrap();
    let log = connect(&broker).await;
    suite::what_is_written_is_read(&log, "a").await.unwrap();
    suite::a_reader_waits_at_the_end(&log, "b").await.unwrap();
    suite::appends_side_by_side(&log, "c").await.unwrap();
    suite::what_is_not_there(&log, "d").await.unwrap();
    let brokers = broker.brokers();
    suite::gaps_are_passed(&log, "e", || async { aborted_transaction(&brokers, "e") }).await.unwrap();

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.brokers()).create().unwrap();
    let compacted = NewTopic::new("compacted", 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    admin.create_topics([&compacted], &AdminOptions::new()).await.unwrap();
    let refused = log.ensure_topic("compacted", 1).await;
    assert!(matches!(refused, Err(Error::Compacted { .. })), "{refused:?}");
}

#[tokio::test]
async fn settings_that_are_ours_are_refused() {
    let settings = [("isolation.level".to_owned(), "read_uncommitted".to_owned())].into();
    let refused = Kafka::connect("127.0.0.1:1", &settings, Arc::new(System)).await;
    assert!(matches!(refused, Err(Error::ReservedSetting { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_broker_out_of_reach_is_named() {
    let error = Kafka::connect("127.0.0.1:1", &BTreeMap::new(), Arc::new(System)).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
