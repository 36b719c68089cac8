//! The language of the golden scripts: one command a line.
//!
//! ```text
//! cluster N [key=value...]        N fresh servers; keys are Config's, chunk-rows and keep-entries
//! disk ID terms=1,1,2 [term=T vote=ID marker=INDEX@TERM]   what it finds at its (re)start
//! tick ID|all [n]   beat ID       time passes; a beat is a heartbeat interval
//! timeout ID                      ticks until it asks whether it could win
//! deliver [A>B [n]]               all there is and what follows; or what is on one link
//! round                           what is on its way now, once
//! drop|double|hold A>B|all        loses, doubles, or keeps back what is on its way
//! release                         what was kept back is on its way again
//! cut A B   isolate A   heal      links
//! damage A n                      it dies, and its log loses its last n saves but for their mark
//! set-back A n                    it dies, and its log loses its last n saves without a trace
//! crash A   restart A   doom A before-save|after-save|after-send
//! stall A   unstall A             its disk hangs, and returns
//! propose A text...               in one round; text*n: n times as long
//! freeing A text                  a command that makes room
//! read A number
//! corrupt A                       its table goes wrong, which only its hash shows
//! hash A|all                      the table's hash is told to its core
//! low A   ok A                    its disk is nearly full, or not
//! compact A                       flushes its table and lets the log go
//! forget-views A                  it closes the views it streams snapshots from
//! lost A B                        A's transport reports that something to B was lost
//! beside off|on                   appliers, flushers and streamers hang, and go on
//! apply A                         only A's applier has its turn, though they hang
//! say A>B tT BODY                 B gets this message, from any sender
//! show [A]   progress A           servers and logs; followers as their leader sees them
//! quietly COMMAND                 without its output
//! ```

use bytes::Bytes;
use raft::core::Raft;
use raft::core::message::{Body, Chunk, TableReport, Verdict};
use raft::core::ready::ReadId;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Term};

use super::machine::{Table, row_of};
use super::{Cluster, Flying, entry, message, shown, small_config};

/// Runs a script one command at a time.
#[derive(Default)]
pub(crate) struct Script {
    cluster: Option<Cluster>,
    held: Vec<Flying>,
}

impl Script {
    /// The lines that a command shows.
    pub(crate) fn run(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (quiet, words) = match words.as_slice() {
            ["quietly", rest @ ..] => (true, rest.to_vec()),
            all => (false, all.to_vec()),
        };
        let mut lines = match words.as_slice() {
            ["cluster", size, options @ ..] => {
                self.cluster = Some(cluster(size, options));
                Vec::new()
            }
            words => self.command(words),
        };
        let cluster = self.cluster.as_mut().expect("a script begins with a cluster");
        let seen: Vec<String> = cluster.seen.drain(..).filter_map(|seen| shown::seen(&seen)).collect();
        lines.splice(0..0, seen);
        if quiet { Vec::new() } else { lines }
    }

    #[expect(clippy::too_many_lines, reason = "one arm a command")]
    fn command(&mut self, words: &[&str]) -> Vec<String> {
        let cluster = self.cluster.as_mut().expect("a script begins with a cluster");
        match *words {
            ["disk", id, ref options @ ..] => disk(cluster, node(id), options),
            ["tick", "all", ref times @ ..] => {
                for _ in 0..count(times) {
                    cluster.ids().into_iter().for_each(|id| cluster.tick(id));
                }
            }
            ["tick", id, ref times @ ..] => (0..count(times)).for_each(|_| cluster.tick(node(id))),
            ["beat", id] => (0..cluster.config.heartbeat_ticks).for_each(|_| cluster.tick(node(id))),
            ["timeout", id] => cluster.time_out(node(id)),
            ["deliver"] => cluster.deliver_all(),
            ["deliver", link, ref times @ ..] => {
                let times = if times.is_empty() { usize::MAX } else { count(times) as usize };
                for flying in take(cluster, link, times) {
                    deliver(cluster, flying);
                }
            }
            ["round"] => {
                for flying in std::mem::take(&mut cluster.pool) {
                    deliver(cluster, flying);
                }
            }
            ["drop", link] => drop(take(cluster, link, usize::MAX)),
            ["double", link] => {
                for flying in take(cluster, link, usize::MAX) {
                    cluster.pool.extend([flying.clone(), flying]);
                }
            }
            ["hold", link] => self.held.extend(take(cluster, link, usize::MAX)),
            ["release"] => cluster.pool.append(&mut self.held),
            ["cut", a, b] => cluster.cut.extend([(node(a), node(b)), (node(b), node(a))]),
            ["isolate", id] => cluster.isolate(node(id)),
            ["heal"] => cluster.cut.clear(),
            ["crash", id] => cluster.crash(node(id)),
            ["damage", id, ref saves @ ..] => cluster.damage(node(id), count(saves) as usize),
            ["set-back", id, ref saves @ ..] => cluster.set_back(node(id), count(saves) as usize),
            ["restart", id] => cluster.restart(node(id)),
            ["doom", id, point] => cluster.server(node(id)).doom = Some(shown::parse_crash(point)),
            ["stall", id] => cluster.server(node(id)).stalled = true,
            ["unstall", id] => cluster.unstall(node(id)),
            ["compact", id] => cluster.compact(node(id)),
            ["forget-views", id] => cluster.drop_views(node(id)),
            ["lost", id, peer] => cluster.input(node(id), |raft| raft.unreachable(node(peer))),
            ["beside", "off"] => cluster.instant = false,
            ["beside", "on"] => {
                cluster.instant = true;
                cluster.ids().into_iter().for_each(|id| cluster.effects(id, None));
            }
            ["apply", id] => {
                let id = node(id);
                while cluster.apply_one(id) {}
                cluster.tell_events(id);
                cluster.effects(id, None);
            }
            ["corrupt", id] => cluster.server(node(id)).table.damage ^= 0xbad,
            ["hash", "all"] => cluster.ids().into_iter().for_each(|id| cluster.tell_hash(id)),
            ["hash", id] => cluster.tell_hash(node(id)),
            ["low", id] => cluster.input(node(id), |raft| raft.set_disk_low(true)),
            ["ok", id] => cluster.input(node(id), |raft| raft.set_disk_low(false)),
            ["say", link, term, ref body @ ..] => {
                let (from, to) = ends(link);
                let mut body = parse_body(body);
                if let Body::Chunk(chunk) = &mut body {
                    chunk.membership = Membership::of(cluster.ids());
                }
                cluster.step(from, to, message(number(&term[1..]), body));
                cluster.effects(to, None);
            }
            _ => return ask(cluster, words),
        }
        Vec::new()
    }
}

