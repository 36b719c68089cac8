//! The controller as clients and groups see it, without sockets: a request in, an answer out.
//!
//! Changes go through the log and queries through ReadIndex, so only the leader answers them. A
//! watch is answered by any replica from what it has applied: lateness is harmless there (a group
//! adopts configurations in order, however late), and it keeps the load of waiting groups off the
//! leader.
//!
//! One background task follows what the replica applies, wakes the watches, and proposes the first
//! configuration when this replica leads and there is none.

use std::collections::BTreeMap;
use std::time::Duration;

use base::clock;
use clerk::api::config::{AddressBook, Params, Place, Sealed};
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News, Recovery};
use clerk::api::status::CtrlStatus;
use clerk::api::{Address, ConfigNum, Digest};
use futures::FutureExt;
use futures::future::BoxFuture;
use host::{Facts, Measures, Observed, Shown, Trace};
use raft::rsm::{ExecuteError, Measured, Replica};
use raft::storage::Read;
use raft::types::NodeId;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::state_machine::{Command, Controller, Query, Verdict, check_recovery};
use crate::{change, measured, rows};

/// The longest a watch waits (docs/a-move.md, step 3).
pub const WATCH_MAX: Duration = Duration::from_secs(2);
/// The longest a change or a query takes.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How soon a failed proposal of the first configuration is repeated.
const INIT_RETRY: Duration = Duration::from_millis(200);

/// A service's settings, besides its replica.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the controllers are, for hints.
    pub members: BTreeMap<NodeId, Address>,
    /// The limits this cluster gets if it has no configuration yet.
    pub params: Params,
    /// The key it gets then, drawn at random; never 0.
    pub key: u64,
    /// The first name of a session if these controllers are recovered: drawn at random, far above
    /// any that the lost ones can have given.
    pub sessions: u64,
    /// Wait to be recovered instead of making configuration 0.
    pub recover: bool,
    /// What its status shows besides the replica.
    pub facts: Facts,
}

/// How far a replica has applied: the newest configuration and the version of the address book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    config: Option<ConfigNum>,
    book: u64,
}

/// Tells of configurations that a replica applies.
#[derive(Clone)]
pub struct Changes(watch::Receiver<Head>);

impl Changes {
    /// For tests: never any.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(watch::channel(Head::default()).1)
    }

    /// Waits for the next one. Forever, if the replica has stopped.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Answers requests. Dropping it ends its background task; the replica is stopped by its owner.
pub struct Service {
    replica: Replica<Controller>,
    settings: Settings,
    head: watch::Receiver<Head>,
    measures: Measures,
    _follower: AbortOnDropHandle<()>,
}

impl Service {
    /// A service over a started replica. Call it inside a runtime.
    pub fn new(replica: Replica<Controller>, settings: Settings) -> Self {
        let (sender, head) = watch::channel(Head::default());
        let follower = follow(replica.clone(), settings.clone(), sender).in_current_span();
        let follower = AbortOnDropHandle::new(tokio::spawn(follower));
        let measures = Measures::new(&measured::VERBS);
        let measures = measures.with_slow(settings.facts.slow, &measured::PATIENT);
        Self { replica, settings, head, measures, _follower: follower }
    }

    /// The replica that it serves.
    pub fn replica(&self) -> &Replica<Controller> {
        &self.replica
    }

    /// Changes with each configuration that this replica applies.
    pub fn changes(&self) -> Changes {
        Changes(self.head.clone())
    }

    /// Answers `request`.
    ///
    /// # Errors
    /// [`CtrlRefusal`], which says what to do.
    pub async fn handle(&self, request: CtrlRequest) -> Verdict {
        let running = self.measures.begin(measured::verb(&request));
        let verdict = self.answer(running.trace(), request).await;
        running.end(measured::ended(&verdict));
        verdict
    }

