//! Whether a server is ready for requests, and if not, why: a pure judgement of its status.

use super::Shown;

/// A replica that lacks more entries than this is not asked yet.
pub(super) const LAG_MAX: u64 = 1_000;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Its name.
    pub(super) name: &'static str,
    /// What does not hold, in words; none: it holds.
    pub(super) fails: Option<String>,
}

impl Check {
    pub(super) fn holds(&self) -> bool {
        self.fails.is_none()
    }
}

/// Every condition of `shown`.
pub(super) fn checks(shown: &Shown) -> Vec<Check> {
    let replica = shown.replica();
    let lag = replica.commit.saturating_sub(replica.applied);
    let check = |name, fails: Option<String>| Check { name, fails };
    vec![
        check("configuration", configuration(shown)),
        check("leader", replica.leader.is_none().then(|| "no leader is known".to_owned())),
        check(
            "applied",
            (lag > LAG_MAX).then(|| format!("{lag} committed entries are not applied, over {LAG_MAX}")),
        ),
        check(
            "disk",
            replica.disk.low.then(|| {
                format!(
                    "{} has {} bytes free, less than it keeps",
                    replica.disk.directory, replica.disk.free_bytes
                )
            }),
        ),
        check(
            "table",
            replica
                .table_bad
                .then(|| "the table differs from the other replicas', and is replaced".to_owned()),
        ),
        check(
            "log",
            replica
                .owes
                .as_ref()
                .map(|entry| format!("a part of the log was lost: it comes back up to {entry}")),
        ),
    ]
}

/// Why clients get nothing here, as far as configurations decide it.
fn configuration(shown: &Shown) -> Option<String> {
    match shown {
        Shown::Controller(status) if status.recovering => {
            Some("waits for `clerk recover-controllers`".to_owned())
        }
        Shown::Controller(status) => {
            status.digest.is_none().then(|| "there is no configuration yet".to_owned())
        }
        Shown::Group(status) if status.lost.is_some() => {
            Some("the group lost its data: the cluster knows it with other data".to_owned())
        }
        Shown::Group(status) => status
            .digest
            .is_none()
            .then(|| "no configuration was adopted yet: is the group joined?".to_owned()),
    }
}

/// In words: what fails, or with `verbose` every condition.
pub(super) fn text(checks: &[Check], verbose: bool) -> String {
    let line = |check: &Check| match &check.fails {
        Some(why) => format!("[-] {}: {why}\n", check.name),
        None => format!("[+] {}\n", check.name),
    };
    let is_ready = checks.iter().all(Check::holds);
    let lines: String = checks.iter().filter(|check| verbose || !check.holds()).map(line).collect();
    lines + if is_ready { "ready\n" } else { "not ready\n" }
}
