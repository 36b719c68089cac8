//! A temporary directory, and the end of every server that runs in it.
//!
//! The reaper is a shell in its own process group, so that Ctrl-C does not reach it. It reads a
//! pipe whose other end only this process holds: the pipe ends when the [`Place`] is dropped or the
//! process dies, however it dies. Then it kills each process that a lock file of the directory
//! names, if that process was started with this directory, and deletes the directory unless it was
//! told to keep it.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

const REAPER: &str = r#"
told=$(cat)
for lock in "$1"/*/lock; do
    pid=$(cat "$lock") && [ -r "/proc/$pid/cmdline" ] || continue
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$1/" && kill -9 "$pid"
done 2>/dev/null
[ -n "$told" ] && exit
rm -rf "$1" 2>/dev/null || { sleep 1; rm -rf "$1"; }
"#;

/// The directory of the servers of one test.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    reaper: Child,
    pipe: Option<ChildStdin>,
}

impl Place {
    /// A new one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        let path = tempfile::Builder::new().prefix("clerk-test-").tempdir().expect("a temporary directory");
        let path = path.keep().canonicalize().expect("its path");
        let mut reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(&path)
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let pipe = reaper.stdin.take();
        Self { path, reaper, pipe }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines of every server's log.
    fn log_ends(&self) -> String {
        const LINES: usize = 8;
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path().join("log")).collect();
        logs.sort();
        let mut text = String::new();
        for log in logs {
            let Ok(content) = fs::read(&log) else { continue };
            let content = String::from_utf8_lossy(&content);
            let lines: Vec<&str> = content.lines().collect();
            let end = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
            text.push_str(&format!("{}:\n  {end}\n", log.display()));
        }
        text
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}the directory is kept: {}", self.log_ends(), self.path.display());
            if let Some(pipe) = &mut self.pipe {
                let _ = pipe.write_all(b"keep");
            }
        }
        drop(self.pipe.take());
        // Nothing helps if the reaper is gone.
        let _ = self.reaper.wait();
    }
}
