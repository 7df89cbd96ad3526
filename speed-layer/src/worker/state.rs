//! What a worker knows: the frame, the tail, and where it may be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use common::{
    fold::Failed,
    log::Chunk,
    master,
    position::{Frontier, Offset, Partition},
};
use datafusion::{arrow::array::RecordBatch, execution::TaskContext};

use super::background::{Done, Run};
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

/// What is known of the others that hold partitions of the dataset: a query needs a cut that is possible everywhere.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owners<'a> {
    /// There is none, or what they need does not matter any more.
    None,
    /// By definition of a view, the newest cut that all have, and when that was said, microseconds since 1970.
    Told(&'a BTreeMap<String, (Frontier, i64)>),
}

/// Microseconds after which a cut goes though nobody has said that all owners have a newer one.
const UNTOLD_US: i64 = 600_000_000;

impl Owners<'_> {
    /// Which of a view's cuts can stand in for those before it, and for how long it must have been possible here.
    fn stand_in(self, definition: &str, cuts: &[Cut], now_us: i64, retire_after_us: i64) -> Option<(usize, i64)> {
        let newest = cuts.len().checked_sub(1)?;
        let Self::Told(told) = self else { return Some((newest, retire_after_us)) };
        match told.get(definition) {
            Some((complete, said_us)) if now_us - said_us < UNTOLD_US => {
                Some((cuts.iter().position(|cut| cut.at == *complete)?, retire_after_us))
            }
            _ => Some((newest, retire_after_us.max(UNTOLD_US))),
        }
    }
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
    /// By view, the cuts that running recomputes work towards.
    pub(super) announced: BTreeMap<String, Vec<Frontier>>,
    /// The newest master version that every view can be cut at.
    pub(super) sealed: master::Version,
    /// Up to where a view is being rebuilt: its states from there on will be put on top.
    pub(super) rebuilding: Option<Frontier>,
    /// Why the head stands still: the memory is full.
    pub(super) paused: Option<String>,
    /// Why the log cannot be read.
    pub(super) stalled: Option<String>,
    /// Why what is written beyond the head cannot be read.
    pub(super) held_back: Option<String>,
    /// Whether the head has passed what was answered before.
    pub(super) is_shown: bool,
    /// The newest rows above what is archived, by partition and in order: one for each of the last pieces of every
    /// track. Pieces below them have no rows and cannot be split any more.
    tail: BTreeMap<Partition, Vec<Tail>>,
    /// By partition, up to where it is sealed.
    archived: Frontier,
    /// Master versions that are not sealed yet, oldest first.
    pending: Vec<master::Version>,
    /// Frontiers of master versions and when they were seen, oldest first; the newest is never let go of.
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
            announced: BTreeMap::new(),
            rebuilding: None,
            paused: None,
            stalled: None,
            held_back: None,
            is_shown: false,
            tail: BTreeMap::new(),
            archived: head.clone(),
            pending: Vec::new(),
            boundaries: vec![(head, now_us)],
            sealed: at,
        }
    }

    /// Notes what has been read and is to be folded. `false` when it does not begin where the head stands.
    pub(super) fn note_read(&mut self, chunks: &[Chunk]) -> bool {
        let mut head = self.frame.head.clone();
        for chunk in chunks {
            if chunk.from != head.get(chunk.partition) {
                return false;
            }
            head.set(chunk.partition, chunk.next);
            self.beyond.note_read(chunk);
        }
        true
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
                Ok((states, failed)) => {
                    let track = view.tracks.entry(partition).or_insert_with(|| Track::new(tail.from));
                    track.push(Piece { from: tail.from, to: tail.to, states, failed, level: 0 });
                }
                Err(reason) => fail(view, reason),
            }
        }
        self.frame.head.advance(partition, tail.to);
        self.beyond.first_ms.remove(&partition);
        if let Some(last_ms) = folded.last_ms {
            self.beyond.after_ms.insert(partition, last_ms);
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
                let failed = Failed::sum([&a.failed, &b.failed]);
                match view.view.fold.reduce(both, context).await {
                    Ok(states) => {
                        track.replace(vec![Piece { from: joined.from, to: joined.to, states, failed, level: 0 }]);
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
            let version = self.pending.remove(0);
            // Where the rows had been given up already, the states cannot be cut.
            let mut views = self.frame.views.values().filter(|view| view.failed.is_none());
            if views.all(|view| view.since(&version.frontier).is_some()) {
                self.sealed = version;
            }
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
                    Ok((states, failed)) => {
                        halves.push(Piece { from: half.from, to: half.to, states, failed, level: 0 });
                    }
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

    /// Gives up the rows of the tail: the states are then cut only where they can be now, and at cuts that somebody
    /// works towards or has published. Whether there were any.
    pub(super) async fn give_up_tail(&mut self, context: &Arc<TaskContext>) -> bool {
        let published = self.cuts.values().flatten().map(|cut| &cut.at);
        let wanted: Vec<Frontier> = self.announced.values().flatten().chain(published).cloned().collect();
        for &partition in self.partitions.clone().iter() {
            for cut in &wanted {
                self.split(partition, cut.get(partition), context).await;
            }
        }
        let had_rows = self.tail.values().any(|tail| !tail.is_empty());
        self.tail.clear();
        had_rows
    }

    /// Lets go of what is below a view's newest cut that all owners have, once that has been possible for
    /// `retire_after_us`, and of boundaries after which a newer one has been there for `keep_us`. Whether states have
    /// gone.
    pub(super) fn retire(&mut self, now_us: i64, retire_after_us: i64, keep_us: i64, owners: Owners<'_>) -> bool {
        let mut changed = false;
        while self.boundaries.get(1).is_some_and(|(_, seen_us)| now_us - seen_us > keep_us) {
            self.boundaries.remove(0);
        }
        for (name, cuts) in &mut self.cuts {
            let Some(view) = self.frame.views.get_mut(name) else { continue };
            let stand_in = owners.stand_in(&view.view.definition, cuts, now_us, retire_after_us);
            let Some((place, after_us)) = stand_in else { continue };
            let cut = &mut cuts[place];
            if view.failed.is_some() || !is_possible(view, &self.partitions, &self.archived, &cut.at) {
                continue;
            }
            let possible_us = *cut.possible_us.get_or_insert(now_us);
            if place == 0 || now_us - possible_us < after_us {
                continue;
            }
            cuts.drain(..place);
            let view = Arc::make_mut(view);
            for (&partition, track) in &mut view.tracks {
                track.drop_below(cuts[0].at.get(partition));
            }
            changed = true;
        }
        changed
    }

    /// By definition of a view, the cuts that its states can be taken from, oldest first.
    pub(super) fn possible_cuts(&self) -> BTreeMap<String, Vec<Frontier>> {
        let views = self.frame.views.iter().filter(|(_, view)| view.failed.is_none());
        let possible = views.map(|(name, view)| {
            let cuts = self.cuts.get(name).into_iter().flatten().map(|cut| &cut.at);
            let cuts = cuts.filter(|cut| is_possible(view, &self.partitions, &self.archived, cut));
            (view.view.definition.clone(), cuts.cloned().collect())
        });
        possible.collect()
    }

    /// Views whose newest cut lies inside a piece, below all pieces or above the head.
    fn uncut(&self) -> impl Iterator<Item = (&Arc<ViewState>, &Frontier)> {
        self.cuts.iter().filter_map(|(name, cuts)| {
            let (view, cut) = (self.frame.views.get(name)?, &cuts.last()?.at);
            (view.failed.is_none() && view.since(cut).is_none()).then_some((view, cut))
        })
    }

    /// Whether `at` covers `wanted` in the partitions that are held here.
    fn has_reached(&self, at: &Frontier, wanted: &Frontier) -> bool {
        covers_in(&self.partitions, at, wanted)
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
        self.beyond.first_ms.retain(|partition, _| kept.contains(partition));
        self.beyond.after_ms.retain(|partition, _| kept.contains(partition));
        self.beyond.end = None;
        self.partitions = Arc::new(kept);
    }

    /// Whether a view can be rebuilt from `cut` to a boundary that its states go on from.
    fn can_rebuild(&self, view: &ViewState, cut: &Frontier) -> bool {
        self.sealed.frontier.covers(cut) && view.since(&self.sealed.frontier).is_some()
    }

    /// A view that has to be rebuilt because it cannot be cut where it should be. Where the cut lies above the newest
    /// master version that all are sealed at, it only has to wait.
    pub(super) fn unreachable_cut(&self) -> Option<Wanted> {
        let (view, cut) = self.uncut().find(|(view, cut)| self.can_rebuild(view, cut))?;
        Some(Wanted { view: view.view.clone(), cut: cut.clone() })
    }

    /// Whether a cut was published that lies inside a piece, and the rebuild waits for a boundary above it.
    pub(super) fn needs_a_boundary(&self) -> bool {
        self.uncut().any(|(view, cut)| self.has_reached(&self.frame.head, cut) && !self.can_rebuild(view, cut))
    }

    /// Whether a batch view version has been published that the states cannot come to while the head stands still.
    pub(super) fn is_behind_a_cut(&self) -> bool {
        self.uncut().any(|(view, cut)| !self.can_rebuild(view, cut))
    }

    /// Where a view may have to be cut in a partition, in order.
    fn kept(&self, view: &str, partition: Partition) -> Vec<Offset> {
        let published = self.cuts.get(view).into_iter().flatten().map(|cut| &cut.at);
        let announced = self.announced.get(view).into_iter().flatten();
        let boundaries = self.boundaries.iter().map(|(frontier, _)| frontier);
        let rebuilds = self.rebuilding.iter().chain([&self.sealed.frontier]);
        let kept = published.chain(announced).chain(boundaries).chain(rebuilds);
        let mut kept: Vec<Offset> = kept.map(|frontier| frontier.get(partition)).collect();
        kept.sort_unstable();
        kept
    }

    /// Neighbours that should become one piece, of those that have no rows any more.
    pub(super) fn next_run(&self) -> Option<Run> {
        for (name, view) in self.frame.views.iter().filter(|(_, view)| view.failed.is_none()) {
            for (&partition, track) in &view.tracks {
                let rows_from = self.tail.get(&partition).and_then(|tail| tail.first()).map(|tail| tail.from);
                let below = rows_from.unwrap_or_else(|| track.end());
                if let Some(pieces) = next_run(track, below, &self.kept(name, partition)) {
                    return Some(Run { view: view.view.clone(), partition, pieces });
                }
            }
        }
        None
    }

    /// Takes in what the background came to. Whether the frame has changed.
    pub(super) fn take(&mut self, done: Done) -> bool {
        match done {
            Done::Nothing => false,
            Done::Failed { view, reason } => {
                let Some(view) = self.frame.views.get_mut(&view) else { return false };
                fail(Arc::make_mut(view), reason);
                true
            }
            Done::Merged { view, partition, piece } => {
                let Some(view) = self.frame.views.get_mut(&view) else { return false };
                Arc::make_mut(view).tracks.get_mut(&partition).is_some_and(|track| track.replace(vec![piece]))
            }
            Done::Rebuilt { view, cut, until, tracks } => {
                // A newer cut may have come that needs no rebuilding.
                if self.uncut().all(|(uncut, _)| uncut.view.name != view) {
                    return false;
                }
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

/// Whether the states can be cut there for good: rows of the tail go with a master version, never with a cut.
fn is_possible(view: &ViewState, partitions: &BTreeSet<Partition>, archived: &Frontier, cut: &Frontier) -> bool {
    covers_in(partitions, archived, cut) && view.since(cut).is_some()
}

/// Whether `at` covers `wanted` in some partitions.
fn covers_in(partitions: &BTreeSet<Partition>, at: &Frontier, wanted: &Frontier) -> bool {
    partitions.iter().all(|&partition| at.get(partition) >= wanted.get(partition))
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
            failed: piece.failed.clone(),
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

#[cfg(test)]
mod tests;
