//! Whether the groups of the search are the product's: every state that a group reaches is brought about in
//! the product's own state machine, over real rows, and every event is tried on both. Same verdict, same
//! answer, same rows, same cursor.
//!
//! The events are all that the history knows, whether or not they can meet the state: a group answers
//! whatever comes. Real rows and real cursors are learned once from state machines that take every
//! sequence of writes, and every list of rows.
//!
//! Left out on purpose: rows of two shards at once; several shards are compared without writes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use clerk::api::config::{Assignment, Sealed};
use clerk::api::kv::{KvRefusal, KvReply};
use clerk::api::push::{Change, Copied, Cursor, End, Pos, PushReply, Reach};
use clerk::api::{ConfigNum, ShardId};
use raft::rsm::{MapRows, StateMachine};
use raft::storage::Row as RealRow;
use shardkv::command::{Command, Outcome, Query};
use shardkv::machine::Machine;
use shardkv::rows::Frozen;
use shardkv::shard::{Access, Next, ShardState, access};

use super::Options;
use super::group::{Model, Verb};
use super::histories::History;
use super::messages::{Body, Message, both};
use super::product::{Real, asked, born, configs, data, key, real, served, write};
use super::search::explore;
use super::values::{Group, NO_ROWS, Packed, Row, RowsId, group_id};

/// Something that a group's log holds, or that the group is asked.
#[derive(Clone, Copy, Debug)]
enum Event {
    Adopt(ConfigNum),
    /// A configuration of this number and these owners, in another history.
    AdoptOther(ConfigNum),
    /// A message of a push, and whether its sender follows another history.
    Request(Message, bool),
    /// What a mover of the group wants.
    Entry {
        shard: usize,
        verb: Verb,
        num: ConfigNum,
    },
    Write {
        value: u8,
        delete: bool,
    },
}

/// What the group says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// To commands of its own: whether anything changed.
    Changed(bool),
    /// To requests of a push.
    Answer(Option<Body>),
    /// To a client's write: whether it is acknowledged.
    Written(bool),
}

/// The client's key.
const KEY: u8 = 1;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// States of groups.
    pub states: u64,
    /// Events in them.
    pub events: u64,
}

/// Compares every state that a group reaches in a history, and all events in it.
///
/// # Errors
/// The first difference.
pub fn compare(history: &History, options: Options) -> Result<Compared, String> {
    let mut model = Model::new(history, options);
    let explored = explore(&mut model, usize::MAX);
    let mut product = Product::learn(&mut model)?;
    let mut compared = Compared::default();
    for me in 0..model.groups {
        let reached: BTreeSet<Packed> = explored.worlds().iter().map(|world| world.groups[me]).collect();
        let mut tables = BTreeMap::from([(Group::new().pack(), born(me))]);
        let mut open: Vec<Packed> = tables.keys().copied().collect();
        while let Some(packed) = open.pop() {
            let (group, before) = (Group::unpack(packed), tables[&packed].clone());
            product.compare_reads(&model, me, &group, &before)?;
            for event in events(&model, me, &group) {
                let shards = model.shards;
                let told = |why: String| {
                    format!("{history}: {event:?} at {:?} {:?}: {why}", group.num, &group.shards[..shards])
                };
                let expected = model.event(me, &group, event);
                let table = product.event(&mut model, me, &before, event, expected).map_err(told)?;
                compared.events += 1;
                let after = expected.0.pack();
                match tables.get(&after) {
                    Some(known) if lasting(known) != lasting(&table) => {
                        return Err(told("another way here leaves other rows".to_owned()));
                    }
                    None if reached.contains(&after) => {
                        tables.insert(after, table);
                        open.push(after);
                    }
                    _ => {}
                }
            }
        }
        if tables.len() != reached.len() {
            return Err(format!("{history}: {} of {} states brought about", tables.len(), reached.len()));
        }
        compared.states += tables.len() as u64;
    }
    Ok(compared)
}

/// The rows but for those about a move that say how it went: the last change while a shard leaves, which is of use
/// while rows are sent that change, and how often a copy started over.
fn lasting(table: &MapRows) -> Vec<(&Bytes, &Bytes)> {
    let passing = |row: &(&Bytes, &Bytes)| matches!(row.0[..], [0x01, b'l' | b'u', ..]);
    table.0.iter().filter(|row| !passing(row)).collect()
}

