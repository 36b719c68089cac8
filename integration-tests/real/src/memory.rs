//! The memory of processes, from Linux's /proc.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Resident bytes of a process; none if it is gone.
pub fn rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// Resident bytes that are the process's own and not a file's; none if it is gone.
pub fn anonymous_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "RssAnon:")
}

fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The memory of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    pub name: String,
    /// Bytes at the start.
    pub before: u64,
    /// The maximum.
    pub peak: u64,
}

impl Growth {
    /// The growth in bytes.
    pub fn bytes(&self) -> u64 {
        self.peak.saturating_sub(self.before)
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {} MiB", self.name, self.before >> 20, self.peak >> 20)
    }
}

/// Measures processes every few milliseconds.
pub struct MemoryWatch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Growth>>,
}

impl MemoryWatch {
    /// Watches these processes from now on.
    ///
    /// # Panics
    /// When one of them does not run.
    pub fn start(pids: &BTreeMap<String, u32>) -> Self {
        let seen = |(name, pid): (&String, &u32)| {
            let now = rss_bytes(*pid).unwrap_or_else(|| panic!("{name} (pid {pid}) does not run"));
            (*pid, Growth { name: name.clone(), before: now, peak: now })
        };
        let mut watched: Vec<(u32, Growth)> = pids.iter().map(seen).collect();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (pid, growth) in &mut watched {
                    growth.peak = growth.peak.max(rss_bytes(*pid).unwrap_or(0));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            watched.into_iter().map(|(_, growth)| growth).collect()
        });
        Self { over, thread }
    }

    /// The results.
    ///
    /// # Panics
    /// When the watcher did.
    pub fn finish(self) -> Vec<Growth> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher of memory ends")
    }
}
