//! `status`: every server and shard, no matter which servers are down.

mod notes;
mod shards;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base::clock::Instant;
use clerk::api::status::{CtrlStatus, DiskStatus, KvStatus, ReplicaStatus, Sessions};
use clerk::api::{Address, ConfigNum, Digest, GroupId};
use serde_json::{Value, json};

use crate::context::{Context, Reach};
use crate::failure::Failure;
use crate::local;
use crate::output::{Output, table};
use crate::settle::shown;
use crate::survey::{Survey, speaker, survey};

use self::shards::{group_row, shard_document};

/// A server, up or down.
struct Server<'a> {
    name: String,
    address: &'a Address,
    status: Option<&'a ReplicaStatus>,
    /// What it knows besides its log.
    known: Known,
    /// The newest entry that a server of its group has committed.
    committed: u64,
}

/// A server's knowledge of configurations, and what it had to discard.
#[derive(Clone, Copy, Default)]
struct Known {
    config: ConfigNum,
    digest: Option<Digest>,
    /// A controller that waits to be recovered.
    recovering: bool,
    wipes: u64,
    /// Of a replica of a group.
    sessions: Option<Sessions>,
}

impl Server<'_> {
    /// Entries that are committed in its group, and not applied here.
    fn behind(&self) -> Option<u64> {
        self.status.map(|status| self.committed.saturating_sub(status.applied))
    }
}

/// The newest entry that one of these has committed.
fn committed<'a>(replicas: impl Iterator<Item = &'a ReplicaStatus>) -> u64 {
    replicas.map(|replica| replica.commit).max().unwrap_or_default()
}

pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let reach = context.reach_what_runs().await?;
    print(&reach, context.output, context.data_until()).await;
    Ok(())
}

/// Prints the status of a cluster.
pub(crate) async fn print(reach: &Reach, output: Output, until: Instant) {
    let survey = survey(reach, until).await;
    output.answer(&document(reach, &survey), || text(reach, &survey));
}

/// The name of a server: as its cluster's file says, or else by its id, or else by its place.
pub(crate) fn name_of(reach: &Reach, group: u64, address: &Address, id: Option<u64>, place: usize) -> String {
    let local = reach.local.as_ref().and_then(|cluster| cluster.name_at(group, address));
    local.unwrap_or_else(|| local::name(group, id.unwrap_or(place as u64 + 1)))
}

fn controllers<'a>(reach: &Reach, survey: &'a Survey) -> Vec<Server<'a>> {
    let answered = survey.controllers.iter().filter_map(|(_, status)| status.as_ref().ok());
    let committed = committed(answered.map(|status| &status.replica));
    let server = |(place, (address, status)): (usize, &'a (Address, Result<_, String>))| {
        let status: Option<&CtrlStatus> = status.as_ref().ok();
        let known = status.map(|status| Known {
            config: status.config,
            digest: status.digest,
            recovering: status.recovering,
            wipes: 0,
            sessions: None,
        });
        let status = status.map(|status| &status.replica);
        let name = name_of(reach, 0, address, status.map(|status| status.id), place);
        Server { name, address, status, known: known.unwrap_or_default(), committed }
    };
    survey.controllers.iter().enumerate().map(server).collect()
}

fn replicas<'a>(reach: &Reach, survey: &'a Survey, group: GroupId) -> Vec<Server<'a>> {
    let answers = || survey.groups.get(&group).into_iter().flatten();
    let answered = answers().filter_map(|(_, status)| status.as_ref().ok());
    let committed = committed(answered.map(|status| &status.replica));
    let server = |(place, (address, status)): (usize, &'a (Address, Result<KvStatus, String>))| {
        let status = status.as_ref().ok();
        let known = status.map(|status| Known {
            config: status.config,
            digest: status.digest,
            recovering: false,
            wipes: status.wipes,
            sessions: Some(status.sessions),
        });
        let status = status.map(|status| &status.replica);
        let name = name_of(reach, group.0, address, status.map(|status| status.id), place);
        Server { name, address, status, known: known.unwrap_or_default(), committed }
    };
    survey.groups.get(&group).into_iter().flatten().enumerate().map(server).collect()
}

fn newest(survey: &Survey) -> ConfigNum {
    survey.config.as_ref().map(|config| config.num).unwrap_or_default()
}

