//! How a record lies in a file: checksum (4 bytes), length (4), number (8), all little-endian; then its bytes, with
//! zeros up to a multiple of eight. The checksum covers the log's salt and everything behind itself.

use std::ops::Range;

use base::codec;
use serde::Serialize;

const CHECKSUM_BYTES: usize = 4;
/// What stands before a record's bytes.
pub(super) const HEAD_BYTES: usize = CHECKSUM_BYTES + 4 + 8;
/// Records begin at multiples of it.
const ALIGN: usize = 8;

/// A record whose checksum matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) number: u64,
    /// As the codec encoded them.
    pub(super) body: &'a [u8],
    /// Bytes from its beginning to the next one's.
    pub(super) size: usize,
}

/// Appends a record.
pub(super) fn seal(bytes: &mut Vec<u8>, salt: u64, number: u64, value: &impl Serialize) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEAD_BYTES]);
    codec::encode_into(bytes, value);
    let length = u32::try_from(bytes.len() - start - HEAD_BYTES).expect("saves are far smaller than 4 GiB");
    bytes[start + CHECKSUM_BYTES..][..4].copy_from_slice(&length.to_le_bytes());
    bytes[start + CHECKSUM_BYTES + 4..][..8].copy_from_slice(&number.to_le_bytes());
    let checksum = checksum(salt, &bytes[start + CHECKSUM_BYTES..]);
    bytes[start..][..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(start + (bytes.len() - start).next_multiple_of(ALIGN), 0);
}

/// The record with which `bytes` begin, if they begin with one.
pub(super) fn open(bytes: &[u8], salt: u64) -> Option<Record<'_>> {
    let (head, behind) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let body = behind.get(..usize::try_from(number(&head[CHECKSUM_BYTES..][..4])).ok()?)?;
    let sealed = &bytes[CHECKSUM_BYTES..HEAD_BYTES + body.len()];
    let matches = u64::from(checksum(salt, sealed)) == number(&head[..CHECKSUM_BYTES]);
    let size = (HEAD_BYTES + body.len()).next_multiple_of(ALIGN);
    matches.then(|| Record { number: number(&head[CHECKSUM_BYTES + 4..]), body, size })
}

/// The first record, wherever it begins, with a number among these. (Few enough, so that hardly anything else
/// has to be summed to see that it is none.)
pub(super) fn find(bytes: &[u8], salt: u64, numbers: Range<u64>) -> Option<Record<'_>> {
    let candidates = (0..bytes.len().saturating_sub(HEAD_BYTES - 1)).step_by(ALIGN);
    candidates
        .filter(|at| numbers.contains(&number(&bytes[at + CHECKSUM_BYTES + 4..][..8])))
        .find_map(|at| open(&bytes[at..], salt))
}

/// How many records fit into so many bytes, at most.
pub(super) fn most_in(bytes: u64) -> u64 {
    bytes / HEAD_BYTES as u64
}

fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::{ALIGN, find, open, seal};

    const SALT: u64 = 77;

    fn records() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        seal(&mut bytes, SALT, 5, &"the first record");
        let second = bytes.len();
        seal(&mut bytes, SALT, 6, &"the second");
        (bytes, second)
    }

    #[test]
    fn records_come_back_one_behind_the_other() {
        let (bytes, second) = records();
        let first = open(&bytes, SALT).unwrap();
        assert_eq!((first.number, first.size, second % ALIGN), (5, second, 0));
        assert_eq!(base::codec::decode::<String>(first.body, 100).unwrap(), "the first record");
        let behind = open(&bytes[second..], SALT).unwrap();
        assert_eq!((behind.number, second + behind.size), (6, bytes.len()));
        assert_eq!(open(&bytes, SALT + 1), None, "another log's");
    }

    #[test]
    fn every_flipped_bit_and_every_lost_tail_is_noticed() {
        let (good, second) = records();
        let body = 16 + open(&good, SALT).unwrap().body.len();
        for at in 0..body {
            assert_eq!(open(&good[..at], SALT), None, "cut at {at}");
            let mut bad = good[..second].to_vec();
            bad[at] ^= 0x10;
            assert_eq!(open(&bad, SALT), None, "flipped at {at}");
        }
    }

    #[test]
    fn a_record_is_found_behind_anything() {
        let (mut bytes, second) = records();
        assert_eq!(find(&bytes, SALT, 0..9).unwrap().number, 5);
        assert_eq!(find(&bytes, SALT, 6..9).unwrap().number, 6);
        assert_eq!(find(&bytes, SALT, 7..9), None);
        bytes[9] ^= 1;
        assert_eq!(find(&bytes, SALT, 0..9).unwrap().number, 6);
        bytes[second + 20] ^= 1;
        assert_eq!(find(&bytes, SALT, 0..9), None);
        assert_eq!(find(&[], SALT, 0..9), None);
    }
}