/// Commands that are answered at once.
fn ask(cluster: &mut Cluster, words: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    match *words {
        ["propose", id, ref texts @ ..] => {
            let id = node(id);
            for text in texts {
                if let Err(error) = cluster.input_only(id, |raft| raft.propose(command(text), false)) {
                    lines.push(format!("{id:?} does not take {text}: {error}"));
                }
            }
            cluster.effects(id, None);
        }
        ["freeing", id, text] => {
            let id = node(id);
            if let Err(error) = cluster.input(id, |raft| raft.propose(command(text), true)) {
                lines.push(format!("{id:?} does not take {text}: {error}"));
            }
        }
        ["read", id, read] => {
            let (id, read) = (node(id), ReadId(number(read)));
            let taken = cluster.input_only(id, |raft: &mut Raft| raft.read(read));
            if let Err(error) = taken {
                lines.push(format!("{id:?} does not take read {}: {error}", read.0));
            }
            cluster.effects(id, None);
        }
        ["show"] => lines.extend(cluster.ids().into_iter().map(|id| shown::server(cluster, id))),
        ["show", id] => lines.push(shown::server(cluster, node(id))),
        ["progress", id] => lines.extend(shown::progress(cluster, node(id))),
        _ => panic!("no such command: {}", words.join(" ")),
    }
    lines
}

fn cluster(size: &str, options: &[&str]) -> Cluster {
    let mut config = small_config(7);
    let (mut chunk_rows, mut keep_entries, mut quiet_start) = (2, 0, false);
    for option in options {
        let (key, value) = pair(option);
        let value = number(value) as usize;
        match key {
            "append-bytes-max" => config.append_bytes_max = value,
            "in-flight-messages-max" => config.in_flight_messages_max = value,
            "in-flight-bytes-max" => config.in_flight_bytes_max = value,
            "uncommitted-bytes-max" => config.uncommitted_bytes_max = value,
            "unapplied-bytes-max" => config.unapplied_bytes_max = value,
            "pending-reads-max" => config.pending_reads_max = value,
            "log-bytes-max" => config = config.with_log_bytes_max(value),
            "log-keep-bytes" => config.log_keep_bytes = value,
            "log-bytes-hard-max" => config.log_bytes_hard_max = value,
            "chunk-rows" => chunk_rows = value,
            "keep-entries" => keep_entries = value,
            "quiet-start" => quiet_start = value > 0,
            _ => panic!("no such setting: {key}"),
        }
    }
    let mut cluster = Cluster::new(number(size), config);
    cluster.chunk_rows = chunk_rows;
    cluster.keep_entries = keep_entries;
    // A script shows one thing: no member is given up in it.
    cluster.kept_bytes_max = u64::MAX;
    for id in cluster.ids() {
        cluster.input_only(id, |raft| raft.set_room(u64::MAX, 0));
    }
    // Of servers that start later: these have been up for long.
    cluster.config.quiet_start = quiet_start;
    cluster
}

