//! How many file descriptors this process may have, and how they are divided (correctness rule
//! 101).
//!
//! A store without a descriptor looks like a failed disk, and ends its server. So the stores get
//! theirs first, and sockets share the rest: connections between members of the group, connections
//! that this server opens itself, and, kind by kind, connections that others open. The soft limit
//! is raised to the hard limit at the start.
//!
//! Left out on purpose: a limit that changes while the process runs.

use crate::http::HTTP_CONNECTIONS_MAX;
use base::socket::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More are of no use here.
const WANTED: u64 = 65_536;
/// Descriptors besides the table's files and sockets of others: standard streams, the runtime's,
/// the port, locks, the log's files and files that are being written.
const OWN: usize = 26;
/// A port for HTTP: its connections, the port, and its runtime.
const HTTP: usize = HTTP_CONNECTIONS_MAX + 4;
/// Files of the table that are kept open: RocksDB wants at least this many.
const TABLE_MIN: usize = 20;
const TABLE_MAX: usize = 2048;
/// The limits of each kind, even if there are more descriptors.
const CLIENTS_MAX: usize = 4096;
const WATCHERS_MAX: usize = 1024;
const GROUPS_MAX: usize = 512;
const STRANGERS_MAX: usize = 64;
const CALLS_MAX: usize = 64;
/// The least number that must be left for others.
const OTHERS_MIN: usize = 8;

/// This server cannot run with so few file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed} file descriptors are needed and this process may have {limit}: nothing was started; raise the limit \
     (ulimit -n, LimitNOFILE), or set smaller --clients-max, --watchers-max and --groups-max"
)]
pub struct TooFew {
    limit: usize,
    needed: usize,
}

/// Limits that were set by hand; none: what the descriptors allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wished {
    /// [`Limits::clients_max`].
    pub clients: Option<usize>,
    /// [`Limits::watchers_max`].
    pub watchers: Option<usize>,
    /// [`Limits::groups_max`].
    pub groups: Option<usize>,
    /// Whether there is a port for HTTP.
    pub http: bool,
}

/// The descriptors of a process, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// All of them.
    pub limit: usize,
    /// Files of the table that are kept open.
    pub table_files: usize,
    /// Connections that this server opens to controllers and other groups.
    pub calls: usize,
    /// Connections that others open.
    pub connections: Limits,
}

impl Descriptors {
    /// Raises the limit of this process, and divides the descriptors for a server of a group of
    /// `members` members.
    ///
    /// # Errors
    /// [`TooFew`].
    pub fn raise(members: usize, wished: Wished) -> Result<Self, TooFew> {
        Self::share(raise_limit(), members, wished)
    }

    fn share(limit: usize, members: usize, wished: Wished) -> Result<Self, TooFew> {
        let http = if wished.http { HTTP } else { 0 };
        let others = members.saturating_sub(1);
        let table_files = (limit.saturating_sub(OWN) / 4).clamp(TABLE_MIN, TABLE_MAX);
        // A returning peer finds room before the server notices that its old connections are gone.
        let (lanes, peers_max) = (2 * others, 2 * others + 2);
        let kept = OWN + http + table_files + lanes + peers_max;
        let rest = limit.saturating_sub(kept).max(OTHERS_MIN);
        let calls = (rest / 8).clamp(2, CALLS_MAX);
        let strangers_max = (rest / 8).clamp(2, STRANGERS_MAX);
        let groups_max = wished.groups.unwrap_or((rest / 8).clamp(1, GROUPS_MAX));
        let watchers_max = wished.watchers.unwrap_or((rest / 8).clamp(1, WATCHERS_MAX));
        let spoken_for = calls + strangers_max + groups_max + watchers_max;
        let clients_max = wished.clients.unwrap_or(rest.saturating_sub(spoken_for).clamp(2, CLIENTS_MAX));
        match kept + spoken_for + clients_max {
            needed if needed > limit => Err(TooFew { limit, needed }),
            _ => {
                let connections = Limits {
                    strangers_max,
                    clients_max,
                    watchers_max,
                    groups_max,
                    peers_max,
                    ..Limits::default()
                };
                Ok(Self { limit, table_files, calls, connections })
            }
        }
    }
}

/// Returns the limit that is in force from now on.
fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(WANTED).min(WANTED);
    let present = current.unwrap_or(WANTED);
    let raised = present < wanted && {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        raised.inspect_err(|error| tracing::warn!(%error, "the limit of file descriptors stays")).is_ok()
    };
    usize::try_from(if raised { wanted } else { present }.min(WANTED)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Descriptors, HTTP, OWN, TooFew, Wished};

    #[test]
    fn never_more_is_shared_out_than_there_is() {
        for (members, http) in
            [1, 3, 5, 9].into_iter().flat_map(|members| [(members, false), (members, true)])
        {
            for limit in (40..4096).chain([10_000, 65_536]) {
                let wished = Wished { http, ..Wished::default() };
                let Ok(shared) = Descriptors::share(limit, members, wished) else { continue };
                let lanes = 2 * (members - 1);
                let own = OWN + if http { HTTP } else { 0 };
                let sum = own + shared.table_files + lanes + shared.calls + shared.connections.sockets();
                assert!(sum <= limit, "{limit} {members}: {shared:?}");
            }
        }
    }

    #[test]
    fn three_members_live_with_64_descriptors_and_have_what_they_need_with_more() {
        let share = |limit, members| Descriptors::share(limit, members, Wished::default());
        assert!(share(64, 3).is_ok());
        assert_eq!(share(63, 3), Err(TooFew { limit: 63, needed: 64 }));
        let small = share(256, 3).unwrap();
        assert!(small.connections.clients_max >= 80 && small.table_files >= 50, "{small:?}");
        let large = share(65_536, 3).unwrap();
        assert_eq!((large.table_files, large.connections.clients_max), (2048, 4096));
    }

    #[test]
    fn what_is_set_by_hand_is_kept_or_refused() {
        let wished = |clients| Wished { clients: Some(clients), ..Wished::default() };
        let shared = Descriptors::share(1024, 3, wished(7)).unwrap();
        assert_eq!(shared.connections.clients_max, 7);
        let refused = Descriptors::share(1024, 3, wished(5000)).unwrap_err().to_string();
        assert!(refused.contains("may have 1024") && refused.contains("ulimit -n"), "{refused}");
    }
}
