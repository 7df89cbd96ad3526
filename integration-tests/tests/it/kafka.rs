//! The Kafka log against a real broker.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    clock::System,
    fault::chain,
    log::{Error, Log, NewRecord, kafka::Kafka, suite},
    position::Frontier,
};
use integration_tests::sandbox;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

const DEADLINE: Duration = Duration::from_secs(30);

async fn connect(broker: &sandbox::kafka::Kafka) -> Arc<dyn Log> {
    Arc::new(Kafka::connect(&broker.brokers(), &BTreeMap::new(), Arc::new(System)).await.unwrap())
}

/// A transaction. Its marker takes an offset and is never given out, nor are its records if it is aborted.
fn transaction(brokers: &str, topic: &str, commit: bool) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", format!("gap in {topic}"))
        .create()
        .unwrap();
    let patience = Duration::from_secs(20);
    producer.init_transactions(patience).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), str>::to(topic).partition(0).payload("in a transaction")).unwrap();
    producer.flush(patience).unwrap();
    if commit { producer.commit_transaction(patience) } else { producer.abort_transaction(patience) }.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_of_a_log() {
    let mut broker = sandbox::kafka::Kafka::start().unwrap();
    let log = connect(&broker).await;
    suite::what_is_written_is_read(&log, "a").await.unwrap();
    suite::a_reader_waits_at_the_end(&log, "b").await.unwrap();
    suite::appends_side_by_side(&log, "c").await.unwrap();
    suite::what_is_not_there(&log, "d").await.unwrap();
    let brokers = broker.brokers();
    suite::gaps_are_passed(&log, "e", || async { transaction(&brokers, "e", false) }).await.unwrap();

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.brokers()).create().unwrap();
    let expire = |below: Frontier| {
        let mut records = TopicPartitionList::new();
        records.add_partition_offset("f", 0, Offset::Offset(below.get(0))).unwrap();
        let admin = &admin;
        async move {
            admin.delete_records(&records, &AdminOptions::new()).await.unwrap();
        }
    };
    suite::what_has_expired_is_said(&log, "f", expire).await.unwrap();

    let compacted = NewTopic::new("compacted", 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    admin.create_topics([&compacted], &AdminOptions::new()).await.unwrap();
    let refused = log.ensure_topic("compacted", 1).await;
    assert!(matches!(refused, Err(Error::Compacted { .. })), "{refused:?}");

    let cautious = Kafka::connect(&brokers, &BTreeMap::new(), Arc::new(System)).await.unwrap().creating_topics(false);
    let refused = cautious.ensure_topic("orderz", 1).await;
    assert!(matches!(refused, Err(Error::NotCreated { .. })), "{refused:?}");
    assert_eq!(cautious.ensure_topic("a", 1).await.unwrap(), log.ensure_topic("a", 1).await.unwrap());

    a_record_is_as_large_as_it_may_be(&broker, &admin).await;
    a_marker_is_passed_while_other_partitions_flow(&log, &brokers).await;
    an_open_transaction_holds_the_end_back(&log, &brokers).await;
    a_topic_that_was_recreated_stops_its_reader(&log, &admin).await;
    a_reader_goes_on_after_its_broker_was_killed(&log, &mut broker).await;
}

fn record(value: &'static str) -> NewRecord {
    NewRecord { key: None, value: Some(value.into()) }
}

/// What is said of the largest record holds: the broker takes one of that size, and one that is larger is known for it.
async fn a_record_is_as_large_as_it_may_be(broker: &sandbox::kafka::Kafka, admin: &AdminClient<DefaultClientContext>) {
    let narrow = NewTopic::new("narrow", 1, TopicReplication::Fixed(1)).set("max.message.bytes", "20000");
    admin.create_topics([&narrow], &AdminOptions::new()).await.unwrap();
    let raised = BTreeMap::from([("message.max.bytes".to_owned(), "15000000".to_owned())]);
    for (given, topic, said) in [
        (BTreeMap::new(), "wide", "LAMINA_KAFKA_MESSAGE_MAX_BYTES"),
        (BTreeMap::new(), "narrow", "topic `narrow`"),
        (raised, "wide", "topic `wide`"),
    ] {
        let log = Kafka::connect(&broker.brokers(), &given, Arc::new(System)).await.unwrap();
        log.ensure_topic(topic, 1).await.unwrap();
        let limit = log.refuses(topic, usize::MAX).await.unwrap().unwrap();
        assert!(limit.setting.contains(said), "{limit:?}");
        let value = NewRecord { key: Some("key".into()), value: Some(vec![b'x'; limit.bytes - 3].into()) };
        assert_eq!(log.refuses(topic, limit.bytes).await.unwrap(), None);
        assert_eq!(log.append(topic, 0, vec![value]).await.unwrap().len(), 1, "{limit:?}");
        assert_eq!(log.refuses(topic, limit.bytes + 1).await.unwrap(), Some(limit));
    }
}

/// A gap at the end of one partition does not wait for the others to be idle.
async fn a_marker_is_passed_while_other_partitions_flow(log: &Arc<dyn Log>, brokers: &str) {
    log.ensure_topic("flowing", 2).await.unwrap();
    let mut reader = log.reader("flowing", &Frontier::default(), None).await.unwrap();
    transaction(brokers, "flowing", true);
    let (mut at, mut values, deadline) = (Frontier::default(), 0, Instant::now() + DEADLINE);
    while at.get(0) < 2 {
        assert!(Instant::now() < deadline, "stood at {at}");
        log.append("flowing", 1, vec![record("x")]).await.unwrap();
        for chunk in reader.poll(1000, Duration::ZERO).await.unwrap() {
            assert_eq!(chunk.from, at.get(chunk.partition));
            at.set(chunk.partition, chunk.next);
            values += if chunk.partition == 0 { chunk.len() } else { 0 };
        }
    }
    assert_eq!((at.get(0), values), (2, 1), "the record, and the marker after it");
}

