//! What has changed between two definitions of a dataset, in words.

use std::sync::Arc;

use super::{Catalog, Dataset};
use crate::values::sql_type_name;

impl Dataset {
    /// What is different in this definition from an earlier one, whose canonical SQL is given: one sentence part for
    /// each change, or how both read where that cannot be told. What the definition does not depend on (topic, key,
    /// partitions) is left out.
    pub fn difference(&self, earlier_sql: &str) -> String {
        let parsed = Catalog::parse(&[("earlier.sql".to_owned(), earlier_sql.to_owned())]);
        let earlier = parsed.ok().and_then(|catalog| catalog.datasets.into_values().next());
        let changes = earlier.map(|earlier| changes(&earlier, self)).unwrap_or_default();
        if changes.is_empty() {
            return format!("it was `{earlier_sql}` and is `{}`", self.sql);
        }
        changes.join("; ")
    }
}

fn changes(earlier: &Dataset, present: &Dataset) -> Vec<String> {
    let mut changes = Vec::new();
    let null = |nullable: bool| if nullable { "" } else { " NOT NULL" };
    for was in earlier.columns.fields() {
        let name = was.name();
        let was_type = sql_type_name(was.data_type());
        match present.columns.field_with_name(name) {
            Err(_) => changes.push(format!("column `{name} {was_type}` is gone")),
            Ok(is) if is.data_type() != was.data_type() || is.is_nullable() != was.is_nullable() => {
                let is_type = sql_type_name(is.data_type());
                let (was_null, is_null) = (null(was.is_nullable()), null(is.is_nullable()));
                changes.push(format!("column `{name}` was `{was_type}{was_null}` and is `{is_type}{is_null}`"));
            }
            Ok(_) => {}
        }
    }
    for is in present.columns.fields() {
        if earlier.columns.field_with_name(is.name()).is_err() {
            let (name, type_name) = (is.name(), sql_type_name(is.data_type()));
            changes.push(format!("column `{name} {type_name}{}` is new", null(is.is_nullable())));
        }
    }
    let names = |dataset: &Dataset| -> Vec<String> {
        dataset.columns.fields().iter().map(|field: &Arc<_>| field.name().clone()).collect()
    };
    if changes.is_empty() && names(earlier) != names(present) {
        changes.push(format!("the columns were in the order {}", names(earlier).join(", ")));
    }
    let has = |dataset: &Dataset, sql: &str| dataset.checks.iter().any(|check| check.sql == sql);
    let gone = earlier.checks.iter().filter(|check| !has(present, &check.sql));
    changes.extend(gone.map(|check| format!("`CHECK ({})` is gone", check.sql)));
    let new = present.checks.iter().filter(|check| !has(earlier, &check.sql));
    changes.extend(new.map(|check| format!("`CHECK ({})` is new", check.sql)));
    changes
}
