//! Watches the free space of the disk (correctness rule 35).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;

/// How often the disk is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// Reserve of a large disk.
const RESERVE_BYTES: u64 = 256 << 20;
/// Reserve of a small disk: this part of it.
const RESERVE_PART: u64 = 20;

/// Tells whether the disk of `directory` has less than `reserve_bytes` free (none: 256 MiB, or a
/// twentieth of the disk where that is less). Asked every second, for as long as anybody listens, by
/// a task of the present runtime.
///
/// # Errors
/// When the disk cannot be asked at all.
pub fn watch_disk(directory: &Path, reserve_bytes: Option<u64>) -> std::io::Result<watch::Receiver<bool>> {
    let first = ask(directory)?;
    let reserve_bytes = reserve_bytes.unwrap_or(RESERVE_BYTES.min(first.total / RESERVE_PART));
    let (sender, receiver) = watch::channel(first.free < reserve_bytes);
    tokio::spawn(follow(directory.to_owned(), reserve_bytes, sender));
    Ok(receiver)
}

/// Bytes of a disk.
#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    total: u64,
}

/// What an ordinary user may still fill.
fn ask(directory: &Path) -> std::io::Result<Space> {
    let answer = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Ok(Space { free: bytes(answer.f_bavail), total: bytes(answer.f_blocks) })
}

async fn follow(directory: PathBuf, reserve_bytes: u64, low: watch::Sender<bool>) {
    let mut ticker = clock::Ticker::new(PERIOD, PERIOD);
    loop {
        tokio::select! {
            biased;
            () = low.closed() => return,
            () = ticker.tick() => {}
        }
        match ask(&directory) {
            Ok(Space { free, .. }) => {
                let is_low = free < reserve_bytes;
                let changed = low.send_if_modified(|low| std::mem::replace(low, is_low) != is_low);
                if changed && is_low {
                    tracing::warn!(
                        free,
                        reserve_bytes,
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
        assert!(!*watch_disk(here, Some(0)).unwrap().borrow());
        assert!(*watch_disk(here, Some(u64::MAX)).unwrap().borrow());
        assert!(watch_disk(Path::new("/nowhere/at/all"), None).is_err());
    }
}
