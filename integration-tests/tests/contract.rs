//! The contract for scripts (docs/cli.md) on real clusters: what is printed, and how commands end.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use integration_tests::history;
use integration_tests::linearizability;
use integration_tests::real::{Answer, Cluster, Place, binary, run, together};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster for tests that only read and write keys of their own. Its reaper ends it with this process.
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
    // A version never returns, over a delete either.
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
    const VERBS: &str = "up down add-group kill start logs get put append delete load dump join leave move query \
                         history status recover-controllers bench check completions";
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
        let mut command = std::process::Command::new(integration_tests::real::binary("clerk"));
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

#[test]
fn what_was_dumped_can_be_loaded() {
    let _machine = together();
    let size = ["--groups", "1", "--replicas", "1", "--shards", "8"];
    let (from, to) = (Cluster::up(&size), Cluster::up(&size));
    let file = from.path().join("records.tsv");
    fs::write(&file, "b\ttab \\t newline \\n backslash \\\\\na\tone\nä\tgröße\nempty\t\nb2\tlast\n").unwrap();
    let loaded = from.json(&["load", &file.display().to_string()]);
    assert_eq!(loaded["loaded"], 5, "{loaded}");
    assert_eq!(from.ok(&["get", "--raw", "b"]), "tab \t newline \n backslash \\");
    let dump = from.ok(&["dump"]);
    let keys: Vec<&str> = dump.lines().map(|line| line.split('\t').next().unwrap()).collect();
    let [first, keys @ .., last] = &keys[..] else { panic!("{dump}") };
    assert_eq!(keys, ["a", "b", "b2", "empty", "ä"], "sorted by key");
    assert_eq!(*first, "# clerk dump 1");
    assert!(last.starts_with("# end of dump: 5 records, crc32 "), "{last}");
    assert_eq!(to.clerk_reading(&["load", "-"], dump.clone()).code, Some(0));
    assert_eq!(to.ok(&["dump"]), dump);
    let bad = to.clerk_reading(&["load", "-", "-o", "json"], "no tab here\n");
    assert_eq!(bad.error(1), "bad_input");
}

#[test]
fn a_file_that_is_not_whole_is_refused_before_anything_is_written() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1", "--shards", "8"]);
    let file = cluster.path().join("records.tsv").display().to_string();
    let records: String = (0..500).map(|number| format!("key-{number:03}\tvalue\n")).collect();
    cluster.clerk_reading(&["load", "-"], records.clone()).text();
    let dump = cluster.ok(&["dump"]);
    let empty = Cluster::up(&["--groups", "1", "--replicas", "1", "--shards", "8"]);
    let nothing = empty.ok(&["dump"]);
    let (cut, changed) = (&dump[..dump.len() / 2 + 3], dump.replacen("value", "Value", 1));
    for part in [cut, changed.as_str(), &dump[..dump.len() - 1], &records[..records.len() - 1]] {
        fs::write(&file, part).unwrap();
        assert_eq!(empty.fails(1, &["load", &file]), "incomplete");
        assert_eq!(empty.ok(&["dump"]), nothing, "nothing was loaded");
    }
    fs::write(&file, "a\tone\nno tab\n").unwrap();
    assert_eq!(empty.fails(1, &["load", &file]), "bad_input");
    assert_eq!(empty.ok(&["dump"]), nothing, "nothing was loaded");

    // A pipe is read only once: its end is missed after the rest has been loaded.
    let piped = empty.clerk_reading(&["load", "-", "-o", "json"], cut);
    assert_eq!(piped.error(1), "incomplete");
    let whole_lines = cut.lines().count() - 2;
    let message = piped.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with(&format!("; {whole_lines} records before that were loaded")), "{message}");

    fs::write(&file, cut).unwrap();
    let partial = empty.json(&["load", &file, "--partial"]);
    assert_eq!(keys_of(&partial), ["loaded", "missing", "seconds"]);
    assert_eq!(partial["loaded"], whole_lines);
    assert!(partial["missing"].is_string(), "{partial}");
    fs::write(&file, &dump).unwrap();
    assert_eq!(empty.json(&["load", &file])["missing"], Value::Null);
    assert_eq!(empty.ok(&["dump"]), dump);
}

