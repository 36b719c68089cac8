//! An app of MapReduce that panics, on real processes. (The simulator takes every panic for a bug.)

use std::fs;
use std::process::Command;

/// After three reports: the file, the record, and what the app said.
#[test]
fn an_app_that_panics_on_one_record_ends_the_job_which_says_on_which() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("good"), "good").unwrap();
    fs::write(place.path().join("bad"), "do not panic").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mr-trials"));
    let output = command.current_dir(place.path()).args(["run", "panic", "good", "bad"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the job failed"), "{said}");
    assert!(said.contains("/bad, record \"bad\": the app panicked: the text says so"), "{said}");
    assert_eq!(said.matches("panicked at").count(), 3, "{said}");
}
