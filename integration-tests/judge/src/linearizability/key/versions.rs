//! The versions of a key that existed, their writers and their values.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Anomaly;
use crate::history::{Op, Operation, Outcome};

/// The state of the key that a write met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Unknown,
    /// The key was missing.
    Absent,
    /// The key had the previous version.
    Present,
}

/// One version that existed.
#[derive(Debug)]
pub(super) struct Version<'a> {
    /// The write; none: an operation of unknown outcome, not known which.
    pub(super) writer: Option<&'a Operation>,
    /// Its value, if known.
    value: Option<&'a str>,
    /// An operation that proves the value.
    witness: Option<&'a Operation>,
    /// The state that its write met.
    pub(super) before: Before,
    /// The delete that removed this version.
    pub(super) deleted: Option<&'a Operation>,
    /// The operations that saw it: gets, and conditional puts that it refused.
    pub(super) seen: Vec<&'a Operation>,
}

impl Version<'_> {
    fn empty() -> Self {
        Self {
            writer: None,
            value: None,
            witness: None,
            before: Before::Unknown,
            deleted: None,
            seen: Vec::new(),
        }
    }
}

/// Everything known of one key.
#[derive(Debug)]
pub(super) struct Versions<'a> {
    pub(super) known: BTreeMap<u64, Version<'a>>,
    /// Operations that found the key missing.
    pub(super) absent: Vec<&'a Operation>,
    /// Writes of unknown outcome without a known version; deletes are separate.
    pub(super) open_writes: Vec<&'a Operation>,
    pub(super) open_deletes: Vec<&'a Operation>,
    operations: &'a [&'a Operation],
}

