//! A track: the pieces of one view and one partition, one after the other without a hole.

use std::sync::Arc;

use common::position::Offset;

use crate::piece::Piece;

/// Pieces from `base` to the head.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    base: Offset,
    pieces: Vec<Arc<Piece>>,
}

impl Track {
    /// An empty track whose first piece will begin at `base`.
    pub(crate) fn new(base: Offset) -> Self {
        Self { base, pieces: Vec::new() }
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> Offset {
        self.pieces.last().map_or(self.base, |piece| piece.to)
    }

    /// All pieces, in order.
    pub(crate) fn pieces(&self) -> &[Arc<Piece>] {
        &self.pieces
    }

    /// Adds a piece that begins where the track ends.
    pub(crate) fn push(&mut self, piece: Piece) {
        debug_assert_eq!(piece.from, self.end(), "pieces follow one another");
        self.pieces.push(Arc::new(piece));
    }

    /// The pieces at and after `cut`; `None` when the cut lies below the track, above it, or inside a piece.
    pub(crate) fn since(&self, cut: Offset) -> Option<&[Arc<Piece>]> {
        if cut < self.base || cut > self.end() {
            return None;
        }
        let first = self.pieces.partition_point(|piece| piece.to <= cut);
        let whole = self.pieces.get(first).is_none_or(|piece| piece.from >= cut);
        whole.then(|| &self.pieces[first..])
    }

    /// The piece that `at` lies inside of, strictly.
    pub(crate) fn straddling(&self, at: Offset) -> Option<&Arc<Piece>> {
        let first = self.pieces.partition_point(|piece| piece.to <= at);
        self.pieces.get(first).filter(|piece| piece.from < at)
    }

    /// Puts `new` in the place of the pieces that cover exactly the same offsets. `false` when there are none such.
    pub(crate) fn replace(&mut self, new: Vec<Piece>) -> bool {
        let (Some(from), Some(to)) = (new.first().map(|piece| piece.from), new.last().map(|piece| piece.to)) else {
            return false;
        };
        let start = self.pieces.iter().position(|piece| piece.from == from);
        let end = self.pieces.iter().rposition(|piece| piece.to == to);
        match (start, end) {
            (Some(start), Some(end)) if start <= end => {
                self.pieces.splice(start..=end, new.into_iter().map(Arc::new));
                true
            }
            _ => false,
        }
    }

    /// Lets go of what is below `cut`, if the track can be cut there.
    pub(crate) fn drop_below(&mut self, cut: Offset) {
        if self.since(cut).is_some() {
            self.pieces.retain(|piece| piece.from >= cut);
            self.base = cut;
        }
    }

    /// A track that begins with `rebuilt`, which covers `[base, until)`, and goes on with this one's pieces from there.
    pub(crate) fn rebuilt(&self, base: Offset, until: Offset, rebuilt: Option<Piece>) -> Option<Self> {
        let rest = self.since(until)?.to_vec();
        let mut pieces: Vec<Arc<Piece>> = rebuilt.map(Arc::new).into_iter().collect();
        pieces.extend(rest);
        Some(Self { base, pieces })
    }
}

#[cfg(test)]
mod tests {
    use common::fold::Failed;
    use datafusion::arrow::{array::RecordBatch, datatypes::Schema};

    use super::*;

    fn piece(from: Offset, to: Offset) -> Piece {
        let states = RecordBatch::new_empty(Arc::new(Schema::empty()));
        Piece { from, to, states, failed: Failed::default(), level: 0 }
    }

    fn track(ends: &[Offset]) -> Track {
        let mut track = Track::new(10);
        for &end in ends {
            let from = track.end();
            track.push(piece(from, end));
        }
        track
    }

    #[test]
    fn a_cut_is_where_pieces_meet() {
        let track = track(&[20, 35]);
        let check = |cut, pieces: Option<usize>| assert_eq!(track.since(cut).map(<[_]>::len), pieces, "cut {cut}");
        for (cut, pieces) in
            [(9, None), (10, Some(2)), (15, None), (20, Some(1)), (34, None), (35, Some(0)), (36, None)]
        {
            check(cut, pieces);
        }
    }

    #[test]
    fn a_piece_is_replaced_by_pieces_of_the_same_offsets() {
        let mut track = track(&[20, 35, 50]);
        assert!(track.replace(vec![piece(20, 30), piece(30, 35)]));
        assert_eq!(track.since(30).map(<[_]>::len), Some(2));
        assert!(track.replace(vec![piece(10, 35)]));
        assert_eq!(track.pieces().len(), 2);
        assert!(!track.replace(vec![piece(35, 49)]));
    }

    #[test]
    fn what_is_below_a_cut_can_go() {
        let mut track = track(&[20, 35]);
        track.drop_below(15);
        assert_eq!(track.pieces().len(), 2, "no cut inside a piece");
        track.drop_below(20);
        assert_eq!((track.pieces().len(), track.since(10).is_none()), (1, true));
    }
}
