//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use labs::lab::Timers;
use labs::sheet::Sheet;

#[derive(Debug, Parser)]
#[command(name = "grade", about = "Runs the labs' tests, replays failures, and shows them", version)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
    #[command(flatten)]
    pub(super) play: Play,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Lists tests
    List(List),
    /// Judges a history: is there one order of all operations that explains every reply?
    Check(Check),
    /// Shows the log of a failure, one column per server
    Log(Log),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs: one document
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Named {
    /// Heartbeat 200 ms, election 600 to 1,200 ms
    Lab,
    /// The product's: heartbeat 100 ms, election 500 to 1,000 ms
    Product,
}

impl From<Named> for Timers {
    fn from(named: Named) -> Self {
        match named {
            Named::Lab => Self::Lab,
            Named::Product => Self::Product,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Select {
    /// Suites, parts, ids or original names ("raft", "3B", "R12", "TestBackup3B"); none: all tests
    #[arg(value_name = "TEST")]
    pub(super) words: Vec<String>,
    /// Only the tests of one course and year, with its parameters: 2020 to 2026, sjtu, gwu
    #[arg(long, value_name = "SHEET")]
    pub(super) sheet: Option<Sheet>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Play {
    #[command(flatten)]
    pub(super) select: Select,
    /// The seed of the first run
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Runs each test with this many seeds, and adds the results to the file of --results
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) repeat: Option<u64>,
    /// Runs at the same time [default: one per core; with --real: 1]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) jobs: Option<u16>,
    /// On real processes, TCP and disks, killed with SIGKILL: the tests for which that makes sense
    #[arg(long)]
    pub(super) real: bool,
    /// Raft's timers in every test [default: each test's own]
    #[arg(long, value_enum)]
    pub(super) timers: Option<Named>,
    /// Where failures are kept
    #[arg(long, value_name = "DIR", default_value = "grade-failures")]
    pub(super) failures: PathBuf,
    /// Where results of --repeat add up
    #[arg(long, value_name = "FILE", default_value = "grade-results.jsonl")]
    pub(super) results: PathBuf,
    /// Also writes the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) select: Select,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// One operation per line, as `clerk bench --history` writes them (docs/cli.md); "-": standard
    /// input
    pub(super) history: PathBuf,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct Log {
    /// A failure's directory
    pub(super) directory: PathBuf,
    /// Only these topics, separated by commas: life, role, vote, append, heartbeat, commit,
    /// snapshot, disk, network, shard, client, test
    #[arg(long, value_name = "TOPICS")]
    pub(super) topic: Option<String>,
    /// Only these servers, by full name ("101.2"), number ("2") or group ("101"), separated by
    /// commas
    #[arg(long, value_name = "SERVERS")]
    pub(super) server: Option<String>,
    /// Only these terms, separated by commas
    #[arg(long, value_name = "TERMS")]
    pub(super) term: Option<String>,
}
