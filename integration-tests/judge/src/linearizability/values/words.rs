//! Names for what is wrong.

use super::super::Anomaly;
use super::blocks::Block;
use crate::history::{Op, Operation};

const STALE: &str = "a stale read: it saw an older value although a newer one existed before it began";
const OWN: &str = "a client's own write is missing from what it read afterwards";
const LOST: &str = "a lost write: it was acknowledged, and a later operation still met the value from before";
const MISSING: &str =
    "the key was found missing although it had been written before and nobody deleted it in time";

/// `earlier` comes before `later` in a chain, but began when `later` had returned.
pub(super) fn out_of_order(earlier: &Operation, later: &Operation) -> Anomaly {
    let is_missing = earlier.op != Op::Append && earlier.output.is_none() && earlier.value.is_none();
    let what = match (earlier.op, later.op) {
        _ if is_missing && later.client != earlier.client => MISSING,
        (Op::Get, Op::Get) => STALE,
        (Op::Get, _) if earlier.client == later.client => OWN,
        (Op::Get, _) => STALE,
        (_, Op::Get) => {
            "a read from the future: it saw what an operation wrote that began after the read had ended"
        }
        _ => "reordered pieces: an append comes after another one that began only after it had ended",
    };
    Anomaly::new(what, &[later, earlier])
}

/// Each of two blocks would have to come before the other.
pub(super) fn conflict(one: &Block<'_>, other: &Block<'_>) -> Anomaly {
    // The culprit is what began last, although the other block had something that was over by then.
    let (stale, between) = if one.last.at >= other.last.at { (one, other) } else { (other, one) };
    let involved: Vec<&Operation> =
        [stale.first.by, between.first.by, stale.last.by].into_iter().flatten().collect();
    let what = match (stale.last.by, between.first.by) {
        (Some(read), Some(write))
            if read.op == Op::Get && write.op != Op::Get && read.client == write.client =>
        {
            OWN
        }
        (Some(read), _) if read.output.is_none() && read.value.is_none() => MISSING,
        (Some(read), _) if read.op == Op::Get && between.seen => STALE,
        _ => LOST,
    };
    Anomaly::new(what, &involved)
}

/// The key was missing while `block` was there.
pub(super) fn within(block: &Block<'_>, operation: &Operation) -> Anomaly {
    let mut involved: Vec<&Operation> = block.first.by.into_iter().collect();
    involved.push(operation);
    involved.extend(block.last.by);
    let what = match operation.op {
        Op::Delete => "a stale read or a lost delete: a value was there after it had been deleted",
        _ => "the key was found missing although its value was there before and afterwards",
    };
    Anomaly::new(what, &involved)
}

/// No delete fits between `block` and `operation`, which met no value.
pub(super) fn not_deleted(block: &Block<'_>, operation: &Operation) -> Anomaly {
    let what = if operation.op == Op::Append { LOST } else { MISSING };
    let involved: Vec<&Operation> = block.first.by.into_iter().chain([operation]).collect();
    Anomaly::new(what, &involved)
}
