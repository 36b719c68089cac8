//! Waiting until a configuration is settled: every shard is served where it belongs, and groups that
//! leave have nothing left to do.

use std::collections::BTreeSet;
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::{ConfigNum, GroupId};

use crate::context::Reach;
use crate::output::Output;
use crate::survey::survey;

const PERIOD: Duration = Duration::from_millis(150);
/// After this time without any change, the command says what it waits for.
const STALL: Duration = Duration::from_secs(3);
const REASONS: usize = 3;
/// A survey in less time than this may take a slow server for a dead one.
const HURRY: Duration = Duration::from_secs(1);

/// Waits until configuration `num` is settled and `leaving` may be stopped. The error says what is
/// missing at `until`.
pub(crate) async fn settle(
    reach: &Reach,
    num: ConfigNum,
    leaving: &BTreeSet<GroupId>,
    until: Instant,
    output: Output,
) -> Result<(), Vec<String>> {
    let bar = output.spinner();
    bar.set_message(format!("configuration {num}: waiting for the groups"));
    let (mut pending, mut changed_at, mut said_at) = (Vec::new(), clock::now(), None);
    loop {
        let hurries = until.since(clock::now()) < HURRY;
        let mut now_pending = survey(reach, until).await.pending(num, leaving);
        if now_pending.is_empty() {
            bar.finish_and_clear();
            return Ok(());
        }
        if hurries && !pending.is_empty() {
            now_pending.clone_from(&pending);
        }
        if now_pending != pending {
            (pending, changed_at) = (now_pending, clock::now());
        }
        bar.set_message(format!("configuration {num}: {}", shown(&pending)));
        let stalled = changed_at.elapsed() >= STALL;
        if stalled && said_at.is_none_or(|said_at: Instant| changed_at > said_at) {
            bar.suspend(|| output.note(format!("still waiting: {}", shown(&pending))));
            said_at = Some(clock::now());
        }
        if clock::now() >= until {
            bar.finish_and_clear();
            return Err(pending);
        }
        clock::sleep(PERIOD.min(until.since(clock::now()))).await;
    }
}

/// The first reasons, and how many more there are.
pub(crate) fn shown(pending: &[String]) -> String {
    let first = pending[..pending.len().min(REASONS)].join("; ");
    match pending.len() {
        0..=REASONS => first,
        count => format!("{first}; and {} more", count - REASONS),
    }
}
