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
/// them, with all views at one cut there.
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
    let chosen = cuts(request, parts, &missing)?;
    for &partition in &missing {
        // What is missing ends at the cuts, and they are one there.
        if let Some(&(_, cut)) = chosen.first() {
            head.set(partition, cut.get(partition));
        }
    }
    let views = chosen.iter().enumerate().map(|(place, &(cut_index, _))| {
        let states: Arc<dyn PartStates> = Arc::new(Together::of(parts, place));
        let failed = Failed::sum(parts.iter().filter_map(|part| part.views[place].failed.get(cut_index)));
        FrozenView { cut_index, failed, states: Arc::new(Begun { states, cut_index }) }
    });
    let views = views.collect();
    let freshness_ms = oldest(parts).filter(|_| missing.is_empty());
    Ok(Frozen { head, freshness_ms, stopped: stopped(parts), views, missing })
}

/// For each view the first of its cuts that is possible in all parts, by its number too. In partitions that are missing
/// nothing goes on from a cut to the head: there all views are to be cut alike.
fn cuts<'a>(
    request: &'a Request,
    parts: &[Part],
    missing: &BTreeSet<Partition>,
) -> Result<Vec<(usize, &'a Frontier)>, Error> {
    let mut possible: Vec<Vec<(usize, &Frontier)>> = Vec::with_capacity(request.views.len());
    for (place, wanted) in request.views.iter().enumerate() {
        let is_possible = |&(cut_index, cut): &(usize, &Frontier)| {
            // A cut in a partition that nobody has heard of cannot be completed by leaving it out.
            cut.iter().all(|(partition, next)| next <= 0 || request.partitions.contains(&partition))
                && parts.iter().all(|part| part.views[place].possible.get(cut_index).copied().unwrap_or(false))
        };
        let cuts: Vec<_> = wanted.cuts.iter().enumerate().filter(is_possible).collect();
        if cuts.is_empty() {
            return Err(Error::NoCut { view: wanted.view.clone() });
        }
        possible.push(cuts);
    }
    let Some((first, others)) = possible.split_first() else { return Ok(Vec::new()) };
    let alike = |one: &Frontier, other: &Frontier| missing.iter().all(|&p| one.get(p) == other.get(p));
    let together = first.iter().find_map(|&(cut_index, cut)| {
        let others = others.iter().map(|cuts| cuts.iter().copied().find(|&(_, other)| alike(cut, other)));
        std::iter::once(Some((cut_index, cut))).chain(others).collect()
    });
    together.ok_or_else(|| {
        let views: Vec<String> = request.views.iter().map(|wanted| format!("`{}`", wanted.view)).collect();
        let partitions = missing.iter().copied().collect();
        Error::NoCommonCut { dataset: request.dataset.clone(), partitions, views: views.join(", ") }
    })
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
    fn views_are_cut_alike_where_nobody_goes_on_from_the_cuts() {
        // Partition 1 is missing. Each view has its cuts there, and some that the part can begin at.
        let check = |cuts: [&[i64]; 2], possible: [&[bool]; 2], expected: Option<([usize; 2], i64)>| {
            let views = ["v", "w"].into_iter().zip(cuts).map(|(view, cuts)| ViewRequest {
                view: view.to_owned(),
                definition: "d".to_owned(),
                cuts: cuts.iter().map(|&next| frontier(&[(0, 5), (1, next)])).collect(),
                with_failed: false,
            });
            let request = Request { views: views.collect(), ..request(true) };
            let views = possible.map(|possible| PartView {
                possible: possible.to_vec(),
                failed: Vec::new(),
                states: Arc::new(Nothing),
            });
            let views = views.to_vec();
            let part = Part { head: frontier(&[(0, 9)]), freshness_ms: None, stopped: None, views };
            match (combine(&request, &[part]), expected) {
                (Ok(frozen), Some((cut_indexes, head))) => {
                    let chosen: Vec<usize> = frozen.views.iter().map(|view| view.cut_index).collect();
                    assert_eq!((chosen.as_slice(), frozen.head.get(1)), (cut_indexes.as_slice(), head));
                }
                (Err(Error::NoCommonCut { partitions, views, .. }), None) => {
                    assert_eq!((partitions.as_slice(), views.as_str()), ([1].as_slice(), "`v`, `w`"));
                }
                (frozen, _) => panic!("{frozen:?}"),
            }
        };
        let (any, second) = (&[true, true][..], &[false, true][..]);
        check([&[7, 4], &[7, 4]], [any, any], Some(([0, 0], 7)));
        check([&[7, 4], &[4, 2]], [any, any], Some(([1, 0], 4)));
        check([&[7, 4], &[9, 7]], [any, any], Some(([0, 1], 7)));
        check([&[7, 4], &[7, 4]], [any, second], Some(([1, 1], 4)));
        check([&[7, 4], &[9, 2]], [any, any], None);
        check([&[7, 4], &[4, 7]], [second, any], Some(([1, 0], 4)));
    }

    #[test]
    fn a_cut_in_an_unknown_partition_is_not_completed() {
        let mut request = request(false);
        request.views[0].cuts[0].set(7, 1);
        let parts = [part(&[(0, 9), (1, 8)], Some(0), &[true, true])];
        assert_eq!(combine(&request, &parts).unwrap().views[0].cut_index, 1);
    }
}
