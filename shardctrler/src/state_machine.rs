//! The replicated part: commands in, rows out.
//!
//! The first leader proposes [`Command::Init`], which makes configuration 0 with the cluster's
//! parameters; the first one wins and later ones change nothing. Before it nothing is answered.
//!
//! Changes are exactly-once like the operations of clients (correctness rules 26, 43): a session is
//! opened by a logged command, and the verdict on each change, refusals included, is recorded in the
//! session's row together with its effect. A repeated change gets the recorded verdict, whatever has
//! happened since. The moves of a change are not recorded: they are the difference between the
//! configuration it made and the one before, and both are kept for ever.
//!
//! The newest configuration, the address book, the known group ids and the sessions are cached; all
//! of it is rebuilt from rows by [`StateMachine::load`].

use std::collections::BTreeMap;

use base::codec;
use bytes::Bytes;
use clerk::api::config::{AddressBook, Config, Params};
use clerk::api::ctrl::{Change, CtrlRefusal, CtrlReply};
use clerk::api::{ConfigNum, GroupId, Incarnation, SessionId, Ticket};
use raft::rsm::sessions::{Check, Sessions};
use raft::rsm::{Rows, StateMachine};
use raft::storage::{Read, unreadable};
use raft::types::EntryId;
use serde::{Deserialize, Serialize};

use crate::change::{Next, Present, moves};
use crate::rows;

/// What goes through the log. Grows only at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes configuration 0, unless there is one.
    Init {
        /// The limits of the cluster.
        params: Params,
    },
    /// Opens a session.
    Open,
    /// Changes the configuration.
    Change {
        /// Session and number.
        ticket: Ticket,
        /// The change.
        change: Change,
    },
}

/// What is asked linearizably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// What a change would make.
    Plan(Change),
    /// A configuration, the newest if none is named, and the address book.
    Config(Option<ConfigNum>),
    /// A page of configurations behind a number.
    History {
        /// The number; none: from configuration 0 on.
        after: Option<ConfigNum>,
    },
}

/// Why the controller did not do it, or what it did.
pub type Verdict = Result<CtrlReply, CtrlRefusal>;

/// What a session's row remembers of its last change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Recorded {
    /// It made this configuration.
    Made(ConfigNum),
    /// It was harmless; this was the configuration then.
    Harmless(ConfigNum),
    /// It was refused.
    Refused(CtrlRefusal),
}

/// The controller's state machine: a cache of its rows.
#[derive(Debug, Default)]
pub struct Controller {
    /// None before configuration 0.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    config: Config,
    book: AddressBook,
    incarnations: BTreeMap<GroupId, Incarnation>,
    sessions: Sessions,
}

impl Known {
    fn load(rows: &dyn Read) -> Option<Self> {
        let newest = rows::newest(rows)?;
        let config = rows::config(rows, newest).unwrap_or_else(|| {
            unreadable("load the controller", &format!("configuration {newest} is missing"))
        });
        Some(Self {
            config,
            book: rows::book(rows),
            incarnations: rows::incarnations(rows),
            sessions: Sessions::load(Bytes::from_static(rows::SESSIONS), rows),
        })
    }

