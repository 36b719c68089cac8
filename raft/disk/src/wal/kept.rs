//! Reads entries that a marker covers, while another thread writes the log (correctness rule 79).
//!
//! The log says which files there are. The reader checks record by record; a file that is reused
//! meanwhile ends there, because its records have other numbers then. It reads only entries at or
//! below a marker: these no longer change, in whichever file they count. (The last file that
//! contains an entry is the one that counts; the log knows for each file up to which entry it
//! counts.)

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::{self, LogFile, name};
use super::replay::decode;
use super::{Wal, record};
use raft::storage::{Kept, Run, Save};
use raft::types::{Entry, EntryId, Index};

/// One file of those with records, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) number: u32,
    pub(super) bytes: u64,
    /// The number of its first record.
    pub(super) record: u64,
    /// The last entry in it that counts.
    pub(super) last: Index,
}

/// A reader's view of a log.
#[derive(Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    salt: u64,
    wanted: AtomicU64,
    first: AtomicU64,
    table_bytes: AtomicU64,
    bytes_max: AtomicU64,
    file_bytes: AtomicU64,
    volumes: Mutex<Vec<Volume>>,
    open: Mutex<Open>,
}

/// The entries at or below the marker of the file that was read last, after the one that was sent
/// last.
#[derive(Debug, Default)]
struct Open {
    entries: Vec<Entry>,
}

impl Shelf {
    pub(super) fn new(path: PathBuf, salt: u64) -> Self {
        let (wanted, first) = (AtomicU64::new(Index::NEVER.0), AtomicU64::new(Index::NEVER.0));
        let (table_bytes, bytes_max, file_bytes) = Default::default();
        let (volumes, open) = (Mutex::default(), Mutex::default());
        Self { path, salt, wanted, first, table_bytes, bytes_max, file_bytes, volumes, open }
    }

    /// The log is made of these files now.
    pub(super) fn set_volumes(&self, volumes: Vec<Volume>) {
        *lock(&self.volumes) = volumes;
    }

    /// All files of the log have so many bytes now.
    pub(super) fn set_file_bytes(&self, bytes: u64) {
        self.file_bytes.store(bytes, Ordering::Relaxed);
    }

    /// All entries from here on are there; before, some may not be.
    pub(super) fn set_first(&self, first: Index) {
        self.first.store(first.0, Ordering::Relaxed);
    }

    /// Entries before this one are gone.
    pub(super) fn forget_before(&self, first: Index) {
        self.first.fetch_max(first.0, Ordering::Relaxed);
    }

    /// How many bytes of files may be kept for members that lag: at least `least`, or half of the
    /// table, but no more than half of what is `free` on the disk (rule 79).
    pub(super) fn share(&self, least: u64, free: u64) -> u64 {
        let bytes_max = least.max(self.table_bytes.load(Ordering::Relaxed) / 2).min(free / 2);
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        bytes_max
    }

    /// The first entry that a member may ask for.
    pub(super) fn wanted(&self) -> Index {
        Index(self.wanted.load(Ordering::Relaxed))
    }

    /// Reads the file that holds the entry at `index`: its entries up to `to`.
    fn load(&self, index: Index, to: Index) -> Option<Vec<Entry>> {
        let volume = {
            let volumes = lock(&self.volumes);
            let (newest, others) = volumes.split_last()?;
            let holds = others.iter().find(|volume| volume.last >= index);
            // (Entries are being written to the newest one; those that are asked for are there.)
            holds.copied().unwrap_or(Volume { last: to, ..*newest })
        };
        let file = File::open(self.path.join(name(volume.number))).ok()?;
        let content = file::read(&file, volume.bytes).ok()?;
        let entries = entries_of(&content, self.salt, volume.record, volume.last.min(to))?;
        entries.first().is_some_and(|first| first.id.index <= index).then_some(entries)
    }

