//! From files to datasets and views, with everything that is wrong in them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
    sync::Arc,
};

use sqlparser::{
    ast::{CreateTable, CreateView, ObjectName, ObjectNamePart, Spanned, Statement},
    tokenizer::Location,
};

use super::{
    Catalog,
    canonical::folded,
    faults::{Faults, Flaw, Report},
    source::{self, Parsed},
    table,
    view::{self, Known},
};

/// Names are parts of paths in the object store and of addresses.
const NAME_LENGTH_MAX: usize = 128;

/// The `.sql` files of a folder, in the order of their names.
pub(super) fn files(folder: &Path) -> Result<Vec<(String, String)>, Faults> {
    let unreadable = |error: std::io::Error| {
        let hint = "name the folder that holds the catalog's `.sql` files";
        Faults::of_folder(folder, format!("could not read the catalog's folder: {error}"), hint)
    };
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
    let mut paths: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql") && !path.is_dir());
    paths.sort();
    if paths.is_empty() {
        let hint = "put `CREATE TABLE` and `CREATE MATERIALIZED VIEW` statements in a file such as `sales.sql`";
        return Err(Faults::of_folder(folder, "the catalog's folder has no `.sql` files".to_owned(), hint));
    }
    let (mut files, mut flaws) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::fs::read_to_string(&path) {
            Ok(sql) => files.push((name, sql)),
            Err(error) => {
                let hint = "make it a readable text file in UTF-8".to_owned();
                flaws.push(Flaw {
                    file: name,
                    line: 0,
                    column: 0,
                    reason: format!("could not read it: {error}"),
                    hint,
                });
            }
        }
    }
    if flaws.is_empty() { Ok(files) } else { Err(Faults { flaws }) }
}

/// Reads a catalog.
pub(super) fn parse(files: &[(String, String)]) -> Result<Catalog, Faults> {
    let mut flaws = Vec::new();
    let mut statements = Vec::new();
    for (file, (name, sql)) in files.iter().enumerate() {
        statements.extend(source::parse(file, sql, &mut Report { file: name, flaws: &mut flaws }));
    }
    let Sorted { tables, views } = sort(files, &statements, &mut flaws);
    let mut catalog = Catalog::default();
    for Named { parsed, create, name, at } in &tables {
        let mut report = Report { file: &files[parsed.file].0, flaws: &mut flaws };
        if let Some(dataset) = table::dataset(create, name, *at, parsed, &mut report) {
            catalog.datasets.insert(name.clone(), Arc::new(dataset));
        }
    }
    let dataset_names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let view_names: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    for Named { parsed, create, name, .. } in &views {
        let mut report = Report { file: &files[parsed.file].0, flaws: &mut flaws };
        let known = Known { datasets: &catalog.datasets, dataset_names: &dataset_names, view_names: &view_names };
        if let Some(view) = view::view(create, name, parsed, &known, &mut report) {
            catalog.views.insert(name.clone(), Arc::new(view));
        }
    }
    if flaws.is_empty() {
        return Ok(catalog);
    }
    let place = |name: &str| files.iter().position(|(file, _)| file == name);
    flaws.sort_by_key(|flaw| (place(&flaw.file), flaw.line, flaw.column));
    Err(Faults { flaws })
}

/// A statement that defines something with a name of its own.
struct Named<'a, T> {
    parsed: &'a Parsed,
    create: &'a T,
    name: String,
    at: Location,
}

struct Sorted<'a> {
    tables: Vec<Named<'a, CreateTable>>,
    views: Vec<Named<'a, CreateView>>,
}

/// Parts tables from views, and reports everything that is neither or has no name of its own.
fn sort<'a>(files: &[(String, String)], statements: &'a [Parsed], flaws: &mut Vec<Flaw>) -> Sorted<'a> {
    let mut sorted = Sorted { tables: Vec::new(), views: Vec::new() };
    let mut taken = BTreeMap::new();
    for parsed in statements {
        let file = &files[parsed.file].0;
        let mut report = Report { file, flaws };
        match &parsed.statement {
            Statement::CreateTable(create) => {
                if let Some((name, at)) = own_name(&create.name, file, &mut taken, &mut report) {
                    sorted.tables.push(Named { parsed, create, name, at });
                }
            }
            Statement::CreateView(create) if create.materialized => {
                if let Some((name, at)) = own_name(&create.name, file, &mut taken, &mut report) {
                    sorted.views.push(Named { parsed, create, name, at });
                }
            }
            Statement::CreateView(_) => {
                let hint = "write `CREATE MATERIALIZED VIEW`; what needs no keeping is a query";
                report.flaw::<()>(parsed.at, "a view of the catalog is materialized", hint);
            }
            other => {
                let text = other.to_string();
                let words: Vec<&str> = text.split_whitespace().take(2).collect();
                let hint = "a catalog has only `CREATE TABLE` and `CREATE MATERIALIZED VIEW`";
                report.flaw::<()>(parsed.at, format!("`{}` is no definition", words.join(" ")), hint);
            }
        }
    }
    sorted
}

/// The name of a dataset or a view, if it can have it.
fn own_name(
    written: &ObjectName,
    file: &str,
    taken: &mut BTreeMap<String, String>,
    report: &mut Report<'_>,
) -> Option<(String, Location)> {
    let Some((name, at)) = object_name(written) else {
        let hint = "write one name without a schema";
        return report.flaw(written.span().start, format!("`{written}` is no name"), hint);
    };
    if name.starts_with('_') {
        return report.flaw(at, format!("name `{name}` begins with `_`, as Lamina's own do"), "choose another name");
    }
    let is_name = !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        let hint = format!("use up to {NAME_LENGTH_MAX} letters, digits and `_`");
        return report.flaw(at, format!("`{name}` cannot be a name"), hint);
    }
    // Folders of some file systems, and Delta's columns, do not tell upper from lower case.
    match taken.entry(name.to_lowercase()) {
        Entry::Occupied(other) => {
            let reason = format!("name `{name}` is taken: it is defined at {}", other.get());
            report.flaw(at, reason, "give one of them another name")
        }
        Entry::Vacant(free) => {
            free.insert(format!("{file}:{}:{}", at.line, at.column));
            Some((name, at))
        }
    }
}

/// The one name that is written, and where; `None` when there is more to it.
pub(super) fn object_name(written: &ObjectName) -> Option<(String, Location)> {
    match written.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some((folded(name), name.span.start)),
        _ => None,
    }
}
