//! The list of a log's files.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::lines::{self, corrupt};
use raft::storage::OpenError;

const NAME: &str = "manifest";
const FORMAT: u32 = base::codec::DISK as u32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Drawn when the log was made; all its checksums start from it, so that bytes that another log
    /// left on the disk, or that a client made up, are not taken for a record. (Copies of this
    /// log's own records are recognised by their numbers.)
    pub(super) salt: u64,
    /// Sizes of the files by their numbers.
    pub(super) files: BTreeMap<u32, u64>,
}

impl Manifest {
    /// None if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, OpenError> {
        let Some((at, lines)) = lines::read(path, NAME, FORMAT)? else { return Ok(None) };
        Self::parse(&lines).map(Some).ok_or_else(|| corrupt(&at, "it does not name the log's files"))
    }

    fn parse(lines: &[(String, String)]) -> Option<Self> {
        let ((key, salt), files) = lines.split_first()?;
        let salt = (key == "salt").then(|| salt.parse().ok()).flatten()?;
        let file = |(key, value): &(String, String)| {
            let (number, bytes) = value.split_once(' ').filter(|_| key == "file")?;
            Some((number.parse().ok()?, bytes.parse().ok()?))
        };
        Some(Self { salt, files: files.iter().map(file).collect::<Option<_>>()? })
    }

    /// Replaces the one on disk, durably.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let files = self.files.iter().map(|(number, bytes)| format!("file {number} {bytes}\n"));
        let text = format!("salt {}\n{}", self.salt, files.collect::<String>());
        lines::replace(path, NAME, FORMAT, &text)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().sum()
    }
}
