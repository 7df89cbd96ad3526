//! The row stage as an operator of a plan.

use std::{fmt, sync::Arc};

use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
        execution_plan::EmissionType, stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;

use super::Rows;
use crate::fold::failed::{Collector, Failed};

/// Computes the rows of its input, and hands those that fail to a collector.
#[derive(Debug)]
pub(in crate::fold) struct RowsExec {
    rows: Arc<Rows>,
    input: Arc<dyn ExecutionPlan>,
    failed: Collector,
    properties: Arc<PlanProperties>,
}

impl RowsExec {
    pub(in crate::fold) fn new(rows: Arc<Rows>, input: Arc<dyn ExecutionPlan>, failed: Collector) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(rows.output.clone()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { rows, input, failed, properties: Arc::new(properties) }
    }
}

impl DisplayAs for RowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowsExec: {} columns", self.rows.columns.len())
    }
}

impl ExecutionPlan for RowsExec {
    fn name(&self) -> &'static str {
        "RowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(self.rows.clone(), input, self.failed.clone()))),
            _ => Err(DataFusionError::Internal("rows are computed of one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (rows, failed) = (self.rows.clone(), self.failed.clone());
        let computed = self.input.execute(partition, context)?.map(move |batch| {
            let mut some = Failed::default();
            let computed = rows.compute(&batch?, &mut some)?;
            failed.join(&some);
            Ok(computed)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.rows.output.clone(), computed)))
    }
}
