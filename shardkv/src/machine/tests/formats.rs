//! Commands and rows as builds of each level wrote them: they always mean the same (correctness rule 75).
//!
//! `formats/level-N.hex` has lines "GROUP command BYTES" and "GROUP row KEY VALUE", in hexadecimal digits. A level that
//! changes what is written adds a file.

use std::fmt::Write as _;

use raft::rsm::{decode_command, encode_command};

use super::*;

const LEVEL_1: &str = include_str!("formats/level-1.hex");
const S: ShardId = ShardId(0);

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

/// What two groups do, with every kind of command: B awaits a shard of A, of which one chunk has arrived.
fn script() -> Vec<(GroupId, Command)> {
    let configs = history(PARAMS, &[&[Some(A), Some(A)], &[Some(B), Some(A)], &[Some(A), Some(A)]]);
    let adopt = |config: usize| Command::Adopt(configs[config].clone());
    let (key, gone, other) = (key_in(S, 0), key_in(S, 1), key_in(ShardId(1), 0));
    let write = |shard, key: &Bytes, write, ticket| Command::Write {
        shard,
        key: key.clone(),
        write,
        ticket,
        config: ConfigNum(1),
    };
    let mut a = Group::unnamed(A, PARAMS);
    let mut script: Vec<(GroupId, Command)> = Vec::new();
    let of_a = [
        Command::Init { incarnation: life(A) },
        adopt(0),
        adopt(1),
        Command::Open { shard: S, config: ConfigNum(1) },
        write(S, &gone, put("gone"), None),
        write(S, &gone, Write::Delete, None),
        write(S, &key, append("x"), ticket(SessionId(1), 1)),
        write(ShardId(1), &other, put_if("other", 0), None),
        Command::Batch {
            shard: ShardId(1),
            writes: vec![(other.clone(), append("s")), (other.clone(), put_if("no", 1))],
            ticket: None,
            config: ConfigNum(1),
        },
        adopt(2),
        seal(S, 2),
        // Of another move: nothing happens.
        reopen(S, 1),
        release(S, 1),
    ];
    for command in of_a {
        a.apply(command.clone());
        script.push((A, command));
    }
    let rows = a.pushed(S);
    assert!(rows.len() > 1, "there is a second chunk");
    let of_b = [Command::Init { incarnation: life(B) }, adopt(0), adopt(1), adopt(2)];
    script.extend(of_b.map(|command| (B, command)));
    script.push((B, install(S, &configs[2], &Cursor::default(), &rows[..1])));
    script
}

/// The groups after commands.
fn played<'a>(commands: impl IntoIterator<Item = &'a (GroupId, Command)>) -> [(GroupId, Group); 2] {
    let mut groups = [A, B].map(|id| (id, Group::unnamed(id, PARAMS)));
    for (of, command) in commands {
        let group = groups.iter_mut().find(|(id, _)| id == of).expect("one of the two");
        group.1.apply(command.clone());
    }
    groups
}

fn rows_text(id: GroupId, rows: &MapRows) -> String {
    rows.0.iter().fold(String::new(), |mut text, (key, value)| {
        writeln!(text, "{id} row {} {}", hex(key), hex(value)).expect("a string takes everything");
        text
    })
}

/// The commands and rows of a file.
fn read(text: &str) -> (Vec<(GroupId, Command)>, BTreeMap<GroupId, MapRows>) {
    let (mut commands, mut rows) = (Vec::new(), BTreeMap::<GroupId, MapRows>::new());
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [id, "command", bytes] => {
                let command = decode_command(&unhex(bytes)).expect("a command");
                commands.push((GroupId(id.parse().expect("an id")), command));
            }
            [id, "row", key, value] => {
                let id = GroupId(id.parse().expect("an id"));
                rows.entry(id).or_default().0.insert(unhex(key), unhex(value));
            }
            _ => panic!("an odd line: {line}"),
        }
    }
    (commands, rows)
}

#[test]
fn what_is_written_is_what_level_1_wrote() {
    let script = script();
    let mut text = String::new();
    for (id, command) in &script {
        writeln!(text, "{id} command {}", hex(&encode_command(command))).expect("a string takes everything");
    }
    for (id, group) in played(&script) {
        text.push_str(&rows_text(id, &group.rows));
    }
    assert!(text == LEVEL_1, "not what level 1 wrote, so it needs a level of its own:\n{text}");
}

#[test]
fn commands_and_rows_of_level_1_mean_what_they_meant() {
    let (commands, mut rows) = read(LEVEL_1);
    for (id, group) in played(&commands) {
        assert_eq!(
            group.rows.0, rows[&id].0,
            "group {id}: a replica that applies the old log has other rows"
        );
    }
    let mut open = |id: GroupId| {
        let mut group = Group { rows: rows.remove(&id).expect("rows"), ..Group::unnamed(id, PARAMS) };
        group.machine.load(&group.rows);
        group.check_cache();
        group
    };
    let (mut a, b) = (open(A), open(B));
    assert_eq!(a.state(S), handing(B, 2, Next::Unchanged));
    assert_eq!(a.state(ShardId(1)), ShardState::Serving);
    assert_eq!(a.machine.num(), Some(ConfigNum(2)));
    assert_eq!(a.machine.incarnation, Some(life(A)));
    assert_eq!(a.get(&key_in(ShardId(1), 0)), value("others", 2));
    assert_eq!(b.state(S), awaiting(2));
    assert_eq!(rows::copied(&b.rows, S).cursor, cursor_after(&a.pushed(S)[..1]));
    // The history goes on.
    let third = history(PARAMS, &[&[Some(A), Some(A)], &[Some(B), Some(A)], &[Some(A), Some(A)]]).remove(3);
    a.apply(release(S, 2));
    assert!(a.adopt(&third), "configuration 3 follows the old configuration 2");
}
