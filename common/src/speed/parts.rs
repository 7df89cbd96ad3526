//! One answer from several holders of partitions: each partition is taken from exactly one of them.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use futures::future::try_join_all;

use super::{Error, Frozen, FrozenView, KeyFilter, Request, States};
use crate::{
    fold::Failed,
    position::{Frontier, Partition},
};

/// What one holder has frozen: some of a dataset's partitions at one head.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which partitions, and the next offset of each.
    pub head: Frontier,
    /// As in [`Frozen`], for these partitions.
    pub freshness_ms: Option<i64>,
    /// As in [`Frozen`], for these partitions.
    pub stopped: Option<String>,
    /// The views, in the request's order.
    pub views: Vec<PartView>,
}

/// One view of a [`Part`].
#[derive(Clone, Debug)]
pub struct PartView {
    /// For each of the request's cuts, whether the states can be separated there.
    pub possible: Vec<bool>,
    /// For each of them, the failed events from there to the head; without the events where they were not asked for.
    pub failed: Vec<Failed>,
    /// The states.
    pub states: Arc<dyn PartStates>,
}

/// Frozen states that may begin at several cuts.
#[async_trait]
pub trait PartStates: Send + Sync + std::fmt::Debug {
    /// The states from the request's cut number `cut_index` on, which must be possible; else as [`States::read`].
    async fn read(&self, cut_index: usize, filter: Option<&KeyFilter>) -> Result<Vec<RecordBatch>, Error>;
}

/// Puts parts that have no partition in common together: every view at the first of its cuts that is possible in all
/// of them. Partitions that no part has make it an error, or, where the request allows it, a partial answer that names
/// them.
pub fn combine(request: &Request, parts: &[Part]) -> Result<Frozen, Error> {
    let mut head = Frontier::default();
    for part in parts {
        head.join(&part.head);
    }
    let held: BTreeSet<Partition> = parts.iter().flat_map(|part| part.head.partitions()).collect();
    let missing: BTreeSet<Partition> = request.partitions.difference(&held).copied().collect();
    if !missing.is_empty() && !request.allow_partial {
        let partitions = missing.into_iter().collect();
        return Err(Error::NoOwner { dataset: request.dataset.clone(), partitions });
    }
    let mut views = Vec::with_capacity(request.views.len());
    for (place, wanted) in request.views.iter().enumerate() {
        let is_possible = |&(cut_index, cut): &(usize, &Frontier)| {
            // A cut in a partition that nobody has heard of cannot be completed by leaving it out.
            cut.iter().all(|(partition, next)| next <= 0 || request.partitions.contains(&partition))
                && parts.iter().all(|part| part.views[place].possible.get(cut_index).copied().unwrap_or(false))
        };
        let Some((cut_index, cut)) = wanted.cuts.iter().enumerate().find(is_possible) else {
            return Err(Error::NoCut { view: wanted.view.clone() });
        };
        for &partition in &missing {
            let known = head.partitions().any(|other| other == partition);
            let at = if known { head.get(partition).min(cut.get(partition)) } else { cut.get(partition) };
            head.set(partition, at);
        }
        let states: Arc<dyn PartStates> = Arc::new(Together::of(parts, place));
        let failed = Failed::sum(parts.iter().filter_map(|part| part.views[place].failed.get(cut_index)));
        views.push(FrozenView { cut_index, failed, states: Arc::new(Begun { states, cut_index }) });
    }
    let freshness_ms = oldest(parts).filter(|_| missing.is_empty());
    Ok(Frozen { head, freshness_ms, stopped: stopped(parts), views, missing })
}

/// Parts that have no partition in common, and the same views, as one.
pub fn merge(mut parts: Vec<Part>) -> Part {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut head = Frontier::default();
    for part in &parts {
        head.join(&part.head);
    }
    let views = (0..parts.first().map_or(0, |part| part.views.len())).map(|place| {
        let cuts = parts[0].views[place].possible.len();
        let possible = (0..cuts).map(|cut| parts.iter().all(|part| part.views[place].possible[cut])).collect();
        let failed = |cut| Failed::sum(parts.iter().filter_map(|part| part.views[place].failed.get(cut)));
        PartView { possible, failed: (0..cuts).map(failed).collect(), states: Arc::new(Together::of(&parts, place)) }
    });
    Part { head, freshness_ms: oldest(&parts), stopped: stopped(&parts), views: views.collect() }
}

fn oldest(parts: &[Part]) -> Option<i64> {
    let ages: Option<Vec<i64>> = parts.iter().map(|part| part.freshness_ms).collect();
    ages.map(|ages| ages.into_iter().max().unwrap_or(0))
}

fn stopped(parts: &[Part]) -> Option<String> {
    parts.iter().find_map(|part| part.stopped.clone())
}

