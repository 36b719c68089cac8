//! Replica groups that serve shards of a linearizable key/value store and move them between each other.