/// Everything that might happen to a group, whether or not it can in this state.
fn events(model: &Model, me: usize, group: &Group) -> Vec<Event> {
    let nums = || (0..=model.newest().0).map(ConfigNum);
    // A group that knows nothing may begin later, where controllers were recovered; the search lets all begin at 0.
    let begins = |num: &ConfigNum| group.num.is_some() || num.0 == 0;
    let mut events: Vec<Event> = nums().filter(begins).map(Event::Adopt).collect();
    // Configuration 1 of another history follows the configuration 0 of both.
    events.extend(nums().filter(|num| num.0 > 1 && begins(num)).map(Event::AdoptOther));
    let requests = &model.messages.requests_to[me];
    events.extend(both(requests, requests).map(|id| Event::Request(model.messages.get(id), false)));
    events.extend(both(requests, requests).map(|id| Event::Request(model.messages.get(id), true)));
    for shard in 0..model.shards {
        let entries = Verb::ALL.into_iter().flat_map(|verb| nums().map(move |num| (verb, num)));
        events.extend(entries.map(|(verb, num)| Event::Entry { shard, verb, num }));
    }
    let rows = model.library.rows(group.shards[0].rows);
    let value = rows.first().map_or(0, |row| row.1 / 2) + 1;
    if value <= model.options.writes {
        events.push(Event::Write { value, delete: false });
        events.extend(rows.iter().any(|row| row.0 == KEY).then_some(Event::Write { value, delete: true }));
    }
    events
}

impl Model {
    /// The group after an event, and what it says.
    fn event(&mut self, me: usize, group: &Group, event: Event) -> (Group, Said) {
        let mut after = *group;
        let said = match event {
            Event::Adopt(num) => {
                let adopted = self.adopt(me, group, num, false);
                after = adopted.unwrap_or(after);
                Said::Changed(adopted.is_some())
            }
            Event::AdoptOther(num) => {
                let adopted = self.adopt(me, group, num, true);
                after = adopted.unwrap_or(after);
                Said::Changed(adopted.is_some())
            }
            Event::Request(message, other) => {
                let applied = self.apply_from(message, group, other);
                after.shards[usize::from(message.shard)] = applied.shard;
                Said::Answer(applied.answer)
            }
            Event::Entry { shard, verb, num } => {
                let changed = self.entry(verb, after.shards[shard], num);
                after.shards[shard] = changed.unwrap_or(after.shards[shard]);
                Said::Changed(changed.is_some())
            }
            Event::Write { value, delete } => {
                let taken = self.takes_writes(group, 0);
                if taken {
                    after.shards[0].rows = self.written(after.shards[0].rows, value, KEY, delete);
                }
                Said::Written(taken)
            }
        };
        (after, said)
    }
}

/// Whether an answer says that this is there. How often the copy started over does not count.
fn is_at(reply: &Result<PushReply, KvRefusal>, num: ConfigNum, expected: Copied) -> bool {
    match reply {
        Ok(PushReply::Copied { num: of, copied, disk_full: false }) => {
            *of == num && Copied { wipes: 0, ..copied.clone() } == expected
        }
        _ => false,
    }
}

/// The product's side.
struct Product {
    configs: Vec<Sealed>,
    /// The same owners in a history of other configurations.
    others: Vec<Sealed>,
    rows: BTreeMap<Row, RealRow>,
}

impl Product {
    /// Learns which real rows every sequence of writes makes.
    fn learn(model: &mut Model) -> Result<Self, String> {
        let (configs, others) = (configs(&model.true_configs, false), configs(&model.true_configs, true));
        let mut product = Self { configs, others, rows: BTreeMap::new() };
        if model.options.writes > 0 {
            assert!(
                model.shards == 1 && model.options.keys == 1,
                "one list of rows is one sequence of writes"
            );
            let mine = Assignment { owner: Some(group_id(0)), last_owner: None };
            let serving = served(&[vec![Assignment::default()], vec![mine]]);
            product.learn_writes(model, &serving, NO_ROWS)?;
        }
        Ok(product)
    }

    fn learn_writes(&mut self, model: &mut Model, table: &MapRows, rows: RowsId) -> Result<(), String> {
        let value = model.library.rows(rows).first().map_or(0, |row| row.1 / 2) + 1;
        let there = model.library.rows(rows).iter().any(|row| row.0 == KEY);
        if value > model.options.writes {
            return Ok(());
        }
        for delete in [false, true].into_iter().filter(|delete| there || !delete) {
            let after = model.written(rows, value, KEY, delete);
            let table = real(0, table, write(1, value, delete)).table;
            let (list, data) = (model.library.rows(after), data(&table));
            if list.len() != data.len() {
                return Err(format!("writes leave {data:?}, not {list:?}"));
            }
            for (row, real) in list.iter().zip(data) {
                let known = self.rows.entry(*row).or_insert_with(|| real.clone());
                if *known != real {
                    return Err(format!("{row:?} is {known:?} and {real:?}"));
                }
            }
            self.learn_writes(model, &table, after)?;
        }
        Ok(())
    }

