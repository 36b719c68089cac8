//! Watches the free space of the disk (correctness rule 35).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use tokio::sync::watch;

/// How often the disk is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// Reserve of a large disk.
const RESERVE_BYTES: u64 = 256 << 20;
/// Reserve of a small disk: one part in this many.
const RESERVE_PART: u64 = 20;

/// A disk that is watched.
#[derive(Debug, Default)]
pub struct Disk {
    /// A directory on it.
    pub directory: PathBuf,
    /// The disk is nearly full when fewer bytes than this are free.
    pub reserve_bytes: u64,
    free: AtomicU64,
}

impl Disk {
    /// Free bytes at the last check.
    pub fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Whether it is nearly full.
    pub fn is_low(&self) -> bool {
        self.free_bytes() < self.reserve_bytes
    }
}

/// Reports whether the disk of `directory` has less than `reserve_bytes` free (none: 256 MiB, or a
/// twentieth of the disk if that is less). A task of the present runtime checks every second, as
/// long as anybody listens.
///
/// # Errors
/// When the free space cannot be read.
pub fn watch_disk(
    directory: &Path,
    reserve_bytes: Option<u64>,
) -> std::io::Result<(Arc<Disk>, watch::Receiver<bool>)> {
    let first = ask(directory)?;
    let reserve_bytes = reserve_bytes.unwrap_or(RESERVE_BYTES.min(first.total / RESERVE_PART));
    let disk = Disk { directory: directory.to_owned(), reserve_bytes, free: first.free.into() };
    let (sender, receiver) = watch::channel(disk.is_low());
    let disk = Arc::new(disk);
    tokio::spawn(follow(Arc::clone(&disk), sender));
    Ok((disk, receiver))
}

/// Bytes of a disk.
#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    total: u64,
}

/// The space that an ordinary user may still fill.
fn ask(directory: &Path) -> std::io::Result<Space> {
    let answer = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Ok(Space { free: bytes(answer.f_bavail), total: bytes(answer.f_blocks) })
}

async fn follow(disk: Arc<Disk>, low: watch::Sender<bool>) {
    let Disk { directory, reserve_bytes, .. } = &*disk;
    let mut ticker = clock::Ticker::new(PERIOD, PERIOD);
    loop {
        tokio::select! {
            biased;
            () = low.closed() => return,
            () = ticker.tick() => {}
        }
        match ask(directory) {
            Ok(Space { free, .. }) => {
                disk.free.store(free, Ordering::Relaxed);
                let is_low = disk.is_low();
                let changed = low.send_if_modified(|low| std::mem::replace(low, is_low) != is_low);
                if changed && is_low {
                    tracing::warn!(
                        free,
                        reserve_bytes,
                        directory = %directory.display(),
                        "disk nearly full: only what frees space is accepted"
                    );
                } else if changed {
                    tracing::info!(free, reserve_bytes, "disk has space again");
                }
            }
            Err(error) => {
                tracing::warn!(%error, directory = %directory.display(), "cannot ask for free space")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::watch_disk;

    #[tokio::test]
    async fn a_disk_is_low_below_its_reserve() {
        let here = Path::new(".");
        let (disk, low) = watch_disk(here, Some(0)).unwrap();
        assert!(!*low.borrow() && !disk.is_low() && disk.free_bytes() > 0);
        let (disk, low) = watch_disk(here, Some(u64::MAX)).unwrap();
        assert!(*low.borrow() && disk.is_low() && disk.directory == here);
        assert!(watch_disk(Path::new("/nowhere/at/all"), None).is_err());
    }
}
