//! The replicated part: commands in, rows out.
//!
//! The first leader proposes [`Command::Init`], which makes configuration 0 with the cluster's
//! parameters and its key. The first one wins and later ones change nothing. Before it nothing is
//! answered. Controllers that replace others which all lost their data begin with
//! [`Command::Recover`] instead, in the middle of the history that the groups hold.
//!
//! Changes are exactly-once like the operations of clients (correctness rules 26, 43): a session is
//! opened by a logged command, and the verdict on each change, refusals included, is recorded in
//! the session's row together with its effect. A repeated change gets the recorded verdict,
//! whatever has happened since. The moves of a change are not recorded: they are the difference
//! between the configuration it made and the one before, and both are kept forever.
//!
//! The newest configuration, the address book, the placement, the known group ids and the sessions are cached; all
//! of it is rebuilt from rows by [`StateMachine::load`].

use std::collections::BTreeMap;

use base::codec;
use bytes::Bytes;
use clerk::api::config::{AddressBook, Config, GROUPS_MAX, Params, Place, Sealed};
use clerk::api::ctrl::{Change, CtrlRefusal, CtrlReply, News, Recovery};
use clerk::api::placement::Placement;
use clerk::api::{ConfigNum, GroupId, Incarnation, SessionId, Ticket};
use raft::rsm::sessions::{Check, Sessions};
use raft::rsm::{Rows, StateMachine};
use raft::storage::{Read, unreadable};
use raft::types::EntryId;
use serde::{Deserialize, Serialize};

use crate::change::{Next, Present, check_group, moves};
use crate::rows;

/// The log's commands. Grows only at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes configuration 0, unless there is one.
    Init { params: Params, key: u64 },
    /// Opens a session.
    Open,
    /// Changes the configuration.
    Change { ticket: Ticket, change: Change },
    /// Continues a history that the groups hold, unless there is a configuration.
    Recover {
        recovery: Recovery,
        /// Names of sessions begin after this one, drawn so that none of the lost ones returns.
        sessions: u64,
    },
}

/// Linearizable questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// What a change would make.
    Plan(Change),
    /// A configuration, the newest if none is named, and the address book.
    Config(Option<ConfigNum>),
    /// A page of configurations after a number.
    History {
        /// The number; none: from configuration 0 on.
        after: Option<ConfigNum>,
    },
    /// The weights and pins in force.
    Placement,
}

/// The controller's reply, or why it did not do it.
pub type Verdict = Result<CtrlReply, CtrlRefusal>;

/// Bytes of configurations in a recovery: it is one entry of the log, and must fit a frame.
const RECOVERY_BYTES_MAX: usize = 24 << 20;

/// Recovered controllers begin below these numbers, so that later ones cannot reach a limit of the
/// formats.
const RECOVERED_NUM_MAX: ConfigNum = ConfigNum(ConfigNum::LIMIT.0 / 2);
const RECOVERED_VERSION_MAX: u64 = 1 << 62;

