//! The command line as a program, as far as it works without servers: exit codes, where answers go,
//! and the errors when something is missing. (The contract on a real cluster: integration-tests.)

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

const VERBS: [&str; 21] = [
    "up",
    "down",
    "add-group",
    "kill",
    "start",
    "logs",
    "get",
    "put",
    "append",
    "delete",
    "load",
    "dump",
    "join",
    "leave",
    "move",
    "query",
    "history",
    "status",
    "bench",
    "check",
    "completions",
];

fn command(program: &Path, directory: &TempDir, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).current_dir(directory.path()).stdin(Stdio::null());
    command.env_remove("CLERK_DIR").env_remove("CLERK_CONTROLLERS");
    command
}

fn clerk(directory: &TempDir, line: &str) -> Output {
    command(Path::new(CLERK), directory, line).output().expect("clerk runs")
}

fn empty() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one document on standard output.
fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("one document: {}", text(&output.stdout)))
}

#[test]
fn help_and_version_are_no_failures_and_every_verb_has_an_example() {
    let directory = empty();
    assert_eq!(clerk(&directory, "--version").status.code(), Some(0));
    let help = clerk(&directory, "--help");
    assert_eq!(help.status.code(), Some(0));
    for verb in VERBS {
        assert!(text(&help.stdout).contains(verb), "{verb}");
        let help = clerk(&directory, &format!("{verb} --help"));
        assert_eq!(help.status.code(), Some(0));
        let help = text(&help.stdout);
        assert!(help.contains("Example") && help.contains(&format!("clerk {verb}")), "{verb}: {help}");
    }
}

