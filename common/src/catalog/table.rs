//! `CREATE TABLE` as a dataset.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use sqlparser::{
    ast::{
        ColumnDef, ColumnOption, CreateTable, Expr, Ident, Spanned, TableConstraint,
        helpers::stmt_create_table::CreateTableBuilder,
    },
    tokenizer::Location,
};

use super::{
    Check, Dataset,
    canonical::{self, Names, folded, quoted},
    check::Planner,
    faults::Report,
    near,
    options::Options,
    source::Parsed,
    types::arrow_type,
};
use crate::values::sql_type_name;

/// Where the log has an event, in the master dataset.
const POSITION: [&str; 3] = ["_partition", "_offset", "_timestamp"];
const OPTIONS: [&str; 4] = ["topic", "format", "key", "partitions"];

/// The dataset of a statement, named `name`; `None` when it has flaws, which are reported.
pub(super) fn dataset(
    create: &CreateTable,
    name: &str,
    at: Location,
    parsed: &Parsed,
    report: &mut Report<'_>,
) -> Option<Dataset> {
    let flaws = report.flaws.len();
    refuse_clauses(create, parsed, report);
    let mut draft = Draft::default();
    for column in &create.columns {
        draft.column(column, parsed, report);
    }
    for constraint in &create.constraints {
        draft.constraint(constraint, parsed, report);
    }
    if create.columns.is_empty() && report.flaws.len() == flaws {
        report.flaw::<()>(
            at,
            format!("dataset `{name}` has no columns"),
            "list them: `CREATE TABLE name (id BIGINT NOT NULL, …)`",
        );
    }
    let options = Options::read(&create.table_options, &OPTIONS, parsed, report);
    let topic = options.topic(name, at, report);
    options.format(report);
    let partitions = options.partitions(report);
    let columns: SchemaRef = Arc::new(Schema::new(std::mem::take(&mut draft.fields)));
    let key = key(&options, &columns, report);
    let checks = draft.checks(&columns, report);
    if report.flaws.len() > flaws {
        return None;
    }
    let (topic, partitions) = (topic?, partitions?);
    let schema = with_position(&columns);
    let definition = definition(&columns, &draft.checks);
    let mut dataset = Dataset {
        name: name.to_owned(),
        topic,
        key,
        partitions,
        columns,
        schema,
        checks,
        sql: String::new(),
        definition,
    };
    dataset.sql = sql(&dataset);
    Some(dataset)
}

/// What has been read of the columns.
#[derive(Default)]
struct Draft {
    fields: Vec<Field>,
    names: BTreeMap<String, String>,
    checks: Vec<(Location, Expr)>,
    /// Columns whose type is wrong: they are in no schema.
    broken: Vec<String>,
}

impl Draft {
    fn column(&mut self, column: &ColumnDef, parsed: &Parsed, report: &mut Report<'_>) {
        let name = folded(&column.name);
        let at = column.name.span.start;
        self.check_name(&name, at, report);
        let mut nullable = None;
        for option in &column.options {
            self.option(&option.option, at, &mut nullable, parsed, report);
        }
        match arrow_type(&column.data_type) {
            Ok(data_type) => self.fields.push(Field::new(name, data_type, nullable.unwrap_or(true))),
            Err((reason, hint)) => {
                report.flaw::<()>(parsed.after(at), format!("column `{name}`: {reason}"), hint);
                self.broken.push(name);
            }
        }
    }

