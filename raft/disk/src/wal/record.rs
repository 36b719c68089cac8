//! The form of a record in a file: checksum (4 bytes), length (4), number (8), all little-endian;
//! then its bytes, with zeros up to a multiple of eight. The checksum covers the log's salt and
//! everything after itself.

use std::ops::Range;

use base::codec;
use serde::Serialize;

const CHECKSUM_BYTES: usize = 4;
/// The size of a record's head.
pub(super) const HEAD_BYTES: usize = CHECKSUM_BYTES + 4 + 8;
/// Records begin at multiples of it.
const ALIGN: usize = 8;
/// A disk writes, and loses, this many bytes together.
pub(super) const SECTOR: usize = 512;

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

/// The record at the start of `bytes`, if there is one.
pub(super) fn open(bytes: &[u8], salt: u64) -> Option<Record<'_>> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let body = rest.get(..usize::try_from(number(&head[CHECKSUM_BYTES..][..4])).ok()?)?;
    let sealed = &bytes[CHECKSUM_BYTES..HEAD_BYTES + body.len()];
    let matches = u64::from(checksum(salt, sealed)) == number(&head[..CHECKSUM_BYTES]);
    let size = (HEAD_BYTES + body.len()).next_multiple_of(ALIGN);
    matches.then(|| Record { number: number(&head[CHECKSUM_BYTES + 4..]), body, size })
}

/// The first record, wherever it begins, with a number among these. (A narrow range rules out
/// nearly all other bytes without computing a checksum.)
pub(super) fn find(bytes: &[u8], salt: u64, numbers: Range<u64>) -> Option<Record<'_>> {
    let candidates = (0..bytes.len().saturating_sub(HEAD_BYTES - 1)).step_by(ALIGN);
    candidates
        .filter(|at| numbers.contains(&number(&bytes[at + CHECKSUM_BYTES + 4..][..8])))
        .find_map(|at| open(&bytes[at..], salt))
}

/// Every record with a number among these, wherever it begins, and where.
pub(super) fn all(bytes: &[u8], salt: u64, numbers: Range<u64>) -> Vec<(usize, Record<'_>)> {
    let candidates = (0..bytes.len().saturating_sub(HEAD_BYTES - 1)).step_by(ALIGN);
    candidates
        .filter(|at| numbers.contains(&number(&bytes[at + CHECKSUM_BYTES + 4..][..8])))
        .filter_map(|at| Some((at, open(&bytes[at..], salt)?)))
        .collect()
}

/// Whether the bytes at `at`, where record `next` would begin, were that record and were damaged: a
/// write that a crash interrupted leaves something else. The record is one bit off; or it is within
/// one sector, which a disk writes completely or not at all, and reads as record `next`.
pub(super) fn went_bad(bytes: &[u8], at: usize, salt: u64, next: u64) -> bool {
    let Some(head) = bytes.get(at..at + HEAD_BYTES) else { return false };
    let length = number(&head[CHECKSUM_BYTES..][..4]) as usize;
    let reads_next = number(&head[CHECKSUM_BYTES + 4..]) == next;
    let end = at.saturating_add(HEAD_BYTES).saturating_add(length);
    if reads_next && end <= bytes.len() && at / SECTOR == (end - 1) / SECTOR {
        return true;
    }
    let Some(flipped) = flipped(&bytes[at..], salt, next).map(|flipped| at + flipped) else { return false };
    // If that bit is all that its sector should have of the record, the sector may as well not have
    // been written.
    let sector = flipped / SECTOR * SECTOR;
    bytes[at.max(sector)..end.min(sector + SECTOR).min(bytes.len())].iter().any(|byte| *byte != 0)
}

