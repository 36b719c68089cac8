//! Applies the records of a log again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use base::codec::{self, DecodeError};
use serde::de::DeserializeOwned;

use super::{Head, Manifest, record};
use crate::lines::corrupt;
use raft::storage::{OpenError, Restored, Save};
use raft::types::{Entry, EntryId, HardState, Index, Term};

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Fault {
    Damaged(String),
    /// Written in this newer format.
    Newer(u8),
    /// Written in this older format.
    Older(u8),
}

impl Fault {
    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Damaged(what) => what.clone(),
            Self::Newer(found) | Self::Older(found) => format!("format {found}"),
        }
    }

    /// About the file `path`.
    pub(super) fn at(self, path: &Path) -> OpenError {
        let supported = u32::from(codec::DISK);
        let shown = || path.display().to_string();
        match self {
            Self::Damaged(what) => corrupt(path, what),
            Self::Newer(found) => OpenError::NewerFormat { path: shown(), found: found.into(), supported },
            Self::Older(found) => OpenError::OlderFormat { path: shown(), found: found.into(), supported },
        }
    }
}

pub(super) struct Replay {
    salt: u64,
    /// No more records than this can be there.
    most: u64,
    /// The number of the next record.
    pub(super) next: u64,
    /// Where the newest record is, in the file read last; the next one begins at its end.
    pub(super) newest: Range<usize>,
    pub(super) head: Head,
    /// By position. Dead files are not read, but records that overrode their entries are: on the
    /// way there may be gaps; in the end there must be none.
    entries: BTreeMap<Index, Entry>,
    /// Of each file, the last entry in it that counts.
    lasts: Vec<Index>,
}

impl Replay {
    /// From the record with this number on.
    pub(super) fn new(manifest: &Manifest, next: u64) -> Self {
        let (salt, most) = (manifest.salt, record::most_in(manifest.bytes()));
        let (head, entries, lasts) = (Head::default(), BTreeMap::new(), Vec::new());
        Self { salt, most, next, newest: 0..0, head, entries, lasts }
    }

    /// Reads the next file; returns, for it and all before it, the last entry in it that counts.
    pub(super) fn file(&mut self, content: &[u8]) -> Result<Vec<Index>, Fault> {
        let mut at = 0;
        while let Some(found) = content.get(at..).and_then(|rest| record::open(rest, self.salt)) {
            if found.number != self.next {
                // After the end there are remains of an earlier use of the file.
                if at > 0 {
                    break;
                }
                let what = format!("the log goes on with record {}, not {}", found.number, self.next);
                return Err(Fault::Damaged(what));
            }
            if at > 0 {
                self.redo(decode(found.number, found.body)?);
            } else {
                let head = decode(found.number, found.body)?;
                if self.lasts.is_empty() {
                    self.head = head;
                } else if self.head != head {
                    return Err(Fault::Damaged("it does not continue the file before it".to_owned()));
                }
                self.lasts.push(Index::default());
            }
            self.newest = at..at + found.size;
            at += found.size;
            self.next += 1;
        }
        // (A truncated file may end within the zeros after a record.)
        self.nothing_new(content.get(at..).unwrap_or_default())?;
        Ok(self.lasts.clone())
    }

    /// After the end of reading nothing may follow: only the very last record can be torn
    /// (correctness rule 30).
    pub(super) fn nothing_new(&self, content: &[u8]) -> Result<(), Fault> {
        let numbers = self.next..self.next + self.most;
        let Some(found) = record::find(content, self.salt, numbers) else { return Ok(()) };
        Err(Fault::Damaged(format!(
            "record {} cannot be read, and record {} is there",
            self.next, found.number
        )))
    }

    fn redo(&mut self, save: Save) {
        self.head.take_note(&save);
        if let Some(from) = save.truncate_from {
            self.entries.split_off(&from);
            for last in &mut self.lasts {
                *last = (*last).min(from.previous());
            }
        }
        if let (Some(last), Some(file)) = (save.entries.last(), self.lasts.last_mut()) {
            *file = last.id.index;
        }
        self.entries.extend(save.entries.into_iter().map(|entry| (entry.id.index, entry)));
        if let Some(marker) = save.marker {
            self.entries = self.entries.split_off(&marker.index.next());
        }
    }

