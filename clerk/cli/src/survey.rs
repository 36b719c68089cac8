//! The survey of the chosen cluster.

use std::time::Duration;

use base::clock::{self, Instant};
pub(crate) use clerk_survey::survey::{Answers, Survey, speaker};

use clerk_survey::watch::Watcher;
use serde_json::Value;

use crate::context::{Context, Reach};
use crate::failure::Failure;

/// Between two looks of which rates are made.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// Who looks again and again.
pub(crate) fn watcher(reach: &Reach) -> Watcher {
    Watcher::new(reach.asked(), "clerk".to_owned(), false)
}

/// The whole document of the chosen cluster, with the rates of a second.
pub(crate) async fn seen(context: &Context) -> Result<Value, Failure> {
    let mut watcher = watcher(&context.reach_what_runs().await?);
    watcher.look().await;
    clock::sleep(PERIOD).await;
    Ok(watcher.look().await.whole())
}

/// Asks everybody, in about the time until `until`.
pub(crate) async fn survey(reach: &Reach, until: Instant) -> Survey {
    clerk_survey::survey::survey(&reach.asked(), until).await
}
