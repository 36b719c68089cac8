//! Raft: 6.824 Lab 2 of 2020 to 2023, 6.5840 Lab 3 of 2024 to 2026.
//!
//! Every test starts some servers of a list of commands (`machine`) on a network with long delays
//! and drives them by hand (`lab`, `servers`): it starts commands, cuts, kills and restarts
//! servers, and waits for agreement. Applied commands are checked after every event (`watch`).
//!
//! `election`: part A. `agreement`: part B. `persistence` and `churn`: part C. `snapshots`: part D.
//!
//! Left out on purpose: tests on real processes. These tests need a simulated network.

mod agreement;
mod churn;
mod election;
mod lab;
mod machine;
mod persistence;
mod servers;
mod snapshots;
mod watch;

use futures::future::BoxFuture;

pub(super) use agreement::{
    backup, basic_agree, concurrent_starts, count, fail_agree_without, fail_no_agree, rejoin,
};
pub(super) use churn::{Figure8, figure_8, unreliable_agree};
pub(super) use lab::{Compacts, RaftLab};
pub(super) use persistence::{persist_1, persist_2_classic, persist_3};
pub(super) use servers::{Servers, Style};

use crate::lab::Lab;
use crate::sheet::Scenario;

/// The scenarios of this folder.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        election::scenarios,
        agreement::scenarios,
        persistence::scenarios,
        churn::scenarios,
        snapshots::scenarios,
    ];
    parts.into_iter().flat_map(|scenarios| scenarios()).collect()
}

/// A scenario with this many servers, which are started for it.
pub(super) fn with<F>(
    style: Style,
    servers: u64,
    compacts: Compacts,
    scenario: impl Fn(RaftLab) -> F + Clone + Send + Sync + 'static,
) -> impl Fn(Lab) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    move |lab| {
        let scenario = scenario.clone();
        Box::pin(async move { scenario(RaftLab::set_up(&lab, style, servers, compacts).await?).await })
    }
}

/// One of MIT's scenarios without snapshots.
fn mit<F>(
    servers: u64,
    scenario: impl Fn(RaftLab) -> F + Clone + Send + Sync + 'static,
) -> impl Fn(Lab) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    with(Style::Mit, servers, Compacts::Never, scenario)
}
