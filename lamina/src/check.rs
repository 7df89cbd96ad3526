//! `lamina check`: what is wrong with a catalog, and with events for it, before anything is started.

use std::{fmt::Display, path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use common::catalog::{Catalog, Dataset};

mod sample;

pub use sample::sample;

/// Loads a catalog, or says everything that is wrong with it.
pub fn load(folder: &Path) -> Result<Catalog> {
    Catalog::load(folder).map_err(|faults| unusable(&folder.display().to_string(), &faults))
}

/// What is told of a catalog with faults.
pub fn unusable(place: &str, faults: &(impl Display + ?Sized)) -> anyhow::Error {
    anyhow::anyhow!("the catalog `{place}` cannot be used:\n{faults}")
}

/// The dataset that a sample is of: the named one, or the only one.
pub fn dataset(catalog: &Catalog, name: Option<&str>) -> Result<Arc<Dataset>> {
    let names: Vec<&str> = catalog.datasets.keys().map(String::as_str).collect();
    match name {
        Some(name) => catalog
            .datasets
            .get(name)
            .cloned()
            .with_context(|| format!("there is no dataset `{name}`: there is {}", names.join(", "))),
        None => match catalog.datasets.values().collect::<Vec<_>>()[..] {
            [only] => Ok(only.clone()),
            _ => bail!("the catalog has several datasets: choose one of {} with --dataset", names.join(", ")),
        },
    }
}
