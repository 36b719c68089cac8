//! The Raft log in its own files: a write-ahead log whose every write is one synced record.
//!
//! ```text
//! manifest        the files there are, their sizes, and the log's salt
//! N.log           records, from the front; the rest is left over from an earlier use
//! tail            the mark: how far the log was written, and its state then
//! ```
//!
//! A record is a [`Save`], or, as the first of a file, a `Head`: the state of the log at that
//! point, apart from its entries, so that earlier files are not needed for that. Records are
//! numbered without a gap across all files, and their checksums start from the log's salt. Reading
//! them in order from the oldest file on, and applying them, restores the log.
//!
//! A file is dead once none of its entries counts: all are overridden, or at or below a marker that
//! is durable. When the oldest file is dead, it becomes the next one to be written. A file is made
//! at its full size, filled and synced, before anything is written to it, and never changes its
//! size. Then a synced write finds its blocks on the disk and needs no commit of the file system's
//! journal, which is half of its time.
//!
//! Damage (correctness rules 30, 31, 60 to 62). Records are synced one by one, so only the last can
//! be torn, and that one was never acknowledged. So reading ends at the first record that does not
//! fit. If nothing follows, neither a record of a higher number nor the mark, it was torn, and is
//! dropped. If the mark is there or beyond, what precedes the damage is kept, and the promises of
//! the lost part are known (`repair`). If records follow and no mark does, the promises are not
//! known, and the log refuses to open. A file begins with a record, which no crash tears (it is
//! smaller than a sector), or is full of zeros. The manifest shows files that are gone or
//! truncated. What a killed process has written or renamed is made durable before it is acted on.
//!
//! Dead files are kept for lagging members, as long as some member may ask for their entries
//! (`kept`).
//!
//! Left out on purpose: records that span files. A record that is longer than a file gets a file of
//! its length.

mod file;
mod judge;
mod kept;
mod manifest;
mod record;
mod repair;
mod replay;
pub mod steps;
mod survey;
mod tail;
mod tidy;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::codec::Denied;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use self::file::{LogFile, Making, free_bytes, make_file, name};
pub use self::judge::{Judged, judge};
use self::kept::Shelf;
use self::manifest::Manifest;
use self::steps::{Step, step};
use self::survey::Survey;
use self::tail::Tail;
use super::lines::{corrupt, sync_directory, unavailable};
use raft::storage::{Kept, Log, LogWriter, OpenError, Restored, Save, fatal, start_thread};
use raft::types::{EntryId, HardState, Index};

const MIB: u64 = 1 << 20;

/// Settings of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Make it if it is not there.
    pub create: bool,
    /// Size of a file. Default 4 MiB.
    pub file_bytes: u64,
    /// Files beyond this many bytes are removed once they are dead, except one. Default 32 MiB.
    pub keep_bytes: u64,
    /// Bytes of files with only entries below the marker that are kept for lagging members, or half
    /// of the table if that is more. Default 1 GiB.
    pub lagging_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { create: true, file_bytes: 4 * MIB, keep_bytes: 32 * MIB, lagging_bytes_max: 1024 * MIB }
    }
}

impl LogOptions {
    /// Settings for a replica that compacts its log when it holds this many bytes.
    pub fn for_limit(log_bytes_max: usize) -> Self {
        let log_bytes = log_bytes_max as u64;
        let file_bytes = (log_bytes / 4).clamp(MIB / 16, 4 * MIB);
        Self {
            create: true,
            file_bytes,
            keep_bytes: log_bytes + 4 * file_bytes,
            lagging_bytes_max: 64 * log_bytes,
        }
    }
}

/// Opens the log in the directory `path`.
///
/// # Errors
/// [`OpenError`], naming the damage if there is any.
pub fn open_log(path: &Path, options: &LogOptions) -> Result<Box<dyn Log>, OpenError> {
    repair::finish(path).map_err(|error| unavailable(path, &error))?;
    Ok(Box::new(Wal::open_at(path, options)?))
}

/// The state of the log apart from its entries: it is the first record of a file, about the files
/// before it, and the mark, about the records before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    hard_state: HardState,
    marker: EntryId,
    /// The log's last entry, or its marker, so that missing entries of earlier files are noticed.
    /// (If entries were dropped and none followed in the same save, its term may be too high.)
    last: EntryId,
    /// The last entry that was acknowledged, if the log may lack it; or zero.
    promised: EntryId,
    more: Denied,
}

