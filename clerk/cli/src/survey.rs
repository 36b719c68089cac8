//! The survey of the chosen cluster.

use base::clock::Instant;
pub(crate) use clerk_survey::survey::{Answers, Survey, speaker};

use crate::context::Reach;

/// Asks everybody, in about the time until `until`.
pub(crate) async fn survey(reach: &Reach, until: Instant) -> Survey {
    clerk_survey::survey::survey(&reach.asked(), until).await
}