/// The states of one view in all parts.
#[derive(Debug)]
struct Together(Vec<Arc<dyn PartStates>>);

impl Together {
    fn of(parts: &[Part], place: usize) -> Self {
        Self(parts.iter().map(|part| part.views[place].states.clone()).collect())
    }
}

#[async_trait]
impl PartStates for Together {
    async fn read(&self, cut_index: usize, filter: Option<&KeyFilter>) -> Result<Vec<RecordBatch>, Error> {
        let reads = self.0.iter().map(|part| part.read(cut_index, filter));
        Ok(try_join_all(reads).await?.into_iter().flatten().collect())
    }
}

/// States that begin at the cut that was chosen.
#[derive(Debug)]
struct Begun {
    states: Arc<dyn PartStates>,
    cut_index: usize,
}

#[async_trait]
impl States for Begun {
    async fn read(&self, filter: Option<&KeyFilter>) -> Result<Vec<RecordBatch>, Error> {
        self.states.read(self.cut_index, filter).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::ViewRequest;

    #[derive(Debug)]
    struct Nothing;

    #[async_trait]
    impl PartStates for Nothing {
        async fn read(&self, _: usize, _: Option<&KeyFilter>) -> Result<Vec<RecordBatch>, Error> {
            Ok(Vec::new())
        }
    }

    fn frontier(positions: &[(Partition, i64)]) -> Frontier {
        positions.iter().copied().collect()
    }

    fn part(head: &[(Partition, i64)], freshness_ms: Option<i64>, possible: &[bool]) -> Part {
        let failed = [Failed::of(10 * head[0].1), Failed::of(head[0].1)];
        let view = PartView { possible: possible.to_vec(), failed: failed.to_vec(), states: Arc::new(Nothing) };
        Part { head: frontier(head), freshness_ms, stopped: None, views: vec![view] }
    }

    fn request(allow_partial: bool) -> Request {
        let cuts = vec![frontier(&[(0, 5), (1, 7)]), frontier(&[(0, 3), (1, 4)])];
        let view = ViewRequest { view: "v".to_owned(), definition: "d".to_owned(), cuts, with_failed: false };
        Request { dataset: "t".to_owned(), partitions: [0, 1].into(), views: vec![view], allow_partial }
    }

    #[test]
    fn all_parts_are_cut_alike() {
        let parts = [part(&[(0, 9)], Some(3), &[true, true]), part(&[(1, 8)], Some(5), &[false, true])];
        let frozen = combine(&request(false), &parts).unwrap();
        assert_eq!(frozen.views[0].cut_index, 1, "the cut that both can begin at");
        assert_eq!(frozen.views[0].failed.count(), 9 + 8, "from that cut on, in both");
        assert_eq!((frozen.head, frozen.freshness_ms), (frontier(&[(0, 9), (1, 8)]), Some(5)));
        let apart = [part(&[(0, 9)], None, &[true, false]), part(&[(1, 8)], None, &[false, true])];
        assert!(matches!(combine(&request(false), &apart), Err(Error::NoCut { .. })));
    }

    #[test]
    fn one_part_that_stands_still_is_told_of() {
        let mut parts = [part(&[(0, 9)], Some(3), &[true, true]), part(&[(1, 8)], Some(5), &[true, true])];
        assert_eq!(combine(&request(false), &parts).unwrap().stopped, None);
        parts[1].stopped = Some("its memory is full".to_owned());
        assert_eq!(combine(&request(false), &parts).unwrap().stopped, parts[1].stopped);
        let merged = merge(parts.to_vec());
        assert_eq!(merged.stopped, parts[1].stopped);
        assert_eq!(merged.views[0].failed.iter().map(Failed::count).collect::<Vec<_>>(), [170, 17]);
    }

    #[test]
    fn a_partition_that_nobody_holds_is_named() {
        let parts = [part(&[(0, 9)], Some(3), &[true, true])];
        let refused = combine(&request(false), &parts);
        assert!(matches!(refused, Err(Error::NoOwner { partitions, .. }) if partitions == [1]));
        let frozen = combine(&request(true), &parts).unwrap();
        assert_eq!(frozen.missing, [1].into());
        assert_eq!((frozen.head, frozen.freshness_ms), (frontier(&[(0, 9), (1, 7)]), None), "at the cut");
    }

    #[test]
    fn a_cut_in_an_unknown_partition_is_not_completed() {
        let mut request = request(false);
        request.views[0].cuts[0].set(7, 1);
        let parts = [part(&[(0, 9), (1, 8)], Some(0), &[true, true])];
        assert_eq!(combine(&request, &parts).unwrap().views[0].cut_index, 1);
    }
}
