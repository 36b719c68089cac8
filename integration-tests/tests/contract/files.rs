//! Dumps and loads.

use super::*;

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

    // A pipe is read only once: its missing end is noticed after the rest has been loaded.
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
