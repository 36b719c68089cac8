//! How a request finds the group that serves its shard.
//!
//! The owner in the newest known configuration is asked first, or the group that served the shard last. A shard is
//! served by the group that has it until its new owner is ready, whatever configurations were made meanwhile. So a
//! group that does not serve a shard says whom to ask, if it knows; if it does not, the last owner is asked, once each
//! time. A served shard serves whatever configuration the request names (correctness rule 41), and every group gets
//! the same request with the same ticket, so nothing is executed twice (rules 26, 39).
//!
//! An operation that is out of time names what it heard before its last, hurried attempt.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base::backoff::BackOff;
use base::clock::{self, Instant};

use super::{Clerk, Error, Routed, controllers};
use crate::api::config::Assignment;
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::{ConfigNum, GroupId, ShardId};
use crate::cache::View;
use crate::group::{AskError, Attempts, GroupClient};

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// A group that is said to have the shard, and is silent, holds an operation no longer than this, each time.
const HINT: Duration = Duration::from_millis(250);
/// A server that says "not here" or "not yet" so many times in a row may have lost its leadership without knowing:
/// another one is asked.
const DOUBT: u32 = 4;

/// Refusals in a row, in one configuration.
#[derive(Default)]
struct Refusals {
    config: ConfigNum,
    count: u32,
}

impl Refusals {
    /// Counts one; returns whether it is time to doubt the server.
    fn add(&mut self, config: ConfigNum) -> bool {
        if self.config != config {
            *self = Self { config, count: 0 };
        }
        self.count += 1;
        self.count.is_multiple_of(DOUBT)
    }
}

impl Clerk {
    /// Sends a request to the leader of the group that serves `shard`, wherever that is by then.
    pub(super) async fn route(
        &self,
        shard: ShardId,
        until: Instant,
        attempts: &mut Attempts,
        request: impl Fn(ConfigNum) -> KvRequest,
    ) -> Routed {
        let cache = &self.shared.cache;
        let mut back_off = BackOff::new(PAUSE_MIN, PAUSE_MAX);
        let (mut refusals, mut said) = (Refusals::default(), None);
        loop {
            let view = cache.any(until).await.map_err(controllers)?;
            let num = view.config.num;
            let Some(assignment) = view.config.shards.get(shard.0 as usize).copied() else {
                return Ok(Err(KvRefusal::UnknownShard(shard)));
            };
            let (mut hint, mut asked) = (assignment.last_owner, None);
            let heard = match self.first(&view, shard, assignment) {
                None => (format!("no group serves shard {shard} in configuration {num}"), None),
                Some(first) => {
                    asked = Some(first);
                    let group = self.group(&view, first);
                    match group.ask(&request(num), until, attempts).await {
                        Ok(reply) => return Ok(Ok(reply)),
                        Err(AskError::Unknown) => return Err(Error::Unknown),
                        Err(AskError::Refused(refusal)) => {
                            if !self.learn_from(&refusal, num, until).await {
                                return Ok(Err(refusal));
                            }
                            if refusals.add(num) {
                                group.doubt();
                            }
                            hint = match &refusal {
                                KvRefusal::WrongGroup { ask, .. } => *ask,
                                KvRefusal::NotReady { ask, .. } => ask.or(hint),
                                _ => None,
                            };
                            (format!("group {first}: {refusal}"), None)
                        }
                        Err(AskError::NoLeader { why } | AskError::Foreign { why }) => {
                            base::mutant!(
                                "new-number-on-retry",
                                return Err(Error::Unavailable { why, silent: None })
                            );
                            cache.refresh_later();
                            hint = None;
                            (format!("group {first}: {why}"), Some(first))
                        }
                    }
                }
            };
            self.remember(shard, None);
            // A clerk whose route led nowhere also asks the owner.
            let hint = hint.or(assignment.owner.filter(|_| asked != assignment.owner));
            if let Some(hint) = hint.filter(|hint| Some(*hint) != asked && view.knows(*hint))
                && let Some(answer) = self.ask_hint(&view, hint, until, attempts, request(num)).await?
            {
                if answer.is_ok() {
                    self.remember(shard, Some(hint).filter(|hint| assignment.owner != Some(*hint)));
                }
                return Ok(answer);
            }
            if assignment.owner.is_none() {
                cache.wait_newer(num, until).await;
            }
            let is_late = clock::now() >= until;
            if !is_late || said.is_none() {
                said = Some(heard);
            }
            if let Some((why, silent)) = said.take_if(|_| is_late) {
                return Err(Error::Unavailable { why, silent });
            }
            if cache.current().is_none_or(|view| view.config.num <= num) {
                self.pause(&mut back_off, until).await;
            }
        }
    }