    fn present(&self) -> Present<'_> {
        Present { config: &self.config, book: &self.book, incarnations: &self.incarnations }
    }

    /// Judges `change` and, if it makes a configuration, makes it.
    fn change(&mut self, rows: &mut dyn Rows, change: &Change) -> Recorded {
        match self.present().decide(change) {
            Err(refusal) => Recorded::Refused(refusal),
            Ok(None) => Recorded::Harmless(self.config.num),
            Ok(Some(next)) => {
                self.adopt(rows, next);
                Recorded::Made(self.config.num)
            }
        }
    }

    fn adopt(&mut self, rows: &mut dyn Rows, next: Next) {
        let Next { config, book, incarnations } = next;
        tracing::info!(config = config.num.0, groups = ?config.groups, "new configuration");
        rows::put_config(rows, &config);
        self.config = config;
        if let Some(book) = book {
            rows::put_book(rows, &book);
            self.book = book;
        }
        for (group, incarnation) in incarnations {
            rows::put_incarnation(rows, group, incarnation);
            self.incarnations.insert(group, incarnation);
        }
    }

    fn on_change(&mut self, rows: &mut dyn Rows, ticket: Ticket, change: &Change) -> Verdict {
        let (session, seq) = (ticket.session.0, ticket.seq.0);
        let recorded = match self.sessions.check(session, seq) {
            Check::Stale => return Err(CtrlRefusal::StaleSeq),
            Check::Expired => return Err(CtrlRefusal::SessionExpired),
            Check::Repeated(recorded) => codec::decode(&recorded, recorded.len())
                .unwrap_or_else(|error| unreadable("decode a session of the controller", &error)),
            Check::Fresh => {
                let recorded = self.change(rows, change);
                self.sessions.record(rows, session, seq, codec::encode(&recorded));
                recorded
            }
        };
        match recorded {
            Recorded::Refused(refusal) => Err(refusal),
            Recorded::Harmless(config) => Ok(CtrlReply::Changed { config, moves: Vec::new() }),
            Recorded::Made(num) => Ok(CtrlReply::Changed { config: num, moves: moves_into(rows, num) }),
        }
    }

    fn on_plan(&self, change: &Change) -> Verdict {
        let next = self.present().decide(change)?;
        let present = &self.config;
        let planned = |next: Next| (next.config.num, moves(present, &next.config));
        let (config, moves) = next.map_or_else(|| (present.num, Vec::new()), planned);
        Ok(CtrlReply::Changed { config, moves })
    }
}

/// What moved when configuration `num` was made.
fn moves_into(rows: &dyn Read, num: ConfigNum) -> Vec<clerk::api::config::Move> {
    let before = num.0.checked_sub(1).and_then(|before| rows::config(rows, ConfigNum(before)));
    match (before, rows::config(rows, num)) {
        (Some(before), Some(after)) => moves(&before, &after),
        _ => unreadable("read the history", &format!("configuration {num} or the one before it is missing")),
    }
}

impl StateMachine for Controller {
    type Command = Command;
    type Output = Verdict;
    type Query = Query;
    type Answer = Verdict;

    fn load(&mut self, rows: &dyn Read) {
        self.known = Known::load(rows);
    }

    fn apply(&mut self, rows: &mut dyn Rows, _id: EntryId, command: Command) -> Verdict {
        match (command, &mut self.known) {
            (Command::Init { params }, known) => {
                if known.is_none() {
                    rows::put_config(rows, &Config::zero(params));
                    tracing::info!(?params, "new cluster");
                    *known = Known::load(rows);
                }
                Ok(CtrlReply::Changed { config: ConfigNum(0), moves: Vec::new() })
            }
            // Not recorded: nothing is known of sessions before configuration 0.
            (_, None) => Err(CtrlRefusal::NotExecuted),
            (Command::Open, Some(known)) => {
                let session = known.sessions.open(rows, known.config.params.sessions_max);
                Ok(CtrlReply::Opened(SessionId(session)))
            }
            (Command::Change { ticket, change }, Some(known)) => known.on_change(rows, ticket, &change),
        }
    }

    fn query(&self, rows: &dyn Read, query: Query) -> Verdict {
        let known = self.known.as_ref().ok_or(CtrlRefusal::NotExecuted)?;
        match query {
            Query::Plan(change) => known.on_plan(&change),
            Query::Config(asked) => {
                let newest = known.config.num;
                let old = |asked: &ConfigNum| *asked != newest && !base::mutant!("old-number-shows-newest");
                let config = match asked.filter(old) {
                    None => known.config.clone(),
                    Some(asked) => {
                        rows::config(rows, asked).ok_or(CtrlRefusal::UnknownConfig { asked, newest })?
                    }
                };
                Ok(CtrlReply::Config(config, known.book.clone()))
            }
            Query::History { after } => {
                Ok(CtrlReply::Configs(rows::configs_after(rows, after), known.book.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
