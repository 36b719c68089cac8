//! Files of records, as `load` reads them and `dump` writes them.
//!
//! A record is one line (its form: [`crate::escape`]). A dump has two lines more, and neither has a
//! tab, so neither can be a record:
//!
//! ```text
//! # clerk dump 1                          the format of the file
//! key<TAB>value
//! # end of dump: 1 records, crc32 4f8a0c31    CRC-32 (that of zlib) over all bytes between these two lines
//! ```
//!
//! So a dump that was cut short, or changed in transit, is noticed. Plain records, as scripts write
//! them, need neither line. But the last line must end with a newline in every file, because it may
//! otherwise be incomplete.
//!
//! Left out on purpose: checksums of single records, and a time or a name in the first line: equal
//! stores make equal dumps.

use std::io::{BufRead, BufReader, Read};

use anyhow::Context as _;
use crc32fast::Hasher;

use crate::escape;
use crate::failure::Failure;

/// The first line of a dump.
const HEADER: &str = "# clerk dump 1";
/// How the first line of any dump begins.
const ANY_HEADER: &str = "# clerk dump";
/// How the last line of a dump begins.
const TRAILER: &str = "# end of dump: ";
/// A line with the largest key and value a cluster may allow, each byte escaped, and some.
const LINE_BYTES_MAX: u64 = 80 << 20;

/// What the end of a dump says of its records.
#[derive(Clone, Default)]
struct Tally {
    records: u64,
    hasher: Hasher,
}

impl Tally {
    fn add(&mut self, line: &[u8]) {
        self.records += 1;
        self.hasher.update(line);
    }

    /// The last line of a dump, without its newline.
    fn trailer(&self) -> String {
        format!("{TRAILER}{} records, crc32 {:08x}", self.records, self.hasher.clone().finalize())
    }
}

/// Makes the lines of a dump.
#[derive(Default)]
pub(crate) struct Writer {
    tally: Tally,
}

impl Writer {
    /// The line before the first record.
    pub(crate) fn header() -> String {
        format!("{HEADER}\n")
    }

    /// Adds a record to `line`, which must be empty.
    pub(crate) fn record(&mut self, line: &mut Vec<u8>, key: &[u8], value: &[u8]) {
        escape::write_record(line, key, value);
        self.tally.add(line);
    }

    /// The line after the last record.
    pub(crate) fn trailer(&self) -> String {
        self.tally.trailer() + "\n"
    }
}

/// A record of a file.
pub(crate) struct Record {
    /// The number of its line, from 1.
    pub(crate) line: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Length of its line.
    pub(crate) bytes: u64,
}

/// What is missing from a file of records, if anything. Only a reader that accepts partial files
/// sees it this way.
pub(crate) type Missing = Option<String>;

/// What was read so far.
struct Reading {
    partial: bool,
    is_dump: bool,
    ended: bool,
    tally: Tally,
    missing: Missing,
}

/// Passes each record to `each`, until that says stop. With `partial`, a missing part at the end of
/// the file is not a failure; a line that is not a record always is.
///
/// # Errors
/// `bad_input` for a line that is not a record, `incomplete` for an incomplete file: the records
/// before were passed on.
pub(crate) fn each_record(
    file: Box<dyn Read + Send>,
    partial: bool,
    mut each: impl FnMut(Record) -> bool,
) -> Result<Missing, Failure> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut reading =
        Reading { partial, is_dump: false, ended: false, tally: Tally::default(), missing: None };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let bytes = read.with_context(|| format!("cannot read line {number}"))? as u64;
        if bytes == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            if bytes == LINE_BYTES_MAX {
                return Err(bad(number, "longer than any record"));
            }
            reading.lacks(format!("the file ends within line {number}: it has no newline"))?;
            break;
        }
        if let Some((key, value)) = reading.on_line(number, &line)?
            && !each(Record { line: number, key, value, bytes })
        {
            // Another failure was first.
            return Ok(None);
        }
    }
    if reading.is_dump && !reading.ended {
        reading.lacks("the last line of the dump is missing".to_owned())?;
    }
    Ok(reading.missing)
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

impl Reading {
    /// Takes a line with its newline; the record in it, if it is one.
    fn on_line(&mut self, number: u64, with_newline: &[u8]) -> Result<Option<Pair>, Failure> {
        let line = &with_newline[..with_newline.len() - 1];
        if line.contains(&b'\t') || !line.starts_with(b"#") {
            let record = escape::read_record(line).map_err(|why| bad(number, &why))?;
            if self.ended {
                self.lacks(format!("line {number}: a record after the end of the dump"))?;
            }
            self.tally.add(with_newline);
            return Ok(Some(record));
        }
        let line = String::from_utf8_lossy(line);
        if line == HEADER && number == 1 {
            self.is_dump = true;
        } else if line.starts_with(TRAILER) && self.is_dump {
            self.on_trailer(number, &line)?;
        } else if line.starts_with(TRAILER) {
            self.lacks(format!("line {number}: the end of a dump whose first line is missing"))?;
        } else if line == HEADER {
            self.lacks(format!("line {number}: a dump begins within this file"))?;
        } else if line.starts_with(ANY_HEADER) {
            let why =
                format!("the first line of a dump, but not `{HEADER}`: written by another build, or changed");
            return Err(bad(number, &why));
        } else {
            return Err(bad(number, "no tab between key and value"));
        }
        Ok(None)
    }

    fn on_trailer(&mut self, number: u64, line: &str) -> Result<(), Failure> {
        if self.ended {
            return self.lacks(format!("line {number}: a second end of the dump"));
        }
        self.ended = true;
        let found = self.tally.trailer();
        if line != found {
            let said = |text: &str| text.trim_start_matches(TRAILER).to_owned();
            let (expected, found) = (said(line), said(&found));
            self.lacks(format!("the dump's last line says {expected:?}, but the records are {found:?}"))?;
        }
        Ok(())
    }

    /// The file is incomplete: a failure, or with `partial` something to report.
    fn lacks(&mut self, what: String) -> Result<(), Failure> {
        if !self.partial {
            return Err(Failure::new("incomplete", what));
        }
        self.missing.get_or_insert(what);
        Ok(())
    }
}

fn bad(line: u64, why: &str) -> Failure {
    Failure::new("bad_input", format!("line {line}: {why}"))
}

#[cfg(test)]
mod tests;