    /// The configurations that the groups follow, or those of another history.
    fn history(&self, other: bool) -> &[Sealed] {
        if other { &self.others } else { &self.configs }
    }

    fn list(&self, model: &Model, rows: RowsId) -> Vec<RealRow> {
        model.library.rows(rows).iter().filter_map(|row| self.rows.get(row).cloned()).collect()
    }

    /// The rows of a list as they are sent.
    fn sent(&self, model: &Model, rows: RowsId) -> Vec<Change> {
        self.list(model, rows).into_iter().map(|(key, value)| (key, Some(value))).collect()
    }

    /// The cursor at the end of a list.
    fn cursor(&self, model: &Model, rows: RowsId) -> Cursor {
        let Cursor { pos, .. } = model.library.cursor(rows);
        match self.list(model, rows).last() {
            None => Cursor::default(),
            Some((key, _)) => Cursor { reach: Reach::Key(key.clone()), pos: *pos },
        }
    }

    /// The counters of a shard that has a list of rows.
    fn end(&self, model: &Model, rows: RowsId) -> End {
        let table = MapRows(self.list(model, rows).into_iter().collect());
        shardkv::copy::end(&table, ShardId(0), model.shards as u32, false)
    }

    /// What a receiver says that has a list of rows.
    fn copied(&self, model: &Model, rows: RowsId) -> Copied {
        let list = self.list(model, rows);
        let table = MapRows(list.into_iter().collect());
        let End { rows: keys, bytes, .. } = shardkv::copy::end(&table, ShardId(0), model.shards as u32, true);
        Copied { cursor: self.cursor(model, rows), rows: keys, bytes, wipes: 0 }
    }

    /// What an event does to the product's rows, after a comparison of everything that can be seen.
    fn event(
        &mut self,
        model: &mut Model,
        me: usize,
        before: &MapRows,
        event: Event,
        expected: (Group, Said),
    ) -> Result<MapRows, String> {
        let Real { machine, table, outcome } = match event {
            Event::Adopt(num) => {
                real(me, before, Command::Adopt(self.history(false)[num.0 as usize].clone()))
            }
            Event::AdoptOther(num) => {
                real(me, before, Command::Adopt(self.history(true)[num.0 as usize].clone()))
            }
            Event::Entry { shard, verb, num } => {
                let shard = ShardId(shard as u32);
                let command = match verb {
                    Verb::Seal => {
                        let frozen = Frozen { from: Pos::default(), upto: u64::MAX, keys: Vec::new() };
                        Command::Seal { shard, num, frozen }
                    }
                    Verb::Release => Command::Release { shard, num },
                    Verb::Reopen => Command::Reopen { shard, num },
                };
                real(me, before, command)
            }
            Event::Write { value, delete } => real(me, before, write(model.shards, value, delete)),
            Event::Request(Message { num, shard, body, .. }, other) => {
                let shard = ShardId(shard.into());
                let config = self.history(other)[num.0 as usize].place();
                match body {
                    Body::Install { after, rows } if rows != NO_ROWS => {
                        let all = [model.library.rows(after), model.library.rows(rows)].concat();
                        let all = model.library.id(&all);
                        let to = self.cursor(model, all);
                        let (after, rows) = (self.cursor(model, after), self.sent(model, rows));
                        real(me, before, Command::Install { shard, config, after, to, rows })
                    }
                    Body::Activate { after, end } => {
                        let (after, end) = (self.cursor(model, after), self.end(model, end));
                        let rows = Vec::new();
                        real(me, before, Command::Activate { shard, config, after, rows, end })
                    }
                    _ => asked(me, before, Query::Cursor { shard, config }),
                }
            }
        };
        self.compare_words(model, event, expected, outcome)?;
        self.compare_state(model, &expected.0, &machine, &table)?;
        Ok(table)
    }

