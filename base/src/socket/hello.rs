//! The handshake: one frame from the caller, one answer.
//!
//! ```text
//! frame   length u32 BE of all that follows, CRC32 of the body u32 BE, body
//! body    "clrk", kind u8, wire version u16 LE, level u32 LE, fields up to the end
//! field   tag u16 LE, length u16 LE, value: a number (u64 LE), or text (UTF-8)
//! ```
//!
//! This form never changes, whatever the wire version: it is how two builds tell each other their numbers.
//! Unknown fields are skipped, and a field that is 0 or empty is left out.

use super::DialError;
use crate::codec::WIRE;

/// The highest level of the product that this build knows. A level may be raised only when all
/// servers know it; the additions of a level are written from then on.
pub const LEVEL: u32 = 1;

const MAGIC: &[u8; 4] = b"clrk";

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Requests of clients, and of groups that ask controllers.
    #[default]
    Client,
    /// Messages between replicas of a group, except snapshot chunks.
    PeerControl,
    /// Snapshot chunks, apart from the ordinary messages because they are big.
    PeerBulk,
    /// Shards that another group hands over.
    Push,
}

impl Purpose {
    const ALL: [(Self, u64); 4] =
        [(Self::Client, 1), (Self::PeerControl, 2), (Self::PeerBulk, 3), (Self::Push, 4)];

    fn number(self) -> u64 {
        Self::ALL.iter().find(|(purpose, _)| *purpose == self).map_or(0, |(_, number)| *number)
    }

    fn of(number: u64) -> Option<Self> {
        Self::ALL.iter().find(|(_, other)| *other == number).map(|(purpose, _)| *purpose)
    }
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The wire version of the caller.
    pub wire: u16,
    /// The highest level the caller knows.
    pub level: u32,
    /// The name of the cluster that the caller means.
    pub cluster: String,
    /// The key of the cluster that the caller means (correctness rule 51); 0: not known yet.
    pub key: u64,
    /// The purpose of the connection.
    pub purpose: Purpose,
    /// The group that the caller means; 0: the controllers.
    pub group: u64,
    /// The replica that calls; 0: a client.
    pub from: u64,
    /// The replica that is called; 0: any that listens there.
    pub to: u64,
    /// The incarnation of the calling replica's data (correctness rule 32), for a push of the
    /// calling group's; 0 for a client.
    pub incarnation: u64,
    /// Drawn by the calling process at its start; 0 for a client.
    pub boot: u64,
    /// Digest of the members that founded the calling replica's group; 0 for a client.
    pub founders: u64,
    /// The group of the server that pushes or asks; 0: a client, or a peer.
    pub from_group: u64,
    /// Whether requests on this connection wait for news.
    pub watches: bool,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            wire: u16::from(WIRE),
            level: LEVEL,
            cluster: String::new(),
            key: 0,
            purpose: Purpose::Client,
            group: 0,
            from: 0,
            to: 0,
            incarnation: 0,
            boot: 0,
            founders: 0,
            from_group: 0,
            watches: false,
        }
    }
}

/// The answer to an accepted [`Hello`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// The highest level the server knows.
    pub level: u32,
    /// The key of its cluster; 0: not known yet.
    pub key: u64,
    /// The incarnation of the answering replica's data.
    pub incarnation: u64,
    /// Drawn by the answering process at its start.
    pub boot: u64,
    /// Digest of the members that founded its group.
    pub founders: u64,
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome(Welcome),
    Refused(String),
    Busy(String),
    /// To a client that names no cluster: the name and the key to use next time.
    Cluster {
        name: String,
        key: u64,
    },
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const BUSY: u8 = 4;
const CLUSTER: u8 = 5;

