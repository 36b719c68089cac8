//! Reads a log without changing anything.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::file::{LogFile, name};
use super::manifest::Manifest;
use super::record::SECTOR;
use super::replay::Replay;
use super::tail::{self, Mark};
use super::{Head, record};
use crate::lines::{corrupt, unavailable};
use raft::storage::{OpenError, Restored};
use raft::types::Index;

/// A log that can be opened.
pub(super) struct Survey {
    /// Files with records, oldest first, and those without.
    pub(super) used: VecDeque<LogFile>,
    pub(super) blank: Vec<LogFile>,
    /// Damaged files that are not needed.
    pub(super) unreadable: Vec<LogFile>,
    /// Files that the manifest does not name: half made, or dead and half removed.
    pub(super) unnamed: Vec<PathBuf>,
    /// Where the newest record is in the last file with records.
    pub(super) lies: Range<usize>,
    /// The number of the next record.
    pub(super) next: u64,
    pub(super) head: Head,
    /// That file from the newest record on.
    pub(super) newest: Vec<u8>,
    pub(super) restored: Restored,
}

/// Reads everything.
pub(super) fn survey(path: &Path, manifest: &Manifest) -> Result<Survey, OpenError> {
    // First the mark: if the log is being written, later reads reach further.
    let mark = tail::read(path, manifest.salt);
    let (mut chain, mut blank) = (Vec::new(), Vec::new());
    for (number, bytes) in &manifest.files {
        let at = path.join(name(*number));
        let mut file = LogFile::check(&at, *number, *bytes)?;
        let content =
            file.read(path, (*bytes).min(SECTOR as u64)).map_err(|error| unavailable(&at, &error))?;
        match record::open(&content, manifest.salt) {
            Some(first) => {
                file.record = first.number;
                chain.push((file, base::codec::decode(first.body, first.body.len()).ok()));
            }
            None => blank.push(file),
        }
    }
    chain.sort_by_key(|(file, _)| file.record);
    let needed = chain.split_off(needless(&chain));
    let mut replay = Replay::new(manifest, needed.first().map_or(0, |(first, _)| first.record));
    let mut used: VecDeque<LogFile> = chain.into_iter().map(|(file, _)| file).collect();
    let (dead, mut newest) = (used.len(), Vec::new());
    for (mut file, _) in needed {
        let at = path.join(name(file.number));
        let content = file.read(path, file.bytes).map_err(|error| unavailable(&at, &error))?;
        let lasts = replay.file(&content).map_err(|fault| fault.at(&at))?;
        for (earlier, last) in used.iter_mut().skip(dead).zip(&lasts) {
            earlier.last = *last;
        }
        file.last = lasts.last().copied().unwrap_or_default();
        newest = content[replay.newest.start..].to_vec();
        used.push_back(file);
    }
    let unreadable = take_unreadable(path, &mut blank, &replay)?;
    let unnamed = unnamed(path, manifest, &replay)?;
    check_end(path, manifest.salt, mark, &replay, &newest)?;
    if let Some(file) = unreadable.first().filter(|_| mark.is_none()) {
        return Err(corrupt(&path.join(name(file.number)), "its first record cannot be read"));
    }
    let (lies, next, head) = (replay.newest.clone(), replay.next, replay.head);
    let restored = replay.finish().map_err(|what| corrupt(path, what))?;
    Ok(Survey { used, blank, unreadable, unnamed, lies, next, head, newest, restored })
}

/// How many of the oldest files are not needed, according to the first record of a later file: all
/// their entries are at or below a marker. They were kept for other members, or not reused yet.
pub(super) fn needless(chain: &[(LogFile, Option<Head>)]) -> usize {
    let marker = chain.iter().rev().find_map(|(_, head)| *head).map_or(Index(0), |head| head.marker.index);
    let mut heads = chain.iter().map(|(_, head)| head);
    // Those before the last one of which all that was written earlier is below the marker.
    heads.rposition(|head| head.is_some_and(|head| head.last.index <= marker)).unwrap_or(0)
}

/// A file without a first record was never written to, or is damaged. (The content after its first
/// sector may be left over.) A damaged one is not needed if the records of the other files follow
/// each other up to the newest, and the mark does not reach beyond: when a file is begun, the mark
/// reaches it durably before anything else is written to it.
fn take_unreadable(
    directory: &Path,
    blank: &mut Vec<LogFile>,
    replay: &Replay,
) -> Result<Vec<LogFile>, OpenError> {
    let mut unreadable = Vec::new();
    for file in std::mem::take(blank) {
        let path = directory.join(name(file.number));
        let content = file.read(directory, file.bytes).map_err(|error| unavailable(&path, &error))?;
        replay.nothing_new(&content).map_err(|fault| fault.at(&path))?;
        let is_damaged = content.iter().take(SECTOR).any(|byte| *byte != 0);
        if is_damaged { unreadable.push(file) } else { blank.push(file) }
    }
    Ok(unreadable)
}

/// Files that the manifest does not name, and that contain nothing new.
fn unnamed(directory: &Path, manifest: &Manifest, replay: &Replay) -> Result<Vec<PathBuf>, OpenError> {
    let failed = |error: io::Error| unavailable(directory, &error);
    let mut unnamed = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let named = |number: &u32| path.file_name().is_some_and(|file| *file == *name(*number));
        if path.extension().is_none_or(|extension| extension != "log") || manifest.files.keys().any(named) {
            continue;
        }
        let content = fs::read(&path).map_err(|error| unavailable(&path, &error))?;
        replay.nothing_new(&content).map_err(|fault| fault.at(&path))?;
        unnamed.push(path);
    }
    Ok(unnamed)
}

/// What follows the newest record, with which `newest` begins, must never have been acknowledged
/// (rules 30, 61).
fn check_end(
    path: &Path,
    salt: u64,
    mark: Option<Mark>,
    replay: &Replay,
    newest: &[u8],
) -> Result<(), OpenError> {
    let next = replay.next;
    if let Some(Mark { number, .. }) = mark.filter(|mark| mark.number >= next) {
        return Err(corrupt(path, format!("record {next} is gone, and the last was {number}")));
    }
    // Sectors are counted from the file's beginning.
    let (start, end) = (replay.newest.start % SECTOR, replay.newest.len());
    let aligned = [&vec![0; start], newest].concat();
    if !newest.is_empty() && record::went_bad(&aligned, start + end, salt, next) {
        let what = format!("record {next}, the last, went bad, and whether it was acknowledged is not known");
        return Err(corrupt(path, what));
    }
    if mark.is_none() && next > 0 {
        tracing::warn!(path = %path.display(), "the mark of the log cannot be read and is written anew");
    }
    Ok(())
}
