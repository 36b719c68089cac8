//! The way to a coordinator over TCP. Where it is stands in the job's directory, and is read again for each connection:
//! another coordinator may have taken the job over.

use std::time::{Duration, Instant};

use base::socket::wire::{self, ClientTransport};
use base::socket::{Hello, dial};
use futures::FutureExt;
use futures::future::BoxFuture;
use tarpc::context;
use tokio::sync::Mutex;

use crate::api::{
    Coordinate, MapReduceClient, MapReduceRequest, MapReduceResponse, Reply, Request, Unreachable,
};
use crate::coordinator::{FRAME_BYTES_MAX, name_of};
use crate::files::Directory;

const DIAL_MAX: Duration = Duration::from_secs(1);
/// An answer comes within this, an `Ask` included.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A way to the coordinator of a job.
pub struct Remote {
    directory: Directory,
    job: u64,
    open: Mutex<Option<MapReduceClient>>,
}

impl Remote {
    /// To the job of a directory.
    pub fn new(directory: Directory, job: u64) -> Self {
        Self { directory, job, open: Mutex::new(None) }
    }

    async fn connect(&self) -> Result<MapReduceClient, Unreachable> {
        let address = self.directory.address().ok_or_else(|| Unreachable("it never started".into()))?;
        let hello = Hello { cluster: name_of(self.job), ..Hello::default() };
        let dialed = dial(&address, &hello, DIAL_MAX).await;
        let (stream, _) = dialed.map_err(|error| Unreachable(format!("{address}: {error}")))?;
        let transport: ClientTransport<MapReduceRequest, MapReduceResponse> =
            wire::client(stream.with_frame_bytes_max(FRAME_BYTES_MAX));
        let started = MapReduceClient::new(tarpc::client::Config::default(), transport);
        tokio::spawn(started.dispatch.map(drop));
        Ok(started.client)
    }
}

impl Coordinate for Remote {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, Unreachable>> {
        Box::pin(async move {
            let mut open = self.open.lock().await;
            let client = match open.take() {
                Some(client) => client,
                None => self.connect().await?,
            };
            let mut context = context::current();
            context.deadline = Instant::now() + ANSWER_MAX;
            let reply = client.mr(context, request).await;
            let reply = reply.map_err(|error| Unreachable(error.to_string()))?;
            // Kept only if it works.
            *open = Some(client);
            Ok(reply)
        })
    }
}
