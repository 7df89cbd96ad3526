//! What a worker knows: the frame, the tail, and where it may be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use common::{
    catalog::View,
    master,
    position::{Frontier, Offset, Partition},
};
use datafusion::{arrow::array::RecordBatch, execution::TaskContext};

use super::background::Done;
use crate::{
    compact::next_run,
    frame::{Beyond, Frame, ViewState},
    ingest::{Folded, Tail, fold_rows},
    piece::Piece,
    rebuild::Wanted,
    track::Track,
};

/// Up to so many rows, neighbours of the tail become one: a slow topic would else be many tiny pieces.
const SMALL_ROWS: usize = 8192;

/// A batch view version's cut.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) at: Frontier,
    /// Since when the states can be cut here, microseconds since 1970.
    possible_us: Option<i64>,
}

impl Cut {
    pub(super) fn new(at: Frontier) -> Self {
        Self { at, possible_us: None }
    }
}

/// What one worker knows of its dataset.
#[derive(Debug)]
pub(super) struct State {
    pub(super) frame: Frame,
    pub(super) beyond: Beyond,
    /// The partitions that it holds.
    pub(super) partitions: Arc<BTreeSet<Partition>>,
    /// By view, the cuts that are to be kept possible, oldest first.
    pub(super) cuts: BTreeMap<String, Vec<Cut>>,
    /// The newest master version whose frontier every partition has been sealed at.
    pub(super) sealed: master::Version,
    /// Whether the head stands still because the memory is full.
    pub(super) paused: bool,
    /// Whether the log cannot be read.
    pub(super) stalled: bool,
    /// Rows above the sealed frontier, by partition and in order: one for each piece of every track.
    tail: BTreeMap<Partition, Vec<Tail>>,
    /// By partition, up to where it is sealed.
    archived: Frontier,
    /// Master versions that are not sealed yet, oldest first.
    pending: Vec<master::Version>,
    /// Frontiers of master versions and when they were seen, oldest first.
    boundaries: Vec<(Frontier, i64)>,
}

impl State {
    pub(super) fn new(at: master::Version, partitions: Arc<BTreeSet<Partition>>, now_us: i64) -> Self {
        let head: Frontier = partitions.iter().map(|&partition| (partition, at.frontier.get(partition))).collect();
        Self {
            frame: Frame { head: head.clone(), views: BTreeMap::new() },
            beyond: Beyond::default(),
            partitions,
            cuts: BTreeMap::new(),
            paused: false,
            stalled: false,
            tail: BTreeMap::new(),
            archived: head.clone(),
            pending: Vec::new(),
            boundaries: vec![(head, now_us)],
            sealed: at,
        }
    }

    /// Adds what was folded at the head of its partition.
    pub(super) fn push(&mut self, folded: Folded) {
        let (partition, tail) = (folded.partition, folded.tail);
        if tail.to == tail.from {
            return;
        }
        debug_assert_eq!(tail.from, self.frame.head.get(partition), "chunks follow one another");
        for (view, states) in self.frame.views.values_mut().zip(folded.states) {
            let view = Arc::make_mut(view);
            match states {
                _ if view.failed.is_some() => {}
                Ok(states) => {
                    let track = view.tracks.entry(partition).or_insert_with(|| Track::new(tail.from));
                    track.push(Piece { from: tail.from, to: tail.to, states, level: 0 });
                }
                Err(reason) => fail(view, reason),
            }
        }
        self.frame.head.advance(partition, tail.to);
        if let Some(last_ms) = folded.last_ms {
            self.beyond.last_ms.insert(partition, last_ms);
        }
        self.tail.entry(partition).or_default().push(tail);
    }

    /// Makes one of the tail's last pieces while they are small and alike in size.
    pub(super) async fn join_small(&mut self, partition: Partition, context: &Arc<TaskContext>) {
        loop {
            let Some([.., before, last]) = self.tail.get(&partition).map(Vec::as_slice) else { return };
            let (rows_before, rows) = (before.rows.num_rows(), last.rows.num_rows());
            if rows_before + rows > SMALL_ROWS || rows_before > 2 * rows.max(16) {
                return;
            }
            let Ok(joined) = before.join(last) else { return };
            for view in self.frame.views.values_mut().filter(|view| view.failed.is_none()) {
                let view = Arc::make_mut(view);
                let Some(track) = view.tracks.get_mut(&partition) else { continue };
                let [.., a, b] = track.pieces() else { continue };
                let both = vec![a.states.clone(), b.states.clone()];
                match view.view.fold.reduce(both, context).await {
                    Ok(states) => {
                        track.replace(vec![Piece { from: joined.from, to: joined.to, states, level: 0 }]);
                    }
                    Err(error) => fail(view, error.strip_backtrace()),
                }
            }
            if let Some(tail) = self.tail.get_mut(&partition) {
                tail.truncate(tail.len() - 2);
                tail.push(joined);
            }
        }
    }