#[test]
fn servers_are_given_nothing_but_their_standard_files() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    let held = cluster.path().join("held");
    cluster.ok(&["kill", "101.1"]);
    // What a shell gives to the programs it starts: a lock, the end of a pipe.
    let start = cluster.command(&["start", "101.1"]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 7>\"$0\"; exec \"$@\""])
        .arg(&held)
        .arg(start.get_program())
        .args(start.get_args());
    let answer = run(&mut shell, None, LIMIT);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(held.exists());
    let pid = cluster.pids()["101.1"];
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<_> = open.flatten().filter_map(|file| fs::read_link(file.path()).ok()).collect();
    assert!(open.len() > 3, "{open:?}");
    assert!(!open.contains(&held), "{open:?}");
}

#[test]
fn a_directory_is_judged_while_its_server_is_down() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    cluster.ok(&["put", "a", "one"]);
    for name in ["101.1", "ctrl.1"] {
        let place = cluster.path().join(name);
        let directory = place.display().to_string();
        assert_eq!(cluster.fails(1, &["check", &directory]), "not_checked", "it runs");
        cluster.ok(&["down", name]);
        let report = cluster.json(&["check", &directory]);
        assert_eq!(keys_of(&report), ["directory", "parts", "server", "sound"]);
        let keys = ["cluster", "group", "incarnation", "key", "members", "node"];
        assert_eq!((keys_of(&report["server"]), &report["sound"]), (keys.to_vec(), &json!(true)), "{report}");
        let parts: Vec<&str> =
            report["parts"].as_array().unwrap().iter().map(|part| part["part"].as_str().unwrap()).collect();
        assert_eq!(parts, ["identity", "peers", "log", "table", "log and table"]);
        assert!(cluster.ok(&["check", &directory]).contains("identity       sound"));

        let identity = fs::read(place.join("identity")).unwrap();
        fs::write(place.join("identity"), &identity[..identity.len() - 2]).unwrap();
        let report = cluster.clerk(&["check", &directory, "-o", "json"]);
        assert_eq!((report.code, &report.json()["parts"][0]["verdict"]), (Some(1), &json!("damaged")));
        assert_eq!(report.json()["sound"], false);
        fs::write(place.join("identity"), identity).unwrap();
        cluster.ok(&["start", name]);
    }
    assert_eq!(cluster.ok(&["get", "a"]), "one\n", "as it was");
    assert_eq!(cluster.fails(1, &["check", "/nowhere/at/all"]), "not_checked");
    assert_eq!(cluster.fails(2, &["check", &cluster.path().display().to_string()]), "usage");
}

