//! Histories to test judges with: what clients of a correct store see, and ways to spoil that.
//!
//! The store has one key and does each operation in one instant between its call and its return, so
//! the order of the instants explains the history. Everything is drawn from a seed.
//!
//! Left out on purpose: histories of more than one key, since keys are independent.

use std::collections::BTreeMap;

use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{RngExt, SeedableRng};

use crate::history::{Client, Op, Operation, Outcome};

/// The shape of a history.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Clients at a time.
    pub clients: usize,
    /// Number of operations.
    pub operations: usize,
    /// Shares of get, put, append, delete, cas.
    pub shares: [u32; 5],
    /// Percentage of operations without a known outcome.
    pub unknown_percent: u32,
    /// Whether replies carry versions.
    pub versions: bool,
}

/// Makes a history that is linearizable.
pub fn history(seed: u64, shape: &Shape) -> Vec<Operation> {
    let mut store = Store {
        random: Generator::seed_from_u64(seed),
        shape,
        value: None,
        version: 0,
        instants: BTreeMap::new(),
        operations: Vec::new(),
        clients: 0,
    };
    for _ in 0..shape.clients {
        let client = store.new_client();
        store.start(client, 0);
    }
    while let Some(((instant, _), pending)) = store.instants.pop_first() {
        store.effect(instant, pending);
    }
    store.operations
}

/// An operation that will take effect.
#[derive(Clone, Copy)]
struct Pending {
    at: usize,
    /// When the reply reaches the client, which then continues; none: never.
    returns: Option<u64>,
}

struct Store<'a> {
    random: Generator,
    shape: &'a Shape,
    value: Option<String>,
    version: u64,
    instants: BTreeMap<(u64, usize), Pending>,
    operations: Vec<Operation>,
    clients: u64,
}

impl Store<'_> {
    fn new_client(&mut self) -> u64 {
        self.clients += 1;
        self.clients
    }

    fn present(&self) -> u64 {
        if self.value.is_some() { self.version } else { 0 }
    }

    /// `client` starts an operation shortly after `now`.
    fn start(&mut self, client: u64, now: u64) {
        let at = self.operations.len();
        if at == self.shape.operations {
            return;
        }
        let op = self.pick();
        let call_ns = now + self.random.random_range(1..40);
        let expected_version = (op == Op::Cas).then(|| match self.random.random_range(0..10) {
            0..7 => self.present(),
            _ => self.random.random_range(0..self.version + 2),
        });
        self.operations.push(Operation {
            client: Client::Number(client),
            op,
            key: "k".into(),
            value: matches!(op, Op::Put | Op::Append | Op::Cas).then(|| format!("<{at}>")),
            expected_version,
            output: None,
            version: None,
            call_ns,
            return_ns: None,
            outcome: Outcome::Unknown,
        });
        let instant = call_ns + self.random.random_range(0..60);
        if self.random.random_range(0..100) < self.shape.unknown_percent {
            if self.random.random_bool(0.5) {
                let late = self.random.random_range(0..200);
                self.instants.insert((instant + late, at), Pending { at, returns: None });
            }
            let client = self.new_client();
            self.start(client, instant);
        } else if self.random.random_range(0..100) < 3 {
            self.operations[at].outcome = Outcome::Fail;
            self.operations[at].return_ns = Some(instant);
            self.start(client, instant);
        } else {
            let returns = Some(instant + self.random.random_range(0..60));
            self.instants.insert((instant, at), Pending { at, returns });
        }
    }

    fn pick(&mut self) -> Op {
        const OPS: [Op; 5] = [Op::Get, Op::Put, Op::Append, Op::Delete, Op::Cas];
        let mut draw = self.random.random_range(0..self.shape.shares.iter().sum());
        for (op, share) in OPS.into_iter().zip(self.shape.shares) {
            if draw < share {
                return op;
            }
            draw -= share;
        }
        Op::Get
    }

    fn effect(&mut self, _instant: u64, Pending { at, returns }: Pending) {
        let operation = self.operations[at].clone();
        let present = self.present();
        let (mut output, mut version, mut outcome) = (None, present, Outcome::Ok);
        match operation.op {
            Op::Get => output = self.value.clone(),
            Op::Delete => self.value = None,
            Op::Cas if operation.expected_version != Some(present) => outcome = Outcome::Fail,
            Op::Put | Op::Append | Op::Cas => {
                // Deletes of other keys may have raised the version at which a missing key starts.
                let step = if self.value.is_none() { self.random.random_range(1..3) } else { 1 };
                self.version += step;
                version = self.version;
                let before = self.value.take().filter(|_| operation.op == Op::Append).unwrap_or_default();
                self.value = Some(before + operation.value.as_deref().unwrap_or_default());
            }
        }
        let Some(end) = returns else { return };
        let record = &mut self.operations[at];
        record.output = output;
        record.version = self.shape.versions.then_some(version);
        record.outcome = outcome;
        record.return_ns = Some(end);
        if let Client::Number(client) = record.client {
            self.start(client, end);
        }
    }
}

