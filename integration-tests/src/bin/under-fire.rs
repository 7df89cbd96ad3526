//! Kills Lamina's processes, its broker and its store again and again while it is used, and checks every answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use clap::Parser;
use integration_tests::apart::under_fire;
use tokio::signal::unix::{SignalKind, signal};

/// Starts Lamina's layers as separate processes on Apache Kafka and an S3 server, kills all of them again and again
/// (`kill -9`) while clients ask and events flow, and checks every answer. SIGTERM (`kill PID`) ends it early, and
/// what there has been until then is checked.
#[derive(Debug, Parser)]
struct Command {
    /// How often to kill.
    #[arg(long, default_value_t = 1000)]
    kills: usize,
    /// Draws whom, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it is what the command is for")]
async fn main() -> Result<()> {
    let Command { kills, seed } = Command::parse();
    let enough = Arc::new(AtomicBool::new(false));
    let (interrupted, mut terminated) = (enough.clone(), signal(SignalKind::terminate())?);
    #[allow(clippy::disallowed_methods, reason = "it is no task of the system")]
    tokio::spawn(async move {
        terminated.recv().await;
        interrupted.store(true, Ordering::Relaxed);
    });
    let outcome = under_fire(seed, kills, &enough, |line| println!("{line}")).await?;
    println!("answers {}, wrong 0, lost 0, doubled 0: {outcome:?}", outcome.answers);
    Ok(())
}
