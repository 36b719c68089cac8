//! `status`: every server and shard, no matter which servers are down.

mod notes;
mod shards;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use base::clock::Instant;
use clerk::api::status::DiskStatus;
use clerk_survey::changes::with;
use clerk_survey::document::{Server, controllers, document, newest, replicas};
use serde_json::json;

use crate::context::{Context, Reach};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::settle::shown;
use crate::survey::{Survey, survey};

use self::shards::group_row;

pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let reach = context.reach_what_runs().await?;
    print(&reach, context.output, context.data_until()).await;
    Ok(())
}

/// Prints the status of a cluster.
async fn print(reach: &Reach, output: Output, until: Instant) {
    let survey = survey(reach, until).await;
    let reach = reach.asked();
    output.answer(&document(&reach, &survey), || text(&reach, &survey));
}

/// The same of a cluster that was started here, with the way to its page.
pub(crate) async fn print_started(reach: &Reach, output: Output, until: Instant, token: &Path) {
    let survey = survey(reach, until).await;
    let reach = reach.asked();
    let page = page(&controllers(&reach, &survey));
    let token = token.canonicalize().ok().filter(|_| page.is_some());
    let more = json!({"page": page, "admin_token": token});
    output.answer(&with(document(&reach, &survey), more), || {
        let token = token.map(|token| format!("changes there need the token in {}\n", token.display()));
        text(&reach, &survey) + &token.unwrap_or_default()
    });
}

/// The address of the cluster's page.
fn page(controllers: &[Server<'_>]) -> Option<String> {
    let http = controllers.iter().find_map(|server| server.status?.http.clone())?;
    Some(format!("http://{http}/"))
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

fn text(reach: &clerk_survey::reach::Reach, survey: &Survey) -> String {
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
    text += &page(&controllers(reach, survey)).map(|page| format!("the page: {page}\n")).unwrap_or_default();
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
    use std::collections::BTreeMap;

    use clerk::api::status::{
        Connections, DiskStatus, Follower, Places, ReplicaStatus, Role, Sessions, Standing,
    };
    use clerk::api::{ConfigNum, Digest};
    use clerk_survey::document::{Known, server_document};
    use serde_json::json;

    use super::notes::notes;
    use super::{Server, alarm_line};

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
            requests: BTreeMap::new(),
            slow_requests: 3,
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
