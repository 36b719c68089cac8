//! What movers send, and what groups answer: the messages that exist.
//!
//! A message that was sent once may arrive at any later time, any number of times, or never: that
//! models loss, delay, repetition and reordering. Every group that may send a message sends it at
//! once, which only adds choices, and an answer that changes nothing is given at once too. So a set
//! of messages is *closed*: it contains every message that can be sent without a change of state.
//!
//! A mover is the product's (`shardkv::push`). It asks for the cursor. After each answer it sends
//! rows after the answer's last key, or Activate when there are none. It looks at the state before
//! each request, never after reading the rows. Any number of movers of one group are active,
//! because every answer that any of them got is in the set. They may sleep between the state and
//! the rows: a push that has begun continues with the rows that are there later. An
//! [`Early`](super::Mover::Early) mover sends anything at any time, about the rows that are there.
//!
//! Left out on purpose: `Busy`, addresses, and servers that do not lead: all look like loss.

use clerk::api::ConfigNum;
use shardkv::shard::ShardState;

use super::bugs::Bug;
use super::group::Model;
use super::messages::{Bits, Body, Message, MessageId, both, has, insert};
use super::values::{GROUPS_MAX, Group, Packed, RowsId, SetId, group_id, position};

/// A push: (`num`, `shard`) from one group to another.
#[derive(Clone, Copy)]
struct Push {
    num: ConfigNum,
    shard: usize,
    from: usize,
    to: usize,
}

impl Push {
    fn says(self, body: Body) -> Message {
        let Self { num, shard, from, to } = self;
        Message { num, shard: shard as u8, from: from as u8, to: to as u8, body }
    }

    /// The push that a message belongs to.
    fn of(message: Message) -> Self {
        let Message { num, shard, from, to, .. } = message;
        Self { num, shard: shard.into(), from: from.into(), to: to.into() }
    }
}

/// A set of messages while it is being closed.
struct Closing {
    groups: [Group; GROUPS_MAX],
    sent: Bits,
    /// Sent, and not yet processed.
    fresh: Vec<MessageId>,
}

impl Closing {
    fn add(&mut self, id: MessageId) {
        if insert(&mut self.sent, id) {
            self.fresh.push(id);
        }
    }
}

impl Model {
    pub(super) fn unpack(&self, groups: &[Packed; GROUPS_MAX]) -> [Group; GROUPS_MAX] {
        let absent = Group { running: false, ..Group::new() };
        let mut unpacked = [absent; GROUPS_MAX];
        for (group, packed) in unpacked.iter_mut().zip(&groups[..self.groups]) {
            *group = Group::unpack(*packed);
        }
        unpacked
    }

    /// Closes a set that was closed before `changed` reached its present state and `extra` was
    /// sent.
    pub(super) fn close(
        &mut self,
        groups: [Group; GROUPS_MAX],
        sent: SetId,
        changed: usize,
        extra: Option<MessageId>,
    ) -> SetId {
        let sent = self.sets.get(sent).clone();
        let mut closing = Closing { groups, sent, fresh: Vec::new() };
        if let Some(extra) = extra {
            closing.add(extra);
        }
        let again: Vec<MessageId> = both(&closing.sent, &self.messages.requests_to[changed]).collect();
        for request in again {
            self.answer(&mut closing, request);
        }
        self.send_all(&mut closing, changed);
        while let Some(id) = closing.fresh.pop() {
            match self.messages.get(id).body {
                Body::Install { .. } | Body::Activate { .. } => self.answer(&mut closing, id),
                Body::Cursor(_) => self.go_on(&mut closing, id),
                Body::Done => {}
            }
        }
        self.sets.id(&closing.sent)
    }

    /// Everything that may be sent next, given a set that need not be closed.
    pub(super) fn sayable(&mut self, groups: [Group; GROUPS_MAX], sent: SetId) -> Vec<MessageId> {
        let sent = self.sets.get(sent).clone();
        let mut closing = Closing { groups, sent: sent.clone(), fresh: Vec::new() };
        for group in 0..self.groups {
            self.send_all(&mut closing, group);
            let requests: Vec<MessageId> = both(&sent, &self.messages.requests_to[group]).collect();
            for request in requests {
                self.answer(&mut closing, request);
            }
        }
        closing.fresh.sort_unstable();
        closing.fresh
    }

    /// The answer to a request that changes nothing.
    fn answer(&mut self, closing: &mut Closing, request: MessageId) {
        let message = self.messages.get(request);
        let group = closing.groups[usize::from(message.to)];
        if !group.running {
            return;
        }
        let applied = self.apply(message, &group);
        if let Some(answer) = applied.answer
            && applied.shard == group.shards[usize::from(message.shard)]
        {
            closing.add(self.messages.id(Message { body: answer, ..message }));
        }
    }

