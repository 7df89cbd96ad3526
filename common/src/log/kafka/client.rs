//! What is set for librdkafka's clients, and what they say of themselves.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    log::{Error, RecordLimit},
    position::Offset,
};

/// Settings that decide whether answers are exact: they are Lamina's.
const RESERVED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "metadata.broker.list",
    "offset.store.method",
    "request.required.acks",
    "transactional.id",
];

/// The most that the library hands to a broker of one record, unless told.
const MESSAGE_MAX_BYTES: usize = 1_000_000;

/// What a record has beside its key and value, at most: its lengths and places. The library counts that in.
const RECORD_BYTES: usize = 36;

/// What a batch of one record has beside its key and value, at most: that, and its header. The topic counts that in.
const BATCH_BYTES: usize = 61 + RECORD_BYTES;

/// The settings of every client, on which the others build.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    base: ClientConfig,
    given: BTreeMap<String, String>,
}

impl Settings {
    /// `given` are any of librdkafka's, but for those that are Lamina's own.
    pub(super) fn new(brokers: &str, given: &BTreeMap<String, String>) -> Result<Self, Error> {
        if let Some(name) = given.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(Error::ReservedSetting { name: name.clone() });
        }
        let mut base = ClientConfig::new();
        base.set("bootstrap.servers", brokers).set("client.id", "lamina");
        // A broker that is back is found soon.
        base.set("reconnect.backoff.max.ms", "2000");
        let level = if given.contains_key("debug") { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info };
        base.set_log_level(level);
        for (name, value) in given {
            base.set(name, value);
        }
        Ok(Self { base, given: given.clone() })
    }

    /// Of a client that only asks.
    pub(super) fn base(&self) -> &ClientConfig {
        &self.base
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.base.clone();
        config.set("enable.idempotence", "true").set("acks", "all");
        // Messages wait this long for company: throughput at little cost in freshness.
        self.unless_given(&mut config, &["linger.ms", "queue.buffering.max.ms"], "2");
        self.unless_given(&mut config, &["queue.buffering.max.kbytes"], "131072");
        // Longer than a broker takes to start again, shorter than a client waits.
        self.unless_given(&mut config, &["delivery.timeout.ms", "message.timeout.ms"], "30000");
        config
    }

    pub(super) fn consumer(&self) -> ClientConfig {
        let mut config = self.base.clone();
        config
            // Partitions are assigned, never subscribed to; the library wants a name all the same.
            .set("group.id", "lamina")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false");
        // Records are sent as they come; only the news that a marker is all there is waits so long.
        self.unless_given(&mut config, &["fetch.wait.max.ms"], "100");
        // After its queue was full the library waits for a second before it fetches again, unless told.
        self.unless_given(&mut config, &["fetch.queue.backoff.ms"], "10");
        config
    }

    /// Of a client that asks where what is written ends, transactions that are open included.
    pub(super) fn uncommitted(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("isolation.level", "read_uncommitted");
        config
    }

    /// How large a record may be, as the library counts it and as the topic does, whose `max.message.bytes` is given. Of
    /// compressed records nobody can tell beforehand what the topic would say.
    pub(super) fn record_limit(&self, topic: &str, bytes_max: Option<usize>) -> RecordLimit {
        let given = self.given.get("message.max.bytes").and_then(|given| given.parse().ok());
        let of_library = RecordLimit {
            bytes: given.unwrap_or(MESSAGE_MAX_BYTES).saturating_sub(RECORD_BYTES),
            setting: "`message.max.bytes` in `log.settings` (`LAMINA_KAFKA_MESSAGE_MAX_BYTES`)".to_owned(),
        };
        let compressed = ["compression.type", "compression.codec"].iter().any(|name| self.given.contains_key(*name));
        match bytes_max.map(|bytes_max| bytes_max.saturating_sub(BATCH_BYTES)) {
            Some(bytes) if bytes < of_library.bytes && !compressed => {
                RecordLimit { bytes, setting: format!("`max.message.bytes` of Kafka's topic `{topic}`") }
            }
            _ => of_library,
        }
    }

    /// Sets the first of the names that one setting has, unless any of them was given.
    pub(super) fn unless_given(&self, config: &mut ClientConfig, names: &[&str], value: &str) {
        if let Some(name) = names.first()
            && !names.iter().any(|name| self.given.contains_key(*name))
        {
            config.set(*name, value);
        }
    }
}

