//! The planted bugs: what each breaks, and the tests that should notice, the likeliest first.
//!
//! The sources say where a bug is planted ([`places`]), so this list and the sources cannot drift
//! apart: `main` refuses to run when a bug is planted that is not listed, or listed and not
//! planted.
//!
//! Some bugs are planted in two places, because the product guards against them twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A planted bug.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// Its name in `base::mutant!`.
    pub(crate) name: &'static str,
    /// What it breaks.
    pub(crate) breaks: &'static str,
    /// The tests that should notice, in the order in which they run.
    pub(crate) tests: &'static [&'static str],
}

const fn of(name: &'static str, tests: &'static [&'static str], breaks: &'static str) -> Mutant {
    Mutant { name, breaks, tests }
}

const IDENTITY: &[&str] = &["identity"];
const STRANGERS: &[&str] = &["strangers"];
const BACKLOGS: &[&str] = &["backlogs", "raft_faults"];
const GROUP: &[&str] = &["raft_faults"];
const MOVES: &[&str] = &["shard_moves", "rings"];

/// All of them, in the order in which the product is read.
#[rustfmt::skip]
pub(crate) const MUTANTS: &[Mutant] = &[
    // Elections
    of("vote-twice", &["elections"], "a server votes for two candidates in one term (rules 1, 2)"),
    of("vote-not-saved", &["elections"], "the term is saved and the vote is not: a restart forgets it (rule 1)"),
    of("vote-ignores-log", GROUP, "a candidate with an older log gets votes (5.4.1)"),
    of("half-is-enough", GROUP, "one server less than a majority counts as one"),
    of("heartbeat-not-heard", &["J01"], "an Append does not reset the election timer (rule 7)"),
    of("skip-empty-entry", &["raft_faults", "idle_restart"], "a new leader appends no entry of its own term (rule 12)"),
    // Identity
    of("members-not-compared", IDENTITY, "a server starts with another list of members than its data was made with (rule 50)"),
    of("founders-not-compared", STRANGERS, "a server that was made with another list of members is let in (rule 50)"),
    of("chunk-of-other-members", IDENTITY, "a snapshot of a group with other members is taken (rule 50)"),
    of("key-never-learned", IDENTITY, "the key of the cluster is never written down (rule 51)"),
    of("key-not-compared", STRANGERS, "another cluster of the same name is let in (rule 51)"),
    of("welcome-not-checked", STRANGERS, "any server that answers at a peer's address is taken for the peer (rule 52)"),
    of("twin-let-in", STRANGERS, "a second process with a copy of a server's data is let in (rule 53)"),
    // Replication
    of("count-old-term-commits", &["elections", "R17", "R19"], "entries of older terms are committed by counting (rule 11, Figure 8)"),
    of("truncate-always", GROUP, "a late, shorter Append cuts off what was acknowledged (rule 13)"),
    of("truncation-not-saved", GROUP, "the log is cut in memory and not on the disk (rule 15)"),
    of("ignore-previous-term", GROUP, "an Append is taken wherever the log is long enough, whatever its term there"),
    of("commit-beyond-message", GROUP, "a follower commits more than the message covers (rule 14)"),
    of("match-from-next", GROUP, "an answer proves what was sent since, not what it answers (rule 16)"),
    of("match-from-refusal", &["elections", "raft_faults"], "the hint in a refusal counts as agreement (rule 16)"),
    of("next-skips-one", &["R13"], "the leader's next position for a follower is one too far"),
    of("answer-before-save", GROUP, "answers leave before what they promise is on the disk (rule 19)"),
    of("entries-wait-for-heartbeat", &["KR02"], "commands travel with heartbeats only"),
    of("answer-asks-again", &["R13"], "every answer to an Append is answered by another Append"),
    // Backlogs
    of("bound-counts-uncommitted", BACKLOGS, "a follower is full of what is not committed (rule 77)"),
    of("room-not-repeated", BACKLOGS, "a leader hears only a follower's first report of room (rule 77)"),
    of("full-asked-beyond-agreement", BACKLOGS, "heartbeats to a full follower are placed after what it dropped (rule 77)"),
    of("log-waits-for-no-table", &["retained"], "a log in memory grows while the table is not made durable (rule 77)"),
    // Members that lag
    of("pace-without-floor", &["slow_member"], "writes wait for a slow member as long as it takes (rule 133)"),
    of("demand-shrinks-with-the-pace", &["demand"], "what clients want is what they may: the floors sink (rule 133)"),
    of("nobody-given-up", &["slow_member"], "writes wait forever for a member that cannot keep up (rule 133)"),
    of("given-up-never-retried", &["slow_member"], "a member that was given up is not tried again (rule 133)"),
    of("pace-ignores-the-stream", &["paces"], "the log of a long snapshot becomes too long for its member (rule 133)"),
    of("reads-paced", &["slow_member"], "reads wait while writes do (rule 133)"),
    // Limits
    of("refused-callers-take-places", &["callers"], "callers that are refused close the connections of clients (rule 101)"),
    of("asks-only-when-all-is-adopted", &["many_configurations"], "a new group waits for each answer to a watch (rule 102)"),
    of("waiting-bytes-without-bound", &["slow_callers"], "what slow callers keep waiting takes any memory (rule 103)"),
    of("one-connection-takes-all", &["greedy_callers"], "one client's requests leave the others no room (rule 132)"),
    of("no-next-file-is-fatal", &["spare_files"], "a log ends its process before it needs the file that cannot be made (rule 104)"),
    of("small-batch-writes-anything", &["batches"], "a batch is bounded only by what it sends (rule 105)"),
    of("busy-leader-is-left", &["busy_leaders"], "another server is asked when the leader is busy (rule 130)"),
    of("sessions-taken-from-others", &["sessions"], "a new client always takes another's session (rule 131)"),
    // Damage
    of("mark-before-sync", &["damaged_files"], "the mark of the log is written before its record is durable (rule 61)"),
    of("marks-vote-ignored", &["damaged_files", "damaged_tails"], "a repaired log has the vote of what is left of it (rule 62)"),
    of("promise-not-in-head", &["damaged_files"], "the log's next file does not say what a server owes (rule 62)"),
    of("votes-by-its-log-alone", &["damaged_tails", "raft_faults"], "a server that owes votes for logs that lack what it promised (rule 62)"),
    of("stands-while-it-owes", &["damaged_tails", "raft_faults"], "a server that owes stands for election (rule 62)"),
    of("promise-by-position", &["debts"], "a log as long as the promise ends it, whatever its terms (rule 62)"),
    of("matched-not-set-back", &["damaged_tails", "set_back"], "a leader does not believe that a follower has less than before (rule 62)"),
    of("acked-ignored", &["set_back"], "a server that was set back ignores what it acknowledged (rule 63)"),
    // Differences
    of("matched-unseen", &["differences"], "entries below the commit index are acknowledged without being compared (rule 65)"),
    of("beyond-log-ignored", &["differences"], "a leader that lacks what a follower has does not step down (rule 67)"),
    of("chunk-sum-not-checked", &["differences"], "rows of a snapshot that changed on their way are taken (rule 66)"),
    of("hash-not-compared", &["damaged_tables"], "nobody compares the tables of a group (rule 69)"),
    of("bad-table-stands", &["damaged_tables"], "a server whose table is bad is elected (rule 69)"),
    of("bad-table-forgotten", &["damaged_tables"], "a restart forgets that the table is bad (rule 69)"),
    // Reads
    of("read-without-round", GROUP, "a leader reads without confirming that it still leads (rule 23)"),
    of("read-before-own-term", GROUP, "a new leader reads before it knows what is committed (rule 23)"),
    // Snapshots
    of("compact-never", &["M08", "KV14", "KR15"], "the log is never compacted"),
    of("compact-at-once", &["KV01", "KR01"], "the log is compacted however short it is"),
    of("compact-before-durable", &["snapshots"], "the log is dropped before the table is durable (rule 33)"),
    of("installed-before-durable", &["snapshots"], "a snapshot is acknowledged before it is the durable table (rule 33)"),
    of("snapshot-over-newer-rows", &["snapshots"], "an older snapshot replaces a newer table"),
    of("kept-for-nobody", &["kept"], "a log keeps nothing on disk for lagging members (rule 79)"),
    of("disk-filled-by-a-snapshot", &["stagings"], "a snapshot fills the disk until the process ends (rule 35)"),
    of("staging-kept", &["stagings"], "rows of a snapshot that is not needed any more are kept (rule 78)"),
    of("chunks-of-live-rows", &["long_snapshots", "raft_faults"], "the chunks of a snapshot are of different moments"),
    // Replicated state machines
    of("overthrown-is-not-executed", GROUP, "a deposed leader says that nothing was done (rule 28)"),
    of("repeat-executed", MOVES, "a repeated write is executed again (rule 26)"),
    of("stale-number-executed", MOVES, "a late write, which comes after its session's next, is executed (rule 26)"),
    of("expired-is-new", &["few_sessions"], "a write of a session that was dropped is executed (rule 26)"),
    of("session-only-in-memory", MOVES, "a session's row does not hold its result (rule 26)"),
    of("stop-tells-nobody", &["M06"], "a caller that waits for a command gets no answer when the replica stops (rule 28)"),
    // Configurations
    of("deal-anew", &["C07", "C05"], "rebalancing moves shards that could stay (rule 42)"),
    of("extra-for-all", &["C01"], "rebalancing leaves groups unevenly loaded (rule 42)"),
    of("deal-by-clock", &["C12", "shard_moves"], "rebalancing looks at a clock: controllers differ (rule 21)"),
    of("move-undone", &["C03", "moves"], "a Move is balanced away at once"),
    of("weights-ignored", &["C13"], "rebalancing does not look at weights (rule 140)"),
    of("pins-ignored", &["C13"], "rebalancing moves pinned shards (rule 140)"),
    of("outdated-plan-accepted", &["C14"], "a plan is made after what it was made from has changed (rule 141)"),
    of("lost-says-refused", &["lost_groups"], "an older move of a shard that was declared lost is refused: its old life returns (rule 143)"),
    of("last-owner-forgotten", &["shard_moves"], "the group with a parked shard's rows is forgotten"),
    of("old-number-shows-newest", &["C02"], "a query for an old number answers the newest configuration"),
    of("skip-configuration", &["shard_moves"], "a group skips to the newest configuration it knows (rule 36)"),
    // One cluster, one history
    of("join-ignores-cluster-key", &["other_histories"], "groups of another cluster may join (rules 43, 48)"),
    of("adopt-ignores-digest", &["other_histories", "two_histories"], "a group adopts a configuration of another history (rule 55)"),
    of("push-ignores-digest", &["two_histories", "other_histories"], "rows and acknowledgements of another history count (rule 55)"),
    of("watch-ignores-digest", &["other_histories"], "controllers do not say that they have another history (rule 56)"),
    of("adopt-ignores-incarnation", &["other_histories"], "a group adopts a configuration that names other data (rule 57)"),
    of("book-incarnation-ignored", &["other_histories"], "a group that lost its data serves as an empty one (rule 57)"),
    of("rows-not-checked", &["other_histories"], "anything that another group pushes becomes rows (rule 58)"),
    of("pusher-not-checked", &["other_histories"], "a group with other data pushes under the id of one that joined (rule 58)"),
    of("init-while-recovering", &["other_histories"], "controllers that should be recovered found a new cluster (rule 59)"),
    // Shards
    of("awaiting-survives-its-loss", &["shard_moves", "move_model"], "a group still takes a shard that it is not to have any more (rule 37)"),
    of("adopt-forgets-sealed", &["shard_moves", "move_model"], "what becomes of a sealed shard is what an old configuration wanted (rule 36)"),
    of("past-says-done", &["shard_moves", "move_model"], "a receiver that never took a shard says that it has it (rule 37)"),
    of("serve-without-rows", MOVES, "a shard is served before its rows arrived (rule 38)"),
    of("serve-while-handing", MOVES, "a shard is served while it is handed over (rule 38)"),
    of("parked-is-absent", MOVES, "a shard that nobody owns is forgotten by the group that has its rows"),
    of("old-push-accepted", &["move_model"], "rows of an older move are taken for this one's (rule 37)"),
    of("seal-ignores-last-change", &["move_model", "shard_moves"], "a shard is sealed although it was changed after what the seal names (rule 38)"),
    of("seal-drops-a-key", &["shard_moves", "move_model"], "a seal does not name all that is missing (rule 38)"),
    of("memory-ignores-since", &["shard_moves", "move_model"], "changes that were forgotten count as none (rule 38)"),
    of("rows-older-than-the-copy", &["move_model"], "rows are sent from a table that is behind the copy (rule 38)"),
    of("activate-before-rows", MOVES, "the end of a push is announced before its rows were sent"),
    of("release-unacknowledged", MOVES, "the source drops a shard although no answer came (rule 38)"),
    of("release-keeps-rows", MOVES, "the source keeps the rows of a shard it gave away"),
    of("sessions-left-behind", MOVES, "a shard moves without its sessions (rule 39)"),
    of("version-floor-left-behind", MOVES, "a shard moves without its version floor (rule 39)"),
    of("cache-survives-move", MOVES, "sessions cached from a shard's earlier stay are believed"),
    of("cache-survives-snapshot", MOVES, "rows cached before a snapshot are believed after it"),
    of("owner-judged-at-propose-only", MOVES, "the owner of a shard is not checked again when a command is applied (rule 37)"),
    of("condition-ignored", MOVES, "a conditional put does not look at the version"),
    of("delete-forgets-version", MOVES, "versions start again after a delete"),
    // Clients
    of("lost-is-not-done", &["bare_writes", "shard_moves"], "a call without an answer counts as not done (rule 27)"),
    of("new-number-on-retry", MOVES, "a write that is sent again gets a new number (rule 39)"),
    of("bare-write-repeated", &["bare_writes"], "a lost write without a session is sent again"),
    of("maybe-is-mismatch", &["S04", "bare_writes"], "a lost conditional put is called refused (rule 27)"),
    // MapReduce
    of("reduce-before-last-map", &["MR1"], "reduces begin when one map is not done"),
    of("reissue-never", &["MR-stop"], "a task of a silent worker is never given to another"),
    of("backup-at-once", &["MR5"], "an idle worker repeats the work of others"),
    of("exit-at-wait", &["MR6", "MR6-classic"], "a worker without a task ends although the job is not over"),
    of("rename-too-early", &["MR-store"], "output has its name before its last byte (rule 90)"),
    of("any-attempt-read", &["MR-dice"], "attempts at a map write the same file, even after one has won (rule 90)"),
    of("own-results-sent", &["MR-dice"], "an attempt sends its own results, not those of the first (rule 92)"),
    of("prefix-shared", &["MR-locked"], "jobs write under prefixes that overlap (rule 121)"),
    of("loss-forgotten", &["MR-changed", "MR-lost"], "a mark is believed although values are missing (rule 122)"),
    of("mark-skipped", &["MR-twins", "MR-store"], "results are written although their mark exists (rule 91)"),
    of("mark-read-first", &["MR-twins", "MR-store"], "the mark is read before the keys (rule 91)"),
];

/// Every planted bug with the files that contain it, found in the sources.
pub(crate) fn places() -> std::io::Result<BTreeMap<String, Vec<String>>> {
    const CRATES: [&str; 8] =
        ["base", "clerk", "host", "mapreduce", "raft", "raft/disk", "shardctrler", "shardkv"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut open: Vec<PathBuf> = CRATES.iter().map(|name| root.join(name).join("src")).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            if path.ends_with("base/src/mutants.rs") {
                continue;
            }
            // In the crate itself the macro has another path.
            let text = std::fs::read_to_string(&path)?.replace("crate::mutant!(", "base::mutant!(");
            let file = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            for planted in text.split("base::mutant!(").skip(1) {
                let name = planted.split('"').nth(1).unwrap_or_default();
                let files = found.entry(name.to_owned()).or_default();
                if !files.contains(&file) {
                    files.push(file.clone());
                }
            }
        }
    }
    found.values_mut().for_each(|files| files.sort_unstable());
    Ok(found)
}
