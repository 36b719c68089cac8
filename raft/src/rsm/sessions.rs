//! Exactly-once for clients that retry (thesis 6.3; correctness rule 26).
//!
//! Sessions belong to a scope (a shard; the controller) and are rows under its prefix: a counter
//! row, refusals, and per session its last sequence number, when it was used, and the reply. A
//! session's name is a number from the counter, so no name is used twice. "Used" counts the scope's
//! own operations, never a clock, so every replica drops the same session when there are too many.
//! An operation of a session without a row is expired and never executed: "expired" and "new" must
//! not look alike.
//!
//! When there are too many sessions, the least recently used one makes room, unless it was used
//! lately: then no new session is opened. Otherwise, with more clients than sessions, clients would
//! take them from each other with every write. Sessions of clients that vanished expire as others
//! write, or after a few tries if hardly anybody writes.
//!
//! The struct is a cache of those rows; [`Sessions::load`] rebuilds it.

use std::collections::BTreeMap;

use base::codec::{self, Denied};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::machine::Rows;
use crate::storage::{Read, ScanLimit, unreadable};

/// The sessions of one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    prefix: Bytes,
    counter: Counter,
    by_id: BTreeMap<u64, Session>,
    /// Session by the operation that used it last: the first is dropped first.
    by_use: BTreeMap<u64, u64>,
    refused: Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    /// Names given so far.
    names: u64,
    /// Operations so far; the row may lag behind the newest session's `used`.
    operations: u64,
    more: Denied,
}

/// Refusals to open a session, while others wrote little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Refused {
    count: u64,
    /// Operations before the first of them.
    since: u64,
    more: Denied,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    seq: u64,
    used: u64,
    reply: Bytes,
    more: Denied,
}

/// The meaning of an operation's ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Not seen: execute it.
    Fresh,
    /// Executed before; this was the reply.
    Repeated(Bytes),
    /// The session has gone past it.
    Stale,
    /// There is no such session (any more): never execute it.
    Expired,
}

/// Numbers in rows from outside must be smaller than this, because the counters continue from them.
const COUNTERS_MAX: u64 = 1 << 62;

/// After this many refusals the least recently used session makes room anyway, if others wrote less
/// than a fourth as often meanwhile. Its disuse then means little, and the new client has waited
/// long.
const REFUSALS: u64 = 16;
const WRITES_WEIGH: u64 = 4;

const COUNTER: u8 = 0;
const SESSION: u8 = 1;
const REFUSED: u8 = 2;

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
    codec::decode(bytes, bytes.len()).unwrap_or_else(|error| unreadable("decode a session row", &error))
}

impl Sessions {
    /// The sessions under `prefix`, which nothing else may use.
    pub fn load(prefix: Bytes, rows: &dyn Read) -> Self {
        const PAGE: ScanLimit = ScanLimit { rows: 1024, bytes: 1 << 20 };
        let (counter, refused) = (Counter::default(), Refused::default());
        let mut sessions = Self { prefix, counter, by_id: BTreeMap::new(), by_use: BTreeMap::new(), refused };
        if let Some(bytes) = rows.get(&sessions.counter_key()) {
            sessions.counter = read(&bytes);
        }
        if let Some(bytes) = rows.get(&sessions.refused_key()) {
            sessions.refused = read(&bytes);
        }
        let mut start = sessions.session_key(0);
        let end = [&sessions.prefix[..], &[SESSION + 1]].concat();
        loop {
            let page = rows.scan(&start, Some(&end), PAGE);
            let Some((last, _)) = page.last() else { return sessions };
            start = [&last[..], b"\0"].concat().into();
            for (key, value) in page {
                let id = key.get(key.len().saturating_sub(8)..).and_then(|id| id.try_into().ok());
                let id =
                    u64::from_be_bytes(id.unwrap_or_else(|| unreadable("read a session row", &"short key")));
                let session: Session = read(&value);
                sessions.counter.operations = sessions.counter.operations.max(session.used);
                sessions.by_use.insert(session.used, id);
                sessions.by_id.insert(id, session);
            }
        }
    }

    /// Makes names begin after `names`, in a scope that has no sessions: lower names were given out
    /// by servers whose rows are lost, and none of them may be used again.
    pub fn skip(prefix: Bytes, rows: &mut dyn Rows, names: u64) {
        let mut sessions = Self::load(prefix, rows);
        sessions.counter.names = sessions.counter.names.max(names.min(COUNTERS_MAX));
        rows.put(sessions.counter_key(), codec::encode(&sessions.counter));
    }