    /// The number of entries after the marker before the first gap.
    fn there(&self) -> usize {
        let expected = self.head.marker.index.0 + 1..;
        expected.zip(self.entries.keys()).take_while(|(at, key)| *at == key.0).count()
    }

    /// The first entry that should be there and is not.
    fn missing(&self) -> Option<Index> {
        let there = self.there();
        let missing = Index(self.head.marker.index.0 + there as u64 + 1);
        (there < self.entries.len() || missing != self.head.last.index.next()).then_some(missing)
    }

    /// All records before this one are there, and their state holds for the whole log.
    pub(super) fn reaches(&self) -> u64 {
        if self.missing().is_some() { 0 } else { self.next }
    }

    /// What is left of a damaged log, as the first save of a new one; or what is wrong with it, in
    /// words.
    pub(super) fn left(mut self, hard_state: HardState, promised: EntryId) -> Result<Save, String> {
        let missing = Index(self.head.marker.index.0 + self.there() as u64 + 1);
        self.entries.split_off(&missing);
        let entries: Vec<Entry> = self.entries.into_values().collect();
        check_terms(self.head.marker, &entries, hard_state.term)?;
        let marker = Some(self.head.marker).filter(|marker| *marker != EntryId::ZERO);
        let (hard_state, promised) = (Some(hard_state), Some(promised));
        Ok(Save { hard_state, entries, marker, promised, ..Save::default() })
    }

    /// The log, checked (correctness rule 31); or what is wrong with it, in words.
    pub(super) fn finish(self) -> Result<Restored, String> {
        if let Some(missing) = self.missing() {
            return Err(format!("entry {missing} is missing"));
        }
        let Head { hard_state, marker, promised, .. } = self.head;
        let entries: Vec<Entry> = self.entries.into_values().collect();
        check_terms(marker, &entries, hard_state.term)?;
        Ok(Restored { hard_state, marker, entries, promised })
    }
}

pub(super) fn decode<T: DeserializeOwned>(number: u64, body: &[u8]) -> Result<T, Fault> {
    codec::decode(body, body.len()).map_err(|error| match error {
        DecodeError::Version { found, .. } if found > codec::DISK => Fault::Newer(found),
        DecodeError::Version { found, .. } => Fault::Older(found),
        error => Fault::Damaged(format!("record {number}: {error}")),
    })
}

/// Terms never fall, and none is above the current one (rule 31).
fn check_terms(marker: EntryId, entries: &[Entry], current: Term) -> Result<(), String> {
    let mut before = marker;
    for entry in entries {
        if !entry.is_whole() {
            return Err(format!("the checksum of entry {} is wrong", entry.id));
        }
        if entry.id.term < before.term {
            return Err(format!("terms fall from entry {before} to entry {}", entry.id));
        }
        before = entry.id;
    }
    if before.term > current {
        return Err(format!("entry {before} is of a later term than the current one, {current}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Fault, decode};
    use raft::storage::Save;
    use raft::types::{Entry, EntryId, Payload, Term};

    /// Rule 66: the record's own checksum was made of a payload that had already been damaged.
    #[test]
    fn an_entry_whose_payload_changed_before_it_was_written_is_named() {
        let entry = |index, text: &'static str| {
            Entry::new(EntryId::new(1, index), Payload::Command(text.as_bytes().into()))
        };
        let changed = Entry { payload: entry(2, "other").payload, ..entry(2, "said") };
        let check = |entries: &[Entry]| super::check_terms(EntryId::ZERO, entries, Term(1));
        assert_eq!(check(&[entry(1, "a"), entry(2, "said")]), Ok(()));
        assert_eq!(check(&[entry(1, "a"), changed]), Err("the checksum of entry 2@1 is wrong".to_owned()));
    }

    #[test]
    fn a_newer_and_an_older_format_are_named() {
        assert!(matches!(decode::<Save>(1, &[9, 0]), Err(Fault::Newer(9))));
        assert!(matches!(decode::<Save>(1, &[0, 0]), Err(Fault::Older(0))));
        assert!(matches!(decode::<Save>(1, &[base::codec::DISK, 7]), Err(Fault::Damaged(_))));
    }
}
