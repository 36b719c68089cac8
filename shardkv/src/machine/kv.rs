//! What clients do to the rows of a shard that is served.
//!
//! Every operation first checks whether the shard is served here, on the same rows that it then
//! works on (correctness rules 21, 24). A write with a ticket is executed at most once: its
//! session's row holds the number and the reply of the last operation, never a value (rule 26).
//! Refusals that depend on the rows (a version, a size) are results and are recorded like results.
//! `WrongGroup` and `NotReady` are not, because the same ticket then turns to another group.
//!
//! Versions: a write adds one; a key that is created starts above the shard's version floor, which
//! each delete raises, so a conditional Put never meets an old version again.
//!
//! A batch is one command: its writes follow each other with nothing in between, each is judged
//! separately, and the session remembers the outcome of all of them.
//!
//! Left out on purpose: transactions (a batch is not a condition for its own parts), and values
//! larger than one row.

use std::collections::BTreeMap;

use base::codec::{self, Denied};
use bytes::Bytes;
use clerk::api::config::{Params, shard_of};
use clerk::api::kv::{BATCH_WRITES_MAX, Item, KvRefusal, KvReply, Write, batch_result_bytes_max, check_key};
use clerk::api::{ConfigNum, Seq, SessionId, ShardId, Ticket, Version};
use raft::rsm::Rows;
use raft::rsm::sessions::Check;
use raft::storage::{Read, ScanLimit, unreadable};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::machine::copy;
use crate::machine::rows::{self, Meta};

/// Bytes at which a page of a scan is cut.
const PAGE_BYTES: usize = 1 << 20;
/// Rows of a page, whatever was asked for.
const PAGE_ROWS_MAX: u32 = 10_000;

/// A session's memory of its last operation. Stored in rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    what: What,
    more: Denied,
}

/// Grows only at the end. It is not recursive: it is decoded from rows that other groups push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    Write(Written),
    /// The outcome of each write.
    Batch(#[serde(deserialize_with = "codec::bounded::<BATCH_WRITES_MAX, _, _>")] Vec<Written>),
    /// A batch that would have made this many bytes or more, and of which nothing was done.
    TooLarge(u64),
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Written {
    Done(Version),
    VersionMismatch(Version),
    ValueTooLarge(u64),
    InvalidKey(u64),
}

impl Written {
    fn answer(self, params: Params) -> Result<Version, KvRefusal> {
        match self {
            Self::Done(version) => Ok(version),
            Self::VersionMismatch(version) => Err(KvRefusal::VersionMismatch { version }),
            Self::ValueTooLarge(bytes) => {
                Err(KvRefusal::ValueTooLarge { bytes, limit: params.value_bytes_max })
            }
            Self::InvalidKey(bytes) => Err(KvRefusal::InvalidKey { bytes, limit: params.key_bytes_max }),
        }
    }
}

impl Recorded {
    fn of(what: What) -> Self {
        Self { what, more: Denied::NONE }
    }

    fn answer(self, params: Params) -> Result<KvReply, KvRefusal> {
        match self.what {
            What::Write(written) => written.answer(params).map(|version| KvReply::Written { version }),
            What::Batch(each) => {
                Ok(KvReply::Batch { results: each.into_iter().map(|it| it.answer(params)).collect() })
            }
            What::TooLarge(bytes) => {
                Err(KvRefusal::BatchTooLarge { bytes, limit: batch_result_bytes_max(params) })
            }
        }
    }

    fn encode(&self) -> Bytes {
        codec::encode(self)
    }

    fn decode(bytes: &[u8]) -> Self {
        codec::decode(bytes, bytes.len())
            .unwrap_or_else(|error| unreadable("decode a session's reply", &error))
    }

    /// The record of a batch that was executed.
    #[cfg(test)]
    pub(crate) fn of_batch_for_tests(versions: &[Version]) -> Bytes {
        Self::of(What::Batch(versions.iter().copied().map(Written::Done).collect())).encode()
    }

    /// Whether bytes that another group pushes can be decoded later.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
        let checked: Result<Self, _> = codec::decode(bytes, bytes.len());
        checked.map(drop).map_err(|error| format!("a session's reply: {error}"))
    }
}

