//! Messages, and sets of them: what was ever sent is part of the state of the world.
//!
//! Left out on purpose: who says what when (`sending`).

use clerk::api::ConfigNum;

use super::values::{GROUPS_MAX, NO_ROWS, RowsId, SHARDS_MAX, SetId, Table};

/// A message of a push of (`num`, `shard`), or the answer to one. `from` is the group that pushes and
/// `to` the one that receives, whichever way the message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Message {
    pub(super) num: ConfigNum,
    pub(super) shard: u8,
    pub(super) from: u8,
    pub(super) to: u8,
    pub(super) body: Body,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Body {
    /// The question whether the shard is awaited.
    Offer,
    /// Rows after a cursor. Without rows it asks for the cursor.
    Install { after: RowsId, rows: RowsId },
    /// Everything up to a cursor was sent, and that is all.
    Activate { after: RowsId, end: RowsId },
    /// The answer to an offer: it is awaited.
    Awaited,
    /// The answer: so far.
    Cursor(RowsId),
    /// The answer: the receiver took it.
    Done,
    /// The answer: the receiver will never take it.
    Refused,
}

impl Body {
    /// Asks for the cursor.
    pub(super) const QUESTION: Self = Self::Install { after: NO_ROWS, rows: NO_ROWS };
}

pub(super) type MessageId = u16;

/// Bits, one for each message.
pub(super) type Bits = Vec<u64>;

pub(super) fn has(bits: &[u64], id: MessageId) -> bool {
    bits.get(usize::from(id) / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
}

/// Whether the bit was not set.
pub(super) fn insert(bits: &mut Bits, id: MessageId) -> bool {
    let at = usize::from(id) / 64;
    if bits.len() <= at {
        bits.resize(at + 1, 0);
    }
    let bit = 1 << (id % 64);
    let new = bits[at] & bit == 0;
    bits[at] |= bit;
    new
}

/// The members of both, ascending.
pub(super) fn both<'a>(one: &'a [u64], other: &'a [u64]) -> impl Iterator<Item = MessageId> + 'a {
    one.iter().zip(other).enumerate().flat_map(|(at, (one, other))| {
        let mut word = one & other;
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some((at * 64) as MessageId + bit as MessageId)
        })
    })
}

/// Every message that was met, and which of them one looks for.
#[derive(Default)]
pub(super) struct Messages {
    all: Vec<Message>,
    ids: Table<Message, MessageId>,
    /// Requests to a group.
    pub(super) requests_to: [Bits; GROUPS_MAX],
    /// Answers to a group about a shard: where the cursor is, and each of those that permit something.
    pub(super) cursors_for: [[Bits; SHARDS_MAX]; GROUPS_MAX],
    pub(super) awaited_for: [[Bits; SHARDS_MAX]; GROUPS_MAX],
    pub(super) dones_for: [[Bits; SHARDS_MAX]; GROUPS_MAX],
    pub(super) refused_for: [[Bits; SHARDS_MAX]; GROUPS_MAX],
}

impl Messages {
    pub(super) fn id(&mut self, message: Message) -> MessageId {
        if let Some(id) = self.ids.get(&message) {
            return *id;
        }
        let id = MessageId::try_from(self.all.len()).expect("few messages");
        let (from, to, shard) = (message.from as usize, message.to as usize, message.shard as usize);
        insert(
            match message.body {
                Body::Offer | Body::Install { .. } | Body::Activate { .. } => &mut self.requests_to[to],
                Body::Cursor(_) => &mut self.cursors_for[from][shard],
                Body::Awaited => &mut self.awaited_for[from][shard],
                Body::Done => &mut self.dones_for[from][shard],
                Body::Refused => &mut self.refused_for[from][shard],
            },
            id,
        );
        self.all.push(message);
        self.ids.insert(message, id);
        id
    }

    /// The number of a message, if it was ever met.
    pub(super) fn known(&self, message: Message) -> Option<MessageId> {
        self.ids.get(&message).copied()
    }

    pub(super) fn get(&self, id: MessageId) -> Message {
        self.all[usize::from(id)]
    }
}

/// Every set of messages that was met.
pub(super) struct Sets {
    all: Vec<Bits>,
    ids: Table<Bits, SetId>,
}

impl Sets {
    pub(super) fn new() -> Self {
        let mut sets = Self { all: Vec::new(), ids: Table::default() };
        assert_eq!(sets.id(&[]), SetId::default());
        sets
    }

    /// The number of a set, which has no empty words at its end: bits are only ever added.
    pub(super) fn id(&mut self, bits: &[u64]) -> SetId {
        if let Some(id) = self.ids.get(bits) {
            return *id;
        }
        let id = SetId(u32::try_from(self.all.len()).expect("few sets"));
        self.all.push(bits.to_vec());
        self.ids.insert(bits.to_vec(), id);
        id
    }

    pub(super) fn get(&self, id: SetId) -> &Bits {
        &self.all[id.0 as usize]
    }
}
