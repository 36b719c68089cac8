//! A local cluster, driven through the `clerk` command; its answers use the names of the contract
//! for scripts.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::binaries::binary;
use super::client::Target;
use super::place::Place;

/// The time limit of a command, unless it names its own.
const LIMIT: Duration = Duration::from_secs(180);
/// A command that names its own time limit gets this much more.
const SLACK: Duration = Duration::from_secs(30);
/// A healthy cluster answers everything within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The result of a command.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as the one JSON document that it must be.
    ///
    /// # Panics
    /// When it is not one.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("not one JSON document: {error}: {:?} {}", self.text(), self.stderr)
        })
    }

    /// The code of the error document of a command that failed with this exit code.
    ///
    /// # Panics
    /// When it ended otherwise, or its error does not have the contract's form.
    pub fn error(&self, exit: i32) -> String {
        assert_eq!(self.code, Some(exit), "{:?} {}", self.text(), self.stderr);
        let document = self.json();
        let error = document.get("error").and_then(Value::as_object);
        let error = error.unwrap_or_else(|| panic!("no error in {document}"));
        let names: Vec<&str> = error.keys().map(String::as_str).collect();
        assert_eq!(names, ["code", "message", "next"], "{document}");
        let text =
            |name: &str| error[name].as_str().unwrap_or_else(|| panic!("{name} in {document}")).to_owned();
        assert!(!text("message").is_empty(), "{document}");
        text("next");
        text("code")
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not end within `limit`.
pub fn run(command: &mut Command, input: Option<Vec<u8>>, limit: Duration) -> Answer {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let shown = format!("{command:?}");
    let spawned = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        if let (Some(mut pipe), Some(input)) = (pipes.0, input) {
            // A program that stops reading is judged by how it ends.
            scope.spawn(move || drop(pipe.write_all(&input)));
        }
        let all = |pipe: Option<Box<dyn Read + Send>>| {
            scope.spawn(move || {
                let mut bytes = Vec::new();
                pipe.expect("a pipe").read_to_end(&mut bytes).expect("its end");
                bytes
            })
        };
        let stdout = all(pipes.1.map(|pipe| Box::new(pipe) as _));
        let stderr = all(pipes.2.map(|pipe| Box::new(pipe) as _));
        let until = Instant::now() + limit;
        let status = loop {
            match child.try_wait().expect("its state") {
                Some(status) => break status,
                None if Instant::now() >= until => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("{shown} did not end within {} s", limit.as_secs());
                }
                None => std::thread::sleep(Duration::from_millis(3)),
            }
        };
        let stdout = stdout.join().expect("what it printed");
        let stderr = String::from_utf8_lossy(&stderr.join().expect("what it said")).into_owned();
        Answer { code: status.code(), stdout, stderr }
    })
}

fn limit(arguments: &[&str]) -> Duration {
    let named = arguments.iter().skip_while(|argument| **argument != "--timeout").nth(1);
    named
        .and_then(|seconds| seconds.parse().ok())
        .map_or(LIMIT, |seconds| Duration::from_secs(seconds) + SLACK)
}

/// `clerk status -o json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    pub cluster: String,
    pub config: Option<u64>,
    pub digest: Option<String>,
    pub key: Option<String>,
    pub params: Option<Value>,
    pub placement: Option<Value>,
    pub settled: bool,
    pub controllers: Vec<Replica>,
    pub groups: Vec<Group>,
}

/// A group of a [`Status`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub gid: u64,
    pub joined: bool,
    pub history: Option<String>,
    pub history_text: Option<String>,
    pub config: Option<u64>,
    pub digest: Option<String>,
    pub key: Option<String>,
    pub incarnation: Option<String>,
    pub registered: Option<String>,
    pub lost_data: bool,
    pub weight: Option<u32>,
    pub replicas: Vec<Replica>,
    pub shards: Vec<Shard>,
}

/// A shard of a [`Group`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    pub shard: u64,
    pub state: String,
    #[serde(rename = "move")]
    pub num: Option<u64>,
    pub peer: Option<u64>,
    pub rows: u64,
    pub bytes: u64,
    pub progress: Option<Value>,
    pub load: Option<Value>,
}

/// A server of a [`Status`]. Everything that a server that is down does not report is null.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    pub name: String,
    pub address: String,
    pub pid: Option<u32>,
    pub up: bool,
    pub role: Option<String>,
    pub term: Option<u64>,
    pub leader: Option<Value>,
    pub commit: Option<u64>,
    pub applied: Option<u64>,
    pub log_bytes: Option<u64>,
    pub table_hash: Option<Value>,
    pub unapplied_bytes: Option<u64>,
    pub wal_syncs: Option<u64>,
    pub slow_syncs: Option<u64>,
    pub followers: Option<Value>,
    pub pace: Option<Value>,
    pub sessions: Option<Value>,
    pub behind: Option<u64>,
    pub config: Option<u64>,
    pub digest: Option<String>,
    pub wipes: Option<u64>,
    pub refused: Option<BTreeMap<String, u64>>,
    pub refused_by: Option<BTreeMap<String, String>>,
    pub owes: Option<String>,
    pub refused_messages: Option<u64>,
    pub alarms: Option<u64>,
    pub last_alarm: Option<String>,
    pub table_bad: Option<bool>,
    pub refused_peers: Option<Value>,
    pub connections: Option<Value>,
    pub disk: Option<Value>,
    pub http: Option<String>,
}

impl Replica {
    /// Whether it claims to lead.
    pub fn leads(&self) -> bool {
        self.up && self.role.as_deref() == Some("leader")
    }
}

