//! Events that expired in the log before they were archived: nobody has them any more. The line stands still until an
//! operator records the range as lost; from then on the dataset is what is archived and what the log still has.

use std::collections::BTreeMap;

use common::{
    catalog::Dataset,
    clock::Clock,
    log::Log,
    master::{self, Version, position_id},
    position::{Offset, Partition},
    storage::Storage,
};

use crate::Error;

/// Offsets of one partition that are neither archived nor in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The partition.
    pub partition: Partition,
    /// The first offset.
    pub from: Offset,
    /// The first offset after them: where the log starts.
    pub to: Offset,
}

/// What of a dataset is lost, and not recorded yet.
pub async fn find(storage: &Storage, log: &dyn Log, dataset: &Dataset) -> Result<Vec<Lost>, Error> {
    Ok(look(storage, log, dataset).await?.2)
}

/// Records as lost what [`find`] finds: the master's frontier moves up to where the log starts, in one commit without
/// files. An appender at work is fenced off by it, as by any other.
pub async fn record(
    storage: &Storage,
    log: &dyn Log,
    dataset: &Dataset,
    clock: &dyn Clock,
) -> Result<Vec<Lost>, Error> {
    let (table, snapshot, lost) = look(storage, log, dataset).await?;
    if !lost.is_empty() {
        let txns: BTreeMap<String, i64> =
            lost.iter().map(|lost| (position_id(&dataset.name, lost.partition), lost.to)).collect();
        table.commit(&snapshot, &[], Vec::new(), &txns, clock.now_ms()).await?;
    }
    Ok(lost)
}

async fn look(
    storage: &Storage,
    log: &dyn Log,
    dataset: &Dataset,
) -> Result<(common::storage::table::Table, common::storage::table::Snapshot, Vec<Lost>), Error> {
    let partitions = log.ensure_topic(&dataset.topic, dataset.partitions).await?;
    let table = master::table(storage, &dataset.name)?;
    table.ensure(&dataset.schema).await?;
    let snapshot = table.load(None).await?;
    let frontier = Version::of(&table, &snapshot, &dataset.name, partitions).await?.frontier;
    let start = log.bounds(&dataset.topic).await?.start;
    let lost = start
        .iter()
        .map(|(partition, to)| Lost { partition, from: frontier.get(partition), to })
        .filter(|lost| lost.to > lost.from);
    Ok((table, snapshot, lost.collect()))
}
