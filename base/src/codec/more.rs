//! Room for fields that a struct gains within a version.
//!
//! ```text
//! count u8, then for each field: tag u16, length u64, that many bytes
//! ```
//!
//! A field that a later level adds gets the next free tag of its struct. This build knows none yet,
//! so it writes the single byte 0, and every field that it reads here is unknown to it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The limit of fields read for one struct.
const FIELDS_MAX: usize = u8::MAX as usize;

/// What an unknown field means to the reader.
pub trait Policy {
    /// Whether it is an error.
    const DENIES: bool;
}

/// Unknown fields are skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Skip;

/// Unknown fields are errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deny;

impl Policy for Skip {
    const DENIES: bool = false;
}

impl Policy for Deny {
    const DENIES: bool = true;
}

/// The end of a struct that may gain fields.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct More<P> {
    /// The number of unknown fields that were skipped.
    skipped: u8,
    policy: PhantomData<P>,
}

/// The end of a message: unknown fields are skipped.
pub type Skipped = More<Skip>;

/// The end of a row or a log entry: unknown fields are errors.
pub type Denied = More<Deny>;

impl<P> More<P> {
    /// No fields beyond those that this build knows: what it writes.
    pub const NONE: Self = Self { skipped: 0, policy: PhantomData };

    /// The number of unknown fields that were skipped by this read. If the struct is written again,
    /// they are lost.
    pub fn skipped(&self) -> usize {
        usize::from(self.skipped)
    }
}

impl<P> fmt::Debug for More<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.skipped {
            0 => write!(f, ".."),
            skipped => write!(f, "{skipped} unknown fields"),
        }
    }
}

impl<P> Serialize for More<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(1)?;
        tuple.serialize_element(&0_u8)?;
        tuple.end()
    }
}

impl<'de, P: Policy> Deserialize<'de> for More<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The count is the first element. The tuple is as long as the longest possible one, and is
        // read as far as it goes.
        deserializer.deserialize_tuple(1 + 2 * FIELDS_MAX, Fields(PhantomData))
    }
}

struct Fields<P>(PhantomData<P>);

impl<'de, P: Policy> Visitor<'de> for Fields<P> {
    type Value = More<P>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a count and as many tagged fields")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<More<P>, A::Error> {
        let short = |at| A::Error::invalid_length(at, &"a count and as many tagged fields");
        let count: u8 = elements.next_element()?.ok_or_else(|| short(0))?;
        for field in 0..usize::from(count) {
            let tag: u16 = elements.next_element()?.ok_or_else(|| short(1 + 2 * field))?;
            elements.next_element::<Passed>()?.ok_or_else(|| short(2 + 2 * field))?;
            if P::DENIES {
                let text = format!("unknown field {tag}: it was written by a newer build, which can read it");
                return Err(A::Error::custom(text));
            }
        }
        Ok(More { skipped: count, policy: PhantomData })
    }
}

/// Bytes of an unknown field, read without keeping them.
struct Passed;

impl<'de> Deserialize<'de> for Passed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Passed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "bytes")
            }

            fn visit_bytes<E>(self, _: &[u8]) -> Result<Passed, E> {
                Ok(Passed)
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::{Denied, Skipped};
    use crate::codec::{DecodeError, decode, encode};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Message {
        number: u64,
        more: Skipped,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        number: u64,
        more: Denied,
    }

    /// The same struct as a later build writes it: with two more fields, of which the second has the tag 7.
    fn later(number: u64) -> Vec<u8> {
        let mut bytes = encode(&number).to_vec();
        bytes.push(2);
        for (tag, value) in [(1_u16, &b"new"[..]), (7, b"")] {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    }

    #[test]
    fn room_for_later_fields_costs_one_byte() {
        assert_eq!(encode(&Message { number: 5, more: Skipped::default() }).len(), encode(&5_u64).len() + 1);
        let row = Row { number: 5, more: Denied::default() };
        assert_eq!(decode(&encode(&row), 64), Ok(row));
    }

    #[test]
    fn a_message_skips_fields_of_a_later_build_and_notices() {
        let read: Message = decode(&later(5), 64).unwrap();
        assert_eq!((read.number, read.more.skipped()), (5, 2));
        // The data after the struct is still found.
        let two: (Message, u8) = decode(&[&later(5)[..], &[9]].concat(), 64).unwrap();
        assert_eq!(two.1, 9);
    }

    #[test]
    fn a_row_with_a_field_of_a_later_build_is_refused_by_its_tag() {
        let refused = decode::<Row>(&later(5), 64);
        assert!(matches!(refused, Err(DecodeError::Malformed(text)) if text.contains("unknown field 1")));
    }

    #[test]
    fn fields_that_end_early_are_malformed() {
        let whole = later(5);
        for length in 10..whole.len() {
            assert!(decode::<Message>(&whole[..length], 64).is_err(), "cut at {length}");
        }
    }
}