const F_CLUSTER: u16 = 1;
const F_SERVICE: u16 = 2;
const F_GROUP: u16 = 3;
const F_FROM: u16 = 4;
const F_TO: u16 = 5;
const F_INCARNATION: u16 = 6;
const F_BOOT: u16 = 7;
const F_KEY: u16 = 8;
const F_FOUNDERS: u16 = 9;
const F_FROM_GROUP: u16 = 10;
const F_TEXT: u16 = 11;
const F_WATCHES: u16 = 12;

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8, wire: u16, level: u32) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(&wire.to_le_bytes());
        bytes.extend_from_slice(&level.to_le_bytes());
        Self(bytes)
    }

    fn field(mut self, tag: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&tag.to_le_bytes());
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(&value[..usize::from(length)]);
        self
    }

    fn number(self, tag: u16, value: u64) -> Self {
        if value == 0 { self } else { self.field(tag, &value.to_le_bytes()) }
    }

    fn text(self, tag: u16, value: &str) -> Self {
        if value.is_empty() { self } else { self.field(tag, value.as_bytes()) }
    }
}

struct Reader<'a> {
    kind: u8,
    wire: u16,
    level: u32,
    fields: Vec<(u16, &'a [u8])>,
}

impl<'a> Reader<'a> {
    fn new(body: &'a [u8]) -> Option<Self> {
        let rest = body.strip_prefix(MAGIC)?;
        let (&kind, rest) = rest.split_first()?;
        let (wire, rest) = rest.split_first_chunk::<2>()?;
        let (level, mut rest) = rest.split_first_chunk::<4>()?;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk::<2>()?;
            let (length, after) = after.split_first_chunk::<2>()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            fields.push((u16::from_le_bytes(*tag), value));
            rest = after;
        }
        Some(Self { kind, wire: u16::from_le_bytes(*wire), level: u32::from_le_bytes(*level), fields })
    }

    fn field(&self, tag: u16) -> Option<&'a [u8]> {
        self.fields.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value)
    }

    /// None: malformed. An omitted number is 0.
    fn number(&self, tag: u16) -> Option<u64> {
        self.field(tag).map_or(Some(0), |value| value.try_into().ok().map(u64::from_le_bytes))
    }

    fn text(&self, tag: u16) -> Option<String> {
        let value = self.field(tag).unwrap_or_default();
        std::str::from_utf8(value).ok().map(str::to_owned)
    }
}

/// Why the first frame of a connection is not a usable [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoHello {
    /// It is malformed.
    Malformed,
    /// It has another wire version, or a service that this build does not have: the answer, in
    /// words.
    Other(String),
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new(HELLO, self.wire, self.level)
            .text(F_CLUSTER, &self.cluster)
            .number(F_SERVICE, self.purpose.number())
            .number(F_GROUP, self.group)
            .number(F_FROM, self.from)
            .number(F_TO, self.to)
            .number(F_INCARNATION, self.incarnation)
            .number(F_BOOT, self.boot)
            .number(F_KEY, self.key)
            .number(F_FOUNDERS, self.founders)
            .number(F_FROM_GROUP, self.from_group)
            .number(F_WATCHES, self.watches.into())
            .0
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, NoHello> {
        let reader = Reader::new(body).filter(|reader| reader.kind == HELLO).ok_or(NoHello::Malformed)?;
        if reader.wire != u16::from(WIRE) {
            return Err(NoHello::Other(other_wire("this server", "the caller", reader.wire)));
        }
        let number = |tag| reader.number(tag).ok_or(NoHello::Malformed);
        let purpose = number(F_SERVICE)?;
        let purpose = Purpose::of(purpose)
            .ok_or_else(|| NoHello::Other(format!("this server has no service {purpose}: it is older")))?;
        Ok(Self {
            wire: reader.wire,
            level: reader.level,
            cluster: reader.text(F_CLUSTER).ok_or(NoHello::Malformed)?,
            key: number(F_KEY)?,
            purpose,
            group: number(F_GROUP)?,
            from: number(F_FROM)?,
            to: number(F_TO)?,
            incarnation: number(F_INCARNATION)?,
            boot: number(F_BOOT)?,
            founders: number(F_FOUNDERS)?,
            from_group: number(F_FROM_GROUP)?,
            watches: number(F_WATCHES)? != 0,
        })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let writer = |kind| Writer::new(kind, u16::from(WIRE), LEVEL);
        let writer = match self {
            Self::Welcome(welcome) => writer(WELCOME)
                .number(F_INCARNATION, welcome.incarnation)
                .number(F_BOOT, welcome.boot)
                .number(F_KEY, welcome.key)
                .number(F_FOUNDERS, welcome.founders),
            Self::Refused(why) => writer(REFUSED).text(F_TEXT, why),
            Self::Busy(why) => writer(BUSY).text(F_TEXT, why),
            Self::Cluster { name, key } => writer(CLUSTER).text(F_CLUSTER, name).number(F_KEY, *key),
        };
        writer.0
    }

    /// # Errors
    /// In words: it is no answer of this wire version.
    pub(super) fn decode(body: &[u8]) -> Result<Self, DialError> {
        let no_server = || DialError::Refused("what answers there is no server of this kind".to_owned());
        let reader = Reader::new(body).ok_or_else(no_server)?;
        let text = |tag| reader.text(tag).ok_or_else(no_server);
        let number = |tag| reader.number(tag).ok_or_else(no_server);
        match reader.kind {
            // A refusal is understood in any version.
            REFUSED => Ok(Self::Refused(text(F_TEXT)?)),
            _ if reader.wire != u16::from(WIRE) => {
                Err(DialError::Refused(other_wire("this program", "the server", reader.wire)))
            }
            BUSY => Ok(Self::Busy(text(F_TEXT)?)),
            CLUSTER => Ok(Self::Cluster { name: text(F_CLUSTER)?, key: number(F_KEY)? }),
            WELCOME => Ok(Self::Welcome(Welcome {
                level: reader.level,
                key: number(F_KEY)?,
                incarnation: number(F_INCARNATION)?,
                boot: number(F_BOOT)?,
                founders: number(F_FOUNDERS)?,
            })),
            _ => Err(no_server()),
        }
    }
}

