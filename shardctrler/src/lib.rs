//! The Raft-replicated shard controller: numbered configurations.
