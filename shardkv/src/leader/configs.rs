//! How configurations and addresses reach a group: every replica asks a controller for everything
//! after the newest configuration it knows, and the controller holds the question for up to two
//! seconds.
//!
//! Any controller answers from what it has applied, so a lagging one may answer nothing. The next
//! question continues from what is known, never back (correctness rule 44). Configuration 0, which
//! carries the cluster's limits and its key, is asked for by its number. Configurations are kept
//! from the next one to adopt on, as many as a bound allows; the newest is also kept, for clerks
//! that ask. Those in between are asked for again before the kept ones are used up, so a group that
//! lags by a thousand configurations never waits for a long poll to end.
//!
//! A question or its answer may be lost, and a controller may be cut off from the others: then it
//! answers, but never has any news. So after an answer without news the next controller is asked.
//! When a request to this group names a configuration that is not known here, the question soon
//! goes to the next controller instead of waiting for its end. If no controller knows that
//! configuration, one question runs to its end before the next round: the sender of the request may
//! follow another history, or be wrong.
//!
//! Each question names the digest of the configuration that it continues from. Controllers that
//! have another one say so. The group then forgets what it has not adopted yet. If an adopted
//! configuration differs, the group follows another history than the controllers do, and its status
//! says so (rule 56). A replica of the controllers that knows less may merely lag, so the group is
//! called *ahead* only if their leader confirms it.
//!
//! Left out on purpose: adopting anything; that goes through the log (`mover`).

mod knowledge;

use std::sync::Arc;
use std::time::Duration;

use base::backoff::BackOff;
use base::clock;
use clerk::api::config::Place;
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News};
use clerk::api::status::History;
use clerk::api::{Address, ConfigNum, GroupId};
use clerk::connection::{CallError, Connection};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;

pub(crate) use self::knowledge::Knowledge;
use crate::machine::Standing;
use crate::machine::history;

/// A watch answers after at most two seconds.
const CALL: Duration = Duration::from_millis(2500);
/// A question is given up after this time when a newer configuration is known to exist.
const IMPATIENCE: Duration = Duration::from_millis(250);
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_millis(1000);

/// A controller's answer.
enum Answer {
    News(News),
    /// Ask this controller instead, or any other.
    Elsewhere(Option<Address>),
    /// It has another history.
    Other {
        here: Place,
        key: u64,
    },
    /// It knows no configuration before this one, and the group needs one.
    Forgotten(ConfigNum),
    /// It knows no configuration after this one.
    NoneAfter(ConfigNum),
    /// It does not let this group in.
    Refused(String),
}

/// Follows the controllers until it is dropped.
pub(crate) struct ConfigWatcher {
    pub(crate) group: GroupId,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) controllers: Vec<Address>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) knowledge: Arc<watch::Sender<Knowledge>>,
    /// The newest configuration that any request named.
    pub(crate) named: watch::Receiver<ConfigNum>,
    pub(crate) random: StdRng,
}

/// A replica's place in its round of the controllers.
struct Round {
    at: usize,
    back_off: BackOff,
    /// Controllers that refused, one after the other.
    refused: usize,
    /// Questions in a row that were given up because a request named a newer configuration.
    given_up: usize,
}

