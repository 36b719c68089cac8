//! How the entries of one save lie in one row: a count, then the entries one behind the other, each with
//! format version, term, index and a checksum of its own (correctness rule 31).

use bytes::Bytes;

use crate::types::{Entry, EntryId, Payload};

/// Format this build writes, and the newest it reads.
pub(super) const FORMAT: u8 = 1;

/// Format, kind, term, index, length.
const HEAD_BYTES: usize = 1 + 1 + 8 + 8 + 4;
const CHECKSUM_BYTES: usize = 4;
const COUNT_BYTES: usize = 4;

const EMPTY: u8 = 0;
const COMMAND: u8 = 1;

/// What is wrong with a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Written in this newer format.
    Newer(u8),
    /// In words.
    Damaged(String),
}

pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(COUNT_BYTES + entries.iter().map(Entry::weight).sum::<usize>());
    bytes.extend_from_slice(&length(entries.len()).to_be_bytes());
    for entry in entries {
        let start = bytes.len();
        let (kind, payload): (u8, &[u8]) = match &entry.payload {
            Payload::Empty => (EMPTY, &[]),
            Payload::Command(command) => (COMMAND, command),
        };
        bytes.extend_from_slice(&[FORMAT, kind]);
        bytes.extend_from_slice(&entry.id.term.0.to_be_bytes());
        bytes.extend_from_slice(&entry.id.index.0.to_be_bytes());
        bytes.extend_from_slice(&length(payload.len()).to_be_bytes());
        bytes.extend_from_slice(payload);
        let checksum = crc32fast::hash(&bytes[start..]);
        bytes.extend_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("entries are limited to far less than 4 GiB")
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, Fault> {
    let short = || Fault::Damaged("a run of entries ends in mid-entry".to_owned());
    let (count, mut rest) = bytes.split_first_chunk::<COUNT_BYTES>().ok_or_else(short)?;
    let count = u32::from_be_bytes(*count);
    let mut entries = Vec::new();
    for _ in 0..count {
        let head = rest.get(..HEAD_BYTES).ok_or_else(short)?;
        if head[0] > FORMAT {
            return Err(Fault::Newer(head[0]));
        }
        let id = EntryId::new(number(&head[2..10]), number(&head[10..18]));
        let end =
            usize::try_from(number(&head[18..22])).ok().and_then(|length| length.checked_add(HEAD_BYTES));
        let (body, behind) = end.and_then(|end| rest.split_at_checked(end)).ok_or_else(short)?;
        let (checksum, behind) = behind.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(short)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
            return Err(Fault::Damaged(format!("the checksum of entry {id} does not match")));
        }
        let payload = match head[1] {
            EMPTY => Payload::Empty,
            COMMAND => Payload::Command(Bytes::copy_from_slice(&body[HEAD_BYTES..])),
            kind => return Err(Fault::Damaged(format!("entry {id} is of the unknown kind {kind}"))),
        };
        entries.push(Entry { id, payload });
        rest = behind;
    }
    if rest.is_empty() {
        Ok(entries)
    } else {
        Err(Fault::Damaged("bytes behind a run of entries".to_owned()))
    }
}

/// A big-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::{COUNT_BYTES, Fault, decode, encode};
    use crate::types::{Entry, EntryId, Payload};

    fn run() -> Vec<Entry> {
        let payloads = [Payload::Empty, Payload::Command("set x".into()), Payload::Command("".into())];
        let entry = |(at, payload): (u64, _)| Entry { id: EntryId::new(3, 7 + at), payload };
        (0..).zip(payloads).map(entry).collect()
    }

    #[test]
    fn a_run_comes_back_and_so_does_an_empty_one() {
        assert_eq!(decode(&encode(&run())), Ok(run()));
        assert_eq!(decode(&encode(&[])), Ok(Vec::new()));
    }

    #[test]
    fn every_flipped_bit_and_every_lost_tail_is_noticed() {
        let good = encode(&run());
        for at in 0..good.len() {
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(decode(&bad).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = encode(&run());
        bytes[COUNT_BYTES] = 9;
        assert_eq!(decode(&bytes), Err(Fault::Newer(9)));
    }
}