#[test]
fn configurations_are_asked_for_and_changed() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let first = cluster.json(&["query"]);
    assert_eq!(
        (keys_of(&first), &first["num"]),
        (vec!["digest", "groups", "key", "num", "shards"], &json!(1))
    );
    assert_eq!(keys_of(&first["groups"]), ["101", "102"]);
    assert_eq!(first["groups"]["101"].as_array().map(Vec::len), Some(1));
    assert_eq!(cluster.json(&["query", "0"])["shards"], json!(vec![0; 12]));

    let added = cluster.json(&["add-group", "103", "--replicas", "1"]);
    assert_eq!(added["gid"], 103);
    let plan = cluster.json(&["join", "103", "--dry-run"]);
    assert_eq!(plan["moves"].as_array().map(Vec::len), Some(4), "{plan}");
    assert_eq!(cluster.json(&["query"]), first, "a dry run changes nothing");
    let joined = cluster.json(&["join", "103"]);
    assert_eq!(keys_of(&joined), ["config", "moves", "seconds", "settled"]);
    assert_eq!(
        (&joined["config"], &joined["settled"], &joined["moves"]),
        (&json!(2), &json!(true), &plan["moves"])
    );
    assert!(joined["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let one = &joined["moves"][0];
    assert_eq!((keys_of(one), &one["to"]), (vec!["from", "shard", "to"], &json!(103)));
    // The same once more is harmless.
    assert_eq!(cluster.json(&["join", "103"])["moves"], json!([]));

    let shards = &cluster.json(&["query"])["shards"];
    let to = if shards[5] == 101 { "102" } else { "101" };
    let moved = cluster.json(&["move", "5", to]);
    assert_eq!(moved["moves"].as_array().map(Vec::len), Some(1), "{moved}");
    assert_eq!(cluster.json(&["query"])["shards"][5].to_string(), to);
    assert_eq!(cluster.json(&["leave", "103", "--no-wait"])["settled"], false);
    cluster.await_health();

    // The last group leaves only by force; its shards wait with it, and come back with all they hold.
    cluster.ok(&["put", "kept", "yes"]);
    assert_eq!(cluster.fails(1, &["leave", "101", "102"]), "last_group");
    let forced = cluster.json(&["leave", "101", "102", "--force"]);
    assert_eq!(forced["settled"], true, "{forced}");
    assert_eq!(cluster.json(&["query"])["shards"], json!(vec![0; 12]));
    assert_eq!(cluster.json(&["query"])["groups"], json!({}));
    assert_eq!(cluster.fails(1, &["get", "kept", "--timeout", "1"]), "unavailable");
    cluster.ok(&["join", "103"]);
    assert_eq!(cluster.ok(&["get", "kept"]), "yes\n");

    let history = cluster.json(&["history"]);
    let configs = history["configs"].as_array().unwrap();
    let numbers: Vec<u64> = configs.iter().map(|config| config["num"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..configs.len() as u64).collect::<Vec<_>>());
    assert_eq!(configs[1]["shards"], first["shards"]);
}

#[test]
fn the_status_tells_of_servers_that_are_down_and_waiting_has_an_end() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--shards", "8"]);
    let document = cluster.json(&["status"]);
    assert_eq!(
        keys_of(&document),
        ["cluster", "config", "controllers", "digest", "groups", "key", "params", "settled"]
    );
    const SERVER: [&str; 26] = [
        "address",
        "alarms",
        "applied",
        "behind",
        "commit",
        "config",
        "connections",
        "digest",
        "disk",
        "last_alarm",
        "leader",
        "log_bytes",
        "name",
        "owes",
        "pid",
        "refused",
        "refused_by",
        "refused_messages",
        "refused_peers",
        "role",
        "table_bad",
        "table_hash",
        "term",
        "up",
        "wal_syncs",
        "wipes",
    ];
    assert_eq!(keys_of(&document["controllers"][0]), SERVER);
    const GROUP: [&str; 12] = [
        "config",
        "digest",
        "gid",
        "history",
        "history_text",
        "incarnation",
        "joined",
        "key",
        "lost_data",
        "registered",
        "replicas",
        "shards",
    ];
    assert_eq!(keys_of(&document["groups"][0]), GROUP);
    assert_eq!(document["groups"][0]["history"], "ok");
    assert_eq!(document["groups"][0]["digest"], document["digest"]);
    assert_eq!(keys_of(&document["groups"][0]["replicas"][0]), SERVER);
    let shard = ["bytes", "peer", "progress", "rows", "shard", "state"];
    assert_eq!(keys_of(&document["groups"][0]["shards"][0]), shard);
    assert!(cluster.ok(&["status"]).contains("101.1"));

    assert_eq!(cluster.json(&["kill", "101.2"])["killed"], json!(["101.2"]));
    assert_eq!(cluster.fails(1, &["kill", "101.2"]), "not_running");
    let status = cluster.status();
    let down = status.group(101).iter().find(|replica| replica.name == "101.2").unwrap();
    assert!(!down.up && down.role.is_none() && down.pid.is_none(), "{down:?}");
    assert!(status.settled, "a majority is enough");
    assert_eq!(cluster.json(&["start", "101.2"])["started"], json!(["101.2"]));
    assert!(cluster.ok(&["logs", "101.2"]).lines().count() > 1);
    cluster.await_health();

    // Without a majority: nothing settles, a write's outcome is unknown, and nobody waits for ever.
    let shards = cluster.json(&["query"])["shards"].clone();
    let of_101 = (0..8).find(|shard| shards[*shard] == 101).unwrap().to_string();
    let shard_of = |key: &String| clerk::api::config::shard_of(key.as_bytes(), 8).0 as usize;
    let key = (0..).map(|number| format!("key-{number}")).find(|key| shards[shard_of(key)] == 102).unwrap();
    let leader = cluster.leader(102);
    let others: Vec<&str> = ["102.1", "102.2", "102.3"].into_iter().filter(|name| *name != leader).collect();
    let mut load = cluster.command(&["load", "-", "-o", "json", "--timeout", "3"]);
    let mut load = load.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = load.stdin.take().unwrap();
    lines.write_all(format!("{key}\tbefore\n").as_bytes()).unwrap();
    cluster.await_status("the first line is stored", |_| {
        (cluster.clerk(&["get", &key]).code == Some(0)).then_some(())
    });
    cluster.ok(&["kill", others[0], others[1]]);
    lines.write_all(format!("{key}\tperhaps\n").as_bytes()).unwrap();
    drop(lines);
    let load = load.wait_with_output().unwrap();
    let said = Answer { code: load.status.code(), stdout: load.stdout, stderr: String::new() };
    assert_eq!(said.error(4), "unknown");
    assert_eq!(cluster.fails(1, &["get", &key, "--timeout", "1"]), "unavailable");
    let late = cluster.clerk(&["move", &of_101, "102", "--timeout", "2", "-o", "json"]);
    assert_eq!((late.code, &late.json()["settled"]), (Some(3), &json!(false)), "{}", late.stderr);

    // Ctrl-C leaves the move running, and says so.
    let mut waiting = cluster.command(&["join", "101"]);
    let waiting = waiting.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    let waiting = waiting.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&waiting.stderr);
    assert_eq!(waiting.status.code(), Some(130), "{said}");
    assert!(said.contains("go on without this command"), "{said}");
    cluster.ok(&["start", "102"]);
    let status = cluster.await_health();
    assert!(status.groups[1].shards.iter().any(|shard| shard.shard.to_string() == of_101), "{status:?}");
    let value = cluster.ok(&["get", &key]);
    assert!(["before\n", "perhaps\n"].contains(&&*value), "{value:?}");

    assert_eq!(cluster.fails(1, &["kill", "103"]), "unknown_server");
    cluster.ok(&["down"]);
    cluster.ok(&["down"]);
    assert_eq!(cluster.fails(1, &["get", &key, "--timeout", "1"]), "unavailable");
    let status = cluster.status();
    assert!(status.replicas().all(|replica| !replica.up), "{status:?}");
    cluster.ok(&["up"]);
    assert_eq!(cluster.ok(&["get", &key]), value);
    cluster.ok(&["down", "--purge"]);
    assert!(!cluster.path().join("cluster.json").exists());
}

