//! What clients saw: one operation per line, as JSON (the format that `clerk bench --history`
//! writes).
//!
//! The state starts empty, because keys carry a run id. Every written value or piece is unique. An
//! operation of unknown outcome has no return, and its client continues under a new id. `fail`
//! means that the operation definitely had no effect.
//!
//! Left out on purpose: values that are not text.

use std::fmt;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    Get,
    /// Sets the value.
    Put,
    /// Appends a piece to the value.
    Append,
    Delete,
    /// Sets the value if the version is the expected one (0: if the key is absent).
    Cas,
}

/// What is known of an operation's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    /// Definitely without effect: a conditional put that met another version, or a refusal.
    Fail,
    /// It is not known whether it took effect.
    Unknown,
}

/// The client that asked: a number or a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Client {
    Number(u64),
    Name(String),
}

/// One operation of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// A client has one operation at a time.
    pub client: Client,
    pub op: Op,
    pub key: String,
    /// The value written, or the piece appended.
    pub value: Option<String>,
    /// The version a conditional put expects.
    pub expected_version: Option<u64>,
    /// The value the reply carried.
    pub output: Option<String>,
    /// The version the reply carried.
    pub version: Option<u64>,
    /// The time of the call, in nanoseconds of one monotonic clock.
    pub call_ns: u64,
    /// The time of the reply; none for an unknown outcome.
    pub return_ns: Option<u64>,
    pub outcome: Outcome,
}

impl Operation {
    /// The time at which it was certainly over: never, if the outcome is unknown.
    pub fn end_ns(&self) -> u64 {
        match self.outcome {
            Outcome::Unknown => u64::MAX,
            Outcome::Ok | Outcome::Fail => self.return_ns.unwrap_or(u64::MAX),
        }
    }

    /// Whether it changes a key if it succeeds.
    pub fn is_write(&self) -> bool {
        self.op != Op::Get
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "client {number}"),
            Self::Name(name) => write!(f, "client {name}"),
        }
    }
}

/// Longer values are cut to this length.
const SHOWN_CHARS: usize = 60;

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| {
            let count = text.chars().count();
            let tail: String = text.chars().skip(count.saturating_sub(SHOWN_CHARS)).collect();
            if count > SHOWN_CHARS { format!("\"...{tail}\"") } else { format!("\"{tail}\"") }
        };
        write!(f, "{}: {:?} {}", self.client, self.op, self.key)?;
        if let Some(value) = &self.value {
            write!(f, " {}", shown(value))?;
        }
        if let Some(expected) = self.expected_version {
            write!(f, " if version {expected}")?;
        }
        write!(f, " -> {:?}", self.outcome)?;
        if let Some(output) = &self.output {
            write!(f, " {}", shown(output))?;
        }
        if let Some(version) = self.version {
            write!(f, " version {version}")?;
        }
        match self.return_ns {
            Some(end) => write!(f, " [{} ns to {end} ns]", self.call_ns),
            None => write!(f, " [{} ns, no return]", self.call_ns),
        }
    }
}

/// Writes a history, one operation per line.
///
/// # Errors
/// Those of the writer.
pub fn write<'a>(mut to: impl Write, operations: impl IntoIterator<Item = &'a Operation>) -> io::Result<()> {
    for operation in operations {
        let mut line = serde_json::to_string(operation).map_err(io::Error::other)?;
        line.push('\n');
        to.write_all(line.as_bytes())?;
    }
    to.flush()
}

/// Reads a history. Empty lines are skipped.
///
/// # Errors
/// Those of the reader, and a line that is not an operation, with its number.
pub fn read(from: impl BufRead) -> io::Result<Vec<Operation>> {
    let mut operations = Vec::new();
    for (number, line) in from.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let operation = serde_json::from_str(&line).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", number + 1))
        })?;
        operations.push(operation);
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::{Client, Op, Operation, Outcome, read, write};

    #[test]
    fn a_history_survives_writing_and_reading() {
        let operation = Operation {
            client: Client::Number(3),
            op: Op::Cas,
            key: "k".into(),
            value: Some("v\n\"1".into()),
            expected_version: Some(4),
            output: None,
            version: Some(5),
            call_ns: 10,
            return_ns: Some(20),
            outcome: Outcome::Ok,
        };
        let mut bytes = Vec::new();
        write(&mut bytes, [&operation, &operation]).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(read(bytes.as_slice()).unwrap(), vec![operation.clone(), operation]);
    }

    #[test]
    fn the_line_of_the_contract_is_understood() {
        let line = r#"{"client":7,"op":"get","key":"r1-k","value":null,"expected_version":null,
            "output":null,"version":0,"call_ns":1,"return_ns":2,"outcome":"ok"}"#
            .replace('\n', "");
        let operations = read(line.as_bytes()).unwrap();
        assert_eq!((operations[0].op, operations[0].version), (Op::Get, Some(0)));
        assert!(read(&b"{\"client\":7}"[..]).unwrap_err().to_string().contains("line 1"));
    }
}