impl Head {
    /// Applies the changes of `save`.
    fn take_note(&mut self, save: &Save) {
        self.hard_state = save.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = save.truncate_from.filter(|from| *from <= self.last.index) {
            self.last.index = from.previous();
        }
        if let Some(last) = save.entries.last() {
            self.last = last.id;
        }
        if let Some(marker) = save.marker {
            self.marker = marker;
            if marker.index >= self.last.index {
                self.last = marker;
            }
        }
        self.promised = save.promised.unwrap_or(self.promised);
    }
}

struct Wal {
    path: PathBuf,
    options: LogOptions,
    /// As on disk, except for a file that is being made.
    manifest: Manifest,
    /// Files with records, oldest first; the last is being written.
    used: VecDeque<LogFile>,
    /// The last one, if there is any.
    file: Option<File>,
    /// The readers' view of them.
    shelf: Arc<Shelf>,
    /// Bytes of dead files that may be kept for lagging members.
    lagging_bytes: u64,
    /// Files without records that count.
    blank: Vec<LogFile>,
    /// A file that is being made, before it is needed.
    making: Option<Making>,
    /// Dead files that are to be removed, not reused.
    leaving: Vec<LogFile>,
    /// How many files could not be read at the load, and were not needed.
    unreadable: usize,
    /// A file could not be made or removed: it is tried again when this much of the present file is
    /// used. Such a failure ends no process before a file is needed (rule 104).
    again_at: u64,
    tail: Tail,
    /// Where the next record goes.
    at: u64,
    /// The number of the next record.
    next: u64,
    head: Head,
    /// The record being written; kept to reuse its memory.
    record: Vec<u8>,
    syncs: u64,
    loaded: bool,
}

impl LogWriter for Wal {
    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
        assert!(self.loaded, "a log is loaded before it is written");
        self.check(save);
        self.keep(save).unwrap_or_else(|error| fatal("write the log", &error));
        self.tidy();
        futures::future::ready(()).boxed()
    }

    fn syncs(&self) -> u64 {
        self.syncs
    }
}

impl Log for Wal {
    fn load(&mut self) -> Result<Restored, OpenError> {
        assert!(!self.loaded, "a log is loaded once");
        let damage = match self.read() {
            Err(damage @ OpenError::Corrupt { .. }) => damage,
            other => return other,
        };
        let what = damage.to_string();
        let save = repair::salvage(&self.path, &self.manifest, damage)?;
        let (path, options) = (self.path.clone(), self.options.clone());
        let kept = repair::replace(&path, &options, &save)?;
        *self = Self::open_at(&path, &options)?;
        let restored = self.read()?;
        let (promised, last) = (restored.promised, self.head.last);
        tracing::warn!(%what, %promised, %last, kept = %kept.display(), "the log was damaged and is repaired");
        Ok(restored)
    }

    fn rest(&mut self) -> bool {
        self.tail.sync().unwrap_or_else(|error| fatal("write the mark of the log", &error));
        let before = self.manifest.files.len();
        self.tidy();
        self.manifest.files.len() < before
    }

    fn unreadable_files(&self) -> usize {
        self.unreadable
    }

    fn kept(&self) -> Arc<dyn Kept> {
        Arc::clone(&self.shelf) as Arc<dyn Kept>
    }
}

impl Wal {
    fn open_at(path: &Path, options: &LogOptions) -> Result<Self, OpenError> {
        let failed = |error: io::Error| unavailable(path, &error);
        let manifest = match Manifest::read(path)? {
            Some(manifest) => {
                sync_directory(path).map_err(failed)?;
                manifest
            }
            None if options.create => {
                let manifest = Manifest { salt: rand::random(), ..Manifest::default() };
                fs::create_dir_all(path)
                    .and_then(|()| Tail::make(path))
                    .and_then(|()| manifest.write(path))
                    .map_err(failed)?;
                manifest
            }
            None => return Err(corrupt(path, "the log that belongs here is gone")),
        };
        Ok(Self {
            path: path.to_owned(),
            options: options.clone(),
            tail: Tail::open(path, manifest.salt).map_err(failed)?,
            used: VecDeque::new(),
            file: None,
            shelf: Arc::new(Shelf::new(path.to_owned(), manifest.salt)),
            lagging_bytes: options.lagging_bytes_max,
            manifest,
            blank: Vec::new(),
            making: None,
            leaving: Vec::new(),
            unreadable: 0,
            again_at: 0,
            at: 0,
            next: 0,
            head: Head::default(),
            record: Vec::new(),
            syncs: 0,
            loaded: false,
        })
    }

