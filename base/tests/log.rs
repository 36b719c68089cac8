//! The log of a process: one JSON object for each event if asked, and a level that can be changed.

use std::path::Path;

use base::process::{self, LevelError, LogFormat};

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// One test: a process has one log.
#[test]
fn events_are_objects_of_json_and_the_level_is_what_was_set_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    assert_eq!((process::log_level(), process::set_log_level("debug")), (None, Ok(None)), "no log yet");
    process::start_log(&path, LogFormat::Json).unwrap();
    let span = tracing::info_span!("server", group = 101, node = 2).entered();
    tracing::info!(term = 7, "leads\nnow \"really\"");
    tracing::debug!("hidden");
    let first = lines(&path).remove(0);
    assert_eq!(first["level"], "INFO");
    assert_eq!(first["target"], "log");
    assert_eq!(first["fields"], serde_json::json!({"message": "leads\nnow \"really\"", "term": 7}));
    assert_eq!(first["span"], serde_json::json!({"name": "server", "group": 101, "node": 2}));
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{first}");
    assert_eq!(lines(&path).len(), 1);

    let write = || tracing::debug!(target: "host::serve", "seen");
    for (level, is_seen) in [("host=debug,info", true), ("host=info,debug", false), ("debug", true)] {
        process::set_log_level(level).unwrap();
        let before = lines(&path).len();
        write();
        assert_eq!(lines(&path).len() - before, usize::from(is_seen), "{level}");
        assert_eq!(process::log_level().as_deref(), Some(level));
    }
    assert_eq!(process::set_log_level("inof"), Err(LevelError::Unknown("inof".to_owned())));
    assert_eq!(process::log_level().as_deref(), Some("debug"), "a mistyped one changes nothing");
    drop(span);
}
