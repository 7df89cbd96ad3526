//! What is frozen for queries of other processes: until they are done with it, and no longer than [`wire::KEPT`].

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use common::speed::{
    parts::{PartStates, PartView},
    wire::{self, FreezeId},
};

/// By number, and so in the order of age.
#[derive(Debug, Default)]
pub(super) struct Freezes(BTreeMap<u64, Kept>);

/// What was frozen for one query.
#[derive(Debug)]
struct Kept {
    at: Instant,
    views: Vec<PartView>,
}

impl Freezes {
    /// Keeps what has been frozen now.
    pub(super) fn keep(&mut self, id: u64, views: Vec<PartView>) {
        self.0.insert(id, Kept { at: Instant::now(), views });
    }

    /// The states of one view, while they are kept.
    pub(super) fn states(&self, id: u64, view: usize) -> Option<Arc<dyn PartStates>> {
        Some(self.0.get(&id)?.views.get(view)?.states.clone())
    }

    /// Lets go of what is not needed any more, and of what nobody has said anything of for too long.
    pub(super) fn release(&mut self, instance: &str, released: &[FreezeId]) {
        for freeze in released.iter().filter(|freeze| freeze.instance == instance) {
            self.0.remove(&freeze.id);
        }
        while self.0.first_entry().is_some_and(|oldest| oldest.get().at.elapsed() >= wire::KEPT) {
            self.0.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_is_done_with_is_let_go_of() {
        let mut freezes = Freezes::default();
        let freeze = |instance: &str, id| FreezeId { instance: instance.to_owned(), id };
        for id in 0..500 {
            freezes.keep(id, Vec::new());
        }
        let released: Vec<FreezeId> = (0..499).map(|id| freeze("this", id)).collect();
        freezes.release("this", &released);
        assert_eq!(freezes.0.keys().copied().collect::<Vec<u64>>(), [499]);
        freezes.release("this", &[freeze("the process before", 499), freeze("this", 7)]);
        assert_eq!(freezes.0.len(), 1);
    }
}
