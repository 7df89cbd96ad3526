//! The fold: a view's SQL as `partial`, `reduce` and `finish`.
//!
//! All three are DataFusion's own aggregation modes over one set of expressions, planned once from the catalog's schema
//! without statistics. The batch layer runs them over files, the speed layer over micro-batches, and because both use
//! the same expressions their states can be merged: nobody writes a merge by hand.
//!
//! What is computed of one event alone comes before `partial`, in a stage of its own: an event whose row cannot be
//! computed for a view is a failed event of that view ([`Failed`]), and costs it nothing but that row.
//!
//! | step | from → to | used by |
//! |---|---|---|
//! | `partial` | rows → states | batch and speed |
//! | `reduce` | states → one state a group | batch and speed |
//! | `finish` | states → answer rows | serving, on every query |
//! | `complete` | one state a group → answer rows beside them | batch, when it publishes |

use std::sync::{Arc, OnceLock};

use datafusion::{
    arrow::datatypes::{Field, SchemaRef},
    physical_plan::{PhysicalExpr, aggregates::PhysicalGroupBy, udaf::AggregateFunctionExpr},
};
use sqlparser::{ast::Query, tokenizer::Location};

use crate::{calls, catalog::Dataset, statement};

mod aggregates;
mod failed;
mod groups;
mod ordered;
mod plan;
mod planned;
mod prepare;
mod refuse;
mod rows;
mod run;
mod shape;
mod stored;
mod types;

use rows::Rows;

pub use failed::{Collector, Failed, FailedEvent};
pub use planned::AGGREGATES;
pub use rows::{is_of_values, is_unplaced, panicked};
pub use stored::{from_stored, to_stored};

#[cfg(test)]
mod tests;

/// What the states of this build look like. Raised when they change, by us or by DataFusion: a state of another format
/// is never read, the view is recomputed.
const STATE_FORMAT: u32 = 2;

static RAISED: OnceLock<u32> = OnceLock::new();

/// The format of the states of this process.
pub fn state_format() -> u32 {
    RAISED.get().copied().unwrap_or(STATE_FORMAT)
}

/// Gives the same states another format from now on, to test upgrades with. Only the first time counts.
pub fn raise_state_format(format: u32) {
    let _ = RAISED.set(format);
}

/// The session settings that decide what a view's SQL means.
pub const SETTINGS: &str = "datafusion 55; PostgreSQL's meaning 1; time zone UTC; text Utf8";

/// Name of the column that says whether a group passes `HAVING`, in views that have one.
pub const HAVING: &str = "__having";

/// Name of the column that says whether something of a group could not be computed: it is NULL then.
pub const FAILED: &str = "__failed";

/// What both layers compute of a view.
#[derive(Clone, Debug)]
pub struct Fold {
    /// Which columns of the dataset's `schema` it reads.
    projection: Vec<usize>,
    /// Those columns: the input of `partial`.
    input: SchemaRef,
    /// What is computed of one row of `input`.
    rows: Arc<Rows>,
    /// The group keys, over the columns of `rows`.
    group_by: Arc<PhysicalGroupBy>,
    /// Over the columns of `rows`.
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// Each aggregate's `FILTER`, over the columns of `rows`.
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Group keys, then the aggregates' state columns, as DataFusion has them.
    state: SchemaRef,
    /// The same columns as they are stored in a Delta table.
    stored_state: SchemaRef,
    /// The finished columns: what answers and batch views hold, in the types they are stored in.
    finished: SchemaRef,
    /// The finished columns' expressions over group keys and aggregates.
    outputs: Vec<Arc<dyn PhysicalExpr>>,
    /// How many of the finished columns the view has by its SQL; the rest are hidden.
    visible: usize,
    /// For each group key, the finished column that holds it.
    keys: Vec<usize>,
    /// The finished column that says whether something of a group could not be computed.
    failed: usize,
    /// Group keys and aggregates, as `finish` has them before `outputs`.
    result: SchemaRef,
    /// Whether there is `HAVING`: then the last finished column says who passes.
    having: bool,
}

/// Why a query cannot be a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// What to write instead.
    pub hint: String,
    /// Where in the file, if that is known.
    pub at: Option<Location>,
}

impl From<statement::Refusal> for Refusal {
    fn from(refusal: statement::Refusal) -> Self {
        let statement::Refusal { reason, hint, at } = refusal;
        Self { reason, hint, at }
    }
}

impl Fold {
    /// Plans the fold of `query` over `dataset`. What cannot be folded exactly is refused.
    pub fn plan(dataset: &Arc<Dataset>, query: &Query) -> Result<Self, Refusal> {
        statement::on_deep_stack(|| {
            refuse::check(dataset, query)?;
            let mut plain = query.clone();
            calls::rewrite(&mut plain);
            statement::ignored::check(&plain, &plan::session().state())?;
            statement::plain::rewrite(&mut plain)?;
            plan::plan(dataset, query, &plain)
        })
    }

    /// Which columns of the dataset's `schema` are read, in the order of [`Fold::input`].
    pub fn projection(&self) -> &[usize] {
        &self.projection
    }

    /// Those of them that rows are computed with. Without the others, which say where an event is, a failed event is an
    /// error ([`is_unplaced`]): mostly there is none, and they are read for nothing.
    pub fn unplaced_projection(&self) -> &[usize] {
        &self.projection[..self.rows.width]
    }

    /// The columns that `partial` takes.
    pub fn input(&self) -> &SchemaRef {
        &self.input
    }

    /// Group keys, then state columns.
    pub fn state(&self) -> &SchemaRef {
        &self.state
    }

    /// The state columns as a batch view stores them: like [`Fold::state`], in types that Delta has.
    pub fn stored_state(&self) -> &SchemaRef {
        &self.stored_state
    }

    /// The finished columns: the view's own, then hidden group keys, [`FAILED`], and [`HAVING`] where there is one.
    pub fn finished(&self) -> &SchemaRef {
        &self.finished
    }

    /// How many of the finished columns are the view's own.
    pub fn visible(&self) -> usize {
        self.visible
    }

    /// For each group key, which finished column holds it.
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// Which finished column is [`FAILED`].
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Whether the view has `HAVING`.
    pub fn has_having(&self) -> bool {
        self.having
    }

    /// What a batch view stores of each group: the finished columns, then the aggregates' states.
    pub fn stored(&self) -> SchemaRef {
        let states = self.stored_state.fields().iter().skip(self.keys.len()).cloned();
        let fields: Vec<Arc<Field>> = self.finished.fields().iter().cloned().chain(states).collect();
        Arc::new(datafusion::arrow::datatypes::Schema::new(fields))
    }
}