    fn check_name(&mut self, name: &str, at: Location, report: &mut Report<'_>) {
        if POSITION.contains(&name.to_lowercase().as_str()) {
            let reason = format!("column `{name}` would hide where the log has the event");
            report.flaw::<()>(at, reason, "give it another name");
        } else if name.is_empty() || name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=', '\r']) {
            let reason = format!("column `{name}` has a name that Delta tables cannot have");
            report.flaw::<()>(at, reason, "use no spaces and none of `,;{}()=`");
        } else if let Some(other) = self.names.insert(name.to_lowercase(), name.to_owned()) {
            let reason = if other == name {
                format!("column `{name}` is there twice")
            } else {
                format!("columns `{other}` and `{name}` differ in case only, which Delta tables cannot tell apart")
            };
            report.flaw::<()>(at, reason, "give one of them another name");
        }
    }

    fn option(
        &mut self,
        option: &ColumnOption,
        column: Location,
        nullable: &mut Option<bool>,
        parsed: &Parsed,
        report: &mut Report<'_>,
    ) {
        let found = |word: &str| parsed.word_after(column, word);
        match option {
            ColumnOption::Null | ColumnOption::NotNull => {
                let is_nullable = matches!(option, ColumnOption::Null);
                if nullable.replace(is_nullable).is_some_and(|other| other != is_nullable) {
                    report.flaw::<()>(found("NULL"), "the column is both NULL and NOT NULL", "remove one of them");
                }
            }
            ColumnOption::Check(check) => self.check(&check.expr, check.enforced, found("CHECK"), report),
            ColumnOption::Default(_) => {
                let hint = "remove it: a missing field is NULL; write `coalesce(column, value)` in the views";
                report.flaw::<()>(found("DEFAULT"), "`DEFAULT` is not known: events are kept as they come", hint);
            }
            ColumnOption::PrimaryKey(_) => report_key("PRIMARY KEY", found("PRIMARY"), report),
            ColumnOption::Unique(_) => report_key("UNIQUE", found("UNIQUE"), report),
            ColumnOption::ForeignKey(_) => report_key("REFERENCES", found("REFERENCES"), report),
            other => {
                let text = other.to_string();
                let word = text.split([' ', '(']).next().unwrap_or_default();
                report.flaw::<()>(
                    found(word),
                    format!("`{text}` is not known"),
                    "write `NOT NULL`, `CHECK (…)` or nothing",
                );
            }
        }
    }

    fn constraint(&mut self, constraint: &TableConstraint, parsed: &Parsed, report: &mut Report<'_>) {
        let text = constraint.to_string();
        match constraint {
            TableConstraint::Check(check) => {
                let at = check.name.as_ref().map_or(check.expr.span().start, |name| name.span.start);
                self.check(&check.expr, check.enforced, at, report);
            }
            TableConstraint::PrimaryKey(_) => {
                report_key("PRIMARY KEY", parsed.word_after(parsed.at, "PRIMARY"), report);
            }
            TableConstraint::Unique(_) => report_key("UNIQUE", parsed.word_after(parsed.at, "UNIQUE"), report),
            TableConstraint::ForeignKey(_) => {
                report_key("FOREIGN KEY", parsed.word_after(parsed.at, "FOREIGN"), report)
            }
            _ => {
                let word = text.split([' ', '(']).next().unwrap_or_default();
                let at = parsed.word_after(parsed.at, word);
                report.flaw::<()>(at, format!("`{text}` is not known"), "write columns and `CHECK (…)` only");
            }
        }
    }

    fn check(&mut self, expression: &Expr, enforced: Option<bool>, at: Location, report: &mut Report<'_>) {
        if enforced == Some(false) {
            report.flaw::<()>(at, "a check that is `NOT ENFORCED` checks nothing", "remove it, or `NOT ENFORCED`");
        }
        let start = expression.span().start;
        self.checks.push((if start.line > 0 { start } else { at }, expression.clone()));
    }

    fn checks(&self, columns: &SchemaRef, report: &mut Report<'_>) -> Vec<Check> {
        let planner = match Planner::new(columns) {
            Ok(planner) => planner,
            Err(error) => {
                let reason = format!("the columns cannot be planned over: {}", error.strip_backtrace());
                report.flaw::<()>(Location { line: 0, column: 0 }, reason, "rename the columns");
                return Vec::new();
            }
        };
        let mut checks = Vec::new();
        for (at, sql) in &self.checks {
            match planner.plan(sql) {
                // Of a check over a column that is wrong itself nothing can be said yet.
                Err(_) if self.is_over_broken(sql) => {}
                Ok(expression) => checks.push(Check { sql: canonical::expression(sql, Names::Readable), expression }),
                Err((reason, hint)) => {
                    report.flaw::<()>(*at, reason, hint);
                }
            }
        }
        checks
    }

    fn is_over_broken(&self, check: &Expr) -> bool {
        let check = canonical::expression(check, Names::Quoted);
        self.broken.iter().any(|column| check.contains(&Ident::with_quote('"', column).to_string()))
    }
}

