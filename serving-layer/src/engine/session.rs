//! DataFusion sessions: one is prepared, and each query gets a copy with the tables at its own head.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
        SchemaProvider, TableProvider,
    },
    error::Result,
    execution::{FunctionRegistry, SendableRecordBatchStream, SessionState, TaskContext, runtime_env::RuntimeEnv},
    logical_expr::LogicalPlan,
    physical_plan::execute_stream,
    prelude::SessionConfig,
    sql::parser::Statement,
};

use super::{
    by_name, functions,
    offsets::KeepOffsets,
    query,
    stop::{GiveWay, Stop},
};
use common::{calls, sql};

pub(super) const CATALOG: &str = "lamina";
pub(super) const SCHEMA: &str = "public";

/// What all queries have in common. A session and a context each hold every function by name, so both are copied as
/// seldom as can be.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) state: SessionState,
    /// What plans run in: it says nothing of one query.
    pub(super) context: Arc<TaskContext>,
}

impl Base {
    pub(super) fn new(runtime: Arc<RuntimeEnv>, parallelism: usize) -> Self {
        let config = SessionConfig::new()
            .with_target_partitions(parallelism)
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, SCHEMA);
        let mut rules = by_name::rules();
        // Before anything looks at orders.
        rules.insert(0, Arc::new(KeepOffsets));
        // Before the rules that give way at sources, and those that share filters between operators, which must be last.
        let at = rules.iter().position(|rule| rule.name() == "EnsureCooperative").unwrap_or(rules.len());
        rules.insert(at, Arc::new(GiveWay));
        let mut builder = sql::session(config).with_runtime_env(runtime).with_physical_optimizer_rules(rules);
        builder.scalar_functions().get_or_insert_default().extend(functions::all());
        let state = builder.build();
        let context = state.task_ctx();
        Self { state, context }
    }

    /// A session that has just these tables, for a query that begins now and that `stop` stops.
    pub(super) fn session(
        &self,
        tables: BTreeMap<String, Arc<dyn TableProvider>>,
        stop: &Stop,
    ) -> Result<SessionState> {
        let schema = Arc::new(MemorySchemaProvider::new());
        for (name, table) in tables {
            schema.register_table(name, table)?;
        }
        let catalog = Arc::new(MemoryCatalogProvider::new());
        catalog.register_schema(SCHEMA, schema)?;
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        catalogs.register_catalog(CATALOG.to_owned(), catalog);
        let mut state = self.state.clone();
        state.register_catalog_list(catalogs);
        state.config_mut().options_mut().extensions.insert(stop.clone());
        state.mark_start_execution();
        Ok(state)
    }

    /// A session and a statement in which casts are part of the names of what they are in.
    pub(super) fn with_named_casts(
        &self,
        session: &SessionState,
        statement: &Statement,
    ) -> Result<(SessionState, Statement)> {
        let (mut session, mut statement) = (session.clone(), statement.clone());
        session.register_udf(Arc::new(calls::typed(false)))?;
        query::name_casts(&mut statement);
        Ok((session, statement))
    }

    /// Plans and starts a query of a session.
    pub(super) async fn run(&self, session: &SessionState, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
        let plan = sql::counted(session.optimize(plan)?)?;
        let plan = session.query_planner().create_physical_plan(&plan, session).await?;
        execute_stream(plan, self.context.clone())
    }
}
