//! The shard controller's client.
//!
//! Changes are exactly-once: each carries the session and number that were given to it, on every
//! attempt (correctness rules 26, 43). One change is under way at a time; the next waits for it. An
//! expired session is replaced if no attempt of the change may have been executed; otherwise its
//! outcome is unknown, and the caller looks at the configuration.
//!
//! Left out on purpose: waiting until a change has settled, which takes the groups' status.

use std::sync::Arc;
use std::time::Duration;

use base::clock::{self, Instant};
use futures::future::{BoxFuture, join_all, select_ok};
use tokio::sync::Mutex;

use crate::api::config::{AddressBook, Move, Place, Sealed};
use crate::api::ctrl::{Change, CtrlRefusal, CtrlReply, CtrlRequest, News, Recovery};
use crate::api::placement::Placement;
use crate::api::status::CtrlStatus;
use crate::api::{Address, ConfigNum, Digest, Seq, SessionId, Ticket};
use crate::connection::{CallError, Called, Connection};
use crate::group::{AskError, Attempts, Language, PATIENCE, Servers, Step};
use crate::statuses;

/// Longer than a controller holds a watch: up to two seconds.
const WATCH: Duration = Duration::from_millis(2500);
const STATUS: Duration = Duration::from_secs(1);
/// Total time of a request, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a request to the controller has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It refused; nothing was changed.
    #[error("{0}")]
    Refused(CtrlRefusal),
    /// Whether the change was made is not known.
    #[error("whether the change was made is not known: query the configuration before repeating it")]
    Unknown,
    /// No controller answered in time; definitely nothing was changed.
    #[error("the controllers are not available: {why}")]
    Unavailable {
        /// What each of them said.
        why: String,
    },
    /// These are not the controllers of this cluster.
    #[error("{why}")]
    Foreign {
        /// In the words of one of them.
        why: String,
    },
}

/// What a change made, or would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The configuration that follows; the present one if nothing changes.
    pub config: ConfigNum,
    /// The shards that change hands.
    pub moves: Vec<Move>,
}

struct Ctrl;

impl Language for Ctrl {
    type Request = CtrlRequest;
    type Reply = CtrlReply;
    type Refusal = CtrlRefusal;

    fn call<'a>(
        &'a self,
        connection: &'a dyn Connection,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<CtrlReply, CtrlRefusal>> {
        connection.ctrl(to, request, deadline)
    }

    fn judge(refusal: CtrlRefusal) -> Result<Step, CtrlRefusal> {
        match refusal {
            CtrlRefusal::NotLeader { hint } => Ok(Step::Hinted(hint)),
            CtrlRefusal::Unknown => Ok(Step::Unfinished),
            CtrlRefusal::NotExecuted | CtrlRefusal::Busy => Ok(Step::Again(refusal.to_string())),
            refusal => Err(refusal),
        }
    }
}

/// A client of the controllers. Clones share their session and what they know of the leader.
#[derive(Clone)]
pub struct CtrlClerk {
    shared: Arc<Shared>,
    deadline: Duration,
}

struct Shared {
    servers: Servers<Ctrl>,
    session: Mutex<Option<Session>>,
}

/// The session and the number of its last change.
#[derive(Clone, Copy)]
struct Session {
    id: SessionId,
    last: u64,
}

impl CtrlClerk {
    /// A client of the controllers at these addresses. `seed` decides its jitter.
    pub fn new(connection: Arc<dyn Connection>, controllers: Vec<Address>, seed: u64) -> Self {
        let seed = base::seed::derive(seed, "controllers");
        let servers = Servers::new(Ctrl, connection, controllers, seed);
        Self { shared: Arc::new(Shared { servers, session: Mutex::new(None) }), deadline: DEADLINE }
    }

    /// The same client with another total time for each request (default 10 s).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Where the controllers are.
    pub fn addresses(&self) -> &[Address] {
        self.shared.servers.addresses()
    }