fn disk(cluster: &mut Cluster, id: NodeId, options: &[&str]) {
    cluster.crash(id);
    let server = cluster.server(id);
    for option in options {
        let (key, value) = pair(option);
        match key {
            "marker" => {
                server.disk.marker = entry_id(value);
                let EntryId { term, index } = server.disk.marker;
                server.table = Table::default();
                server.table.fill((1..=index.0).map(|at| entry(term.0, at, "")).collect());
            }
            "terms" => {
                let first = server.disk.marker.index.0 + 1;
                server.disk.entries =
                    value.split(',').zip(first..).map(|(term, at)| entry(number(term), at, "")).collect();
            }
            "term" => server.disk.hard_state.term.0 = number(value),
            "vote" => server.disk.hard_state.vote = Some(node(value)),
            _ => panic!("no such part of a disk: {key}"),
        }
    }
    let last = server.disk.entries.last().map_or(server.disk.marker.term, |entry| entry.id.term);
    let HardState { term, vote } = server.disk.hard_state;
    server.disk.hard_state = HardState { term: term.max(last), vote };
    cluster.restart(id);
    cluster.seen.clear();
}

fn take(cluster: &mut Cluster, link: &str, mut times: usize) -> Vec<Flying> {
    let on_link = |flying: &mut Flying| {
        let taken = times > 0 && (link == "all" || (flying.from, flying.to) == ends(link));
        times -= usize::from(taken);
        taken
    };
    cluster.pool.extract_if(.., on_link).collect()
}

fn deliver(cluster: &mut Cluster, flying: Flying) {
    cluster.pool.insert(0, flying);
    cluster.deliver(0);
}

fn parse_body(words: &[&str]) -> Body {
    let option = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let round = option("round").map_or(0, number);
    let reply = |verdict| {
        let (disk_low, owes) = (words.contains(&"low"), words.contains(&"owes"));
        let room = option("room").map_or(u64::MAX, number);
        Body::AppendReply { verdict, round, disk_low, owes, table: TableReport::default(), room }
    };
    match *words {
        ["pre-vote", last] => Body::PreVote { last: entry_id(last) },
        ["vote", last] => Body::Vote { last: entry_id(last) },
        ["would", asked] => Body::PreVoteReply { asked: Term(number(&asked[1..])), granted: true },
        ["yes"] => Body::VoteReply { granted: true },
        ["no"] => Body::VoteReply { granted: false },
        ["append", prev, ..] => {
            let carried = option("entries").map_or_else(Vec::new, |text| text.split(',').collect());
            let entries: Vec<Entry> =
                carried.into_iter().map(entry_id).map(|id| entry(id.term.0, id.index.0, "said")).collect();
            Body::Append {
                prev: entry_id(prev),
                entries,
                commit: Index(option("commit").map_or(0, number)),
                round,
                acked: option("acked").map_or(EntryId::ZERO, entry_id),
                differs: None,
            }
        }
        ["matched", index, ..] => reply(Verdict::Matched(Index(number(index)))),
        ["conflict", at, try_at, ..] => {
            reply(Verdict::Conflict { at: Index(number(at)), try_at: entry_id(try_at) })
        }
        ["chunk", snapshot, ..] => Body::Chunk(Chunk::new(
            entry_id(snapshot),
            Membership::of([]),
            option("after").map(|at| Bytes::copy_from_slice(&number(at).to_be_bytes())),
            option("rows").map_or_else(Vec::new, |rows| {
                let (first, last) = rows.split_once("..").expect("rows are written FIRST..LAST");
                (number(first)..=number(last))
                    .map(|at| row_of(&entry(snapshot_term(words), at, "")))
                    .collect()
            }),
            words.contains(&"last"),
        )),
        _ => panic!("no such message: {}", words.join(" ")),
    }
}

fn snapshot_term(words: &[&str]) -> u64 {
    entry_id(words[1]).term.0
}

fn command(text: &str) -> Bytes {
    match text.split_once('*') {
        Some((piece, times)) => Bytes::from(piece.repeat(number(times) as usize)),
        None => Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn count(words: &[&str]) -> u64 {
    words.first().map_or(1, |word| number(word))
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("2^") {
        Some(power) => 1 << number(power),
        None => text.parse().unwrap_or_else(|_| panic!("not a number: {text}")),
    }
}

fn node(text: &str) -> NodeId {
    NodeId(number(text))
}

fn ends(link: &str) -> (NodeId, NodeId) {
    let (from, to) = link.split_once('>').expect("a link is written A>B");
    (node(from), node(to))
}

fn entry_id(text: &str) -> EntryId {
    let (index, term) = text.split_once('@').expect("an entry is written INDEX@TERM");
    EntryId::new(number(term), number(index))
}

fn pair(option: &str) -> (&str, &str) {
    option.split_once('=').expect("an option is written key=value")
}
