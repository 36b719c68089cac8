//! The program as a user sees it: what it makes, and how it ends on bad input.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const MR: &str = env!("CARGO_BIN_EXE_mr");

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(MR);
    command.env_remove("CLERK_DIR").env_remove("CLERK_CONTROLLERS");
    command.current_dir(directory).args(arguments);
    command
}

fn mr(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, arguments).output().unwrap()
}

/// Fails unless the program ended with this code; returns what it printed.
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
    assert!(fs::read_to_string(at("page.html")).unwrap().contains("class=\"map won\""));
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
    // A process that opened it would wait for a writer.
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let said = ends(&mr(place.path(), &["run", "wc", "good", "pipe"]), 1);
    assert!(said.contains("pipe: not a file"), "{said}");
    let said = ends(&mr(place.path(), &["run", "wc", "good", "--listen", "0.0.0.0:0"]), 2);
    assert!(said.contains("no worker can reach that"), "{said}");
    let into = ["run", "wc", "good", "--into-store", "mr/wc/", "--controllers", "127.0.0.1:1"];
    let said = ends(&mr(place.path(), &into), 2);
    assert!(said.contains("its own books"), "{said}");
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::create_dir(place.path().join(odd)).unwrap();
    fs::write(place.path().join(odd).join("good"), "good").unwrap();
    let said = ends(&mr(&place.path().join(odd), &["run", "wc", "good"]), 1);
    assert!(said.contains("UTF-8"), "{said}");
    assert!(!at("mr-data").exists(), "a job was made that cannot be done");
    let said = ends(&mr(place.path(), &["run", "wc", "good", "latin", "--dir", "one"]), 1);
    assert!(said.contains("latin") && said.contains("not UTF-8 from byte 3 on"), "{said}");
    // After three reports the error names the file, the record and the failure.
    let map = "grep -q panic && { echo oh >&2; exit 7; } || true";
    let run = ["run", "--map", map, "--reduce", "cat", "good", "bad", "--dir", "two"];
    let said = ends(&mr(place.path(), &run), 1);
    assert!(said.contains("the job failed"), "{said}");
    assert!(said.contains("/bad, record \"bad\": ") && said.contains("exit status: 7"), "{said}");
    assert_eq!(said.matches("oh\n").count(), 3, "{said}");
    let said = ends(&mr(place.path(), &["status", "two"]), 0);
    assert!(said.is_empty(), "{said}");
}

/// A limit on the size of files simulates a full disk.
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
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for verb in [&["status"][..], &["status", "--json"], &["sequential", "wc", "words"]] {
        let output = command(place.path(), verb).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let said = ends(&output, 1);
        assert!(said.contains("mr: standard output: No space left") && said.lines().count() < 3, "{said}");
    }
}

/// Deaths are not reports of failure, but a job ends too if its workers only die.
#[test]
fn workers_that_cannot_live_end_the_job() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("good"), "good").unwrap();
    let run = ["run", "--map", "kill -9 $PPID", "--reduce", "cat", "good"];
    let said = ends(&mr(place.path(), &run), 1);
    assert!(said.contains("50 workers died and no task got done"), "{said}");
}

/// The second coordinator gets the workers, because its address is the newest.
#[test]
fn a_coordinator_beside_another_ends_with_it() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("good"), "good").unwrap();
    let mut first = start(place.path(), &["run", "wc", "good", "--workers", "0"]);
    let job = || fs::read_dir(place.path().join("mr-data")).into_iter().flatten().flatten();
    let listens = || job().any(|entry| entry.path().join("coordinator").exists()).then_some(());
    eventually("the first coordinator", listens);
    ends(&mr(place.path(), &["resume"]), 0);
    let code = eventually("its end", || first.0.try_wait().unwrap());
    assert_eq!(code.code(), Some(0));
    assert_eq!(outputs(&place.path().join("mr-data")), ["good 1"]);
}

/// Whether the coordinator was stopped or killed, or the job failed: no worker continues, and
/// none of its commands.
#[test]
fn workers_and_their_commands_end_with_the_coordinator() {
    for (how, code) in [("TERM", Some(130)), ("KILL", None), ("", Some(1))] {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("slow"), "slow").unwrap();
        fs::write(place.path().join("bad"), "bad").unwrap();
        let bad = if how.is_empty() { "sleep 0.2; exit 1" } else { "exit 0" };
        let map =
            format!("[ $MR_NAME = slow ] || {{ {bad}; }}; echo $$ >id.new; mv id.new id; exec sleep 1000");
        let mut run = start(place.path(), &["run", "--map", &map, "--reduce", "cat", "slow", "bad"]);
        let id = eventually("the command", || fs::read_to_string(place.path().join("id")).ok());
        if !how.is_empty() {
            let id = run.0.id().to_string();
            assert!(Command::new("kill").args(["-s", how, &id]).status().unwrap().success());
        }
        assert_eq!(eventually("the end", || run.0.try_wait().unwrap()).code(), code, "{how}");
        eventually("the end of the command", || is_dead(id.trim()).then_some(()));
    }
}

/// The worker alone is killed, as by an operator or for its memory. The app did not fail by that
/// (rule 123).
#[test]
fn commands_end_with_a_worker_that_is_killed() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("slow"), "slow").unwrap();
    let map = "echo $$ >id.new; mv id.new id; sleep 1000 | cat; exit 1";
    let mut run = start(place.path(), &["run", "--map", map, "--reduce", "cat", "slow", "--workers", "0"]);
    for _ in 0..4 {
        let _ = fs::remove_file(place.path().join("id"));
        let job = || fs::read_dir(place.path().join("mr-data")).into_iter().flatten().flatten();
        let listens = || job().any(|entry| entry.path().join("coordinator").exists()).then_some(());
        eventually("the coordinator", listens);
        let mut worker = start(place.path(), &["worker"]);
        let id = eventually("the command", || fs::read_to_string(place.path().join("id")).ok());
        worker.0.kill().unwrap();
        eventually("the end of the command", || is_dead(id.trim()).then_some(()));
    }
    assert_eq!(run.0.try_wait().unwrap(), None, "deaths of workers ended the job");
}

/// Its prefix would stay taken, and no message would say by which job. A new job is refused
/// before it is made.
#[test]
fn a_job_is_neither_made_nor_cleaned_while_its_store_is_away() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("good"), "good").unwrap();
    let run = ["run", "wc", "good", "--into-store", "wc/", "--controllers", "127.0.0.1:1"];
    let said = ends(&mr(place.path(), &run), 1);
    assert!(said.contains("no controller answers"), "{said}");
    let job = place.path().join("mr-data");
    assert!(!job.exists());
    let spec = r#"{"id": 1, "run": {"App": "wc"}, "input": {"Files": []}, "reduces": 1,
        "output": {"prefix": "wc/", "add": true}, "controllers": ["127.0.0.1:1"], "cluster": "c"}"#;
    fs::create_dir(&job).unwrap();
    fs::write(job.join("job.json"), spec).unwrap();
    let said = ends(&mr(place.path(), &["clean"]), 1);
    assert!(said.contains("nothing was cleaned") && said.contains("no controller answers"), "{said}");
    assert!(job.join("job.json").exists());
}

/// A process that nobody has waited for yet counts as dead.
fn is_dead(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |state| state.contains(") Z "))
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(directory: &Path, arguments: &[&str]) -> Running {
    Running(command(directory, arguments).stderr(Stdio::null()).spawn().unwrap())
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{what} did not come within a minute");
}
