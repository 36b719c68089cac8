//! The connection to a coordinator over TCP. The address is in the job's directory. It is read
//! again for each connection, because another coordinator may have taken the job over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base::socket::wire::{self, ClientTransport};
use base::socket::{Hello, dial};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tarpc::context;
use tokio::sync::Mutex;

use crate::api::{Coordinate, MapReduceClient, MapReduceRequest, MapReduceResponse, Reply, Request};
use crate::coordinator::{FRAME_BYTES_MAX, name_of};
use crate::files::{ADDRESS, Directory};
use crate::job::Job;

const DIAL_MAX: Duration = Duration::from_secs(1);
/// An answer comes within this time, even to an `Ask`.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A connection to the coordinator of a job.
pub struct Remote {
    directory: Directory,
    job: u64,
    open: Mutex<Option<MapReduceClient>>,
}

impl Remote {
    /// For the job of this directory.
    pub fn new(directory: Directory, job: u64) -> Self {
        Self { directory, job, open: Mutex::new(None) }
    }

    /// The state of the job.
    pub async fn view(&self) -> anyhow::Result<Job> {
        match self.call(Request::View).await? {
            Reply::View(job) => Ok(*job),
            _ => bail!("the coordinator answers another question"),
        }
    }

    async fn connect(&self) -> anyhow::Result<MapReduceClient> {
        let address = self.directory.text(ADDRESS).context("it never started")?;
        let hello = Hello { cluster: name_of(self.job), ..Hello::default() };
        let (stream, _) = dial(&address, &hello, DIAL_MAX).await.with_context(|| address.clone())?;
        let transport: ClientTransport<MapReduceRequest, MapReduceResponse> =
            wire::client(stream.with_frame_bytes_max(FRAME_BYTES_MAX));
        let started = MapReduceClient::new(tarpc::client::Config::default(), transport);
        tokio::spawn(started.dispatch.map(drop));
        Ok(started.client)
    }

    async fn ask(&self, request: Request) -> anyhow::Result<Reply> {
        let mut open = self.open.lock().await;
        let client = match open.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        let mut context = context::current();
        context.deadline = Instant::now() + ANSWER_MAX;
        let reply = client.mr(context, request).await?;
        // Kept only if it works.
        *open = Some(client);
        Ok(reply)
    }
}

impl Coordinate for Remote {
    fn call(&self, request: Request) -> BoxFuture<'_, anyhow::Result<Reply>> {
        Box::pin(self.ask(request).map(|reply| reply.context("the coordinator does not answer")))
    }
}
