//! Why something was not done, in the terms of docs/cli.md: a code for programs, a sentence for
//! people, and what to do next.

use clerk::api::ctrl::CtrlRefusal;
use clerk::ctrl;

/// What to do where servers do not answer.
pub const STATUS: &str = "`clerk status` shows who is down";

/// A refusal, or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// What to do; may be empty.
    pub next: String,
    /// Nobody can tell whether it was done.
    pub is_unknown: bool,
}

impl Refused {
    /// Nothing was done.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: String::new(), is_unknown: false }
    }

    /// The same, with what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }
}

impl From<ctrl::Error> for Refused {
    fn from(error: ctrl::Error) -> Self {
        let message = error.to_string();
        match error {
            ctrl::Error::Refused(refusal) => Self::new(code_of(&refusal), message),
            ctrl::Error::Unknown => {
                let refused = Self::new("unknown", message).next("`clerk query` shows the configuration");
                Self { is_unknown: true, ..refused }
            }
            ctrl::Error::Unavailable { .. } => Self::new("unavailable", message).next(STATUS),
            ctrl::Error::Foreign { .. } => Self::new("refused", message),
        }
    }
}

fn code_of(refusal: &CtrlRefusal) -> &'static str {
    match refusal {
        CtrlRefusal::UnknownGroup(_) => "unknown_group",
        CtrlRefusal::UnknownShard { .. } => "unknown_shard",
        CtrlRefusal::InvalidGroup(_) => "invalid_group",
        CtrlRefusal::OtherServers(_) => "other_servers",
        CtrlRefusal::OtherIncarnation(_) => "other_incarnation",
        CtrlRefusal::LastGroup => "last_group",
        CtrlRefusal::UnknownConfig { .. } => "unknown_config",
        CtrlRefusal::NothingNamed => "nothing_named",
        CtrlRefusal::TooManyGroups { .. } => "too_many_groups",
        CtrlRefusal::OtherCluster { .. } => "other_cluster",
        CtrlRefusal::OtherHistory { .. } => "other_history",
        CtrlRefusal::ForgottenConfig { .. } => "forgotten_config",
        CtrlRefusal::Recovering => "recovering",
        CtrlRefusal::NotRecovered(_) => "not_recovered",
        CtrlRefusal::WeightTooLarge { .. } => "weight_too_large",
        CtrlRefusal::NothingWeighs => "nothing_weighs",
        CtrlRefusal::Drained(_) => "drained",
        CtrlRefusal::HasPins { .. } => "has_pins",
        CtrlRefusal::Pinned { .. } => "pinned",
        CtrlRefusal::Outdated { .. } => "outdated",
        CtrlRefusal::Unowned(_) => "unowned",
        CtrlRefusal::InvalidRate { .. } => "invalid_rate",
        CtrlRefusal::DiskFull => "disk_full",
        _ => "refused",
    }
}
