//! Which files a log has.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::storage::OpenError;
use crate::storage::lines::{self, corrupt};

const NAME: &str = "manifest";
const FORMAT: u32 = base::codec::DISK as u32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Drawn when the log was made; all its checksums start from it, so that what another log left on the disk, or what a
    /// client made up, is not taken for a record. (Copies of this log's own records are told by their numbers.)
    pub(super) salt: u64,
    /// Sizes of the files by their numbers.
    pub(super) files: BTreeMap<u32, u64>,
}

impl Manifest {
    /// None if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, OpenError> {
        let Some((at, mut lines)) = lines::read(path, NAME, FORMAT)? else { return Ok(None) };
        let checksum = lines.pop().and_then(|(key, value)| (key == "checksum").then_some(value));
        let manifest = Self::parse(&lines).ok_or_else(|| corrupt(&at, "it does not name the log's files"))?;
        if checksum.is_none_or(|checksum| checksum != manifest.checksum().to_string()) {
            return Err(corrupt(&at, "its checksum does not match"));
        }
        Ok(Some(manifest))
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
        let text = format!("format {FORMAT}\n{}checksum {}\n", self.text(), self.checksum());
        lines::replace(path, NAME, &text)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    fn text(&self) -> String {
        let files = self.files.iter().map(|(number, bytes)| format!("file {number} {bytes}\n"));
        format!("salt {}\n{}", self.salt, files.collect::<String>())
    }

    fn checksum(&self) -> u32 {
        crc32fast::hash(self.text().as_bytes())
    }
}
