//! Every number of a replica in one struct. Bytes and ticks are local settings: nothing here may
//! change a result of `apply` (correctness rule 22).

use std::time::Duration;

/// A staged snapshot is dropped when no chunk of it arrives for this long.
pub(crate) const STAGING_IDLE_MAX: Duration = Duration::from_secs(60);

/// Settings of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Length of a tick. Default 25 ms.
    pub tick: Duration,
    /// Ticks between two heartbeats of a leader. Default 4 (100 ms; rule 8).
    pub heartbeat_ticks: u32,
    /// Shortest election timeout. Default 20 ticks (500 ms).
    pub election_ticks_min: u32,
    /// Longest election timeout; at least twice the shortest. Default 40 ticks (1 s).
    pub election_ticks_max: u32,
    /// A server votes for nobody during the shortest election timeout after its start (correctness
    /// rule 63). Default yes; no is for tests that cannot wait.
    pub quiet_start: bool,
    /// Entries of one Append together, in bytes. Default 1 MiB. A single larger entry travels alone.
    pub append_bytes_max: usize,
    /// Bytes of Appends in flight to one follower. Default 8 MiB.
    pub in_flight_bytes_max: usize,
    /// Appends in flight to one follower. Default 256.
    pub in_flight_messages_max: usize,
    /// Bytes of entries that a leader holds and that are not committed. Beyond: `Busy`. Default 32 MiB.
    pub uncommitted_bytes_max: usize,
    /// Bytes of entries that are committed and not applied here. Beyond: a leader is `Busy`, and a follower takes no
    /// entries (correctness rule 77). Default 32 MiB.
    pub unapplied_bytes_max: usize,
    /// Reads that wait for their confirmation, or for their index to be applied. Beyond: `Busy`. Default 65,536.
    pub pending_reads_max: usize,
    /// Bytes of committed entries handed to the applier and not yet applied. Default 16 MiB.
    pub apply_backlog_bytes_max: usize,
    /// Upper bound on the bytes of log in memory before a compaction. Each compaction begins at a
    /// random length below the bound, by up to a third of what it drops, so that replicas do not
    /// compact in step. Default 16 MiB.
    pub log_bytes_max: usize,
    /// Bytes of log that a compaction leaves for slow followers. Default a quarter of the above.
    pub log_keep_bytes: usize,
    /// Bytes of log at which compaction no longer waits for the slowest follower. Default four
    /// times the first.
    pub log_bytes_hard_max: usize,
    /// Rows of one snapshot chunk together, in bytes. Default 512 KiB.
    pub chunk_bytes: usize,
    /// Rows of one snapshot chunk. Default 4,096.
    pub chunk_rows: usize,
    /// How fast clients may write while a member lags (correctness rule 133).
    pub pace: Law,
    /// Bytes of commands that wait for their turn while a pace holds. Beyond: `Busy`. Default 8 MiB.
    pub held_bytes_max: usize,
    /// A server whose disk became nearly full of the snapshot that it was sent takes none for so
    /// long. Default 60 s.
    pub space_rest: Duration,
    /// Bytes of messages from peers that wait for the driver. Default 64 MiB.
    pub mailbox_bytes_max: usize,
    /// Proposals and reads that wait for the driver. Beyond: `Busy`. Default 16,384.
    pub requests_max: usize,
    /// Peer messages taken in one round. Default 256.
    pub round_messages_max: usize,
    /// Proposals and reads taken in one round. Default 1,024.
    pub round_proposals_max: usize,
    /// Seed of this replica's election timeouts.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            tick: Duration::from_millis(25),
            heartbeat_ticks: 4,
            election_ticks_min: 20,
            election_ticks_max: 40,
            quiet_start: true,
            append_bytes_max: MIB,
            in_flight_bytes_max: 8 * MIB,
            in_flight_messages_max: 256,
            uncommitted_bytes_max: 32 * MIB,
            unapplied_bytes_max: 32 * MIB,
            pending_reads_max: 65_536,
            apply_backlog_bytes_max: 16 * MIB,
            log_bytes_max: 16 * MIB,
            log_keep_bytes: 4 * MIB,
            log_bytes_hard_max: 64 * MIB,
            chunk_bytes: 512 * 1024,
            chunk_rows: 4096,
            pace: Law::default(),
            held_bytes_max: 8 * MIB,
            space_rest: Duration::from_secs(60),
            mailbox_bytes_max: 64 * MIB,
            requests_max: 16_384,
            round_messages_max: 256,
            round_proposals_max: 1024,
            seed: 0,
        }
    }
}

