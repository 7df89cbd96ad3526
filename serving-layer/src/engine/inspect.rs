//! What there is, and how it stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use common::{
    access::Scope,
    catalog::{Dataset, View},
    fold::Failed,
    master,
    position::Frontier,
    speed,
};
use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{Int32Type, Int64Type, TimestampMicrosecondType},
    },
    datasource::provider_as_source,
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlanBuilder, ident, lit},
};
use futures::TryStreamExt;

use super::{
    DatasetInfo, DeadLetterInfo, Engine, Error, Options, Stop, VersionInfo, ViewInfo,
    query::master_table::{At, MasterTable},
};

const HISTORY: usize = 20;

impl Engine {
    /// All views of a scope, by name.
    pub async fn views(&self, scope: &Scope) -> Result<Vec<ViewInfo>, Error> {
        let views = self.context.catalog.views.values().filter(|view| scope.views.allow(&view.name));
        Ok(views.map(|view| self.view_info(view)).collect())
    }

    /// One view and its newest published versions, newest first.
    pub async fn view(&self, view: &str, scope: &Scope) -> Result<(ViewInfo, Vec<VersionInfo>), Error> {
        let view = self.view_named(view, scope)?;
        let table =
            self.tables.get(&view.name).ok_or_else(|| Error::unknown("view", &view.name, self.tables.keys()))?;
        let history = table.history(HISTORY).await.map_err(|error| Error::storage("read the view's history", error))?;
        let history = history
            .into_iter()
            .map(|published| VersionInfo {
                batch_version: published.batch_version,
                cut: published.cut,
                published_at_ms: published.published_at_ms,
                rows: published.rows,
                failed_events: published.failed_events,
                failed_groups: published.failed_groups,
            })
            .collect();
        Ok((self.view_info(view), history))
    }

    fn view_info(&self, view: &View) -> ViewInfo {
        let newest = self.versions.newest(&view.name);
        ViewInfo {
            name: view.name.clone(),
            dataset: view.dataset.name.clone(),
            definition: view.definition.clone(),
            sql: view.sql.clone(),
            refresh: view.refresh,
            columns: crate::merged::visible(view),
            batch_version: newest.as_ref().map(|published| published.batch_version),
            cut: newest.map(|published| published.cut).unwrap_or_default(),
            head: self.context.speed.status(&view.dataset.name).head,
        }
    }

    /// All datasets of a scope, by name.
    pub async fn datasets(&self, scope: &Scope) -> Result<Vec<DatasetInfo>, Error> {
        let mut datasets = Vec::new();
        for dataset in self.context.catalog.datasets.values().filter(|dataset| scope.datasets.allow(&dataset.name)) {
            datasets.push(self.dataset_info(dataset).await?);
        }
        Ok(datasets)
    }

    /// One dataset.
    pub async fn dataset(&self, dataset: &str, scope: &Scope) -> Result<DatasetInfo, Error> {
        let dataset = self.dataset_named(dataset, scope)?.clone();
        self.dataset_info(&dataset).await
    }

    async fn dataset_info(&self, dataset: &Arc<Dataset>) -> Result<DatasetInfo, Error> {
        let at = self.master(dataset).await?;
        let dead = self.newest(&self.dead_letters, dataset, true).await?;
        // The log may be out of reach while everything else still answers.
        let bounds = self.context.log.bounds(&dataset.topic).await.ok();
        Ok(DatasetInfo {
            name: dataset.name.clone(),
            columns: dataset.columns.clone(),
            topic: dataset.topic.clone(),
            log_start: bounds.as_ref().map(|bounds| bounds.start.clone()),
            log_end: bounds.map(|bounds| bounds.end),
            master_version: i64::try_from(at.version).unwrap_or(i64::MAX),
            events: at.rows,
            master_frontier: at.frontier,
            dead_letters: dead.rows,
        })
    }

    /// The newest dead letters of a dataset, at most `limit`.
    pub async fn dead_letters(&self, dataset: &str, limit: usize, scope: &Scope) -> Result<Vec<DeadLetterInfo>, Error> {
        let dataset = self.dataset_named(dataset, scope)?.clone();
        let archived = self.master(&dataset).await?.frontier;
        let at = self.newest(&self.dead_letters, &dataset, true).await?;
        let table = master::dead_letters(&self.context.storage, &dataset.name)
            .map_err(|error| Error::storage("open the dead letters", error))?;
        let (version, table, schema) = (at, table.path().to_owned(), master::dead_letters_schema());
        let table = MasterTable { name: "dead_letters".to_owned(), schema, at: Some(At { version, table }) };
        let rows = self.newest_of(table, &archived, limit).await.map_err(Error::Execution)?;
        Ok(rows.iter().flat_map(letters_of).collect())
    }

