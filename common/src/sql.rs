//! What SQL means here: one place for views, `CHECK`s and queries.
//!
//! DataFusion plans and runs all of it. Where its meaning differs from PostgreSQL's, or its answer from one way of
//! running it to another, what stands here makes the difference: how operators bind ([`Dialect`]), what types are
//! called ([`types`]), and two analyzer rules around DataFusion's own coercion: [`meaning`] gives literals, comparisons,
//! times and aggregates the types that PostgreSQL gives them, and [`exact`] replaces whatever would wrap, round or
//! depend on how rows are batched. [`bounded`] keeps functions from making values of any size.

use std::sync::Arc;

use datafusion::{
    error::Result,
    execution::{SessionState, SessionStateBuilder, context::SessionConfig},
    logical_expr::LogicalPlan,
    optimizer::{Analyzer, Optimizer, simplify_expressions::SimplifyExpressions},
};

mod aggregates;
mod arithmetic;
mod bounded;
mod casts;
mod conditions;
mod dialect;
mod exact;
mod fallible;
mod filters;
mod floats;
mod meaning;
mod stop;
mod times;
mod types;

pub use bounded::counted;
pub(crate) use bounded::counted_constants;
pub use dialect::Dialect;
pub(crate) use fallible::{may_fail, row_may_fail};
pub use floats::{canonical_f32, canonical_f64};
pub use stop::{Stop, StopOnDrop};

#[cfg(test)]
mod tests;

/// A session's builder: the functions, types and rules that decide what SQL means. Nothing comes from the environment.
pub fn session(mut config: SessionConfig) -> SessionStateBuilder {
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    // Logical and physical plans differ in what they hold to be without NULL, which is no fault of a query's.
    options.execution.skip_physical_aggregate_schema_check = true;
    let mut analyzer = Analyzer::new();
    analyzer.rules.insert(0, Arc::new(meaning::Meaning));
    analyzer.rules.push(Arc::new(exact::Exact));
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_type_planner(Arc::new(types::Types))
        .with_analyzer_rules(analyzer.rules)
        .with_optimizer_rules(filters::optimizer_rules());
    // Of two functions of one name the later one counts.
    let functions = builder.scalar_functions().get_or_insert_default();
    functions.extend([times::date_trunc(), times::date_bin(), times::timezone()]);
    for function in functions {
        *function = bounded::bounded(function.clone());
    }
    builder
}

/// A plan as it means what it says: with types coerced and constants folded, and of the same shape otherwise.
pub fn analyze(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let analyzed = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]).optimize(analyzed, state, |_, _| {})
}
