//! Servers that die, disks that lose stored data, and starts from what is left.

use raft::config::Config;
use raft::core::Raft;
use raft::storage::Restored;
use raft::types::{Membership, NodeId};

use super::files::Files;
use super::{Cluster, Seen, Server, machine};

impl Cluster {
    /// Kills a server: what was not durable is gone.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let server = self.server(id);
        *server = Server {
            disk: std::mem::take(&mut server.disk),
            past: std::mem::take(&mut server.past),
            table: std::mem::take(&mut server.table).after_crash(),
            lives: server.lives,
            ..Server::new()
        };
        self.seen.push(Seen::Crashed(id));
    }

    /// Kills a server; its log loses what its last saves wrote, but for what the mark keeps of them.
    pub(crate) fn damage(&mut self, id: NodeId, saves: usize) {
        self.crash(id);
        let server = self.server(id);
        let Restored { hard_state, promised, .. } = server.disk;
        let promised = promised.max(machine::last(&server.disk));
        let left = server.past.len().saturating_sub(saves);
        if let Some(before) = server.past.drain(left..).next() {
            server.disk = Restored { hard_state, promised, ..before };
        }
    }

    /// Kills a server; it is set back to what its log was before its last saves, without a trace.
    pub(crate) fn set_back(&mut self, id: NodeId, saves: usize) {
        self.crash(id);
        let server = self.server(id);
        let left = server.past.len().saturating_sub(saves);
        if let Some(before) = server.past.drain(left..).next() {
            server.disk = before;
        }
        let kept = machine::last(&server.disk).index;
        server.table.forget_after(kept);
    }

    /// Starts a server from what is durable.
    pub(crate) fn restart(&mut self, id: NodeId) {
        let membership = Membership::of(self.servers.keys().copied());
        let config = self.config.clone();
        let kept_bytes_max = self.kept_bytes_max;
        let server = self.server(id);
        server.lives += 1;
        let applied = server.table.applied();
        machine::start_rule(&mut server.disk, applied, server.table.installed);
        server.files = Files::of(&server.disk.entries);
        // Another seed for each life: a restarted server must not repeat its luck.
        let config = Config { seed: config.seed.wrapping_add(server.lives << 32), ..config };
        server.raft = Some(Raft::new(id, membership, config, server.disk.clone(), applied));
        self.server(id).raft.as_mut().expect("just started").set_room(kept_bytes_max, 0);
        if self.servers[&id].table.bad {
            self.server(id).raft.as_mut().expect("just started").start_with_bad_table();
        }
        self.raft(id).check();
        self.note_role(id);
    }
}
