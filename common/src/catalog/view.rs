//! `CREATE MATERIALIZED VIEW` as a view.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use sqlparser::{
    ast::{CreateView, ObjectName, Query, Spanned, Visit, Visitor},
    tokenizer::Location,
};

use super::{
    Dataset, View,
    canonical::{self, Names},
    faults::Report,
    near, object_name,
    options::Options,
    source::Parsed,
};
use crate::{
    fold::{self, Fold},
    storage,
};

/// What a view can be over.
pub(super) struct Known<'a> {
    /// The datasets that have no flaws.
    pub(super) datasets: &'a BTreeMap<String, Arc<Dataset>>,
    /// Every name that a dataset has, also one with flaws.
    pub(super) dataset_names: &'a [String],
    /// Every name that a view has.
    pub(super) view_names: &'a [String],
}

/// The view of a statement, named `name`; `None` when it has flaws, which are reported, or its dataset has.
pub(super) fn view(
    create: &CreateView,
    name: &str,
    parsed: &Parsed,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<View> {
    let flaws = report.flaws.len();
    refuse_clauses(create, parsed, report);
    let refresh = Options::read(&create.options, &["refresh"], parsed, report).refresh(report);
    let dataset = dataset(&create.query, known, parsed, report)?;
    let fold = match Fold::plan(&dataset, &create.query) {
        Ok(fold) => fold,
        Err(fold::Refusal { reason, hint, at }) => {
            let start = create.query.span().start;
            let start = if start.line > 0 { start } else { parsed.at };
            return report.flaw(at.unwrap_or(start), reason, hint);
        }
    };
    if let Some(reason) = storage::table::refused(&fold.stored()) {
        let hint = "cast what it computes to a type that tables can have, such as `TEXT` or `TIMESTAMPTZ`";
        return report.flaw(parsed.at, format!("the view cannot be stored: {reason}"), hint);
    }
    if report.flaws.len() > flaws {
        return None;
    }
    let query = canonical::query(&create.query, Names::Quoted);
    let format = fold::state_format().to_string();
    let definition = canonical::hash([query.as_str(), &dataset.definition, &format, fold::SETTINGS]);
    let sql = canonical::query(&create.query, Names::Readable);
    Some(View { name: name.to_owned(), dataset, sql, refresh: refresh?, definition, fold })
}

/// What the query is over: the first dataset that it names. Whether it may name more is the fold's to say.
fn dataset(query: &Query, known: &Known<'_>, parsed: &Parsed, report: &mut Report<'_>) -> Option<Arc<Dataset>> {
    let mut relations = Relations::default();
    let _: ControlFlow<()> = Visit::visit(query, &mut relations);
    for relation in &relations.0 {
        if let Some(dataset) = object_name(relation).and_then(|(name, _)| known.datasets.get(&name)) {
            return Some(dataset.clone());
        }
    }
    let Some(first) = relations.0.first() else {
        let start = query.span().start;
        let at = if start.line > 0 { start } else { parsed.at };
        return report.flaw(at, "the view is over nothing", "write `SELECT … FROM dataset GROUP BY …`");
    };
    let Some((name, at)) = object_name(first) else {
        return report.flaw(first.span().start, format!("`{first}` is no dataset"), "write the dataset's name alone");
    };
    if known.dataset_names.contains(&name) {
        // Its own flaws say enough.
        return None;
    }
    if known.view_names.contains(&name) {
        let hint = "name its dataset here; views over views are for queries";
        return report.flaw(at, format!("`{name}` is a view, and a view is over a dataset"), hint);
    }
    let names = || known.dataset_names.iter().map(String::as_str);
    let hint = near::did_you_mean(&name, names()).unwrap_or_else(|| match known.dataset_names {
        [] => "add a `CREATE TABLE`".to_owned(),
        names => format!("the datasets are {}", names.join(", ")),
    });
    report.flaw(at, format!("there is no dataset `{name}`"), hint)
}

/// The tables that a query names, in its order.
#[derive(Default)]
struct Relations(Vec<ObjectName>);

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.0.push(relation.clone());
        ControlFlow::Continue(())
    }
}

/// Refuses everything that a view of some other system may have.
fn refuse_clauses(create: &CreateView, parsed: &Parsed, report: &mut Report<'_>) {
    let hint = "write `CREATE MATERIALIZED VIEW name WITH (refresh = '5 minutes') AS SELECT …`";
    let known: [(bool, &str, &str); 11] = [
        (create.or_alter, "OR ALTER", "ALTER"),
        (create.or_replace, "OR REPLACE", "REPLACE"),
        (create.if_not_exists, "IF NOT EXISTS", "IF"),
        (create.temporary, "TEMPORARY", "TEMPORARY"),
        (create.secure, "SECURE", "SECURE"),
        (!create.cluster_by.is_empty(), "CLUSTER BY", "CLUSTER"),
        (create.comment.is_some(), "COMMENT", "COMMENT"),
        (create.with_no_schema_binding, "WITH NO SCHEMA BINDING", "BINDING"),
        (create.copy_grants, "COPY GRANTS", "COPY"),
        (create.to.is_some(), "TO", "TO"),
        (create.params.is_some(), "ALGORITHM, DEFINER, SQL SECURITY", "VIEW"),
    ];
    for (present, clause, word) in known {
        if present {
            let at = parsed.word_after(parsed.at, word);
            report.flaw::<()>(at, format!("`{clause}` is not known in a view"), hint);
        }
    }
    if let Some(column) = create.columns.first() {
        let at: Location = column.name.span.start;
        report.flaw::<()>(at, "a view's columns are named in its query", "write `SELECT … AS name`");
    }
}