fn server_document(group: u64, server: &Server<'_>) -> Value {
    let Server { name, address, status, known, .. } = server;
    let field = |value: fn(&ReplicaStatus) -> Value| status.map(value);
    let leader = status.and_then(|status| status.leader).map(|leader| local::name(group, leader));
    let refused_peers = status.map(|status| names(group, &status.refused_peers));
    let followers = status.map(|status| {
        let followers = status.followers.iter();
        followers.map(|(id, it)| (local::name(group, *id), json!(it))).collect::<serde_json::Map<_, _>>()
    });
    json!({
        "name": name,
        "address": address,
        "pid": field(|status| status.pid.into()),
        "up": status.is_some(),
        "role": field(|status| json!(status.role)),
        "term": field(|status| status.term.into()),
        "leader": leader,
        "commit": field(|status| status.commit.into()),
        "applied": field(|status| status.applied.into()),
        "log_bytes": field(|status| status.log_bytes.into()),
        "table_hash": field(|status| hex(status.table_hash).into()),
        "unapplied_bytes": field(|status| status.unapplied_bytes.into()),
        "wal_syncs": field(|status| status.wal_syncs.into()),
        "slow_syncs": field(|status| status.slow_syncs.into()),
        "followers": followers,
        "pace": field(|status| json!(status.pace)),
        "refused": field(|status| json!(status.refused)),
        "refused_by": field(|status| json!(status.refused_by)),
        "owes": field(|status| status.owes.clone().into()),
        "refused_messages": field(|status| status.refused_messages.into()),
        "alarms": field(|status| status.alarms.into()),
        "last_alarm": field(|status| json!(status.last_alarm)),
        "table_bad": field(|status| status.table_bad.into()),
        "refused_peers": refused_peers,
        "behind": server.behind(),
        "config": status.map(|_| known.config.0),
        "digest": known.digest.map(|digest| digest.to_string()),
        "wipes": status.map(|_| known.wipes),
        "sessions": known.sessions.map(|sessions| json!(sessions)),
        "connections": field(|status| json!(status.connections)),
        "disk": field(|status| json!(status.disk)),
        "http": field(|status| json!(status.http)),
    })
}

fn names(group: u64, ids: &[u64]) -> Vec<String> {
    ids.iter().map(|id| local::name(group, *id)).collect()
}

/// What an operator must know about a server: usually nothing.
fn alarm_line(server: &Server<'_>) -> Option<String> {
    let status = server.status?;
    let alarm =
        status.last_alarm.as_ref().map(|text| format!("{} alarms, the newest: {text}", status.alarms));
    let bad = status.table_bad.then(|| "its table is bad and waits for a snapshot".to_owned());
    let DiskStatus { directory, free_bytes, reserve_bytes, low } = &status.disk;
    let full = low.then(|| {
        format!(
            "the disk of {directory} is nearly full: {free_bytes} bytes are free, less than the {reserve_bytes} that are kept, \
             so only what frees space is accepted"
        )
    });
    let wipes = server.known.wipes;
    let wiped = (wipes > 0)
        .then(|| format!("{wipes} shards arrived with other rows than were sent, and started over"));
    let said: Vec<String> = bad.into_iter().chain(full).chain(wiped).chain(alarm).collect();
    (!said.is_empty()).then(|| format!("ALARM {}: {}\n", server.name, said.join("; ")))
}

/// Too wide for the numbers of many JSON readers.
fn hex(word: u64) -> String {
    Digest(word).to_string()
}