#[test]
fn a_wrong_call_exits_with_2_and_touches_nothing() {
    let directory = empty();
    for line in [
        "",
        "frobnicate",
        "get",
        "up --groups 0",
        "join",
        "join 0",
        "join 103=nowhere",
        "kill 1.2.3",
        "down 101 --purge",
        "move seven 101",
        "bench --reads 60 --appends 60",
        "bench --rate 0",
        "bench --phase clients=8",
        "bench --phase a,rate=fast",
        "bench --phase a --phase a",
        "bench --skew 1",
        "bench compare one.json",
        "bench --clients 3 compare one.json two.json",
        "bench scaling --groups 4,2",
        "bench scaling --rate 10",
        "bench scaling --replica-cpu 0",
        "get key --timeout -1",
        "get key --dir a --controllers b:1",
    ] {
        let output = clerk(&directory, line);
        assert_eq!(output.status.code(), Some(2), "clerk {line}");
        assert!(output.stdout.is_empty(), "clerk {line}");
        assert!(!output.stderr.is_empty(), "clerk {line}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn errors_are_documents_for_programs_also_of_a_wrong_call() {
    let directory = empty();
    for (line, code, exit) in [
        ("get key -o json", "no_cluster", 1),
        ("-o json status", "no_cluster", 1),
        ("frobnicate -o json", "usage", 2),
        ("get --output=json", "usage", 2),
        ("bench --reads 101 -o json", "usage", 2),
        ("bench --rate 0 -o json", "usage", 2),
        ("bench --workload nothing.toml -o json", "io", 1),
        ("bench compare nothing.json nothing.json -o json", "io", 1),
        ("load nothing.tsv -o json", "no_cluster", 1),
    ] {
        let output = clerk(&directory, line);
        assert_eq!(output.status.code(), Some(exit), "clerk {line}");
        let error = &document(&output)["error"];
        assert_eq!(error["code"], code, "clerk {line}");
        assert!(error["message"].is_string() && error["next"].is_string(), "clerk {line}");
        assert!(output.stderr.is_empty(), "clerk {line}: {}", text(&output.stderr));
    }
}

#[test]
fn stopping_nothing_is_no_failure() {
    let directory = empty();
    for line in ["down", "down --purge", "down -o json"] {
        assert_eq!(clerk(&directory, line).status.code(), Some(0));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn the_directory_comes_from_the_command_line_or_the_environment() {
    let directory = empty();
    let said = |mut command: Command| text(&command.output().unwrap().stderr);
    let plain = |line: &str| command(Path::new(CLERK), &directory, line);
    assert!(said(plain("status")).contains("clerk-data"));
    let mut both = plain("status --dir one");
    both.env("CLERK_DIR", "two").env("CLERK_CONTROLLERS", "127.0.0.1:1");
    assert!(said(both).contains("one"));
    let mut environment = plain("status");
    environment.env("CLERK_DIR", "two");
    assert!(said(environment).contains("two"));
}

#[test]
fn controllers_that_do_not_answer_are_unavailable() {
    let directory = empty();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for verb in ["get key", "put key value", "query", "status", "leave 101"] {
        let output =
            clerk(&directory, &format!("{verb} --controllers 127.0.0.1:{port} --timeout 0.3 -o json"));
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert_eq!(document(&output)["error"]["code"], "unavailable", "{verb}");
    }
}

/// A cluster of which nothing runs.
fn dead_cluster() -> TempDir {
    let directory = empty();
    // As clerk writes it: the checksum is of these very bytes.
    let server = |group: u64, port: u16| {
        format!(r#"{{"group":{group},"id":1,"address":"127.0.0.1:{port}","made":true}}"#)
    };
    let servers = format!(r#"{{"101.1":{},"ctrl.1":{}}}"#, server(101, 2), server(0, 1));
    let sizes = r#""shards":4,"replicas":1,"groups":1,"joined":true"#;
    let cluster = format!(r#"{{"format":2,"cluster":"blue",{sizes},"servers":{servers}}}"#);
    let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(cluster.as_bytes());
    let cluster = format!(r#"{{"cluster":{cluster},"checksum":{checksum}}}"#);
    let data = directory.path().join("clerk-data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("cluster.json"), cluster).unwrap();
    directory
}

#[test]
fn the_status_of_a_dead_cluster_has_its_shape() {
    let directory = dead_cluster();
    let output = clerk(&directory, "status -o json");
    assert_eq!(output.status.code(), Some(0));
    let status = document(&output);
    assert_eq!(status["cluster"], "blue");
    assert_eq!(status["settled"], false);
    assert_eq!(status["controllers"][0]["name"], "ctrl.1");
    let group = &status["groups"][0];
    assert_eq!((&group["gid"], &group["joined"]), (&Value::from(101), &Value::from(false)));
    let server = group["replicas"][0].as_object().unwrap();
    let names = [
        "name",
        "address",
        "pid",
        "up",
        "role",
        "term",
        "leader",
        "commit",
        "applied",
        "log_bytes",
        "table_hash",
        "unapplied_bytes",
        "wal_syncs",
        "slow_syncs",
        "followers",
        "sessions",
        "behind",
        "config",
        "digest",
        "wipes",
        "refused",
        "refused_by",
        "owes",
        "refused_messages",
        "alarms",
        "last_alarm",
        "table_bad",
        "refused_peers",
        "connections",
        "disk",
        "http",
        "pace",
    ];
    assert!(names.iter().all(|name| server.contains_key(*name)) && server.len() == names.len());
    assert_eq!(server["up"], false);
}

#[test]
fn a_dead_cluster_is_unavailable_and_its_servers_are_not_running() {
    let directory = dead_cluster();
    let get = clerk(&directory, "get key --timeout 0.5 -o json");
    assert_eq!(get.status.code(), Some(1));
    assert_eq!(document(&get)["error"]["code"], "unavailable");
    let kill = clerk(&directory, "kill 101.1 -o json");
    assert_eq!(
        (kill.status.code(), &document(&kill)["error"]["code"]),
        (Some(1), &Value::from("not_running"))
    );
    let kill = clerk(&directory, "kill 101.7 -o json");
    assert_eq!(document(&kill)["error"]["code"], "unknown_server");
    assert_eq!(clerk(&directory, "up --groups 2").status.code(), Some(2));
    assert_eq!(clerk(&directory, "down --purge").status.code(), Some(0));
    assert!(!directory.path().join("clerk-data").exists());
}

/// The program in a directory of its own, with these servers beside it.
fn installed(server: Option<&str>) -> TempDir {
    let directory = empty();
    std::fs::copy(CLERK, directory.path().join("clerk")).unwrap();
    for name in ["shardctrler", "shardkv"] {
        if let Some(script) = server {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    directory
}

#[test]
fn servers_that_are_missing_are_told() {
    let directory = installed(None);
    let output = command(&directory.path().join("clerk"), &directory, "up -o json").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(document(&output)["error"]["code"], "missing_program");
}

#[test]
fn a_failed_start_shows_the_last_words_of_the_server() {
    let directory = installed(Some("echo 'shardctrler: the moon is in the wrong place' >&2; exit 1"));
    let program = directory.path().join("clerk");
    let output = command(&program, &directory, "up --groups 1 --replicas 1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the moon is in the wrong place"), "{}", text(&output.stderr));
    // The first start made nothing, so the next one may be a first start again.
    let directory_of = directory.path().join("clerk-data").join("ctrl.1");
    assert!(directory_of.exists());
    let second = command(&program, &directory, "up").output().unwrap();
    assert!(text(&second.stderr).contains("the moon is in the wrong place"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let directory = empty();
    let mut child = command(Path::new(CLERK), &directory, "completions bash")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn ctrl_c_exits_with_130() {
    let directory = dead_cluster();
    // Waits for a value that never comes.
    let mut child = command(Path::new(CLERK), &directory, "put key - -o json")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    let mut answer = String::new();
    child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(answer.contains("\"interrupted\""), "{answer}");
}

/// Controllers that take connections and say nothing, as a stopped process does, and some that are not there.
#[test]
fn the_time_of_a_command_is_kept_both_ways() {
    let directory = empty();
    let silent: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    let controllers = silent.iter().map(at).collect::<Vec<_>>().join(",");
    for verb in
        ["get a", "put a 1", "join 103", "leave 101", "move 1 101", "query", "history", "status", "dump"]
    {
        for at in [controllers.as_str(), "127.0.0.1:1,127.0.0.1:2"] {
            let started = std::time::Instant::now();
            let line = format!("--controllers {at} --timeout 1.5 {verb} -o json");
            let output = clerk(&directory, &line);
            let took = started.elapsed();
            assert_eq!(document(&output)["error"]["code"], "unavailable", "{line}");
            let message = document(&output)["error"]["message"].as_str().unwrap().to_owned();
            assert!(at.split(',').all(|address| message.contains(address)), "{line}: {message}");
            assert!(took >= Duration::from_millis(1400) && took < Duration::from_secs(4), "{line}: {took:?}");
        }
    }
}

/// Asked again, they would say the same.
#[test]
fn programs_that_are_no_controllers_are_not_waited_for() {
    let directory = empty();
    let others: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at = others
        .iter()
        .map(|listener| listener.local_addr().unwrap().to_string())
        .collect::<Vec<_>>()
        .join(",");
    for listener in others {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 512]);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
    }
    let started = std::time::Instant::now();
    let output = clerk(&directory, &format!("--controllers {at} --timeout 9 get a -o json"));
    let message = document(&output)["error"]["message"].as_str().unwrap().to_owned();
    assert!(at.split(',').all(|address| message.contains(address)), "{message}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
