//! Messages in words that fit one line of a log. Made only for runs that are recorded.
//!
//! An entry is shown as "12 (term 3)", a message to add entries as "after 12 (term 3): 2 entries
//! 13-14, commit 12", its answer as "has up to 14", a client's request as "put k1 = "v" (config
//! 3)".
//!
//! Left out on purpose: rounds, cursors' hashes and anything else that needs the code beside it.

use clerk::api::config::Config;
use clerk::api::ctrl::{Change, CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest, Write};
use clerk::api::push::{Copied, Cursor, Pos, PushReply, PushRequest, Reach};
use clerk::api::{Address, Ticket};
use raft::core::message::{Body, Chunk, Message, Verdict};
use raft::types::{Entry, EntryId, Index};

use super::{Reply, Request};

/// Longer keys and values are cut.
const SHOWN_MAX: usize = 24;

/// A message that can be put into words.
pub(super) trait Said {
    /// Its kind, in a word or two.
    fn kind(&self) -> &'static str;
    /// The term it names.
    fn term(&self) -> Option<u64>;
    /// Its content.
    fn text(&self) -> String;
}

impl Said for Message {
    fn kind(&self) -> &'static str {
        kind_of(&self.body)
    }

    fn term(&self) -> Option<u64> {
        Some(self.term.0)
    }

    fn text(&self) -> String {
        match &self.body {
            Body::PreVote { last } => format!("{}, would run in term {}", last_of(*last), self.term.0 + 1),
            Body::PreVoteReply { asked, granted } => format!("{} for term {asked}", verdict(*granted)),
            Body::Vote { last } => last_of(*last),
            Body::VoteReply { granted } => verdict(*granted).to_owned(),
            Body::Append { prev, entries, commit, .. } => append(*prev, entries, *commit),
            Body::AppendReply { verdict, disk_low, room, .. } => {
                let found = match verdict {
                    Verdict::Matched(Index(0)) => "has nothing yet".to_owned(),
                    Verdict::Matched(index) => format!("has up to {index}"),
                    Verdict::Conflict { at, try_at } => {
                        format!("has another {at} or none, try {}", id(*try_at))
                    }
                };
                let low = if *disk_low { ", disk nearly full" } else { "" };
                let full = if *room == 0 { ", no room for more" } else { "" };
                format!("{found}{low}{full}")
            }
            Body::Chunk(chunk) => chunk_text(chunk),
            Body::ChunkReply { snapshot, cursor, .. } => {
                let far = cursor.as_ref().map_or_else(
                    || "has nothing of it yet".to_owned(),
                    |cursor| format!("has rows up to {}", shown(cursor)),
                );
                format!("snapshot of {}: {far}", id(*snapshot))
            }
        }
    }
}

impl Said for Request {
    fn kind(&self) -> &'static str {
        "request"
    }

    fn term(&self) -> Option<u64> {
        None
    }

    fn text(&self) -> String {
        match self {
            Self::Kv(_, request) => kv(request),
            Self::Push(_, _, request) => push(request),
            Self::Ctrl(request) => ctrl(request),
        }
    }
}

impl Said for Reply {
    fn kind(&self) -> &'static str {
        "reply"
    }

    fn term(&self) -> Option<u64> {
        None
    }

    fn text(&self) -> String {
        match self {
            Self::Kv(Ok(reply)) => kv_reply(reply),
            Self::Kv(Err(KvRefusal::NotLeader { hint })) => not_leader(hint.as_ref()),
            Self::Kv(Err(refusal)) => format!("refused: {refusal}"),
            Self::Push(Ok(reply)) => push_reply(reply),
            Self::Push(Err(KvRefusal::NotLeader { hint })) => not_leader(hint.as_ref()),
            Self::Push(Err(refusal)) => format!("refused: {refusal}"),
            Self::Ctrl(Ok(reply)) => ctrl_reply(reply),
            Self::Ctrl(Err(CtrlRefusal::NotLeader { hint })) => not_leader(hint.as_ref()),
            Self::Ctrl(Err(refusal)) => format!("refused: {refusal}"),
            Self::Refused(why) => format!("refused: {why}"),
        }
    }
}

/// The kind of a message of Raft.
pub(super) fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "pre-vote",
        Body::PreVoteReply { .. } => "pre-vote reply",
        Body::Vote { .. } => "vote",
        Body::VoteReply { .. } => "vote reply",
        Body::Append { entries, .. } if entries.is_empty() => "heartbeat",
        Body::Append { .. } => "append",
        Body::AppendReply { .. } => "append reply",
        Body::Chunk(_) => "chunk",
        Body::ChunkReply { .. } => "chunk reply",
    }
}

