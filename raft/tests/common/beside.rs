//! What runs beside a core: the applier, the flusher and the streamer, a step at a time.

use raft::core::message::Chunk;
use raft::core::ready::{Apply, RunOrder};
use raft::storage::{Read, Run, ScanLimit};
use raft::types::{EntryId, Index, Membership, NodeId};

use super::machine::Rows;
use super::{Cluster, Seen};

/// What the applier, the flusher and the streamer tell a core.
#[derive(Debug)]
pub(super) enum Event {
    AppliedBytes(usize),
    AnsweredRead,
    Staged(EntryId),
    Installed(EntryId),
    NotInstalled(EntryId),
    Chunk(NodeId, Chunk),
    Entries(RunOrder, Option<Run>),
    Durable(Index),
}

impl Cluster {
    /// Everything beside the core has its turn; whether there was anything to do.
    pub(super) fn work_beside(&mut self, id: NodeId) -> bool {
        let mut worked = false;
        while self.apply_one(id) || self.read_one_chunk(id) || self.read_one_run(id) {
            worked = true;
        }
        self.tell_events(id) || worked
    }

    /// The applier takes its next item.
    pub(crate) fn apply_one(&mut self, id: NodeId) -> bool {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        let Some(item) = server.queue.pop_front() else { return false };
        match item {
            Apply::Entry(entry) => {
                assert!(!server.table.bad, "nothing is applied to a bad table");
                server.events.push_back(Event::AppliedBytes(entry.weight()));
                if server.table.apply(&entry) {
                    self.seen.push(Seen::Applied(id, entry));
                }
            }
            Apply::Read(read, index) => {
                server.events.push_back(Event::AnsweredRead);
                self.seen.push(Seen::Confirmed(id, read, index));
            }
            Apply::ReadAborted(read) => self.seen.push(Seen::Aborted(id, read)),
            Apply::NewerTerm(_) => {}
            Apply::DropStaged => {
                server.table.staged.clear();
                self.seen.push(Seen::DroppedStaged(id));
            }
            Apply::TableBad => server.table.bad = true,
            Apply::Chunk(chunk) => {
                let snapshot = chunk.snapshot;
                self.seen.push(Seen::Staged(id, chunk.clone()));
                server.table.stage(&chunk);
                let event = if !chunk.done {
                    Event::Staged(snapshot)
                } else if snapshot.index.0 + u64::from(server.table.bad) <= server.table.applied().index.0 {
                    Event::NotInstalled(snapshot)
                } else {
                    server.table.switch(snapshot);
                    self.seen.push(Seen::Installed(id, snapshot));
                    Event::Installed(snapshot)
                };
                server.events.push_back(event);
            }
        }
        true
    }

    /// The streamer reads the next chunk that was ordered, or a part of what lies before it.
    pub(crate) fn read_one_chunk(&mut self, id: NodeId) -> bool {
        let limit = ScanLimit { rows: self.chunk_rows, bytes: usize::MAX };
        let membership = Membership::of(self.servers.keys().copied());
        let server = self.server(id);
        let Some(order) = server.orders.pop_front() else { return false };
        let rows = Rows(server.table.rows.clone());
        let fresh = || Box::new(rows.clone()) as Box<dyn Read>;
        match server.views.read(&order, &membership, limit, fresh, &rows) {
            Some(chunk) => server.events.push_back(Event::Chunk(order.to, chunk)),
            None => {
                server.orders.push_back(order);
                self.resumed += 1;
            }
        }
        true
    }

    /// The streamer reads the next entries that were ordered.
    pub(crate) fn read_one_run(&mut self, id: NodeId) -> bool {
        let server = self.server(id);
        let Some(order) = server.reads.pop_front() else { return false };
        let run = server.files.read(order.prev, order.upto, order.bytes);
        server.events.push_back(Event::Entries(order, run));
        true
    }

    /// A view of a long stream is given up; the stream starts over.
    pub(crate) fn drop_views(&mut self, id: NodeId) {
        self.server(id).views.close();
    }

    /// The core hears what happened beside it, without carrying out effects.
    pub(crate) fn tell_events(&mut self, id: NodeId) -> bool {
        let events = std::mem::take(&mut self.server(id).events);
        let any = !events.is_empty();
        for event in events {
            self.input_only(id, |raft| match event {
                Event::AppliedBytes(bytes) => raft.applied_bytes(bytes),
                Event::AnsweredRead => raft.answered_reads(1),
                Event::Staged(snapshot) => raft.staged(snapshot),
                Event::Installed(snapshot) => raft.installed(snapshot).expect("safety holds"),
                Event::NotInstalled(snapshot) => raft.not_installed(snapshot),
                Event::Chunk(to, chunk) => raft.chunk_read(to, chunk),
                Event::Entries(order, run) => raft.entries_read(&order, run),
                Event::Durable(index) => {
                    raft.compact(index);
                }
            });
        }
        any
    }

    /// Tells the core the hash of the table as it is.
    pub(crate) fn tell_hash(&mut self, id: NodeId) {
        let table = &self.servers[&id].table;
        let (index, hash) = (table.applied().index, table.hash());
        self.input(id, |raft| raft.hashed(index, hash));
    }

    /// Flushes the table and tells the core so, which may compact.
    pub(crate) fn compact(&mut self, id: NodeId) {
        let server = self.server(id);
        server.table.flush();
        let durable = server.table.durable_applied().index;
        server.events.push_back(Event::Durable(durable));
        if self.instant {
            self.tell_events(id);
            self.effects(id, None);
        }
    }

    /// The newest of what a server's core is to be told comes first: flusher, streamer and applier wait for nobody.
    pub(crate) fn overtake(&mut self, id: NodeId) {
        let events = &mut self.server(id).events;
        if matches!(events.back(), Some(Event::Durable(_))) {
            events.rotate_right(1);
        }
    }
}
