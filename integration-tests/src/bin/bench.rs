//! The benchmark command: `cargo run --release -p integration-tests --bin bench`.

use anyhow::Result;
use clap::Parser;
use integration_tests::bench::{catalog, floors, report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Lamina beside the floors of this machine, in one run.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many events.
    #[arg(long, default_value_t = 3_000_000)]
    events: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let catalog = catalog::write(&folder.path().join("catalog"))?;
    report::heading("Floors");
    floors::measure(&catalog, arguments.events).await?;
    Ok(())
}