fn id(id: EntryId) -> String {
    if id == EntryId::ZERO { "the start".to_owned() } else { format!("{} (term {})", id.index, id.term) }
}

fn last_of(last: EntryId) -> String {
    if last == EntryId::ZERO { "log empty".to_owned() } else { format!("last {}", id(last)) }
}

fn verdict(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

fn append(prev: EntryId, entries: &[Entry], commit: Index) -> String {
    let carried = match entries {
        [] => String::new(),
        [only] => format!(": 1 entry {}", only.id.index),
        [first, .., last] => format!(": {} entries {}-{}", entries.len(), first.id.index, last.id.index),
    };
    format!("after {}{carried}, commit {commit}", id(prev))
}

fn chunk_text(chunk: &Chunk) -> String {
    let place = chunk
        .after
        .as_ref()
        .map_or_else(|| "from the start".to_owned(), |after| format!("after {}", shown(after)));
    let (rows, end) = (chunk.rows.len(), if chunk.done { "last" } else { "more follow" });
    format!("snapshot of {}: {rows} rows {place}, {end}", id(chunk.snapshot))
}

/// Bytes as text, cut.
fn shown(bytes: &[u8]) -> String {
    let text = bytes.iter().take(SHOWN_MAX).flat_map(|byte| byte.escape_ascii()).map(char::from);
    let text: String = text.collect();
    if bytes.len() > SHOWN_MAX { format!("{text}... ({} bytes)", bytes.len()) } else { text }
}

fn with_ticket(ticket: Option<Ticket>) -> String {
    ticket.map_or_else(String::new, |Ticket { session, seq }| format!(", session {session} number {seq}"))
}

fn cursor_text(cursor: &Cursor) -> String {
    let upto = match &cursor.reach {
        Reach::Start => return "the start".to_owned(),
        Reach::Key(last) => format!("rows up to {}", shown(last)),
        Reach::End => "all rows".to_owned(),
    };
    let Pos { index, change } = cursor.pos;
    let within = if change == u32::MAX { String::new() } else { format!(", change {change}") };
    format!("{upto} as of entry {index}{within}")
}

fn change(key: &[u8], write: &Write) -> String {
    let key = shown(key);
    match write {
        Write::Put { value, expected: None } => format!("put {key} = \"{}\"", shown(value)),
        Write::Put { value, expected: Some(version) } => {
            format!("put {key} = \"{}\" if at version {version}", shown(value))
        }
        Write::Append { piece } => format!("append {key} + \"{}\"", shown(piece)),
        Write::Delete => format!("delete {key}"),
    }
}

fn kv(request: &KvRequest) -> String {
    match request {
        KvRequest::Open { shard, config } => format!("open a session in shard {shard} (config {config})"),
        KvRequest::Get { key, config } => format!("get {} (config {config})", shown(key)),
        KvRequest::Write { key, write, ticket, config } => {
            format!("{} (config {config}{})", change(key, write), with_ticket(*ticket))
        }
        KvRequest::Batch { shard, writes, ticket, config } => {
            let each: Vec<String> = writes.iter().map(|(key, write)| change(key, write)).collect();
            let each = each.join("; ");
            format!("in shard {shard}: {each} (config {config}{})", with_ticket(*ticket))
        }
        KvRequest::Scan { shard, after, limit, config } => {
            let place = after.as_ref().map_or_else(String::new, |after| format!(" after {}", shown(after)));
            format!("scan shard {shard}{place}, at most {limit} rows (config {config})")
        }
        KvRequest::History => "which configurations were adopted?".to_owned(),
        KvRequest::Config => "which configuration?".to_owned(),
        KvRequest::Status => "status?".to_owned(),
        KvRequest::Server(_) => "about the server itself?".to_owned(),
    }
}

fn kv_reply(reply: &KvReply) -> String {
    match reply {
        KvReply::Opened(session) => format!("session {session}"),
        KvReply::Value { value: None, .. } => "no such key".to_owned(),
        KvReply::Value { value: Some(value), version } => {
            format!("\"{}\" (version {version})", shown(value))
        }
        KvReply::Written { version } => format!("written (version {version})"),
        KvReply::Page { items, done } => {
            format!("{} rows, {}", items.len(), if *done { "last" } else { "more follow" })
        }
        KvReply::Adopted(adopted) => format!("{} configs", adopted.configs.len()),
        KvReply::Config(config, _) => config_text(config),
        KvReply::Status(_) => "status".to_owned(),
        KvReply::Server(_) => "about the server itself".to_owned(),
        KvReply::Batch { results } => {
            let each: Vec<String> = (results.iter())
                .map(|result| match result {
                    Ok(version) => format!("version {version}"),
                    Err(refusal) => refusal.to_string(),
                })
                .collect();
            format!("written ({})", each.join("; "))
        }
    }
}

fn push(request: &PushRequest) -> String {
    let num = request.config().num;
    match request {
        PushRequest::Install { shard, from, to, rows, .. } => {
            let (rows, to) = (rows.len(), cursor_text(to));
            format!("shard {shard} from group {from}: {rows} rows, now {to} (config {num})")
        }
        PushRequest::Offer { shard, from, .. } => {
            format!("group {from} offers shard {shard} (config {num})")
        }
        PushRequest::Activate { shard, from, rows, end, .. } => {
            let (last, all) = (rows.len(), end.rows);
            format!(
                "shard {shard} from group {from}: the last {last} rows; serve its {all} keys (config {num})"
            )
        }
    }
}

fn push_reply(reply: &PushReply) -> String {
    match reply {
        PushReply::Copied { num, copied: Copied { cursor, rows, .. }, .. } => {
            format!("has {}: {rows} keys (config {num})", cursor_text(cursor))
        }
        PushReply::Done { num } => format!("done (config {num})"),
        PushReply::Refused { num } => format!("refused (config {num})"),
    }
}

fn ctrl(request: &CtrlRequest) -> String {
    match request {
        CtrlRequest::Open => "open a session".to_owned(),
        CtrlRequest::Change { ticket, change } => {
            format!("{} (session {} number {})", change_text(change), ticket.session, ticket.seq)
        }
        CtrlRequest::Plan(change) => format!("what would happen: {}", change_text(change)),
        CtrlRequest::Query(None) => "newest config?".to_owned(),
        CtrlRequest::Query(Some(num)) => format!("config {num}?"),
        CtrlRequest::History { after: None } => "all configs?".to_owned(),
        CtrlRequest::History { after: Some(num) } => format!("configs after {num}?"),
        CtrlRequest::Watch { after, .. } => format!("wait for a config after {after}"),
        CtrlRequest::Status => "status?".to_owned(),
        CtrlRequest::Recover(recovery) => format!("continue from {} configs", recovery.configs.len()),
        CtrlRequest::Placement => "weights and pins?".to_owned(),
        CtrlRequest::Server(_) => "about the server itself?".to_owned(),
    }
}

fn ctrl_reply(reply: &CtrlReply) -> String {
    match reply {
        CtrlReply::Opened(session) => format!("session {session}"),
        CtrlReply::Changed { config, moves } => format!("config {config}, {} shards move", moves.len()),
        CtrlReply::Config(config, _) => config_text(config),
        CtrlReply::Recovered(place) => format!("recovered at config {place}"),
        CtrlReply::Configs(news) => match news.configs.as_slice() {
            [] => "no newer config".to_owned(),
            [only] => config_text(only),
            [first, .., last] => format!("configs {}-{}", first.num, last.num),
        },
        CtrlReply::Status(_) => "status".to_owned(),
        CtrlReply::Server(_) => "about the server itself".to_owned(),
        CtrlReply::Placement(placement) => format!("placement {}", placement.version),
    }
}

fn change_text(change: &Change) -> String {
    let listed = |groups: Vec<String>| groups.join(", ");
    match change {
        Change::Join(groups) => format!("join {}", listed(groups.keys().map(ToString::to_string).collect())),
        Change::Leave { groups, force } => {
            let force = if *force { ", by force" } else { "" };
            format!("leave {}{force}", listed(groups.iter().map(ToString::to_string).collect()))
        }
        Change::Move { shard, group } => format!("move shard {shard} to {group}"),
        Change::Weigh { group, weight } => format!("weight {weight} for {group}"),
        Change::Pin { shard, group } => format!("pin shard {shard} to {group}"),
        Change::Unpin { shard } => format!("unpin shard {shard}"),
        Change::Arrange { made_from, moves, .. } => {
            format!("{} moves planned from config {}", moves.len(), made_from.num)
        }
        Change::MoveRate { mib } => format!("moves at {mib:?} MiB/s"),
        Change::DeclareLost { shards, .. } => {
            format!("shards {} are lost", listed(shards.iter().map(ToString::to_string).collect()))
        }
    }
}

fn config_text(config: &Config) -> String {
    let groups: Vec<String> = config.groups.keys().map(ToString::to_string).collect();
    match groups.as_slice() {
        [] => format!("config {}: no groups", config.num),
        groups => format!("config {}: groups {}", config.num, groups.join(", ")),
    }
}

fn not_leader(hint: Option<&Address>) -> String {
    match hint {
        None => "refused: not the leader".to_owned(),
        Some(hint) => format!("refused: not the leader, try {hint}"),
    }
}
