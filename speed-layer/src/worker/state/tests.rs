use common::{catalog::Catalog, log::Chunk};

use super::*;
use crate::ingest::fold_chunk;

/// A worker's state of one view over one partition, without a worker.
struct Bed {
    catalog: Catalog,
    context: Arc<TaskContext>,
    state: State,
}

fn at(offset: Offset) -> Frontier {
    Frontier::from_iter([(0, offset)])
}

impl Bed {
    fn new() -> Self {
        Self::of("SELECT product, count(*) AS orders FROM sales GROUP BY product")
    }

    fn of(select: &str) -> Self {
        let sql = format!(
            "CREATE TABLE sales (product INT NOT NULL) WITH (partitions = 1);
             CREATE MATERIALIZED VIEW orders AS {select};"
        );
        let catalog = Catalog::parse(&[("sales.sql".to_owned(), sql)]).unwrap();
        let view = catalog.views["orders"].clone();
        let mut state = State::new(master::Version::default(), Arc::new([0].into()), 0);
        let tracks = BTreeMap::from([(0, Track::new(0))]);
        state.frame.views.insert("orders".to_owned(), Arc::new(ViewState { view, tracks, failed: None }));
        state.published("orders", Frontier::default());
        Self { catalog, context: Arc::new(TaskContext::default()), state }
    }

    /// Reads events up to `to`.
    async fn read(&mut self, to: Offset) {
        let mut chunk = Chunk::new(0, self.state.frame.head.get(0));
        for offset in chunk.from..to {
            chunk.push(offset, offset, Some(format!("{{\"product\": {}}}", offset % 3).as_bytes()));
        }
        assert!(self.state.note_read(std::slice::from_ref(&chunk)));
        let views = self.catalog.views.values().cloned().collect();
        let dataset = self.catalog.datasets["sales"].clone();
        self.state.push(fold_chunk(dataset, views, chunk, self.context.clone()).await);
        self.state.seal(0, &self.context).await;
    }

    /// The master has a version up to `to`.
    async fn archive(&mut self, to: Offset, now_us: i64) {
        let frontier = at(to);
        self.state.boundary(master::Version { frontier, ..master::Version::default() }, now_us);
        self.state.seal(0, &self.context).await;
    }

    async fn merge_all(&mut self) {
        while let Some(run) = self.state.next_run() {
            let context = self.context.clone();
            let merged = tokio::task::spawn_blocking(move || run.merge(&context)).await.unwrap();
            assert!(self.state.take(merged));
        }
    }

    /// Where the view can be cut.
    fn cuts(&self) -> Vec<Offset> {
        let head = self.state.frame.head.get(0);
        (0..=head).filter(|&cut| self.state.frame.views["orders"].since(&at(cut)).is_some()).collect()
    }
}

#[tokio::test]
async fn every_master_version_is_a_boundary_while_there_are_rows() {
    let mut bed = Bed::new();
    bed.read(10).await;
    bed.archive(4, 1).await;
    bed.archive(12, 2).await;
    assert_eq!((bed.cuts(), &bed.state.sealed.frontier), (vec![0, 4, 10], &at(4)));
    bed.read(20).await;
    assert_eq!((bed.cuts(), &bed.state.sealed.frontier), (vec![0, 4, 10, 12, 20], &at(12)));
}

#[tokio::test]
async fn boundaries_stay_while_they_are_young_or_announced() {
    let mut bed = Bed::new();
    bed.read(20).await;
    for (to, now_us) in [(4, 10), (8, 100), (12, 200), (16, 300)] {
        bed.archive(to, now_us).await;
    }
    bed.state.announced.insert("orders".to_owned(), vec![at(8)]);
    // A version is young until the next one has been there for 60: the one of 8 would go here.
    bed.state.retire(261, 0, 60, Owners::None);
    bed.merge_all().await;
    assert_eq!(bed.cuts(), [0, 8, 12, 16, 20]);
    bed.state.retire(1000, 0, 60, Owners::None);
    bed.merge_all().await;
    assert_eq!(bed.cuts(), [0, 8, 16, 20]);
}

#[tokio::test]
async fn a_tail_that_is_given_up_is_cut_only_where_somebody_asked() {
    let mut bed = Bed::new();
    bed.read(10).await;
    bed.state.announced.insert("orders".to_owned(), vec![at(6)]);
    assert!(bed.state.give_up_tail(&bed.context).await);
    bed.merge_all().await;
    assert_eq!(bed.cuts(), [0, 6, 10]);

    // A version that ends inside a piece is no boundary, and a cut there waits for one above.
    bed.archive(8, 1).await;
    assert_eq!(bed.state.sealed.frontier, at(0));
    bed.state.published("orders", at(8));
    assert!(bed.state.needs_a_boundary() && bed.state.is_behind_a_cut() && bed.state.unreachable_cut().is_none());
    bed.read(20).await;
    bed.archive(15, 2).await;
    assert_eq!(bed.state.sealed.frontier, at(15));
    assert!(!bed.state.needs_a_boundary() && !bed.state.is_behind_a_cut());
    assert_eq!(bed.state.unreachable_cut().unwrap().cut, at(8));
}