    async fn answer(&self, trace: &Trace, request: CtrlRequest) -> Verdict {
        let is_answered =
            matches!(request, CtrlRequest::Recover(_) | CtrlRequest::Status | CtrlRequest::Server(_));
        if self.is_recovering() && !is_answered {
            self.caught_up(trace).await?;
            if self.is_recovering() {
                return Err(CtrlRefusal::Recovering);
            }
        }
        match request {
            CtrlRequest::Open => self.execute(trace, &Command::Open).await,
            CtrlRequest::Change { ticket, change } => {
                change::check(&change)?;
                self.execute(trace, &Command::Change { ticket, change }).await
            }
            CtrlRequest::Plan(change) => {
                change::check(&change)?;
                self.query(trace, Query::Plan(change)).await
            }
            CtrlRequest::Query(num) => self.query(trace, Query::Config(num)).await,
            CtrlRequest::Placement => self.query(trace, Query::Placement).await,
            CtrlRequest::History { after } => self.query(trace, Query::History { after }).await,
            CtrlRequest::Watch { after, digest, book } => {
                self.watch(Place { num: after, digest }, book).await
            }
            CtrlRequest::Recover(recovery) => self.recover(trace, *recovery).await,
            CtrlRequest::Status => Ok(CtrlReply::Status(Box::new(self.status()))),
            CtrlRequest::Server(request) => Ok(CtrlReply::Server(host::about(&self.measures, request))),
        }
    }

    async fn execute(&self, trace: &Trace, command: &Command) -> Verdict {
        let output = self.replica.execute_marked(command, false, REQUEST_MAX, trace.marks()).await;
        output.unwrap_or_else(|error| Err(self.refusal(error)))
    }

    async fn query(&self, trace: &Trace, query: Query) -> Verdict {
        self.linearized(trace, query).await?
    }

    /// The leader's answer to `query`, once everything that was committed before is applied.
    async fn linearized(&self, trace: &Trace, query: Query) -> Result<Verdict, CtrlRefusal> {
        let answer = self.replica.query_marked(query, REQUEST_MAX, trace.marks()).await;
        answer.map_err(|error| match error {
            // A query that was not answered changed nothing: it may simply be repeated.
            ExecuteError::Unknown => CtrlRefusal::NotExecuted,
            error => self.refusal(error),
        })
    }

    /// Waits until this leader has applied everything that was committed before: a table that has
    /// not yet applied the recovery would say that there was none.
    async fn caught_up(&self, trace: &Trace) -> Result<(), CtrlRefusal> {
        self.linearized(trace, Query::Config(None)).await.map(drop)
    }

    fn refusal(&self, error: ExecuteError) -> CtrlRefusal {
        match error {
            ExecuteError::NotLeader { hint } => CtrlRefusal::NotLeader {
                hint: hint.and_then(|leader| self.settings.members.get(&leader).cloned()),
            },
            ExecuteError::Unknown => CtrlRefusal::Unknown,
            ExecuteError::NotExecuted => CtrlRefusal::NotExecuted,
            ExecuteError::Busy => CtrlRefusal::Busy,
            ExecuteError::DiskFull => CtrlRefusal::DiskFull,
        }
    }

    /// Whether these controllers have no configuration and make none.
    fn is_recovering(&self) -> bool {
        self.settings.recover && rows::newest(&**self.replica.table()).is_none()
    }

