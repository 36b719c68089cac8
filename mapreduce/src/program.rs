//! What a job runs: an app, or a program that may wait in the middle of a record.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_64;

/// Keys and values.
pub type Pairs = Vec<(String, String)>;
/// Keys and their values, in the order in which maps emitted them.
pub type Groups = BTreeMap<String, Vec<String>>;

/// Pairs of a task, in bytes.
pub const PAIRS_BYTES_MAX: usize = 1 << 30;

/// Why a program did not finish a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It failed: the record, and the reason.
    Failed(String, String),
    /// It ended its process.
    Exit,
}

impl Fault {
    /// It failed: the record, and the reason.
    pub fn of(record: impl Into<String>, text: impl ToString) -> Self {
        Self::Failed(record.into(), text.to_string())
    }
}

/// A map and a reduce. Both must be pure functions of their arguments, so that every attempt
/// yields the same.
pub trait App: Send + Sync {
    /// Emits pairs of key and value for a record: a file with its name, or a row of the store
    /// with its key.
    fn map(&self, name: &str, text: &str, emit: &mut dyn FnMut(String, String));
    /// Makes one value from all values of a key.
    fn reduce(&self, key: &str, values: &[String]) -> String;
}

/// What a program makes from its input.
pub type Made<'a> = BoxFuture<'a, Result<Pairs, Fault>>;

/// What a worker runs.
pub trait Program: Send + Sync {
    /// Maps one record.
    fn map<'a>(&'a self, name: &'a str, text: &'a str) -> Made<'a>;
    /// Reduces all keys of one reducer. It writes each key into `record` first: after a panic,
    /// that tells which key failed.
    fn reduce<'a>(&'a self, groups: &'a Groups, record: &'a mut String) -> Made<'a>;
}

impl<A: App> Program for A {
    fn map<'a>(&'a self, name: &'a str, text: &'a str) -> Made<'a> {
        Box::pin(async move {
            let (mut pairs, mut room) = (Pairs::new(), Some(PAIRS_BYTES_MAX));
            App::map(self, name, text, &mut |key, value| {
                room = room.and_then(|room| room.checked_sub(bytes_of(&key, &value)));
                if room.is_some() {
                    pairs.push((key, value));
                }
            });
            room.map(|_| pairs).ok_or_else(|| too_much(name))
        })
    }

    fn reduce<'a>(&'a self, groups: &'a Groups, record: &'a mut String) -> Made<'a> {
        let one = |(key, values): (&String, &Vec<String>)| {
            record.clone_from(key);
            (key.clone(), App::reduce(self, key, values))
        };
        Box::pin(async { Ok(groups.iter().map(one).collect()) })
    }
}

/// Bytes that a pair takes in memory.
pub(crate) fn bytes_of(key: &str, value: &str) -> usize {
    key.len() + value.len() + 48
}

pub(crate) fn too_much(name: &str) -> Fault {
    Fault::of(name, format!("more than {PAIRS_BYTES_MAX} bytes of pairs: split the input"))
}

/// The number of the reducer that gets a key.
pub(crate) fn part_of(key: &str, reduces: u32) -> u32 {
    (xxh3_64(key.as_bytes()) % u64::from(reduces.max(1))) as u32
}

/// Adds pairs to their groups.
pub(crate) fn group(groups: &mut Groups, pairs: Pairs) {
    pairs.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
}
