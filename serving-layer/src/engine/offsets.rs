//! Offsets whose rows stay what they are.

use std::sync::Arc;

use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{ExecutionPlan, limit::GlobalLimitExec},
};

use crate::merged::PlainExec;

/// Keeps what stands above an offset from changing the order, or the number, of the rows below it: DataFusion takes the
/// number behind an offset for all that a sort below has to keep, and loses the last rows.
#[derive(Debug)]
pub(super) struct KeepOffsets;

impl PhysicalOptimizerRule for KeepOffsets {
    fn name(&self) -> &'static str {
        "lamina_keep_offsets"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let has_offset = node.downcast_ref::<GlobalLimitExec>().is_some_and(|limit| limit.skip() > 0);
            Ok(match has_offset {
                true => Transformed::yes(Arc::new(PlainExec::closed(node)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(node),
            })
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}
