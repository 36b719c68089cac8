//! Commands and rows as builds of each level wrote them: they always mean the same (correctness rule 75).
//!
//! `formats/level-N.hex` has lines "command BYTES" and "row KEY VALUE", in hexadecimal digits. A level that changes what
//! is written adds a file.

use std::fmt::Write as _;

use bytes::Bytes;
use raft::rsm::{decode_command, encode_command};

use super::*;

const LEVEL_1: &str = include_str!("formats/level-1.hex");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn unhex(digits: &str) -> Bytes {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
}

/// Every kind of change.
fn script() -> Vec<Command> {
    let params = Params { shard_count: 4, ..Params::default() };
    let changes = [join([101, 102]), give(0, 102), leave([101], false)];
    let ticket = |seq| Ticket { session: SessionId(1), seq: Seq(seq) };
    let changes = (1..).zip(changes).map(|(seq, change)| Command::Change { ticket: ticket(seq), change });
    [Command::Init { params, key: KEY }, Command::Open].into_iter().chain(changes).collect()
}

fn played<'a>(commands: impl IntoIterator<Item = &'a Command>) -> Cluster {
    let (machine, rows) = (Controller::default(), MapRows::default());
    let mut cluster = Cluster { machine, rows, session: SessionId(1), seq: 3 };
    cluster.machine.load(&cluster.rows);
    for command in commands {
        cluster.apply(command.clone()).expect("it is done");
    }
    cluster
}

#[test]
fn what_is_written_is_what_level_1_wrote() {
    let script = script();
    let mut text = String::new();
    for command in &script {
        writeln!(text, "command {}", hex(&encode_command(command))).expect("a string takes everything");
    }
    for (key, value) in &played(&script).rows.0 {
        writeln!(text, "row {} {}", hex(key), hex(value)).expect("a string takes everything");
    }
    assert!(text == LEVEL_1, "not what level 1 wrote, so it needs a level of its own:\n{text}");
}

#[test]
fn commands_and_rows_of_level_1_mean_what_they_meant() {
    let lines = |kind: &'static str| LEVEL_1.lines().filter_map(move |line| line.strip_prefix(kind));
    let commands: Vec<Command> =
        lines("command ").map(|bytes| decode_command(&unhex(bytes)).expect("a command")).collect();
    let rows = lines("row ").map(|row| row.split_once(' ').expect("a key and a value"));
    let rows: BTreeMap<Bytes, Bytes> = rows.map(|(key, value)| (unhex(key), unhex(value))).collect();
    let mut cluster = played(&commands);
    assert_eq!(cluster.rows.0, rows, "a replica that applies the old log has other rows");
    cluster.machine = Controller::default();
    cluster.machine.load(&cluster.rows);
    let (newest, book) = cluster.newest();
    assert_eq!((newest.num, newest.key), (ConfigNum(3), KEY));
    assert!(newest.shards.iter().all(|shard| shard.owner == Some(GroupId(102))));
    assert_eq!(book.groups.len(), 2, "who left is still found");
    assert!(cluster.change(join([103])).is_ok(), "the session goes on");
}
