//! Which server to try next: pure, the calls are made elsewhere.
//!
//! A round tries every server once, beginning with the leader that is remembered. A hint goes before
//! the order of the round, unless it points at a server that failed in the same round: followers name
//! a dead leader until they have elected another.

use std::collections::BTreeMap;
use std::time::Duration;

use base::backoff::BackOff;
use rand::RngExt;
use rand::rngs::StdRng;

use super::AskError;
use crate::api::Address;
use crate::connection::CallError;

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// A number below `bound`; 0 for none.
pub(super) fn draw(random: &mut StdRng, bound: usize) -> usize {
    if bound == 0 { 0 } else { random.random_range(0..bound) }
}

/// The result of the last attempt.
pub(crate) enum Step {
    /// Another server leads, perhaps the one named.
    Hinted(Option<Address>),
    /// The same server may do it a little later.
    Again(String),
    /// The leader could not finish it, and it may have been done.
    Unfinished,
    /// The same server may do it later, if it leads: another one would only send it back.
    Busy(String),
    /// The server did not answer.
    Unreached(String),
    /// The server belongs to another cluster or group.
    Foreign(String),
}

impl From<&CallError> for Step {
    fn from(error: &CallError) -> Self {
        let why = error.to_string();
        match error {
            CallError::NotSent { .. } | CallError::Lost { .. } => Self::Unreached(why),
            CallError::Busy { .. } => Self::Busy(why),
            CallError::Refused { .. } => Self::Foreign(why),
        }
    }
}

pub(super) struct Search<'a> {
    addresses: &'a [Address],
    target: Address,
    /// It was named as the leader.
    leads: bool,
    /// Position of the next server in the order of the round.
    next: usize,
    /// Servers still to be tried in this round.
    left: usize,
    /// Servers that did not help in this round.
    failed: Vec<Address>,
    /// The number of those that belong to another cluster or group.
    foreign: usize,
    /// The last full round met nothing else.
    all_foreign: bool,
    back_off: BackOff,
    /// The time for the present attempt is shorter than usual.
    pub(super) hurries: bool,
    /// What each server said last; one that was not asked yet said nothing.
    said: BTreeMap<&'a Address, String>,
    /// The last answer of any server.
    last: String,
}

impl<'a> Search<'a> {
    /// Begins with `leader`; none: with the server at position `first`.
    pub(super) fn new(addresses: &'a [Address], first: usize, leader: Option<Address>) -> Self {
        let mut search = Self {
            addresses,
            target: Address::new(),
            leads: leader.is_some(),
            next: first,
            left: addresses.len(),
            failed: Vec::new(),
            foreign: 0,
            all_foreign: false,
            back_off: BackOff::new(PAUSE_MIN, PAUSE_MAX),
            hurries: false,
            said: BTreeMap::new(),
            last: "no server was asked in time".to_owned(),
        };
        match leader {
            Some(leader) => search.target = leader,
            None => search.advance(),
        }
        search
    }

    /// Forgets the leader: any server will do.
    pub(super) fn start_anywhere(&mut self, first: usize) {
        (self.next, self.left) = (first, self.addresses.len());
        self.advance();
    }

    pub(super) fn target(&self) -> &Address {
        &self.target
    }

    /// Chooses the next target; a pause comes before it when a round is over.
    pub(super) fn go_on(&mut self, step: Step, random: &mut StdRng) -> Option<Duration> {
        let hint = match step {
            Step::Again(why) => return Some(self.again(&why, random)),
            Step::Unfinished => return Some(self.again("the leader could not finish it", random)),
            Step::Busy(why) => {
                self.note(why);
                if self.leads && !base::mutant!("busy-leader-is-left") {
                    return Some(self.back_off.pause(random));
                }
                None
            }
            Step::Hinted(hint) => {
                self.note(format!("{}: does not lead its group", self.target));
                hint
            }
            Step::Unreached(why) => {
                self.note(why);
                None
            }
            Step::Foreign(why) => {
                self.note(why);
                self.foreign += 1;
                None
            }
        };
        self.failed.push(std::mem::take(&mut self.target));
        if let Some(hint) = hint.filter(|hint| !self.failed.contains(hint)) {
            (self.target, self.leads) = (hint, true);
            return None;
        }
        while self.left > 0 {
            self.advance();
            if !self.failed.contains(&self.target) {
                return None;
            }
        }
        let pause = self.back_off.pause(random);
        self.all_foreign = self.foreign == self.failed.len();
        self.foreign = 0;
        self.failed.clear();
        self.left = self.addresses.len();
        self.advance();
        Some(pause)
    }

    /// The same server once more, after a pause.
    fn again(&mut self, why: &str, random: &mut StdRng) -> Duration {
        self.note(format!("{}: {why}", self.target));
        self.back_off.pause(random)
    }

    /// Whether every server belongs to something else.
    pub(super) fn is_foreign(&self) -> bool {
        self.all_foreign
    }

    /// Remembers what the present target said, or why it said nothing.
    fn note(&mut self, why: String) {
        let known = self.addresses.iter().find(|address| **address == self.target);
        if let Some(address) = known.filter(|address| !(self.hurries && self.said.contains_key(address))) {
            self.said.insert(address, why.clone());
        }
        self.last = why;
    }

    /// The error of an unsuccessful search: what each server answered.
    pub(super) fn in_vain<R: std::error::Error>(&self) -> AskError<R> {
        let said: Vec<&str> = self.said.values().map(String::as_str).collect();
        let why = if said.is_empty() { self.last.clone() } else { said.join("; ") };
        if self.is_foreign() { AskError::Foreign { why } } else { AskError::NoLeader { why } }
    }

    fn advance(&mut self) {
        self.target.clone_from(&self.addresses[self.next % self.addresses.len()]);
        self.leads = false;
        self.next += 1;
        self.left = self.left.saturating_sub(1);
    }
}
