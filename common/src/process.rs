//! What every program of Lamina's does around its work: it reads settings, logs, runs, stops when told, and says in one
//! message what went wrong.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use tokio::runtime::{Builder, Handle};
use tracing_subscriber::EnvFilter;

use crate::{
    fault::chain,
    settings::{Flags, Settings},
    supervisor::Supervisor,
};

/// Anything that a program may end for.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is logged unless told. That a commit was refused is told, or tried again, by whoever has made it.
pub const LOG: &str = "warn,common=info,batch_layer=info,speed_layer=info,serving_layer=info,lamina=info,rdkafka=error,\
                       deltalake_core::kernel::transaction=off";

/// Threads that run queries need so much stack, for the deepest query that is taken. Only what is used of it costs.
pub const STACK_BYTES: usize = 16 << 20;

/// How a layer that runs apart is started.
#[derive(Debug, clap::Parser)]
#[command(version, max_term_width = 100)]
pub struct Layer {
    /// What the log shows, such as `info` or `speed_layer=debug`.
    #[arg(long, env = "LAMINA_LOG", default_value = LOG, hide_default_value = true)]
    pub log: String,
    /// Ask the running layer at its address for its health, and exit with 0 when it is well: for containers.
    #[arg(long)]
    pub health: bool,
    /// Print all settings in JSON, as they are after defaults, file, environment and flags, with secrets hidden; do
    /// nothing else.
    #[arg(long)]
    pub print_settings: bool,
    #[allow(missing_docs, reason = "clap would take it for the command's description")]
    #[command(flatten)]
    pub flags: Flags,
}

/// The runtimes of a program.
#[derive(Clone, Debug)]
pub struct Runtimes {
    /// Runs long computations, apart from what must answer quickly: the system then shares the processors between them.
    pub compute: Handle,
}

/// Writes each event in one line: what clients and files say must not look like lines of its own.
#[derive(Debug)]
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    /// The whole of an event comes at once.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        let mut line = Vec::with_capacity(event.len());
        for &byte in text {
            match byte {
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                byte => line.push(byte),
            }
        }
        line.push(b'\n');
        // Where the log goes may be full, and what then fails is printed: to the same place, which ends the thread.
        let _ = self.0.write_all(&line);
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The command line of a program whose help leaves out the flags that it has no use for.
pub fn parse<C: clap::Parser>(unused: &[&str]) -> C {
    let command = unused.iter().fold(C::command(), |command, name| command.mut_arg(name, |flag| flag.hide(true)));
    C::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Logs to standard error.
pub fn log(filter: &str) {
    log_to(filter, std::io::stderr);
}

/// Logs to standard error, by way of what `writer` makes for each event.
pub fn log_to<W: Write>(filter: &str, writer: impl Fn() -> W + Send + Sync + 'static) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines(writer()))
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// How long everything may take to end after the first signal.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How many files and connections may be open at once. The system's own limit for this process is asked for in full.
pub fn open_files() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| rlimit::Resource::NOFILE.get_soft());
    limit.map_or(1024, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Runs `work` on new runtimes. An error becomes one message, under `name`.
pub fn run<F>(name: &str, work: impl FnOnce(Runtimes) -> F) -> ExitCode
where
    F: Future<Output = Result<(), Failure>>,
{
    let done = (|| {
        open_files();
        let runtime = Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
        let compute = Builder::new_multi_thread().enable_all().thread_name("lamina-compute").build()?;
        let done = runtime.block_on(work(Runtimes { compute: compute.handle().clone() }));
        compute.shutdown_background();
        runtime.shutdown_timeout(Duration::from_secs(2));
        done
    })();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{name}: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// A layer's program: `start` starts it, with its settings, where it is to listen, and its tasks; what it gives is done
/// first when the layer is told to stop. `port` is its own.
pub fn layer<F, L>(
    name: &'static str,
    command: &Layer,
    port: u16,
    start: impl FnOnce(Settings, SocketAddr, Supervisor, Runtimes) -> F,
) -> ExitCode
where
    F: Future<Output = Result<L, Failure>>,
    L: Future<Output = ()>,
{
    log(&command.log);
    run(name, |runtimes| async move {
        let mut settings = Settings::read(&command.flags)?;
        if let Some(format) = settings.state_format {
            crate::fold::raise_state_format(format);
        }
        let listen = *settings.listen.get_or_insert_with(|| SocketAddr::from(([127, 0, 0, 1], port)));
        if command.print_settings {
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&settings)?)?;
            return Ok(());
        }
        if command.health {
            return crate::web::health(listen, settings.tls.certificate.is_some()).await;
        }
        let supervisor = Supervisor::new();
        let mut told = std::pin::pin!(told_to_stop(settings.speed.linger)?);
        let started = tokio::select! {
            () = &mut told => None,
            started = start(settings, listen, supervisor.clone(), runtimes) => Some(started),
        };
        match started {
            None => tracing::info!("stopping while it starts"),
            Some(Err(error)) => {
                supervisor.stop();
                let _ = supervisor.wait().await;
                return Err(error);
            }
            Some(Ok(leave)) => tokio::select! {
                () = told => {
                    tracing::info!("stopping");
                    leave.await;
                }
                () = supervisor.cancelled().cancelled_owned() => {}
            },
        }
        supervisor.stop();
        Ok(supervisor.wait().await?)
    })
}

/// Ends with the first SIGINT or SIGTERM. A second one exits at once, and so does what has not ended some time after the
/// first: `more` than usual. Signals have a thread of their own, as whatever is to be ended may keep all others busy.
pub fn told_to_stop(more: Duration) -> Result<impl Future<Output = ()> + 'static, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _within = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut signalled = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let listening = async move {
        signalled().await;
        let _ = tell.send(());
        match tokio::time::timeout(STOP_WITHIN + more, signalled()).await {
            Ok(()) => std::process::exit(130),
            Err(_) => {
                let within = humantime::format_duration(STOP_WITHIN + more);
                tracing::error!("something did not end within {within}: exiting without it");
                std::process::exit(1)
            }
        }
    };
    std::thread::Builder::new().name("lamina-signals".to_owned()).spawn(move || runtime.block_on(listening))?;
    Ok(async {
        let _ = told.await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut written = Vec::new();
        Lines(&mut written).write_all(b"WARN a: `x\n2026 ERROR b: made up\r\n`\n").unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "WARN a: `x\\n2026 ERROR b: made up\\r\\n`\n");
    }
}
