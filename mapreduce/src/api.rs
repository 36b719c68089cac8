//! The messages to a coordinator, and the trait through which a worker sends them.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::job::{Job, Order, Task, Work};

/// A request to a coordinator. Repeating one is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Is there work for this worker? Waits for up to a second.
    Ask(u64),
    /// This attempt is done, and its files are in place.
    Done(Task, u64, Work),
    /// The app failed in this attempt: input, record and reason in one text.
    Failed(Task, u64, String),
    /// Asks for the state of the job.
    View,
}

/// A coordinator's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The answer to [`Request::Ask`].
    Order(Order),
    /// The answer to [`Request::Done`] and [`Request::Failed`].
    Noted,
    /// The answer to [`Request::View`].
    View(Box<Job>),
}

/// A coordinator as a network service.
#[tarpc::service]
pub(crate) trait MapReduce {
    async fn mr(request: Request) -> Reply;
}

/// A worker's way to the coordinator: a socket, or a simulated network.
pub trait Coordinate: Send + Sync {
    /// Sends a request. After an error it is not known whether the coordinator received it.
    fn call(&self, request: Request) -> BoxFuture<'_, anyhow::Result<Reply>>;
}