#[test]
fn a_bench_measures_and_records_what_happened() {
    let _machine = together();
    let cluster = shared();
    let file = cluster.path().join("history.jsonl");
    let file = file.display().to_string();
    let mix = ["--reads", "30", "--appends", "20", "--cas", "20", "--deletes", "10", "--keys", "30"];
    let size = ["bench", "--clients", "8", "--value-bytes", "32", "--history", &file];
    let report = cluster.json(&[&size[..], &["--seconds", "2"], &mix].concat());
    const REPORT: [&str; 24] = [
        "clerk",
        "cluster",
        "config_end",
        "config_start",
        "dropped",
        "errors",
        "format",
        "label",
        "late",
        "longest_gap_ms",
        "machine",
        "marks",
        "missing",
        "operations",
        "phases",
        "processes",
        "read",
        "run",
        "seconds",
        "series",
        "started_unix_ms",
        "throughput",
        "unknown",
        "write",
    ];
    assert_eq!(keys_of(&report), REPORT);
    assert_eq!(keys_of(&report["read"]), ["count", "max_us", "p50_us", "p999_us", "p99_us"]);
    assert_eq!((&report["errors"], &report["unknown"]), (&json!(0), &json!(0)));
    let read = || history::read(BufReader::new(fs::File::open(&file).unwrap())).unwrap();
    let operations = read();
    assert_eq!(report["operations"].as_u64(), Some(operations.len() as u64));
    linearizability::check(&operations).unwrap();
    let line: Value =
        serde_json::from_str(fs::read_to_string(&file).unwrap().lines().next().unwrap()).unwrap();
    const LINE: [&str; 10] = [
        "call_ns",
        "client",
        "expected_version",
        "key",
        "op",
        "outcome",
        "output",
        "return_ns",
        "value",
        "version",
    ];
    assert_eq!(keys_of(&line), LINE);

    // Nobody reads: no latencies of reads.
    let writes = cluster.json(&["bench", "--clients", "2", "--seconds", "0.3", "--reads", "0"]);
    assert_eq!(
        writes["read"],
        json!({"count": 0, "p50_us": null, "p99_us": null, "p999_us": null, "max_us": null})
    );

    // Several puts a call: each key is an operation, and a preload brings every key.
    let few = ["bench", "--clients", "2", "--seconds", "0.3", "--keys", "50"];
    let batches = cluster.json(&[&few[..], &["--reads", "50", "--batch", "16", "--preload"]].concat());
    let count = |what: &str| batches[what]["count"].as_u64().unwrap();
    assert!(count("write") > 0 && count("write").is_multiple_of(16), "{batches}");
    assert!(count("write") > 4 * count("read"), "half of the calls, sixteen operations each: {batches}");
    assert_eq!((&batches["errors"], &batches["missing"]), (&json!(0), &json!(0)));
    assert_eq!(cluster.fails(2, &[&size[..], &["--batch", "2"]].concat()), "usage");

    // Ctrl-C: the lines are whole.
    let command = [&size[..], &["--seconds", "60"], &mix].concat();
    let mut bench = cluster.command(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    kill_process(Pid::from_child(&bench), Signal::INT).unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    let operations = read();
    assert!(operations.len() > 100, "{}", operations.len());
    linearizability::check(&operations).unwrap();
}

#[test]
fn a_bench_of_several_phases_is_saved_charted_and_compared() {
    let _machine = together();
    let cluster = shared();
    let place = |name: &str| cluster.path().join(name).display().to_string();
    let (workload, saved, page) = (place("workload.toml"), place("a.json"), place("a.html"));
    fs::write(&workload, "keys = 200\nclients = 4\nvalue-bytes = 64\npreload = true\nseconds = 1.2\n")
        .unwrap();
    let phases = ["--phase", "mixed,distribution=zipfian", "--phase", "open <1>,rate=200,reads=100"];
    let files =
        ["--workload", &workload, "--save", &saved, "--html", &page, "--warmup", "0.3", "--label", "x"];
    let report = cluster.json(&[&["bench"][..], &files, &phases].concat());
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(&saved).unwrap()).unwrap(), report);

    // The phases that were asked for, behind two that do not count.
    let names: Vec<(&str, bool)> = (report["phases"].as_array().unwrap().iter())
        .map(|phase| (phase["name"].as_str().unwrap(), phase["measured"].as_bool().unwrap()))
        .collect();
    assert_eq!(names, [("preload", false), ("warm-up", false), ("mixed", true), ("open <1>", true)]);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value}"));
    let [preload, _, mixed, open] = &report["phases"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&preload["operations"], &preload["write"]["count"]), (&json!(200), &json!(200)));
    assert_eq!(open["write"]["count"], 0);
    // 240 were due; what did not begin is said.
    assert_eq!(number(&open["operations"]) + number(&open["dropped"]), 240.0, "{open}");
    assert_eq!(number(&report["operations"]), number(&mixed["operations"]) + number(&open["operations"]));
    assert_eq!((&report["errors"], &report["missing"]), (&json!(0), &json!(0)), "every key was written");

    // The series adds up to the phases.
    let series = report["series"].as_array().unwrap();
    let sum: f64 =
        series.iter().filter(|it| it["measured"] == true).map(|it| number(&it["operations"])).sum();
    assert_eq!(sum, number(&report["operations"]));
    assert!(series.windows(2).all(|pair| number(&pair[0]["at_s"]) < number(&pair[1]["at_s"])), "{series:?}");

    // The servers are processes of this machine: 3 controllers and 2 replicas.
    let processes = &report["processes"];
    assert_eq!((&processes["why_not"], processes["servers"].as_array().unwrap().len()), (&Value::Null, 5));
    assert!(number(&processes["server_cpu_us_per_operation"]) > 0.0);
    assert!(number(&processes["server_memory_bytes_max"]) > 1e6);

    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("open &lt;1&gt;") && html.contains("</svg>") && !html.contains("<script"));

    let same = cluster.json(&["bench", "compare", &saved, &saved]);
    assert_eq!(keys_of(&same), ["a", "b", "cautions", "differs", "noise_percent", "rows"]);
    assert_eq!(same["differs"], json!([]));
    let rows = same["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["verdict"] == "noise" || row["verdict"] == "same"), "{rows:?}");
    assert!(cluster.ok(&["bench", "compare", &saved, &saved]).contains("throughput"));
    assert_eq!(cluster.fails(1, &["bench", "compare", &saved, &workload]), "bad_input");
    assert_eq!(cluster.fails(1, &["bench", "compare", &saved, &place("nothing")]), "io");
    assert_eq!(cluster.fails(1, &["bench", "--value-bytes", "60000000"]), "value_too_large");
}

