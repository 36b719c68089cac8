//! Files of sorted rows, made beside RocksDB and then added to it durably. Rows that go this way
//! are not copied into its memory, not flushed from there, and not compacted if no other rows are
//! in their range.
//!
//! Left out on purpose: which rows go this way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::rocksdb::{DB, Error, IngestExternalFileOptions, Options, SstFileWriter};

/// The prefix of the names of files that RocksDB has not added yet.
const PREFIX: &str = "staged.";

/// Where files are made, and how.
pub(super) struct Files {
    db: Arc<DB>,
    /// The database's settings.
    settings: Options,
    directory: PathBuf,
    /// Files made so far by this process.
    made: AtomicU64,
}

impl Files {
    pub(super) fn new(db: Arc<DB>, settings: Options, directory: &Path) -> Self {
        Self { db, settings, directory: directory.to_owned(), made: AtomicU64::new(0) }
    }

    /// A file that `write` writes, in key order, at least one row; synced.
    pub(super) fn make(
        &self,
        write: impl FnOnce(&mut SstFileWriter<'_>) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{PREFIX}{number}"));
        let mut file = SstFileWriter::create(&self.settings);
        file.open(&path)?;
        write(&mut file)?;
        file.finish()?;
        Ok(path)
    }

    /// Adds files to RocksDB, whose ranges must not overlap: all of them or, after a crash, none.
    /// Their rows are newer than all that it has.
    pub(super) fn take_over(&self, files: Vec<PathBuf>) -> Result<(), Error> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_opts(&options, files)
    }
}

/// Removes files that a crash left.
pub(super) fn remove_leftovers(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
