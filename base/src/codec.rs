//! Bytes on the wire, in rows and in log records: a version byte, then bincode 1.3.3 with an
//! explicit limit (correctness rule 47). The only file in the workspace that names bincode.
//!
//! There are two versions: [`WIRE`] for everything that is sent, [`DISK`] for everything on a disk.
//! Another version is refused with an error that names both, never guessed.
//!
//! Within a version a struct may still gain fields, if it ends with a [`More`]: a count, and that
//! many tagged fields. The reader decides what an unknown field means. A message skips it
//! ([`Skipped`]). In a row or a log entry it is an error that names the field ([`Denied`]): a
//! replica that skipped a field would drift apart from replicas that know it (correctness rule 75).
//!
//! Left out on purpose: enums that skip unknown variants. Nobody sends a variant before all can
//! read it.

mod more;

use std::fmt;
use std::marker::PhantomData;

use bincode::Options;
use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use more::{Denied, More, Policy, Skipped};

/// The version of everything that is sent between processes.
pub const WIRE: u8 = 2;

/// The version of everything on a disk: rows, log records, text files.
pub const DISK: u8 = 3;

/// Why bytes were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No bytes, not even the version byte.
    #[error("no bytes to decode")]
    Empty,
    /// Written by another format.
    #[error("format version {found}, this build reads {supported}: upgrade the older side")]
    Version {
        /// The version byte found.
        found: u8,
        /// The version this build reads there.
        supported: u8,
    },
    /// Longer than the limit in force.
    #[error("{length} bytes exceed the limit of {limit}")]
    TooLong {
        /// Bytes offered.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not what the reader expected.
    #[error("malformed bytes: {0}")]
    Malformed(String),
}

fn options(limit: usize) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().reject_trailing_bytes().with_limit(limit as u64)
}

fn append<T: Serialize + ?Sized>(version: u8, bytes: &mut Vec<u8>, value: &T) {
    bytes.push(version);
    options(usize::MAX).serialize_into(bytes, value).expect("our own types always serialize");
}

/// Bytes of a value, with the version byte.
fn size_of<T: Serialize + ?Sized>(value: &T) -> usize {
    let body = options(usize::MAX).serialized_size(value).expect("our own types always serialize");
    usize::try_from(body).unwrap_or(0) + 1
}

fn make<T: Serialize + ?Sized>(version: u8, room: usize, value: &T) -> Vec<u8> {
    // Encoded values are mostly small and passed on: measured once, allocated once.
    let mut bytes = Vec::with_capacity(room + size_of(value));
    bytes.resize(room, 0);
    append(version, &mut bytes, value);
    bytes
}

fn read<T: DeserializeOwned>(version: u8, bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLong { length: bytes.len(), limit });
    }
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((found, body)) if *found == version => {
            options(limit).deserialize(body).map_err(|error| DecodeError::Malformed(error.to_string()))
        }
        Some((found, _)) => Err(DecodeError::Version { found: *found, supported: version }),
    }
}

/// Encodes `value` for a disk, after the version byte.
///
/// # Panics
/// When `value`'s `Serialize` fails, which for our types (sized sequences, no maps of unknown
/// length) would be a bug of ours.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    make(DISK, 0, value).into()
}

/// Appends the result of [`encode`] for `value`.
///
/// # Panics
/// As there.
pub fn encode_into<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) {
    append(DISK, bytes, value);
}

/// Decodes what [`encode`] wrote, if it is at most `limit` bytes long.
///
/// # Errors
/// [`DecodeError`]; never a panic, whatever the bytes (correctness rule 49).
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    read(DISK, bytes, limit)
}

/// The same for bytes that are sent.
pub mod wire {
    use super::{Bytes, DecodeError, DeserializeOwned, Serialize, WIRE, append, make, read, size_of};

    /// The size of the result of [`encode`] for `value`.
    ///
    /// # Panics
    /// As [`super::encode`].
    pub fn size<T: Serialize + ?Sized>(value: &T) -> usize {
        size_of(value)
    }

