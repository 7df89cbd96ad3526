//! Which columns the row stage has to compute for the aggregates above it.

use datafusion::{
    common::{
        Column, ExprSchema, Result,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{Expr, expr::AggregateFunction, utils::split_conjunction},
};

use crate::sql::may_fail;

/// The columns while they are being found, each once.
pub(super) struct Prepared<'a> {
    /// What the expressions are over.
    from: &'a dyn ExprSchema,
    pub(super) columns: Vec<PreparedColumn>,
}

/// A column of the row stage.
#[derive(PartialEq)]
pub(super) struct PreparedColumn {
    pub(super) expr: Expr,
    /// Which column has to be true for a row, or it is not computed.
    pub(super) only_where: Option<usize>,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(from: &'a dyn ExprSchema) -> Self {
        Self { from, columns: Vec::new() }
    }

    /// What a column is called.
    pub(super) fn name(place: usize) -> String {
        format!("row{place}")
    }

    /// The place of the column that holds `expr`. Where a row's `only_where` is not true, nobody asks for its value, so
    /// that it must not fail there.
    pub(super) fn add(&mut self, expr: &Expr, only_where: Option<usize>) -> Result<usize> {
        let only_where = only_where.filter(|_| !matches!(expr, Expr::Column(_)));
        let only_where = if may_fail(expr, self.from)? { only_where } else { None };
        let column = PreparedColumn { expr: expr.clone(), only_where };
        let place = self.columns.iter().position(|other| *other == column);
        Ok(place.unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        }))
    }

    fn column(&mut self, expr: &Expr, only_where: Option<usize>) -> Result<Expr> {
        Ok(Expr::Column(Column::new_unqualified(Self::name(self.add(expr, only_where)?))))
    }

    /// An aggregate over the prepared columns. Literals stay: some aggregates have to see them.
    pub(super) fn aggregate(&mut self, expr: &Expr) -> Result<Expr> {
        let over_columns = expr.clone().transform(|part| match part {
            Expr::AggregateFunction(call) => Ok(Transformed::yes(Expr::AggregateFunction(self.call(call)?))),
            other => Ok(Transformed::no(other)),
        });
        Ok(over_columns?.data)
    }

    fn call(&mut self, mut call: AggregateFunction) -> Result<AggregateFunction> {
        let filter = call.params.filter.take();
        let only_where = filter.as_ref().map(|filter| self.add(filter, None)).transpose()?;
        call.params.filter = only_where.map(|place| Box::new(Expr::Column(Column::new_unqualified(Self::name(place)))));
        for argument in &mut call.params.args {
            if !matches!(argument.clone().unalias_nested().data, Expr::Literal(..)) {
                *argument = self.column(argument, only_where)?;
            }
        }
        for key in &mut call.params.order_by {
            if !matches!(key.expr, Expr::Literal(..)) {
                key.expr = self.column(&key.expr, only_where)?;
            }
        }
        Ok(call)
    }
}

/// A condition in parts that are computed one after the other, each for the rows that pass those before it. Where one
/// cannot fail it is computed with the one before.
pub(super) fn parts_of(condition: &Expr, schema: &dyn ExprSchema) -> Result<Vec<Expr>> {
    let mut parts: Vec<Expr> = Vec::new();
    for part in split_conjunction(condition) {
        match parts.pop() {
            Some(before) if !may_fail(part, schema)? => parts.push(before.and(part.clone())),
            before => parts.extend(before.into_iter().chain([part.clone()])),
        }
    }
    Ok(parts)
}
