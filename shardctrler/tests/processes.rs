//! Three controllers as real processes on real disks and sockets: what they keep across `kill -9`,
//! and what they say when they cannot start.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clerk::api::config::{NewGroup, Place};
use clerk::api::ctrl::{Change, News};
use clerk::api::status::Role;
use clerk::api::{ConfigNum, GroupId, Incarnation};
use clerk::connection::{Options, TarpcConnection};
use clerk::ctrl::CtrlClerk;

/// Three servers; those that run are killed at the end.
struct Cluster {
    directory: tempfile::TempDir,
    ports: [u16; 3],
    running: BTreeMap<usize, Child>,
}

impl Cluster {
    fn new() -> Self {
        // Held together, so that the three ports differ.
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free.map(|listener| listener.local_addr().unwrap().port());
        Self { directory: tempfile::tempdir().unwrap(), ports, running: BTreeMap::new() }
    }

    fn addresses(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    fn data(&self, id: usize) -> PathBuf {
        self.directory.path().join(format!("ctrl.{id}"))
    }

    /// The command that starts server `id`.
    fn command(&self, id: usize) -> Command {
        let members = (1..).zip(self.addresses()).map(|(id, address)| format!("{id}={address}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardctrler"));
        command.args([
            "--cluster",
            "test",
            "--id",
            &id.to_string(),
            "--shards",
            "10",
            "--heartbeat-ms",
            "50",
        ]);
        command.args(["--election-ms", "250", "--listen", &self.addresses()[id - 1], "--members"]);
        command.arg(members.collect::<Vec<_>>().join(",")).arg("--data-dir").arg(self.data(id));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn start(&mut self, id: usize, extra: &[&str]) {
        let child = self.command(id).args(extra).stderr(Stdio::inherit()).spawn().unwrap();
        self.running.insert(id, child);
    }

    /// SIGKILL.
    fn kill(&mut self, id: usize) {
        let mut child = self.running.remove(&id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn clerk(&self) -> CtrlClerk {
        let connection = Arc::new(TarpcConnection::new(Options::of("test")));
        CtrlClerk::new(connection, self.addresses(), 7).with_deadline(Duration::from_secs(20))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn join(key: u64, id: u64) -> Change {
    let group = NewGroup { key, incarnation: Incarnation(id), addresses: vec![format!("host:{id}")] };
    Change::Join(BTreeMap::from([(GroupId(id), group)]))
}

async fn leader(clerk: &CtrlClerk) -> Option<usize> {
    let statuses = clerk.statuses().await;
    let leads = |(_, status): &(String, Result<clerk::api::status::CtrlStatus, String>)| {
        status
            .as_ref()
            .ok()
            .filter(|status| status.replica.role == Role::Leader)
            .map(|status| status.replica.id)
    };
    statuses.iter().find_map(leads).map(|id| id as usize)
}

#[tokio::test]
async fn configurations_survive_the_leader_and_then_all_controllers_being_killed() {
    let mut cluster = Cluster::new();
    (1..=3).for_each(|id| cluster.start(id, &["--new"]));
    let clerk = cluster.clerk();
    let key = clerk.query(None).await.unwrap().0.key;
    assert_eq!(clerk.change(join(key, 101)).await.unwrap().config, ConfigNum(1));

    let old = leader(&clerk).await.expect("who answered leads");
    cluster.kill(old);
    assert_eq!(clerk.change(join(key, 102)).await.unwrap().moves.len(), 5);
    cluster.start(old, &[]);
    let before = clerk.query(None).await.unwrap();
    // Any controller answers with what it has, even the one that has just returned.
    let after = |num| Place { num: ConfigNum(num), ..Place::default() };
    let news = clerk.watch(after(1), 1).await.unwrap();
    assert_eq!((news.configs.len(), news.book.version), (1, 2));
    let start = std::time::Instant::now();
    let (configs, book) = loop {
        let News { configs, book, .. } = clerk.watch(after(0), 0).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "a controller lags: {configs:?}");
        if book.version == news.book.version {
            break (configs, book);
        }
    };
    assert_eq!((configs.len(), book.version), (2, 2));

    (1..=3).for_each(|id| cluster.kill(id));
    (1..=3).for_each(|id| cluster.start(id, &[]));
    assert_eq!(clerk.query(None).await.unwrap(), before);
    assert_eq!(clerk.change(join(key, 103)).await.unwrap().config, ConfigNum(3));
}

/// Runs a server that must not start; returns its stderr.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn contains_files(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

#[tokio::test]
async fn a_start_that_cannot_succeed_says_why_in_one_line() {
    let mut cluster = Cluster::new();
    assert!(refusal(&mut cluster.command(1)).contains("--new"), "an empty directory");
    assert!(!contains_files(&cluster.data(1)));
    (1..=2).for_each(|id| cluster.start(id, &["--new"]));
    cluster.clerk().query(None).await.unwrap();

    let elsewhere = |cluster: &Cluster, id: usize| {
        let mut command = cluster.command(id);
        command.args(["--listen", "127.0.0.1:0"]);
        command
    };
    assert!(refusal(&mut cluster.command(1)).contains("in use by shardctrler"), "a busy port");
    let other = cluster.data(9);
    refusal(cluster.command(1).arg("--new").arg("--data-dir").arg(&other));
    assert!(!contains_files(&other), "a busy port is told before anything is written");
    let running = cluster.running[&1].id().to_string();
    assert!(refusal(&mut elsewhere(&cluster, 1)).contains(&running), "a second process on a directory");
    assert!(refusal(cluster.command(1).args(["--id", "4"])).contains("not among --members"));

    cluster.kill(1);
    let mut wrong = elsewhere(&cluster, 3);
    assert!(
        refusal(wrong.arg("--data-dir").arg(cluster.data(1))).contains("1"),
        "another server's directory"
    );
    assert!(refusal(elsewhere(&cluster, 1).args(["--cluster", "other"])).contains("other"));
    std::fs::remove_dir_all(cluster.data(1)).unwrap();
    std::fs::create_dir(cluster.data(1)).unwrap();
    assert!(refusal(&mut cluster.command(1)).contains("--new"), "an emptied directory");
}

#[tokio::test]
async fn a_stopped_server_ends_with_0_and_its_log_tells_its_life() {
    let mut cluster = Cluster::new();
    (1..=3).for_each(|id| cluster.start(id, &["--new"]));
    cluster.clerk().query(None).await.unwrap();
    let mut child = cluster.running.remove(&2).unwrap();
    let stopped = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(stopped.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(cluster.data(2).join("log")).unwrap();
    for expected in ["serving", "group=\"ctrl\" node=2", "leader=Some(", "SIGTERM", "stopped"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
}