impl Machine {
    pub(crate) fn open(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        asked: ConfigNum,
    ) -> Result<KvReply, KvRefusal> {
        let params = self.judge(shard, asked)?;
        let served = self.served(rows, shard);
        let before = served.sessions.len();
        let session = served.sessions.open(rows, params.sessions_max);
        let after = served.sessions.len();
        self.sessions.asked(session.is_some(), before, after);
        session.map(|session| KvReply::Opened(SessionId(session))).ok_or(KvRefusal::Busy)
    }

    pub(crate) fn write(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        key: &[u8],
        write: Write,
        ticket: Option<Ticket>,
        asked: ConfigNum,
    ) -> Result<KvReply, KvRefusal> {
        let params = self.judge(shard, asked)?;
        check_home(key, shard, params)?;
        self.once(rows, shard, params, ticket, |rows, meta| {
            What::Write(change(rows, meta, params, key, write))
        })
    }

    pub(crate) fn batch(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        writes: Vec<(Bytes, Write)>,
        ticket: Option<Ticket>,
        asked: ConfigNum,
    ) -> Result<KvReply, KvRefusal> {
        let params = self.judge(shard, asked)?;
        if writes.is_empty() || writes.len() > BATCH_WRITES_MAX {
            let text = format!("a batch has 1 to {BATCH_WRITES_MAX} writes, not {}", writes.len());
            return Err(KvRefusal::Malformed(text));
        }
        writes.iter().try_for_each(|(key, _)| check_home(key, shard, params))?;
        self.once(rows, shard, params, ticket, |rows, meta| {
            // One write may always be as large as a value.
            let too_large = if writes.len() > 1 { too_large(rows, &writes, params) } else { None };
            if let Some(bytes) = too_large {
                return What::TooLarge(bytes);
            }
            let each = writes.into_iter().map(|(key, write)| change(rows, meta, params, &key, write));
            What::Batch(each.collect())
        })
    }

    /// Makes changes in a shard that is served, at most once for each ticket (rule 26).
    fn once(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        params: Params,
        ticket: Option<Ticket>,
        act: impl FnOnce(&mut dyn Rows, &mut Meta) -> What,
    ) -> Result<KvReply, KvRefusal> {
        let served = self.served(rows, shard);
        if let Some(Ticket { session: SessionId(session), seq: Seq(seq) }) = ticket {
            match served.sessions.check(session, seq) {
                Check::Fresh => {}
                Check::Repeated(reply) => return Recorded::decode(&reply).answer(params),
                Check::Stale => return Err(KvRefusal::StaleSeq),
                Check::Expired => return Err(KvRefusal::SessionExpired),
            }
        }
        let mut meta = served.meta;
        let recorded = Recorded::of(act(rows, &mut meta));
        if meta != served.meta {
            served.meta = meta;
            rows::put_meta(rows, shard, &meta);
        }
        if let Some(Ticket { session: SessionId(session), seq: Seq(seq) }) = ticket {
            served.sessions.record(rows, session, seq, recorded.encode());
        }
        recorded.answer(params)
    }

    pub(crate) fn get(
        &self,
        rows: &dyn Read,
        shard: ShardId,
        key: &[u8],
        asked: ConfigNum,
    ) -> Result<KvReply, KvRefusal> {
        let params = self.judge(shard, asked)?;
        check_home(key, shard, params)?;
        check_key(key, params)?;
        Ok(match rows.get(&rows::value_key(key)) {
            Some(row) => {
                let (version, value) = rows::parse_value(&row);
                KvReply::Value { value: Some(value), version }
            }
            None => KvReply::Value { value: None, version: Version(0) },
        })
    }

