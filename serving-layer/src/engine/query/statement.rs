//! From a query's text to the statement that is planned.

use common::{
    access::Scope,
    calls,
    statement::{Refusal, ignored, on_deep_stack, plain},
};
use datafusion::{
    execution::SessionState,
    sql::parser::Statement,
    sql::sqlparser::ast::{self, ObjectName, ShowCreateObject},
};
use serde_json::value::RawValue;

use super::{Engine, Error, parse};

mod names;
mod parameters;

/// Refuses what would be ignored, and says what the planner does not know in what it knows.
pub(super) fn prepare(
    statement: &mut Statement,
    parameters: &[Box<RawValue>],
    state: &SessionState,
) -> Result<(), Error> {
    let statement = match statement {
        Statement::Explain(explain) => explain.statement.as_mut(),
        statement => statement,
    };
    let Statement::Statement(statement) = statement else { return Ok(()) };
    on_deep_stack(|| {
        parameters::bind(statement, parameters).map_err(refused)?;
        calls::rewrite(statement);
        ignored::check(statement, state).map_err(refused)?;
        plain::rewrite(statement).map_err(refused)?;
        names::make_distinct(statement);
        Ok(())
    })
}

/// Makes casts part of the names of what they are in. It needs [`calls::typed`].
pub(in crate::engine) fn name_casts(statement: &mut Statement) {
    let statement = match statement {
        Statement::Explain(explain) => explain.statement.as_mut(),
        statement => statement,
    };
    let Statement::Statement(statement) = statement else { return };
    on_deep_stack(|| {
        names::name_casts(statement);
        calls::name_casts(statement.as_mut());
    });
}

impl Engine {
    /// `SHOW CREATE TABLE` as a query that has the answer in it.
    pub(super) fn shown(&self, statement: Statement, scope: &Scope) -> Result<Statement, Error> {
        let name = match &statement {
            Statement::Statement(inner) => match inner.as_ref() {
                ast::Statement::ShowCreate { obj_type: ShowCreateObject::Table | ShowCreateObject::View, obj_name } => {
                    plain_name(obj_name)
                }
                _ => return Ok(statement),
            },
            _ => return Ok(statement),
        };
        let catalog = self.catalog();
        let definition = match (catalog.views.get(&name), catalog.datasets.get(&name)) {
            (Some(view), _) if scope.views.allow(&name) => {
                let refresh =
                    view.refresh.map_or("never".to_owned(), |every| humantime::format_duration(every).to_string());
                let quoted = quoted(&name);
                format!("CREATE MATERIALIZED VIEW {quoted} WITH (refresh = '{refresh}') AS {}", view.sql)
            }
            (_, Some(dataset)) if scope.datasets.allow(&name) => dataset.sql.clone(),
            _ => {
                let views = catalog.views.keys().filter(|name| scope.views.allow(name));
                let datasets = catalog.datasets.keys().filter(|name| scope.datasets.allow(name));
                return Err(Error::unknown("view or dataset", &name, views.chain(datasets)));
            }
        };
        let text = |text: &str| text.replace('\'', "''");
        parse(&format!("SELECT '{}' AS table_name, '{}' AS definition", text(&name), text(&definition)))
    }
}

fn quoted(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The last part of a name, as it is in the catalog.
fn plain_name(name: &ObjectName) -> String {
    let ident = name.0.last().and_then(|part| part.as_ident());
    ident.map_or_else(String::new, |ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    })
}

fn refused(refusal: Refusal) -> Error {
    let Refusal { reason, hint, at } = refusal;
    Error::Refused { reason, hint: Some(hint), at: at.map(|at| (at.line, at.column)) }
}