impl ConfigWatcher {
    pub(crate) async fn run(mut self) {
        if self.controllers.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.controllers.len());
        let mut round =
            Round { at, back_off: BackOff::new(BACK_OFF_MIN, BACK_OFF_MAX), refused: 0, given_up: 0 };
        loop {
            let adopted = self.standing.borrow().place;
            let question = self.knowledge.borrow().question(adopted);
            // The named configuration may not exist here. So after each round of all controllers
            // one question runs to its end.
            let is_impatient = round.given_up < self.controllers.len();
            let (answer, given_up) = tokio::select! {
                biased;
                answer = self.ask(round.at, question) => (answer, 0),
                () = self.runs_dry(adopted), if !base::mutant!("asks-only-when-all-is-adopted") => continue,
                () = self.impatience(), if is_impatient => (Answer::Elsewhere(None), round.given_up + 1),
            };
            round.given_up = given_up;
            self.on_answer(&mut round, adopted, answer).await;
            self.judge_own_data();
        }
    }

    async fn on_answer(&mut self, round: &mut Round, adopted: Option<Place>, answer: Answer) {
        match answer {
            Answer::News(news) => self.on_news(round, adopted, news).await,
            Answer::Elsewhere(hint) => self.next(round, hint).await,
            Answer::NoneAfter(_) => self.next(round, None).await,
            Answer::Other { here, key } => {
                match adopted.filter(|adopted| here.num <= adopted.num) {
                    Some(_) => self.tell(History::Other { theirs: here, key }),
                    // Unadopted configurations came from controllers that no longer exist.
                    None => self.knowledge.send_modify(|known| known.forget(adopted)),
                }
                self.next(round, None).await;
            }
            Answer::Forgotten(oldest) => {
                match adopted {
                    // It has nothing to move, and may begin with what there is.
                    None => self.knowledge.send_modify(|known| known.first = oldest),
                    Some(adopted) if adopted.num.0.saturating_add(1) < oldest.0 => {
                        self.tell(History::Forgotten { oldest });
                    }
                    Some(_) => {}
                }
                self.next(round, None).await;
            }
            Answer::Refused(why) => {
                round.refused = round.refused.saturating_add(1);
                // One controller that answers well is enough; only if none does, the status must
                // say so.
                if round.refused >= self.controllers.len() && adopted.is_some() {
                    self.tell(History::Refused { why });
                }
                self.next(round, None).await;
            }
        }
    }

    async fn on_news(&mut self, round: &mut Round, adopted: Option<Place>, news: News) {
        round.back_off.reset();
        round.refused = 0;
        let (newest, key) = (news.newest, news.book.key);
        let own = self.standing.borrow().key;
        if own.is_some_and(|own| key != 0 && key != own) {
            self.tell(History::Other { theirs: Place { num: newest, ..Place::default() }, key });
            return self.next(round, None).await;
        }
        let learned = self.knowledge.send_if_modified(|known| {
            // A push looks at it before each chunk.
            known.move_rate = news.move_rate;
            known.learn(adopted, news.configs, news.book)
        });
        match adopted {
            Some(adopted) if newest < adopted.num => {
                if let Some(history) = self.confirm(round.at, adopted).await {
                    self.tell(history);
                }
            }
            _ => self.tell(History::Same),
        }
        if !learned {
            // It may be cut off from the others, and never have any news.
            round.at = (round.at + 1) % self.controllers.len();
            // An answer without news must not become a hot loop, whatever the reason.
            clock::sleep(BACK_OFF_MIN).await;
        }
    }

    /// Turns to another controller after a pause.
    async fn next(&mut self, round: &mut Round, hint: Option<Address>) {
        let hinted = hint.and_then(|hint| self.controllers.iter().position(|it| *it == hint));
        round.at = hinted.unwrap_or((round.at + 1) % self.controllers.len());
        clock::sleep(round.back_off.pause(&mut self.random)).await;
    }

    /// The answer of the controllers' leader about the configuration that this group adopted.
    async fn confirm(&self, at: usize, adopted: Place) -> Option<History> {
        let mut at = at;
        for _ in 0..=self.controllers.len() {
            at = match self.ask(at, CtrlRequest::Query(Some(adopted.num))).await {
                Answer::News(news) => {
                    let theirs = news.configs.first()?.place();
                    let key = news.configs.first()?.key;
                    let same = theirs == adopted;
                    return Some(if same { History::Same } else { History::Other { theirs, key } });
                }
                Answer::NoneAfter(newest) => return Some(History::Ahead { newest }),
                Answer::Elsewhere(hint) => {
                    let hinted = hint.and_then(|hint| self.controllers.iter().position(|it| *it == hint));
                    hinted.unwrap_or((at + 1) % self.controllers.len())
                }
                _ => return None,
            };
        }
        None
    }

    /// Shows how the history of this group compares with the controllers'.
    fn tell(&self, history: History) {
        let (group, place) = (self.group, self.standing.borrow().place.unwrap_or_default());
        self.knowledge.send_if_modified(|known| {
            if known.history == history {
                return false;
            }
            match &history {
                History::Same => {
                    tracing::info!(%group, config = %place, "the controllers' history is ours again")
                }
                history => tracing::error!(
                    %group, config = %place,
                    "this group's history is {history}: it serves what it serves and adopts nothing"
                ),
            }
            known.history = history;
            true
        });
    }

    /// Notices if this group has other data than the one that joined under its id.
    fn judge_own_data(&self) {
        let group = self.group;
        let standing = self.standing.borrow().clone();
        self.knowledge.send_if_modified(|known| {
            let lost = history::lost(group, standing.incarnation, &standing, &known.book);
            if let Some((registered, own)) = lost.filter(|_| known.lost != lost) {
                tracing::error!(
                    %group, %registered, %own,
                    "this group LOST ITS DATA: the cluster knows other data under its id; it answers nothing"
                );
            }
            std::mem::replace(&mut known.lost, lost) != lost
        });
    }

    /// Ends when it is time to ask for configurations that were not kept, and the question of
    /// `adopted` does not.
    async fn runs_dry(&self, adopted: Option<Place>) {
        let runs_dry = |adopted| self.knowledge.borrow().runs_dry(adopted);
        let mut standing = self.standing.clone();
        if runs_dry(adopted) || standing.wait_for(|standing| runs_dry(standing.place)).await.is_err() {
            std::future::pending::<()>().await;
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

    /// One question to one controller.
    async fn ask(&self, at: usize, question: CtrlRequest) -> Answer {
        match self.connection.ctrl(&self.controllers[at], question, CALL).await {
            Ok(Ok(CtrlReply::Configs(news))) => Answer::News(*news),
            Ok(Ok(CtrlReply::Config(config, book))) => {
                let move_rate = self.knowledge.borrow().move_rate;
                Answer::News(News { newest: config.num, configs: vec![config], book, move_rate })
            }
            Ok(Err(CtrlRefusal::NotLeader { hint })) => Answer::Elsewhere(hint),
            Ok(Err(CtrlRefusal::OtherHistory { here, key })) => Answer::Other { here, key },
            Ok(Err(CtrlRefusal::ForgottenConfig { oldest, .. })) => Answer::Forgotten(oldest),
            Ok(Err(CtrlRefusal::UnknownConfig { newest, .. })) => Answer::NoneAfter(newest),
            Ok(answer) => {
                tracing::debug!(controller = %self.controllers[at], ?answer, "no configurations from it");
                Answer::Elsewhere(None)
            }
            Err(CallError::Refused { why, .. }) => Answer::Refused(why),
            Err(error) => {
                tracing::debug!(%error, "controller not reached");
                Answer::Elsewhere(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
