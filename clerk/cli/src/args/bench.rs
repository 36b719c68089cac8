//! The arguments of `bench`. What clients do is in [`Settings`].

use std::path::PathBuf;

use clap::Subcommand;
use clerk_bench::settings::{PhaseSpec, Settings};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) verb: Option<BenchVerb>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    /// Compares two saved results, figure by figure.
    #[command(after_help = "Example:\n  clerk bench compare before.json after.json")]
    Compare(Compare),
    /// Measures what more groups bring, on a new cluster on this machine: the same load against
    /// each number of groups, which join while it runs.
    #[command(after_help = "Examples:\n  clerk bench scaling --groups 1,2,4\n  \
        clerk bench scaling --groups 1,2,4 --replica-cpu 0.1 --reads 0 --html scaling.html")]
    Scaling(Box<Scaling>),
}

/// A run against the chosen cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// A phase: its name, and its own options. Phases run in the order given.
    #[arg(long = "phase", value_name = "NAME[,OPTION=VALUE...]")]
    pub(crate) phases: Vec<PhaseSpec>,
    /// Options and phases from a TOML file; the command line takes precedence.
    #[arg(long, value_name = "FILE")]
    pub(crate) workload: Option<PathBuf>,
    /// Records every operation, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) files: Files,
}

/// The files for results.
#[derive(Debug, clap::Args)]
pub(crate) struct Files {
    /// Saves the result as JSON: the document of `-o json`.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Writes a report with charts, a self-contained HTML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// The reference result.
    #[arg(value_name = "A.json")]
    pub(crate) a: PathBuf,
    /// The result that is compared with it.
    #[arg(value_name = "B.json")]
    pub(crate) b: PathBuf,
    /// Differences below this are called noise.
    #[arg(long, value_name = "PERCENT", default_value_t = 20.0)]
    pub(crate) noise: f64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Scaling {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Numbers of groups, one after the other.
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_value = "1,2,4")]
    pub(crate) groups: Vec<u64>,
    /// Servers of a group.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) replicas: u64,
    /// Shards.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(crate) shards: u32,
    /// Limits every server of a group to this share of a processor (Linux control groups), so that
    /// the servers, not the machine, are the limit.
    #[arg(long, value_name = "PROCESSORS")]
    pub(crate) replica_cpu: Option<f64>,
    /// Leaves the cluster running afterwards, without limits.
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) files: Files,
}
