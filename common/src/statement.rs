//! What is done to a statement between parser and planner, the same for views, checks and queries.
//!
//! DataFusion's planner leaves out a good part of what its parser reads: [`ignored`] refuses that. Some of what it does
//! not know, or takes for something else, can be said in what it does know: [`plain`] says it so.

pub mod ignored;
pub mod plain;

use sqlparser::tokenizer::{Location, Span};

/// What the deepest statement that is taken needs, in bytes, in a build without optimization.
const STACK: usize = 32 << 20;

/// Runs what looks at whole statements on a stack that is deep enough for any: the parser's library finds the place of an
/// expression by calling itself, and does not look at how much stack is left.
pub fn on_deep_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK / 2, STACK, work)
}

/// Why a statement cannot be taken as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What is refused, and why.
    pub reason: String,
    /// What to write instead.
    pub hint: String,
    /// Where it stands.
    pub at: Option<Location>,
}

impl Refusal {
    /// A refusal of what stands at `at`.
    pub fn new(at: Span, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into(), at: (at.start.line > 0).then_some(at.start) }
    }
}
