//! The language of the cluster: the ids, the configuration, and the messages of clients, groups and
//! controllers. Everything here is sent over the network; enums grow only at the end.

pub mod config;
pub mod ctrl;
pub mod kv;
pub mod placement;
pub mod push;
pub mod rpc;
pub mod server;
pub mod status;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A shard: a contiguous range of slots (docs/glossary.md). Counted from 0.
    ShardId(u32)
);
id!(
    /// A replica group (the labs' gid). 0 is no group.
    GroupId(u64)
);
id!(
    /// Number of a configuration. 0 is the one before any group joined.
    ConfigNum(u64)
);
id!(
    /// A session: drawn from a shard's (or the controller's) own counter, never used twice there.
    SessionId(u64)
);
id!(
    /// Number of an operation within its session, from 1.
    Seq(u64)
);
id!(
    /// Version of a value: 0 is "absent", each write adds one, and no version returns after a delete.
    Version(u64)
);
id!(
    /// One life of a group's data, drawn at its first start and kept with its rows.
    Incarnation(u64)
);

impl GroupId {
    /// The controllers, where a server says which group it belongs to.
    pub const CONTROLLERS: Self = Self(0);
}

impl ConfigNum {
    /// Numbers end before this one: the code calculates with numbers from outside (correctness rule
    /// 49).
    pub const LIMIT: Self = Self(1 << 62);
}

/// Where a server listens: `host:port` (in a simulation, a name).
pub type Address = String;

/// The hash (xxh3) of the bytes that their maker wrote. Written as 16 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:016x})", self.0)
    }
}

/// One operation of one session: the same on every retry (correctness rule 26).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The session.
    pub session: SessionId,
    /// The operation's number in it.
    pub seq: Seq,
}
