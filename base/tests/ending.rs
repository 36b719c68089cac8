//! How a process ends that must not continue (correctness rule 29): at once, with the status of its
//! cause, whatever happens to its last words.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base::process::{self, Fatal};

/// Set in the processes that the tests start: how they end, and where.
const CAUSE: &str = "ENDING_TEST_CAUSE";
const DIRECTORY: &str = "ENDING_TEST_DIRECTORY";

/// The child process of the tests below; does nothing when run alone.
#[test]
fn ends_as_it_is_told() {
    let (Some(cause), Some(directory)) = (std::env::var_os(CAUSE), std::env::var_os(DIRECTORY)) else {
        return;
    };
    let directory = Path::new(&directory);
    process::start_log(&directory.join("log"), process::LogFormat::Text).unwrap();
    let steps = OpenOptions::new().create(true).append(true).open(directory.join("steps")).unwrap();
    let mut other = steps.try_clone().unwrap();
    std::thread::spawn(move || {
        loop {
            other.write_all(b"step\n").unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    std::thread::sleep(Duration::from_millis(20));
    // An exit handler writes out text that waits for the end of its line.
    print!("an exit handler ran");
    process::run(async move {
        (&steps).write_all(b"end\n").unwrap();
        match cause.to_str().unwrap() {
            "disk" => process::end(Fatal::Disk, &"as if\nit had failed"),
            "safety" => process::end(Fatal::Safety, &"as if it were broken"),
            "format" => process::end(Fatal::Format, &"as if it were another"),
            "system" => process::end(Fatal::System, &"as if it gave nothing"),
            "bug" => drop(std::thread::spawn(|| panic!("as if\nthis were a mistake")).join()),
            "start" => return Err("as if nothing were right".to_owned()),
            other => panic!("{other}"),
        }
        Ok(())
    });
}

/// Lets a process end for `cause`; returns its status, its output, and how long the end took.
fn ending(cause: &str, directory: &Path, stderr: impl Into<Stdio>) -> (ExitStatus, String, Duration) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ends_as_it_is_told", "--nocapture"])
        .env(CAUSE, cause)
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stdout).into_owned(), begun.elapsed())
}

/// The steps that the other thread still took after the end began, in milliseconds.
fn steps_after_the_end(directory: &Path) -> usize {
    let steps = std::fs::read_to_string(directory.join("steps")).unwrap();
    steps.lines().skip_while(|line| *line != "end").count().saturating_sub(1)
}

const CAUSES: [(&str, i32, &str); 6] = [
    ("disk", 74, "disk error: as if it had failed; "),
    ("safety", 76, "safety broken: as if it were broken; "),
    ("format", 65, "unreadable data: as if it were another; "),
    ("system", 71, "system error: as if it gave nothing; "),
    ("bug", 70, "as if this were a mistake; "),
    ("start", 1, "as if nothing were right"),
];

/// A bug takes longest: the end waits for the names of its backtrace, 300 ms at most.
const LIMIT_MS: usize = 400;

/// The smallest number of steps of three runs: this machine also has other work.
fn quickest(cause: &str, run: impl Fn(&Path)) -> usize {
    let once = || {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path());
        steps_after_the_end(directory.path())
    };
    let steps = (0..3).map(|_| once()).min().unwrap();
    println!("{cause}: {steps} steps of another thread after the end began");
    steps
}

#[test]
fn each_cause_ends_the_process_at_once_with_its_own_words_and_status() {
    for (cause, status, words) in CAUSES {
        let steps = quickest(cause, |directory| {
            let err = File::create(directory.join("err")).unwrap();
            let (ended, out, _) = ending(cause, directory, err);
            assert_eq!(ended.code(), Some(status), "{cause}");
            assert!(!out.contains("an exit handler ran"), "{cause}: {out}");
            for said in ["err", "log"].map(|name| std::fs::read_to_string(directory.join(name)).unwrap()) {
                assert!(said.lines().any(|line| line.contains(words)), "{cause}: one line: {said}");
            }
        });
        assert!(steps < LIMIT_MS, "{cause}: {steps} ms");
    }
}

#[test]
fn words_that_cannot_be_written_change_neither_status_nor_speed() {
    for (cause, status, _) in CAUSES {
        let steps = quickest(cause, |directory| {
            // A log and a standard error on a full disk.
            std::os::unix::fs::symlink("/dev/full", directory.join("log")).unwrap();
            let (ended, out, _) =
                ending(cause, directory, OpenOptions::new().write(true).open("/dev/full").unwrap());
            assert_eq!(ended.code(), Some(status), "{cause}");
            assert!(!out.contains("an exit handler ran"), "{cause}: {out}");
        });
        assert!(steps < LIMIT_MS, "{cause}: {steps} ms");
    }
}

#[test]
fn words_that_nobody_reads_hold_up_nothing() {
    for (cause, status, _) in CAUSES {
        let directory = tempfile::tempdir().unwrap();
        // A pipe that is full, and whose reader waits.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut filler = writer.try_clone().unwrap();
        std::thread::spawn(move || while filler.write_all(&[b'x'; 4096]).is_ok() {});
        std::thread::sleep(Duration::from_millis(50));
        let (ended, _, took) = ending(cause, directory.path(), writer);
        assert_eq!(ended.code(), Some(status), "{cause}");
        assert!(took < Duration::from_secs(3), "{cause}: {took:?}");
        drop(reader);
    }
}