    /// A configuration, the newest if no number is given, and the newest address book. Linearizable.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn query(&self, num: Option<ConfigNum>) -> Result<(Sealed, AddressBook), Error> {
        match self.read(&CtrlRequest::Query(num)).await? {
            CtrlReply::Config(config, book) => Ok((config, book)),
            reply => Err(odd(&reply)),
        }
    }

    /// Configurations with a number above `after` (none: from 0 on), in order, at most 64. Linearizable.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn history(&self, after: Option<ConfigNum>) -> Result<Vec<Sealed>, Error> {
        match self.read(&CtrlRequest::History { after }).await? {
            CtrlReply::Configs(news) => Ok(news.configs),
            reply => Err(odd(&reply)),
        }
    }

    /// What a change would make; makes nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn plan(&self, change: Change) -> Result<Changed, Error> {
        changed(self.read(&CtrlRequest::Plan(change)).await?)
    }

    /// The weights and pins in force. Linearizable.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn placement(&self) -> Result<Placement, Error> {
        match self.read(&CtrlRequest::Placement).await? {
            CtrlReply::Placement(placement) => Ok(*placement),
            reply => Err(odd(&reply)),
        }
    }

    /// Waits up to two seconds at any controller for news; then answers with what there is,
    /// possibly nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn watch(&self, after: Place, book: u64) -> Result<News, Error> {
        let until = clock::now().after(self.deadline);
        let request = CtrlRequest::Watch { after: after.num, digest: after.digest, book };
        match self.shared.servers.ask_any(&request, WATCH, until).await.map_err(unavailable)? {
            CtrlReply::Configs(news) => Ok(*news),
            reply => Err(odd(&reply)),
        }
    }

    /// The newest configuration with groups that some controller knows, whether or not it leads,
    /// possibly an old one: the first answer is believed.
    ///
    /// # Errors
    /// What a controller answered, if none knows one.
    pub async fn hearsay(&self) -> Result<(Sealed, AddressBook), CallError> {
        match self.addresses() {
            [] => Err(knows_nothing(&Address::new())),
            addresses => Ok(select_ok(addresses.iter().map(|address| Box::pin(self.hear(address)))).await?.0),
        }
    }

    /// The newest configuration that this controller knows.
    async fn hear(&self, controller: &Address) -> Result<(Sealed, AddressBook), CallError> {
        let refused = |refusal: CtrlRefusal| CallError::Refused {
            address: controller.clone(),
            why: refusal.to_string(),
        };
        let nothing = || knows_nothing(controller);
        let servers = &self.shared.servers;
        let status = statuses::of_controller(servers.connection(), controller, STATUS).await?;
        let before = status.config.0.checked_sub(1).ok_or_else(nothing)?;
        let watch = CtrlRequest::Watch { after: ConfigNum(before), digest: Digest::default(), book: 0 };
        let CtrlReply::Configs(news) = servers.call(controller, watch, STATUS).await?.map_err(refused)?
        else {
            return Err(nothing());
        };
        let News { mut configs, book, .. } = *news;
        configs.pop().map(|config| (config, book)).ok_or_else(nothing)
    }

    /// Changes the configuration, exactly once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn change(&self, change: Change) -> Result<Changed, Error> {
        let until = clock::now().after(self.deadline);
        let late = |_| Error::Unavailable { why: "another change is under way".to_owned() };
        let mut session = clock::timeout(self.deadline, self.shared.session.lock()).await.map_err(late)?;
        let mut attempts = Attempts::repeatable();
        loop {
            let mut open = match *session {
                Some(open) => open,
                None => Session { id: self.open(until).await?, last: 0 },
            };
            open.last += 1;
            // Before the request leaves: a change that is cut short must not pass its number to the
            // next.
            *session = Some(open);
            let ticket = Ticket { session: open.id, seq: Seq(open.last) };
            let request = CtrlRequest::Change { ticket, change: change.clone() };
            let error = match self.ask(&request, until, &mut attempts).await {
                Ok(reply) => return changed(reply),
                Err(error) => error,
            };
            match error {
                AskError::Refused(CtrlRefusal::SessionExpired | CtrlRefusal::StaleSeq) => {
                    *session = None;
                    if attempts.may_have_acted {
                        return Err(Error::Unknown);
                    }
                }
                // Not recorded like a verdict: an earlier attempt may have been executed.
                AskError::Refused(CtrlRefusal::DiskFull) if attempts.may_have_acted => {
                    return Err(Error::Unknown);
                }
                AskError::Refused(refusal) => return Err(Error::Refused(refusal)),
                _ if attempts.may_have_acted => return Err(Error::Unknown),
                error => return Err(unavailable(error)),
            }
        }
    }

    /// Tells controllers that were started to be recovered what to continue from; returns the
    /// configuration they are at. Harmless if they know it already.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn recover(&self, recovery: Recovery) -> Result<Place, Error> {
        match self.read(&CtrlRequest::Recover(Box::new(recovery))).await? {
            CtrlReply::Recovered(newest) => Ok(newest),
            reply => Err(odd(&reply)),
        }
    }

    /// The status of each controller, all asked at the same time.
    pub async fn statuses(&self) -> Vec<(Address, Result<CtrlStatus, String>)> {
        self.statuses_within(STATUS).await
    }

    /// The same, from those that answer within `limit`.
    pub async fn statuses_within(&self, limit: Duration) -> Vec<(Address, Result<CtrlStatus, String>)> {
        let asked = self.addresses().iter().map(|address| async move {
            let status = statuses::of_controller(self.shared.servers.connection(), address, limit).await;
            (address.clone(), status.map_err(|error| error.to_string()))
        });
        join_all(asked).await
    }

    async fn open(&self, until: Instant) -> Result<SessionId, Error> {
        // Opened twice, the first session is merely never used.
        let mut attempts = Attempts::repeatable();
        match self.ask(&CtrlRequest::Open, until, &mut attempts).await.map_err(unavailable)? {
            CtrlReply::Opened(session) => Ok(session),
            reply => Err(odd(&reply)),
        }
    }

    async fn read(&self, request: &CtrlRequest) -> Result<CtrlReply, Error> {
        let until = clock::now().after(self.deadline);
        self.ask(request, until, &mut Attempts::repeatable()).await.map_err(unavailable)
    }

    /// Asks until the deadline: for controllers there is nowhere else to go.
    async fn ask(
        &self,
        request: &CtrlRequest,
        until: Instant,
        attempts: &mut Attempts,
    ) -> Result<CtrlReply, AskError<CtrlRefusal>> {
        const PAUSE: Duration = Duration::from_millis(50);
        let mut before: Option<String> = None;
        loop {
            match self.shared.servers.ask(request, until, PATIENCE, attempts).await {
                Err(AskError::NoLeader { why }) => {
                    let left = until.since(clock::now());
                    if left.is_zero() {
                        // The last attempt may have had no time for an answer.
                        return Err(AskError::NoLeader { why: before.unwrap_or(why) });
                    }
                    before = Some(why);
                    clock::sleep(left.min(PAUSE)).await;
                }
                answer => return answer,
            }
        }
    }
}

/// A controller that knows nothing must not count as the first answer.
fn knows_nothing(controller: &Address) -> CallError {
    CallError::Refused {
        address: controller.clone(),
        why: "it knows no configuration with groups".to_owned(),
    }
}

fn changed(reply: CtrlReply) -> Result<Changed, Error> {
    match reply {
        CtrlReply::Changed { config, moves } => Ok(Changed { config, moves }),
        reply => Err(odd(&reply)),
    }
}

/// The error of a request that changed nothing.
fn unavailable(error: AskError<CtrlRefusal>) -> Error {
    match error {
        AskError::Refused(refusal) => Error::Refused(refusal),
        AskError::Unknown => Error::Unknown,
        AskError::NoLeader { why } => Error::Unavailable { why },
        AskError::Foreign { why } => Error::Foreign { why },
    }
}

/// A server of another build, or broken: its answer is refused (correctness rule 49).
fn odd(reply: &CtrlReply) -> Error {
    tracing::debug!(?reply, "an answer to another question");
    Error::Foreign { why: "a controller answered another question: is it of this build?".to_owned() }
}

#[cfg(test)]
mod tests;
