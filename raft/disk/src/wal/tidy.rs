//! Which files a log removes, and when it makes the next one.

use std::{fs, io};

use super::Wal;
use super::file::name;

/// The limit of files that are removed with one save, or in one piece of a rest: each takes time,
/// and a save may wait.
const GONE_AT_ONCE_MAX: usize = 4;

impl Wal {
    /// Deletes surplus files (unless a file is being made, which also writes the manifest) and
    /// prepares the next file ahead of need.
    pub(super) fn tidy(&mut self) {
        if self.making.as_ref().is_some_and(|making| making.thread.is_finished()) {
            self.take_spare();
        }
        if self.making.is_none() && self.at >= self.again_at {
            self.choose_what_leaves();
            if let Err(error) = self.remove_what_leaves() {
                self.try_again_later("files of the log that are not needed stay", &error);
            }
        }
        let begun = self.used.back().is_some_and(|file| self.at > (file.bytes / 8).max(self.again_at));
        if begun && self.blank.is_empty() && self.making.is_none() && self.dead() == 0 {
            self.make(self.options.file_bytes, false);
        }
    }

    fn choose_what_leaves(&mut self) {
        let mut bytes = self.manifest.bytes() - self.leaving.iter().map(|file| file.bytes).sum::<u64>();
        let before = self.leaving.len();
        // One stays, to be used next.
        while self.leaving.len() < GONE_AT_ONCE_MAX
            && bytes > self.options.keep_bytes
            && self.dead() + self.blank.len() > 1
        {
            let dead = if self.dead() > 0 { self.used.pop_front() } else { None };
            if let Some(file) = dead {
                self.shelf.forget_before(file.last.next());
            }
            let Some(file) = dead.or_else(|| self.blank.pop()) else { break };
            bytes -= file.bytes;
            self.leaving.push(file);
        }
        if self.leaving.len() > before {
            self.fill_shelf();
        }
    }

    fn remove_what_leaves(&mut self) -> io::Result<()> {
        if self.leaving.is_empty() {
            return Ok(());
        }
        // First the manifest: a file that it names and that is not there is damage.
        let mut manifest = self.manifest.clone();
        let count = self.leaving.len().min(GONE_AT_ONCE_MAX);
        for file in &self.leaving[..count] {
            manifest.files.remove(&file.number);
        }
        manifest.write(&self.path)?;
        self.manifest = manifest;
        self.shelf.set_file_bytes(self.manifest.bytes());
        // A file that cannot be removed is named nowhere: the next start removes it.
        self.leaving.drain(..count).try_for_each(|file| fs::remove_file(self.path.join(name(file.number))))
    }
}
