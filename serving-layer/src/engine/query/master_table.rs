//! A dataset as a table: the master at one version.

use std::sync::Arc;

use async_trait::async_trait;
use common::{
    catalog::Dataset,
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

/// A dataset.
#[derive(Debug)]
pub(super) struct MasterTable {
    pub(super) dataset: Arc<Dataset>,
    /// `None` while the dataset is only known by name, in queries that do not read it.
    pub(super) at: Option<At>,
}

/// The version that is read.
#[derive(Debug)]
pub(super) struct At {
    pub(super) version: Version,
    pub(super) table: String,
}

#[async_trait]
impl TableProvider for MasterTable {
    fn schema(&self) -> SchemaRef {
        self.dataset.schema.clone()
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
            return Err(DataFusionError::Internal(format!(
                "dataset `{}` was not opened for this query",
                self.dataset.name
            )));
        };
        let schema = DFSchema::try_from(self.dataset.schema.clone())?;
        let predicate = conjunction(filters.to_vec());
        let predicate = predicate.map(|filter| state.create_physical_expr(filter, &schema)).transpose()?;
        let files: Vec<DataFile> = at.version.files.iter().map(|file| (**file).clone()).collect();
        Scan {
            table: &at.table,
            schema: self.dataset.schema.clone(),
            files: &files,
            projection: projection.cloned(),
            predicate,
            exact: false,
            limit: limit.filter(|_| filters.is_empty()),
            partitions: state.config().target_partitions(),
        }
        .plan(&state.task_ctx().runtime_env())
    }
}
