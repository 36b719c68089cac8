//! Mistakes that make two histories out of one, or an empty group out of a full one. Each seed is
//! one of them:
//!
//! * controllers that lost everything are replaced by new ones, with a new key or, as from a copy,
//!   with the same key;
//! * a group that lost everything is started as a new one under its id;
//! * controllers that lost everything are recovered from what the groups hold;
//! * a sender pushes malformed rows, or rows that no move covers.
//!
//! Acknowledged writes stay in place, and the same group serves them as before. No other group
//! answers for them, and the servers and clients concerned get an error (correctness rules 55 to
//! 59). The invariants of single groups are not watched here: a group that starts as new breaks
//! them rightly.
//!
//! Left out on purpose: clients that ask the wrong controllers; connections name the cluster's key
//! (rule 48).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use clerk::api::config::{AddressBook, Config, NewGroup, Params, Registered, Sealed, shard_of};
use clerk::api::ctrl::{Change, CtrlRefusal, Recovery};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::push::{Cursor, End, PushRequest, Reach, Sender};
use clerk::api::status::KvStatus;
use clerk::api::{ConfigNum, GroupId, Incarnation, ShardId};
use clerk::connection::Connection;
use clerk::ctrl::{CtrlClerk, Error};
use clerk::group::{AskError, Attempts, GroupClient};
use clerk::kv::{Clerk, Options};
use rand::RngExt;
use shardkv::history::{Own, Unfit, fits};

use super::Report;
use sim::cluster::{Cluster, Kind, Shape};
use sim::network::Weather;
use sim::{Failure, World, run};

const GROUPS: [GroupId; 2] = [GroupId(101), GroupId(102)];
const REPLICAS: u64 = 3;
const KEYS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// Time for damage to show, if there were any.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// A cluster of two groups that serve some keys.
struct Stage {
    cluster: Cluster,
    connection: Arc<dyn Connection>,
    seed: u64,
    newcomers: BTreeMap<GroupId, NewGroup>,
    /// The group that serves each key.
    homes: BTreeMap<Bytes, GroupId>,
    before: Sealed,
}

/// Plays one seed.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    let done = run(seed, move |world| async move { scenario(world, seed % 6).await });
    let done = done.map_err(|failure| Failure { seed, ..failure })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

