//! SQL: what may run, what it reads, and at which head.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use common::{
    access::Scope,
    calls,
    catalog::{Dataset, View},
    position::Frontier,
    speed::{self, Frozen, Request, ViewRequest},
};
use datafusion::{
    catalog::TableProvider,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, SessionState, context::SQLOptions},
    sql::parser::{DFParserBuilder, Statement},
    sql::sqlparser::ast,
};

use super::{Answer, Engine, Error, Options};
use crate::{
    merged::{At, MergedView, visible},
    published::Version,
    stamp::{Stamp, ViewStamp},
};

mod depth;
mod lists;
pub(super) mod master_table;
mod statement;
mod subqueries;

pub(super) use statement::name_casts;

/// How long a query waits for the speed layer to be able to complete a batch view version.
const PATIENCE: Duration = Duration::from_secs(10);
const TRY_EVERY: Duration = Duration::from_millis(20);
/// How often a query is begun again when a worker is lost that had frozen states for it.
const ATTEMPTS: usize = 5;

/// The tables of a query, and the prefix they are at.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tables: BTreeMap<String, Arc<dyn TableProvider>>,
    pub(super) stamp: Stamp,
    /// By view, of how many groups something could not be computed: known once the query is planned.
    pub(super) failed_groups: BTreeMap<String, Arc<AtomicI64>>,
}

impl Frame {
    /// What is known of a query's answer once it is planned.
    pub(super) fn planned(mut stamp: Stamp, failed_groups: &BTreeMap<String, Arc<AtomicI64>>) -> Stamp {
        for (view, count) in failed_groups {
            if let Some(stamp) = stamp.views.get_mut(view) {
                stamp.failed_groups = count.load(Ordering::Relaxed);
            }
        }
        stamp
    }
}

impl Engine {
    /// Runs a read-only SQL query over views, or over datasets.
    pub async fn sql(&self, sql: &str, options: &Options) -> Result<Answer, Error> {
        let mut statement = self.shown(parse(sql)?, &options.scope)?;
        statement::prepare(&mut statement, &options.parameters, &self.base.state)?;
        let reads = self.reads(&statement, &options.scope)?;
        again(|| self.sql_once(&statement, &reads, options)).await
    }

    async fn sql_once(
        &self,
        statement: &Statement,
        reads: &BTreeSet<String>,
        options: &Options,
    ) -> Result<Answer, Error> {
        let frame = self.frame(reads, options).await?;
        let stop = options.stop.clone();
        let session = self.base.session(frame.tables, &stop).map_err(Error::Execution)?;
        let rows = match self.stream(&session, statement.clone()).await {
            // Where casts alone tell two columns apart, they become part of the names.
            Err(error) if error.is_of_names() => {
                let (session, named) = self.base.with_named_casts(&session, statement).map_err(Error::Execution)?;
                self.stream(&session, named).await.map_err(|_| error)?
            }
            rows => rows?,
        };
        Ok(Answer { rows, stamp: Frame::planned(frame.stamp, &frame.failed_groups), stop })
    }