impl Status {
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.controllers.iter().chain(self.groups.iter().flat_map(|group| &group.replicas))
    }

    /// The servers of a group (0: the controllers).
    ///
    /// # Panics
    /// When there is no such group.
    pub fn group(&self, gid: u64) -> &[Replica] {
        if gid == 0 {
            return &self.controllers;
        }
        let group = self.groups.iter().find(|group| group.gid == gid);
        &group.unwrap_or_else(|| panic!("no group {gid} in {self:?}")).replicas
    }

    /// Whether everything runs, every group has a leader, and all replicas of a group have applied
    /// the same entries and have the same table.
    pub fn is_healthy(&self) -> bool {
        let groups = self.groups.iter().map(|group| &group.replicas).chain([&self.controllers]);
        groups.into_iter().all(|replicas| {
            let same =
                |a: &Replica| a.applied == replicas[0].applied && a.table_hash == replicas[0].table_hash;
            replicas.iter().all(|one| one.up && same(one)) && replicas.iter().any(Replica::leads)
        })
    }
}

/// A cluster of local processes.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    controllers: Option<String>,
}

impl Cluster {
    /// `clerk up` with these arguments, in a fresh directory.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(arguments: &[&str]) -> Self {
        let cluster = Self { place: Place::new(), controllers: None };
        cluster.ok(&[&["up"], arguments].concat());
        cluster
    }

    /// The same, with a limit of file descriptors for each process.
    ///
    /// # Panics
    /// As there.
    pub fn up_with_descriptors(limit: u32, arguments: &[&str]) -> Self {
        let cluster = Self { place: Place::new(), controllers: None };
        let up = cluster.command(&[&["up"], arguments].concat());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
        shell.arg(up.get_program()).args(up.get_args());
        let answer = run(&mut shell, None, LIMIT);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        cluster
    }

    /// Servers that were started by hand in `place`, known by their controllers.
    pub fn by_hand(place: Place, controllers: String) -> Self {
        Self { place, controllers: Some(controllers) }
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// A `clerk` command for this cluster, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("clerk"));
        for variable in ["CLERK_DIR", "CLERK_CONTROLLERS"] {
            command.env_remove(variable);
        }
        match &self.controllers {
            None => command.arg("--dir").arg(self.path()),
            Some(controllers) => command.args(["--controllers", controllers]),
        };
        command.args(arguments);
        command
    }

    /// Runs a command, whether it succeeds or not.
    pub fn clerk(&self, arguments: &[&str]) -> Answer {
        run(&mut self.command(arguments), None, limit(arguments))
    }

    /// Runs a command with this on its standard input.
    pub fn clerk_reading(&self, arguments: &[&str], input: impl Into<Vec<u8>>) -> Answer {
        run(&mut self.command(arguments), Some(input.into()), limit(arguments))
    }

    /// Runs a command that must succeed; returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.clerk(arguments);
        assert_eq!(answer.code, Some(0), "clerk {arguments:?}: {:?} {}", answer.text(), answer.stderr);
        answer.text()
    }

    /// Runs a command with `-o json` that must succeed; returns its document.
    ///
    /// # Panics
    /// When it fails, or prints anything else.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.clerk(&[arguments, &["-o", "json"]].concat());
        assert_eq!(answer.code, Some(0), "clerk {arguments:?}: {:?} {}", answer.text(), answer.stderr);
        answer.json()
    }

    /// Runs a command with `-o json` that must fail with this exit code; returns the code of its
    /// error.
    ///
    /// # Panics
    /// When it ends otherwise.
    pub fn fails(&self, exit: i32, arguments: &[&str]) -> String {
        self.clerk(&[arguments, &["-o", "json"]].concat()).error(exit)
    }

    /// Its present status.
    ///
    /// # Panics
    /// When the status does not have the contract's form.
    pub fn status(&self) -> Status {
        let document = self.json(&["status"]);
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"))
    }

    /// Polls the status until `see` finds something in it.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn await_status<T>(&self, what: &str, see: impl FnMut(&Status) -> Option<T>) -> T {
        self.await_status_for(PATIENCE, what, see)
    }

    fn await_status_for<T>(
        &self,
        patience: Duration,
        what: &str,
        mut see: impl FnMut(&Status) -> Option<T>,
    ) -> T {
        let until = Instant::now() + patience;
        loop {
            let status = self.status();
            if let Some(seen) = see(&status) {
                return seen;
            }
            assert!(Instant::now() < until, "{what}: not within {} s: {status:#?}", patience.as_secs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all servers run and agree, and everything is settled.
    pub fn await_health(&self) -> Status {
        self.await_health_for(PATIENCE)
    }

    /// The same, for as long as a move of much data may take.
    pub fn await_health_for(&self, patience: Duration) -> Status {
        self.await_status_for(patience, "everything healthy and settled", |status| {
            (status.settled && status.is_healthy()).then(|| status.clone())
        })
    }

    /// The name of the leader of a group (0: the controllers), when there is one.
    pub fn leader(&self, gid: u64) -> String {
        self.await_status("a leader", |status| {
            let leaders = status.group(gid).iter().filter(|replica| replica.leads());
            leaders.max_by_key(|replica| replica.term).map(|replica| replica.name.clone())
        })
    }

    /// All processes by name.
    pub fn pids(&self) -> BTreeMap<String, u32> {
        let status = self.status();
        status.replicas().filter_map(|replica| Some((replica.name.clone(), replica.pid?))).collect()
    }

    /// How clients find it.
    pub fn target(&self) -> Target {
        let status = self.status();
        let controllers = status.controllers.iter().map(|replica| replica.address.clone()).collect();
        Target { cluster: status.cluster, controllers }
    }
}