fn document(reach: &Reach, survey: &Survey) -> Value {
    let groups = survey.groups.iter().map(|(group, answers)| {
        let status = speaker(answers);
        let shards = status.map_or(&[][..], |status| &status.shards);
        let servers = replicas(reach, survey, *group);
        json!({
            "gid": group.0,
            "joined": survey.is_joined(*group),
            "history": status.map(|status| status.history.word()),
            "history_text": status.map(|status| status.history.to_string()),
            "config": status.map(|status| status.config.0),
            "digest": status.and_then(|status| status.digest).map(|digest| digest.to_string()),
            "key": status.and_then(|status| status.key).map(hex),
            "incarnation": status.and_then(|status| status.incarnation).map(|it| hex(it.0)),
            "registered": status.and_then(|status| status.lost).map(|it| hex(it.0)),
            "lost_data": status.is_some_and(|status| status.lost.is_some()),
            "replicas": servers.iter().map(|server| server_document(group.0, server)).collect::<Vec<_>>(),
            "weight": shards::weight(survey, *group),
            "shards": shards.iter().map(shard_document).collect::<Vec<_>>(),
        })
    });
    let servers = controllers(reach, survey);
    json!({
        "cluster": reach.cluster,
        "config": newest(survey).0,
        "digest": survey.config.as_ref().map(|config| config.digest().to_string()),
        "key": survey.config.as_ref().map(|config| hex(config.key)),
        "params": survey.config.as_ref().map(|config| json!(config.params)),
        "placement": survey.placement.as_ref().map(shards::placement_document),
        "settled": survey.pending(newest(survey), &BTreeSet::new()).is_empty(),
        "controllers": servers.iter().map(|server| server_document(0, server)).collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>(),
    })
}

fn text(reach: &Reach, survey: &Survey) -> String {
    let num = newest(survey);
    let pending = survey.pending(num, &BTreeSet::new());
    let settled =
        if pending.is_empty() { "settled".to_owned() } else { format!("not settled: {}", shown(&pending)) };
    let mut text = format!("cluster {}, configuration {num}, {settled}\n\n", reach.cluster);
    let groups = || survey.groups.keys().flat_map(|group| replicas(reach, survey, *group));
    let servers: Vec<Server<'_>> = controllers(reach, survey).into_iter().chain(groups()).collect();
    text.extend(servers.iter().filter_map(alarm_line));
    let rows = servers.iter().map(server_row);
    let head = [
        "SERVER",
        "ADDRESS",
        ">PID",
        "ROLE",
        ">TERM",
        ">CONFIG",
        ">COMMIT",
        ">BEHIND",
        ">LOG BYTES",
        "TABLE HASH",
    ];
    text += &table(&head, rows);
    text.push('\n');
    text += &table(
        &[
            "GROUP",
            "",
            ">WEIGHT",
            ">CONFIG",
            "DIGEST",
            "INCARNATION",
            ">SHARDS",
            ">KEYS",
            ">BYTES",
            "ON THE MOVE",
        ],
        survey.groups.keys().map(|group| group_row(survey, *group)),
    );
    text += &shards::busiest(survey);
    text += &shards::wishes(survey);
    text += &notes::refusals(controllers(reach, survey).into_iter().chain(groups()));
    let _ = writeln!(text, "\nmore: clerk query (who serves which shard), clerk status -o json (everything)");
    text += &http_line(&servers).unwrap_or_default();
    text
}