/// The position of the byte in which one bit must be flipped for `bytes` to begin with a valid
/// record of that number.
fn flipped(bytes: &[u8], salt: u64, next: u64) -> Option<usize> {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let stored = number(&head[..CHECKSUM_BYTES]) as u32;
    let length = number(&head[CHECKSUM_BYTES..][..4]) as u32;
    let found = number(&head[CHECKSUM_BYTES + 4..]);
    if (found ^ next).count_ones() > 1 {
        return None;
    }
    let summed = |length: u32| {
        let body = rest.get(..length as usize)?;
        let sealed = [&length.to_le_bytes()[..], &found.to_le_bytes(), body].concat();
        Some(checksum(salt, &sealed))
    };
    // A bit of the length.
    if found == next && (0..32).any(|bit| summed(length ^ 1 << bit) == Some(stored)) {
        return Some(CHECKSUM_BYTES);
    }
    // A bit of the number, the body or the checksum. Checksums are linear: the effect of a flipped
    // bit depends only on its distance from the end.
    let off = summed(length).map(|summed| summed ^ stored).filter(|off| *off != 0)?;
    if found == next && off.count_ones() == 1 {
        return Some(0);
    }
    let body_bits = 8 * length as usize;
    let mut change = POLYNOMIAL;
    for bit in 0..body_bits + 64 {
        let right_number = match bit.checked_sub(body_bits) {
            None => found == next,
            // Bits of the number, the last of its last byte first.
            Some(bit) => found ^ 1 << (63 - bit) == next,
        };
        if change == off && right_number {
            return Some(HEAD_BYTES + length as usize - 1 - bit / 8);
        }
        change = change >> 1 ^ if change & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    None
}

/// The most records that fit into `bytes`.
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
    use super::{ALIGN, SECTOR, find, flipped, open, seal, went_bad};

    const SALT: u64 = 77;

    fn records() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        seal(&mut bytes, SALT, 5, &"the first record");
        let second = bytes.len();
        seal(&mut bytes, SALT, 6, &"the second");
        (bytes, second)
    }

    #[test]
    fn records_come_back_one_after_the_other() {
        let (bytes, second) = records();
        let first = open(&bytes, SALT).unwrap();
        assert_eq!((first.number, first.size, second % ALIGN), (5, second, 0));
        assert_eq!(base::codec::decode::<String>(first.body, 100).unwrap(), "the first record");
        let next = open(&bytes[second..], SALT).unwrap();
        assert_eq!((next.number, second + next.size), (6, bytes.len()));
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
    fn a_record_with_any_bit_flipped_is_told_from_a_torn_one() {
        let (good, second) = records();
        let whole = 16 + open(&good, SALT).unwrap().body.len();
        for bit in 0..whole * 8 {
            let mut bad = good[..second].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let at = flipped(&bad, SALT, 5);
            assert!(if bit < 64 { at.is_some() } else { at == Some(bit / 8) }, "bit {bit}: {at:?}");
            assert!(flipped(&bad, SALT, 6).is_none(), "bit {bit}: another's");
            assert!(went_bad(&bad, 0, SALT, 5), "bit {bit}");
        }
        assert_eq!(flipped(&good, SALT, 5), None, "nothing is off");
        assert_eq!(flipped(&good[..second], SALT + 1, 5), None, "another log's");
        for from in 0..whole - 1 {
            let mut torn = good[..second].to_vec();
            torn[from..].fill(0);
            assert_eq!(flipped(&torn, SALT, 5), None, "zeros from {from} on");
            // A disk writes a sector completely or not at all: zeros after its number are damage.
            assert_eq!(went_bad(&torn, 0, SALT, 5), from > 8, "zeros from {from} on");
        }
        let across = [vec![0; 504], good].concat();
        let mut torn = across.clone();
        torn[512..].fill(0);
        assert!(!went_bad(&torn, 504, SALT, 5), "it lies in two sectors");
        // Of two sectors, the second should have one bit of it, and has none.
        let mut bytes = vec![0; 400];
        seal(&mut bytes, SALT, 5, &(vec![7_u8; 87], 1_u8));
        assert_eq!(bytes[SECTOR..].iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        bytes[SECTOR..].fill(0);
        assert_eq!(flipped(&bytes[400..], SALT, 5), Some(SECTOR - 400));
        assert!(!went_bad(&bytes, 400, SALT, 5), "it may have been torn");
    }

    #[test]
    fn a_record_is_found_after_anything() {
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
