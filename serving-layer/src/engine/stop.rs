//! Queries that can be stopped, and that let others work.
//!
//! DataFusion stops a query where it gives way to other tasks, and it gives way at the sources of rows. A join makes
//! many rows of few: crossed tables are at work for hours between two rows of a source. So whatever multiplies rows
//! gives way by what it gives out; and a join that gives out nothing, as its condition holds for no pair, is stopped
//! where it evaluates that condition.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

pub(crate) use common::sql::{Stop, StopOnDrop};

use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{FieldRef, Schema},
    },
    common::{
        JoinType,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::{DataFusionError, Result},
    logical_expr::ColumnarValue,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, PhysicalExpr,
        coop::CooperativeExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, utils::JoinFilter},
        recursive_query::RecursiveQueryExec,
        unnest::UnnestExec,
    },
};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Lets what multiplies rows give way to others, and be stopped.
#[derive(Debug)]
pub(super) struct GiveWay;

impl PhysicalOptimizerRule for GiveWay {
    fn name(&self) -> &'static str {
        "lamina_give_way"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let stop = options.extensions.get::<Stop>().cloned().unwrap_or_default();
        plan.transform_up(|node| give_way(node, &stop)).data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn give_way(node: Arc<dyn ExecutionPlan>, stop: &Stop) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let node: Arc<dyn ExecutionPlan> = if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let filter = join.filter().map(|filter| stoppable(filter, stop));
        Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?)
    } else if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        match (join.filter(), join.join_type()) {
            (Some(filter), _) => join.builder().with_filter(Some(stoppable(filter, stop))).build_exec()?,
            (None, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) => node,
            // The others give out no more rows than they take, as do those that hide touched keys.
            (None, _) => return Ok(Transformed::no(node)),
        }
    } else if node.is::<CrossJoinExec>() || node.is::<UnnestExec>() || node.is::<RecursiveQueryExec>() {
        node
    } else {
        return Ok(Transformed::no(node));
    };
    Ok(Transformed::yes(Arc::new(CooperativeExec::new(node))))
}

fn stoppable(filter: &JoinFilter, stop: &Stop) -> JoinFilter {
    let condition = Stoppable { condition: filter.expression().clone(), stop: stop.clone() };
    JoinFilter::new(Arc::new(condition), filter.column_indices().to_vec(), filter.schema().clone())
}

/// A join's condition, which fails once the query is not wanted any more.
#[derive(Debug)]
struct Stoppable {
    condition: Arc<dyn PhysicalExpr>,
    stop: Stop,
}

impl PartialEq for Stoppable {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Stoppable {}

impl Hash for Stoppable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Stoppable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for Stoppable {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.stop.check()?;
        // The join may be long at it without a row to give out: meanwhile the thread's other tasks find another.
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| self.condition.evaluate(batch)),
            _ => self.condition.evaluate(batch),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match <[_; 1]>::try_from(children) {
            Ok([condition]) => Ok(Arc::new(Self { condition, stop: self.stop.clone() })),
            Err(_) => Err(DataFusionError::Internal("a condition has one expression".to_owned())),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
