//! The `lamina` command.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use batch_layer::{deploy, lost};
use clap::{Parser, Subcommand};
use common::{
    process, resources,
    settings::{Flags, Settings, StoreSettings},
    supervisor::Supervisor,
};
use lamina::{
    assembly, check,
    client::{Client, Format},
    demo, token,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lamina: fresh and exact answers over event streams.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Command {
    /// What the log shows, such as `info` or `speed_layer=debug`.
    #[arg(
        long,
        global = true,
        env = "LAMINA_LOG",
        default_value = process::LOG
    )]
    log: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start everything with example data and a stream of events.
    Demo {
        /// Events a second.
        #[arg(long, default_value_t = 1000)]
        rate: u64,
        /// Where the demo keeps its data.
        #[arg(long, default_value = "data/demo")]
        data: PathBuf,
        /// Where to answer HTTP.
        #[arg(long, default_value = "127.0.0.1:8787")]
        listen: std::net::SocketAddr,
        /// Answer everyone at an address that other machines reach.
        #[arg(long)]
        insecure: bool,
    },
    /// Start all three layers in one process.
    Up(Flags),
    /// Say what is wrong with a catalog, or with events for it.
    Check {
        /// The folder of SQL files.
        dir: PathBuf,
        /// A file of events, one a line: what would be dead, which fields match no column.
        #[arg(long)]
        sample: Option<PathBuf>,
        /// Which dataset the sample is of.
        #[arg(long)]
        dataset: Option<String>,
    },
    /// Send events, one JSON object a line.
    Ingest {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// Which dataset; the only one unless there are several.
        #[arg(long)]
        dataset: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Run a query.
    Query {
        /// The SQL.
        sql: String,
        /// How to print the answer: a table on a terminal, JSON elsewhere.
        #[arg(long)]
        format: Option<Format>,
        #[command(flatten)]
        server: Server,
    },
    /// Recompute a view from the master dataset, and follow the job.
    Recompute {
        /// The view.
        view: String,
        #[command(flatten)]
        server: Server,
    },
    /// Show which events expired in the log before they were archived, and record them as lost: Lamina then goes on
    /// behind them. Stop it first.
    RecordLost {
        /// Which dataset.
        dataset: String,
        /// Record them. Without this they are only shown.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Say how everything stands.
    Status {
        #[command(flatten)]
        server: Server,
    },
    /// Tokens for those who may ask.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make one: its line goes to standard output, and the token itself, once, to standard error.
    New(token::Flags),
}

#[derive(clap::Args)]
struct Server {
    /// Where Lamina answers.
    #[arg(long, env = "LAMINA_URL", default_value = "http://127.0.0.1:8787")]
    url: String,
    /// A token, where Lamina asks for one; in the environment others do not see it.
    #[arg(long, env = "LAMINA_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Server {
    fn client(&self) -> Client {
        Client::new(&self.url, self.token.as_deref())
    }
}

impl std::fmt::Debug for Server {
    /// The token is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

fn main() -> ExitCode {
    let command = Command::parse();
    process::log(&command.log);
    process::run("lamina", |runtimes| run(command.what, runtimes.compute))
}

async fn run(what: What, compute: tokio::runtime::Handle) -> Result<(), process::Failure> {
    let done = async {
        match what {
            What::Demo { rate, data, listen, insecure } => {
                // What the demo makes up is not worth waiting for a disk.
                let store = StoreSettings { sync: false, ..StoreSettings::default() };
                let settings = Settings { data, listen: Some(listen), insecure, store, ..Settings::default() };
                up(settings, assembly::Origin::Files(demo::files()), Some(rate), compute).await
            }
            What::Up(flags) => {
                let settings = Settings::read(&flags).map_err(|error| anyhow::anyhow!("settings: {error}"))?;
                let source = deploy::Source::of(&settings);
                up(settings, assembly::Origin::Source(source), None, compute).await
            }
            What::RecordLost { dataset, yes, flags } => record_lost(&dataset, yes, &flags).await,
            What::Check { dir, sample, dataset } => checked(&dir, sample, dataset.as_deref()),
            What::Ingest { file, dataset, server } => {
                let (accepted, frontier) = server.client().ingest(&file, dataset.as_deref()).await?;
                writeln!(std::io::stdout(), "{accepted} events accepted; they are below {frontier}")?;
                Ok(())
            }
            What::Query { sql, format, server } => server.client().query(&sql, format, &mut std::io::stdout()).await,
            What::Recompute { view, server } => {
                let done = server.client().recompute(&view).await?;
                writeln!(std::io::stdout(), "{done}")?;
                Ok(())
            }
            What::Token(TokenCommand::New(flags)) => {
                token::new(&flags, &common::clock::System, &mut std::io::stdout(), &mut std::io::stderr())
            }
            What::Status { server } => {
                let status = server.client().status().await?;
                writeln!(std::io::stdout(), "{status}")?;
                Ok(())
            }
        }
    };
    done.await.map_err(|error: anyhow::Error| error.into_boxed_dyn_error())
}

/// Runs until it is told to stop, or something fails that cannot be helped.
async fn up(
    settings: Settings,
    catalog: assembly::Origin,
    demo_rate: Option<u64>,
    compute: tokio::runtime::Handle,
) -> Result<()> {
    let supervisor = Supervisor::new();
    let told = process::told_to_stop(Duration::ZERO).map_err(anyhow::Error::from_boxed)?;
    let mut told = std::pin::pin!(told);
    let started = tokio::select! {
        () = &mut told => {
            tracing::info!("stopping while it starts");
            supervisor.stop();
            return supervisor.wait().await.map_err(anyhow::Error::msg);
        }
        started = assembly::start(&settings, catalog, &supervisor, compute) => started,
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            supervisor.stop();
            let _ = supervisor.wait().await;
            return Err(error);
        }
    };
    match demo_rate {
        Some(rate) => {
            demo::welcome(&running, &mut std::io::stdout())?;
            let sent = demo::stream(running.log.clone(), rate, &supervisor);
            demo::status_line(&running, sent, &supervisor);
        }
        None => {
            let scheme = if running.secure { "https" } else { "http" };
            writeln!(std::io::stdout(), "Lamina answers at {scheme}://{}/", running.address)?;
        }
    }
    tokio::select! {
        () = told => supervisor.stop(),
        () = supervisor.cancelled().cancelled_owned() => {}
    }
    tracing::info!("stopping");
    let stopped = supervisor.wait().await;
    drop(running);
    stopped.map_err(anyhow::Error::msg).context("Lamina had to stop")
}

async fn record_lost(dataset: &str, yes: bool, flags: &Flags) -> Result<()> {
    let settings = Settings::read(flags).map_err(|error| anyhow::anyhow!("settings: {error}"))?;
    let catalog = check::load(std::path::Path::new(&settings.catalog))?;
    let dataset = check::dataset(&catalog, Some(dataset))?;
    let clock: std::sync::Arc<dyn common::clock::Clock> = std::sync::Arc::new(common::clock::System);
    let storage = resources::storage(&settings).await.map_err(anyhow::Error::from_boxed)?;
    let log = resources::log(&settings, &clock).await.map_err(anyhow::Error::from_boxed)?;
    let lost = match yes {
        true => lost::record(&storage, log.as_ref(), &dataset, clock.as_ref()).await?,
        false => lost::find(&storage, log.as_ref(), &dataset).await?,
    };
    let mut out = std::io::stdout();
    for lost::Lost { partition, from, to } in &lost {
        writeln!(out, "partition {partition}: offsets {from} to {} are lost", to - 1)?;
    }
    match (lost.is_empty(), yes) {
        (true, _) => writeln!(out, "nothing of `{}` is lost", dataset.name)?,
        (false, true) => writeln!(out, "recorded: `{}` goes on behind them", dataset.name)?,
        (false, false) => writeln!(out, "run it again with --yes to go on without them")?,
    }
    Ok(())
}

fn checked(dir: &std::path::Path, sample: Option<PathBuf>, dataset: Option<&str>) -> Result<()> {
    let catalog = check::load(dir)?;
    let mut out = std::io::stdout();
    let (datasets, views) = (counted(catalog.datasets.len(), "dataset"), counted(catalog.views.len(), "view"));
    writeln!(out, "{datasets} and {views}: nothing wrong")?;
    let Some(sample) = sample else { return Ok(()) };
    let found = check::sample(&check::dataset(&catalog, dataset)?, &sample)?;
    writeln!(out, "{} events can be used", found.usable)?;
    for (reason, (count, line)) in &found.dead {
        writeln!(out, "{count} would be dead (first in line {line}): {reason}")?;
    }
    for (field, count) in &found.unmatched {
        writeln!(out, "field `{field}` matches no column (in {count} events)")?;
    }
    anyhow::ensure!(found.dead.is_empty(), "not all events of the sample can be used");
    Ok(())
}

/// `1 view`, `2 views`.
fn counted(count: usize, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}
