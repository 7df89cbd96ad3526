//! Clauses that the parser reads and the planner leaves out without a word: each is refused by its name.
//!
//! Whatever a statement says is done or refused. So every part is taken apart without `..`: what another version of the
//! parser reads besides does not compile until somebody has looked whether the planner hears of it.

use std::ops::ControlFlow;

use datafusion::execution::FunctionRegistry;
use sqlparser::{
    ast::{Expr, Query, Select, TableFactor, Visit, Visitor},
    tokenizer::Span,
};

use super::Refusal;

mod expression;
mod function;
mod query;
mod relation;
mod select;
#[cfg(test)]
mod tests;

/// Refuses a statement, a query or an expression that has a clause that would be ignored. What takes which clauses
/// depends on the functions that there are.
pub fn check(part: &impl Visit, functions: &dyn FunctionRegistry) -> Result<(), Refusal> {
    match part.visit(&mut Walk { functions }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(ignored) => Err(ignored),
    }
}

struct Walk<'a> {
    functions: &'a dyn FunctionRegistry,
}

impl Visitor for Walk<'_> {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        flow(query::check(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refusal> {
        flow(select::check(select))
    }

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<Refusal> {
        flow(relation::check(relation))
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Refusal> {
        flow(match expression {
            Expr::Function(call) => function::check(call, self.functions),
            expression => expression::check(expression),
        })
    }
}

fn flow(found: Found) -> ControlFlow<Refusal> {
    match found {
        Ok(()) => ControlFlow::Continue(()),
        Err(ignored) => ControlFlow::Break(ignored),
    }
}

/// Whether a part has nothing that would be ignored.
type Found = Result<(), Refusal>;

/// Refuses each clause that is there, the first of them.
fn none_of(at: Span, clauses: &[(bool, &str, &str)]) -> Found {
    match clauses.iter().find(|(is_there, ..)| *is_there) {
        Some((_, clause, hint)) => refuse(at, clause, hint),
        None => Ok(()),
    }
}

fn refuse(at: Span, clause: &str, hint: &str) -> Found {
    Err(Refusal::new(at, format!("`{clause}` is not supported"), hint))
}
