//! Finds the cluster: a caller that knows only the addresses of controllers asks them.
//!
//! Every connection names the cluster and its key, so both have to be known before the first
//! request.

use std::time::Duration;

use base::clock::{self, Instant};
use base::socket::{self, DialError, Key};
use futures::stream::{FuturesUnordered, StreamExt};

use crate::api::Address;

/// The pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);

/// No controller said which cluster it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no controller answers: {}", said.join("; "))]
pub struct NotFound {
    /// What each said, or why it said nothing.
    pub said: Vec<String>,
}

/// Asks all `controllers` for the name and the key of their cluster, until `until`. The first
/// answer counts; a controller that refuses is not asked again.
///
/// # Errors
/// [`NotFound`].
pub async fn find(controllers: &[Address], until: Instant) -> Result<(String, Key), NotFound> {
    let mut asked: FuturesUnordered<_> = controllers.iter().map(|address| ask(address, until)).collect();
    let mut said = Vec::new();
    while let Some(answer) = asked.next().await {
        match answer {
            Ok((cluster, key)) => return Ok((cluster, Key::new(key))),
            Err(why) => said.push(why),
        }
    }
    Err(NotFound { said })
}

async fn ask(address: &Address, until: Instant) -> Result<(String, Option<u64>), String> {
    loop {
        let error = match socket::cluster_of(address, until.since(clock::now())).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // Asked again, it would say the same.
        let is_refused = matches!(error, DialError::Refused(_));
        if !is_refused && clock::now().after(PAUSE) >= until {
            clock::sleep(until.since(clock::now())).await;
        }
        if is_refused || clock::now() >= until {
            return Err(format!("{address}: {error}"));
        }
        clock::sleep(PAUSE).await;
    }
}
