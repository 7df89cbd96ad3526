//! DataFusion sessions: one is prepared, and each query gets a copy with the tables at its own head.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
        SchemaProvider, TableProvider,
    },
    error::Result,
    execution::{SessionState, SessionStateBuilder, runtime_env::RuntimeEnv},
    physical_optimizer::optimizer::PhysicalOptimizer,
    prelude::{SessionConfig, SessionContext},
};

use super::stop::{GiveWay, Stop};

const CATALOG: &str = "lamina";
const SCHEMA: &str = "public";

/// What all queries have in common.
pub(super) fn base(runtime: Arc<RuntimeEnv>, parallelism: usize) -> SessionState {
    let mut config = SessionConfig::new()
        .with_target_partitions(parallelism)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    let mut rules = PhysicalOptimizer::new().rules;
    // Before the rules that give way at sources, and those that share filters between operators, which must be last.
    let at = rules.iter().position(|rule| rule.name() == "EnsureCooperative").unwrap_or(rules.len());
    rules.insert(at, Arc::new(GiveWay));
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rules(rules)
        .build()
}

/// A session that has just these tables, for a query that `stop` stops.
pub(super) fn with_tables(
    base: &SessionState,
    tables: BTreeMap<String, Arc<dyn TableProvider>>,
    stop: &Stop,
) -> Result<SessionContext> {
    let schema = Arc::new(MemorySchemaProvider::new());
    for (name, table) in tables {
        schema.register_table(name, table)?;
    }
    let catalog = Arc::new(MemoryCatalogProvider::new());
    catalog.register_schema(SCHEMA, schema)?;
    let catalogs = Arc::new(MemoryCatalogProviderList::new());
    catalogs.register_catalog(CATALOG.to_owned(), catalog);
    let mut state = base.clone();
    state.register_catalog_list(catalogs);
    state.config_mut().options_mut().extensions.insert(stop.clone());
    Ok(SessionContext::new_with_state(state))
}
