//! Apache Kafka, through librdkafka.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::{Bounds, Error, Log, NewRecord, Reader};
use crate::{
    clock::Clock,
    position::{Frontier, Offset, Partition},
};

/// A Kafka cluster.
#[derive(Debug)]
pub struct Kafka {}

impl Kafka {
    /// Connects.
    pub async fn connect(_: &str, _: &BTreeMap<String, String>, _: Arc<dyn Clock>) -> Result<Self, Error> {
        todo!()
    }
}

#[async_trait]
impl Log for Kafka {
    async fn ensure_topic(&self, _: &str, _: Partition) -> Result<Partition, Error> {
        todo!()
    }
    async fn bounds(&self, _: &str) -> Result<Bounds, Error> {
        todo!()
    }
    async fn append(&self, _: &str, _: Partition, _: Vec<NewRecord>) -> Result<Vec<Offset>, Error> {
        todo!()
    }
    async fn reader(&self, _: &str, _: &Frontier) -> Result<Box<dyn Reader>, Error> {
        todo!()
    }
}