    async fn stream(&self, session: &SessionState, statement: Statement) -> Result<SendableRecordBatchStream, Error> {
        let plan = session.statement_to_plan(statement).await.map_err(|error| self.planning(error))?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|error| {
            Error::refused(
                error.strip_backtrace(),
                "only queries are answered: write `SELECT …`, `SHOW TABLES` or `DESCRIBE …`",
            )
        })?;
        let plan = subqueries::rewrite(plan).map_err(|error| self.planning(error))?;
        self.base.run(session, &plan).await.map_err(|error| self.planning(error))
    }

    /// What a statement reads, by name.
    fn reads(&self, statement: &Statement, scope: &Scope) -> Result<BTreeSet<String>, Error> {
        let references = self.base.state.resolve_table_references(statement).map_err(|error| self.planning(error))?;
        let (views, datasets) = (&self.context.catalog.views, &self.context.catalog.datasets);
        let mut reads = BTreeSet::new();
        for reference in references {
            if reference.schema().is_some_and(|schema| schema == "information_schema") {
                continue;
            }
            let name = reference.table();
            let is_known = views.contains_key(name) || datasets.contains_key(name);
            if !is_known && self.base.state.table_functions().contains_key(name) {
                continue;
            }
            let there_are = || {
                let views = views.keys().filter(|name| scope.views.allow(name));
                views.chain(datasets.keys().filter(|name| scope.datasets.allow(name)))
            };
            if !there_are().any(|there_is| there_is == name) {
                return Err(Error::unknown("view or dataset", name, there_are()));
            }
            reads.insert(name.to_owned());
        }
        let is_view = |name: &&String| views.contains_key(*name);
        if let (Some(view), Some(dataset)) = (reads.iter().find(is_view), reads.iter().find(|name| !is_view(name))) {
            return Err(Error::refused(
                format!("a query reads views or datasets, not both: `{view}` is a view and `{dataset}` a dataset"),
                "they stand at different prefixes of the log: ask twice",
            ));
        }
        Ok(reads)
    }

    /// Freezes everything that a query reads at one head.
    pub(super) async fn frame(&self, reads: &BTreeSet<String>, options: &Options) -> Result<Frame, Error> {
        let catalog = &self.context.catalog;
        let scope = &options.scope;
        for dataset in options.min_position.keys() {
            // A view's answers say where its dataset stands, so that can be waited for.
            let through_a_view =
                catalog.views.values().any(|view| view.dataset.name == *dataset && scope.views.allow(&view.name));
            if !through_a_view {
                self.dataset_named(dataset, scope)?;
            }
        }
        let mut frame = Frame { tables: BTreeMap::new(), stamp: Stamp::default(), failed_groups: BTreeMap::new() };
        // Tables that the query does not read are there to be listed. What is out of its scope is not there at all.
        for view in catalog.views.values().filter(|view| scope.views.allow(&view.name)) {
            let table = MergedView { view: view.clone(), schema: visible(view), at: None };
            frame.tables.insert(view.name.clone(), Arc::new(table));
        }
        for dataset in catalog.datasets.values().filter(|dataset| scope.datasets.allow(&dataset.name)) {
            let at = match reads.contains(&dataset.name) {
                true => Some(self.master_at(dataset, options, &mut frame.stamp).await?),
                false => None,
            };
            let (name, schema) = (dataset.name.clone(), dataset.schema.clone());
            let table = master_table::MasterTable { name, schema, at };
            frame.tables.insert(dataset.name.clone(), Arc::new(table));
        }
        let mut by_dataset: BTreeMap<&str, Vec<&Arc<View>>> = BTreeMap::new();
        for view in reads.iter().filter_map(|name| catalog.views.get(name)) {
            by_dataset.entry(&view.dataset.name).or_default().push(view);
        }
        for (dataset, views) in by_dataset {
            self.freeze(dataset, &views, options, &mut frame).await?;
        }
        Ok(frame)
    }

    async fn freeze(
        &self,
        dataset: &str,
        views: &[&Arc<View>],
        options: &Options,
        frame: &mut Frame,
    ) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + options.wait;
        let (versions, frozen) = loop {
            let wanted = options.min_position.get(dataset);
            if let Some(position) = wanted {
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                self.context.speed.reach(dataset, position, left).await?;
            }
            let (versions, frozen) = match self.frozen(dataset, views, options.allow_partial, false).await {
                // Who waits for a position waits for a start too.
                Err(Error::Speed(speed::Error::CatchingUp { .. } | speed::Error::NotReady { .. }))
                    if wanted.is_some() && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(TRY_EVERY).await;
                    continue;
                }
                frozen => frozen?,
            };
            match wanted {
                // A partition may have been taken from another owner than the one that has come so far.
                Some(wanted) if !frozen.head.covers(wanted) => {
                    if tokio::time::Instant::now() >= deadline {
                        let (dataset, head, wanted) = (dataset.to_owned(), frozen.head, wanted.clone());
                        return Err(speed::Error::NotReached { dataset, head, wanted }.into());
                    }
                    tokio::time::sleep(TRY_EVERY).await;
                }
                _ => break (versions, frozen),
            }
        };
        if !frozen.missing.is_empty() {
            frame.stamp.missing.insert(dataset.to_owned(), frozen.missing);
        }
        if let Some(reason) = frozen.stopped {
            frame.stamp.stopped.insert(dataset.to_owned(), reason);
        }
        for ((view, versions), states) in views.iter().zip(versions).zip(frozen.views) {
            let Some(version) = versions.get(states.cut_index).cloned() else {
                let (chosen, view) = (states.cut_index, &view.name);
                let offered = format!("the speed layer chose cut {chosen} of view `{view}`, which was not offered");
                return Err(Error::Defect(offered));
            };
            let stamp = ViewStamp {
                definition: view.definition.clone(),
                batch_version: version.published.as_ref().map(|published| published.batch_version),
                cut: version.cut(),
                failed_events: version.published.as_ref().map_or(0, |published| published.failed_events)
                    + states.failed.count(),
                failed_groups: 0,
            };
            frame.stamp.views.insert(view.name.clone(), stamp);
            let table =
                self.tables.get(&view.name).ok_or_else(|| Error::unknown("view", &view.name, self.tables.keys()))?;
            let failed_groups = Arc::new(AtomicI64::new(0));
            frame.failed_groups.insert(view.name.clone(), failed_groups.clone());
            let at = At {
                failed_groups,
                version,
                states: states.states,
                stored: table.schema().clone(),
                table: table.table().path().to_owned(),
                context: self.base.context.clone(),
            };
            let merged = MergedView { view: (*view).clone(), schema: visible(view), at: Some(at) };
            frame.tables.insert(view.name.clone(), Arc::new(merged));
        }
        frame.stamp.head.insert(dataset.to_owned(), frozen.head);
        note_freshness(&mut frame.stamp, frozen.freshness_ms);
        Ok(())
    }

    /// The versions that were offered and what the speed layer made of them. A version that it has not heard of yet
    /// costs a moment; one that it cannot complete leaves the one before.
    pub(super) async fn frozen(
        &self,
        dataset: &str,
        views: &[&Arc<View>],
        allow_partial: bool,
        with_failed: bool,
    ) -> Result<(Vec<Vec<Arc<Version>>>, Frozen), Error> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let partitions = match self.context.catalog.datasets.get(dataset) {
            Some(dataset) => self.partitions(dataset).await?,
            None => 0,
        };
        loop {
            let versions: Vec<Vec<Arc<Version>>> = views.iter().map(|view| self.versions.of(&view.name)).collect();
            let request = Request {
                dataset: dataset.to_owned(),
                partitions: (0..partitions).collect(),
                allow_partial,
                views: views
                    .iter()
                    .zip(&versions)
                    .map(|(view, versions)| ViewRequest {
                        view: view.name.clone(),
                        definition: view.definition.clone(),
                        cuts: versions.iter().map(|version| version.cut()).collect(),
                        with_failed,
                    })
                    .collect(),
            };
            match self.context.speed.freeze(&request).await {
                Ok(frozen) => return Ok((versions, frozen)),
                Err(speed::Error::NoCut { .. } | speed::Error::NoCommonCut { .. })
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(TRY_EVERY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The master dataset for a query over it.
    async fn master_at(
        &self,
        dataset: &Arc<Dataset>,
        options: &Options,
        stamp: &mut Stamp,
    ) -> Result<master_table::At, Error> {
        let deadline = tokio::time::Instant::now() + options.wait;
        let version = loop {
            let version = self.master(dataset).await?;
            match options.min_position.get(&dataset.name) {
                Some(wanted) if !version.frontier.covers(wanted) => {
                    if tokio::time::Instant::now() >= deadline {
                        let (dataset, head, wanted) = (dataset.name.clone(), version.frontier, wanted.clone());
                        return Err(speed::Error::NotReached { dataset, head, wanted }.into());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => break version,
            }
        };
        stamp.head.insert(dataset.name.clone(), version.frontier.clone());
        note_freshness(stamp, self.lacks_nothing(dataset, &version.frontier).await.then_some(0));
        let table = common::master::table(&self.context.storage, &dataset.name)
            .map_err(|error| Error::storage("open the master dataset", error))?;
        Ok(master_table::At { version, table: table.path().to_owned() })
    }

    async fn lacks_nothing(&self, dataset: &Dataset, frontier: &Frontier) -> bool {
        self.context.log.bounds(&dataset.topic).await.is_ok_and(|bounds| frontier.covers(&bounds.end))
    }

    /// An error of DataFusion's while it plans: nearly always the query's.
    pub(super) fn planning(&self, error: DataFusionError) -> Error {
        let at =
            error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| (span.start.line, span.start.column));
        match error.find_root() {
            DataFusionError::Internal(_)
            | DataFusionError::ObjectStore(_)
            | DataFusionError::IoError(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::ResourcesExhausted(_)
            | DataFusionError::External(_) => Error::Execution(error),
            _ if subqueries::is_left_over(&error) => Error::refused(
                "a subquery refers to the outer query in a way that is not supported",
                "compare with it by `column = outer.column` in the subquery's `WHERE`, or write a join",
            ),
            _ => match calls::unknown(&error.strip_backtrace()) {
                Some((reason, hint)) => Error::Refused { reason, hint: Some(hint), at },
                None => Error::Refused { reason: error.strip_backtrace(), hint: None, at },
            },
        }
    }
}

/// Begins a query again when the states that were frozen for it are gone with their worker: it is then frozen anew as a
/// whole.
pub(super) async fn again<F: Future<Output = Result<Answer, Error>>>(query: impl Fn() -> F) -> Result<Answer, Error> {
    for _ in 1..ATTEMPTS {
        match query().await {
            Err(Error::Execution(error)) if lost_worker(&error) => {
                tracing::debug!("a query is begun again: {}", error.strip_backtrace());
            }
            outcome => return outcome,
        }
    }
    query().await
}

fn lost_worker(error: &DataFusionError) -> bool {
    let DataFusionError::External(source) = error.find_root() else { return false };
    source.downcast_ref::<speed::Error>().is_some_and(|error| matches!(error, speed::Error::Unreachable(_)))
}

/// Notes the freshness of the dataset whose head has just been noted: an answer is as old as the oldest of its datasets.
fn note_freshness(stamp: &mut Stamp, freshness_ms: Option<i64>) {
    stamp.freshness_ms = match (stamp.head.len(), stamp.freshness_ms, freshness_ms) {
        (1, _, freshness_ms) => freshness_ms,
        (_, Some(known_ms), Some(freshness_ms)) => Some(known_ms.max(freshness_ms)),
        _ => None,
    };
}

/// The one statement of a query.
fn parse(sql: &str) -> Result<Statement, Error> {
    depth::check(sql)?;
    let refused = |error: DataFusionError| {
        let reason = error.strip_backtrace();
        let at = place(&reason);
        Error::Refused { reason, hint: Some("the dialect is DataFusion's SQL".to_owned()), at }
    };
    let parser = DFParserBuilder::new(sql).with_dialect(&common::sql::Dialect).build();
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(refused)?;
    let statement = match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => statement,
        (None, _) => return Err(Error::refused("there is no query", "write `SELECT …`")),
        (Some(_), false) => return Err(Error::refused("there is more than one statement", "ask one query at a time")),
    };
    let is_query = match &statement {
        Statement::Statement(statement) => matches!(
            statement.as_ref(),
            ast::Statement::Query(_)
                | ast::Statement::ShowTables { .. }
                | ast::Statement::ShowColumns { .. }
                | ast::Statement::ShowCreate { .. }
                | ast::Statement::ExplainTable { .. }
        ),
        Statement::Explain(explain) => {
            matches!(explain.statement.as_ref(), Statement::Statement(inner) if matches!(inner.as_ref(), ast::Statement::Query(_)))
        }
        _ => false,
    };
    if !is_query {
        return Err(Error::refused(
            format!("`{}` is not a query", first_words(sql)),
            "only queries are answered: write `SELECT …`, `SHOW TABLES` or `DESCRIBE …`",
        ));
    }
    Ok(statement)
}

fn first_words(sql: &str) -> String {
    sql.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// The line and column at the end of the parser's message.
fn place(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once("Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let column: String = column.chars().take_while(char::is_ascii_digit).collect();
    Some((line.parse().ok()?, column.parse().ok()?))
}
