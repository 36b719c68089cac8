//! The sessions of a clerk: a pool for each shard, one write in flight in each.
//!
//! A write takes a session out of the pool and returns it when it ends, whatever its outcome. A
//! write whose outcome is unknown may still arrive later: before the session's next number it is
//! executed, after it refused as stale. Either is what "unknown" means, so the session stays
//! usable.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::api::{Seq, SessionId, ShardId, Ticket};

#[derive(Clone, Copy, Debug)]
struct Session {
    id: SessionId,
    last: u64,
}

#[derive(Default)]
pub(super) struct Sessions {
    idle: Mutex<BTreeMap<ShardId, Vec<Session>>>,
}

impl Sessions {
    /// An idle session of `shard`, the one used last.
    pub(super) fn lease(&self, shard: ShardId) -> Option<Lease<'_>> {
        let session = self.with_idle(|idle| idle.get_mut(&shard)?.pop())?;
        Some(Lease { sessions: self, shard, session: Some(session) })
    }

    /// A session that was just opened.
    pub(super) fn opened(&self, shard: ShardId, id: SessionId) -> Lease<'_> {
        Lease { sessions: self, shard, session: Some(Session { id, last: 0 }) }
    }

    fn with_idle<T>(&self, act: impl FnOnce(&mut BTreeMap<ShardId, Vec<Session>>) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A session while a write uses it. Dropped, it is idle again.
pub(super) struct Lease<'a> {
    sessions: &'a Sessions,
    shard: ShardId,
    session: Option<Session>,
}

impl Lease<'_> {
    /// The ticket of the next write. Call it once.
    pub(super) fn next_ticket(&mut self) -> Ticket {
        let session = self.session.as_mut().expect("a lease that was forgotten is not used");
        session.last += 1;
        Ticket { session: session.id, seq: Seq(session.last) }
    }

    /// The session is gone.
    pub(super) fn forget(mut self) {
        self.session = None;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.sessions.with_idle(|idle| idle.entry(self.shard).or_default().push(session));
        }
    }
}
