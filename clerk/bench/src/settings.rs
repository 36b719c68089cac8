//! What clients do, as people ask for it: on the command line, in a workload file, and for a phase.
//! [`Settings`] is the one form of all three, and `plan` combines them.

use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What clients do. A missing value comes from the next source: phase, command line, file, default.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Clients, each with one operation in flight [default: 64].
    #[arg(long, value_name = "COUNT")]
    pub clients: Option<u64>,
    /// Seconds of each phase [default: 10].
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Open loop: this many operations begin each second, whether or not earlier ones have ended,
    /// and latency counts from when each was due. Without it, a client begins its next operation
    /// when its last one has ended.
    #[arg(long, value_name = "OPERATIONS")]
    pub rate: Option<f64>,
    /// With --rate: operations that may be due while all clients are busy; more are dropped and
    /// counted [default: those of 5 seconds].
    #[arg(long, value_name = "COUNT")]
    pub backlog: Option<u64>,
    /// Percentage of gets. The rest of the operations are puts [default: 50].
    #[arg(long, value_name = "PERCENT")]
    pub reads: Option<u32>,
    /// Percentage of appends [default: 0].
    #[arg(long, value_name = "PERCENT")]
    pub appends: Option<u32>,
    /// Percentage of conditional puts [default: 0].
    #[arg(long, value_name = "PERCENT")]
    pub cas: Option<u32>,
    /// Percentage of deletes [default: 0].
    #[arg(long, value_name = "PERCENT")]
    pub deletes: Option<u32>,
    /// Bytes of a value, and of an appended piece [default: 256].
    #[arg(long, value_name = "BYTES")]
    pub value_bytes: Option<u64>,
    /// Keys that a put writes in one call, each of them an operation; the latency is the call's [default: 1].
    #[arg(long, value_name = "KEYS")]
    pub batch: Option<u64>,
    /// How keys are chosen [default: uniform].
    #[arg(long, value_enum, value_name = "HOW")]
    pub distribution: Option<DistributionName>,
    /// With --distribution zipfian: the key of rank k is chosen in proportion to 1 / k^SKEW [default: 0.99].
    #[arg(long, value_name = "SKEW")]
    pub skew: Option<f64>,
    /// Keys, new in every run [default: 10000].
    #[arg(long, value_name = "COUNT")]
    pub keys: Option<u64>,
    /// Writes every key once before anything is measured, so that gets find a value.
    #[arg(long)]
    pub preload: bool,
    /// Seconds of load, as in the first phase, before anything is measured.
    #[arg(long, value_name = "SECONDS")]
    pub warmup: Option<f64>,
    /// A name for the run in reports and comparisons.
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DistributionName {
    /// All equally often.
    #[default]
    Uniform,
    /// A few often, most rarely; the frequent ones are spread over the key space.
    Zipfian,
}

/// A phase as people write it: `NAME,clients=8,seconds=5`. The names of the options are those of the
/// command line.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseSpec {
    pub name: String,
    pub settings: Settings,
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
pub fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
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
