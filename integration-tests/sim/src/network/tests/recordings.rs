//! What a recording contains, and in which words.

use super::*;

/// A little of everything that is recorded.
async fn everything(world: World) -> Result<(), String> {
    let network = Network::new(&world);
    let (transport, _heard, _told) = pair(&network);
    let (sender, server): (Name, Name) = ("sender".into(), "server".into());
    transport.send(NodeId(2), vote(3));
    wait(&world, 1).await;
    network.disconnect(&sender, &[server.clone(), sender.clone()]);
    network.disconnect(&sender, std::slice::from_ref(&server));
    transport.send(NodeId(2), granted(3));
    network.heal();
    counting(&network, &server, Duration::ZERO);
    ask(&network, "client 1").await.map_err(|error| error.to_string())?;
    network.set_weather(Weather { unreliable: true, long_reordering: true, ..Weather::default() });
    for _ in 0..1000 {
        if ask(&network, "client 1").await.is_err() {
            break;
        }
    }
    wait(&world, 200).await;
    Ok(())
}

#[test]
fn a_recorded_run_tells_what_left_what_arrived_and_what_was_cut() {
    let mut tape = Tape::default();
    let recorded = run_recorded(7, Some(&mut tape), everything).unwrap();
    let (events, _) = tape.finish();
    assert_eq!(recorded.trace, run(7, everything).unwrap().trace, "recording changes nothing");
    let found: Vec<(Option<&str>, Option<u64>, String)> = events
        .iter()
        .map(|Event { at, term, what, .. }| {
            let text = match what {
                What::Sent { kind, to, text, fate } => format!("{kind} -> {to}: {text} {fate:?}"),
                What::Arrived { kind, from, text } => format!("{from} -> {kind}: {text}"),
                What::Link { from, to, up } => format!("{from} {to} {up}"),
                What::Weather { text } => text.clone(),
                other => format!("{other:?}"),
            };
            (at.as_deref(), *term, text)
        })
        .collect();
    let text = |at: usize| found[at].2.as_str();
    assert_eq!(found[0], (Some("sender"), Some(3), "vote -> server: log empty None".to_owned()));
    assert_eq!(found[1], (Some("server"), Some(3), "sender -> vote: log empty".to_owned()));
    assert_eq!(found[2], (None, None, "sender server false".to_owned()));
    assert_eq!(text(3), "server sender false");
    assert_eq!(text(4), "vote reply -> server: granted Some(\"unreachable\")");
    assert_eq!((text(5), text(6)), ("sender server true", "server sender true"));
    assert_eq!(found[7], (Some("client 1"), None, "request -> server: open a session None".to_owned()));
    assert_eq!(found[8], (Some("server"), None, "client 1 -> request: open a session".to_owned()));
    assert_eq!(found[9], (Some("server"), None, "reply -> client 1: session 1 None".to_owned()));
    assert_eq!(found[10], (Some("client 1"), None, "server -> reply: session 1".to_owned()));
    assert_eq!(text(11), "unreliable, long reordering");
    assert!(found.last().unwrap().2.ends_with("Some(\"lost\")"), "{:?}", found.last());
}

#[test]
fn words_are_short_and_need_no_code_beside_them() {
    let entry = |index| Entry::new(EntryId::new(3, index), Payload::Empty);
    let says = |term, body| Message::new(Term(term), body).text();
    let acked = EntryId::ZERO;
    let append =
        |prev, entries| Body::Append { prev, entries, commit: Index(12), round: 7, acked, differs: None };
    let prev = EntryId::new(3, 12);
    assert_eq!(
        says(3, append(prev, vec![entry(13), entry(14)])),
        "after 12 (term 3): 2 entries 13-14, commit 12"
    );
    assert_eq!(says(3, append(prev, vec![entry(13)])), "after 12 (term 3): 1 entry 13, commit 12");
    assert_eq!(says(3, append(EntryId::ZERO, vec![])), "after the start, commit 12");
    assert_eq!(says(4, Body::PreVote { last: prev }), "last 12 (term 3), would run in term 5");
    assert_eq!(says(4, Body::PreVoteReply { asked: Term(5), granted: false }), "refused for term 5");
    let answer = |verdict, disk_low| {
        let (table, room) = (TableReport::default(), u64::MAX);
        says(3, Body::AppendReply { verdict, round: 7, disk_low, owes: false, table, room })
    };
    assert_eq!(answer(Verdict::Matched(Index(14)), true), "has up to 14, disk nearly full");
    let conflict = Verdict::Conflict { at: Index(12), try_at: EntryId::new(2, 9) };
    assert_eq!(answer(conflict, false), "has another 12 or none, try 9 (term 2)");
    let rows = vec![(Bytes::from_static(b"k"), Bytes::new()); 40];
    let chunk = |after, done| {
        let membership = Membership::of([NodeId(1)]);
        says(3, Body::Chunk(Chunk::new(prev, membership, after, rows.clone(), done)))
    };
    assert_eq!(chunk(None, false), "snapshot of 12 (term 3): 40 rows from the start, more follow");
    let after = Some(Bytes::from_static(b"v\x00k1"));
    assert_eq!(chunk(after.clone(), true), "snapshot of 12 (term 3): 40 rows after v\\x00k1, last");
    let reply = Body::ChunkReply { snapshot: prev, cursor: after, resume: false };
    assert_eq!(says(3, reply), "snapshot of 12 (term 3): has rows up to v\\x00k1");

    let ticket = Some(Ticket { session: SessionId(7), seq: Seq(3) });
    let write = |write, ticket| {
        let (key, config) = (Bytes::from_static(b"k1"), ConfigNum(3));
        Request::Kv(GroupId(1), KvRequest::Write { key, write, ticket, config }).text()
    };
    let put = |value: &str, expected| Write::Put { value: value.to_owned().into(), expected };
    assert_eq!(write(put("v", None), ticket), "put k1 = \"v\" (config 3, session 7 number 3)");
    assert_eq!(write(put("v", Some(Version(4))), None), "put k1 = \"v\" if at version 4 (config 3)");
    let long = write(put(&"x".repeat(1000), None), None);
    assert_eq!(long, format!("put k1 = \"{}... (1000 bytes)\" (config 3)", "x".repeat(24)));
    let value = KvReply::Value { value: Some(Bytes::from_static(b"v")), version: Version(4) };
    assert_eq!(Reply::Kv(Ok(value)).text(), "\"v\" (version 4)");
}
