//! The chosen cluster, and how to reach it.
//!
//! A cluster is named by its controllers or by the directory of a local one. Precedence: command
//! line, CLERK_CONTROLLERS, CLERK_DIR. Verbs about local processes use only directories.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::clock::{self, Instant};
use base::socket::Key;
use clerk::api::{Address, GroupId};
use clerk::cache::ConfigCache;
use clerk::connection::{self, Connection, Options, TarpcConnection};
use clerk::ctrl::CtrlClerk;
use clerk::group::GroupClient;
use clerk::kv::{self, Clerk};

use crate::args::Args;
use crate::failure::Failure;
use crate::local::{Cluster, Directory};
use crate::output::Output;

const DIRECTORY: &str = "clerk-data";
const DATA_TIMEOUT: Duration = Duration::from_secs(10);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// What all verbs get.
pub(crate) struct Context {
    pub(crate) output: Output,
    /// The local cluster's place.
    pub(crate) directory: PathBuf,
    /// The directory of the command line alone.
    pub(crate) named_directory: Option<PathBuf>,
    controllers: Option<Vec<Address>>,
    timeout: Option<Duration>,
    /// The time of a command counts from here.
    started: Instant,
}

impl Context {
    pub(crate) fn new(args: &Args, output: Output) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let named = variable("CLERK_CONTROLLERS").filter(|_| args.dir.is_none());
        let named = named.map(|text| text.to_string_lossy().split(',').map(str::to_owned).collect());
        let directory = args.dir.clone().or_else(|| variable("CLERK_DIR").map(PathBuf::from));
        Self {
            output,
            named_directory: args.dir.clone(),
            directory: directory.unwrap_or_else(|| PathBuf::from(DIRECTORY)),
            controllers: args.controllers.clone().or(named),
            timeout: args.timeout,
            started: clock::now(),
        }
    }

    /// The same for a local cluster in `directory`, whatever else was named.
    pub(crate) fn local(&self, directory: &Path) -> Self {
        Self {
            output: self.output,
            directory: directory.to_owned(),
            named_directory: None,
            controllers: None,
            timeout: self.timeout,
            started: clock::now(),
        }
    }

    /// The same with all its time before it, for a command that goes on until somebody ends it.
    pub(crate) fn anew(&self) -> Self {
        Self {
            output: self.output,
            directory: self.directory.clone(),
            named_directory: self.named_directory.clone(),
            controllers: self.controllers.clone(),
            timeout: self.timeout,
            started: clock::now(),
        }
    }

    /// The time limit of one operation on keys, for commands that make many.
    pub(crate) fn operation_timeout(&self) -> Duration {
        self.timeout.unwrap_or(DATA_TIMEOUT)
    }

    /// When a command about keys, or a question, has to end.
    pub(crate) fn data_until(&self) -> Instant {
        self.started.after(self.operation_timeout())
    }

    /// When to stop waiting for something to settle.
    pub(crate) fn settle_until(&self) -> Instant {
        self.started.after(self.timeout.unwrap_or(SETTLE_TIMEOUT))
    }

    /// Connects to the chosen cluster.
    pub(crate) async fn reach(&self) -> Result<Reach, Failure> {
        match &self.controllers {
            None => {
                let cluster = Directory::new(&self.directory).load()?;
                Ok(Reach::local(cluster))
            }
            Some(controllers) => Reach::remote(controllers.clone(), self.data_until()).await,
        }
    }

    /// The same, even if the file of a local cluster is gone or cannot be read, as long as servers
    /// of it run.
    pub(crate) async fn reach_what_runs(&self) -> Result<Reach, Failure> {
        match &self.controllers {
            None => Ok(Reach::local(Directory::new(&self.directory).load_or_find(self.output)?)),
            Some(_) => self.reach().await,
        }
    }

    /// A clerk of the chosen cluster, for one operation.
    pub(crate) async fn clerk(&self) -> Result<Clerk, Failure> {
        let reach = self.reach().await?;
        Ok(reach.clerk(self.data_until().since(clock::now())))
    }
}

/// Access to a cluster.
pub(crate) struct Reach {
    pub(crate) cluster: String,
    /// Of the cluster: from its file or its controllers, or else the first that is met (correctness rule 51).
    pub(crate) key: Key,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) controllers: Vec<Address>,
    /// If it is a local one.
    pub(crate) local: Option<Cluster>,
}

impl Reach {
    pub(crate) fn local(cluster: Cluster) -> Self {
        let (key, controllers) = (Key::new(cluster.key()), cluster.addresses(GroupId::CONTROLLERS.0));
        Self { local: Some(cluster.clone()), ..Self::of(cluster.cluster, key, controllers) }
    }

    /// The same access with separate connections, for another runtime.
    pub(crate) fn with_own_connections(&self) -> Self {
        let fresh = Self::of(self.cluster.clone(), self.key.clone(), self.controllers.clone());
        Self { local: self.local.clone(), ..fresh }
    }

    async fn remote(controllers: Vec<Address>, until: Instant) -> Result<Self, Failure> {
        match connection::find(&controllers, until).await {
            Ok((cluster, key)) => Ok(Self::of(cluster, key, controllers)),
            Err(error) => {
                let failure = Failure::new("unavailable", error.to_string());
                Err(failure.next("check --controllers (or CLERK_CONTROLLERS)"))
            }
        }
    }

    fn of(cluster: String, key: Key, controllers: Vec<Address>) -> Self {
        let options = Options { key: key.clone(), ..Options::of(&cluster) };
        let connection = Arc::new(TarpcConnection::new(options));
        Self { cluster, key, connection, controllers, local: None }
    }

    /// The same for the survey.
    pub(crate) fn asked(&self) -> clerk_survey::reach::Reach {
        let servers = self.local.iter().flat_map(|cluster| cluster.servers.values());
        clerk_survey::reach::Reach {
            cluster: self.cluster.clone(),
            connection: Arc::clone(&self.connection),
            controllers: self.controllers.clone(),
            known: self.local.as_ref().map(Cluster::groups).unwrap_or_default(),
            ids: servers.map(|it| ((it.group, it.address.clone()), it.id)).collect(),
        }
    }

    /// The name of a server: as its cluster's file says, or else by its id, or else by its place.
    pub(crate) fn name_of(&self, group: u64, address: &Address, id: Option<u64>, place: usize) -> String {
        self.asked().name_of(group, address, id, place)
    }

    /// A client of the controllers whose next request ends at `until`.
    pub(crate) fn ctrl(&self, until: Instant) -> CtrlClerk {
        let ctrl = CtrlClerk::new(Arc::clone(&self.connection), self.controllers.clone(), rand::random());
        ctrl.with_deadline(until.since(clock::now()))
    }

    pub(crate) fn group(&self, group: GroupId, addresses: Vec<Address>) -> GroupClient {
        GroupClient::new(Arc::clone(&self.connection), group, addresses, rand::random())
    }

    pub(crate) fn clerk(&self, deadline: Duration) -> Clerk {
        let options = kv::Options { seed: rand::random(), deadline, sessions: true };
        let groups = self.local.as_ref().map(Cluster::groups).unwrap_or_default();
        let (connection, controllers) = (Arc::clone(&self.connection), self.controllers.clone());
        let cache = ConfigCache::with_groups(Arc::clone(&connection), controllers, groups, options.seed);
        Clerk::with_cache(connection, cache, options)
    }
}
