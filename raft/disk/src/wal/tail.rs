//! The mark: how far the log was written (correctness rule 61).
//!
//! A file `tail` of two sectors; record k uses number k mod 2. The mark holds the log's state after
//! record k. It is written after record k is durable and before its save returns, and is not synced
//! then. So an acknowledged save has its mark after any death of the process. It also has it after
//! a power cut from 50 ms later on, because the log's thread syncs the mark after that time without
//! a save, and at a clean stop.
//!
//! So a log that ends before its mark lost entries, and the mark says which promises went with
//! them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Head, record};

pub(super) const NAME: &str = "tail";
/// Two slots, each in a separate page.
const SLOT_BYTES: u64 = 4096;
/// A mark is smaller than this, and than a sector.
const MARK_BYTES: usize = 512;

/// The state of the log after a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) number: u64,
    pub(super) head: Head,
}

/// The file of the mark.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    salt: u64,
    mark: Vec<u8>,
    /// What was written is not synced.
    is_owed: bool,
}

impl Tail {
    /// Makes the file, durable but for its name.
    pub(super) fn make(path: &Path) -> io::Result<()> {
        let file = File::create(path.join(NAME))?;
        file.write_all_at(&[0; 2 * SLOT_BYTES as usize], 0)?;
        file.sync_all()
    }

    /// Opens the file. If it is gone a new one is made, without a mark.
    pub(super) fn open(path: &Path, salt: u64) -> io::Result<Self> {
        let at = path.join(NAME);
        if fs::metadata(&at).map_or(0, |found| found.len()) != 2 * SLOT_BYTES {
            Self::make(path)?;
            File::open(path)?.sync_all()?;
        }
        let file = OpenOptions::new().read(true).write(true).open(at)?;
        Ok(Self { file, salt, mark: Vec::new(), is_owed: false })
    }

    /// Writes the mark of record `number`: into a page of the operating system's memory, not to the
    /// disk.
    pub(super) fn note(&mut self, number: u64, head: &Head) -> io::Result<()> {
        self.mark.clear();
        record::seal(&mut self.mark, self.salt, number, head);
        debug_assert!(self.mark.len() <= MARK_BYTES, "a mark lies in a sector");
        self.file.write_all_at(&self.mark, number % 2 * SLOT_BYTES)?;
        self.is_owed = true;
        Ok(())
    }

    /// Makes the mark durable, if it is not.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_owed) {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// The newest mark that can be read, if any can.
pub(super) fn read(path: &Path, salt: u64) -> Option<Mark> {
    let file = File::open(path.join(NAME)).ok()?;
    let slot = |slot: u64| {
        let mut bytes = [0; MARK_BYTES];
        file.read_exact_at(&mut bytes, slot * SLOT_BYTES).ok()?;
        let found = record::open(&bytes, salt).filter(|found| found.number % 2 == slot)?;
        let head = base::codec::decode(found.body, found.body.len()).ok()?;
        Some(Mark { number: found.number, head })
    };
    slot(0).into_iter().chain(slot(1)).max_by_key(|mark| mark.number)
}