/// What may still be rolled back is not the log's yet.
async fn an_open_transaction_holds_the_end_back(log: &Arc<dyn Log>, brokers: &str) {
    log.ensure_topic("open", 1).await.unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).set("transactional.id", "open").create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), str>::to("open").partition(0).payload("perhaps")).unwrap();
    producer.flush(DEADLINE).unwrap();
    assert_eq!(log.append("open", 0, vec![record("after")]).await.unwrap(), [1]);
    assert_eq!(log.bounds("open").await.unwrap().end, Frontier::default());
    let mut reader = log.reader("open", &Frontier::default(), None).await.unwrap();
    let (mut offsets, mut next, deadline) = (Vec::new(), 0, Instant::now() + DEADLINE);
    while reader.held_back().reason.is_none() {
        assert!(Instant::now() < deadline, "it is not said that a transaction is open");
        assert!(reader.poll(10, Duration::from_millis(300)).await.unwrap().is_empty());
    }
    let (end, written) = (reader.end_seen().unwrap().0, reader.held_back().written);
    assert_eq!((end.get(0), written.get(0)), (0, 2));
    producer.commit_transaction(DEADLINE).unwrap();
    while next < 3 {
        assert!(Instant::now() < deadline, "stood at {next}");
        for chunk in reader.poll(10, Duration::from_millis(200)).await.unwrap() {
            offsets.extend(chunk.offsets);
            next = chunk.next;
        }
    }
    assert_eq!((offsets, next), (vec![0, 1], 3));
    while reader.held_back().reason.is_some() || reader.end_seen().is_none_or(|(end, _)| end.get(0) < 3) {
        assert!(Instant::now() < deadline, "{:?}", reader.held_back());
        assert!(reader.poll(10, Duration::from_millis(100)).await.unwrap().is_empty());
    }
}

/// Another topic of the same name uses the offsets again: nothing of it may be taken for the rest of the old one.
async fn a_topic_that_was_recreated_stops_its_reader(log: &Arc<dyn Log>, admin: &AdminClient<DefaultClientContext>) {
    log.ensure_topic("again", 1).await.unwrap();
    log.append("again", 0, (0..5).map(|_| record("old")).collect()).await.unwrap();
    let mut reader = log.reader("again", &Frontier::default(), None).await.unwrap();
    let (mut next, deadline) = (0, Instant::now() + DEADLINE);
    while next < 5 || reader.end_seen().is_none_or(|(end, _)| end.get(0) < 5) {
        assert!(Instant::now() < deadline, "stood at {next}");
        next = reader.poll(10, Duration::from_millis(50)).await.unwrap().last().map_or(next, |chunk| chunk.next);
    }
    admin.delete_topics(&["again"], &AdminOptions::new()).await.unwrap();
    let new = NewTopic::new("again", 1, TopicReplication::Fixed(1));
    loop {
        assert!(Instant::now() < deadline, "the topic cannot be created again");
        if admin.create_topics([&new], &AdminOptions::new()).await.unwrap().iter().all(Result::is_ok) {
            break;
        }
    }
    let failure = loop {
        assert!(Instant::now() < deadline, "nothing was said");
        match reader.poll(10, Duration::from_millis(200)).await {
            Ok(chunks) => assert!(chunks.iter().all(|chunk| chunk.is_empty()), "{chunks:?}"),
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, Error::Truncated { .. } | Error::UnknownTopic { .. }), "{failure:?}");
    let ended = reader.poll(10, Duration::ZERO).await;
    assert!(matches!(ended, Err(Error::Unavailable { .. })), "{ended:?}");
}

/// A broker that is down is no error of a poll: the end that was seen gets old, and what comes later is read.
async fn a_reader_goes_on_after_its_broker_was_killed(log: &Arc<dyn Log>, broker: &mut sandbox::kafka::Kafka) {
    log.ensure_topic("killed", 1).await.unwrap();
    log.append("killed", 0, vec![record("before")]).await.unwrap();
    let mut reader = log.reader("killed", &Frontier::default(), None).await.unwrap();
    let (mut offsets, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while offsets.is_empty() || reader.end_seen().is_none() {
        assert!(Instant::now() < deadline, "nothing came");
        offsets.extend(reader.poll(10, Duration::from_millis(50)).await.unwrap().into_iter().flat_map(|c| c.offsets));
    }
    broker.kill().unwrap();
    // An answer that was under way may still come in.
    assert!(reader.poll(10, Duration::from_millis(500)).await.unwrap().is_empty());
    let (_, seen) = reader.end_seen().unwrap();
    assert!(reader.poll(10, Duration::from_millis(500)).await.unwrap().is_empty());
    assert_eq!(reader.end_seen().map(|(_, again)| again), Some(seen), "an end that nobody told is not new");
    let (appended, restarted) = tokio::join!(log.append("killed", 0, vec![record("after")]), async {
        tokio::task::block_in_place(|| broker.run())
    });
    restarted.unwrap();
    assert_eq!(appended.unwrap(), [1]);
    let deadline = Instant::now() + DEADLINE;
    while offsets.len() < 2 {
        assert!(Instant::now() < deadline, "read {offsets:?}");
        offsets.extend(reader.poll(10, Duration::from_millis(200)).await.unwrap().into_iter().flat_map(|c| c.offsets));
    }
    assert_eq!(offsets, [0, 1]);
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
    assert!(chain(&error).contains("Connection refused"), "{}", chain(&error));
}
