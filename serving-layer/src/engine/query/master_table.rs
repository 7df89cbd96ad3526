//! A dataset, or its dead letters, as a table: at one version.

use std::sync::Arc;

use async_trait::async_trait;
use common::{
    master::Version,
    storage::{scan::Scan, table::DataFile},
};
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    common::DFSchema,
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_plan::ExecutionPlan,
};

/// A table of the batch layer's.
#[derive(Debug)]
pub(in crate::engine) struct MasterTable {
    pub(in crate::engine) name: String,
    pub(in crate::engine) schema: SchemaRef,
    /// `None` while it is only known by name, in queries that do not read it.
    pub(in crate::engine) at: Option<At>,
}

/// The version that is read.
#[derive(Debug)]
pub(in crate::engine) struct At {
    pub(in crate::engine) version: Version,
    pub(in crate::engine) table: String,
}

#[async_trait]
impl TableProvider for MasterTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(at) = &self.at else {
            return Err(DataFusionError::Internal(format!("dataset `{}` was not opened for this query", self.name)));
        };
        let schema = DFSchema::try_from(self.schema.clone())?;
        let predicate = conjunction(filters.to_vec());
        let predicate = predicate.map(|filter| state.create_physical_expr(filter, &schema)).transpose()?;
        let mut files: Vec<DataFile> = at.version.files.iter().map(|file| (**file).clone()).collect();
        // Names are in the order of time. Once the newest have been read, a top-N of time skips the others.
        files.sort_by(|a, b| b.path.cmp(&a.path));
        Scan {
            table: &at.table,
            schema: self.schema.clone(),
            files: &files,
            projection: projection.cloned(),
            predicate,
            limit: limit.filter(|_| filters.is_empty()),
            partitions: state.config().target_partitions(),
        }
        .plan(state.runtime_env())
    }
}
