//! What is said to a coordinator, and how a worker reaches it.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::job::{Order, Task, View, Work};

/// What a coordinator is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// What is there to do? Waits for up to a second.
    Ask {
        /// Who asks.
        worker: u64,
    },
    /// An attempt is done, and its files are in place. Harmless when repeated.
    Done {
        /// The task.
        task: Task,
        /// The attempt.
        attempt: u64,
        /// What it did.
        work: Work,
    },
    /// The app failed in an attempt. Harmless when repeated.
    Failed {
        /// The task.
        task: Task,
        /// The attempt.
        attempt: u64,
        /// Input, record and text.
        report: String,
    },
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
    View(Box<View>),
}

/// A coordinator, as it is called over the network.
#[tarpc::service]
pub trait MapReduce {
    /// Asks it.
    async fn mr(request: Request) -> Reply;
}

/// Nobody answered; whether the request was heard is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator does not answer: {0}")]
pub struct Unreachable(pub String);

/// A worker's way to the coordinator: a socket, or a simulated network.
pub trait Coordinate: Send + Sync {
    /// Asks it.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, Unreachable>>;
}
