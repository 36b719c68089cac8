//! How configurations and addresses reach a group: every replica asks a controller for what is behind the
//! newest it knows, and the controller holds the question for up to two seconds.
//!
//! Any controller answers from what it has applied, so a lagging one may answer nothing; the next question
//! goes on from what is known, never back (correctness rule 44). Configuration 0, which carries the
//! cluster's limits, is asked for by its number. Configurations are kept from the one to adopt next on,
//! as many as a bound allows; the newest is kept besides, for clerks that ask. When those between are no
//! longer kept, they are asked for again.
//!
//! A question or its answer may be lost, and a controller may be cut off from the others: then it answers,
//! but never has any news. So behind an answer without news the next controller is asked. And when somebody
//! who asks this group for something names a configuration that is not known here, the question is soon put
//! to the next controller instead of waiting for its end.
//!
//! Left out on purpose: adopting anything; that goes through the log (`mover`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use clerk::api::config::{AddressBook, Config};
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::{Address, ConfigNum};
use clerk::connection::Connection;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::state_machine::Standing;

/// A watch answers after at most two seconds.
const CALL: Duration = Duration::from_millis(2500);
/// A question is given up so soon when a newer configuration is known to exist.
const IMPATIENCE: Duration = Duration::from_millis(250);
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_millis(1000);
/// Assignments kept in configurations that wait for their turn: bounds their memory.
const KEPT_ASSIGNMENTS_MAX: usize = 65_536;
const KEPT_CONFIGS_MAX: usize = 64;

/// What a replica knows of the cluster around its group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    /// The newest configuration.
    pub(crate) newest: Option<Arc<Config>>,
    /// Configurations from the next one to adopt on.
    upcoming: BTreeMap<ConfigNum, Arc<Config>>,
    /// The newest addresses.
    pub(crate) book: Arc<AddressBook>,
}

/// The configuration that follows the adopted one.
fn next(adopted: Option<ConfigNum>) -> ConfigNum {
    adopted.map_or(ConfigNum(0), |adopted| ConfigNum(adopted.0.saturating_add(1)))
}

impl Knowledge {
    /// The configuration to adopt next, if it is known.
    pub(crate) fn next(&self, adopted: Option<ConfigNum>) -> Option<Arc<Config>> {
        base::mutant!("skip-configuration", return self.upcoming.values().next_back().cloned());
        self.upcoming.get(&next(adopted)).cloned()
    }

    /// The question that brings what is missing.
    fn question(&self, adopted: Option<ConfigNum>) -> CtrlRequest {
        let newest = self.newest.as_ref().map(|config| config.num);
        let gap = newest >= Some(next(adopted)) && self.next(adopted).is_none();
        let book = self.book.version;
        match (adopted, newest) {
            (Some(adopted), _) if gap => CtrlRequest::Watch { after: adopted, book },
            (None, _) if gap => CtrlRequest::Query(Some(ConfigNum(0))),
            (Some(adopted), None) => CtrlRequest::Watch { after: adopted, book },
            (None, None) => CtrlRequest::Query(Some(ConfigNum(0))),
            (_, Some(newest)) => CtrlRequest::Watch { after: newest, book },
        }
    }

    /// Takes in an answer; whether anything is new.
    fn learn(&mut self, adopted: Option<ConfigNum>, configs: Vec<Config>, book: AddressBook) -> bool {
        let mut changed = false;
        self.upcoming.retain(|num, _| *num >= next(adopted));
        for config in configs.into_iter().map(Arc::new) {
            if self.newest.as_ref().is_none_or(|newest| newest.num < config.num) {
                self.newest = Some(Arc::clone(&config));
                changed = true;
            }
            if config.num >= next(adopted) && !self.upcoming.contains_key(&config.num) {
                self.upcoming.insert(config.num, config);
                changed = true;
            }
        }
        let assignments = self.newest.as_ref().map_or(1, |config| config.shards.len().max(1));
        let kept = (KEPT_ASSIGNMENTS_MAX / assignments).clamp(2, KEPT_CONFIGS_MAX);
        while self.upcoming.len() > kept {
            self.upcoming.pop_last();
        }
        if book.version > self.book.version {
            self.book = Arc::new(book);
            changed = true;
        }
        changed
    }
}

