//! The result of a run, as it is saved and printed for programs, and read again for a comparison
//! (docs/cli.md has its shape).

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::Load;
use crate::Error;

/// Says what a file is. A change that readers must know of changes the number.
pub const FORMAT: &str = "clerk-bench/1";

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format: String,
    /// The version of `clerk`.
    pub clerk: String,
    pub label: Option<String>,
    pub started_unix_ms: u64,
    pub machine: Machine,
    pub cluster: ClusterFacts,
    pub run: RunFacts,
    /// Of all phases that count.
    #[serde(flatten)]
    pub figures: Figures,
    pub longest_gap_ms: f64,
    pub config_start: u64,
    pub config_end: u64,
    pub phases: Vec<PhaseResult>,
    pub series: Vec<Second>,
    pub marks: Vec<Mark>,
    pub processes: Processes,
}

/// Where the load was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub os: String,
    pub cores: u64,
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterFacts {
    pub id: String,
    pub shards: u64,
    /// Groups that had joined when the run began.
    pub groups: u64,
    /// Servers of those groups.
    pub servers: u64,
}

/// What is the same in all phases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Part of every key and value.
    pub id: String,
    pub keys: u64,
    pub preload: bool,
    pub warmup_seconds: f64,
    pub history: bool,
}

/// What was counted, in a run, a phase or a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Acknowledged.
    pub operations: u64,
    pub seconds: f64,
    pub throughput: f64,
    pub errors: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    pub unknown: u64,
    /// Gets that found nothing.
    pub missing: u64,
    /// Of an open loop: begun late, and never begun.
    pub late: u64,
    pub dropped: u64,
    pub read: Latencies,
    pub write: Latencies,
}

/// Null without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    pub count: u64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub p999_us: Option<u64>,
    pub max_us: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseResult {
    pub name: String,
    /// Part of the totals.
    pub measured: bool,
    /// Since the run began.
    pub at_s: f64,
    pub load: Load,
    #[serde(flatten)]
    pub figures: Figures,
    /// Of all servers together; null where that is not known.
    pub server_cpu_us_per_operation: Option<f64>,
    pub generator_cpu_us_per_operation: Option<f64>,
}

/// About a second of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its begin, since the run began.
    pub at_s: f64,
    pub phase: String,
    pub measured: bool,
    #[serde(flatten)]
    pub figures: Figures,
}

/// Something that happened to the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// When it was seen, since the run began.
    pub at_s: f64,
    pub kind: MarkKind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    /// A group has another leader or term.
    Election,
    /// There is a newer configuration.
    Configuration,
    /// Everything is where the newest configuration wants it.
    Settled,
    /// A server does not answer.
    Down,
    /// It answers again.
    Up,
}

/// Processor time and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// Why it is not known of some servers; null: it is known of all.
    pub why_not: Option<String>,
    pub servers: Vec<Process>,
    /// Of all servers together, over the phases that count. Null unless it is known of all.
    pub server_cpu_us_per_operation: Option<f64>,
    pub server_memory_bytes_max: Option<u64>,
    /// The load generator.
    pub generator: Option<Process>,
    pub generator_cpu_us_per_operation: Option<f64>,
    pub series: Vec<Usage>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    /// In the phases that count.
    pub cpu_seconds: f64,
    /// At the end, and the most there was.
    pub memory_bytes: u64,
    pub memory_bytes_max: u64,
}

/// What all servers together used in about a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub at_s: f64,
    /// Processors in use by the servers, and by the load generator.
    pub server_cores: f64,
    pub generator_cores: f64,
    pub server_memory_bytes: u64,
}

impl Report {
    pub fn document(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Writes a file that was asked for.
pub fn save(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|error| Error::cannot("write", path, &error))
}

/// Reads a document of a format.
pub fn load<T: DeserializeOwned>(path: &Path, format: &str) -> Result<T, Error> {
    let text = std::fs::read(path).map_err(|error| Error::cannot("read", path, &error))?;
    let bad = |why: String| Error::NoResult(format!("{}: {why}", path.display()));
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| bad(format!("no saved result: {error}")))?;
    match value["format"].as_str() {
        Some(found) if found == format => {}
        Some(found) => return Err(bad(format!("its format is {found}; this build compares {format}"))),
        None => return Err(bad("no saved result: it names no format".to_owned())),
    }
    serde_json::from_value(value).map_err(|error| bad(error.to_string()))
}