impl<'a> Versions<'a> {
    /// Sorts the operations by their replies.
    pub(super) fn collect(operations: &'a [&'a Operation]) -> Result<Self, Anomaly> {
        let mut versions = Self {
            known: BTreeMap::new(),
            absent: Vec::new(),
            open_writes: Vec::new(),
            open_deletes: Vec::new(),
            operations,
        };
        for operation in operations {
            match (operation.outcome, operation.op) {
                (Outcome::Ok, Op::Get) => versions.on_get(operation)?,
                (Outcome::Ok, Op::Delete) => versions.on_delete(operation)?,
                (Outcome::Ok, _) => versions.on_write(operation)?,
                (Outcome::Fail, Op::Cas) => versions.on_refused(operation)?,
                (Outcome::Fail, _) | (Outcome::Unknown, Op::Get) => {}
                (Outcome::Unknown, Op::Delete) => versions.open_deletes.push(operation),
                (Outcome::Unknown, _) => versions.open_writes.push(operation),
            }
        }
        Ok(versions)
    }

    fn at(&mut self, number: u64) -> &mut Version<'a> {
        self.known.entry(number).or_insert_with(Version::empty)
    }

    fn on_get(&mut self, get: &'a Operation) -> Result<(), Anomaly> {
        match (&get.output, get.version) {
            (None, None | Some(0)) => self.absent.push(get),
            (Some(value), Some(number)) if number > 0 => {
                self.learn(number, value, get)?;
                self.at(number).seen.push(get);
            }
            _ => return Err(Anomaly::new("a read's value and version contradict each other", &[get])),
        }
        Ok(())
    }

    fn on_delete(&mut self, delete: &'a Operation) -> Result<(), Anomaly> {
        match delete.version {
            None | Some(0) => self.absent.push(delete),
            Some(number) => {
                if let Some(other) = self.at(number).deleted.replace(delete) {
                    return Err(Anomaly::new(
                        format!("version {number} was deleted twice"),
                        &[other, delete],
                    ));
                }
            }
        }
        Ok(())
    }

    fn on_write(&mut self, write: &'a Operation) -> Result<(), Anomaly> {
        let number = match write.version {
            Some(number) if number > 0 => number,
            _ => return Err(Anomaly::new("an acknowledged write has no version", &[write])),
        };
        if let Some(other) = self.at(number).writer.replace(write) {
            let what = format!("two acknowledged writes got version {number}: one of them is lost");
            return Err(Anomaly::new(what, &[other, write]));
        }
        if write.op != Op::Append {
            self.learn(number, write.value.as_deref().unwrap_or_default(), write)?;
        }
        if write.op == Op::Cas {
            self.expects(number, write)?;
        }
        Ok(())
    }

    /// A conditional put that took effect as version `number`: it met the version that it expected.
    fn expects(&mut self, number: u64, cas: &'a Operation) -> Result<(), Anomaly> {
        match cas.expected_version.unwrap_or_default() {
            0 => self.at(number).before = Before::Absent,
            expected if expected + 1 == number => {
                self.at(expected);
                self.at(number).before = Before::Present;
            }
            _ => {
                let what =
                    format!("a conditional put wrote version {number} over another version than expected");
                return Err(Anomaly::new(what, &[cas]));
            }
        }
        Ok(())
    }

    fn on_refused(&mut self, cas: &'a Operation) -> Result<(), Anomaly> {
        match cas.version {
            None => {}
            met if met == cas.expected_version => {
                let what = "a conditional put was refused although it met the version it expected";
                return Err(Anomaly::new(what, &[cas]));
            }
            Some(0) => self.absent.push(cas),
            Some(number) => self.at(number).seen.push(cas),
        }
        Ok(())
    }

    /// Version `number` has this value, as `witness` proves.
    fn learn(&mut self, number: u64, value: &'a str, witness: &'a Operation) -> Result<(), Anomaly> {
        let version = self.at(number);
        match (version.value, version.witness) {
            (Some(known), Some(other)) if known != value => {
                let what = if known.ends_with(value) || value.ends_with(known) {
                    format!("version {number} has two values: something written before it came or went")
                } else {
                    format!("version {number} has two values: a write was lost or ran twice")
                };
                Err(Anomaly::new(what, &[other, witness]))
            }
            _ => {
                version.value = Some(value);
                version.witness = Some(witness);
                Ok(())
            }
        }
    }

    /// Finds the writers of versions that no acknowledged write names, and the values before
    /// appends, starting at the latest version.
    pub(super) fn resolve(&mut self) -> Result<(), Anomaly> {
        let mut search = Search::new(&self.open_writes);
        let mut below = u64::MAX;
        while let Some((&number, version)) = self.known.range(..below).next_back() {
            below = number;
            let (Some(value), Some(witness)) = (version.value, version.witness) else { continue };
            let writer = match version.writer {
                Some(writer) => writer,
                None => {
                    let writer = match search.take(value, number) {
                        Found::One(writer) => writer,
                        Found::Several => continue,
                        Found::None => return Err(self.unexplained(number, value, witness)),
                    };
                    self.at(number).writer = Some(writer);
                    if writer.op == Op::Cas {
                        self.expects(number, writer)?;
                    }
                    writer
                }
            };
            if writer.op == Op::Append {
                self.cut_piece(number, value, writer, witness)?;
            }
            self.check_before(number)?;
        }
        self.open_writes.retain(|write| !search.taken.contains(&std::ptr::from_ref(*write)));
        Ok(())
    }

    /// Removes the piece of an append from a value: the rest is the value before.
    fn cut_piece(
        &mut self,
        number: u64,
        value: &'a str,
        writer: &'a Operation,
        witness: &'a Operation,
    ) -> Result<(), Anomaly> {
        let piece = writer.value.as_deref().unwrap_or_default();
        let Some(prefix) = value.strip_suffix(piece) else {
            let what = format!("version {number} was written by an append whose piece is not at its end");
            return Err(Anomaly::new(what, &[writer, witness]));
        };
        if prefix.is_empty() {
            // A value may be empty without being missing, if somebody wrote the empty value.
            if !self.operations.iter().any(|one| one.is_write() && one.value.as_deref() == Some("")) {
                self.at(number).before = Before::Absent;
            }
            return Ok(());
        }
        if number == 1 {
            let what = "version 1 holds more than its append: something was there before the first version";
            return Err(Anomaly::new(what, &[writer, witness]));
        }
        self.at(number).before = Before::Present;
        self.learn(number - 1, prefix, witness)
    }

    /// A version whose write met the version before cannot have been deleted in between.
    fn check_before(&self, number: u64) -> Result<(), Anomaly> {
        let version = &self.known[&number];
        if version.before != Before::Present {
            return Ok(());
        }
        match (self.known.get(&(number - 1)).and_then(|previous| previous.deleted), version.writer) {
            (Some(delete), Some(writer)) => {
                let what = format!("version {} was deleted, and version {number} builds on it", number - 1);
                Err(Anomaly::new(what, &[delete, writer]))
            }
            _ => Ok(()),
        }
    }

    /// No write can have made this value: says what it looks like.
    fn unexplained(&self, number: u64, value: &str, witness: &Operation) -> Anomaly {
        let ends = |operation: &&&Operation| {
            let text = operation.value.as_deref().unwrap_or_default();
            operation.is_write() && !text.is_empty() && value.ends_with(text)
        };
        let culprit =
            self.operations.iter().filter(ends).max_by_key(|one| one.value.as_ref().map(String::len));
        match culprit {
            None => Anomaly::new(format!("version {number} has a value that nobody wrote"), &[witness]),
            Some(write) if write.outcome == Outcome::Fail => {
                let what = format!("a refused write took effect as version {number}");
                Anomaly::new(what, &[write, witness])
            }
            Some(write) => {
                let what = format!("a write took effect twice: its value appears in version {number} again");
                Anomaly::new(what, &[write, witness])
            }
        }
    }
}