    /// The group that is asked first: the one that served the shard last while another one was to get it, or the owner.
    fn first(&self, view: &View, shard: ShardId, assignment: Assignment) -> Option<GroupId> {
        let routes = self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let route = routes.get(&shard).copied().filter(|group| view.knows(*group));
        route.or(assignment.owner)
    }

    /// Remembers which group serves a shard, if that is not its owner.
    fn remember(&self, shard: ShardId, group: Option<GroupId>) {
        let mut routes = self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner);
        match group {
            Some(group) => routes.insert(shard, group),
            None => routes.remove(&shard),
        };
    }

    /// Asks the group that is said to have the shard, once and not for long: mostly the owner serves soon. None: it
    /// does not serve it either. A write that must not be sent twice gets all its time: cut short, it would be of
    /// unknown outcome.
    async fn ask_hint(
        &self,
        view: &View,
        hint: GroupId,
        until: Instant,
        attempts: &mut Attempts,
        request: KvRequest,
    ) -> Result<Option<Result<KvReply, KvRefusal>>, Error> {
        let limit = if attempts.only_once { until } else { until.min(clock::now().after(HINT)) };
        match self.group(view, hint).ask_once(&request, limit, attempts).await {
            Ok(reply) => Ok(Some(Ok(reply))),
            Err(AskError::Unknown) => Err(Error::Unknown),
            Err(AskError::Refused(refusal)) => {
                // If it serves the shard this is the answer. If it lost its data only the owner's
                // answer counts.
                let is_elsewhere = self.learn_from(&refusal, view.config.num, until).await
                    || matches!(refusal, KvRefusal::LostData { .. });
                Ok((!is_elsewhere).then_some(Err(refusal)))
            }
            Err(AskError::NoLeader { .. } | AskError::Foreign { .. }) => Ok(None),
        }
    }

    /// Whether a refusal says to try again, elsewhere or later; refreshes the configuration if it names
    /// a newer one, and only then.
    async fn learn_from(&self, refusal: &KvRefusal, num: ConfigNum, until: Instant) -> bool {
        match refusal {
            KvRefusal::WrongGroup { config, .. } => {
                if *config > num {
                    self.shared.cache.refresh(num, until).await;
                }
                true
            }
            KvRefusal::NotReady { config, .. } => {
                if *config > num {
                    self.shared.cache.refresh_later();
                }
                true
            }
            _ => false,
        }
    }

    fn group(&self, view: &View, group: GroupId) -> Arc<GroupClient> {
        let addresses = view.book.addresses(group);
        let mut groups = self.shared.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = groups.get(&group).filter(|client| client.addresses() == addresses) {
            return Arc::clone(client);
        }
        let seed = base::seed::derive(self.shared.options.seed, &format!("group {group}"));
        let connection = Arc::clone(&self.shared.connection);
        let client = Arc::new(GroupClient::new(connection, group, addresses.to_vec(), seed));
        groups.insert(group, Arc::clone(&client));
        client
    }

    async fn pause(&self, back_off: &mut BackOff, until: Instant) {
        let pause = {
            let mut random = self.shared.random.lock().unwrap_or_else(PoisonError::into_inner);
            back_off.pause(&mut *random)
        };
        clock::sleep(pause.min(until.since(clock::now()))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::Refusals;
    use crate::api::ConfigNum;

    #[test]
    fn a_server_is_doubted_after_four_refusals_in_one_configuration() {
        let mut refusals = Refusals::default();
        let doubted = [1, 1, 1, 2, 2, 2, 2, 2].map(|config| refusals.add(ConfigNum(config)));
        assert_eq!(doubted, [false, false, false, false, false, false, true, false]);
    }
}