    /// The events below the head that a view cannot be computed over, the newest of them with their reasons.
    pub async fn failed_events(&self, view: &str, scope: &Scope) -> Result<Failed, Error> {
        let view = self.view_named(view, scope)?;
        let (versions, frozen) = self.frozen(&view.dataset.name, &[view], false, true).await?;
        let mut failed = Failed::default();
        for (versions, frozen) in versions.iter().zip(&frozen.views) {
            failed.join(&frozen.failed);
            let published = versions.get(frozen.cut_index).and_then(|version| version.published.as_ref());
            if let (Some(published), Some(table)) = (published, self.tables.get(&view.name)) {
                let below = table.failed(published).await;
                failed.join(&below.map_err(|error| Error::storage("read the view's failed events", error))?);
            }
        }
        Ok(failed)
    }

    /// The newest rows of a table below `frontier`.
    async fn newest_of(
        &self,
        table: MasterTable,
        frontier: &Frontier,
        limit: usize,
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        // The dead letters' table is committed first: what the master does not cover yet is not decided.
        let below = frontier
            .iter()
            .map(|(partition, next)| ident("_partition").eq(lit(partition)).and(ident("_offset").lt(lit(next))));
        let newest = ["_timestamp", "_partition", "_offset"].map(|column| ident(column).sort(false, false));
        let plan = LogicalPlanBuilder::scan(table.name.clone(), provider_as_source(Arc::new(table)), None)?
            .filter(below.reduce(Expr::or).unwrap_or_else(|| lit(false)))?
            .sort(newest)?
            .limit(0, Some(limit))?
            .build()?;
        let session = self.base.session(BTreeMap::new(), &Stop::default())?;
        self.base.run(&session, &plan).await?.try_collect().await
    }

    /// `Ok` once each of `views` can be answered; else the reason of one that cannot.
    pub(crate) async fn answers(&self, views: &[Arc<View>]) -> Result<(), String> {
        for view in views {
            let frame = self.frame(&BTreeSet::from([view.name.clone()]), &Options::default()).await;
            frame.map_err(|error| format!("view `{}`: {}", view.name, common::fault::chain(&error)))?;
        }
        Ok(())
    }

    /// `Ok` once every view of the catalog can be answered; else the reasons. A view that cannot be computed is its own
    /// matter: no other process could answer it, and no waiting helps.
    pub async fn ready(&self) -> Result<(), Vec<String>> {
        let mut reasons = BTreeSet::new();
        if let Some(reason) = self.context.log.failing() {
            reasons.insert(format!("the log cannot be written: {reason}"));
        }
        for dataset in self.context.catalog.datasets.keys() {
            if let Some(reason) = self.context.speed.status(dataset).stopped {
                reasons.insert(format!("dataset `{dataset}`: {reason}"));
            }
        }
        for view in self.context.catalog.views.keys() {
            let reads = BTreeSet::from([view.clone()]);
            let frame = self.frame(&reads, &Options::default()).await;
            if let Err(error) = frame.map(drop).or_else(unless_it_is_the_views) {
                reasons.insert(format!("view `{view}`: {}", common::fault::chain(&error)));
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons.into_iter().collect()) }
    }
}

fn unless_it_is_the_views(error: Error) -> Result<(), Error> {
    match error {
        Error::Speed(speed::Error::Failed { .. }) => Ok(()),
        error => Err(error),
    }
}

fn letters_of(batch: &RecordBatch) -> Vec<DeadLetterInfo> {
    let partitions = batch.column(0).as_primitive::<Int32Type>();
    let offsets = batch.column(1).as_primitive::<Int64Type>();
    let timestamps = batch.column(2).as_primitive::<TimestampMicrosecondType>();
    let reasons = batch.column(3).as_string::<i32>();
    let raw = batch.column(4).as_binary::<i32>();
    (0..batch.num_rows())
        .map(|i| DeadLetterInfo {
            partition: partitions.value(i),
            offset: offsets.value(i),
            timestamp_us: timestamps.value(i),
            reason: reasons.value(i).to_owned(),
            raw: raw.is_valid(i).then(|| raw.value(i).to_vec()),
        })
        .collect()
}
