//! Which pieces to merge. Never across a cut that somebody may still want.

use std::sync::Arc;

use common::position::Offset;

use crate::{piece::Piece, track::Track};

/// So many pieces that were merged before are worth merging again.
const MANY: usize = 8;

/// Neighbours to merge into one, if there are any: all below `archived` and none across a boundary in `kept` (sorted).
pub(crate) fn next_run(track: &Track, archived: Offset, kept: &[Offset]) -> Option<Vec<Arc<Piece>>> {
    let mut run: Vec<Arc<Piece>> = Vec::new();
    for piece in track.pieces().iter().take_while(|piece| piece.to <= archived) {
        if run.last().is_some_and(|last| kept.binary_search(&last.to).is_ok()) {
            if is_worth_it(&run) {
                return Some(run);
            }
            run.clear();
        }
        run.push(piece.clone());
    }
    is_worth_it(&run).then_some(run)
}

fn is_worth_it(run: &[Arc<Piece>]) -> bool {
    let fresh = run.iter().any(|piece| piece.level == 0);
    run.len() >= if fresh { 2 } else { MANY }
}

#[cfg(test)]
mod tests {
    use common::fold::Failed;
    use datafusion::arrow::{array::RecordBatch, datatypes::Schema};

    use super::*;

    #[test]
    fn neighbours_merge_up_to_a_kept_boundary() {
        let check = |levels: &[u8], archived, kept: &[Offset], expected: Option<(Offset, Offset)>| {
            let mut track = Track::new(0);
            for (i, &level) in levels.iter().enumerate() {
                let from = i as Offset * 10;
                let states = RecordBatch::new_empty(Arc::new(Schema::empty()));
                track.push(Piece { from, to: from + 10, states, failed: Failed::default(), level });
            }
            let run = next_run(&track, archived, kept);
            assert_eq!(run.map(|run| (run[0].from, run[run.len() - 1].to)), expected, "{levels:?} {archived} {kept:?}");
        };
        check(&[0, 0, 0], 30, &[], Some((0, 30)));
        check(&[0, 0, 0], 20, &[], Some((0, 20)));
        check(&[0, 0, 0], 30, &[10], Some((10, 30)));
        check(&[1, 1, 1], 30, &[], None);
        check(&[1, 0], 20, &[10], None);
        check(&[1; 8], 80, &[], Some((0, 80)));
    }
}
