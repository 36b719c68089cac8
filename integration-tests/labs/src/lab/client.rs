//! A client of a lab's store: the product's clerk, with every operation in the run's history.
//!
//! As in the labs it retries forever: an operation ends with its outcome or with the test.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use base::clock;
use clerk::api::Address;
use clerk::connection::Connection;
use clerk::kv::{Clerk, Options};
use rand::RngExt as _;

use judge::history::Op;
use sim::Generator;
use sim::clerks::KvStore;
use sim::workload::{Answer, Recorder, Request};

/// Longer than any test.
pub const FOREVER: Duration = Duration::from_secs(3600);

/// The longest wait after a refused put: about a round of ten clients that race.
const MOMENT_US: u64 = 2000;

/// The result of a conditional put (the labs' OK, ErrVersion, ErrNoKey, ErrMaybe).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Done.
    Ok,
    /// The key has another version: not done.
    Version,
    /// The key does not exist: not done.
    NoKey,
    /// Another version was met after an earlier attempt may have been executed.
    Maybe,
}

/// A client: one operation at a time.
pub struct Client {
    store: KvStore,
    recorder: Recorder,
    id: u64,
    /// Draws a time to wait after a refused put; none: no wait.
    moments: Option<Generator>,
    /// The clerk itself, for operations that are not in here and need not be recorded.
    pub clerk: Clerk,
}

impl Client {
    pub(super) fn new(
        connection: Arc<dyn Connection>,
        controllers: Vec<Address>,
        recorder: &Recorder,
        seed: u64,
        sessions: bool,
    ) -> Self {
        let clerk = Clerk::new(connection, controllers, Options { seed, deadline: FOREVER, sessions });
        let store = KvStore::of(clerk.clone());
        Self {
            // Nobody deletes in the suites of the versioned API.
            store: if sessions { store } else { store.repeating_creates() },
            recorder: recorder.clone(),
            id: recorder.new_client(),
            moments: None,
            clerk,
        }
    }

    /// Waits a random time after each refused put. Needed on real processes: there clients of one
    /// process that race take turns so regularly that the same one is last in every round, and
    /// never wins. (In the labs the scheduler is random, and in the simulator the network is.)
    pub(super) fn waiting(mut self, moments: Generator) -> Self {
        self.moments = Some(moments);
        self
    }

    async fn run(&mut self, op: Op, key: &str, value: Option<&str>, expected: Option<u64>) -> Answer {
        let request = Request { op, key: key.to_owned(), value: value.map(str::to_owned), expected };
        let answer = self.recorder.run(self.id, &mut self.store, &request).await;
        if answer == Answer::Unknown {
            // A client has one operation at a time, and this one may still happen.
            self.id = self.recorder.new_client();
        }
        answer
    }

    async fn done(&mut self, op: Op, key: &str, value: Option<&str>) -> anyhow::Result<(String, u64)> {
        match self.run(op, key, value, None).await {
            Answer::Done { output, version } => {
                let output = output.unwrap_or_default();
                Ok((String::from_utf8_lossy(&output).into_owned(), version))
            }
            answer => bail!("{op:?} {key} was answered {answer:?}"),
        }
    }

    /// The value ("" of a missing key) and version (0 of a missing key).
    ///
    /// # Errors
    /// When the store refuses for good.
    pub async fn get(&mut self, key: &str) -> anyhow::Result<(String, u64)> {
        self.done(Op::Get, key, None).await
    }

    /// Sets the value; returns the new version.
    ///
    /// # Errors
    /// When the store refuses for good.
    pub async fn put(&mut self, key: &str, value: &str) -> anyhow::Result<u64> {
        Ok(self.done(Op::Put, key, Some(value)).await?.1)
    }

    /// Appends to the value; returns the new version.
    ///
    /// # Errors
    /// When the store refuses for good.
    pub async fn append(&mut self, key: &str, piece: &str) -> anyhow::Result<u64> {
        Ok(self.done(Op::Append, key, Some(piece)).await?.1)
    }

    /// Removes the key; returns the version that was deleted.
    ///
    /// # Errors
    /// When the store refuses for good.
    pub async fn delete(&mut self, key: &str) -> anyhow::Result<u64> {
        Ok(self.done(Op::Delete, key, None).await?.1)
    }

    /// Sets the value if the version is `version` (0: if the key is missing): the labs' Put.
    ///
    /// # Errors
    /// When the store refuses for good.
    pub async fn put_if(&mut self, key: &str, value: &str, version: u64) -> anyhow::Result<Put> {
        match self.run(Op::Cas, key, Some(value), Some(version)).await {
            Answer::Done { version: now, .. } if now == version + 1 => Ok(Put::Ok),
            Answer::Done { version: now, .. } => Err(anyhow!("put at version {version} made version {now}")),
            Answer::Mismatch(0) => Ok(Put::NoKey),
            Answer::Mismatch(_) => {
                if let Some(moments) = &mut self.moments {
                    clock::sleep(Duration::from_micros(moments.random_range(0..=MOMENT_US))).await;
                }
                Ok(Put::Version)
            }
            Answer::Unknown => Ok(Put::Maybe),
            Answer::Refused => Err(anyhow!("put {key} was refused")),
        }
    }

    /// Reads the key and compares.
    ///
    /// # Errors
    /// When it has another value.
    pub async fn check(&mut self, key: &str, expected: &str) -> anyhow::Result<()> {
        let (found, _) = self.get(key).await?;
        anyhow::ensure!(found == expected, "get {key}: found {found:?}, expected {expected:?}");
        Ok(())
    }

    /// Reads the key and compares value and version.
    ///
    /// # Errors
    /// When one of them differs.
    pub async fn check_version(&mut self, key: &str, expected: &str, version: u64) -> anyhow::Result<()> {
        let found = self.get(key).await?;
        let expected = (expected.to_owned(), version);
        anyhow::ensure!(found == expected, "get {key}: found {found:?}, expected {expected:?}");
        Ok(())
    }
}
