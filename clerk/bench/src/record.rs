//! The record of a run: one operation a line, as the contract says.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::Error;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    Get,
    Put,
    Append,
    Delete,
    Cas,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    /// Surely without effect.
    Fail,
    Unknown,
}

/// One operation. The names and their order are those of the contract.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub client: u64,
    pub op: Op,
    pub key: String,
    pub value: Option<String>,
    pub expected_version: Option<u64>,
    pub output: Option<String>,
    pub version: Option<u64>,
    pub call_ns: u64,
    pub return_ns: Option<u64>,
    pub outcome: Outcome,
}

impl Entry {
    /// What is asked at `call_ns`. Nothing is known of its outcome yet.
    pub fn new(
        client: u64,
        op: Op,
        key: &[u8],
        value: Option<&[u8]>,
        expected_version: Option<u64>,
        call_ns: u64,
    ) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            client,
            op,
            key: text(key),
            value: value.map(text),
            expected_version,
            output: None,
            version: None,
            call_ns,
            return_ns: None,
            outcome: Outcome::Unknown,
        }
    }
}

/// The file. A line is written at once, so none is ever cut by the end of the run.
pub struct Record {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    writer: BufWriter<File>,
    failed: Option<std::io::Error>,
}

impl Record {
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|error| Error::cannot("write", path, &error))?;
        let writer = BufWriter::with_capacity(1 << 16, file);
        Ok(Self { path: path.to_owned(), inner: Mutex::new(Inner { writer, failed: None }) })
    }

    /// Adds a line. The first error is kept for the end.
    pub fn write(&self, entry: &Entry) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.failed.is_none() {
            let line = serde_json::to_string(entry).map_err(std::io::Error::other);
            let written = line.and_then(|line| inner.writer.write_all((line + "\n").as_bytes()));
            inner.failed = written.err();
        }
    }

    /// Writes out what is left.
    pub fn finish(&self) -> Result<(), Error> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match inner.failed.take() {
            Some(error) => Err(error),
            None => inner.writer.flush(),
        };
        result.map_err(|error| Error::cannot("write", &self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Op, Outcome, Record};

    #[test]
    fn a_line_has_the_shape_of_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let record = Record::create(&path).unwrap();
        let entry = Entry {
            client: 7,
            op: Op::Get,
            key: "r-1".into(),
            value: None,
            expected_version: None,
            output: None,
            version: Some(0),
            call_ns: 1,
            return_ns: Some(2),
            outcome: Outcome::Ok,
        };
        record.write(&entry);
        record.write(&Entry { op: Op::Cas, expected_version: Some(3), outcome: Outcome::Fail, ..entry });
        record.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = r#"{"client":7,"op":"get","key":"r-1","value":null,"expected_version":null,"#.to_owned()
            + r#""output":null,"version":0,"call_ns":1,"return_ns":2,"outcome":"ok"}"#;
        assert_eq!(text.lines().next(), Some(first.as_str()));
        assert!(text.contains(r#""op":"cas""#) && text.ends_with("\"fail\"}\n"));
    }
}
