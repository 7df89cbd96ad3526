//! `CHECK`s: planned by DataFusion, over an event's own columns only.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, SchemaRef},
    common::{
        DFSchema, DFSchemaRef, DataFusionError,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    execution::{context::SessionConfig, session_state::SessionState},
    logical_expr::{
        EmptyRelation, Expr, LogicalPlan, Projection, Volatility, physical_planning_context::PhysicalPlanningContext,
    },
    physical_expr::create_physical_expr,
    physical_plan::PhysicalExpr,
};
use sqlparser::ast::{Expr as Sql, ExprWithAlias};

use super::near;
use crate::{sql, statement};

/// Why an expression cannot be a check, and what to write instead.
pub(super) type Refused = (String, String);

/// Plans checks over one dataset's columns.
pub(super) struct Planner {
    state: SessionState,
    columns: DFSchemaRef,
}

impl Planner {
    /// Nothing of the session comes from the environment: whether an event is dead may depend on its bytes and the
    /// definition only.
    pub(super) fn new(columns: &SchemaRef) -> Result<Self, DataFusionError> {
        let config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
        let columns = DFSchema::try_from(columns.as_ref().clone())?;
        Ok(Self { state: sql::session(config).build(), columns: Arc::new(columns) })
    }

    /// The physical expression of a check.
    pub(super) fn plan(&self, sql: &Sql) -> Result<Arc<dyn PhysicalExpr>, Refused> {
        let mut check = sql.clone();
        let refused = |refusal: statement::Refusal| (refusal.reason, refusal.hint);
        statement::on_deep_stack(|| {
            statement::ignored::check(&check, &self.state)?;
            statement::plain::rewrite(&mut check)
        })
        .map_err(refused)?;
        let named = ExprWithAlias { expr: check, alias: None };
        let expression =
            self.state.create_logical_expr_from_sql_expr(named, &self.columns).map_err(|error| self.refused(error))?;
        refuse_parts(&expression)?;
        let physical = self.physical(expression).map_err(|error| self.refused(error))?;
        let data_type = physical.data_type(self.columns.as_arrow()).map_err(|error| self.refused(error))?;
        if data_type != DataType::Boolean {
            let type_name = crate::values::sql_type_name(&data_type);
            return Err((
                format!("the check is {type_name}, not BOOLEAN"),
                "write a condition such as `quantity > 0`".to_owned(),
            ));
        }
        Ok(physical)
    }

    fn physical(&self, expression: Expr) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let event = EmptyRelation { produce_one_row: false, schema: self.columns.clone() };
        let plan = Projection::try_new(vec![expression], Arc::new(LogicalPlan::EmptyRelation(event)))?;
        let LogicalPlan::Projection(plan) = sql::analyze(&self.state, LogicalPlan::Projection(plan))? else {
            return Err(DataFusionError::Internal("the check is no expression any more".to_owned()));
        };
        let context = PhysicalPlanningContext::default();
        create_physical_expr(&plan.expr[0], &self.columns, self.state.execution_props(), &context)
    }

    fn refused(&self, error: DataFusionError) -> Refused {
        if let DataFusionError::SchemaError(schema_error, _) = error.find_root()
            && let datafusion::common::SchemaError::FieldNotFound { field, .. } = schema_error.as_ref()
        {
            let columns: Vec<&str> = self.columns.fields().iter().map(|field| field.name().as_str()).collect();
            let hint = near::did_you_mean(&field.name, columns.iter().copied())
                .unwrap_or_else(|| format!("the columns are {}", columns.join(", ")));
            return (format!("there is no column `{}`", field.name), hint);
        }
        let message = error.strip_backtrace();
        let reason = message.split_once(": ").map_or(message.as_str(), |(_, reason)| reason);
        (
            format!("the check cannot be planned: {reason}"),
            "write a condition over the event's columns, such as `quantity > 0`".to_owned(),
        )
    }
}

/// Refuses what would not give the same verdict on one event wherever and whenever it is asked.
fn refuse_parts(expression: &Expr) -> Result<(), Refused> {
    let mut refused = None;
    let visited = expression.apply(|part| {
        refused = refuse_part(part);
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (visited, refused) {
        (_, Some(refused)) => Err(refused),
        (Err(error), None) => Err((error.strip_backtrace(), "write a simpler condition".to_owned())),
        (Ok(_), None) => Ok(()),
    }
}

fn refuse_part(part: &Expr) -> Option<Refused> {
    let one_event = "a check is over the columns of one event".to_owned();
    match part {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => Some((
            format!(
                "`{}` gives another value each time, so an event could be dead to one layer only",
                call.func.name()
            ),
            "compare the event's own columns".to_owned(),
        )),
        Expr::AggregateFunction(call) => Some((format!("`{}` is an aggregate", call.func.name()), one_event)),
        Expr::WindowFunction(call) => Some((format!("`{}` is over a window", call.fun.name()), one_event)),
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
            Some(("the check has a subquery".to_owned(), one_event))
        }
        Expr::Placeholder(_) => Some(("the check has a parameter".to_owned(), "write the value".to_owned())),
        _ => None,
    }
}