/// Follows the controllers until it is dropped.
pub(crate) struct Follower {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) controllers: Vec<Address>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) knowledge: Arc<watch::Sender<Knowledge>>,
    /// The newest configuration that anybody named.
    pub(crate) named: watch::Receiver<ConfigNum>,
    pub(crate) random: StdRng,
}

impl Follower {
    pub(crate) async fn run(mut self) {
        if self.controllers.is_empty() {
            return;
        }
        let mut at = self.random.random_range(0..self.controllers.len());
        let mut back_off = BACK_OFF_MIN;
        loop {
            let adopted = self.standing.borrow().config;
            let question = self.knowledge.borrow().question(adopted);
            let answer = tokio::select! {
                biased;
                answer = self.ask(at, question) => answer,
                () = self.impatience() => Err(None),
            };
            match answer {
                Ok((configs, book)) => {
                    back_off = BACK_OFF_MIN;
                    if !self.knowledge.send_if_modified(|known| known.learn(adopted, configs, book)) {
                        // It may be cut off from the others, and never have any.
                        at = (at + 1) % self.controllers.len();
                        // Whatever the reason, an answer without news must not become a hot loop.
                        clock::sleep(BACK_OFF_MIN).await;
                    }
                }
                Err(hint) => {
                    let hinted = hint.and_then(|hint| self.controllers.iter().position(|it| *it == hint));
                    at = hinted.unwrap_or((at + 1) % self.controllers.len());
                    let share = self.random.random_range(0.5..1.0);
                    clock::sleep(back_off.mul_f64(share)).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// Ends when a newer configuration than the newest known was named a while ago.
    async fn impatience(&self) {
        let newest = self.knowledge.borrow().newest.as_ref().map(|config| config.num);
        let mut named = self.named.clone();
        let newer = |named: &ConfigNum| Some(*named) > newest && *named > ConfigNum(0);
        if named.wait_for(newer).await.is_err() {
            // The service is gone, and this task will be ended.
            std::future::pending::<()>().await;
        }
        clock::sleep(IMPATIENCE).await;
    }

    /// One question to one controller; the error is where to ask instead, if that was said.
    async fn ask(
        &self,
        at: usize,
        question: CtrlRequest,
    ) -> Result<(Vec<Config>, AddressBook), Option<Address>> {
        match self.connection.ctrl(&self.controllers[at], question, CALL).await {
            Ok(Ok(CtrlReply::Configs(configs, book))) => Ok((configs, book)),
            Ok(Ok(CtrlReply::Config(config, book))) => Ok((vec![config], book)),
            Ok(Err(CtrlRefusal::NotLeader { hint })) => Err(hint),
            Ok(answer) => {
                tracing::debug!(controller = %self.controllers[at], ?answer, "no configurations from it");
                Err(None)
            }
            Err(error) => {
                tracing::debug!(%error, "controller not reached");
                Err(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use base::clock;
    use clerk::api::config::{AddressBook, Config, Params};
    use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
    use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
    use clerk::api::{Address, ConfigNum, GroupId};
    use clerk::connection::{CallError, Connection};
    use futures::future::BoxFuture;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tokio::sync::watch;

    use super::{Follower, KEPT_CONFIGS_MAX, Knowledge};
    use crate::state_machine::Standing;

    fn configs(numbers: impl Iterator<Item = u64>) -> Vec<Config> {
        let params = Params { shard_count: 4, ..Params::default() };
        numbers.map(|num| Config { num: ConfigNum(num), ..Config::zero(params) }).collect()
    }

    fn watch(after: u64) -> CtrlRequest {
        CtrlRequest::Watch { after: ConfigNum(after), book: 0 }
    }

    #[test]
    fn configuration_zero_is_asked_for_by_number_and_the_rest_is_watched() {
        let mut known = Knowledge::default();
        assert_eq!(known.question(None), CtrlRequest::Query(Some(ConfigNum(0))));
        assert_eq!(known.question(Some(ConfigNum(3))), watch(3));
        assert!(known.learn(None, configs(0..1), AddressBook::default()));
        assert!(known.next(None).is_some());
        assert_eq!(known.question(None), watch(0));
        assert!(!known.learn(None, configs(0..1), AddressBook::default()));
    }

    #[test]
    fn what_is_no_longer_kept_between_adopted_and_newest_is_asked_for_again() {
        let mut known = Knowledge::default();
        let adopted = Some(ConfigNum(0));
        known.learn(adopted, configs(1..101), AddressBook::default());
        assert_eq!(known.upcoming.len(), KEPT_CONFIGS_MAX);
        assert_eq!(known.question(adopted), watch(100));
        let adopted = Some(ConfigNum(64));
        assert_eq!(known.question(adopted), watch(64));
        known.learn(adopted, configs(65..101), AddressBook::default());
        assert_eq!(known.next(adopted).map(|config| config.num), Some(ConfigNum(65)));
        assert_eq!(known.question(adopted), watch(100));
    }

    /// One controller is cut off from the others, and so never has any news.
    struct Controllers;

    impl Connection for Controllers {
        fn kv<'a>(
            &'a self,
            to: &'a Address,
            _: GroupId,
            _: KvRequest,
            _: Duration,
        ) -> BoxFuture<'a, Result<Result<KvReply, KvRefusal>, CallError>> {
            let refused = CallError::Refused { address: to.clone(), why: "a controller".to_owned() };
            Box::pin(async { Err(refused) })
        }

        fn ctrl<'a>(
            &'a self,
            to: &'a Address,
            request: CtrlRequest,
            _: Duration,
        ) -> BoxFuture<'a, Result<Result<CtrlReply, CtrlRefusal>, CallError>> {
            Box::pin(async move {
                let newest = if to == "cut off" { 0 } else { 1 };
                let news = match request {
                    CtrlRequest::Watch { after, .. } => configs(after.0 + 1..newest + 1),
                    _ => configs(0..1),
                };
                if news.is_empty() {
                    clock::sleep(Duration::from_secs(2)).await;
                }
                Ok(Ok(CtrlReply::Configs(news, AddressBook::default())))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_is_cut_off_from_the_others_keeps_nobody_from_news_for_long() {
        for seed in 0..4 {
            let (_standing, standing) = watch::channel(Standing::default());
            let (_named, named) = watch::channel(ConfigNum(0));
            let knowledge = Arc::new(watch::Sender::new(Knowledge::default()));
            let mut known = knowledge.subscribe();
            let follower = Follower {
                connection: Arc::new(Controllers),
                controllers: vec!["cut off".to_owned(), "well".to_owned()],
                standing,
                knowledge,
                named,
                random: StdRng::seed_from_u64(seed),
            };
            let has_news =
                |known: &Knowledge| known.newest.as_ref().is_some_and(|newest| newest.num == ConfigNum(1));
            tokio::select! {
                () = follower.run() => panic!("it follows for ever"),
                _ = known.wait_for(has_news) => {}
                () = clock::sleep(Duration::from_secs(5)) => panic!("no news in time, seed {seed}"),
            }
        }
    }

    #[test]
    fn an_older_answer_takes_nothing_back() {
        let mut known = Knowledge::default();
        let book = |version| AddressBook { version, ..AddressBook::default() };
        known.learn(None, configs(0..5), book(7));
        assert!(!known.learn(None, configs(0..3), book(6)));
        assert_eq!(known.newest.as_ref().map(|config| config.num), Some(ConfigNum(4)));
        assert_eq!(known.book.version, 7);
    }
}
