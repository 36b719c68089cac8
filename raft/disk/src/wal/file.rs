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
use crate::lines::{corrupt, sync_directory, unavailable};
use raft::storage::OpenError;
use raft::types::Index;

/// The pause between two pieces of a file that is made before it is needed.
const PAUSE: Duration = Duration::from_millis(4);

#[derive(Clone, Copy, Debug)]
pub(super) struct LogFile {
    pub(super) number: u32,
    pub(super) bytes: u64,
    /// The number of its first record, if it has any.
    pub(super) record: u64,
    /// The last entry in it that counts, unless a marker covers it.
    pub(super) last: Index,
}

/// A thread that makes a file.
pub(super) struct Making {
    pub(super) thread: JoinHandle<io::Result<LogFile>>,
    /// The log waits for it.
    pub(super) hurry: Arc<AtomicBool>,
}

impl LogFile {
    /// Checks that it is as long as the manifest says.
    pub(super) fn check(path: &Path, number: u32, bytes: u64) -> Result<Self, OpenError> {
        let file = match File::open(path) {
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
        Ok(Self { number, bytes, record: 0, last: Index::default() })
    }

    /// Opened to be written.
    pub(super) fn open(&self, directory: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(directory.join(name(self.number)))
    }

    /// Its first bytes.
    pub(super) fn read(&self, directory: &Path, bytes: u64) -> io::Result<Vec<u8>> {
        read(&File::open(directory.join(name(self.number)))?, bytes)
    }
}

/// The first bytes of a file. A sector that cannot be read counts as damaged bytes.
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

/// Bytes that may still be written on the disk of `path`; the maximum, if it does not say.
pub(super) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |space| space.f_bavail.saturating_mul(space.f_frsize))
}

pub(super) fn name(number: u32) -> String {
    format!("{number}.log")
}

/// Makes a file full of zeros, durable, but not yet in the manifest. It is written piece by piece,
/// with pauses, unless the log is in a hurry: other writes are synced on the same disk.
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
    Ok(LogFile { number, bytes, record: 0, last: Index::default() })
}