#[tokio::test]
async fn a_rebuild_that_nobody_needs_any_more_is_dropped() {
    let mut bed = Bed::new();
    bed.read(20).await;
    bed.archive(5, 1).await;
    bed.archive(10, 2).await;
    bed.state.published("orders", at(10));
    let mut track = Track::new(5);
    let states = RecordBatch::new_empty(bed.catalog.views["orders"].fold.state().clone());
    track.push(Piece { from: 5, to: 20, states, failed: Failed::default(), level: 1 });
    let tracks = Ok(BTreeMap::from([(0, track)]));
    let done = Done::Rebuilt { view: "orders".to_owned(), cut: at(5), until: at(20), tracks };
    assert!(!bed.state.take(done));
    assert_eq!(bed.cuts(), [0, 5, 10, 20]);
}

#[tokio::test]
async fn a_hole_in_what_is_read_is_seen() {
    let mut bed = Bed::new();
    bed.read(10).await;
    for (from, is_next) in [(10, true), (11, false), (9, false)] {
        assert_eq!(bed.state.note_read(&[Chunk::new(0, from)]), is_next, "{from}");
    }
}

#[tokio::test]
async fn failed_events_are_cut_and_merged_as_states_are() {
    let mut bed = Bed::of("SELECT sum(10 / (product - 1)) AS orders FROM sales");
    let check = |bed: &Bed, what: &str| {
        let (view, head) = (&bed.state.frame.views["orders"], bed.state.frame.head.get(0));
        for cut in bed.cuts() {
            let pieces = view.since(&at(cut)).unwrap();
            let failed = Failed::sum(pieces.iter().map(|piece| &piece.failed));
            let mut offsets: Vec<Offset> = failed.newest(1000).iter().map(|event| event.offset).collect();
            offsets.reverse();
            let expected: Vec<Offset> = (cut..head).filter(|offset| offset % 3 == 1).collect();
            assert_eq!(offsets, expected, "{what}: from {cut} to {head}");
        }
    };
    bed.read(10).await;
    check(&bed, "read");
    bed.archive(5, 1).await;
    bed.read(20).await;
    bed.archive(13, 2).await;
    assert_eq!(bed.cuts(), [0, 5, 10, 13, 20]);
    check(&bed, "split");
    bed.state.retire(1000, 0, 0, Owners::None);
    bed.merge_all().await;
    assert!(bed.cuts().len() < 5);
    check(&bed, "merged");
}

#[tokio::test]
async fn a_cut_stays_until_every_owner_has_a_newer_one() {
    const SECOND_US: i64 = 1_000_000;
    let mut bed = Bed::new();
    bed.read(30).await;
    for to in [10, 20, 30] {
        bed.archive(to, 0).await;
        bed.state.published("orders", at(to));
    }
    let definition = bed.catalog.views["orders"].definition.clone();
    let told = |cut, seconds: i64| BTreeMap::from([(definition.clone(), (at(cut), seconds * SECOND_US))]);
    let check = |bed: &mut Bed, seconds: i64, told: &BTreeMap<String, (Frontier, i64)>, expected: &[Offset]| {
        bed.state.retire(seconds * SECOND_US, 30 * SECOND_US, i64::MAX, Owners::Told(told));
        let cuts = bed.state.possible_cuts();
        assert_eq!(cuts[&definition].iter().map(|cut| cut.get(0)).collect::<Vec<_>>(), expected, "{seconds}");
    };
    check(&mut bed, 1, &BTreeMap::new(), &[0, 10, 20, 30]);
    check(&mut bed, 100, &told(10, 100), &[0, 10, 20, 30]);
    check(&mut bed, 129, &told(10, 129), &[0, 10, 20, 30]);
    check(&mut bed, 130, &told(10, 130), &[10, 20, 30]);
    // Another owner is behind for minutes.
    check(&mut bed, 500, &told(10, 500), &[10, 20, 30]);
    // It has caught up with one that had been possible here for long.
    check(&mut bed, 501, &told(20, 501), &[10, 20, 30]);
    check(&mut bed, 531, &told(20, 501), &[20, 30]);
    // Nobody says anything any more.
    check(&mut bed, 1100, &told(20, 501), &[20, 30]);
    check(&mut bed, 1701, &told(20, 501), &[30]);
}
