//! What the command line takes.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use common::{
    process,
    settings::{Flags, address},
};
use lamina::{
    client::{Client, Format, StampFormat},
    token,
};

/// What `--help` ends with.
const EXAMPLE: &str = "\
Try it:
  lamina demo                                        everything, with made-up sales, at http://127.0.0.1:8787/
  lamina query 'SELECT * FROM product_sales LIMIT 5'

With your own data:
  lamina check catalog/                              is the SQL right?
  lamina up --catalog catalog/                       start
  lamina ingest events.ndjson                        send events, one JSON object a line";

/// Lamina answers SQL over event streams, fresh and exact, over HTTP: a catalog of SQL files says what comes in and
/// which views are kept, and every answer says which prefix of the log it is over.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLE)]
pub(crate) struct Command {
    /// What the log shows, such as `info` or `speed_layer=debug`.
    #[arg(
        long,
        global = true,
        env = "LAMINA_LOG",
        default_value = process::LOG,
        hide_default_value = true
    )]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Start everything with example data and a stream of events.
    Demo {
        /// Events a second.
        #[arg(long, default_value_t = 1000)]
        rate: u64,
        /// Where the demo keeps its data.
        #[arg(long, default_value = "data/demo")]
        data: PathBuf,
        /// Where to answer HTTP.
        #[arg(long, default_value = "127.0.0.1:8787", value_parser = address)]
        listen: std::net::SocketAddr,
        /// Answer everyone at an address that other machines reach.
        #[arg(long)]
        insecure: bool,
        /// Print so many made-up sales, one a line, and start nothing.
        #[arg(long, value_name = "EVENTS")]
        print: Option<u64>,
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
        /// The first line to send: those before it are left out.
        #[arg(long, default_value_t = 1, value_name = "LINE")]
        from_line: u64,
        #[command(flatten)]
        server: Server,
    },
    /// Run a query.
    Query {
        /// The SQL; `-` reads it from standard input.
        #[arg(required_unless_present = "file")]
        sql: Option<String>,
        /// A file that the SQL is in.
        #[arg(long, value_name = "FILE", conflicts_with = "sql")]
        file: Option<PathBuf>,
        /// How to print the answer: a table on a terminal, JSON elsewhere.
        #[arg(long)]
        format: Option<Format>,
        /// How to tell, on standard error, which prefix of the log the answer is over.
        #[arg(long, default_value = "line")]
        stamp: StampFormat,
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
        place: Place,
    },
    /// Say how everything stands.
    Status {
        #[command(flatten)]
        server: Server,
    },
    /// Tokens for those who may ask.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print what makes a shell complete these commands: `source <(lamina completions bash)`.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Where a Lamina keeps its things.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The folder of SQL files that define datasets and views.
    #[arg(long, value_name = "DIR")]
    catalog: Option<String>,
    /// Where the embedded log and the folder store are kept [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Kafka's brokers, such as `127.0.0.1:9092`; without them an embedded log is used.
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// An object store, such as `s3://bucket/prefix`; without it a folder is used.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// A settings file in TOML; what it says, flags override.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

impl Place {
    pub(crate) fn flags(self) -> Flags {
        let Self { catalog, data, kafka, store, settings } = self;
        Flags { catalog, data, kafka, store, settings, ..Flags::default() }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one: its line goes to standard output, and the token itself, once, to standard error.
    New(token::Flags),
}

#[derive(clap::Args)]
pub(crate) struct Server {
    /// Where Lamina answers.
    #[arg(long, env = "LAMINA_URL", default_value = "http://127.0.0.1:8787")]
    url: String,
    /// A token, where Lamina asks for one; in the environment others do not see it.
    #[arg(long, env = "LAMINA_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url, self.token.as_deref())
    }
}

impl std::fmt::Debug for Server {
    /// The token is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}
