//! Under which verb and outcome a request is counted.

use clerk::api::ctrl::{CtrlRefusal, CtrlRequest};
use host::Ended;

use crate::state_machine::Verdict;

/// The verbs, as labels.
pub(crate) const VERBS: [&str; 10] =
    ["open", "change", "plan", "query", "history", "watch", "recover", "status", "placement", "server"];
/// Verbs that wait on purpose.
pub(crate) const PATIENT: [&str; 1] = ["watch"];

/// The place of a request's verb.
pub(crate) fn verb(request: &CtrlRequest) -> usize {
    match request {
        CtrlRequest::Open => 0,
        CtrlRequest::Change { .. } => 1,
        CtrlRequest::Plan(_) => 2,
        CtrlRequest::Query(_) => 3,
        CtrlRequest::History { .. } => 4,
        CtrlRequest::Watch { .. } => 5,
        CtrlRequest::Recover(_) => 6,
        CtrlRequest::Status => 7,
        CtrlRequest::Placement => 8,
        CtrlRequest::Server(_) => 9,
    }
}

/// How a request ended.
pub(crate) fn ended(verdict: &Verdict) -> Ended {
    match verdict {
        Ok(_) => Ended::Ok,
        Err(CtrlRefusal::NotLeader { .. }) => Ended::NotLeader,
        Err(CtrlRefusal::Busy | CtrlRefusal::DiskFull) => Ended::Busy,
        Err(CtrlRefusal::Unknown) => Ended::Unknown,
        Err(_) => Ended::Refused,
    }
}
