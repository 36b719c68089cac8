//! Which server to try next: pure, the calls are made elsewhere.
//!
//! A round tries every server once, beginning with the leader that is remembered. A hint goes before
//! the order of the round, unless it points at a server that failed in the same round: followers name
//! a dead leader until they have elected another.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::AskError;
use crate::api::Address;

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// A number below `bound`; 0 for none.
pub(super) fn draw(random: &mut StdRng, bound: usize) -> usize {
    if bound == 0 { 0 } else { random.random_range(0..bound) }
}

/// What the last attempt brought.
pub(super) enum Step {
    /// Another server leads, perhaps the one named.
    Hinted(Option<Address>),
    /// The same server may do it a little later.
    Again(String),
    /// The server did not answer.
    Unreached(String),
    /// The server belongs to something else.
    Foreign(String),
}

pub(super) struct Search<'a> {
    addresses: &'a [Address],
    target: Address,
    /// Position of the next server in the order of the round.
    next: usize,
    /// Servers still to be tried in this round.
    left: usize,
    /// Servers that did not help in this round.
    failed: Vec<Address>,
    /// Of those, the ones that belong to something else.
    foreign: usize,
    /// The last full round met nothing else.
    all_foreign: bool,
    pause: Duration,
    why: String,
}

impl<'a> Search<'a> {
    /// Begins with `leader`; none: with the server at position `first`.
    pub(super) fn new(addresses: &'a [Address], first: usize, leader: Option<Address>) -> Self {
        let mut search = Self {
            addresses,
            target: Address::new(),
            next: first,
            left: addresses.len(),
            failed: Vec::new(),
            foreign: 0,
            all_foreign: false,
            pause: PAUSE_MIN,
            why: "no leader".to_owned(),
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
            Step::Again(why) => {
                self.why = why;
                return Some(self.take_pause(random));
            }
            Step::Hinted(hint) => {
                self.why = format!("{}: does not lead its group", self.target);
                hint
            }
            Step::Unreached(why) => {
                self.why = why;
                None
            }
            Step::Foreign(why) => {
                self.why = why;
                self.foreign += 1;
                None
            }
        };
        self.failed.push(std::mem::take(&mut self.target));
        if let Some(hint) = hint.filter(|hint| !self.failed.contains(hint)) {
            self.target = hint;
            return None;
        }
        while self.left > 0 {
            self.advance();
            if !self.failed.contains(&self.target) {
                return None;
            }
        }
        let pause = self.take_pause(random);
        self.all_foreign = self.foreign == self.failed.len();
        self.foreign = 0;
        self.failed.clear();
        self.left = self.addresses.len();
        self.advance();
        Some(pause)
    }

    /// Whether every server belongs to something else.
    pub(super) fn is_foreign(&self) -> bool {
        self.all_foreign
    }

    /// The error of a search that is given up.
    pub(super) fn in_vain<R: std::error::Error>(&mut self) -> AskError<R> {
        let why = std::mem::take(&mut self.why);
        match self.is_foreign() {
            true => AskError::Foreign { why },
            false => AskError::NoLeader { why },
        }
    }

    fn advance(&mut self) {
        self.target.clone_from(&self.addresses[self.next % self.addresses.len()]);
        self.next += 1;
        self.left = self.left.saturating_sub(1);
    }

    fn take_pause(&mut self, random: &mut StdRng) -> Duration {
        let pause = self.pause.mul_f64(random.random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause
    }
}
