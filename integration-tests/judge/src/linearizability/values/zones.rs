//! Blocks and real time.
//!
//! A block is a chain of writes with the reads of their values; nothing else may be inside it. The
//! order within a block is known, and one sweep checks it against real time. Between blocks only
//! two instants count: `first`, the earliest end of any operation in the block, and `last`, the
//! latest call. Block A must come before block B if `A.first < B.last`: something in A was over
//! before something in B began. So two blocks cannot be ordered if that holds in both directions.
//! If it holds for no two blocks, there is an order (a longer cycle always contains such a pair:
//! take its smallest `first`).
//!
//! With `first < last` the block must span that time (a *forward* zone). Otherwise all of it fits
//! into any one instant between `last` and `first` (a *backward* zone). Two forward zones must not
//! overlap, and no backward zone may be inside a forward one. Sorted, that takes a look at each
//! block's neighbour.
//!
//! Without deletes the key is missing exactly until its first write: operations that found the key
//! missing, and a chain that began with a missing key, form a block whose `first` is before all
//! time. With deletes that block is dissolved. Then operations that found the key missing must not
//! be inside a forward zone, and some delete must fit between such an operation and the value
//! before it.

use super::super::Anomaly;
use super::blocks::{Block, Bound};
use super::words;
use super::{Facts, writes};
use crate::history::{Op, Operation, Outcome};

fn end(operation: &Operation) -> i128 {
    i128::from(operation.end_ns())
}

fn call(operation: &Operation) -> i128 {
    i128::from(operation.call_ns)
}

/// Whether it took effect or may have, as far as values go: a write that nobody saw and nobody
/// answered need not count.
fn counts(facts: &Facts, at: usize, operation: &Operation) -> bool {
    writes(operation) && (operation.outcome == Outcome::Ok || facts.seen[at])
}

/// Whether this operation says that the key was missing.
fn found_missing(operation: &Operation) -> bool {
    match (operation.op, operation.outcome) {
        (Op::Get, Outcome::Ok) => operation.output.is_none(),
        (Op::Delete, Outcome::Ok) => operation.version == Some(0),
        (Op::Cas, Outcome::Fail) => operation.version == Some(0),
        _ => false,
    }
}

/// Whether this write begins a chain on a missing key.
fn needs_missing(facts: &Facts, at: usize, operation: &Operation) -> bool {
    match operation.op {
        Op::Append => facts.seen[at] && facts.parent[at].is_none(),
        Op::Cas => operation.expected_version.unwrap_or_default() == 0,
        _ => false,
    }
}

/// Checks real time.
pub(super) fn check(operations: &[&Operation], facts: &Facts) -> Result<(), Anomaly> {
    let deletes: Vec<&Operation> = operations
        .iter()
        .copied()
        .filter(|one| one.op == Op::Delete && one.outcome != Outcome::Fail)
        .collect();
    let missing: Vec<&Operation> = operations.iter().copied().filter(|one| found_missing(one)).collect();
    let mut roots = Vec::new();
    let mut starts = Vec::new();
    for (at, operation) in operations.iter().enumerate().filter(|(at, one)| counts(facts, *at, one)) {
        if deletes.is_empty() && needs_missing(facts, at, operation) {
            starts.push(at);
        } else if operation.op != Op::Append || facts.parent[at].is_none() {
            roots.push(at);
        }
    }
    if let [one, other, ..] = starts[..] {
        let what = "a lost write: two found the key missing, and nobody deleted it";
        return Err(Anomaly::new(what, &[operations[one], operations[other]]));
    }
    let builder = Builder { operations, facts };
    let mut blocks = Vec::new();
    for root in roots {
        blocks.push(builder.block(Some(root), &[])?);
    }
    if deletes.is_empty() && !(missing.is_empty() && starts.is_empty()) {
        let mut block = builder.block(starts.first().copied(), &missing)?;
        block.first = Bound { at: -1, by: None };
        blocks.push(block);
    }
    let forward = order(&blocks)?;
    if deletes.is_empty() {
        return Ok(());
    }
    check_missing(&builder, &blocks, &forward, &missing, &deletes)
}

struct Builder<'a> {
    operations: &'a [&'a Operation],
    facts: &'a Facts,
}