    /// Whether a row from elsewhere can be one of a scope's sessions: `rest` is its key after the
    /// scope's prefix. The caller must judge the reply in it, if it has one (correctness rule 49).
    ///
    /// # Errors
    /// In words.
    pub fn check_row(rest: &[u8], value: &[u8]) -> Result<Option<Bytes>, String> {
        let malformed = |error: codec::DecodeError| format!("a session's row: {error}");
        match rest.split_first() {
            Some((&COUNTER, [])) => {
                let Counter { names, operations, .. } =
                    codec::decode(value, value.len()).map_err(malformed)?;
                if names.max(operations) < COUNTERS_MAX {
                    Ok(None)
                } else {
                    Err(format!("counters of sessions beyond all reason: {names}, {operations}"))
                }
            }
            Some((&REFUSED, [])) => {
                let Refused { count, since, .. } = codec::decode(value, value.len()).map_err(malformed)?;
                if count.max(since) < COUNTERS_MAX {
                    Ok(None)
                } else {
                    Err(format!("refused sessions beyond all reason: {count}, {since}"))
                }
            }
            Some((&SESSION, id)) if id.len() == 8 => {
                let Session { seq, used, reply, .. } =
                    codec::decode(value, value.len()).map_err(malformed)?;
                let is_new = seq == 0;
                if used >= COUNTERS_MAX || is_new != reply.is_empty() {
                    return Err(format!("a session's row with number {seq}, used at {used}"));
                }
                Ok((!is_new).then_some(reply))
            }
            _ => Err("a session's row with a key of another length".to_owned()),
        }
    }

    /// Opens a session. Beyond `max` the least recently used one is dropped; none is opened if that
    /// one was used lately.
    pub fn open(&mut self, rows: &mut dyn Rows, max: u32) -> Option<u64> {
        let max = (max as usize).max(1);
        if self.by_id.len() >= max && !self.makes_room(rows, max as u64) {
            return None;
        }
        self.counter.names += 1;
        let id = self.counter.names;
        self.set(rows, id, 0, Bytes::new());
        rows.put(self.counter_key(), codec::encode(&self.counter));
        while self.by_id.len() > max {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.by_id.remove(&oldest);
            rows.delete(&self.session_key(oldest));
        }
        Some(id)
    }

    /// Whether the least recently used session may be dropped. Counts a refusal.
    fn makes_room(&mut self, rows: &mut dyn Rows, max: u64) -> bool {
        let operations = self.counter.operations;
        let idle = self.by_use.first_key_value().map_or(u64::MAX, |(used, _)| operations - used);
        // Clients that take turns use their sessions within this many operations. A client that
        // writes once and leaves makes two: if all do that, the oldest session is older.
        let lately = max + max / 2;
        if idle >= lately || base::mutant!("sessions-taken-from-others") {
            return true;
        }
        let writes = operations.saturating_sub(self.refused.since);
        let is_over = writes.saturating_mul(WRITES_WEIGH) > self.refused.count;
        let before = if is_over { Refused { since: operations, ..Refused::default() } } else { self.refused };
        let count = before.count + 1;
        let makes_room = idle + count >= lately || count >= REFUSALS;
        self.refused = if makes_room {
            Refused { since: operations, ..Refused::default() }
        } else {
            Refused { count, ..before }
        };
        rows.put(self.refused_key(), codec::encode(&self.refused));
        makes_room
    }

    /// The meaning of operation `seq` (from 1) of `session`.
    pub fn check(&self, session: u64, seq: u64) -> Check {
        match self.by_id.get(&session) {
            None if base::mutant!("expired-is-new") => Check::Fresh,
            None => Check::Expired,
            Some(held) if seq > held.seq => Check::Fresh,
            Some(held) if seq == held.seq && base::mutant!("repeat-executed") => Check::Fresh,
            Some(held) if seq < held.seq && base::mutant!("stale-number-executed") => Check::Fresh,
            Some(held) if seq == held.seq && seq > 0 => Check::Repeated(held.reply.clone()),
            Some(_) => Check::Stale,
        }
    }

    /// Records that operation `seq` of `session` was executed with `reply`.
    pub fn record(&mut self, rows: &mut dyn Rows, session: u64, seq: u64, reply: Bytes) {
        if self.by_id.contains_key(&session) {
            self.set(rows, session, seq, reply);
        }
    }

    /// Sessions held.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn set(&mut self, rows: &mut dyn Rows, id: u64, seq: u64, reply: Bytes) {
        self.counter.operations += 1;
        let session = Session { seq, used: self.counter.operations, reply, more: Denied::NONE };
        rows.put(self.session_key(id), codec::encode(&session));
        base::mutant!("session-only-in-memory", rows.delete(&self.session_key(id)));
        self.by_use.insert(session.used, id);
        if let Some(before) = self.by_id.insert(id, session) {
            self.by_use.remove(&before.used);
        }
    }

    fn counter_key(&self) -> Bytes {
        [&self.prefix[..], &[COUNTER]].concat().into()
    }

    fn refused_key(&self) -> Bytes {
        [&self.prefix[..], &[REFUSED]].concat().into()
    }

    fn session_key(&self, id: u64) -> Bytes {
        [&self.prefix[..], &[SESSION], &id.to_be_bytes()].concat().into()
    }
}

#[cfg(test)]
mod tests;
