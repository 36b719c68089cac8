//! Checks a data directory offline (correctness rule 72): what a start would make of it, part by
//! part, and what to do.
//!
//! Nothing is changed, not even the lock's text: suspected damage must be left as it was found. But
//! the lock is held meanwhile, so that no server starts on it. Everything is read: the text files
//! with their checksums, all records of the log and the checksum of each entry, all rows of the
//! table. The state machine judges what the rows mean, through [`JudgeRows`]. Then it checks
//! whether log and table fit.
//!
//! Left out on purpose: repairing, and comparing with the other servers of the group. A running
//! group does both.

use std::path::Path;

use serde::Serialize;

use crate::directory::{Inspected, inspect};
use crate::rocksdb::{self, JudgedTable};
use crate::wal;
use raft::rsm;
use raft::storage::{JudgeRows, OpenError, Restored};

/// The state of a part of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Sound,
    /// The next start repairs it.
    Repairable,
    /// A start refuses it, or would fail later.
    Damaged,
}

/// A part of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub part: &'static str,
    /// Its state.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if nothing.
    pub next: &'static str,
}

/// The server that the directory belongs to, as far as that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Name of the cluster.
    pub cluster: String,
    /// The key of the cluster; 0: not known yet.
    pub key: u64,
    /// The group; 0: the controllers.
    pub group: u64,
    /// The server within it.
    pub node: u64,
    /// The ids that the group was founded with.
    pub members: Vec<u64>,
    /// The random name of its data.
    pub incarnation: u64,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where it is.
    pub directory: String,
    /// The server that it belongs to.
    pub server: Option<Server>,
    /// Whether all parts are sound.
    pub sound: bool,
    /// Its parts.
    pub parts: Vec<Part>,
}

impl Report {
    fn new(path: &Path) -> Self {
        Self { directory: path.display().to_string(), server: None, sound: true, parts: Vec::new() }
    }

    fn add(&mut self, part: &'static str, verdict: Verdict, found: impl Into<String>, next: &'static str) {
        self.sound &= verdict == Verdict::Sound;
        self.parts.push(Part { part, verdict, found: found.into(), next });
    }

    fn sound(&mut self, part: &'static str, found: impl Into<String>) {
        self.add(part, Verdict::Sound, found, "");
    }

    /// As the one document that a program reads.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| unreachable!("text and numbers: {error}"))
    }
}

const KEEP: &str = "keep this directory as it is; the rest of the group goes on without this server as long as a \
                    majority of it runs; if you have a sound copy of this directory, it is older: do not start it";
const REPAIRED: &str =
    "start the server: it drops what is damaged, keeps its promises, and is filled again by its leader";

/// Checks the data directory `path`.
///
/// # Errors
/// [`OpenError`] when it cannot be checked: there is none, or a process has it open.
pub fn directory(path: &Path, rows: &mut dyn JudgeRows) -> Result<Report, OpenError> {
    let mut report = Report::new(path);
    let Inspected { identity, peers, lock: _lock } = inspect(path)?;
    match identity {
        Ok((identity, incarnation, key)) => {
            let (cluster, group, node) = (identity.cluster.clone(), identity.group, identity.node.0);
            let members = identity.members.iter().map(|member| member.0).collect();
            report.server = Some(Server { cluster, key, group, node, members, incarnation });
            report.sound("identity", format!("{identity}, incarnation {incarnation}"));
        }
        Err(error) => report.add("identity", Verdict::Damaged, error.to_string(), KEEP),
    }
    match peers {
        Ok(count) => report.sound("peers", format!("{count} met")),
        Err(error) => report.add("peers", Verdict::Damaged, error.to_string(), KEEP),
    }
    let log = check_log(&mut report, path);
    let table = check_table(&mut report, path, rows);
    if let (Some(log), Some(table)) = (log, table) {
        check_start(&mut report, log, &table);
    }
    Ok(report)
}

fn check_log(report: &mut Report, path: &Path) -> Option<Restored> {
    let judged = match wal::judge(&path.join(crate::directory::RAFT)) {
        Ok(judged) => judged,
        Err(error) => {
            report.add("log", Verdict::Damaged, error.to_string(), KEEP);
            return None;
        }
    };
    let Restored { hard_state, marker, entries, .. } = &judged.restored;
    let last = entries.last().map_or(*marker, |entry| entry.id);
    let found = format!("term {}, entries after {marker} to {last}", hard_state.term);
    // The record's checksum also covers the payload: both have to be wrong for a reader to miss it.
    let bad = entries.iter().find(|entry| !entry.is_whole());
    match (bad, &judged.damage) {
        (Some(entry), _) => {
            let found = format!("the checksum of entry {} is wrong", entry.id);
            report.add("log", Verdict::Damaged, found, KEEP);
            return None;
        }
        (None, Some(damage)) => {
            report.add("log", Verdict::Repairable, format!("{damage}; what is left: {found}"), REPAIRED);
        }
        (None, None) => report.sound("log", found),
    }
    Some(judged.restored)
}

fn check_table(report: &mut Report, path: &Path, rows: &mut dyn JudgeRows) -> Option<JudgedTable> {
    match rocksdb::judge(&path.join(crate::directory::STATE), rows) {
        Ok(table) => {
            match &table.wrong {
                None => {
                    let found = format!("{} rows, applied up to {}", table.rows, table.applied.id);
                    report.sound("table", found);
                }
                Some(wrong) => report.add("table", Verdict::Damaged, wrong.clone(), KEEP),
            }
            Some(table)
        }
        Err(error) => {
            report.add("table", Verdict::Damaged, error.to_string(), KEEP);
            None
        }
    }
}

/// Whether a replica would start from both (docs/storage.md).
fn check_start(report: &mut Report, mut log: Restored, table: &JudgedTable) {
    const PART: &str = "log and table";
    match rsm::start_rule(&mut log, table.applied.id, table.installed) {
        Ok(None) => report.sound(PART, "the log goes on from the table"),
        Ok(Some(_)) => report.sound(PART, "the table is ahead of the log: a start drops the log before it"),
        Err(error) => report.add(PART, Verdict::Damaged, error.to_string(), KEEP),
    }
}

/// If this process was started with `--check`: checks the directory that `--data-dir` names, prints
/// the report as one document of JSON, and exits, with 0 if everything is sound and 1 if not.
pub fn answer_if_asked(rows: &mut dyn JudgeRows) {
    let Some(path) = base::process::check_asked() else { return };
    let report = directory(&path, rows).unwrap_or_else(|error| base::process::fail(&error));
    println!("{}", report.json());
    std::process::exit(i32::from(!report.sound))
}
