//! One file of the log, and how it is made.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::record::SECTOR;
use crate::storage::OpenError;
use crate::storage::lines::{corrupt, sync_directory, unavailable};
use crate::types::Index;

/// Between two pieces of a file that is made before it is needed.
const PAUSE: Duration = Duration::from_millis(4);

#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) number: u32,
    pub(super) bytes: u64,
    pub(super) file: File,
    /// The last entry in it that counts, unless a marker covers it.
    pub(super) last: Index,
}

/// A thread that makes a file.
pub(super) struct Making {
    pub(super) thread: JoinHandle<io::Result<LogFile>>,
    /// Somebody waits for it.
    pub(super) hurry: Arc<AtomicBool>,
}

impl LogFile {
    pub(super) fn open(path: &Path, number: u32, bytes: u64) -> Result<Self, OpenError> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt(path, "this file of the log is gone"));
            }
            Err(error) => return Err(unavailable(path, &error)),
        };
        let found = file.metadata().map_err(|error| unavailable(path, &error))?.len();
        if found != bytes {
            return Err(corrupt(path, format!("{found} bytes long, it was made with {bytes}")));
        }
        Ok(Self { number, bytes, file, last: Index::default() })
    }

    /// Its first bytes.
    pub(super) fn read(&self, bytes: u64) -> io::Result<Vec<u8>> {
        read(&self.file, bytes)
    }
}

/// The first bytes of a file. A sector that cannot be read counts as bad bytes.
pub(super) fn read(file: &File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    if file.read_exact_at(&mut content, 0).is_err() {
        for (number, sector) in content.chunks_mut(SECTOR).enumerate() {
            if file.read_exact_at(sector, (number * SECTOR) as u64).is_err() {
                sector.fill(0xFF);
            }
        }
    }
    Ok(content)
}

pub(super) fn name(number: u32) -> String {
    format!("{number}.log")
}

/// A file full of zeros, durable, but not yet in the manifest. Piece by piece, with pauses, unless somebody is in a hurry:
/// what is written by its side is synced on the same disk.
pub(super) fn make_file(path: &Path, number: u32, bytes: u64, hurry: &AtomicBool) -> io::Result<LogFile> {
    static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
    let file = options.open(path.join(name(number)))?;
    let mut at = 0;
    while at < bytes {
        let piece = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(&ZEROS[..piece], at)?;
        at += piece as u64;
        if !hurry.load(Ordering::Relaxed) {
            file.sync_data()?;
            std::thread::sleep(PAUSE);
        }
    }
    file.sync_all()?;
    sync_directory(path)?;
    Ok(LogFile { number, bytes, file, last: Index::default() })
}
