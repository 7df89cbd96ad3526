//! Calls every function of a server's with arguments at the edges, for as long as one likes.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use integration_tests::functions::Trials;

/// Calls functions of a running Lamina at random. It ends with an error where the server is gone, answers with a status of
/// a failure, panics, or takes longer than its limit.
#[derive(Debug, Parser)]
struct Command {
    /// Where the server answers.
    #[arg(long, default_value = "http://127.0.0.1:8787")]
    url: String,
    /// What it prints, where that is kept in a file.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The seed of the calls.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// For how many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Its setting `serving.limits.time`, in seconds.
    #[arg(long, default_value_t = 300)]
    time: u64,
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it is what the command is for")]
async fn main() -> Result<ExitCode> {
    let Command { url, output, seed, seconds, time } = Command::parse();
    let mut trials = Trials::new(seed, Duration::from_secs(time));
    let outcome = trials.run(&url, Duration::from_secs(seconds)).await;
    let output = output.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    let faults = trials.faults(&output);
    println!("{}", trials.summary());
    for fault in &faults {
        println!("{fault}");
    }
    outcome?;
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
