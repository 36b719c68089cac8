//! The result of a run, as it is saved and printed for programs, and read again for a comparison
//! (docs/cli.md has its shape).

use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::Load;
use crate::failure::Failure;

/// Says what a file is. A change that readers must know of changes the number.
pub(super) const FORMAT: &str = "clerk-bench/1";

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) format: String,
    /// The version of `clerk`.
    pub(super) clerk: String,
    pub(super) label: Option<String>,
    pub(super) started_unix_ms: u64,
    pub(super) machine: Machine,
    pub(super) cluster: ClusterFacts,
    pub(super) run: RunFacts,
    /// Of all phases that count.
    #[serde(flatten)]
    pub(super) figures: Figures,
    pub(super) longest_gap_ms: f64,
    pub(super) config_start: u64,
    pub(super) config_end: u64,
    pub(super) phases: Vec<PhaseResult>,
    pub(super) series: Vec<Second>,
    pub(super) marks: Vec<Mark>,
    pub(super) processes: Processes,
}

/// Where the load was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) os: String,
    pub(super) cores: u64,
    pub(super) memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ClusterFacts {
    pub(super) id: String,
    pub(super) shards: u64,
    /// Groups that had joined when the run began.
    pub(super) groups: u64,
    /// Servers of those groups.
    pub(super) servers: u64,
}

/// What is the same in all phases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RunFacts {
    /// Part of every key and value.
    pub(super) id: String,
    pub(super) keys: u64,
    pub(super) preload: bool,
    pub(super) warmup_seconds: f64,
    pub(super) history: bool,
}

/// What was counted, in a run, a phase or a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Acknowledged.
    pub(super) operations: u64,
    pub(super) seconds: f64,
    pub(super) throughput: f64,
    pub(super) errors: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_error: Option<String>,
    pub(super) unknown: u64,
    /// Gets that found nothing.
    pub(super) missing: u64,
    /// Of an open loop: begun late, and never begun.
    pub(super) late: u64,
    pub(super) dropped: u64,
    pub(super) read: Latencies,
    pub(super) write: Latencies,
}

/// Null without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Latencies {
    pub(super) count: u64,
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    pub(super) p999_us: Option<u64>,
    pub(super) max_us: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PhaseResult {
    pub(super) name: String,
    /// Part of the totals.
    pub(super) measured: bool,
    /// Since the run began.
    pub(super) at_s: f64,
    pub(super) load: Load,
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// Of all servers together; null where that is not known.
    pub(super) server_cpu_us_per_operation: Option<f64>,
    pub(super) generator_cpu_us_per_operation: Option<f64>,
}

/// About a second of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Second {
    /// Its begin, since the run began.
    pub(super) at_s: f64,
    pub(super) phase: String,
    pub(super) measured: bool,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// Something that happened to the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// When it was seen, since the run began.
    pub(super) at_s: f64,
    pub(super) kind: MarkKind,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MarkKind {
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
pub(super) struct Processes {
    /// Why it is not known of some servers; null: it is known of all.
    pub(super) why_not: Option<String>,
    pub(super) servers: Vec<Process>,
    /// Of all servers together, over the phases that count. Null unless it is known of all.
    pub(super) server_cpu_us_per_operation: Option<f64>,
    pub(super) server_memory_bytes_max: Option<u64>,
    /// The load generator.
    pub(super) generator: Option<Process>,
    pub(super) generator_cpu_us_per_operation: Option<f64>,
    pub(super) series: Vec<Usage>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
    /// In the phases that count.
    pub(super) cpu_seconds: f64,
    /// At the end, and the most there was.
    pub(super) memory_bytes: u64,
    pub(super) memory_bytes_max: u64,
}

/// What all servers together used in about a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) at_s: f64,
    /// Processors in use by the servers, and by the load generator.
    pub(super) server_cores: f64,
    pub(super) generator_cores: f64,
    pub(super) server_memory_bytes: u64,
}

impl Report {
    pub(super) fn document(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Writes a file that was asked for.
pub(super) fn save(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?)
}

/// Reads a document of a format.
pub(super) fn load<T: DeserializeOwned>(path: &Path, format: &str) -> Result<T, Failure> {
    let text = std::fs::read(path)
        .map_err(|error| Failure::new("io", format!("cannot read {}: {error}", path.display())))?;
    let bad = |why: String| {
        Failure::new("bad_input", format!("{}: {why}", path.display()))
            .next("`clerk bench --save FILE` writes such files")
    };
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| bad(format!("no saved result: {error}")))?;
    match value["format"].as_str() {
        Some(found) if found == format => {}
        Some(found) => return Err(bad(format!("its format is {found}; this build compares {format}"))),
        None => return Err(bad("no saved result: it names no format".to_owned())),
    }
    serde_json::from_value(value).map_err(|error| bad(error.to_string()))
}

/// A result as others see it.
#[cfg(test)]
pub(super) mod sample {
    use super::{
        ClusterFacts, FORMAT, Figures, Latencies, Mark, MarkKind, PhaseResult, Process, Processes, Report,
        Second, Usage,
    };
    use crate::args::DistributionName;
    use crate::bench::plan::Load;

    pub(in crate::bench) fn figures(operations: u64, seconds: f64, p50_us: u64) -> Figures {
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

    pub(in crate::bench) fn report(label: &str, throughput: u64) -> Report {
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
    use super::{FORMAT, Report, load, sample, save};

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
        assert!(code("operations: 5").message.contains("no saved result"));
        assert!(code("{\"operations\": 5}").message.contains("names no format"));
        assert!(code("{\"format\": \"clerk-bench/9\"}").message.contains("clerk-bench/9"));
        assert_eq!(code("{\"format\": \"clerk-bench/1\"}").code, "bad_input");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load::<Report>(&path, FORMAT).unwrap_err().code, "io");
    }
}
