//! The messages that movers send, and the answers to them.
//!
//! A message that was sent once may arrive at any later time, any number of times, or never: this
//! covers loss, delay, repetition and reordering. A mover that may send does so immediately, which only
//! adds choices. An answer that changes nothing is given immediately, too. So a set of messages is
//! *closed*: it has every message that can be sent without a change of anybody's state.
//!
//! A mover behaves like the product's (`shardkv::push`). It asks for the cursor. After each answer it
//! sends the rows after the answer's last key, or Activate if there are none. It checks the state before
//! each request, never after reading the rows. A group may have any number of movers, because every
//! answer to any of them is in the set. A mover may sleep between the state and the rows: then its push
//! continues with the rows that are there later. An [`Early`](super::Mover::Early) mover sends anything
//! about the rows that are there, at any time.
//!
//! Left out on purpose: `Busy`, addresses, and servers that do not lead. All of these look like loss.

use clerk::api::ConfigNum;
use shardkv::shard::ShardState;

use super::bugs::Bug;
use super::group::{Model, Verb};
use super::messages::{Bits, Body, Message, MessageId, both, has, insert};
use super::values::{GROUPS_MAX, Group, Packed, RowsId, SetId, position};

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
    /// Sent, and not looked at yet.
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

    /// Closes a set that was closed before `changed` became what it now is and `extra` was sent.
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
                Body::Offer | Body::Install { .. } | Body::Activate { .. } => self.answer(&mut closing, id),
                Body::Cursor(_) => self.go_on(&mut closing, id),
                Body::Awaited | Body::Done | Body::Refused => {}
            }
        }
        self.sets.id(&closing.sent)
    }

    /// Everything that may be said next in a set that need not be closed.
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

    /// The pushes that the state of a shard permits, and what each begins with: an offer while the shard is served,
    /// the question about the cursor when it is sealed.
    fn permitted(&self, group: &Group, from: usize, shard: usize) -> Vec<(Push, Body)> {
        if !group.running {
            return Vec::new();
        }
        let (to, num, sealed) = match group.shards[shard].state {
            ShardState::Leaving { to, num } => (position(to), num, false),
            ShardState::Handing { to, num, .. } => (position(to), num, true),
            _ => return Vec::new(),
        };
        let newest = self.assignment(self.newest(), shard).owner.map(position).filter(|it| *it != from);
        let receivers = match newest {
            Some(newest) if self.has(Bug::PushesToTheNewestOwner) && sealed => vec![newest],
            _ if self.has(Bug::RefusedByAnotherGroupReopens) && sealed => {
                (0..self.groups).filter(|other| *other != from).collect()
            }
            _ => vec![to],
        };
        let unsealed = if self.has(Bug::RowsReadBeforeTheFreeze) {
            vec![Body::Offer, Body::QUESTION]
        } else {
            vec![Body::Offer]
        };
        let asks = if sealed { vec![Body::QUESTION] } else { unsealed };
        let push = |to| Push { num, shard, from, to };
        receivers.into_iter().flat_map(|to| asks.iter().map(move |asks| (push(to), *asks))).collect()
    }

    /// What the movers of a group send after it changed.
    fn send_all(&mut self, closing: &mut Closing, from: usize) {
        let group = closing.groups[from];
        if !group.running {
            return;
        }
        for shard in 0..self.shards {
            let permitted = self.permitted(&group, from, shard);
            for (push, asks) in &permitted {
                closing.add(self.messages.id(push.says(*asks)));
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
                let sealed = permitted.into_iter().filter(|(_, asks)| *asks == Body::QUESTION);
                for push in sealed.map(|(push, _)| push).chain(begun) {
                    self.send_anything(closing, push, group.shards[shard].rows);
                }
            }
        }
    }

    /// What a mover sends that was told the receiver's cursor, now or long ago.
    fn go_on(&mut self, closing: &mut Closing, answer: MessageId) {
        let message = self.messages.get(answer);
        let Body::Cursor(at) = message.body else { return };
        let push = Push::of(message);
        let group = closing.groups[push.from];
        if !group.running {
            return;
        }
        let rows = group.shards[push.shard].rows;
        // The state permitted the push when it began; meanwhile the mover may have slept.
        for id in self.next_requests(push, rows, at) {
            closing.add(id);
        }
    }

    /// What follows the answer that the cursor is after `at`: rows, cut anywhere, or Activate.
    fn next_requests(&mut self, push: Push, rows: RowsId, at: RowsId) -> Vec<MessageId> {
        let chunks = self.library.chunks(rows, at);
        if chunks.is_empty() {
            return vec![self.messages.id(push.says(Body::Activate { after: at, end: rows }))];
        }
        let install = |rows| push.says(Body::Install { after: at, rows });
        chunks.into_iter().map(|rows| self.messages.id(install(rows))).collect()
    }

    /// Activate without knowing the receiver's cursor, and rows from anywhere.
    fn send_anything(&mut self, closing: &mut Closing, push: Push, rows: RowsId) {
        closing.add(self.messages.id(push.says(Body::Activate { after: rows, end: rows })));
        for (after, chunk) in self.library.cuts(rows) {
            closing.add(self.messages.id(push.says(Body::Activate { after, end: rows })));
            closing.add(self.messages.id(push.says(Body::Install { after, rows: chunk })));
        }
    }

    /// What a mover that begins now sends: the question, and what follows the answer that it gets now.
    pub(super) fn fresh_requests(&mut self, groups: &[Group; GROUPS_MAX]) -> Vec<MessageId> {
        let mut requests = Vec::new();
        for from in 0..self.groups {
            for shard in 0..self.shards {
                for (push, asks) in self.permitted(&groups[from], from, shard) {
                    let question = push.says(asks);
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

    /// What a group's movers may want of its log, and for which moves; and whether a mover that
    /// begins now would want it: it asks, and gets the answer that permits it.
    pub(super) fn wants(
        &mut self,
        groups: &[Group; GROUPS_MAX],
        sent: SetId,
        from: usize,
        shard: usize,
    ) -> Vec<(Verb, ConfigNum, bool)> {
        let permitted = self.permitted(&groups[from], from, shard);
        let mut wants = Vec::new();
        for verb in Verb::ALL {
            let (bits, says) = match verb {
                Verb::Seal => (&self.messages.awaited_for, Body::Awaited),
                Verb::Release => (&self.messages.dones_for, Body::Done),
                Verb::Reopen => (&self.messages.refused_for, Body::Refused),
            };
            let told = both(self.sets.get(sent), &bits[from][shard]);
            let told: Vec<Push> = told.map(|id| Push::of(self.messages.get(id))).collect();
            let mut moves: Vec<(ConfigNum, bool)> = told.iter().map(|push| (push.num, false)).collect();
            for (push, asks) in &permitted {
                if self.wants_untold(verb, *push, sent, groups, &told) {
                    moves.push((push.num, false));
                }
                let receiver = groups[push.to];
                // While the shard is served, only that it is awaited counts; later, only the rest.
                let counts = (verb == Verb::Seal) == (*asks == Body::Offer);
                let rows = groups[from].shards[shard].rows;
                let told_now =
                    counts && receiver.running && self.is_told(*push, *asks, says, rows, &receiver);
                let same = moves.iter_mut().filter(|(num, _)| *num == push.num);
                same.for_each(|it| it.1 |= told_now);
            }
            moves.sort_unstable();
            moves.dedup_by_key(|(num, _)| *num);
            wants.extend(moves.into_iter().map(|(num, fair)| (verb, num, fair)));
        }
        wants
    }

    /// Whether a mover that begins now gets this answer without any other event: to its first
    /// question, or to the message after the cursor.
    fn is_told(&mut self, push: Push, asks: Body, says: Body, rows: RowsId, receiver: &Group) -> bool {
        let answer = self.apply(push.says(asks), receiver).answer;
        let Some(Body::Cursor(at)) = answer else { return answer == Some(says) };
        self.next_requests(push, rows, at).into_iter().any(|id| {
            let applied = self.apply(self.messages.get(id), receiver);
            applied.answer == Some(says) && applied.shard == receiver.shards[push.shard]
        })
    }

    /// Whether a mover wants something that no answer to its push permits.
    fn wants_untold(
        &self,
        verb: Verb,
        push: Push,
        sent: SetId,
        groups: &[Group; GROUPS_MAX],
        told: &[Push],
    ) -> bool {
        let told_of_another = || told.iter().any(|it| it.to == push.to);
        match verb {
            Verb::Seal => self.early() || self.has(Bug::SealWithoutAnAnswer),
            Verb::Release => {
                let rows = groups[push.from].shards[push.shard].rows;
                let at_end = self.messages.known(push.says(Body::Cursor(rows)));
                self.has(Bug::ReleaseBeforeTheAcknowledgement)
                    || (self.has(Bug::DoneDoesNotNameTheMove) && told_of_another())
                    || (self.has(Bug::ReleaseOnTheAnswerToTheLastInstall)
                        && at_end.is_some_and(|at_end| has(self.sets.get(sent), at_end)))
            }
            Verb::Reopen => {
                self.has(Bug::ReopenWithoutARefused)
                    || (self.has(Bug::RefusedDoesNotNameTheMove) && told_of_another())
            }
        }
    }

    /// Whether a group sends messages about (`num`, shard) now: in the world
    /// where each message is a separate step, such a message is sent in time.
    pub(super) fn pushes_now(&self, groups: &[Group; GROUPS_MAX], message: Message) -> bool {
        let push = Push::of(message);
        let permitted = self.permitted(&groups[push.from], push.from, push.shard);
        permitted.iter().any(|(now, _)| (now.num, now.to) == (push.num, push.to))
    }
}
