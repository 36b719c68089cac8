//! What is said to a coordinator, and how a worker reaches it.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::job::{Job, Order, Task, Work};

/// What a coordinator is asked. Harmless when repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// What is there to do for this worker? Waits for up to a second.
    Ask(u64),
    /// This attempt is done, and its files are in place.
    Done(Task, u64, Work),
    /// The app failed in this attempt: input, record and text.
    Failed(Task, u64, String),
    /// How is the job?
    View,
}

/// A coordinator's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Ask`].
    Order(Order),
    /// To [`Request::Done`] and [`Request::Failed`].
    Noted,
    /// To [`Request::View`].
    View(Box<Job>),
}

/// A coordinator, as it is called over the network.
#[tarpc::service]
pub(crate) trait MapReduce {
    async fn mr(request: Request) -> Reply;
}

/// A worker's way to the coordinator: a socket, or a simulated network.
pub trait Coordinate: Send + Sync {
    /// Asks it. An error: nobody answered, and whether the request was heard is not known.
    fn call(&self, request: Request) -> BoxFuture<'_, anyhow::Result<Reply>>;
}