/// Processes that were started with something of this directory.
fn processes_of(directory: &std::path::Path) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&format!("{}/", directory.display()))).count()
}

#[test]
fn scaling_measures_a_cluster_of_its_own_and_leaves_nothing_behind() {
    let _machine = together();
    let place = Place::new();
    let command = |seconds: &str| {
        let mut command = Command::new(binary("clerk"));
        command.arg("--dir").arg(place.path()).args(["-o", "json", "bench", "scaling", "--groups", "1,2"]);
        command.args(["--replicas", "1", "--clients", "8", "--keys", "100", "--warmup", "0.2"]);
        command.args(["--seconds", seconds]);
        command
    };
    let document = run(&mut command("0.6"), None, LIMIT).json();
    let step =
        |index: usize| (&document["steps"][index]["groups"], document["steps"][index]["ratio"].as_f64());
    assert_eq!(step(0), (&json!(1), Some(1.0)));
    assert_eq!(step(1).0, &json!(2));
    let rebalance = &document["rebalances"][0];
    assert_eq!((&rebalance["shards_moved"], &rebalance["errors"]), (&json!(32), &json!(0)));
    assert!(rebalance["operations"].as_u64() > Some(0), "the load ran meanwhile: {rebalance}");
    assert_eq!((processes_of(place.path()), place.path().exists()), (0, false));

    // Ctrl-C, while it measures or even while it starts.
    for moment in [400, 2500] {
        let mut scaling = command("60").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        kill_process(Pid::from_child(&scaling), Signal::INT).unwrap();
        assert_eq!(scaling.wait().unwrap().code(), Some(130), "after {moment} ms");
        assert_eq!((processes_of(place.path()), place.path().exists()), (0, false), "after {moment} ms");
    }
}
