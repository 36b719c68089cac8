//! The files of a log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::OLD_FILES;

/// A file that is set aside when it has grown to its limit.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Rotating {
    pub(super) fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    /// The path of an old file: `log.1` is the youngest.
    fn old(&self, age: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{age}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..OLD_FILES).rev() {
            // One that does not exist yet cannot be renamed; nothing else is expected to fail.
            let _ = std::fs::rename(self.old(age), self.old(age + 1));
        }
        std::fs::rename(&self.path, self.old(1))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for Rotating {
    /// Writes all of `line` into one file. A failed rotation is retried with the next line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            let _ = self.rotate();
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Rotating;

    #[test]
    fn a_full_log_is_set_aside_and_the_oldest_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        let mut log = Rotating::open(&path, 10).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n", "eight\n", "nine\n"]
        {
            log.write_all(line.as_bytes()).unwrap();
        }
        let files = ["log", "log.1", "log.2", "log.3", "log.4"].map(read);
        assert_eq!(files, ["nine\n", "eight\n", "six\nseven\n", "four\nfive\n", ""]);

        // A restart continues where the file ended.
        let mut log = Rotating::open(&path, 10).unwrap();
        log.write_all(b"ten\n").unwrap();
        assert_eq!(read("log"), "nine\nten\n");
        log.write_all(b"a line longer than the limit\n").unwrap();
        assert_eq!(read("log"), "a line longer than the limit\n");
    }
}
