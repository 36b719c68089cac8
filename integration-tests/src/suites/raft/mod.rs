//! Raft: 6.824 Lab 2 of 2020 to 2023, 6.5840 Lab 3 of 2024 to 2026.
//!
//! Every test starts some servers of a list of commands ([`machine`]) on a network with long delays and
//! drives them by hand ([`lab`], [`servers`]): it starts commands, cuts, kills and restarts servers, and
//! waits for agreement. What servers apply is looked at after every event ([`watch`]).
//!
//! [`election`]: part A. [`agreement`]: part B. [`persistence`] and [`churn`]: part C. [`snapshots`]: part D.
//!
//! Left out on purpose: tests on real processes. They are about what only a simulated network can do.

mod agreement;
mod churn;
mod election;
mod lab;
mod machine;
mod persistence;
mod servers;
mod snapshots;
mod watch;

pub(crate) fn broken(what: &str) -> bool {
    std::env::var("BREAK").is_ok_and(|it| it == what)
}

use futures::future::BoxFuture;

pub(super) use agreement::{
    backup, basic_agree, concurrent_starts, count, fail_agree_without, fail_no_agree, rejoin,
};
pub(super) use churn::{Figure8, figure_8, unreliable_agree};
pub(super) use lab::{Compacts, RaftLab};
pub(super) use persistence::{persist_1, persist_2_classic, persist_3};
pub(super) use servers::{Servers, Style};

use crate::grading::Test;
use crate::lab::Lab;

/// The tests of this folder.
pub fn tests() -> Vec<Test> {
    let parts = [election::tests, agreement::tests, persistence::tests, churn::tests, snapshots::tests];
    parts.into_iter().flat_map(|tests| tests()).collect()
}

/// A scenario with so many servers, which are started for it.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::grading::run;
    use crate::lab::Options;
    use crate::suites::{raft, sjtu};

    #[test]
    fn played() {
        let (first, count) = crate::suites::seeds_asked();
        let only = std::env::var("ONLY").unwrap_or_default();
        let mut bad = 0;
        for test in raft::tests().into_iter().chain(sjtu::tests()) {
            if !only.is_empty() && !only.split(',').any(|id| id == test.id) {
                continue;
            }
            let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            let mut failed = Vec::new();
            for seed in first..first + count {
                let outcome = run(&test, &Options { seed, net: test.net, timers: None });
                figures.entry("s").or_default().push(outcome.virtual_time.as_secs_f64());
                figures.entry("wall").or_default().push(outcome.wall_time.as_secs_f64());
                figures.entry("rpcs").or_default().push(outcome.tally.rpcs as f64);
                figures.entry("ops").or_default().push(outcome.tally.ops as f64);
                if !outcome.passed() {
                    bad += 1;
                    failed.push(format!("   seed {seed}: {:?}", outcome.verdict));
                }
            }
            let mut shown = String::new();
            for (name, values) in &mut figures {
                values.sort_by(f64::total_cmp);
                let (min, mid, max) = (values[0], values[values.len() / 2], values[values.len() - 1]);
                shown += &format!("{name} {mid:.2} ({min:.2}-{max:.2})  ");
            }
            println!("{:13} {} of {count} failed  {shown}", test.id, failed.len());
            for line in failed {
                println!("{line}");
            }
        }
        assert_eq!(bad, 0);
    }
}