/// Versions of the address book that recovered controllers skip.
const BOOK_VERSIONS_SKIPPED: u64 = 1 << 32;

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
    config: Sealed,
    book: AddressBook,
    incarnations: BTreeMap<GroupId, Incarnation>,
    placement: Placement,
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
            book: rows::whole_book(rows),
            incarnations: rows::incarnations(rows),
            placement: rows::placement(rows),
            sessions: Sessions::load(Bytes::from_static(rows::SESSIONS), rows),
        })
    }

    fn present(&self) -> Present<'_> {
        let Self { config, book, incarnations, placement, .. } = self;
        Present { config, book, incarnations, placement }
    }

    /// Judges `change`, and makes a configuration if one results.
    fn change(&mut self, rows: &mut dyn Rows, change: &Change) -> Recorded {
        match self.present().decide(change) {
            Err(refusal) => Recorded::Refused(refusal),
            Ok(None) => Recorded::Harmless(self.config.num),
            Ok(Some(next)) => {
                let before = self.config.num;
                self.adopt(rows, next);
                if self.config.num > before {
                    Recorded::Made(self.config.num)
                } else {
                    Recorded::Harmless(before)
                }
            }
        }
    }

    fn adopt(&mut self, rows: &mut dyn Rows, next: Next) {
        let Next { config, book, incarnations, placement } = next;
        if config.num > self.config.num {
            tracing::info!(config = config.num.0, digest = %config.digest(), groups = ?config.groups.keys(), "new configuration");
            rows::put_config(rows, &config);
            self.config = config;
        }
        if let Some(book) = book {
            tracing::info!(version = book.version, "new address book");
            rows::put_book(rows, &book);
            self.book = book;
        }
        if let Some(placement) = placement {
            tracing::info!(version = placement.version, weights = ?placement.weights, "new weights or pins");
            rows::put_placement(rows, &placement);
            self.placement = placement;
        }
        for (group, incarnation) in incarnations {
            rows::put_incarnation(rows, group, incarnation);
            self.incarnations.insert(group, incarnation);
        }
    }

    /// A recovery that was done already is harmless; any other is refused.
    fn on_recover_again(&self, rows: &dyn Read, asked: Place) -> Verdict {
        if rows::config(rows, asked.num).is_some_and(|config| config.place() == asked) {
            Ok(CtrlReply::Recovered(self.config.place()))
        } else {
            let why = format!(
                "they have a configuration already, {}, and {asked} is none of theirs",
                self.config.num
            );
            Err(CtrlRefusal::NotRecovered(why))
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

/// Why new controllers cannot continue from this; otherwise its newest configuration.
pub(crate) fn check_recovery(recovery: &Recovery) -> Result<&Sealed, CtrlRefusal> {
    let refused = |why: &str| Err(CtrlRefusal::NotRecovered(why.to_owned()));
    let Some(newest) = recovery.configs.last() else { return refused("no configuration is named") };
    let follows = |pair: &[Sealed]| {
        let [one, next] = pair else { return true };
        next.num.0 == one.num.0 + 1 && next.before == one.digest()
    };
    let known = |(group, incarnation): (&GroupId, &Incarnation)| {
        recovery.book.incarnation(*group) == Some(*incarnation)
    };
    // A lagging group adopts each of them, and sends its rows to groups that may have left since.
    let mut named = recovery.configs.iter().flat_map(|config| &config.groups);
    let bytes: usize = recovery.configs.iter().map(|config| config.bytes().len()).sum();
    if bytes > RECOVERY_BYTES_MAX || recovery.book.groups.len() > GROUPS_MAX as usize {
        refused("more configurations or groups are named than there can be")
    } else if !recovery.configs.windows(2).all(follows) {
        refused("the configurations named do not follow each other")
    } else if recovery.configs.iter().any(|it| it.key != newest.key || it.params != newest.params) {
        refused("the configurations named are of several clusters")
    } else if recovery.configs.iter().any(|it| !it.is_understood()) {
        refused("a configuration has fields that this build does not know: use the build that wrote it")
    } else if newest.num >= RECOVERED_NUM_MAX || recovery.book.version >= RECOVERED_VERSION_MAX {
        refused("a number or a version named is so great that none could follow it")
    } else if recovery.book.key != newest.key || !named.all(known) {
        refused("the address book named does not list every group")
    } else if let Some((group, _)) =
        recovery.book.groups.iter().find(|(group, it)| check_group(**group, &it.addresses).is_err())
    {
        refused(&format!("the servers named of group {group} are none, too many or have no addresses"))
    } else {
        Ok(newest)
    }
}

/// The shards that moved when configuration `num` was made.
fn moves_into(rows: &dyn Read, num: ConfigNum) -> Vec<clerk::api::config::Move> {
    let before = num.0.checked_sub(1).and_then(|before| rows::config(rows, ConfigNum(before)));
    match (before, rows::config(rows, num)) {
        (Some(before), Some(after)) => moves(&before, &after),
        _ => unreadable("read the history", &format!("configuration {num} or the one before it is missing")),
    }
}

/// Writes the rows with which recovered controllers begin.
fn recover(rows: &mut dyn Rows, recovery: &Recovery, sessions: u64) {
    for config in &recovery.configs {
        rows::put_config(rows, config);
    }
    if let Some(first) = recovery.configs.first() {
        rows::put_oldest(rows, first.num);
        tracing::warn!(from = %first.num, configs = recovery.configs.len(), "the controllers are recovered");
    }
    // Above every version that the lost controllers can have given out after this one.
    let version = recovery.book.version.saturating_add(BOOK_VERSIONS_SKIPPED);
    rows::put_book(rows, &AddressBook { version, ..recovery.book.clone() });
    for (group, registered) in &recovery.book.groups {
        rows::put_incarnation(rows, *group, registered.incarnation);
    }
    Sessions::skip(Bytes::from_static(rows::SESSIONS), rows, sessions);
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
            (Command::Init { params, key }, known) => {
                if known.is_none() {
                    rows::put_config(rows, &Sealed::new(Config::zero(key, params)));
                    rows::put_book(rows, &AddressBook { key, ..AddressBook::default() });
                    tracing::info!(?params, key = format!("{key:016x}"), "new cluster");
                    self.known = Known::load(rows);
                }
                Ok(CtrlReply::Changed { config: ConfigNum(0), moves: Vec::new() })
            }
            (Command::Recover { recovery, sessions }, known) => {
                let newest = check_recovery(&recovery)?.place();
                if let Some(known) = known {
                    return known.on_recover_again(rows, newest);
                }
                recover(rows, &recovery, sessions);
                self.known = Known::load(rows);
                Ok(CtrlReply::Recovered(newest))
            }
            // Not recorded: nothing is known of sessions before configuration 0.
            (_, None) => Err(CtrlRefusal::NotExecuted),
            (Command::Open, Some(known)) => {
                let session = known.sessions.open(rows, known.config.params.sessions_max);
                session.map(|session| CtrlReply::Opened(SessionId(session))).ok_or(CtrlRefusal::Busy)
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
                        let oldest = rows::oldest(rows);
                        if asked < oldest {
                            return Err(CtrlRefusal::ForgottenConfig { asked, oldest });
                        }
                        rows::config(rows, asked).ok_or(CtrlRefusal::UnknownConfig { asked, newest })?
                    }
                };
                Ok(CtrlReply::Config(config, known.book.clone()))
            }
            Query::Placement => Ok(CtrlReply::Placement(Box::new(known.placement.clone()))),
            Query::History { after } => {
                let (configs, book) = (rows::configs_after(rows, after), known.book.clone());
                let (newest, move_rate) = (known.config.num, known.placement.move_rate);
                Ok(CtrlReply::Configs(Box::new(News { configs, newest, book, move_rate })))
            }
        }
    }
}

#[cfg(test)]
mod tests;
