//! The program as a person meets it: what it makes, and how it ends on bad input.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const MR: &str = env!("CARGO_BIN_EXE_mr");

fn mr(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(MR);
    command.env_remove("CLERK_DIR").env_remove("CLERK_CONTROLLERS");
    command.current_dir(directory).args(arguments).output().unwrap()
}

/// Fails unless it ended so; what it said.
fn ends(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn outputs(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("mr-out-") {
            lines.extend(fs::read_to_string(entry.path()).unwrap().lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_job_is_done_shown_and_cleaned() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("a"), "to be or not to be").unwrap();
    fs::write(at("b"), "be quick\n").unwrap();
    fs::write(at("empty"), "").unwrap();
    ends(&mr(place.path(), &["run", "wc", "a", "b", "empty", "--html", "page.html"]), 0);
    assert_eq!(outputs(&at("mr-data")), ["be 3", "not 1", "or 1", "quick 1", "to 2"]);
    let alone = mr(place.path(), &["sequential", "wc", "a", "b", "empty"]);
    assert_eq!(String::from_utf8_lossy(&alone.stdout), "be 3\nnot 1\nor 1\nquick 1\nto 2\n");
    assert!(fs::read_to_string(at("page.html")).unwrap().contains("<svg"));
    let status = mr(place.path(), &["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("13 of 13 tasks done") && status.contains("The job is done."), "{status}");
    let again = ends(&mr(place.path(), &["run", "wc", "a"]), 1);
    assert!(again.contains("mr-data") && again.contains("mr clean"), "{again}");
    fs::write(at("mr-data/mine"), "").unwrap();
    ends(&mr(place.path(), &["clean"]), 0);
    let left: Vec<_> = fs::read_dir(at("mr-data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
    let gone = ends(&mr(place.path(), &["status"]), 1);
    assert!(gone.contains("holds no job"), "{gone}");
}

#[test]
fn two_commands_are_a_job() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("log"), "x 3\ny 4\nx 5\n").unwrap();
    let reduce = r#"awk -F '\t' '{n[$1] += $2} END {for (k in n) print k "\t" n[k]}'"#;
    let run = ["run", "--map", "tr ' ' '\\t'", "--reduce", reduce, "log", "--workers", "2"];
    ends(&mr(place.path(), &run), 0);
    assert_eq!(outputs(&place.path().join("mr-data")), ["x 8", "y 4"]);
}

#[test]
fn bad_input_ends_with_its_name_and_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("good"), "good").unwrap();
    fs::write(at("latin"), b"caf\xe9").unwrap();
    fs::write(at("bad"), "do not panic").unwrap();
    let said = ends(&mr(place.path(), &["run", "wc"]), 2);
    assert!(said.contains("no input files"), "{said}");
    let said = ends(&mr(place.path(), &["run", "wordcount", "good"]), 2);
    assert!(said.contains("indexer, wc"), "{said}");
    let said = ends(&mr(place.path(), &["run", "wc", "good", "nothing"]), 1);
    assert!(said.contains("nothing") && said.contains("No such file"), "{said}");
    let said = ends(&mr(place.path(), &["run", "wc", "."]), 1);
    assert!(said.contains("not a file"), "{said}");
    assert!(!at("mr-data").exists(), "a job was made that cannot be done");
    let said = ends(&mr(place.path(), &["run", "wc", "good", "latin", "--dir", "one"]), 1);
    assert!(said.contains("latin") && said.contains("not UTF-8 from byte 3 on"), "{said}");
    // After three reports: the file, the record, and what the app said.
    let said = ends(&mr(place.path(), &["run", "panic", "good", "bad", "--dir", "two"]), 1);
    assert!(said.contains("the job failed"), "{said}");
    assert!(said.contains("/bad, record \"bad\": the app panicked: the text says so"), "{said}");
    assert_eq!(said.matches("panicked at").count(), 3, "{said}");
    let said = ends(&mr(place.path(), &["status", "two"]), 0);
    assert!(said.is_empty(), "{said}");
}

/// A limit on the size of files stands for a full disk.
#[test]
fn a_full_disk_is_told() {
    let place = tempfile::tempdir().unwrap();
    let words: String =
        (0..20_000).map(|word| format!("{word:b} ").replace('0', "o").replace('1', "i")).collect();
    fs::write(place.path().join("words"), words).unwrap();
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {MR} run wc words");
    let output = Command::new("sh").args(["-c", &script]).current_dir(place.path()).output().unwrap();
    let said = ends(&output, 1);
    assert!(said.contains("the job failed") && said.contains("cannot be written"), "{said}");
}

/// Deaths are no reports, but a job whose workers only die ends, too.
#[test]
fn workers_that_cannot_live_end_the_job() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("good"), "good").unwrap();
    let run = ["run", "--map", "kill -9 $PPID", "--reduce", "cat", "good"];
    let said = ends(&mr(place.path(), &run), 1);
    assert!(said.contains("50 workers died and no task got done"), "{said}");
}

/// The second one finds the workers, because its address is the newest.
#[test]
fn a_coordinator_beside_another_ends_with_it() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("good"), "good").unwrap();
    let mut first = Command::new(MR);
    let mut first =
        first.current_dir(place.path()).args(["run", "wc", "good", "--workers", "0"]).spawn().unwrap();
    while !place.path().join("mr-data/coordinator").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    ends(&mr(place.path(), &["resume"]), 0);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(outputs(&place.path().join("mr-data")), ["good 1"]);
}