/// Listens to a client of the library.
#[derive(Debug)]
pub(super) struct Listener {
    /// The last complaint: it says more than the error of the call that failed for it.
    complaint: Mutex<Option<String>>,
    /// Where the partition ends whose end has just been reported; negative when that is not known.
    end: AtomicI64,
}

impl Default for Listener {
    fn default() -> Self {
        Self { complaint: Mutex::default(), end: AtomicI64::new(-1) }
    }
}

impl Listener {
    /// The last complaint, once.
    pub(super) fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The offset of the partition's end that the poll before has reported, once.
    pub(super) fn end(&self) -> Option<Offset> {
        Some(self.end.swap(-1, Ordering::Relaxed)).filter(|&end| end >= 0)
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!("kafka {facility}: {text}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::info!("kafka {facility}: {text}"),
            _ => tracing::warn!("kafka {facility}: {text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Called by the poll that then gives the error, with what it leaves out.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            self.end.store(end_offset(reason).unwrap_or(-1), Ordering::Relaxed);
            return;
        }
        tracing::debug!("kafka: {error}: {reason}");
        // That all are down is what follows from the reason that was given for each.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for Listener {}

/// The offset in "… reached end of partition at offset 12 (HighwaterMark 12)".
fn end_offset(reason: &str) -> Option<Offset> {
    let (_, after) = reason.split_once("reached end of partition at offset ")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// What the library complained of, with the error of the call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{complaint}")]
pub(super) struct Complaint {
    pub(super) complaint: String,
    pub(super) source: KafkaError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_from_what_the_library_says() {
        let check = |reason: &str, expected: Option<Offset>| assert_eq!(end_offset(reason), expected, "{reason}");
        check("Fetch from broker 1 reached end of partition at offset 12 (HighwaterMark 14)", Some(12));
        check("Fetch from broker 1 reached end of partition at offset 0 (HighwaterMark 0)", Some(0));
        check("Fetch from broker 1 reached end of partition at offset INVALID (HighwaterMark 0)", None);
        check("Broker: No more messages", None);
    }

    #[test]
    fn settings_pass_through_but_for_ours() {
        let given = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for name in RESERVED {
            let refused = Settings::new("b:1", &given(name, "x")).unwrap_err();
            assert!(matches!(refused, Error::ReservedSetting { .. }), "{name}");
        }
        let check = |name: &str, value: &str, asked: &str, expected: Option<&str>| {
            let settings = Settings::new("b:1", &given(name, value)).unwrap();
            let found = (settings.producer(), settings.consumer());
            assert_eq!(found.0.get(asked).or(found.1.get(asked)), expected, "{name}={value}");
        };
        check("linger.ms", "7", "linger.ms", Some("7"));
        check("queue.buffering.max.ms", "7", "linger.ms", None);
        check("fetch.wait.max.ms", "9", "fetch.wait.max.ms", Some("9"));
        check("sasl.mechanism", "PLAIN", "linger.ms", Some("2"));
        check("sasl.mechanism", "PLAIN", "sasl.mechanism", Some("PLAIN"));
    }

    #[test]
    fn a_record_may_be_as_large_as_the_smaller_limit_says() {
        let check = |given: &[(&str, &str)], of_topic: Option<usize>, bytes: usize, named: &str| {
            let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let limit = Settings::new("b:1", &given).unwrap().record_limit("sales", of_topic);
            assert_eq!((limit.bytes, limit.setting.contains(named)), (bytes, true), "{limit:?}");
        };
        check(&[], Some(1_048_588), 1_000_000 - RECORD_BYTES, "LAMINA_KAFKA_MESSAGE_MAX_BYTES");
        check(&[], None, 1_000_000 - RECORD_BYTES, "LAMINA_KAFKA_MESSAGE_MAX_BYTES");
        check(&[], Some(10_000), 10_000 - BATCH_BYTES, "topic `sales`");
        check(&[("message.max.bytes", "15000000")], Some(1_048_588), 1_048_588 - BATCH_BYTES, "topic `sales`");
        let compressed = [("message.max.bytes", "15000000"), ("compression.type", "zstd")];
        check(&compressed, Some(1_048_588), 15_000_000 - RECORD_BYTES, "LAMINA_KAFKA_MESSAGE_MAX_BYTES");
    }
}
