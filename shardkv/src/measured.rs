//! Under which verb and outcome a request is counted.

use clerk::api::kv::{KvRefusal, KvRequest, Write};
use host::Ended;

/// The verbs, as labels.
pub(crate) const VERBS: [&str; 12] = [
    "get", "put", "append", "delete", "batch", "scan", "open", "config", "status", "history", "push",
    "server",
];
/// The place of pushes of other groups.
pub(crate) const PUSH: usize = 10;

/// The place of a request's verb.
pub(crate) fn verb(request: &KvRequest) -> usize {
    match request {
        KvRequest::Get { .. } => 0,
        KvRequest::Write { write: Write::Put { .. }, .. } => 1,
        KvRequest::Write { write: Write::Append { .. }, .. } => 2,
        KvRequest::Write { write: Write::Delete, .. } => 3,
        KvRequest::Batch { .. } => 4,
        KvRequest::Scan { .. } => 5,
        KvRequest::Open { .. } => 6,
        KvRequest::Config => 7,
        KvRequest::Status => 8,
        KvRequest::History => 9,
        KvRequest::Server(_) => 11,
    }
}

/// How a request ended.
pub(crate) fn ended<T>(answer: &Result<T, KvRefusal>) -> Ended {
    match answer {
        Ok(_) => Ended::Ok,
        Err(KvRefusal::NotLeader { .. }) => Ended::NotLeader,
        Err(KvRefusal::WrongGroup { .. }) => Ended::WrongGroup,
        Err(KvRefusal::NotReady { .. }) => Ended::NotReady,
        Err(KvRefusal::Busy | KvRefusal::DiskFull) => Ended::Busy,
        Err(KvRefusal::Unknown) => Ended::Unknown,
        Err(_) => Ended::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::{PUSH, VERBS, verb};
    use clerk::api::kv::KvRequest;

    #[test]
    fn each_verb_has_its_own_place() {
        assert_eq!(VERBS[PUSH], "push");
        assert_eq!(VERBS[verb(&KvRequest::Config)], "config");
        assert_eq!(VERBS[verb(&KvRequest::Status)], "status");
        assert_eq!(VERBS[verb(&KvRequest::History)], "history");
    }
}