    async fn recover(&self, trace: &Trace, recovery: Recovery) -> Verdict {
        // Controllers started without --recover make their own configuration 0. A recovery must not get there first.
        let founds = || !self.settings.recover && rows::newest(&**self.replica.table()).is_none();
        if founds() {
            // This one may only lag. If there is no leader it answers for itself.
            match self.caught_up(trace).await {
                Ok(()) | Err(CtrlRefusal::NotLeader { hint: None }) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        if founds() {
            let why = "they were not started with --recover".to_owned();
            return Err(CtrlRefusal::NotRecovered(why));
        }
        check_recovery(&recovery)?;
        self.execute(trace, &Command::Recover { recovery, sessions: self.settings.sessions }).await
    }

    async fn watch(&self, after: Place, book: u64) -> Verdict {
        let mut head = self.head.clone();
        let table = &**self.replica.table();
        self.same_history(after)?;
        let is_news = |head: &Head| head.config.is_some_and(|config| config > after.num) || head.book > book;
        // Nothing new in time, or the task that follows is gone because the node stops: answer with
        // what there is.
        let _ = clock::timeout(WATCH_MAX, head.wait_for(is_news)).await;
        // This replica may have learned only now which configuration `after` is.
        self.same_history(after)?;
        // Configurations first: a book that is newer than they are is harmless.
        let configs = rows::configs_after(table, Some(after.num));
        // A caller before the oldest configuration lacks configurations that nobody has.
        let (oldest, asked) = (rows::oldest(table), ConfigNum(after.num.0.saturating_add(1)));
        if asked < oldest {
            return Err(CtrlRefusal::ForgottenConfig { asked, oldest });
        }
        let newest = rows::newest(table).unwrap_or_default();
        let book = book_after(table, book);
        let move_rate = rows::placement(table).move_rate;
        let news = News { configs, newest, book, move_rate };
        // Checked last: rows that were read must not be sent once they are known to be wrong (rule
        // 69).
        if self.replica.is_table_bad() {
            return Err(self.refusal(ExecuteError::NotLeader { hint: self.replica.leadership().leader }));
        }
        Ok(CtrlReply::Configs(Box::new(news)))
    }

    /// Refuses a caller whose configuration differs from the one of that number here. A replica
    /// that does not know the number yet may only lag.
    fn same_history(&self, after: Place) -> Result<(), CtrlRefusal> {
        let table = &**self.replica.table();
        let digest = rows::digest(table, after.num).unwrap_or(after.digest);
        if after.digest == Digest::default()
            || digest == after.digest
            || base::mutant!("watch-ignores-digest")
        {
            return Ok(());
        }
        let key = rows::cluster_key(table).unwrap_or(0);
        Err(CtrlRefusal::OtherHistory { here: Place { num: after.num, digest }, key })
    }

    fn status(&self) -> CtrlStatus {
        let table = &**self.replica.table();
        let newest = rows::newest(table).and_then(|newest| rows::config(table, newest));
        CtrlStatus {
            replica: host::replica_status(&self.settings.facts, &self.replica.status(), &self.measures),
            config: newest.as_ref().map(|newest| newest.num).unwrap_or_default(),
            digest: newest.as_ref().map(Sealed::digest),
            key: newest.as_ref().map(|newest| newest.key),
            recovering: self.is_recovering(),
        }
    }
}

impl Observed for Service {
    fn shown(&self) -> BoxFuture<'_, Shown> {
        async { Shown::Controller(Box::new(self.status())) }.boxed()
    }

    fn measures(&self) -> &Measures {
        &self.measures
    }

    fn replica_measured(&self) -> Measured {
        self.replica.measured()
    }

    fn since_last_tick(&self) -> Duration {
        self.replica.since_last_tick()
    }
}

/// The address book for a caller that has version `known`. It has addresses only if it is newer:
/// they may be megabytes, and are asked for every two seconds (rule 102).
fn book_after(table: &dyn Read, known: u64) -> AddressBook {
    let version = rows::book_version(table);
    if version > known || known == 0 {
        return rows::book(table);
    }
    AddressBook { version, key: rows::cluster_key(table).unwrap_or(0), ..AddressBook::default() }
}

/// Follows what the replica applies until it stops.
async fn follow(replica: Replica<Controller>, settings: Settings, head: watch::Sender<Head>) {
    let Settings { params, key, recover, .. } = settings;
    let mut status = replica.watch();
    let mut read_at = None;
    let mut seen = Head::default();
    loop {
        let (is_leader, applied) = {
            let status = status.borrow_and_update();
            (status.role == raft::rsm::Role::Leader, status.applied)
        };
        if read_at.replace(applied) != Some(applied) {
            seen = read_head(&**replica.table());
            head.send_if_modified(|head| std::mem::replace(head, seen) != seen);
        }
        let founds = !recover || base::mutant!("init-while-recovering");
        if is_leader && seen.config.is_none() && founds {
            match replica.execute(&Command::Init { params, key }, REQUEST_MAX).await {
                Ok(_) => continue,
                Err(error) => tracing::debug!(%error, "the first configuration is not made yet"),
            }
            clock::sleep(INIT_RETRY).await;
        } else if status.changed().await.is_err() {
            return;
        }
    }
}

/// What is newest now.
fn read_head(table: &dyn Read) -> Head {
    Head { config: rows::newest(table), book: rows::book_version(table) }
}

#[cfg(test)]
mod tests;