/// Settings that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {0}")]
pub struct InvalidConfig(String);

impl Config {
    /// Sets the timers from milliseconds: a heartbeat, and the shortest election timeout; the
    /// longest is twice the shortest.
    #[must_use]
    pub fn with_timers(mut self, heartbeat_ms: u64, election_ms: u64) -> Self {
        let tick_ms = (heartbeat_ms / 4).max(1);
        let ticks = |ms: u64| u32::try_from(ms / tick_ms).unwrap_or(u32::MAX / 4);
        self.tick = Duration::from_millis(tick_ms);
        self.heartbeat_ticks = ticks(heartbeat_ms);
        self.election_ticks_min = ticks(election_ms);
        self.election_ticks_max = ticks(election_ms.saturating_mul(2));
        self
    }

    /// Sets the log limit and the settings that depend on it.
    #[must_use]
    pub fn with_log_bytes_max(mut self, bytes: usize) -> Self {
        self.log_bytes_max = bytes;
        self.log_keep_bytes = bytes / 4;
        self.log_bytes_hard_max = bytes.saturating_mul(4);
        self
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the two that do not.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let rules = [
            (!self.tick.is_zero(), "the tick must be longer than zero"),
            (self.heartbeat_ticks >= 1, "the heartbeat must be at least one tick"),
            (
                self.election_ticks_min >= 2 * self.heartbeat_ticks,
                "the election timeout must be at least two heartbeats, or every delay elects a new leader",
            ),
            (
                self.election_ticks_max >= 2 * self.election_ticks_min,
                "the longest election timeout must be at least twice the shortest, or votes split forever",
            ),
            (
                self.log_keep_bytes < self.log_bytes_max && self.log_bytes_max < self.log_bytes_hard_max,
                "log_keep_bytes < log_bytes_max < log_bytes_hard_max must hold",
            ),
            (
                [
                    self.append_bytes_max,
                    self.in_flight_messages_max,
                    self.in_flight_bytes_max,
                    self.chunk_bytes,
                    self.chunk_rows,
                    self.unapplied_bytes_max,
                    self.apply_backlog_bytes_max,
                    self.pending_reads_max,
                    self.held_bytes_max,
                ]
                .iter()
                .all(|limit| *limit > 0),
                "limits of bytes and messages must be larger than zero",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, text)) => Err(InvalidConfig((*text).to_owned())),
            None => Ok(()),
        }
    }
}

/// The numbers of the law of pace ([`Config::pace`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Law {
    /// A member that has everything that is older than this is level. Default 250 ms.
    pub recent: Duration,
    /// Speeds are measured over so long. Default 2 s.
    pub window: Duration,
    /// A member that lacks no less after so long is given up. Default 60 s.
    pub patience: Duration,
    /// It is tried again when it could take twice of what is written, for so long. Default 10 s.
    pub calm: Duration,
    /// It is tried again after so long, without a pace. Default 10 min.
    pub retry: Duration,
    /// A member that lacks fewer bytes than this stays level. Default 32 MiB.
    pub level_bytes: u64,
    /// No pace is slower, in bytes per second. Default 1 MiB.
    pub least: u64,
}

impl Default for Law {
    fn default() -> Self {
        Self {
            recent: Duration::from_millis(250),
            window: Duration::from_secs(2),
            patience: Duration::from_secs(60),
            calm: Duration::from_secs(10),
            retry: Duration::from_secs(600),
            level_bytes: 32 << 20,
            least: 1 << 20,
        }
    }
}
