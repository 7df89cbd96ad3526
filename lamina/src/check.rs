//! `lamina check`: what is wrong with a catalog, and with events for it, before anything is started.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use common::{
    catalog::{Catalog, Dataset},
    log::Chunk,
    values::Decoder,
};

/// So many lines of a sample are decoded together.
const LINES: usize = 10_000;

/// What a sample of events came to.
#[derive(Debug, Default)]
pub struct Sample {
    /// Usable events.
    pub usable: usize,
    /// The others: how many, by reason, and the first line of each.
    pub dead: BTreeMap<String, (usize, usize)>,
    /// Fields that match no column, and in how many events they are.
    pub unmatched: BTreeMap<String, usize>,
}

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

/// Decodes a file of one event a line as the layers would.
pub fn sample(dataset: &Arc<Dataset>, file: &Path) -> Result<Sample> {
    let lines =
        BufReader::new(std::fs::File::open(file).with_context(|| format!("could not read `{}`", file.display()))?);
    let mut decoder = Decoder::new(dataset.clone());
    let (mut sample, mut chunk) = (Sample::default(), Chunk::new(0, 0));
    for (number, line) in (1..).zip(lines.split(b'\n')) {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(&line) {
            for name in fields.keys().filter(|name| dataset.columns.index_of(name).is_err()) {
                *sample.unmatched.entry(name.clone()).or_default() += 1;
            }
        }
        chunk.push(number, 0, Some(&line));
        if chunk.len() == LINES {
            take(&mut sample, &mut decoder, &mut chunk);
        }
    }
    take(&mut sample, &mut decoder, &mut chunk);
    Ok(sample)
}

fn take(sample: &mut Sample, decoder: &mut Decoder, chunk: &mut Chunk) {
    let decoded = decoder.decode(chunk);
    sample.usable += decoded.rows.num_rows();
    for letter in decoded.dead {
        let line = usize::try_from(letter.offset).unwrap_or(0);
        sample.dead.entry(letter.reason).or_insert((0, line)).0 += 1;
    }
    *chunk = Chunk::new(0, chunk.next);
}