    /// Notes a master version, whose frontier is to become a boundary.
    pub(super) fn boundary(&mut self, version: master::Version, now_us: i64) {
        self.boundaries.push((version.frontier.clone(), now_us));
        self.pending.push(version);
    }

    /// Seals a partition at the frontiers that its head has reached: splits the piece that a frontier lies inside of,
    /// and lets go of the rows below.
    pub(super) async fn seal(&mut self, partition: Partition, context: &Arc<TaskContext>) {
        let head = self.frame.head.get(partition);
        let frontiers: Vec<Offset> = self.pending.iter().map(|version| version.frontier.get(partition)).collect();
        for frontier in frontiers.into_iter().filter(|&frontier| frontier <= head) {
            if frontier > self.archived.get(partition) {
                self.split(partition, frontier, context).await;
                if let Some(tail) = self.tail.get_mut(&partition) {
                    tail.retain(|tail| tail.to > frontier);
                }
                self.archived.advance(partition, frontier);
            }
        }
        while self.pending.first().is_some_and(|version| self.has_reached(&self.archived, &version.frontier)) {
            self.sealed = self.pending.remove(0);
        }
    }

    async fn split(&mut self, partition: Partition, at: Offset, context: &Arc<TaskContext>) {
        let Some(tails) = self.tail.get_mut(&partition) else { return };
        let Some(place) = tails.iter().position(|tail| tail.from < at && at < tail.to) else { return };
        let (below, above) = tails[place].split(at);
        for view in self.frame.views.values_mut().filter(|view| view.failed.is_none()) {
            let view = Arc::make_mut(view);
            let definition = view.view.clone();
            let Some(track) = view.tracks.get_mut(&partition) else { continue };
            if track.straddling(at).is_none() {
                continue;
            }
            let mut halves = Vec::with_capacity(2);
            for half in [&below, &above] {
                match fold_rows(&definition, &half.rows, context).await {
                    Ok(states) => halves.push(Piece { from: half.from, to: half.to, states, level: 0 }),
                    Err(reason) => fail(view, reason),
                }
            }
            if let (2, Some(track)) = (halves.len(), view.tracks.get_mut(&partition)) {
                track.replace(halves);
            }
        }
        tails.splice(place..=place, [below, above]);
    }

    /// Notes a batch view version.
    pub(super) fn published(&mut self, view: &str, cut: Frontier) {
        self.cuts.entry(view.to_owned()).or_default().push(Cut::new(cut));
    }

    /// Lets go of what is below a view's newest cut once that has been possible for `retire_after_us`, and of
    /// boundaries older than `keep_us`; the newest of each stay.
    pub(super) fn retire(&mut self, now_us: i64, retire_after_us: i64, keep_us: i64) {
        while self.boundaries.len() > 1 && now_us - self.boundaries[0].1 > keep_us {
            self.boundaries.remove(0);
        }
        for (name, cuts) in &mut self.cuts {
            let Some(view) = self.frame.views.get_mut(name) else { continue };
            let Some(newest) = cuts.last_mut() else { continue };
            if view.failed.is_some() || view.since(&newest.at).is_none() {
                continue;
            }
            let possible_us = *newest.possible_us.get_or_insert(now_us);
            if cuts.len() < 2 || now_us - possible_us < retire_after_us {
                continue;
            }
            cuts.drain(..cuts.len() - 1);
            let view = Arc::make_mut(view);
            for (&partition, track) in &mut view.tracks {
                track.drop_below(cuts[0].at.get(partition));
            }
        }
    }

    /// A view whose newest cut lies inside a piece, or below all of them: it has to be rebuilt. One that lies above the
    /// head only has to wait.
    pub(super) fn unreachable_cut(&self) -> Option<Wanted> {
        self.cuts.iter().find_map(|(name, cuts)| {
            let (view, cut) = (self.frame.views.get(name)?, &cuts.last()?.at);
            let lost = view.failed.is_none() && self.sealed.frontier.covers(cut) && view.since(cut).is_none();
            lost.then(|| Wanted { view: view.view.clone(), cut: cut.clone() })
        })
    }