    /// Encodes `value` for the wire, after the version byte.
    ///
    /// # Panics
    /// As [`super::encode`].
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
        make(WIRE, 0, value).into()
    }

    /// `room` zeros, to be overwritten by the caller, and then the result of [`encode`] for
    /// `value`.
    ///
    /// # Panics
    /// As there.
    pub fn encode_after<T: Serialize + ?Sized>(room: usize, value: &T) -> Vec<u8> {
        make(WIRE, room, value)
    }

    /// Appends the result of [`encode`] for `value`.
    ///
    /// # Panics
    /// As there.
    pub fn encode_into<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) {
        append(WIRE, bytes, value);
    }

    /// Decodes what [`encode`] wrote, if it is at most `limit` bytes long.
    ///
    /// # Errors
    /// [`DecodeError`]; never a panic, whatever the bytes (correctness rule 49).
    pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
        read(WIRE, bytes, limit)
    }
}

/// Reads a sequence of at most `MAX` elements, for `#[serde(deserialize_with = ...)]` on sequences
/// that peers and clients send. Without it a frame of tiny elements can become many times its size
/// in memory (correctness rule 47).
///
/// # Errors
/// The deserializer's, and when there are more.
pub fn bounded<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Bounded<const MAX: usize, T>(PhantomData<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Bounded<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let expected = elements.size_hint().unwrap_or(0);
            if expected > MAX {
                return Err(A::Error::invalid_length(expected, &self));
            }
            let mut values = Vec::with_capacity(expected.min(4096));
            while let Some(value) = elements.next_element()? {
                if values.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                values.push(value);
            }
            Ok(values)
        }
    }

    deserializer.deserialize_seq(Bounded::<MAX, T>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::{DISK, DecodeError, WIRE, decode, encode, wire};

    #[test]
    fn what_was_encoded_comes_back() {
        let value = (7_u64, "seven".to_owned(), vec![1_u8, 2, 3]);
        let bytes = encode(&value);
        assert_eq!(decode::<(u64, String, Vec<u8>)>(&bytes, 1024), Ok(value.clone()));
        let bytes = wire::encode(&value);
        assert_eq!(wire::decode::<(u64, String, Vec<u8>)>(&bytes, 1024), Ok(value));
    }

    #[test]
    fn another_version_a_tail_and_a_flood_are_refused() {
        assert_eq!(decode::<u64>(&[], 64), Err(DecodeError::Empty));
        assert_eq!(decode::<u64>(&[9, 0], 64), Err(DecodeError::Version { found: 9, supported: DISK }));
        let mut bytes = encode(&5_u64).to_vec();
        assert_eq!(decode::<u64>(&bytes, 4), Err(DecodeError::TooLong { length: 9, limit: 4 }));
        bytes.push(0);
        assert!(matches!(decode::<u64>(&bytes, 64), Err(DecodeError::Malformed(_))));
        // A length field that promises 2^60 bytes must not be believed.
        let mut flood = vec![DISK];
        flood.extend_from_slice(&(1_u64 << 60).to_le_bytes());
        assert!(matches!(decode::<Vec<u8>>(&flood, 64), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn what_travels_is_no_row_and_a_row_does_not_travel_bare() {
        let refused = Err(DecodeError::Version { found: DISK, supported: WIRE });
        assert_eq!(wire::decode::<u64>(&encode(&5_u64), 64), refused);
        let refused = Err(DecodeError::Version { found: WIRE, supported: DISK });
        assert_eq!(decode::<u64>(&wire::encode(&5_u64), 64), refused);
    }

    #[test]
    fn a_sequence_longer_than_its_bound_is_refused() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Three(#[serde(deserialize_with = "super::bounded::<3, _, _>")] Vec<u8>);

        assert_eq!(decode(&encode(&Three(vec![1, 2, 3])), 64), Ok(Three(vec![1, 2, 3])));
        let refused = decode::<Three>(&encode(&Three(vec![0; 4])), 64);
        assert!(matches!(refused, Err(DecodeError::Malformed(text)) if text.contains("at most 3")));
    }
}