    /// Reads everything, and continues after it.
    fn read(&mut self) -> Result<Restored, OpenError> {
        let Survey { used, blank, unreadable, unnamed, lies, next, head, newest, restored } =
            survey::survey(&self.path, &self.manifest)?;
        for file in &unreadable {
            let file = self.path.join(name(file.number));
            tracing::warn!(file = %file.display(), "a log file that was kept for lagging members is damaged: it goes");
        }
        (self.unreadable, self.leaving) = (unreadable.len(), unreadable);
        (self.used, self.blank, self.next, self.head, self.at) = (used, blank, next, head, lies.end as u64);
        for path in unnamed {
            fs::remove_file(&path).map_err(|error| unavailable(&path, &error))?;
        }
        self.begin(&lies, newest).map_err(|error| unavailable(&self.path, &error))?;
        self.shelf.set_first(restored.marker.index.next());
        self.shelf.set_file_bytes(self.manifest.bytes());
        self.fill_shelf();
        self.lagging_bytes = self.shelf.share(self.options.lagging_bytes_max, free_bytes(&self.path));
        self.loaded = true;
        Ok(restored)
    }

    /// Makes durable what was read and is acted on from now on: the newest record, with which
    /// `newest` begins, and its mark.
    fn begin(&mut self, lies: &Range<usize>, mut newest: Vec<u8>) -> io::Result<()> {
        // After the newest record there may be pieces of a torn one. If the next write is torn too,
        // these pieces must not complete it, nor make it look like a record with one flipped bit.
        let (end, room) = (lies.len(), newest.len() - lies.len());
        newest.truncate(end);
        newest.resize(end + room, 0);
        // What a killed process wrote may be only in the operating system's memory, possibly after
        // a failed sync: then it would never be written on its own (rule 29). It is acted on from
        // now on.
        if let Some(file) = self.used.back() {
            let file = file.open(&self.path)?;
            file.write_all_at(&newest, lies.start as u64)?;
            file.sync_data()?;
            self.file = Some(file);
        }
        if let Some(number) = self.next.checked_sub(1) {
            self.tail.note(number, &self.head)?;
            self.tail.sync()?;
        }
        Ok(())
    }

    /// Refuses what the core must never ask for.
    fn check(&self, save: &Save) {
        let Head { marker, last, .. } = self.head;
        let last = last.index;
        let cut = save.truncate_from.filter(|from| *from <= last);
        assert!(
            cut.is_none_or(|from| from > marker.index),
            "what was compacted is never truncated (rule 13)"
        );
        if let Some(first) = save.entries.first() {
            let end = cut.map_or(last, Index::previous);
            // Entries after a marker beyond the log continue that one.
            let jump = save.marker.filter(|marker| end < marker.index && marker.index < first.id.index);
            let end = jump.map_or(end, |marker| marker.index);
            assert_eq!(first.id.index, end.next(), "entries continue the log");
        }
    }

    /// Writes a save, durably.
    fn keep(&mut self, save: &Save) -> io::Result<()> {
        self.seal(save);
        let room = self.used.back().map_or(0, |file| file.bytes - self.at);
        if room < self.record.len() as u64 {
            self.begin_file(self.record.len() as u64)?;
            self.seal(save);
        }
        let mut head = self.head;
        head.take_note(save);
        self.write_record(&head)?;
        self.take_note(save);
        self.syncs += 1;
        if self.record.capacity() as u64 > self.options.file_bytes {
            self.record = Vec::new();
        }
        Ok(())
    }

    fn seal(&mut self, value: &impl Serialize) {
        self.record.clear();
        record::seal(&mut self.record, self.manifest.salt, self.next, value);
    }

    /// Writes a record after which the log is as `head` says; and then the mark that says so (rule
    /// 61).
    fn write_record(&mut self, head: &Head) -> io::Result<()> {
        base::mutant!("mark-before-sync", self.tail.note(self.next, head)?);
        let file = self.file.as_ref().expect("a file was begun");
        file.write_all_at(&self.record, self.at)?;
        step(Step::Written);
        file.sync_data()?;
        step(Step::Synced);
        self.tail.note(self.next, head)?;
        step(Step::Marked);
        self.at += self.record.len() as u64;
        self.next += 1;
        Ok(())
    }