async fn scenario(world: World, number: u64) -> Result<Report, String> {
    let stage = Stage::set(&world).await?;
    match number {
        0 => stage.replaced(stage.cluster.key().wrapping_add(1).max(1)).await?,
        1 => stage.replaced(stage.cluster.key()).await?,
        2 | 3 => stage.wiped(GROUPS[number as usize - 2]).await?,
        4 => stage.recovered().await?,
        _ => stage.strange_pushes().await?,
    }
    Ok(Report { acknowledged: KEYS as u64, configs: stage.before.num.0, ..Report::default() })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Stage {
    async fn set(world: &World) -> Result<Self, String> {
        let cluster = Cluster::new(world, Shape::drawn(world));
        cluster.add(Kind::Ctrl, REPLICAS);
        for group in GROUPS {
            cluster.add(Kind::Kv(group), REPLICAS);
        }
        cluster.ready(PATIENCE).await?;
        let unreliable = world.generator("weather").random_bool(0.5);
        cluster.network.set_weather(Weather { unreliable, ..Weather::default() });
        let connection: Arc<dyn Connection> = Arc::new(cluster.client("admin"));
        let seed = world.derive("admin");
        let mut newcomers = BTreeMap::new();
        for group in GROUPS {
            let addresses = cluster.addresses(&group.to_string());
            let client = GroupClient::new(Arc::clone(&connection), group, addresses.clone(), seed);
            let (incarnation, key) = client.data(clock::now().after(PATIENCE)).await?;
            newcomers.insert(group, NewGroup { key, incarnation, addresses });
        }
        let mut stage = Self {
            cluster,
            connection,
            seed,
            newcomers,
            homes: BTreeMap::new(),
            before: Sealed::new(Config::zero(1, Params::default())),
        };
        let ctrl = stage.ctrl();
        for group in GROUPS {
            stage.change(&ctrl, stage.join(&[group])).await?;
        }
        stage.before = ctrl.query(None).await.map_err(text)?.0;
        let options = Options { seed, deadline: PATIENCE, sessions: true };
        let clerk = Clerk::new(Arc::clone(&stage.connection), stage.cluster.addresses("ctrl"), options);
        for key in (0..KEYS).map(|number| Bytes::from(format!("k{number}"))) {
            clerk.put(key.clone(), "kept").await.map_err(text)?;
            let owner = stage.before.owner(shard_of(&key, stage.before.params.shard_count));
            stage.homes.insert(key, owner.ok_or("nobody serves it")?);
        }
        for group in GROUPS {
            stage.until(group, "adopts all", |it| it.config == stage.before.num && it.settled).await?;
        }
        Ok(stage)
    }

    fn ctrl(&self) -> CtrlClerk {
        let addresses = self.cluster.addresses("ctrl");
        CtrlClerk::new(Arc::clone(&self.connection), addresses, self.seed).with_deadline(PATIENCE)
    }

    fn group(&self, group: GroupId) -> GroupClient {
        let addresses = self.cluster.addresses(&group.to_string());
        GroupClient::new(Arc::clone(&self.connection), group, addresses, self.seed)
    }

    fn join(&self, groups: &[GroupId]) -> Change {
        Change::Join(groups.iter().map(|group| (*group, self.newcomers[group].clone())).collect())
    }

    /// Makes a change, however often its answer is lost.
    async fn change(&self, ctrl: &CtrlClerk, change: Change) -> Result<(), String> {
        match ctrl.change(change).await {
            Ok(_) | Err(Error::Unknown) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn statuses(&self, group: GroupId) -> Vec<KvStatus> {
        self.group(group).statuses().await.into_iter().filter_map(|(_, status)| status.ok()).collect()
    }

    /// Waits until every server of a group reports it.
    async fn until(
        &self,
        group: GroupId,
        what: &str,
        says: impl Fn(&KvStatus) -> bool,
    ) -> Result<(), String> {
        let start = clock::now();
        loop {
            let statuses = self.statuses(group).await;
            if statuses.len() as u64 == REPLICAS && statuses.iter().all(&says) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("group {group} never {what}: {statuses:?}"));
            }
            clock::sleep(LOOK).await;
        }
    }

    async fn get(&self, group: GroupId, key: &Bytes) -> Result<KvReply, AskError<KvRefusal>> {
        let request = KvRequest::Get { key: key.clone(), config: ConfigNum(0) };
        let until = clock::now().after(PATIENCE);
        self.group(group).ask(&request, until, &mut Attempts::repeatable()).await
    }

    /// Every key of `groups` is served by the group that served it, and no other group answers for any.
    async fn all_kept(&self, groups: &[GroupId]) -> Result<(), String> {
        for (key, home) in &self.homes {
            for group in GROUPS {
                let answer = self.get(group, key).await;
                let kept =
                    matches!(&answer, Ok(KvReply::Value { value: Some(value), .. }) if value == "kept");
                let expected = group == *home && groups.contains(home);
                ensure(kept == expected, || format!("group {group} of {home} answers {key:?}: {answer:?}"))?;
                ensure(kept || answer.is_err(), || format!("group {group} says {answer:?} of {key:?}"))?;
            }
        }
        Ok(())
    }

    /// All controllers lose everything and are started as new ones.
    async fn replaced(&self, key: u64) -> Result<(), String> {
        let own = self.newcomers[&GROUPS[0]].key;
        self.cluster.set_key(key);
        self.cluster.wipe("ctrl");
        self.cluster.ready(PATIENCE).await?;
        // A separate client, which has not met the cluster: others keep its key, and are refused.
        let connection: Arc<dyn Connection> = Arc::new(self.cluster.client("stranger"));
        let ctrl =
            CtrlClerk::new(connection, self.cluster.addresses("ctrl"), self.seed).with_deadline(PATIENCE);
        if key == own {
            // Another history with the same numbers, in which one group gets everything, then the
            // other.
            self.change(&ctrl, self.join(&GROUPS[1..])).await?;
            self.change(&ctrl, self.join(&GROUPS[..1])).await?;
            self.change(&ctrl, Change::Leave { groups: [GROUPS[1]].into(), force: false }).await?;
        } else {
            let refused = ctrl.change(self.join(&GROUPS)).await;
            // Refused by the controllers, or already at the connection, if this client has met the
            // other key.
            let other = |error: &Error| {
                matches!(error, Error::Refused(CtrlRefusal::OtherCluster { .. }))
                    || matches!(error, Error::Foreign { .. } | Error::Unknown)
            };
            let foreign = refused.as_ref().is_err_and(other);
            ensure(foreign, || format!("groups of another cluster joined: {refused:?}"))?;
        }
        for group in GROUPS {
            self.until(group, "notices", |status| status.history.word() == "other").await?;
        }
        clock::sleep(AFTERWARDS).await;
        for group in GROUPS {
            let same =
                |it: &KvStatus| it.config == self.before.num && it.digest == Some(self.before.digest());
            self.until(group, "stays where it was", |it| same(it) && it.key == Some(own)).await?;
        }
        self.all_kept(&GROUPS).await
    }

    /// A group loses everything and is started as a new one, under its id.
    async fn wiped(&self, group: GroupId) -> Result<(), String> {
        let registered = self.newcomers[&group].incarnation;
        self.cluster.wipe(&group.to_string());
        self.cluster.ready(PATIENCE).await?;
        self.until(group, "notices", |status| status.lost == Some(registered)).await?;
        clock::sleep(AFTERWARDS).await;
        for key in self.homes.keys() {
            let answer = self.get(group, key).await;
            let refused = matches!(&answer, Err(AskError::Refused(KvRefusal::LostData { .. })));
            ensure(refused, || format!("a group that lost its data says {answer:?}"))?;
        }
        self.until(group, "holds nothing", |status| status.shards.is_empty()).await?;
        let addresses = self.newcomers[&group].addresses.clone();
        // Answers get lost: one question may bring none.
        let start = clock::now();
        let own = loop {
            let statuses = self.statuses(group).await;
            if let Some(own) = statuses.iter().find_map(|it| it.incarnation) {
                break own;
            }
            ensure(start.elapsed() < PATIENCE, || format!("it has no name: {statuses:?}"))?;
        };
        let key = self.newcomers[&group].key;
        let wiped = Change::Join([(group, NewGroup { key, incarnation: own, addresses })].into());
        let refused = self.ctrl().change(wiped).await;
        let known =
            matches!(&refused, Err(Error::Refused(CtrlRefusal::OtherIncarnation(_)) | Error::Unknown));
        ensure(known, || format!("it joined with other data: {refused:?}"))?;
        // It would not adopt anything either, if that were proposed.
        let mine = Own { group, incarnation: Some(own), adopted: None };
        let named = Config { num: ConfigNum(0), ..self.before.config().as_ref().clone() };
        let named = Config { before: Default::default(), ..named };
        let verdict = fits(mine, &Sealed::new(named));
        ensure(verdict == Err(Unfit::OtherData), || format!("a wiped group would adopt: {verdict:?}"))?;
        let others: Vec<GroupId> = GROUPS.into_iter().filter(|it| *it != group).collect();
        self.all_kept(&others).await
    }

    /// All controllers lose everything, and new ones continue from what the groups hold.
    async fn recovered(&self) -> Result<(), String> {
        self.cluster.set_recovering(true);
        self.cluster.wipe("ctrl");
        self.cluster.ready(PATIENCE).await?;
        let ctrl = self.ctrl();
        clock::sleep(AFTERWARDS).await;
        let waiting = ctrl.query(None).await;
        ensure(waiting == Err(Error::Refused(CtrlRefusal::Recovering)), || {
            format!("not waiting: {waiting:?}")
        })?;
        // As `clerk` does: a server that restarted may know an old book or none, so the newest one
        // counts, and the operator's addresses complete it.
        let mut newest = AddressBook::default();
        for group in GROUPS {
            let until = clock::now().after(PATIENCE);
            let answer = self.group(group).ask(&KvRequest::Config, until, &mut Attempts::repeatable()).await;
            let Ok(KvReply::Config(config, book)) = answer else { return Err(format!("{answer:?}")) };
            ensure(config == self.before, || format!("group {group} holds {config:?}"))?;
            if book.version >= newest.version {
                newest = book;
            }
        }
        newest.key = self.before.key;
        for (group, incarnation) in &self.before.groups {
            if newest.incarnation(*group) != Some(*incarnation) {
                let addresses = self.cluster.addresses(&group.to_string());
                newest.groups.insert(*group, Registered::new(*incarnation, addresses));
            }
        }
        let recovery = Recovery { configs: vec![self.before.clone()], book: newest };
        let recovered = ctrl.recover(recovery).await.map_err(text)?;
        ensure(recovered == self.before.place(), || format!("recovered at {recovered}"))?;
        // Moves work, and nothing is lost on the way.
        self.change(&ctrl, Change::Leave { groups: [GROUPS[0]].into(), force: false }).await?;
        let moved = ConfigNum(self.before.num.0 + 1);
        for group in GROUPS {
            self.until(group, "moves", |status| status.config == moved && status.settled).await?;
        }
        for key in self.homes.keys() {
            let answer = self.get(GROUPS[1], key).await;
            let kept = matches!(&answer, Ok(KvReply::Value { value: Some(value), .. }) if value == "kept");
            ensure(kept, || format!("after the move {key:?} is {answer:?}"))?;
        }
        Ok(())
    }

    async fn push(&self, sender: Sender, to: GroupId, request: &PushRequest) -> Result<KvRefusal, String> {
        let addresses = self.cluster.addresses(&to.to_string());
        let start = clock::now();
        loop {
            for address in &addresses {
                let asked = self.connection.push(address, to, sender, request.clone(), LOOK * 20);
                match asked.await {
                    Ok(Err(KvRefusal::NotLeader { .. } | KvRefusal::NotReady { .. })) | Err(_) => {}
                    Ok(Err(refusal)) => return Ok(refusal),
                    Ok(Ok(reply)) => return Err(format!("{request:?} of {sender:?} is answered {reply:?}")),
                }
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("nobody answers {request:?}"));
            }
            clock::sleep(LOOK).await;
        }
    }

    /// A group awaits a shard, and gets rows that it must not accept.
    async fn strange_pushes(&self) -> Result<(), String> {
        let [from, to] = GROUPS;
        let shard = self.before.assignments().find(|(_, it)| it.owner == Some(from)).map(|(shard, _)| shard);
        let shard = shard.ok_or("it owns no shard")?;
        // The sender cannot send: the shard stays awaited.
        let names = |group: GroupId| self.cluster.addresses(&group.to_string());
        let cut = |enabled| {
            for one in names(from) {
                names(to).iter().for_each(|other| {
                    self.cluster.network.direct(&one.as_str().into(), &other.as_str().into(), enabled);
                });
            }
        };
        cut(false);
        let ctrl = self.ctrl();
        self.change(&ctrl, Change::Move { shard, group: to }).await?;
        let config = ctrl.query(None).await.map_err(text)?.0.place();
        self.until(to, "awaits", |status| status.config == config.num).await?;
        let honest = Sender { group: from, incarnation: self.newcomers[&from].incarnation };
        let install = |shard: ShardId, key: &[u8], value: &[u8]| PushRequest::Install {
            shard,
            config,
            from,
            after: Cursor::default(),
            to: Cursor { reach: Reach::End, ..Cursor::default() },
            rows: vec![(Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)))],
        };
        let session = [&[0x11][..], &shard.0.to_be_bytes(), &[1], &7_u64.to_be_bytes()].concat();
        let garbage = install(shard, &session, b"garbage");
        let refusal = self.push(honest, to, &garbage).await?;
        ensure(matches!(refusal, KvRefusal::Malformed(_)), || format!("garbage: {refusal:?}"))?;
        let end = || {
            let (after, rows, end) = (Cursor::default(), Vec::new(), End::default());
            PushRequest::Activate { shard, config, from, after, rows, end }
        };
        let wiped = Sender { incarnation: Incarnation(5), ..honest };
        let refusal = self.push(wiped, to, &end()).await?;
        ensure(matches!(refusal, KvRefusal::Malformed(_)), || format!("a wiped sender: {refusal:?}"))?;
        let mut other = end();
        if let PushRequest::Activate { config, .. } = &mut other {
            config.digest.0 ^= 1;
        }
        let refusal = self.push(honest, to, &other).await?;
        ensure(matches!(refusal, KvRefusal::OtherHistory { .. }), || {
            format!("another history: {refusal:?}")
        })?;
        cut(true);
        self.until(to, "gets the shard", |status| status.settled).await?;
        self.until(from, "gives the shard", |status| status.settled).await?;
        let moved: Vec<&Bytes> =
            self.homes.keys().filter(|key| shard_of(key, self.before.params.shard_count) == shard).collect();
        for key in moved {
            let answer = self.get(to, key).await;
            ensure(matches!(&answer, Ok(KvReply::Value { value: Some(_), .. })), || format!("{answer:?}"))?;
        }
        Ok(())
    }
}
