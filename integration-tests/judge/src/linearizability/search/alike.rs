//! Operations of unknown outcome that nobody saw, and that may be left out.
//!
//! Many of them are alike: deletes; writes whose value nobody saw; conditional puts of such values
//! that expect the same version. They have no end, so the first one that was called can explain
//! whatever any of them can explain. For each class a situation only has to count how many it has
//! taken.

use std::collections::BTreeMap;

use super::model::{State, UNSEEN};
use crate::history::{Op, Operation};

/// The number taken of each class, by class.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taken(Vec<(u32, u32)>);

impl Taken {
    fn of(&self, class: u32) -> u32 {
        self.0.binary_search_by_key(&class, |(class, _)| *class).map_or(0, |at| self.0[at].1)
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Whether no class was taken more often than in `other`.
    pub(super) fn is_thrifty(&self, other: &Self) -> bool {
        self.0.iter().all(|(class, count)| *count <= other.of(*class))
    }
}

pub(super) struct Alike {
    /// The members of each class, by call.
    classes: Vec<Vec<usize>>,
    /// The version that each class's conditional puts expect.
    expected: Vec<Option<u64>>,
    /// Classes without an expected version.
    free: Vec<u32>,
    /// The others.
    pinned: BTreeMap<u64, Vec<u32>>,
}

impl Alike {
    /// Sorts `optional`, which is ordered by call. `text` tells values apart as far as anybody can.
    pub(super) fn new(operations: &[&Operation], optional: &[usize], text: impl Fn(usize) -> u32) -> Self {
        let mut alike =
            Self { classes: Vec::new(), expected: Vec::new(), free: Vec::new(), pinned: BTreeMap::new() };
        let mut numbers: BTreeMap<(Kind, Option<u64>, u32), usize> = BTreeMap::new();
        for at in optional.iter().copied() {
            let one = operations[at];
            let expected = (one.op == Op::Cas).then(|| one.expected_version.unwrap_or_default());
            let kind = match one.op {
                Op::Delete => (Kind::Delete, None, 0),
                Op::Append if text(at) != UNSEEN => (Kind::Append, None, text(at)),
                _ => (Kind::Set, expected, text(at)),
            };
            let class = *numbers.entry(kind).or_insert_with(|| {
                let class = alike.classes.len() as u32;
                match expected {
                    Some(version) => alike.pinned.entry(version).or_default().push(class),
                    None => alike.free.push(class),
                }
                alike.classes.push(Vec::new());
                alike.expected.push(expected);
                alike.classes.len() - 1
            });
            alike.classes[class].push(at);
        }
        alike
    }

    /// The next operation of each class that may fit a state.
    pub(super) fn next(&self, taken: &Taken, state: State) -> Vec<(u32, usize)> {
        let range = state.versions();
        let pinned = self.pinned.range(range).chain(self.pinned.get_key_value(&0)).flat_map(|(_, list)| list);
        let classes = self.free.iter().chain(pinned).copied();
        let next = |class: u32| {
            let member = self.classes[class as usize].get(taken.of(class) as usize)?;
            Some((class, *member))
        };
        classes.filter_map(next).collect()
    }

    /// Counts one operation of a class as taken, and forgets those that no longer fit in `state`.
    pub(super) fn take(&self, taken: &mut Taken, class: u32, state: State) {
        match taken.0.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(at) => taken.0[at].1 += 1,
            Err(at) => taken.0.insert(at, (class, 1)),
        }
        let least = *state.versions().start();
        taken.0.retain(|(class, _)| {
            self.expected[*class as usize].is_none_or(|version| version == 0 || version >= least)
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Delete,
    Append,
    Set,
}
