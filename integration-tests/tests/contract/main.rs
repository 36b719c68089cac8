//! The contract for scripts (docs/cli.md) on real clusters: output, and how commands end.

mod bench;
mod files;
mod logs;
mod moving;
mod page;
mod placing;
mod servers;
mod top;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use judge::history;
use judge::linearizability;
use real::{Answer, Cluster, Place, binary, run, together};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster for tests that only read and write their own keys. Its reaper ends it with this
/// process.
fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::up(&["--groups", "2", "--replicas", "1"]))
}

fn keys_of(document: &Value) -> Vec<&str> {
    document.as_object().unwrap_or_else(|| panic!("{document}")).keys().map(String::as_str).collect()
}

#[test]
fn keys_are_read_and_written() {
    let _machine = together();
    let cluster = shared();
    let put = cluster.json(&["put", "a", "one"]);
    let first = put["version"].as_u64().unwrap();
    assert_eq!(put, json!({"key": "a", "version": first}));
    assert_eq!(cluster.json(&["append", "a", " two"]), json!({"key": "a", "version": first + 1}));
    assert_eq!(cluster.json(&["get", "a"]), json!({"key": "a", "value": "one two", "version": first + 1}));
    assert_eq!(cluster.ok(&["get", "a"]), "one two\n");
    assert_eq!(cluster.ok(&["get", "a", "--raw"]), "one two");
    assert_eq!(cluster.json(&["delete", "a"])["key"], "a");
    let missing = cluster.clerk(&["get", "a"]);
    assert_eq!((missing.code, missing.text()), (Some(1), String::new()));
    assert!(missing.stderr.contains('a'), "{}", missing.stderr);
    assert_eq!(cluster.fails(1, &["get", "a"]), "not_found");
    // A version is never used again, not even after a delete.
    let version = cluster.json(&["put", "a", "three"])["version"].as_u64().unwrap();
    assert!(version > first + 1, "{version}");
    assert_eq!(cluster.clerk_reading(&["put", "piped", "-"], "from\nstdin\n").code, Some(0));
    assert_eq!(cluster.ok(&["get", "--raw", "piped"]), "from\nstdin\n");
    cluster.ok(&["put", "empty", ""]);
    assert_eq!(cluster.json(&["get", "empty"])["value"], "");
    // Values that look like options.
    cluster.ok(&["put", "number", "-1"]);
    assert_eq!(cluster.ok(&["get", "number"]), "-1\n");
}

#[test]
fn a_conditional_put_compares_versions() {
    let _machine = together();
    let cluster = shared();
    let put = |version: &str, value: &str| {
        cluster.clerk(&["put", "cas", value, "--if-version", version, "-o", "json"])
    };
    assert_eq!(put("3", "x").error(1), "version_mismatch");
    let version = put("0", "first").json()["version"].as_u64().unwrap();
    assert_eq!(put("0", "again").error(1), "version_mismatch");
    assert_eq!(put(&version.to_string(), "second").json()["version"], version + 1);
    assert_eq!(put(&version.to_string(), "again").error(1), "version_mismatch");
    assert_eq!(cluster.ok(&["get", "cas"]), "second\n");
}

#[test]
fn bytes_that_are_not_text_are_base64() {
    let _machine = together();
    let cluster = shared();
    let key = OsStr::from_bytes(b"k\xff\xfe");
    let with_key = |verb: &str, input: Option<&[u8]>| {
        let mut command = cluster.command(&["-o", "json", verb]);
        command.arg(key);
        if input.is_some() {
            command.arg("-");
        }
        run(&mut command, input.map(<[u8]>::to_vec), LIMIT).json()
    };
    let shown = json!({"base64": "a//+"});
    assert_eq!(with_key("put", Some(&[0, 0xff, 0]))["key"], shown);
    let got = with_key("get", None);
    assert_eq!((&got["key"], &got["value"]), (&shown, &json!({"base64": "AP8A"})));
    let mut raw = cluster.command(&["get", "--raw"]);
    assert_eq!(run(raw.arg(key), None, LIMIT).stdout, [0, 0xff, 0]);
}

#[test]
fn usage_errors_end_with_2_and_are_json_if_asked() {
    let _machine = together();
    let cluster = shared();
    let calls: [&[&str]; 5] = [
        &["frobnicate"],
        &["get"],
        &["move", "x", "101"],
        &["put", "k", "v", "--if-version", "x"],
        &["kill", "1.2.3"],
    ];
    for call in calls {
        assert_eq!(cluster.fails(2, call), "usage", "{call:?}");
        let answer = cluster.clerk(call);
        assert_eq!((answer.code, answer.text()), (Some(2), String::new()), "{call:?}");
        assert!(!answer.stderr.is_empty());
    }
    assert_eq!(cluster.fails(2, &["up", "--replicas", "5"]), "usage");
    assert_eq!(cluster.fails(2, &["up", "--shards", "10"]), "usage");
    assert_eq!(cluster.fails(2, &["bench", "--reads", "90", "--appends", "20"]), "usage");
}

#[test]
fn help_version_and_completions_are_there() {
    let _machine = together();
    let cluster = shared();
    assert!(cluster.ok(&["--version"]).starts_with("clerk "));
    let help = cluster.ok(&["--help"]);
    const VERBS: &str = "up down add-group kill start logs get put append delete load dump join leave move weight pin unpin balance declare-lost move-rate query \
                         history status recover-controllers bench check page slow log-level top completions";
    for verb in VERBS.split_whitespace() {
        assert!(help.contains(verb), "{verb} in {help}");
        let text = cluster.ok(&[verb, "--help"]);
        assert!(text.contains("Example") && text.contains(&format!("clerk {verb}")), "{text}");
    }
    assert!(cluster.ok(&["completions", "bash"]).contains("clerk"));
}

#[test]
fn clusters_are_found_by_directory_by_controllers_and_by_environment() {
    let _machine = together();
    let cluster = shared();
    cluster.ok(&["put", "found", "yes"]);
    let controllers = cluster.target().controllers.join(",");
    let get = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = std::process::Command::new(real::binary("clerk"));
        command.current_dir("/").env_remove("CLERK_DIR").env_remove("CLERK_CONTROLLERS");
        change(&mut command);
        run(command.args(["get", "found"]), None, LIMIT)
    };
    let found: [&dyn Fn(&mut std::process::Command); 4] = [
        &|command| _ = command.arg("--dir").arg(cluster.path()),
        &|command| _ = command.args(["--controllers", &controllers]),
        &|command| _ = command.env("CLERK_DIR", cluster.path()),
        &|command| _ = command.env("CLERK_CONTROLLERS", &controllers),
    ];
    for way in found {
        let answer = get(way);
        assert_eq!((answer.code, answer.text().as_str()), (Some(0), "yes\n"), "{}", answer.stderr);
    }
    let nowhere = get(&|command| _ = command.args(["--dir", "/nowhere/at/all", "-o", "json"]));
    nowhere.error(1);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let _machine = together();
    let cluster = shared();
    let lines: String = (0..3_000).map(|number| format!("head-{number:05}\t{}\n", "v".repeat(100))).collect();
    assert_eq!(cluster.clerk_reading(&["load", "-"], lines).code, Some(0));
    let mut dump = cluster.command(&["dump"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(dump.stdout.take());
    let ended = dump.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}
