//! Positions in the log, and the frontiers that name a prefix of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A partition of a topic, as Kafka numbers them.
pub type Partition = i32;

/// An offset in a partition. Offsets have gaps (transaction markers, compaction), so a difference of two is no count.
pub type Offset = i64;

/// The next offset of every partition of one topic: an exact prefix of the log.
///
/// A partition that is missing stands at 0, so the empty frontier is the empty prefix. Written in JSON as
/// `{"0": 1204, "3": 17}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Frontier(BTreeMap<Partition, Offset>);

impl PartialEq for Frontier {
    /// Two frontiers are equal when they name the same prefix: a partition at 0 may be there or not.
    fn eq(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }
}

impl Eq for Frontier {}

impl Frontier {
    /// The next offset of `partition`, 0 when it is missing.
    pub fn get(&self, partition: Partition) -> Offset {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Sets the next offset of `partition`.
    pub fn set(&mut self, partition: Partition, next: Offset) {
        self.0.insert(partition, next);
    }

    /// Moves `partition` forward to `next`; never back.
    pub fn advance(&mut self, partition: Partition, next: Offset) {
        let at = self.0.entry(partition).or_insert(0);
        *at = (*at).max(next);
    }

    /// The smallest frontier that covers both.
    pub fn join(&mut self, other: &Self) {
        for (partition, next) in other.iter() {
            self.advance(partition, next);
        }
    }

    /// Whether everything below `other` is below this frontier too.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(partition, next)| self.get(partition) >= next)
    }

    /// The partitions and their next offsets, in the partitions' order.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.0.iter().map(|(&partition, &next)| (partition, next))
    }

    /// The partitions named here.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        self.0.keys().copied()
    }

    /// Whether this is the empty prefix.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|&next| next <= 0)
    }
}

impl FromIterator<(Partition, Offset)> for Frontier {
    fn from_iter<I: IntoIterator<Item = (Partition, Offset)>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

impl std::fmt::Display for Frontier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{")?;
        for (i, (partition, next)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{partition}: {next}")?;
        }
        write!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontier(positions: &[(Partition, Offset)]) -> Frontier {
        positions.iter().copied().collect()
    }

    #[test]
    fn a_missing_partition_stands_at_zero() {
        assert_eq!(frontier(&[]), frontier(&[(0, 0)]));
        assert!(frontier(&[(0, 3)]).covers(&frontier(&[(1, 0), (0, 2)])));
        assert!(!frontier(&[(0, 3)]).covers(&frontier(&[(1, 1)])));
    }

    #[test]
    fn json_is_a_map_of_partitions() {
        let written = serde_json::to_string(&frontier(&[(0, 1204), (3, 17)])).unwrap();
        assert_eq!(written, r#"{"0":1204,"3":17}"#);
        assert_eq!(serde_json::from_str::<Frontier>(&written).unwrap(), frontier(&[(0, 1204), (3, 17)]));
    }

    #[test]
    fn a_frontier_never_moves_back() {
        let mut at = frontier(&[(0, 5)]);
        at.join(&frontier(&[(0, 3), (1, 2)]));
        assert_eq!(at, frontier(&[(0, 5), (1, 2)]));
    }
}
