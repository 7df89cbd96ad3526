//! The `lamina` command.

use std::{
    io::{ErrorKind, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use batch_layer::{deploy, lost};
use clap::{CommandFactory, Parser};
use common::{
    process, resources,
    settings::{Flags, Settings, StoreSettings},
    supervisor::Supervisor,
};
use lamina::{assembly, check, client, demo, lock, token};

mod command;

use command::{Command, TokenCommand, What};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Command::parse();
    match &command.what {
        // Its status line stands where the next line of the log would go on.
        What::Demo { .. } if std::io::stderr().is_terminal() => process::log_to(&command.log, demo::above_status_line),
        _ => process::log(&command.log),
    }
    process::run("lamina", |runtimes| run(command.what, runtimes.compute))
}

async fn run(what: What, compute: tokio::runtime::Handle) -> Result<(), process::Failure> {
    let done = async {
        match what {
            What::Demo { print: Some(count), .. } => demo::print(count, &mut std::io::stdout().lock()),
            What::Demo { rate, data, listen, insecure, print: None } => {
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
            What::RecordLost { dataset, yes, place } => record_lost(&dataset, yes, &place.flags()).await,
            What::Check { dir, sample, dataset } => checked(&dir, sample, dataset.as_deref()),
            What::Ingest { file, dataset, from_line, server } => {
                let (accepted, frontier) = server.client().ingest(&file, dataset.as_deref(), from_line).await?;
                writeln!(std::io::stdout(), "{accepted} events accepted; they are below {frontier}")?;
                Ok(())
            }
            What::Query { sql, file, format, stamp, server } => {
                let sql = client::sql(sql.as_deref(), file.as_deref())?;
                server.client().query(&sql, format, stamp, &mut std::io::stdout()).await
            }
            What::Recompute { view, server } => {
                let done = server.client().recompute(&view).await?;
                writeln!(std::io::stdout(), "{done}")?;
                Ok(())
            }
            What::Token(TokenCommand::New(flags)) => {
                token::new(&flags, &common::clock::System, &mut std::io::stdout(), &mut std::io::stderr())
            }
            What::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Command::command(), "lamina", &mut script);
                Ok(std::io::stdout().write_all(&script)?)
            }
            What::Status { server } => {
                let status = server.client().status().await?;
                writeln!(std::io::stdout(), "{status}")?;
                Ok(())
            }
        }
    };
    let done: Result<()> = done.await;
    match done {
        // Whoever read the output has seen enough, as `head` does.
        Err(error)
            if error.downcast_ref().is_some_and(|error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        done => done.map_err(|error: anyhow::Error| error.into_boxed_dyn_error()),
    }
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
    // Who is told to stop first is not gone on beside.
    let _held = yes.then(|| lock::take(&settings.data, std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).transpose()?;
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
    writeln!(out, "{found}")?;
    anyhow::ensure!(found.dead.is_empty(), "not all events of the sample can be used");
    Ok(())
}

/// `1 view`, `2 views`.
fn counted(count: usize, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}
