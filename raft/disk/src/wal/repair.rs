//! Repairs a log that was damaged (correctness rule 62).
//!
//! The mark says what the lost part promised. A new log is made beside the damaged one: with the
//! records before the damage, the term and vote of the mark, and the last acknowledged entry as
//! this server's *promise*. Until the server has that entry again, or a newer one, it votes only
//! for servers that do (`core/debt.rs`), and its leader sends it what it lacks.
//!
//! ```text
//! raft.new          the new log, until it is complete and durable
//! raft.damaged-K    the damaged one, kept for people who want to look at it
//! ```
//!
//! One directory takes the other's place by two renames. A start finishes an interrupted pair, and
//! discards a new log that was not complete.
//!
//! Without a mark that reaches the damage the promise is not known: the log refuses to open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{LogFile, name, read};
use super::manifest::Manifest;
use super::record::SECTOR;
use super::replay::{Replay, decode};
use super::survey::needless;
use super::tail::{self, Mark};
use super::{Head, LogOptions, Step, Wal, record, step};
use crate::lines::{corrupt, sync_directory, unavailable};
use raft::storage::{OpenError, Save};
use raft::types::Index;

/// What `damage` has left of the log, as one save, and the promise of what is lost.
///
/// # Errors
/// `damage` itself, if the promise is not known.
pub(super) fn salvage(path: &Path, manifest: &Manifest, damage: OpenError) -> Result<Save, OpenError> {
    let Some(mark) = tail::read(path, manifest.salt) else { return Err(damage) };
    let contents = contents(path, &dead(path, manifest)).map_err(|error| unavailable(path, &error))?;
    let replay = replay(manifest, &contents);
    if mark.number < replay.reaches() {
        return Err(damage);
    }
    let after = after_mark(manifest, &contents, &mark).map_err(|what| corrupt(path, what))?;
    let kept = if base::mutant!("marks-vote-ignored") { replay.head } else { after };
    replay.left(kept.hard_state, after.promised).map_err(|_| damage)
}

/// Files in which nothing counts: they were kept for other members, and may be many.
fn dead(path: &Path, manifest: &Manifest) -> BTreeSet<PathBuf> {
    let file = |(number, bytes): (&u32, &u64)| {
        let file = LogFile { number: *number, bytes: *bytes, record: 0, last: Index(0) };
        let content = file.read(path, (*bytes).min(SECTOR as u64)).ok()?;
        let first = record::open(&content, manifest.salt)?;
        Some((LogFile { record: first.number, ..file }, decode(first.number, first.body).ok()))
    };
    let mut chain: Vec<(LogFile, Option<Head>)> = manifest.files.iter().filter_map(file).collect();
    chain.sort_by_key(|(file, _)| file.record);
    chain.iter().take(needless(&chain)).map(|(file, _)| path.join(name(file.number))).collect()
}

/// By file name, the readable content of all others with records.
fn contents(path: &Path, dead: &BTreeSet<PathBuf>) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if dead.contains(&entry.path()) {
            continue;
        }
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = File::open(entry.path())?;
            contents.insert(name, read(&file, file.metadata()?.len())?);
        }
    }
    Ok(contents)
}

/// Applies the records before the first that does not fit.
fn replay(manifest: &Manifest, contents: &BTreeMap<String, Vec<u8>>) -> Replay {
    let named = manifest.files.keys().filter_map(|number| contents.get(&name(*number)));
    let first = |content: &Vec<u8>| record::open(content, manifest.salt).map(|first| first.number);
    let mut chain: Vec<(u64, &Vec<u8>)> =
        named.filter_map(|content| Some((first(content)?, content))).collect();
    chain.sort_by_key(|(first, _)| *first);
    let mut replay = Replay::new(manifest, chain.first().map_or(0, |(first, _)| *first));
    for (_, content) in chain {
        if replay.file(content).is_err() {
            break;
        }
    }
    replay
}

/// The state of the log after its last record, from the mark and the readable records of higher
/// numbers. (Its entries may be gone nevertheless.) The promise covers each entry that was the
/// log's last on the way there.
fn after_mark(
    manifest: &Manifest,
    contents: &BTreeMap<String, Vec<u8>>,
    mark: &Mark,
) -> Result<Head, String> {
    let mut newer: BTreeMap<u64, (usize, &[u8])> = BTreeMap::new();
    let most = record::most_in(contents.values().map(|content| content.len() as u64).sum());
    for content in contents.values() {
        let found = record::all(content, manifest.salt, mark.number + 1..mark.number + 1 + most);
        newer.extend(found.into_iter().map(|(at, found)| (found.number, (at, found.body))));
    }
    let mut after = Head { promised: mark.head.promised.max(mark.head.last), ..mark.head };
    for ((number, (at, body)), expected) in newer.into_iter().zip(mark.number + 1..) {
        if number != expected {
            return Err(format!("record {expected} cannot be read, and record {number} is there"));
        }
        // A file begins with the state before it.
        if at > 0 {
            let save: Save = decode(number, body).map_err(|fault| fault.text())?;
            let promised = after.promised;
            after.take_note(&save);
            after.promised = after.promised.max(promised).max(after.last);
        }
    }
    Ok(after)
}

/// Puts a log that holds `save` in the place of the damaged one at `path`, durably; returns where
/// that is kept.
pub(super) fn replace(path: &Path, options: &LogOptions, save: &Save) -> Result<PathBuf, OpenError> {
    let (new, old) = (beside(path, "new"), free_name(path));
    let failed = |error: io::Error| unavailable(&new, &error);
    if new.exists() {
        fs::remove_dir_all(&new).map_err(failed)?;
    }
    let mut log = Wal::open_at(&new, &LogOptions { create: true, ..options.clone() })?;
    log.read()?;
    step(Step::RepairBegun);
    log.keep(save).and_then(|()| log.tail.sync()).map_err(failed)?;
    drop(log);
    let parent = parent(path);
    sync_directory(&new).and_then(|()| sync_directory(parent)).map_err(failed)?;
    step(Step::RepairWritten);
    fs::rename(path, &old).and_then(|()| sync_directory(parent)).map_err(failed)?;
    step(Step::RepairHalfway);
    fs::rename(&new, path).and_then(|()| sync_directory(parent)).map_err(failed)?;
    step(Step::Repaired);
    Ok(old)
}

/// Finishes a repair that was interrupted.
pub(super) fn finish(path: &Path) -> io::Result<()> {
    let new = beside(path, "new");
    match (new.exists(), path.exists()) {
        (false, _) => Ok(()),
        // It was not complete, or not known to be: it is made again.
        (true, true) => fs::remove_dir_all(&new),
        (true, false) => fs::rename(&new, path).and_then(|()| sync_directory(parent(path))),
    }
}

/// Where the log is that belongs at `path`: a repair may have moved it halfway.
pub(super) fn place(path: &Path) -> PathBuf {
    let new = beside(path, "new");
    if !path.exists() && new.exists() { new } else { path.to_owned() }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a damaged log is kept.
fn free_name(path: &Path) -> PathBuf {
    let names = (0_u32..).map(|number| beside(path, &format!("damaged-{number}")));
    let mut free = names.skip_while(|name| name.exists());
    free.next().unwrap_or_else(|| beside(path, "damaged"))
}
