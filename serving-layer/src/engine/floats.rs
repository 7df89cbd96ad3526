//! Floating-point literals as columns have their values: one zero, and one NaN.
//!
//! DataFusion compares the bits of what stands in a longer list: `x IN (-0.0, 1, 2, 3)` would find no zero.

use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

/// Makes literals canonical, those too that other rules have made of constant expressions.
#[derive(Debug)]
pub(super) struct CanonicalFloats;

impl OptimizerRule for CanonicalFloats {
    fn name(&self) -> &'static str {
        "lamina_canonical_floats"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        // An unnamed column is called by its expression.
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(|part| Ok(literal(part)))?.update_data(|expr| name.restore(expr)))
        })
    }
}

fn literal(part: Expr) -> Transformed<Expr> {
    let Expr::Literal(value, metadata) = part else { return Transformed::no(part) };
    match canonical(&value) {
        Some(value) => Transformed::yes(Expr::Literal(value, metadata)),
        None => Transformed::no(Expr::Literal(value, metadata)),
    }
}

/// The same value as others have it; `None` where it is so already.
fn canonical(value: &ScalarValue) -> Option<ScalarValue> {
    let is_other_f32 = |x: f32| (x == 0.0 && x.is_sign_negative()) || x.is_nan() && x.to_bits() != f32::NAN.to_bits();
    let is_other_f64 = |x: f64| (x == 0.0 && x.is_sign_negative()) || x.is_nan() && x.to_bits() != f64::NAN.to_bits();
    match *value {
        ScalarValue::Float32(Some(x)) if is_other_f32(x) => Some(if x.is_nan() { f32::NAN } else { 0.0 }.into()),
        ScalarValue::Float64(Some(x)) if is_other_f64(x) => Some(if x.is_nan() { f64::NAN } else { 0.0 }.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn a_list_finds_what_an_equality_finds() {
        let context = SessionContext::new();
        context.add_optimizer_rule(std::sync::Arc::new(CanonicalFloats));
        let check = async |sql: &str, expected: usize| {
            let sql = format!("SELECT x, -0.0, 1 FROM (VALUES (0.0), (1.5), ('NaN'::double)) AS t (x) WHERE {sql}");
            let rows = context.sql(&sql).await.unwrap().collect().await.unwrap();
            assert_eq!(rows.iter().map(|rows| rows.num_rows()).sum::<usize>(), expected, "{sql}");
        };
        check("x = -0.0", 1).await;
        check("x IN (-0.0, 7.0)", 1).await;
        check("x IN (-0.0, 7.0, 8.0, 9.0, 1.5)", 2).await;
        check("x IN (-1 * 0.0, 7.0, 8.0, 9.0, -('NaN'::double))", 2).await;
        check("x NOT IN (-0.0, 7.0, 8.0, 9.0, 1.5)", 1).await;
    }
}