    /// Begins a file with room for `room` bytes. Its head is synced separately: two records in one
    /// write could leave the second without the first, which would look like damage.
    fn begin_file(&mut self, room: u64) -> io::Result<()> {
        let head = self.head;
        self.seal(&head);
        base::mutant!("promise-not-in-head", self.seal(&Head { promised: EntryId::ZERO, ..head }));
        let file = self.next_file(self.record.len() as u64 + room)?;
        self.file = Some(file.open(&self.path)?);
        self.used.push_back(LogFile { record: self.next, ..file });
        (self.at, self.again_at) = (0, 0);
        self.write_record(&head)?;
        // The mark reaches this file durably before any save is written to it. So if a later start
        // cannot read a file, and the mark ends before it, the file is an older one.
        self.tail.sync()?;
        self.lagging_bytes = self.shelf.share(self.options.lagging_bytes_max, free_bytes(&self.path));
        self.fill_shelf();
        Ok(())
    }

    fn next_file(&mut self, bytes: u64) -> io::Result<LogFile> {
        if self.dead() > 0 && self.used[0].bytes >= bytes {
            let file = self.used.pop_front().expect("there is one");
            self.shelf.forget_before(file.last.next());
            self.fill_shelf();
            return Ok(LogFile { last: Index::default(), ..file });
        }
        // Without it one is made now, or the failure is fatal.
        self.take_spare();
        if let Some(at) = self.blank.iter().position(|file| file.bytes >= bytes) {
            return Ok(self.blank.swap_remove(at));
        }
        self.make(bytes.max(self.options.file_bytes), true);
        self.take_made()?;
        Ok(self.blank.pop().expect("it was made"))
    }

    /// Applies what a durable save changes.
    fn take_note(&mut self, save: &Save) {
        let before = self.head;
        self.head.take_note(save);
        if let Some(from) = save.truncate_from {
            for file in &mut self.used {
                file.last = file.last.min(from.previous());
            }
            self.fill_shelf();
        }
        if save.marker.is_some_and(|marker| save.truncate_from.is_some() || marker.index > before.last.index)
        {
            // It may be beyond the log: then there is nothing between the two.
            self.shelf.forget_before(self.head.marker.index.next());
        }
        if let Some(last) = save.entries.last() {
            self.used.back_mut().expect("it was written to").last = last.id.index;
        }
    }

    /// Begins to make a file. One at a time: the manifest has one writer.
    fn make(&mut self, bytes: u64, hurry: bool) {
        let number = self.manifest.files.keys().next_back().map_or(0, |last| last + 1);
        let mut manifest = self.manifest.clone();
        let bytes = bytes.next_multiple_of(8);
        manifest.files.insert(number, bytes);
        let path = self.path.clone();
        let hurry = Arc::new(AtomicBool::new(hurry));
        let told = Arc::clone(&hurry);
        let make = move || {
            let file = make_file(&path, number, bytes, &told).inspect_err(|_| {
                // The partial file takes space, and is named nowhere.
                let _ = fs::remove_file(path.join(name(number)));
            })?;
            manifest.write(&path)?;
            Ok(file)
        };
        self.making = Some(Making { thread: start_thread("raft-log-file", make), hurry });
    }

    /// Waits for the file that is being made, if there is one; without it the log continues in the
    /// present one.
    fn take_spare(&mut self) {
        base::mutant!("no-next-file-is-fatal", {
            self.take_made().unwrap_or_else(|error| fatal("make a file", &error));
        });
        if let Err(error) = self.take_made() {
            self.try_again_later("no next file for the log", &error);
        }
    }

    fn try_again_later(&mut self, what: &str, error: &io::Error) {
        self.again_at = self.at + self.used.back().map_or(0, |file| file.bytes / 8);
        tracing::warn!(%error, path = %self.path.display(), "{what}: it will be tried again");
    }

    /// Waits for the file that is being made, if there is one.
    fn take_made(&mut self) -> io::Result<()> {
        let Some(making) = self.making.take() else { return Ok(()) };
        making.hurry.store(true, Ordering::Relaxed);
        let file =
            making.thread.join().map_err(|_| io::Error::other("the thread that makes files panicked"))??;
        self.manifest.files.insert(file.number, file.bytes);
        self.shelf.set_file_bytes(self.manifest.bytes());
        self.blank.push(file);
        Ok(())
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // The next process that opens the log must not find its manifest changing.
        let _ = self.take_made();
        // A mark that is not synced says less than it could, and nothing wrong.
        let _ = self.tail.sync();
    }
}
