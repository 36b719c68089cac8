//! The arguments of `bench`. The load can be described on the command line, in a workload file, and
//! for a phase. [`Settings`] is the one form of all three, and `bench::plan` combines them.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

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

/// What clients do. A missing value comes from the next source: phase, command line, file, default.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    /// Clients, each with one operation in flight [default: 64].
    #[arg(long, value_name = "COUNT")]
    pub(crate) clients: Option<u64>,
    /// Seconds of each phase [default: 10].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<f64>,
    /// Open loop: this many operations begin each second, whether or not earlier ones have ended,
    /// and latency counts from when each was due. Without it, a client begins its next operation
    /// when its last one has ended.
    #[arg(long, value_name = "OPERATIONS")]
    pub(crate) rate: Option<f64>,
    /// With --rate: operations that may be due while all clients are busy; more are dropped and
    /// counted [default: those of 5 seconds].
    #[arg(long, value_name = "COUNT")]
    pub(crate) backlog: Option<u64>,
    /// Percentage of gets. The rest of the operations are puts [default: 50].
    #[arg(long, value_name = "PERCENT")]
    pub(crate) reads: Option<u32>,
    /// Percentage of appends [default: 0].
    #[arg(long, value_name = "PERCENT")]
    pub(crate) appends: Option<u32>,
    /// Percentage of conditional puts [default: 0].
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cas: Option<u32>,
    /// Percentage of deletes [default: 0].
    #[arg(long, value_name = "PERCENT")]
    pub(crate) deletes: Option<u32>,
    /// Bytes of a value, and of an appended piece [default: 256].
    #[arg(long, value_name = "BYTES")]
    pub(crate) value_bytes: Option<u64>,
    /// Keys that a put writes in one call, each of them an operation; the latency is the call's [default: 1].
    #[arg(long, value_name = "KEYS")]
    pub(crate) batch: Option<u64>,
    /// How keys are chosen [default: uniform].
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) distribution: Option<DistributionName>,
    /// With --distribution zipfian: the key of rank k is chosen in proportion to 1 / k^SKEW [default: 0.99].
    #[arg(long, value_name = "SKEW")]
    pub(crate) skew: Option<f64>,
    /// Keys, new in every run [default: 10000].
    #[arg(long, value_name = "COUNT")]
    pub(crate) keys: Option<u64>,
    /// Writes every key once before anything is measured, so that gets find a value.
    #[arg(long)]
    pub(crate) preload: bool,
    /// Seconds of load, as in the first phase, before anything is measured.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) warmup: Option<f64>,
    /// A name for the run in reports and comparisons.
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DistributionName {
    /// All equally often.
    #[default]
    Uniform,
    /// A few often, most rarely; the frequent ones are spread over the key space.
    Zipfian,
}

/// A phase as people write it: `NAME,clients=8,seconds=5`. The names of the options are those of the
/// command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PhaseSpec {
    pub(crate) name: String,
    pub(crate) settings: Settings,
}

impl FromStr for PhaseSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty() && !name.contains('='));
        let name = name.ok_or_else(|| format!("`{text}`: a phase begins with its name: NAME,clients=8"))?;
        let mut table = toml::Table::new();
        for part in parts {
            let pair = part.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
            let (key, value) = pair.ok_or_else(|| format!("`{part}` is not of the form OPTION=VALUE"))?;
            if table.insert(key.to_owned(), value_of(value)).is_some() {
                return Err(format!("`{key}` is there twice"));
            }
        }
        let settings = table.try_into().map_err(|error: toml::de::Error| one_line(&error))?;
        Ok(Self { name: name.to_owned(), settings })
    }
}

/// A word as a number if it is one.
fn value_of(text: &str) -> toml::Value {
    let integer = text.parse::<i64>().ok().map(toml::Value::Integer);
    let float = || text.parse::<f64>().ok().map(toml::Value::Float);
    let boolean = || text.parse::<bool>().ok().map(toml::Value::Boolean);
    integer.or_else(float).or_else(boolean).unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// What is wrong with settings, in one line.
pub(crate) fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
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

#[cfg(test)]
mod tests {
    use super::{DistributionName, PhaseSpec, Settings};

    #[test]
    fn a_phase_is_a_name_and_what_differs() {
        let phase = |text: &str| text.parse::<PhaseSpec>();
        let spec = phase("hot keys, clients=8,seconds=2.5,rate=1000,distribution=zipfian").unwrap();
        let settings = Settings {
            clients: Some(8),
            seconds: Some(2.5),
            rate: Some(1000.0),
            distribution: Some(DistributionName::Zipfian),
            ..Settings::default()
        };
        assert_eq!(spec, PhaseSpec { name: "hot keys".to_owned(), settings });
        assert_eq!(phase("quiet").unwrap().settings, Settings::default());
        for (text, why) in [
            ("", "begins with its name"),
            ("clients=8", "begins with its name"),
            ("a,clients", "OPTION=VALUE"),
            ("a,clients=", "OPTION=VALUE"),
            ("a,clients=8,clients=9", "twice"),
            ("a,clients=many", "clients"),
            ("a,colour=red", "colour"),
            ("a,distribution=odd", "zipfian"),
        ] {
            let error = phase(text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