/// A way to spoil a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spoil {
    /// A read answers with the value of an earlier read.
    StaleRead,
    /// Reads lack a written value or piece.
    LostWrite,
    /// Reads contain a piece twice.
    DoubledPiece,
    /// Reads contain two pieces in the wrong order.
    ReorderedPieces,
    /// Two operations of a kind have swapped replies.
    SwappedReplies,
    /// An operation happened at another time.
    Moved,
}

pub const SPOILS: [Spoil; 6] = [
    Spoil::StaleRead,
    Spoil::LostWrite,
    Spoil::DoubledPiece,
    Spoil::ReorderedPieces,
    Spoil::SwappedReplies,
    Spoil::Moved,
];

/// Spoils a history; false: that did not work. The result may still be linearizable.
pub fn spoil(operations: &mut [Operation], how: Spoil, random: &mut Generator) -> bool {
    let known = |one: &Operation| one.outcome == Outcome::Ok;
    let answered: Vec<usize> = (0..operations.len()).filter(|at| known(&operations[*at])).collect();
    let gets: Vec<usize> = answered.iter().copied().filter(|at| operations[*at].op == Op::Get).collect();
    match how {
        Spoil::StaleRead => {
            let Some((one, other)) = two(&gets, random) else { return false };
            let (early, late) =
                if operations[one].call_ns < operations[other].call_ns { (one, other) } else { (other, one) };
            let is_new = operations[late].output != operations[early].output;
            operations[late].output = operations[early].output.clone();
            operations[late].version = operations[early].version;
            is_new
        }
        Spoil::LostWrite | Spoil::DoubledPiece | Spoil::ReorderedPieces => {
            respell(operations, &gets, how, random)
        }
        Spoil::SwappedReplies => {
            let Some((one, other)) = two(&answered, random) else { return false };
            let is_pair = operations[one].op == operations[other].op;
            let differ = |a: &Operation, b: &Operation| (&a.output, a.version) != (&b.output, b.version);
            if !is_pair || !differ(&operations[one], &operations[other]) {
                return false;
            }
            let (first, second) = (operations[one].clone(), operations[other].clone());
            (operations[one].output, operations[one].version) = (second.output, second.version);
            (operations[other].output, operations[other].version) = (first.output, first.version);
            true
        }
        Spoil::Moved => {
            let Some(at) = one_of(&answered, random) else { return false };
            let span = operations.iter().filter_map(|one| one.return_ns).max().unwrap_or(1);
            let call = random.random_range(0..=span);
            operations[at].client = Client::Name(format!("moved {at}"));
            operations[at].call_ns = call;
            operations[at].return_ns = Some(call + random.random_range(0..30));
            true
        }
    }
}

/// Replaces a value in one read, or in all reads from some instant on.
fn respell(operations: &mut [Operation], gets: &[usize], how: Spoil, random: &mut Generator) -> bool {
    let Some(get) = one_of(gets, random) else { return false };
    let pieces = pieces(&operations[get]);
    let Some(at) = (!pieces.is_empty()).then(|| random.random_range(0..pieces.len())) else { return false };
    let next = pieces.get(at + 1).cloned().unwrap_or_default();
    let (from, to) = match how {
        Spoil::LostWrite => (pieces[at].clone(), String::new()),
        Spoil::DoubledPiece => (pieces[at].clone(), pieces[at].repeat(2)),
        _ if next.is_empty() => return false,
        _ => (format!("{}{next}", pieces[at]), format!("{next}{}", pieces[at])),
    };
    let everywhere = random.random_bool(0.5);
    let since = operations[get].call_ns;
    let renumber = random.random_bool(0.5);
    for place in gets.iter().copied().filter(|place| *place == get || everywhere) {
        let operation = &mut operations[place];
        let Some(before) = operation.output.clone().filter(|_| operation.call_ns >= since) else { continue };
        let after = before.replace(&from, &to);
        if renumber && how == Spoil::LostWrite && after != before {
            operation.version = operation.version.map(|number| number.saturating_sub(1));
        }
        if renumber && how == Spoil::DoubledPiece && after != before {
            operation.version = operation.version.map(|number| number + 1);
        }
        if after.is_empty() {
            operation.version = operation.version.map(|_| 0);
        }
        operation.output = (!after.is_empty()).then_some(after);
    }
    true
}

fn pieces(operation: &Operation) -> Vec<String> {
    let value = operation.output.as_deref().unwrap_or_default();
    value.split_inclusive('>').map(str::to_owned).collect()
}

fn one_of(list: &[usize], random: &mut Generator) -> Option<usize> {
    (!list.is_empty()).then(|| list[random.random_range(0..list.len())])
}

fn two(list: &[usize], random: &mut Generator) -> Option<(usize, usize)> {
    let (one, other) = (one_of(list, random)?, one_of(list, random)?);
    (one != other).then_some((one, other))
}