/// Where the first server that shows itself over HTTP does so, and how to find the others.
fn http_line(servers: &[Server<'_>]) -> Option<String> {
    let http = |server: &Server<'_>| Some((server.name.clone(), server.status?.http.clone()?));
    let (name, address) = servers.iter().find_map(http)?;
    Some(format!(
        "over HTTP: http://{address}/metrics of {name}; \"http\" in clerk status -o json is each server's\n"
    ))
}

fn server_row(server: &Server<'_>) -> Vec<String> {
    let Some(status) = server.status else {
        return vec![server.name.clone(), server.address.clone(), String::new(), "down".to_owned()];
    };
    let mut role = json!(status.role).as_str().unwrap_or_default().to_owned();
    if let Some(entry) = &status.owes {
        let _ = write!(role, ", owes {entry}");
    }
    if server.known.recovering {
        role += ", waits to be recovered";
    }
    vec![
        server.name.clone(),
        server.address.clone(),
        status.pid.to_string(),
        role,
        status.term.to_string(),
        server.known.config.to_string(),
        status.commit.to_string(),
        server.behind().unwrap_or_default().to_string(),
        status.log_bytes.to_string(),
        format!("{:016x}", status.table_hash),
    ]
}

#[cfg(test)]
mod tests {
    use clerk::api::status::{
        Connections, DiskStatus, Follower, Places, ReplicaStatus, Role, Sessions, Standing,
    };
    use clerk::api::{ConfigNum, Digest};
    use serde_json::json;

    use super::notes::notes;
    use super::{Known, Server, alarm_line, server_document};

    #[test]
    #[expect(clippy::too_many_lines, reason = "one document, field by field")]
    fn a_server_has_the_shape_of_the_contract_up_or_down() {
        let standing = Standing::GivenUp;
        let follower = Follower {
            lacks: 4,
            silent_seconds: 5,
            standing,
            takes: Some(5_000_000),
            wanted: Some(30_000_000),
        };
        let status = ReplicaStatus {
            id: 2,
            pid: 4711,
            role: Role::Leader,
            term: 3,
            leader: Some(2),
            commit: 10,
            applied: 9,
            log_bytes: 1000,
            table_hash: 0xabc,
            unapplied_bytes: 500,
            wal_syncs: 12,
            slow_syncs: 6,
            followers: [(3, follower)].into(),
            pace: Some(22_500_000),
            refused: [("twin".to_owned(), 3)].into(),
            refused_by: [("127.0.0.1:7".to_owned(), "no".to_owned())].into(),
            owes: Some("17@3".into()),
            refused_messages: 5,
            alarms: 1,
            last_alarm: Some("it rings".into()),
            table_bad: true,
            refused_peers: vec![3],
            connections: Connections {
                descriptors: 1024,
                open: [("clients".to_owned(), Places { open: 2, max: 400 })].into(),
                accepted: 7,
                made_room: 1,
                turned_away: 4,
                malformed: 6,
                waiting_bytes: 8,
            },
            disk: DiskStatus { directory: "/data".into(), free_bytes: 9, reserve_bytes: 10, low: true },
            http: Some("127.0.0.1:7400".into()),
        };
        let address = "127.0.0.1:1".to_owned();
        let sessions = Some(Sessions { open: 7, evicted: 8, refused: 9 });
        let known =
            Known { config: ConfigNum(4), digest: Some(Digest(0xd)), recovering: false, wipes: 2, sessions };
        let up =
            Server { name: "101.2".into(), address: &address, status: Some(&status), known, committed: 12 };
        let expected = json!({
            "name": "101.2", "address": "127.0.0.1:1", "pid": 4711, "up": true, "role": "leader", "term": 3,
            "leader": "101.2", "commit": 10, "applied": 9, "log_bytes": 1000,
            "table_hash": "0000000000000abc", "unapplied_bytes": 500, "wal_syncs": 12, "slow_syncs": 6,
            "followers": {"101.3": {"lacks": 4, "silent_seconds": 5, "standing": "given_up", "takes": 5_000_000,
                                    "wanted": 30_000_000}},
            "pace": 22_500_000,
            "refused": {"twin": 3}, "refused_by": {"127.0.0.1:7": "no"},
            "owes": "17@3",
            "refused_messages": 5, "alarms": 1, "last_alarm": "it rings", "table_bad": true, "refused_peers": ["101.3"],
            "behind": 3, "config": 4, "digest": "000000000000000d", "wipes": 2,
            "sessions": {"open": 7, "evicted": 8, "refused": 9},
            "connections": {"descriptors": 1024, "open": {"clients": {"open": 2, "max": 400}}, "accepted": 7,
                            "made_room": 1, "turned_away": 4, "malformed": 6, "waiting_bytes": 8},
            "disk": {"directory": "/data", "free_bytes": 9, "reserve_bytes": 10, "low": true},
            "http": "127.0.0.1:7400",
        });
        assert_eq!(server_document(101, &up), expected);
        let line = "ALARM 101.2: its table is bad and waits for a snapshot; \
                    the disk of /data is nearly full: 9 bytes are free, less than the 10 that are kept, so only what \
                    frees space is accepted; 2 shards arrived with other rows than were sent, and started over; \
                    1 alarms, the newest: it rings\n";
        assert_eq!(alarm_line(&up).as_deref(), Some(line));
        let said = notes(&up);
        for part in ["6 synced writes", "101.3 for 5 s", "4 entries", "8 sessions", "9 new clients"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let (healthy, known) = (ReplicaStatus::default(), Known::default());
        let quiet = Server { status: Some(&healthy), known, ..up };
        assert_eq!(notes(&quiet), "");
        let down = server_document(101, &Server { status: None, ..quiet });
        assert_eq!((&down["up"], &down["role"], &down["pid"]), (&json!(false), &json!(null), &json!(null)));
        assert_eq!(down.as_object().unwrap().len(), expected.as_object().unwrap().len());
    }
}