    fn compare_words(
        &mut self,
        model: &Model,
        event: Event,
        expected: (Group, Said),
        outcome: Outcome,
    ) -> Result<(), String> {
        let (group, said) = expected;
        let (num, shard, other) = match event {
            Event::Request(message, other) => (message.num, usize::from(message.shard), other),
            _ => (ConfigNum(0), 0, false),
        };
        let same = match (said, &outcome) {
            (Said::Changed(expected), Outcome::Changed(changed)) => expected == *changed,
            (Said::Written(true), Outcome::Reply(Ok(KvReply::Written { .. }))) => true,
            (Said::Written(false), Outcome::Reply(Err(refusal))) => {
                matches!(refusal, KvRefusal::WrongGroup { .. } | KvRefusal::NotReady { .. })
            }
            (Said::Answer(Some(Body::Done)), Outcome::Push(reply)) => *reply == Ok(PushReply::Done { num }),
            (Said::Answer(Some(Body::Refused)), Outcome::Push(reply)) => {
                *reply == Ok(PushReply::Refused { num })
            }
            (Said::Answer(Some(Body::Awaited)), Outcome::Push(reply)) => {
                is_at(reply, num, self.copied(model, group.shards[shard].cursor))
            }
            (Said::Answer(Some(Body::Cursor(at))), Outcome::Push(reply)) => {
                is_at(reply, num, self.copied(model, at))
            }
            (Said::Answer(None), Outcome::Push(Err(refusal))) => match group.shards[shard].state {
                _ if group.num < Some(num) => matches!(refusal, KvRefusal::NotReady { .. }),
                _ if other => matches!(refusal, KvRefusal::OtherHistory { .. }),
                ShardState::Handing { next: Next::Mine { num: next }, .. } if next == num => {
                    matches!(refusal, KvRefusal::NotReady { .. })
                }
                _ => matches!(refusal, KvRefusal::Malformed(_)),
            },
            _ => false,
        };
        if same { Ok(()) } else { Err(format!("{said:?} here, {outcome:?} there")) }
    }

    fn compare_state(
        &mut self,
        model: &Model,
        group: &Group,
        machine: &Machine,
        table: &MapRows,
    ) -> Result<(), String> {
        let standing = machine.standing().borrow().clone();
        let shards = &group.shards[..if group.num.is_some() { model.shards } else { 0 }];
        let states: Vec<ShardState> = shards.iter().map(|shard| shard.state).collect();
        if (standing.config, &standing.shards) != (group.num, &states) {
            return Err(format!("{:?} {states:?} here, {standing:?} there", group.num));
        }
        let here: Vec<RealRow> = shards.iter().flat_map(|shard| self.list(model, shard.rows)).collect();
        let there = data(table);
        if there != here {
            return Err(format!("rows {here:?} here, {there:?} there"));
        }
        for (number, shard) in (0..).zip(shards) {
            let ShardState::Awaiting { num } = shard.state else { continue };
            let config = self.configs[num.0 as usize].place();
            let answer = machine.query(table, Query::Cursor { shard: ShardId(number), config });
            let expected = self.copied(model, shard.cursor);
            if !answer.clone().push().is_ok_and(|reply| is_at(&Ok(reply), num, expected.clone())) {
                return Err(format!("{expected:?} here, {answer:?} there"));
            }
        }
        Ok(())
    }

    /// Compares what clients read, whatever configuration they know.
    fn compare_reads(&self, model: &Model, me: usize, group: &Group, table: &MapRows) -> Result<(), String> {
        for shard in 0..model.shards {
            for asked_num in (0..=model.newest().0).map(ConfigNum) {
                let (id, key) = (ShardId(shard as u32), key(shard, model.shards));
                let answer = asked(
                    me,
                    table,
                    Query::Get {
                        shard: id,
                        key,
                        config: asked_num,
                        room: base::socket::Reservation::default(),
                    },
                )
                .outcome
                .reply();
                let here = group.shards[shard];
                let row = model.library.rows(here.rows).iter().find(|row| row.0 == KEY);
                let same = match (group.num.map(|mine| access(here.state, mine, asked_num)), &answer) {
                    (Some(Access::Serve), Ok(KvReply::Value { value, .. })) => {
                        value.as_ref().map(Bytes::len) == row.map(|row| usize::from(row.1))
                    }
                    (Some(Access::WrongGroup { ask }), Err(KvRefusal::WrongGroup { config, ask: said })) => {
                        (Some(*config), ask) == (group.num, *said)
                    }
                    (None | Some(Access::NotReady), Err(KvRefusal::NotReady { .. })) => true,
                    _ => false,
                };
                if !same {
                    return Err(format!(
                        "shard {shard}, asked with {asked_num}: {here:?} here, {answer:?} there"
                    ));
                }
            }
        }
        Ok(())
    }
}
