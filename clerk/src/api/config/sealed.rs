//! A configuration as the bytes that its maker wrote, with their digest.
//!
//! A receiver keeps these bytes, forwards them, and compares their digest. A build that knows fewer
//! fields than the maker's must not turn it into another configuration by writing it again. The
//! bytes are decoded, and checked, once, when they arrive.
//!
//! Left out on purpose: whether a configuration fits here (the groups and the controllers decide
//! that).

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base::codec::{self, DecodeError};
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Config;
use crate::api::{ConfigNum, Digest};

/// A configuration that does not change any more. Reads like a [`Config`]; clones share it.
#[derive(Clone)]
pub struct Sealed {
    bytes: Bytes,
    digest: Digest,
    config: Arc<Config>,
}

impl Sealed {
    /// Seals a configuration that is made here.
    pub fn new(config: Config) -> Self {
        let bytes = codec::encode(&config);
        Self { digest: Digest::of(&bytes), bytes, config: Arc::new(config) }
    }

    /// Reads what somebody sealed.
    ///
    /// # Errors
    /// [`DecodeError`], also when the configuration contradicts itself ([`Config::check`]).
    pub fn read(bytes: Bytes) -> Result<Self, DecodeError> {
        let config: Config = codec::decode(&bytes, bytes.len())?;
        config.check().map_err(|why| DecodeError::Malformed(format!("a configuration with {why}")))?;
        Ok(Self { digest: Digest::of(&bytes), bytes, config: Arc::new(config) })
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its place in the history.
    pub fn place(&self) -> Place {
        Place { num: self.config.num, digest: self.digest }
    }

    /// What the bytes say.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Whether this build knows every field. Code that acts by a configuration must not skip one.
    pub fn is_understood(&self) -> bool {
        codec::encode(&*self.config) == self.bytes
    }
}

/// A configuration, named so that it cannot be another one of the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Its number.
    pub num: ConfigNum,
    /// Its digest.
    pub digest: Digest,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.num, self.digest)
    }
}

impl Deref for Sealed {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl PartialEq for Sealed {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Sealed {}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.digest, self.config)
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Bytes::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::codec;

    use super::Sealed;
    use crate::api::config::{Assignment, Config, Params};
    use crate::api::{ConfigNum, Digest, GroupId, Incarnation};

    fn config() -> Config {
        let params = Params { shard_count: 2, ..Params::default() };
        let zero = Sealed::new(Config::zero(7, params));
        let mine = Assignment { owner: Some(GroupId(101)), last_owner: None };
        let groups = BTreeMap::from([(GroupId(101), Incarnation(9))]);
        Config {
            num: ConfigNum(1),
            before: zero.digest(),
            shards: vec![mine; 2],
            groups,
            ..zero.config().as_ref().clone()
        }
    }

    #[test]
    fn a_configuration_travels_as_the_bytes_that_its_maker_wrote() {
        let made = Sealed::new(config());
        assert_eq!(made.digest(), Digest::of(made.bytes()));
        let read: Sealed = codec::decode(&codec::encode(&made), 1 << 16).unwrap();
        assert_eq!(
            (read.digest(), read.config(), read.is_understood()),
            (made.digest(), made.config(), true)
        );
    }

    #[test]
    fn a_field_of_a_later_build_is_kept_and_noticed() {
        let mut bytes = Sealed::new(config()).bytes().to_vec();
        assert_eq!(bytes.pop(), Some(0), "no field follows");
        bytes.push(1);
        bytes.extend_from_slice(&5_u16.to_le_bytes());
        bytes.extend_from_slice(&3_u64.to_le_bytes());
        bytes.extend_from_slice(b"new");
        let later = Sealed::read(bytes.clone().into()).unwrap();
        assert!(!later.is_understood());
        assert_eq!((&later.bytes()[..], later.shards.len()), (&bytes[..], 2));
    }

    #[test]
    fn any_other_word_in_it_is_another_digest() {
        let made = Sealed::new(config());
        let others = [
            Config { key: 8, ..config() },
            Config { before: Digest(1), ..config() },
            Config { groups: BTreeMap::from([(GroupId(101), Incarnation(8))]), ..config() },
        ];
        assert!(others.into_iter().all(|other| Sealed::new(other).digest() != made.digest()));
    }

    #[test]
    fn what_contradicts_itself_is_not_read() {
        let params = config().params;
        let wrong: Vec<Config> = vec![
            Config { shards: vec![Assignment::default(); 3], ..config() },
            Config { params: Params { shard_count: 0, ..params }, shards: vec![], ..config() },
            Config { params: Params { shard_count: 20_000, ..params }, ..config() },
            Config { params: Params { sessions_max: 0, ..params }, ..config() },
            Config { params: Params { key_bytes_max: u32::MAX, ..params }, ..config() },
            Config { params: Params { value_bytes_max: u32::MAX, ..params }, ..config() },
            Config { num: ConfigNum(u64::MAX), ..config() },
            Config { num: ConfigNum(0), ..config() },
            Config { key: 0, ..config() },
            Config { groups: BTreeMap::new(), ..config() },
            Config {
                groups: BTreeMap::from([(GroupId(0), Incarnation(1)), (GroupId(101), Incarnation(1))]),
                ..config()
            },
        ];
        for config in wrong {
            let bytes = codec::encode(&codec::encode(&config));
            assert!(codec::decode::<Sealed>(&bytes, 1 << 20).is_err(), "{config:?}");
        }
    }
}
