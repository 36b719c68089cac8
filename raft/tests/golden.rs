//! Runs every script of `tests/golden` and compares what it shows with what stands in the file.
//!
//! A script is the readable specification of one behaviour. Lines that begin at the margin are
//! commands (see `common/script.rs`), `#` begins a comment, and indented lines are what the command
//! above them showed. `UPDATE_GOLDEN=1 cargo test -p raft --test golden` writes them anew: then read
//! the difference as carefully as code.

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::script::Script;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(folder).expect("the folder of scripts is there");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    paths.sort();
    paths
}

/// The script with what its commands show now.
fn rerun(text: &str) -> String {
    let mut script = Script::default();
    let mut shown = String::new();
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        shown += &format!("{line}\n");
        if !line.is_empty() && !line.starts_with('#') {
            for seen in script.run(line) {
                shown += &format!("    {seen}\n");
            }
        }
    }
    shown
}

/// The first line that differs, with what is around it.
fn difference(expected: &str, found: &str) -> String {
    let same = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let show = |text: &str| {
        let lines: Vec<&str> = text.lines().skip(same.saturating_sub(3)).take(7).collect();
        lines.join("\n")
    };
    format!("line {}:\n--- expected\n{}\n--- found\n{}\n", same + 1, show(expected), show(found))
}

#[test]
fn every_golden_script_shows_what_it_says() {
    let paths = scripts();
    assert!(paths.len() >= 20, "the scripts are missing");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut failures = Vec::new();
    for path in paths {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let expected = fs::read_to_string(&path).expect("a readable script");
        match catch_unwind(AssertUnwindSafe(|| rerun(&expected))) {
            Ok(found) if found == expected => {}
            Ok(found) if update => fs::write(&path, found).expect("a writable script"),
            Ok(found) => failures.push(format!("{name}: {}", difference(&expected, &found))),
            Err(_) => failures.push(format!("{name}: panicked\n")),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