impl<'a> Builder<'a> {
    /// Builds a block and checks its inner order against real time.
    fn block(&self, root: Option<usize>, missing: &[&'a Operation]) -> Result<Block<'a>, Anomaly> {
        let mut block = Block {
            root,
            first: Bound { at: i128::MAX, by: None },
            last: Bound { at: i128::MIN, by: None },
            seen: root.is_some_and(|root| self.facts.seen[root]),
        };
        extend(&mut block, missing)?;
        for (write, readers) in root.into_iter().flat_map(|root| self.facts.chain(root)) {
            extend(&mut block, &[self.operations[write]])?;
            let readers: Vec<_> = readers.iter().map(|get| self.operations[*get]).collect();
            extend(&mut block, &readers)?;
        }
        Ok(block)
    }
}

/// Appends operations, in any order among themselves, to the block.
fn extend<'a>(block: &mut Block<'a>, group: &[&'a Operation]) -> Result<(), Anomaly> {
    for operation in group {
        if let Some(earlier) = block.last.by.filter(|_| end(operation) < block.last.at) {
            return Err(words::out_of_order(earlier, operation));
        }
    }
    for operation in group {
        if end(operation) < block.first.at || block.first.by.is_none() {
            block.first = Bound { at: end(operation), by: Some(operation) };
        }
        if call(operation) > block.last.at {
            block.last = Bound { at: call(operation), by: Some(operation) };
        }
    }
    Ok(())
}

/// The forward zone that was the last to begin before `instant`.
fn around(blocks: &[Block<'_>], forward: &[usize], instant: i128) -> Option<usize> {
    forward.partition_point(|zone| blocks[*zone].first.at < instant).checked_sub(1).map(|at| forward[at])
}

/// Compares the blocks with each other; the forward zones in their order.
fn order(blocks: &[Block<'_>]) -> Result<Vec<usize>, Anomaly> {
    let mut forward: Vec<usize> = (0..blocks.len()).filter(|at| blocks[*at].is_forward()).collect();
    forward.sort_by_key(|at| blocks[*at].first.at);
    for pair in forward.windows(2) {
        let (one, other) = (&blocks[pair[0]], &blocks[pair[1]]);
        if other.first.at < one.last.at {
            return Err(words::conflict(one, other));
        }
    }
    for block in blocks.iter().filter(|block| !block.is_forward()) {
        if let Some(zone) = around(blocks, &forward, block.last.at)
            && block.first.at < blocks[zone].last.at
        {
            return Err(words::conflict(&blocks[zone], block));
        }
    }
    Ok(forward)
}

/// Operations that found the key missing, if there are deletes.
fn check_missing(
    builder: &Builder<'_>,
    blocks: &[Block<'_>],
    forward: &[usize],
    missing: &[&Operation],
    deletes: &[&Operation],
) -> Result<(), Anomaly> {
    let acknowledged = deletes.iter().filter(|delete| delete.outcome == Outcome::Ok);
    for operation in missing.iter().chain(acknowledged) {
        if let Some(zone) = around(blocks, forward, call(operation))
            && end(operation) < blocks[zone].last.at
        {
            return Err(words::within(&blocks[zone], operation));
        }
    }
    let suppliers = Suppliers::new(blocks, deletes);
    for operation in missing {
        if let Some(block) = suppliers.lacking(None, call(operation), end(operation)) {
            return Err(words::not_deleted(&blocks[block], operation));
        }
    }
    for (at, block) in blocks.iter().enumerate() {
        let Some(root) =
            block.root.filter(|root| needs_missing(builder.facts, *root, builder.operations[*root]))
        else {
            continue;
        };
        if let Some(other) = suppliers.lacking(Some(at), block.last.at, block.first.at) {
            return Err(words::not_deleted(&blocks[other], builder.operations[root]));
        }
    }
    Ok(())
}

/// A block with its `last`.
type Last = (i128, usize);

/// The places where deletes fit.
struct Suppliers {
    /// By call: the latest end of the deletes called until then.
    deletes: Vec<(i128, i128)>,
    /// By `first`: of the blocks that certainly begin before, the two whose `last` is latest, with
    /// it.
    blocks: Vec<(i128, [Option<Last>; 2])>,
}

impl Suppliers {
    fn new(blocks: &[Block<'_>], deletes: &[&Operation]) -> Self {
        let mut deletes: Vec<(i128, i128)> = deletes.iter().map(|one| (call(one), end(one))).collect();
        deletes.sort_unstable();
        let mut latest = i128::MIN;
        for (_, end) in &mut deletes {
            latest = latest.max(*end);
            *end = latest;
        }
        let mut sorted: Vec<usize> = (0..blocks.len()).collect();
        sorted.sort_by_key(|at| blocks[*at].first.at);
        let mut top: [Option<Last>; 2] = [None, None];
        let rows = sorted.into_iter().map(|at| {
            let mut three = [top[0], top[1], Some((blocks[at].last.at, at))];
            three.sort_by(|a, b| b.cmp(a));
            top = [three[0], three[1]];
            (blocks[at].first.at, top)
        });
        Self { deletes, blocks: rows.collect() }
    }

    /// An operation called at `call` and over at `end` needs a delete between itself and every
    /// block before it. Returns the block (not `own`) for which there is none.
    fn lacking(&self, own: Option<usize>, call: i128, end: i128) -> Option<usize> {
        let before = self.blocks.partition_point(|(first, _)| *first < call).checked_sub(1)?;
        let (last, block) = self.blocks[before].1.into_iter().flatten().find(|(_, at)| Some(*at) != own)?;
        let called = self.deletes.partition_point(|(called, _)| *called <= end).checked_sub(1);
        called.is_none_or(|at| self.deletes[at].1 < last).then_some(block)
    }
}