/// An invented result, for tests.
pub mod sample {
    use super::{
        ClusterFacts, FORMAT, Figures, Latencies, Mark, MarkKind, PhaseResult, Process, Processes, Report,
        Second, Usage,
    };
    use crate::plan::Load;
    use crate::settings::DistributionName;

    pub fn figures(operations: u64, seconds: f64, p50_us: u64) -> Figures {
        let latencies = Latencies {
            count: operations / 2,
            p50_us: Some(p50_us),
            p99_us: Some(p50_us * 5),
            p999_us: Some(p50_us * 10),
            max_us: Some(p50_us * 20),
        };
        Figures {
            operations,
            seconds,
            throughput: operations as f64 / seconds,
            read: latencies,
            write: latencies,
            ..Figures::default()
        }
    }

    pub fn report(label: &str, throughput: u64) -> Report {
        let load = Load {
            clients: 64,
            rate: None,
            backlog: None,
            reads: 50,
            appends: 0,
            cas: 0,
            deletes: 0,
            value_bytes: 256,
            batch: 1,
            distribution: DistributionName::Uniform,
            skew: None,
        };
        let phase = PhaseResult {
            name: "load".to_owned(),
            measured: true,
            at_s: 0.0,
            load,
            figures: figures(throughput * 10, 10.0, 800),
            server_cpu_us_per_operation: Some(50.0),
            generator_cpu_us_per_operation: Some(10.0),
        };
        let second = |at: u64| Second {
            at_s: at as f64,
            phase: "load".to_owned(),
            measured: true,
            figures: figures(throughput, 1.0, 800 + at * 10),
        };
        let usage = |at: u64| Usage {
            at_s: at as f64,
            server_cores: 1.0,
            generator_cores: 0.3,
            server_memory_bytes: 50 << 20,
        };
        let process = |name: &str| Process {
            name: name.to_owned(),
            pid: 1,
            cpu_seconds: 1.0,
            memory_bytes: 10 << 20,
            memory_bytes_max: 12 << 20,
        };
        Report {
            format: FORMAT.to_owned(),
            label: Some(label.to_owned()),
            cluster: ClusterFacts { id: "blue".to_owned(), shards: 64, groups: 2, servers: 6 },
            figures: figures(throughput * 10, 10.0, 800),
            longest_gap_ms: 12.0,
            config_start: 1,
            config_end: 2,
            phases: vec![phase],
            series: (0..10).map(second).collect(),
            marks: vec![Mark {
                at_s: 4.5,
                kind: MarkKind::Election,
                text: "group 101: <101.2> leads".to_owned(),
            }],
            processes: Processes {
                servers: vec![process("101.1"), process("101.2")],
                server_cpu_us_per_operation: Some(50.0),
                server_memory_bytes_max: Some(60 << 20),
                generator: Some(process("clerk")),
                generator_cpu_us_per_operation: Some(10.0),
                series: (0..10).map(usage).collect(),
                ..Processes::default()
            },
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, FORMAT, Report, load, sample, save};

    #[test]
    fn what_was_saved_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let report = sample::report("a", 1000);
        save(&path, &report.document().to_string()).unwrap();
        assert_eq!(load::<Report>(&path, FORMAT).unwrap(), report);
    }

    #[test]
    fn files_of_another_format_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let code = |text: &str| {
            std::fs::write(&path, text).unwrap();
            load::<Report>(&path, FORMAT).unwrap_err()
        };
        assert!(code("operations: 5").to_string().contains("no saved result"));
        assert!(code("{\"operations\": 5}").to_string().contains("names no format"));
        assert!(code("{\"format\": \"clerk-bench/9\"}").to_string().contains("clerk-bench/9"));
        assert!(matches!(code("{\"format\": \"clerk-bench/1\"}"), Error::NoResult(_)));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(load::<Report>(&path, FORMAT), Err(Error::Io(_))));
    }
}
