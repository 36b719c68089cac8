//! What the text of `status` says below its tables: a line for each fact that is worth a look.

use std::fmt::Write as _;

use clerk::api::status::{Follower, Sessions, Standing};

use super::Server;

/// A member that takes less than clients write (rule 133).
pub(super) fn lagging(name: &str, follower: &Follower, pace: Option<u64>) -> Option<String> {
    let mb = |bytes: Option<u64>| format!("{:.1}", bytes.unwrap_or(0) as f64 / 1e6);
    let takes = format!("takes {} of {} MB/s", mb(follower.takes), mb(follower.wanted));
    match (follower.standing, pace) {
        (Standing::GivenUp, _) => Some(format!(
            "{name} cannot keep up: {takes}, so nobody waits for it; it is tried again when less is written, or in ten minutes\n"
        )),
        (Standing::Arriving, Some(_)) => {
            Some(format!("{name} lags: {takes}, and clients may write {} MB/s until it is there\n", mb(pace)))
        }
        _ => None,
    }
}

/// What slows a server or its clients down, a line each: nothing, of most.
pub(super) fn notes(server: &Server<'_>) -> String {
    let Server { name, status, known, .. } = server;
    let mut text = String::new();
    let Some(status) = status else { return text };
    for (id, follower) in &status.followers {
        let other = name.split_once('.').map_or_else(|| id.to_string(), |(group, _)| format!("{group}.{id}"));
        text.extend(lagging(&other, follower, status.pace));
        if follower.silent_seconds > 0 {
            let Follower { lacks, silent_seconds, .. } = follower;
            let _ = writeln!(
                text,
                "{name} has not heard {other} for {silent_seconds} s; it lacks {lacks} entries"
            );
        }
    }
    if status.slow_syncs > 0 {
        let slow = status.slow_syncs;
        let _ = writeln!(text, "{name}: {slow} synced writes took longer than an election since it started");
    }
    let Sessions { evicted, refused, .. } = known.sessions.unwrap_or_default();
    if evicted + refused > 0 {
        let _ = writeln!(
            text,
            "{name} dropped {evicted} sessions for new ones and told {refused} new clients \"busy\" since it started"
        );
    }
    text
}

/// What was refused, a line each.
pub(super) fn refusals<'a>(servers: impl Iterator<Item = Server<'a>>) -> String {
    let mut text = String::new();
    for server in servers {
        let Server { name, status, .. } = &server;
        let Some(status) = status else { continue };
        for (address, why) in &status.refused_by {
            let _ = writeln!(text, "{name} and {address} do not talk to each other: {why}");
        }
        if !status.refused.is_empty() {
            let counted = status.refused.iter().map(|(reason, count)| format!("{count} {reason}"));
            let counted = counted.collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "{name} refused connections since it started: {counted} (see its log)");
        }
        if status.refused_messages > 0 {
            let count = status.refused_messages;
            let _ = writeln!(text, "{name} refused {count} messages of other members since it started");
        }
        text += &notes(&server);
        if !status.refused_peers.is_empty() {
            let peers: Vec<String> = status.refused_peers.iter().map(u64::to_string).collect();
            let _ = writeln!(text, "{name} no longer listens to the members {}", peers.join(", "));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

#[cfg(test)]
mod tests {
    use clerk::api::status::{Follower, Standing};

    use super::lagging;

    #[test]
    fn a_member_that_cannot_keep_up_is_named_and_so_is_one_that_writes_wait_for() {
        let (takes, wanted) = (Some(5_000_000), Some(30_000_000));
        let given_up = Follower { lacks: 4, silent_seconds: 0, standing: Standing::GivenUp, takes, wanted };
        let said = lagging("101.3", &given_up, None).unwrap();
        assert!(said.starts_with("101.3 cannot keep up: takes 5.0 of 30.0 MB/s"), "{said}");
        let arriving = Follower { standing: Standing::Arriving, ..given_up };
        assert_eq!(lagging("101.3", &arriving, None), None);
        let said = lagging("101.3", &arriving, Some(22_500_000)).unwrap();
        assert!(said.contains("clients may write 22.5 MB/s"), "{said}");
        assert_eq!(lagging("101.3", &Follower { standing: Standing::Level, ..given_up }, None), None);
    }
}