fn other_wire(here: &str, there: &str, found: u16) -> String {
    format!("{here} speaks wire version {WIRE}, {there} version {found}: use programs of one build")
}

#[cfg(test)]
mod tests {
    use super::{Answer, Hello, NoHello, Purpose, Welcome};
    use crate::socket::DialError;

    fn full() -> Hello {
        Hello {
            cluster: "blue".to_owned(),
            key: 1,
            purpose: Purpose::Push,
            group: 2,
            from: 3,
            to: 4,
            incarnation: 5,
            boot: 6,
            founders: 7,
            from_group: 8,
            watches: true,
            ..Hello::default()
        }
    }

    #[test]
    fn hello_and_every_answer_come_back() {
        for hello in [full(), Hello::default()] {
            assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }
        let welcome = Welcome { level: 1, key: 1, incarnation: 2, boot: 3, founders: 4 };
        for answer in [
            Answer::Welcome(welcome),
            Answer::Refused("no".to_owned()),
            Answer::Busy("later".to_owned()),
            Answer::Cluster { name: "blue".to_owned(), key: 7 },
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn another_wire_version_is_refused_by_both_numbers() {
        let later = Hello { wire: 9, ..full() }.encode();
        let Err(NoHello::Other(why)) = Hello::decode(&later) else { panic!("taken") };
        assert!(why.contains("wire version 2") && why.contains("version 9"), "{why}");
        let mut answer = Answer::Welcome(Welcome::default()).encode();
        answer[5] = 9;
        let Err(DialError::Refused(why)) = Answer::decode(&answer) else { panic!("taken") };
        assert!(why.contains("wire version 2") && why.contains("version 9"), "{why}");
    }

    #[test]
    fn fields_of_a_later_build_are_skipped() {
        let mut bytes = full().encode();
        bytes.extend_from_slice(&[0x34, 0x12, 3, 0, 1, 2, 3]);
        assert_eq!(Hello::decode(&bytes), Ok(full()));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_of_a_hello_panics() {
        let whole = full().encode();
        for at in 0..whole.len() {
            let _ = Hello::decode(&whole[..at]);
            let mut bad = whole.clone();
            bad[at] ^= 0x41;
            let _ = Hello::decode(&bad);
            let _ = Answer::decode(&bad);
        }
    }
}
