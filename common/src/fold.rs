//! The fold: a view's SQL as partial, reduce and finish.

/// What both layers compute of a view.
#[derive(Clone, Debug)]
pub struct Fold;
