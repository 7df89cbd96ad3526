//! Membership in a consumer group: partitions come and go, and what goes is kept until its next owner has it.
//!
//! Whether an answer is right never depends on the group: a partition's states are the same wherever they are held, and
//! a query takes each from one holder.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use common::{
    log::{Assignment, Membership},
    position::{Frontier, Partition},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::SpeedLayer;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Since when partitions of a dataset are somebody else's.
type Lingering = BTreeMap<(String, Partition), Instant>;

/// Does what the group says, until it is told to stop.
pub(crate) async fn follow(
    layer: Arc<SpeedLayer>,
    mut membership: Membership,
    linger: Duration,
    cancelled: CancellationToken,
) -> Result<(), Infallible> {
    let mut lingering = Lingering::new();
    loop {
        let assignment = membership.assigned.borrow_and_update().clone();
        let holdings = layer.holdings();
        // A dataset that comes moves partitions of others, while everybody builds other views.
        let linger = linger.max(layer.changing_for().unwrap_or_default());
        let topics: Vec<String> = holdings.values().map(|holding| holding.topic()).collect();
        membership.topics.send_if_modified(|subscribed| {
            let is_other = *subscribed != topics;
            *subscribed = topics;
            is_other
        });
        for (name, holding) in &holdings {
            let assigned = of(&assignment, &holding.topic());
            let held = holding.partitions();
            let new: BTreeSet<Partition> = assigned.difference(&held).copied().collect();
            if !new.is_empty() {
                holding.add(new);
            }
            let now = Instant::now();
            lingering.retain(|(dataset, partition), _| dataset != name || !assigned.contains(partition));
            let mut kept = assigned.clone();
            for &partition in held.difference(&assigned) {
                let since = *lingering.entry((name.clone(), partition)).or_insert(now);
                if now - since < linger {
                    kept.insert(partition);
                } else {
                    lingering.remove(&(name.clone(), partition));
                }
            }
            if held.iter().any(|partition| !kept.contains(partition)) {
                holding.shrink(&kept);
            }
        }
        membership.reached.send_replace(reached(&layer, &assignment));
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            changed = membership.assigned.changed() => if changed.is_err() {
                // The group has been left: what is held is served until the end.
                cancelled.cancelled().await;
                return Ok(());
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn of(assignment: &Assignment, topic: &str) -> BTreeSet<Partition> {
    assignment.get(topic).cloned().unwrap_or_default()
}

/// How far the partitions that are this member's have come, by topic: for others to see the lag.
fn reached(layer: &SpeedLayer, assignment: &Assignment) -> BTreeMap<String, Frontier> {
    let heads = layer.holdings().into_values().map(|holding| {
        let assigned = of(assignment, &holding.topic());
        let head = holding.status().head.unwrap_or_default();
        (holding.topic(), head.iter().filter(|(partition, _)| assigned.contains(partition)).collect())
    });
    heads.collect()
}