/// The write of unknown outcome that made a value.
enum Found<'a> {
    One(&'a Operation),
    /// More than one write can have made it: values or pieces are not unique, or one ends with
    /// another.
    Several,
    None,
}

/// Finds the write of unknown outcome that made a value. Each write is found once.
struct Search<'a> {
    values: BTreeMap<&'a str, Vec<&'a Operation>>,
    appends: Vec<&'a Operation>,
    taken: BTreeSet<*const Operation>,
}

impl<'a> Search<'a> {
    fn new(open: &[&'a Operation]) -> Self {
        let (appends, puts): (Vec<&'a Operation>, Vec<_>) =
            open.iter().partition(|write| write.op == Op::Append);
        let mut values: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for write in puts {
            values.entry(write.value.as_deref().unwrap_or_default()).or_default().push(write);
        }
        Self { values, appends, taken: BTreeSet::new() }
    }

    fn take(&mut self, value: &str, number: u64) -> Found<'a> {
        let appended = self.appends.iter().filter(|write| {
            let piece = write.value.as_deref().unwrap_or_default();
            value.ends_with(piece)
        });
        let written = self.values.get(value).into_iter().flatten();
        let open = |write: &&'a Operation| !self.taken.contains(&std::ptr::from_ref(*write));
        let found: Vec<&Operation> = written.chain(appended).copied().filter(open).collect();
        // Where values repeat, conditional puts that expect the previous version fit here and
        // nowhere else; the one that was called first fits best.
        let pinned = |write: &&&'a Operation| {
            write.op == Op::Cas
                && write.expected_version.is_some_and(|before| before > 0 && before + 1 == number)
        };
        let one = match found.len() {
            0 => return Found::None,
            1 => found[0],
            _ if !found.iter().all(|write| pinned(&write)) => return Found::Several,
            _ => found.iter().min_by_key(|write| write.call_ns).copied().unwrap_or(found[0]),
        };
        self.taken.insert(std::ptr::from_ref(one));
        Found::One(one)
    }
}