    /// The pushes that the state of a shard permits.
    fn permitted(&self, group: &Group, from: usize, shard: usize) -> Vec<Push> {
        let Some(num) = group.num.filter(|_| group.running) else { return Vec::new() };
        let owner = |num: ConfigNum| self.assignment(num, shard).owner.filter(|to| *to != group_id(from));
        let push = |num, to| Push { num, shard, from, to: position(to) };
        match group.shards[shard].state {
            ShardState::Handing { to } if self.has(Bug::PushesToTheNewestOwner) => {
                vec![push(num, owner(self.newest()).unwrap_or(to))]
            }
            ShardState::Handing { to } => vec![push(num, to)],
            ShardState::Serving if self.has(Bug::RowsReadBeforeTheFreeze) && num < self.newest() => {
                let next = ConfigNum(num.0 + 1);
                owner(next).map(|to| push(next, to)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// What the movers of a group send after it changed.
    fn send_all(&mut self, closing: &mut Closing, from: usize) {
        let group = closing.groups[from];
        if !group.running {
            return;
        }
        for shard in 0..self.shards {
            let permitted = self.permitted(&group, from, shard);
            for push in &permitted {
                closing.add(self.messages.id(push.says(Body::QUESTION)));
            }
            let mut begun: Vec<Push> = Vec::new();
            let answers: Vec<MessageId> =
                both(&closing.sent, &self.messages.cursors_for[from][shard]).collect();
            for answer in answers {
                self.go_on(closing, answer);
                let push = Push::of(self.messages.get(answer));
                if !begun.iter().any(|known| (known.num, known.to) == (push.num, push.to)) {
                    begun.push(push);
                }
            }
            if self.early() {
                for push in permitted.into_iter().chain(begun) {
                    self.send_anything(closing, push, group.shards[shard].rows);
                }
            }
        }
    }

    /// What a mover sends after it got the receiver's cursor, now or long ago.
    fn go_on(&mut self, closing: &mut Closing, answer: MessageId) {
        let message = self.messages.get(answer);
        let Body::Cursor(at) = message.body else { return };
        let push = Push::of(message);
        let group = closing.groups[push.from];
        if !group.running {
            return;
        }
        let rows = group.shards[push.shard].rows;
        // The state permitted the push when it began; the mover may have slept since.
        for id in self.next_requests(push, rows, at) {
            closing.add(id);
        }
        if self.has(Bug::CursorDoesNotNameTheConfig) {
            for other in self.permitted(&group, push.from, push.shard) {
                if other.to == push.to {
                    for id in self.next_requests(other, rows, at) {
                        closing.add(id);
                    }
                }
            }
        }
    }

    /// What follows the answer that the cursor is after `at`: rows, cut in any way, or Activate.
    fn next_requests(&mut self, push: Push, rows: RowsId, at: RowsId) -> Vec<MessageId> {
        let chunks = self.library.chunks(rows, at);
        if chunks.is_empty() {
            return vec![self.messages.id(push.says(Body::Activate { end: rows }))];
        }
        let install = |rows| push.says(Body::Install { after: at, rows });
        chunks.into_iter().map(|rows| self.messages.id(install(rows))).collect()
    }

    /// Activate without knowing the receiver's cursor, and rows from anywhere.
    fn send_anything(&mut self, closing: &mut Closing, push: Push, rows: RowsId) {
        closing.add(self.messages.id(push.says(Body::Activate { end: rows })));
        for (after, rows) in self.library.cuts(rows) {
            closing.add(self.messages.id(push.says(Body::Install { after, rows })));
        }
    }

    /// What a mover that begins now sends: the question, and what follows the answer that it gets
    /// now.
    pub(super) fn fresh_requests(&mut self, groups: &[Group; GROUPS_MAX]) -> Vec<MessageId> {
        let mut requests = Vec::new();
        for from in 0..self.groups {
            for shard in 0..self.shards {
                for push in self.permitted(&groups[from], from, shard) {
                    let question = push.says(Body::QUESTION);
                    requests.push(self.messages.id(question));
                    let receiver = groups[push.to];
                    if !receiver.running {
                        continue;
                    }
                    if let Some(Body::Cursor(at)) = self.apply(question, &receiver).answer {
                        requests.extend(self.next_requests(push, groups[from].shards[shard].rows, at));
                    }
                }
            }
        }
        requests
    }

    /// The numbers for which a mover of a group may ask its log to release a shard, and whether a
    /// mover that begins now would: it pushes, and the answer is "already done".
    pub(super) fn releases(
        &mut self,
        groups: &[Group; GROUPS_MAX],
        sent: SetId,
        from: usize,
        shard: usize,
    ) -> Vec<(ConfigNum, bool)> {
        let bits = self.sets.get(sent);
        let told: Vec<Push> = both(bits, &self.messages.dones_for[from][shard])
            .map(|id| Push::of(self.messages.get(id)))
            .collect();
        let rows = groups[from].shards[shard].rows;
        let mut numbers: Vec<(ConfigNum, bool)> = told.iter().map(|push| (push.num, false)).collect();
        for push in self.permitted(&groups[from], from, shard) {
            let receiver = groups[push.to];
            let bits = self.sets.get(sent);
            let at_end = self.messages.known(push.says(Body::Cursor(rows)));
            if self.has(Bug::ReleaseBeforeTheAcknowledgement)
                || (self.has(Bug::DoneDoesNotNameTheConfig) && told.iter().any(|it| it.to == push.to))
                || (self.has(Bug::ReleaseOnTheAnswerToTheLastInstall)
                    && at_end.is_some_and(|at_end| has(bits, at_end)))
            {
                numbers.push((push.num, false));
            }
            let told_now = receiver.running
                && self.apply(push.says(Body::QUESTION), &receiver).answer == Some(Body::Done);
            numbers.iter_mut().filter(|(num, _)| *num == push.num).for_each(|it| it.1 = told_now);
        }
        numbers.sort_unstable();
        numbers.dedup_by_key(|(num, _)| *num);
        numbers
    }

    /// Whether a group sends messages about (`num`, shard) now: a group that sends such a message
    /// in the world of single steps sends it in time.
    pub(super) fn pushes_now(&self, groups: &[Group; GROUPS_MAX], message: Message) -> bool {
        let push = Push::of(message);
        let permitted = self.permitted(&groups[push.from], push.from, push.shard);
        permitted.iter().any(|now| (now.num, now.to) == (push.num, push.to))
    }
}