    /// The entry at `index`, and those after it in its file.
    fn find(&self, open: &mut Open, index: Index, to: Index) -> Option<usize> {
        let at = |entries: &[Entry]| {
            let first = entries.first()?.id.index;
            let at = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
            (at < entries.len()).then_some(at)
        };
        if let Some(at) = at(&open.entries) {
            return Some(at);
        }
        open.entries = Vec::new();
        open.entries = self.load(index, to)?;
        at(&open.entries)
    }

    fn read_run(&self, prev: Index, to: Index, bytes_max: usize) -> Option<Run> {
        let open = &mut lock(&self.open);
        let prev = match prev {
            Index(0) => EntryId::ZERO,
            _ => {
                let at = self.find(open, prev, to)?;
                open.entries[at].id
            }
        };
        let at = self.find(open, prev.index.next(), to)?;
        Run::cut(prev, &open.entries[at..], bytes_max)
    }
}

impl Kept for Shelf {
    fn keep_from(&self, from: Index) {
        self.wanted.store(from.0, Ordering::Relaxed);
    }

    fn set_table_bytes(&self, bytes: u64) {
        self.table_bytes.store(bytes, Ordering::Relaxed);
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    fn first(&self) -> Index {
        Index(self.first.load(Ordering::Relaxed))
    }

    fn read(&self, prev: Index, to: Index, bytes_max: usize) -> Option<Run> {
        let run = self.read_run(prev, to, bytes_max);
        let is_at_end =
            run.as_ref().is_none_or(|run| run.entries.last().is_none_or(|last| last.id.index >= to));
        if is_at_end {
            // Usually nobody asks for a while.
            lock(&self.open).entries = Vec::new();
        }
        if run.is_none() {
            let path = self.path.display();
            tracing::warn!(%path, %prev, "entries that were kept for a member cannot be read: it gets a snapshot");
            // (What follows position 0 needs no entry there.)
            self.forget_before(prev.next().max(Index(2)));
        }
        run
    }
}

impl Wal {
    /// How many of the oldest files are no longer needed: nothing in them counts, or may be asked
    /// for, and they are not being written.
    pub(super) fn dead(&self) -> usize {
        let others = self.used.iter().take(self.used.len().saturating_sub(1));
        let below: Vec<&LogFile> = others.take_while(|file| file.last <= self.head.marker.index).collect();
        let mut bytes: u64 = below.iter().map(|file| file.bytes).sum();
        let wanted = self.shelf.wanted().max(self.shelf.first());
        let is_dead = |file: &&&LogFile| {
            let is_kept = file.last >= wanted && bytes <= self.lagging_bytes;
            bytes -= file.bytes;
            !is_kept
        };
        below.iter().take_while(is_dead).count()
    }

    /// Tells readers which files there are.
    pub(super) fn fill_shelf(&self) {
        let volume = |file: &LogFile| Volume {
            number: file.number,
            bytes: file.bytes,
            record: file.record,
            last: file.last,
        };
        self.shelf.set_volumes(self.used.iter().map(volume).collect());
    }
}

/// The entries up to `last` of a file that begins with this record, without a gap.
fn entries_of(content: &[u8], salt: u64, mut number: u64, last: Index) -> Option<Vec<Entry>> {
    let mut entries: BTreeMap<Index, Entry> = BTreeMap::new();
    let mut at = 0;
    while let Some(found) = content.get(at..).and_then(|rest| record::open(rest, salt)) {
        if found.number != number {
            break;
        }
        if at > 0 {
            let save: Save = decode(found.number, found.body).ok()?;
            if let Some(from) = save.truncate_from {
                entries.split_off(&from);
            }
            for entry in save.entries {
                let continues = |(last, _): (&Index, &Entry)| last.next() == entry.id.index;
                if !entries.last_key_value().is_none_or(continues) {
                    // It continues a marker beyond them.
                    entries.clear();
                }
                entries.insert(entry.id.index, entry);
            }
        }
        at += found.size;
        number += 1;
    }
    entries.split_off(&last.next());
    Some(entries.into_values().collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
