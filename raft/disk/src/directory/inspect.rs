//! Reads what a directory says about itself, without changing anything.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{IDENTITY_NEW, Identity, LOCK, RAFT, holder, read_identity, read_peers};
use crate::lines::{corrupt, unavailable};
use raft::storage::OpenError;

/// A directory that nobody may open as long as this lives.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// Its server, its incarnation, and the key of its cluster.
    pub(crate) identity: Result<(Identity, u64, u64), OpenError>,
    /// How many peers it has met.
    pub(crate) peers: Result<usize, OpenError>,
    /// For a directory that was ever opened.
    pub(crate) lock: Option<File>,
}

/// Reads identity and peers, and takes the lock, if there is one, without writing into it.
///
/// # Errors
/// [`OpenError`]: no directory of a server, or in use.
pub(crate) fn inspect(path: &Path) -> Result<Inspected, OpenError> {
    let absent = || OpenError::Absent { path: path.display().to_string() };
    if !path.is_dir() {
        return Err(absent());
    }
    let lock = shared_lock(path)?;
    let identity = match read_identity(path) {
        Ok(Some((made, key))) => Ok((made.identity, made.incarnation, key)),
        // Half made, or never made: nothing was promised to anybody.
        Ok(None) if path.join(IDENTITY_NEW).exists() || !path.join(RAFT).exists() => return Err(absent()),
        Ok(None) => Err(corrupt(path, "the file that says whose it is is gone")),
        Err(error) => Err(error),
    };
    Ok(Inspected { identity, peers: read_peers(path).map(|peers| peers.len()), lock })
}

/// The lock, if a process ever held it. A process that starts meanwhile finds it taken.
fn shared_lock(path: &Path) -> Result<Option<File>, OpenError> {
    let at = path.join(LOCK);
    let mut file = match File::open(&at) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unavailable(&at, &error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => {
            Err(OpenError::InUse { path: path.display().to_string(), holder: holder(&mut file) })
        }
        Err(error) => Err(unavailable(&at, &error)),
    }
}
