//! The catalog: datasets and views, read from a folder of SQL files.
//!
//! A catalog is whole or it is refused, with everything that is wrong in it: nobody should have to mend it one error at
//! a time. Two catalogs that mean the same have the same definitions, however they are written.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use datafusion::{arrow::datatypes::SchemaRef, physical_plan::PhysicalExpr};

use crate::{fold::Fold, position::Partition};

mod canonical;
mod check;
mod difference;
mod faults;
mod load;
pub mod near;
mod options;
pub mod published;
mod source;
mod table;
mod types;
mod view;

pub(crate) use canonical::folded;
pub use canonical::quoted;
pub use faults::{Faults, Flaw};
use load::object_name;

#[cfg(test)]
mod tests;

/// Datasets and views by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The datasets.
    pub datasets: BTreeMap<String, Arc<Dataset>>,
    /// The views; each one's dataset is in `datasets`.
    pub views: BTreeMap<String, Arc<View>>,
}

/// What one topic's events are: `CREATE TABLE`.
#[derive(Debug)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// The topic in the log.
    pub topic: String,
    /// The column by which events sent over HTTP are partitioned.
    pub key: Option<usize>,
    /// How many partitions the topic gets where Lamina creates it.
    pub partitions: Partition,
    /// The events' columns: names, Arrow types, nullability.
    pub columns: SchemaRef,
    /// The master dataset's columns: `columns`, then `_partition INT, _offset BIGINT, _timestamp TIMESTAMP`, none of
    /// which is ever null.
    pub schema: SchemaRef,
    /// The `CHECK`s; an event passes when none of them is false.
    pub checks: Vec<Check>,
    /// The statement in canonical form.
    pub sql: String,
    /// A hash of everything that decides what an event's row is: 16 hex digits.
    pub definition: String,
}

/// A `CHECK` of a dataset.
#[derive(Debug)]
pub struct Check {
    /// Its SQL, for the reason of a dead letter.
    pub sql: String,
    /// Its expression over `Dataset::columns`; boolean.
    pub expression: Arc<dyn PhysicalExpr>,
}

/// A view: `CREATE MATERIALIZED VIEW`.
#[derive(Debug)]
pub struct View {
    /// Its name.
    pub name: String,
    /// What it is a view of.
    pub dataset: Arc<Dataset>,
    /// The query in canonical form.
    pub sql: String,
    /// How often the batch layer recomputes it; `None` for `never`.
    pub refresh: Option<Duration>,
    /// A hash of the view, its dataset, the session's settings and the state format: 16 hex digits.
    pub definition: String,
    /// What both layers compute.
    pub fold: Fold,
}

impl Catalog {
    /// Reads the `.sql` files of a folder, in the order of their names.
    pub fn load(folder: &Path) -> Result<Self, Faults> {
        Self::parse(&load::files(folder)?)
    }

    /// Reads files by name and content, in their order.
    pub fn parse(files: &[(String, String)]) -> Result<Self, Faults> {
        load::parse(files)
    }
}
