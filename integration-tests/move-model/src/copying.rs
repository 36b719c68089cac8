//! Rows that are sent while they change: two of the product's state machines, and what the product
//! sends between them, in every state that they can reach.
//!
//! Group A serves a shard, which is to go to group B; it may be taken back and sent again. Clients
//! write at any time. A may forget what was changed: the oldest of it, or all when it starts again.
//! What A sends next it reads from its table as it is, or as it was before its last entry, and from
//! its memory as it is: the memory is ahead of the table. It may follow any answer that B ever gave,
//! as a deposed leader would. Everything that was ever sent may arrive at any later time, any number
//! of times, or never. A Seal may be late, too.
//!
//! In every state: not both groups serve; who serves has exactly the rows that acknowledged writes
//! made; no copy turns out wrong at its end (correctness rule 38). From every state, without writes,
//! a mover that begins now brings the shard to its place.
//!
//! Left out on purpose: more groups, and the way back from B; the search of `sending` has them,
//! with rows that are frozen.

mod space;
mod steps;

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

use space::Search;

use super::values::Table;

/// A fault that is planted around the product's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The memory does not hold the newest change.
    ChangeNotNoted,
    /// The memory says that it knows what it forgot.
    SinceForgotten,
    /// Rows are read from a table that is older than the position that is said to be in them.
    OlderTable,
    /// A Seal counts although the shard was changed after it was made.
    SealIgnoresLastChange,
    /// A Seal does not name what is missing.
    SealWithoutKeys,
    /// Rows are put over those of a copy wherever it is.
    InstallIgnoresTheCursor,
    /// The last rows are taken wherever the copy is.
    ActivateIgnoresTheCursor,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ChangeNotNoted,
        Self::SinceForgotten,
        Self::OlderTable,
        Self::SealIgnoresLastChange,
        Self::SealWithoutKeys,
        Self::InstallIgnoresTheCursor,
        Self::ActivateIgnoresTheCursor,
    ];
}

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Keys of clients.
    pub keys: usize,
    /// Keys that are written before the shard is to leave.
    pub before: usize,
    /// Writes while it is to leave.
    pub writes: usize,
    /// Whether clients delete, too.
    pub deletes: bool,
    /// Configurations: the shard is B's, A's, B's, ...
    pub moves: usize,
    /// A planted fault.
    pub fault: Option<Fault>,
}

/// What a search saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// States.
    pub states: usize,
    /// Messages.
    pub messages: usize,
    /// Seals that named changes and took effect.
    pub sealed: usize,
    /// Copies that started over.
    pub started_over: usize,
}

/// Searches all states, up to `limit` of them.
///
/// # Errors
/// The first that is wrong, and the way to it.
pub fn search(scope: Scope, limit: usize) -> Result<Found, String> {
    let mut search = Search::new(scope);
    let first = search.start();
    let first = search.close(first);
    let mut ids = Table::default();
    ids.insert(first, 0_usize);
    let mut all = vec![(first, 0_usize, String::new())];
    let mut judged = BTreeSet::new();
    let mut at = 0;
    while at < all.len() && at < limit {
        let world = all[at].0;
        let mut wrong = search.wrong(world);
        if wrong.is_none() && scope.fault.is_none() && judged.insert((world.a, world.b, world.since)) {
            wrong = search.stuck(world);
        }
        if let Some(wrong) = wrong {
            let mut way = vec![wrong];
            let mut back = at;
            while back > 0 {
                way.push(all[back].2.clone());
                back = all[back].1;
            }
            return Err(way.join("\n  "));
        }
        for (told, after) in search.steps(world) {
            let after = search.close(after);
            if let Entry::Vacant(new) = ids.entry(after) {
                new.insert(all.len());
                all.push((after, at, told));
            }
        }
        at += 1;
    }
    Ok(Found { states: at, messages: search.messages.all.len(), ..search.found })
}