    pub(crate) fn scan(
        &self,
        rows: &dyn Read,
        shard: ShardId,
        after: Option<&[u8]>,
        limit: u32,
        asked: ConfigNum,
    ) -> Result<KvReply, KvRefusal> {
        let params = self.judge(shard, asked)?;
        let (mut start, end) = rows::values_range(shard, params.shard_count);
        if let Some(after) = after {
            check_home(after, shard, params)?;
            start = rows::successor(&rows::value_key(after));
        }
        let limit = ScanLimit { rows: limit.clamp(1, PAGE_ROWS_MAX) as usize, bytes: PAGE_BYTES };
        let page = rows.scan(&start, Some(&end), limit);
        let full =
            page.len() >= limit.rows || page.iter().map(copy::row_weight).sum::<usize>() >= limit.bytes;
        let items = page.iter().map(|(row, value)| {
            let (version, value) = rows::parse_value(value);
            Item { key: rows::key_of(row), value, version }
        });
        Ok(KvReply::Page { items: items.collect(), done: !full })
    }
}

/// A key must lie in the shard that the request names: ownership was judged for that one.
fn check_home(key: &[u8], shard: ShardId, params: Params) -> Result<(), KvRefusal> {
    match shard_of(key, params.shard_count) {
        home if home == shard => Ok(()),
        home => Err(KvRefusal::Malformed(format!("the key lies in shard {home}, not in {shard}"))),
    }
}

/// The bytes that a batch writes, if they are more than one may write (correctness rule 105).
/// Counting stops at the write that exceeds the limit, because no more is read of a batch that is
/// refused. An append writes the whole value again, including the effect of earlier writes in the
/// batch. Where a condition decides, the larger outcome counts.
fn too_large(rows: &dyn Rows, writes: &[(Bytes, Write)], params: Params) -> Option<u64> {
    let stored =
        |key: &[u8]| rows.get(&rows::value_key(key)).map_or(0, |row| rows::parse_value(&row).1.len());
    let mut lengths = BTreeMap::<&[u8], usize>::new();
    let mut sum = 0;
    for (key, write) in writes {
        let before = || lengths.get(&key[..]).copied().unwrap_or_else(|| stored(key));
        let written = match write {
            Write::Put { value, expected: None } => value.len(),
            Write::Put { value, expected: Some(_) } => value.len().max(before()),
            Write::Append { piece } => before() + piece.len(),
            Write::Delete => 0,
        };
        lengths.insert(key, written);
        sum += (key.len() + written) as u64;
        if sum > batch_result_bytes_max(params) && !base::mutant!("small-batch-writes-anything") {
            return Some(sum);
        }
    }
    None
}

/// Executes one write. The size limit holds for the *result* (correctness rule 22): appends grow values.
fn change(rows: &mut dyn Rows, meta: &mut Meta, params: Params, key: &[u8], write: Write) -> Written {
    if check_key(key, params).is_err() {
        return Written::InvalidKey(key.len() as u64);
    }
    let row_key = rows::value_key(key);
    let old = rows.get(&row_key).map(|row| rows::parse_value(&row));
    let (version, old_value) = match &old {
        Some((version, value)) => (*version, &value[..]),
        None => (Version(0), &[][..]),
    };
    let parts = match &write {
        Write::Put { value, expected } => {
            let differs = expected.is_some_and(|expected| expected != version);
            if differs && !base::mutant!("condition-ignored") {
                return Written::VersionMismatch(version);
            }
            [&[][..], &value[..]]
        }
        Write::Append { piece } => [old_value, &piece[..]],
        Write::Delete => {
            if old.is_some() {
                meta.floor = meta.floor.max(version);
                base::mutant!("delete-forgets-version", meta.floor = Version(0));
                meta.rows = meta.rows.saturating_sub(1);
                meta.bytes = meta.bytes.saturating_sub((key.len() + old_value.len()) as u64);
                rows.delete(&row_key);
            }
            return Written::Done(version);
        }
    };
    let bytes = (parts[0].len() + parts[1].len()) as u64;
    if bytes > u64::from(params.value_bytes_max) {
        return Written::ValueTooLarge(bytes);
    }
    match old {
        Some(_) => meta.bytes = meta.bytes.saturating_sub(old_value.len() as u64).saturating_add(bytes),
        None => {
            meta.rows = meta.rows.saturating_add(1);
            meta.bytes = meta.bytes.saturating_add(key.len() as u64 + bytes);
        }
    }
    let below = if old.is_some() { version } else { meta.floor };
    let version = Version(below.0.saturating_add(1));
    rows.put(row_key, rows::value_row(version, &parts));
    Written::Done(version)
}
