//! One way to write what means the same, and the hash of it.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{
        Expr, Function, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, Statement, TableAlias,
        TableFactor, VisitMut, VisitorMut,
    },
    keywords::RESERVED_FOR_COLUMN_ALIAS,
    parser::Parser,
};

use crate::sql::Dialect;

/// A name as it is meant: lower case, unless it is quoted.
pub(crate) fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// A name as it is written in SQL: quoted only where it must be.
pub fn quoted(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { Ident::with_quote('"', name).to_string() }
}

/// Whether a name means itself without quotes wherever a column's name can stand. The parser is asked: which keywords
/// can be names depends on the place.
fn is_plain(name: &str) -> bool {
    let is_word = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let is_reserved = RESERVED_FOR_COLUMN_ALIAS.iter().any(|word| format!("{word:?}").eq_ignore_ascii_case(name));
    if !is_word || is_reserved {
        return false;
    }
    let is_expression = Parser::new(&Dialect)
        .try_with_sql(&format!("{name} > 0"))
        .and_then(|mut parser| parser.parse_expr())
        .is_ok_and(|expression| {
            let Expr::BinaryOp { left, .. } = expression else { return false };
            matches!(*left, Expr::Identifier(found) if found.value == name)
        });
    let table = format!("CREATE TABLE t (c INT, {name} INT, s STRUCT<{name} INT>)");
    let query = format!("SELECT c AS {name} FROM {name} WHERE c > {name} GROUP BY {name}");
    let parsed = Parser::parse_sql(&Dialect, &format!("{table}; {query}"));
    let is_text =
        |parsed: Vec<Statement>| parsed.iter().map(ToString::to_string).eq([&table, &query].map(Clone::clone));
    is_expression && parsed.is_ok_and(is_text)
}

/// How the names in canonical SQL are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Quoted where they must be: to be read.
    Readable,
    /// All quoted, so that nothing depends on what the parser takes for a keyword: to be hashed.
    Quoted,
}

/// An expression in canonical form.
pub(super) fn expression(expression: &Expr, names: Names) -> String {
    let mut expression = expression.clone();
    let _: ControlFlow<()> = VisitMut::visit(&mut expression, &mut Rename(names));
    expression.to_string()
}

/// A query in canonical form.
pub(super) fn query(query: &Query, names: Names) -> String {
    let mut query = query.clone();
    let _: ControlFlow<()> = VisitMut::visit(&mut query, &mut Rename(names));
    query.to_string()
}

struct Rename(Names);

impl Rename {
    fn name(&self, name: &mut Ident) {
        let meant = folded(name);
        let quote = self.0 == Names::Quoted || !is_plain(&meant);
        *name = if quote { Ident::with_quote('"', meant) } else { Ident::new(meant) };
    }

    fn alias(&self, alias: &mut TableAlias) {
        self.name(&mut alias.name);
        alias.columns.iter_mut().for_each(|column| self.name(&mut column.name));
    }

    fn path(&self, path: &mut ObjectName) {
        for part in &mut path.0 {
            if let ObjectNamePart::Identifier(name) = part {
                self.name(name);
            }
        }
    }
}

impl VisitorMut for Rename {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        match expression {
            Expr::Identifier(name) => self.name(name),
            Expr::CompoundIdentifier(names) => names.iter_mut().for_each(|name| self.name(name)),
            Expr::Function(Function { name, .. }) => {
                // A function's name needs no quotes, and `count` reads better without.
                for part in &mut name.0 {
                    if let ObjectNamePart::Identifier(name) = part {
                        *name = Ident::new(folded(name));
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(with) = &mut query.with {
            with.cte_tables.iter_mut().for_each(|table| self.alias(&mut table.alias));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.name(alias);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } = table {
            self.alias(alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.path(relation);
        ControlFlow::Continue(())
    }
}

/// FNV-1a over the parts, each ended by a byte that UTF-8 never has, as 16 hex digits. The hash must be the same in
/// every build for ever, which the standard library's hashers do not promise; it guards against mistakes, not attacks.
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = OFFSET_BASIS;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }
    format!("{hash:016x}")
}
