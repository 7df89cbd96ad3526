//! The states of every aggregate over fixed rows, as they are stored. Whatever changes one, DataFusion too, has to raise
//! the state format.

use std::{fmt::Write, path::PathBuf, sync::Arc};

use datafusion::arrow::{
    array::{
        Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use sha2::{Digest, Sha256};

use super::{AGGREGATES, DIGESTS, contexts, dataset, query};
use crate::fold::{Fold, STATE_FORMAT, to_stored};

/// Longer states stand there as their hash.
const SHOWN_CHARS: usize = 120;

fn rows() -> RecordBatch {
    let n = 12_i32;
    let none = |i: i32| i % 5 == 4;
    let columns: Vec<ArrayRef> = vec![
        Arc::new((0..n).map(|i| Some(i64::from(i % 2))).collect::<Int64Array>()),
        Arc::new((0..n).map(|i| (!none(i)).then(|| format!("n{}", i % 4))).collect::<StringArray>()),
        Arc::new((0..n).map(|i| (!none(i + 1)).then(|| i * 7 % 11 - 3)).collect::<Int32Array>()),
        Arc::new((0..n).map(|i| (!none(i + 2)).then(|| f64::from(i * 5 % 13) / 8.0 - 0.5)).collect::<Float64Array>()),
        Arc::new(
            (0..n)
                .map(|i| (!none(i + 3)).then(|| i128::from(i * 1234 % 777)))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(
            (0..n)
                .map(|i| (!none(i)).then(|| 1_700_000_000_000_000 + i64::from(i * 3 % 5) * 1_000_000))
                .collect::<TimestampMicrosecondArray>(),
        ),
        Arc::new((0..n).map(|i| Some(i % 3)).collect::<Int32Array>()),
        Arc::new((0..n).map(|i| Some(i64::from(i))).collect::<Int64Array>()),
        Arc::new((0..n).map(|i| Some(i64::from(i) * 1000)).collect::<TimestampMicrosecondArray>()),
    ];
    RecordBatch::try_new(dataset().schema.clone(), columns).unwrap()
}

/// The states of the two groups of `aggregate`, reduced from two batches.
async fn states(aggregate: &str) -> String {
    let sql = format!("select k, {aggregate} as v from t group by k");
    let fold = Fold::plan(&dataset(), &query(&sql)).unwrap();
    let context = &contexts()[0];
    let input = rows().project(fold.projection()).unwrap();
    let mut parts = Vec::new();
    for start in [0, 6] {
        parts.push(fold.partial(vec![input.slice(start, 6)], context).await.unwrap().0);
    }
    let states = to_stored(&fold.reduce(parts, context).await.unwrap(), fold.stored_state()).unwrap();
    let mut text = format!("{aggregate}\n");
    for (column, field) in states.columns().iter().zip(states.schema().fields()).skip(1) {
        let mut groups: Vec<String> = (0..states.num_rows()).map(|row| shown(column, row)).collect();
        groups.sort();
        writeln!(text, "    {} {}: {}", field.name(), field.data_type(), groups.join(" | ")).unwrap();
    }
    text
}

/// A value; the elements of a set in order, as a set has none.
fn shown(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::new().with_null("NULL");
    let text = match column.as_list_opt::<i32>() {
        Some(lists) if lists.is_valid(row) => {
            let values = lists.value(row);
            let formatter = ArrayFormatter::try_new(&values, &options).unwrap();
            let mut values: Vec<String> = (0..values.len()).map(|at| formatter.value(at).to_string()).collect();
            values.sort();
            format!("[{}]", values.join(", "))
        }
        _ => ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string(),
    };
    match text.len() > SHOWN_CHARS {
        true => format!("sha256 {}", hex::encode(Sha256::digest(text.as_bytes()))),
        false => text,
    }
}

#[tokio::test]
async fn states_are_what_they_were() {
    let mut found = format!("state format {STATE_FORMAT}\n");
    for aggregate in AGGREGATES.iter().copied().chain(DIGESTS.iter().map(|(aggregate, _)| *aggregate)) {
        found.push_str(&states(aggregate).await);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/fold/tests/golden.txt");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if found == golden {
        return;
    }
    let (first, written) = (found.lines().next(), golden.lines().next());
    if first != written {
        std::fs::write(&path, &found).unwrap();
        panic!("{} is written anew for {}: look at it, and commit it", path.display(), first.unwrap_or_default());
    }
    let differences: Vec<String> = found
        .lines()
        .filter(|line| !golden.lines().any(|other| other == *line))
        .map(|line| format!("now   {line}"))
        .chain(
            golden
                .lines()
                .filter(|line| !found.lines().any(|other| other == *line))
                .map(|line| format!("before {line}")),
        )
        .collect();
    panic!("states have changed: raise `STATE_FORMAT` in `fold.rs`, and run this again\n{}", differences.join("\n"));
}
