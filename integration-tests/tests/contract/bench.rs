//! Measurements.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "one run is expensive, and every file that it writes is looked at")]
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

    // Several puts per call: each key is an operation, and a preload writes every key.
    let few = ["bench", "--clients", "2", "--seconds", "0.3", "--keys", "50"];
    let batches = cluster.json(&[&few[..], &["--reads", "50", "--batch", "16", "--preload"]].concat());
    let count = |what: &str| batches[what]["count"].as_u64().unwrap();
    assert!(count("write") > 0 && count("write").is_multiple_of(16), "{batches}");
    assert!(count("write") > 4 * count("read"), "half of the calls, sixteen operations each: {batches}");
    assert_eq!((&batches["errors"], &batches["missing"]), (&json!(0), &json!(0)));
    assert_eq!(cluster.fails(2, &[&size[..], &["--batch", "2"]].concat()), "usage");

    // Ctrl-C: the lines are complete.
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

    // The phases that were asked for, after two that do not count.
    let names: Vec<(&str, bool)> = (report["phases"].as_array().unwrap().iter())
        .map(|phase| (phase["name"].as_str().unwrap(), phase["measured"].as_bool().unwrap()))
        .collect();
    assert_eq!(names, [("preload", false), ("warm-up", false), ("mixed", true), ("open <1>", true)]);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value}"));
    let [preload, _, mixed, open] = &report["phases"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&preload["operations"], &preload["write"]["count"]), (&json!(200), &json!(200)));
    assert_eq!(open["write"]["count"], 0);
    // 240 were due; operations that did not begin are reported.
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
fn scaling_measures_its_own_cluster_and_leaves_nothing_running() {
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