fn report_key(what: &str, at: Location, report: &mut Report<'_>) {
    let hint = "remove it: every event is a row; a view with `GROUP BY` has one row for each key";
    report.flaw::<()>(at, format!("`{what}` is not known: a log keeps what it is given"), hint);
}

/// The column that partitions what is sent over HTTP.
fn key(options: &Options<'_>, columns: &SchemaRef, report: &mut Report<'_>) -> Option<usize> {
    let given = options.get("key")?;
    let name = given.text("key", "write `key = 'column'`", report)?;
    if let Some((index, _)) = columns.column_with_name(&name) {
        return Some(index);
    }
    let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    let hint = near::did_you_mean(&name, names.iter().copied())
        .unwrap_or_else(|| format!("the columns are {}", names.join(", ")));
    report.flaw(given.at, format!("key `{name}` is no column"), hint)
}

/// Refuses everything that a `CREATE TABLE` of some other system may have.
fn refuse_clauses(create: &CreateTable, parsed: &Parsed, report: &mut Report<'_>) {
    let hint = "write `CREATE TABLE name (column TYPE, …) WITH (…)`";
    let known: [(bool, &str, &str); 9] = [
        (create.or_replace, "OR REPLACE", "REPLACE"),
        (create.if_not_exists, "IF NOT EXISTS", "IF"),
        (create.temporary, "TEMPORARY", "TEMPORARY"),
        (create.external, "EXTERNAL", "EXTERNAL"),
        (create.query.is_some(), "AS SELECT", "AS"),
        (create.like.is_some(), "LIKE", "LIKE"),
        (create.partition_by.is_some(), "PARTITION BY", "PARTITION"),
        (create.location.is_some(), "LOCATION", "LOCATION"),
        (create.order_by.is_some(), "ORDER BY", "ORDER"),
    ];
    let flaws = report.flaws.len();
    for (present, clause, word) in known {
        if present {
            let at = parsed.word_after(parsed.at, word);
            report.flaw::<()>(at, format!("`{clause}` is not known in a dataset"), hint);
        }
    }
    let plain = CreateTableBuilder::new(create.name.clone())
        .columns(create.columns.clone())
        .constraints(create.constraints.clone())
        .table_options(create.table_options.clone())
        .hive_formats(create.hive_formats.clone().filter(|formats| *formats == Default::default()))
        .build();
    if report.flaws.len() == flaws && *create != plain {
        report.flaw::<()>(parsed.at, "the statement has clauses that are not known", hint);
    }
}

fn with_position(columns: &SchemaRef) -> SchemaRef {
    let types = [DataType::Int32, DataType::Int64, DataType::Timestamp(TimeUnit::Microsecond, None)];
    let position = POSITION.into_iter().zip(types).map(|(name, data_type)| Field::new(name, data_type, false));
    let events = columns.fields().iter().map(|field| field.as_ref().clone());
    Arc::new(Schema::new(events.chain(position).collect::<Vec<_>>()))
}

/// The hash of everything that decides what an event's row is, and whether it is dead.
fn definition(columns: &SchemaRef, checks: &[(Location, Expr)]) -> String {
    let mut parts = vec!["json".to_owned()];
    for field in columns.fields() {
        let null = if field.is_nullable() { "NULL" } else { "NOT NULL" };
        parts.extend([field.name().clone(), sql_type_name(field.data_type()), null.to_owned()]);
    }
    parts.extend(checks.iter().map(|(_, check)| canonical::expression(check, Names::Quoted)));
    canonical::hash(parts.iter().map(String::as_str))
}

/// The statement in canonical form.
fn sql(dataset: &Dataset) -> String {
    let column = |field: &Arc<Field>| {
        let null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{null}", quoted(field.name()), sql_type_name(field.data_type()))
    };
    let columns = dataset.columns.fields().iter().map(column);
    let checks = dataset.checks.iter().map(|check| format!("CHECK ({})", check.sql));
    let lines: Vec<String> = columns.chain(checks).map(|line| format!("  {line}")).collect();
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let key = dataset.key.map(|key| format!(", key = {}", text(dataset.columns.field(key).name()))).unwrap_or_default();
    format!(
        "CREATE TABLE {} (\n{}\n) WITH (topic = {}, format = 'json'{key}, partitions = {})",
        quoted(&dataset.name),
        lines.join(",\n"),
        text(&dataset.topic),
        dataset.partitions
    )
}