    /// Whether `at` covers `wanted` in the partitions that are held here.
    fn has_reached(&self, at: &Frontier, wanted: &Frontier) -> bool {
        self.partitions.iter().all(|&partition| at.get(partition) >= wanted.get(partition))
    }

    /// Lets go of all partitions but those in `kept`.
    pub(super) fn shrink(&mut self, kept: BTreeSet<Partition>) {
        let kept: BTreeSet<Partition> = self.partitions.intersection(&kept).copied().collect();
        let within = |frontier: &Frontier| frontier.iter().filter(|(partition, _)| kept.contains(partition)).collect();
        self.frame.head = within(&self.frame.head);
        self.archived = within(&self.archived);
        for view in self.frame.views.values_mut() {
            Arc::make_mut(view).tracks.retain(|partition, _| kept.contains(partition));
        }
        self.tail.retain(|partition, _| kept.contains(partition));
        self.beyond.last_ms.retain(|partition, _| kept.contains(partition));
        self.beyond.end = None;
        self.partitions = Arc::new(kept);
    }

    /// Whether a batch view version has been published that the head has not reached.
    pub(super) fn is_behind_a_cut(&self) -> bool {
        self.cuts.values().filter_map(|cuts| cuts.last()).any(|cut| !self.has_reached(&self.frame.head, &cut.at))
    }

    /// Neighbours that should become one piece.
    pub(super) fn next_run(&self) -> Option<(Arc<View>, Partition, Vec<Arc<Piece>>)> {
        for (name, view) in self.frame.views.iter().filter(|(_, view)| view.failed.is_none()) {
            for (&partition, track) in &view.tracks {
                let cuts = self.cuts.get(name).into_iter().flatten().map(|cut| cut.at.get(partition));
                let boundaries = self.boundaries.iter().map(|(frontier, _)| frontier.get(partition));
                let mut kept: Vec<Offset> = cuts.chain(boundaries).collect();
                kept.sort_unstable();
                if let Some(run) = next_run(track, self.archived.get(partition), &kept) {
                    return Some((view.view.clone(), partition, run));
                }
            }
        }
        None
    }

    /// Takes in what the background came to. Whether the frame has changed.
    pub(super) fn take(&mut self, done: Done) -> bool {
        match done {
            Done::Nothing => false,
            Done::Merged { view, partition, piece } => {
                let Some(view) = self.frame.views.get_mut(&view) else { return false };
                Arc::make_mut(view).tracks.get_mut(&partition).is_some_and(|track| track.replace(vec![piece]))
            }
            Done::Rebuilt { view, cut, until, tracks } => {
                let Some(view) = self.frame.views.get_mut(&view) else { return false };
                let view = Arc::make_mut(view);
                match tracks {
                    // One that held other partitions when it was begun is begun again.
                    Ok(rebuilt) if rebuilt.keys().ne(self.partitions.iter()) => false,
                    Ok(rebuilt) => adopt(view, rebuilt, &cut, &until),
                    Err(reason) => {
                        fail(view, reason);
                        true
                    }
                }
            }
        }
    }

    /// How much memory everything takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let states: usize = self.frame.views.values().map(|view| view.bytes()).sum();
        states + self.tail.values().flatten().map(Tail::bytes).sum::<usize>()
    }

    /// How many pieces there are.
    pub(super) fn pieces(&self) -> usize {
        self.frame.views.values().flat_map(|view| view.tracks.values()).map(|track| track.pieces().len()).sum()
    }
}

fn fail(view: &mut ViewState, reason: String) {
    tracing::error!(view = view.view.name, "view cannot be computed: {reason}");
    view.failed = Some(reason);
    view.tracks.clear();
}

/// Puts rebuilt states below the pieces that the view has above `until`.
fn adopt(view: &mut ViewState, rebuilt: BTreeMap<Partition, Track>, cut: &Frontier, until: &Frontier) -> bool {
    let mut tracks = BTreeMap::new();
    for (partition, track) in rebuilt {
        let piece = track.pieces().first().map(|piece| Piece {
            from: piece.from,
            to: piece.to,
            states: RecordBatch::clone(&piece.states),
            level: 1,
        });
        let present = view
            .tracks
            .get(&partition)
            .and_then(|present| present.rebuilt(cut.get(partition), until.get(partition), piece));
        let Some(track) = present else { return false };
        tracks.insert(partition, track);
    }
    view.tracks = tracks;
    true
}
