//! Compares Lamina's answers with those of engines that are not ours, over random catalogs, values, cuts and queries.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use integration_tests::differ::{
    Rounds,
    features::{Features, KNOWN_WRONG},
};

/// Draws catalogs, events, what happens to the layers, and queries, and holds each answer to PostgreSQL, DuckDB, the same
/// SQL over the plain events, and itself after a recompute. A failing case is cut down and printed with its seed.
#[derive(Debug, Parser)]
struct Command {
    /// How many queries to ask.
    #[arg(long, default_value_t = 2000)]
    cases: usize,
    /// The first plan's seed: a failing case's seed replays it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many plans run side by side.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// End after so many plans with a failing case.
    #[arg(long, default_value_t = 5)]
    faults: usize,
    /// Features to leave out, such as `nan,overflow`: all that are known to be wrong, unless said otherwise.
    #[arg(long, value_delimiter = ',', default_values_t = KNOWN_WRONG.iter().map(ToString::to_string), num_args = 0..)]
    without: Vec<String>,
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it is what the command is for")]
async fn main() -> Result<ExitCode> {
    let Command { cases, seed, workers, faults, without } = Command::parse();
    let rounds = Rounds { cases, seed, workers, faults, features: Features::without(&without)? };
    let tally = rounds.run(|text| println!("{text}")).await?;
    println!("{}", tally.summary());
    if !tally.is_telling() {
        println!("too little was compared to say anything");
    }
    Ok(if tally.wrong.is_empty() && tally.is_telling() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
