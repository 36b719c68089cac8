//! The labs' own tests of their network (labrpc, the same twelve in every year), on ours.
//!
//! The service under test is as small as theirs. Asked for a key it answers with the number that
//! the key spells, asked without a key it answers with a text made from the configuration number,
//! and as a controller it opens sessions. Two services at one address, as theirs.
//!
//! Where a test has no meaning here its intention is kept: argument types are checked by Rust, but
//! messages must share no memory ([`types`]); byte counts are those of our codec (`bytes`);
//! toggling long delays cannot race, but must not change the fate of running calls
//! ([`long_delay_race`]). Ends need not be enabled before the first call.
//!
//! Not applicable: the three tests of labgob (a round trip, and warnings about lower-case fields
//! and about decoding over a value that is not the default): encoding is done by serde and bincode,
//! whose derived code knows all fields and makes new values. The two of tester1 (a server is
//! reached; after ShutdownServer its Kill was called and calls fail): they test a tester's handling
//! of processes that does not exist here; the simulated cluster has its own tests of crashes.
//!
//! Left out on purpose: a place on the sheets. These tests were never handed out.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use base::clock;
use bytes::Bytes;
use clerk::api::config::NewGroup;
use clerk::api::ctrl::{Change, CtrlReply, CtrlRequest};
use clerk::api::kv::{KvReply, KvRequest};
use clerk::api::{ConfigNum, GroupId, Incarnation, Seq, SessionId, Ticket, Version};
use clerk::connection::{CallError, Connection};
use futures::future::join_all;

use crate::lab::{Lab, Timers};
use crate::sheet::{Scenario, scenario};
use sim::lock;
use sim::network::{Calls, Network, Reply, Request, Server, Weather};

/// The server's address.
const SERVER: &str = "server";
/// A call lasts as long as its handler: no deadline may end it.
const FOREVER: Duration = Duration::from_secs(3600);

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("NET01", basic),
        scenario("NET02", types),
        scenario("NET03", disconnect),
        scenario("NET04", counts),
        scenario("NET05", bytes),
        scenario("NET06", concurrent_many),
        scenario("NET07", unreliable),
        scenario("NET08", concurrent_one),
        scenario("NET09", regression1),
        scenario("NET10", killed),
        scenario("NET11", benchmark),
        scenario("NET12", long_delay_race),
    ]
}

/// The network of a run, without servers.
fn network(lab: &Lab) -> anyhow::Result<Network> {
    lab.set_peers(1);
    Ok(lab.cluster(1, lab.config(Timers::Product))?.network)
}

/// Puts a server on the network that takes `work` for each request.
fn attach(network: &Network, work: Duration, answer: impl Fn(Request) -> Reply + Send + Sync + 'static) {
    let handler = move |request| -> futures::future::BoxFuture<'static, Reply> {
        let reply = answer(request);
        Box::pin(async move {
            if !work.is_zero() {
                clock::sleep(work).await;
            }
            reply
        })
    };
    network.attach(&SERVER.into(), Server::new(Arc::new(handler), None));
}

/// The two services of the labs' test server.
fn answer(request: Request) -> Reply {
    let value = |value, version| Reply::Kv(Ok(KvReply::Value { value, version: Version(version) }));
    match request {
        Request::Kv(_, KvRequest::Get { key, config }) if key.is_empty() => {
            value(Some(Bytes::from(format!("handler2-{config}"))), 0)
        }
        Request::Kv(_, KvRequest::Get { key, .. }) => {
            let number = std::str::from_utf8(&key).ok().and_then(|text| text.parse().ok());
            number.map_or_else(|| Reply::Refused("not a number".to_owned()), |number| value(None, number))
        }
        Request::Ctrl(CtrlRequest::Open) => Reply::Ctrl(Ok(CtrlReply::Opened(SessionId(7)))),
        other => Reply::Refused(format!("nobody expects {other:?}")),
    }
}

/// The network with that server on it.
fn with_server(lab: &Lab) -> anyhow::Result<Network> {
    let network = network(lab)?;
    attach(&network, Duration::ZERO, answer);
    Ok(network)
}

/// A client's end to the server.
struct End {
    calls: Calls,
    to: String,
}

impl End {
    fn new(network: &Network, client: impl fmt::Display) -> Self {
        let calls =
            Calls { network: network.clone(), from: client.to_string().into(), alive: None, pass: None };
        Self { calls, to: SERVER.to_owned() }
    }

    async fn get(&self, key: &str, config: u64) -> Result<(Option<Bytes>, u64), CallError> {
        let request = KvRequest::Get { key: Bytes::from(key.to_owned()), config: ConfigNum(config) };
        match self.calls.kv(&self.to, GroupId(1), request, FOREVER).await? {
            Ok(KvReply::Value { value, version }) => Ok((value, version.0)),
            other => Err(CallError::Refused { address: self.to.clone(), why: format!("{other:?}") }),
        }
    }

    /// The labs' Handler1: a text in, a number out.
    async fn number(&self, text: &str) -> Result<u64, CallError> {
        self.get(text, 0).await.map(|(_, number)| number)
    }

    /// The labs' Handler2: a number in, a text out.
    async fn text(&self, number: u64) -> Result<String, CallError> {
        let (value, _) = self.get("", number).await?;
        Ok(String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
    }
}

/// The service at the address answers, and so does the other one.
pub async fn basic(lab: Lab) -> anyhow::Result<()> {
    let end = End::new(&with_server(&lab)?, "client");
    ensure!(end.text(111).await? == "handler2-111");
    ensure!(end.number("9099").await? == 9099);
    let opened = end.calls.ctrl(&end.to, CtrlRequest::Open, FOREVER).await?;
    ensure!(opened == Ok(CtrlReply::Opened(SessionId(7))), "{opened:?}");
    Ok(())
}

/// What arrives equals what was sent and shares no memory with it, in both directions: neither side
/// can change the other's.
pub async fn types(lab: Lab) -> anyhow::Result<()> {
    let network = network(&lab)?;
    let kept = Arc::new(Mutex::new(Vec::new()));
    let server = Arc::clone(&kept);
    attach(&network, Duration::ZERO, move |request| match request {
        Request::Kv(_, KvRequest::Get { key, .. }) => {
            let value = Bytes::from(key.to_ascii_uppercase());
            lock(&server).extend([key, value.clone()]);
            Reply::Kv(Ok(KvReply::Value { value: Some(value), version: Version(1) }))
        }
        // The server consumes the change: the client's must stay intact.
        Request::Ctrl(CtrlRequest::Change { change: Change::Join(mut groups), ticket }) => {
            let count = groups.len() as u64;
            groups.clear();
            Reply::Ctrl(Ok(CtrlReply::Changed { config: ConfigNum(count + ticket.seq.0), moves: Vec::new() }))
        }
        other => Reply::Refused(format!("nobody expects {other:?}")),
    });
    let end = End::new(&network, "client");

    let key = Bytes::from(b"a long enough key to live on the heap".to_vec());
    let request = KvRequest::Get { key: key.clone(), config: ConfigNum(0) };
    let reply = end.calls.kv(&end.to, GroupId(1), request, FOREVER).await?;
    let Ok(KvReply::Value { value: Some(value), .. }) = reply else { bail!("{reply:?}") };
    let held = lock(&kept).clone();
    ensure!(held == [key.clone(), value.clone()], "other content");
    ensure!(held[0].as_ptr() != key.as_ptr(), "the server holds the client's key");
    ensure!(held[1].as_ptr() != value.as_ptr(), "the client holds the server's value");

    let group = NewGroup { key: 1, incarnation: Incarnation(5), addresses: vec!["x".into(), "y".into()] };
    let change = Change::Join([(GroupId(1), group.clone()), (GroupId(2), group)].into());
    let ticket = Ticket { session: SessionId(7), seq: Seq(40) };
    let request = CtrlRequest::Change { ticket, change: change.clone() };
    let reply = end.calls.ctrl(&end.to, request.clone(), FOREVER).await?;
    ensure!(reply == Ok(CtrlReply::Changed { config: ConfigNum(42), moves: Vec::new() }), "{reply:?}");
    ensure!(request == CtrlRequest::Change { ticket, change });
    Ok(())
}

/// No reply comes over a disabled end; after it was enabled, one does.
pub async fn disconnect(lab: Lab) -> anyhow::Result<()> {
    let network = with_server(&lab)?;
    let end = End::new(&network, "client");
    network.link(&"client".into(), &SERVER.into(), false);
    ensure!(matches!(end.text(111).await, Err(CallError::NotSent { .. })));
    network.link(&"client".into(), &SERVER.into(), true);
    ensure!(end.number("9099").await? == 9099);
    Ok(())
}

/// Each of 17 calls is counted once.
pub async fn counts(lab: Lab) -> anyhow::Result<()> {
    let network = with_server(&lab)?;
    let end = End::new(&network, "client");
    for number in 0..17 {
        ensure!(end.text(number).await? == format!("handler2-{number}"));
    }
    let (served, tried) = (network.served(&SERVER.into()), network.rpcs());
    ensure!((served, tried) == (17, 17), "served {served}, tried {tried}");
    Ok(())
}

/// The counted bytes are those of the arguments and results and little more.
pub async fn bytes(lab: Lab) -> anyhow::Result<()> {
    const CALLS: u64 = 17;
    let network = network(&lab)?;
    attach(&network, Duration::ZERO, |request| {
        let Request::Kv(_, KvRequest::Get { key, .. }) = request else { return answer(request) };
        let value = key.is_empty().then(|| Bytes::from(vec![b'x'; 107]));
        Reply::Kv(Ok(KvReply::Value { value, version: Version(key.len() as u64) }))
    });
    let end = End::new(&network, "client");

    let argument = "x".repeat(284);
    for _ in 0..CALLS {
        ensure!(end.number(&argument).await? == 284);
    }
    // The labs' limits, which hold for our encoding as well.
    let first = network.bytes();
    ensure!((4828..=6000).contains(&first), "{CALLS} calls of 284 bytes count {first} bytes");

    for number in 0..CALLS {
        ensure!(end.text(number).await?.len() == 107);
    }
    // The labs' limits are 1,800 and 2,500: a bare number and a bare text, with a few bytes around
    // them. Ours are sent as the product's request and reply, 33 and 137 bytes with format version,
    // kinds, lengths, group and the result's version.
    let (least, most) = (CALLS * (8 + 107), CALLS * (33 + 137));
    let second = network.bytes() - first;
    ensure!((least..=most).contains(&second), "{CALLS} calls for 107 bytes count {second} bytes");
    Ok(())
}

/// Twenty ends with ten calls each: every reply belongs to its call, every request is served once.
pub async fn concurrent_many(lab: Lab) -> anyhow::Result<()> {
    const ENDS: u64 = 20;
    const CALLS: u64 = 10;
    let network = with_server(&lab)?;
    let client = |client: u64| {
        let end = End::new(&network, client);
        async move {
            for call in 0..CALLS {
                let argument = client * 100 + call;
                let reply = end.text(argument).await?;
                ensure!(reply == format!("handler2-{argument}"), "{argument} was answered {reply}");
            }
            anyhow::Ok(())
        }
    };
    join_all((0..ENDS).map(client)).await.into_iter().collect::<anyhow::Result<()>>()?;
    let served = network.served(&SERVER.into());
    ensure!(served == ENDS * CALLS, "{served} requests served");
    Ok(())
}

/// Of 300 clients' calls on an unreliable network some are answered, rightly, and some are lost.
pub async fn unreliable(lab: Lab) -> anyhow::Result<()> {
    const CLIENTS: u64 = 300;
    let network = with_server(&lab)?;
    let client = |client: u64| {
        let end = End::new(&network, client);
        async move {
            match end.text(client * 100).await {
                Ok(reply) if reply == format!("handler2-{}", client * 100) => Ok(1),
                Ok(reply) => Err(anyhow!("client {client} was answered {reply}")),
                Err(CallError::Lost { .. }) => Ok(0),
                Err(other) => Err(other.into()),
            }
        }
    };
    let answered = join_all((0..CLIENTS).map(client)).await;
    let answered = answered.into_iter().sum::<anyhow::Result<u64>>()?;
    ensure!(answered > 0 && answered < CLIENTS, "{answered} of {CLIENTS} calls were answered");
    Ok(())
}

/// Twenty calls at once on one end: all are answered, each is served once.
pub async fn concurrent_one(lab: Lab) -> anyhow::Result<()> {
    const CALLS: u64 = 20;
    let network = with_server(&lab)?;
    let end = End::new(&network, "client");
    let replies = join_all((0..CALLS).map(|call| end.text(100 + call))).await;
    for (argument, reply) in (100..).zip(replies) {
        let reply = reply?;
        ensure!(reply == format!("handler2-{argument}"), "{argument} was answered {reply}");
    }
    let served = network.served(&SERVER.into());
    ensure!(served == CALLS, "{served} requests served");
    Ok(())
}

/// Calls that failed on a disabled end neither reach the server later nor delay the next one.
pub async fn regression1(lab: Lab) -> anyhow::Result<()> {
    const CALLS: u64 = 20;
    let network = with_server(&lab)?;
    let end = Arc::new(End::new(&network, "client"));
    network.link(&"client".into(), &SERVER.into(), false);
    let early: Vec<_> = (0..CALLS)
        .map(|call| {
            let end = Arc::clone(&end);
            tokio::spawn(async move { end.text(100 + call).await })
        })
        .collect();
    lab.sleep(100).await;
    network.link(&"client".into(), &SERVER.into(), true);
    let start = clock::now();
    ensure!(end.text(99).await? == "handler2-99");
    let took = start.elapsed();
    ensure!(took <= Duration::from_millis(30), "the call took {took:?}");
    for call in early {
        let outcome = call.await?;
        ensure!(matches!(outcome, Err(CallError::NotSent { .. })), "{outcome:?}");
    }
    let served = network.served(&SERVER.into());
    ensure!(served == 1, "{served} requests served");
    Ok(())
}

/// A call waits as long as its handler works, and no longer than 100 ms after the server is gone.
pub async fn killed(lab: Lab) -> anyhow::Result<()> {
    let network = network(&lab)?;
    attach(&network, Duration::from_secs(20), answer);
    let end = End::new(&network, "client");
    let call = tokio::spawn(async move { end.text(99).await });
    lab.sleep(1000).await;
    let end_of_look = clock::now().after(Duration::from_millis(100));
    while clock::now() < end_of_look {
        ensure!(!call.is_finished(), "the call is over before its handler");
        lab.sleep(1).await;
    }
    // Its tasks continue: only the network knows that it is gone.
    let server = network.detach(&SERVER.into()).context("the server is on the network")?;
    let start = clock::now();
    let outcome = call.await?;
    let took = start.elapsed();
    ensure!(matches!(outcome, Err(CallError::Lost { .. })), "{outcome:?}");
    ensure!(took <= Duration::from_millis(100), "the call failed after {took:?}");
    drop(server);
    Ok(())
}

/// The cost of a call.
pub async fn benchmark(lab: Lab) -> anyhow::Result<()> {
    const CALLS: u64 = 100_000;
    let network = with_server(&lab)?;
    let end = End::new(&network, "client");
    let (wall, start) = (std::time::Instant::now(), clock::now());
    for call in 0..CALLS {
        ensure!(end.number("111").await? == 111, "call {call}");
    }
    let (wall, virtual_time) = (wall.elapsed(), start.elapsed());
    let micros = wall.as_secs_f64() * 1e6 / CALLS as f64;
    // Not to standard output, which may be the grades in JSON.
    eprintln!("{wall:.2?} for {CALLS} calls, {micros:.1} microseconds each ({virtual_time:.1?} virtual)");
    ensure!(network.served(&SERVER.into()) == CALLS);
    Ok(())
}

/// Long delays are toggled during calls to nobody: each call keeps the delay that it began with.
pub async fn long_delay_race(lab: Lab) -> anyhow::Result<()> {
    const ROUNDS: u64 = 50;
    const CALLS: u64 = 10;
    let network = network(&lab)?;
    let mut calls = Vec::new();
    for round in 0..ROUNDS {
        let long_delays = round % 2 == 0;
        network.set_weather(Weather { long_delays, ..Weather::default() });
        for call in 0..CALLS {
            let end = End::new(&network, format!("client {round}-{call}"));
            calls.push(tokio::spawn(async move {
                let start = clock::now();
                let outcome = end.text(call).await;
                (long_delays, start.elapsed(), outcome)
            }));
        }
        lab.sleep(10).await;
    }
    let mut longest = [Duration::ZERO; 2];
    for call in calls {
        let (long_delays, took, outcome) = call.await?;
        ensure!(matches!(outcome, Err(CallError::NotSent { .. })), "{outcome:?}");
        let longest = &mut longest[usize::from(long_delays)];
        *longest = took.max(*longest);
    }
    let [without, with] = longest;
    ensure!(without <= Duration::from_millis(100), "without long delays a call took {without:?}");
    let expected = Duration::from_secs(5)..=Duration::from_secs(7);
    ensure!(expected.contains(&with), "with long delays no call took longer than {with:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::grading;
    use crate::lab::Options;

    fn play(id: &str) {
        let test = grading::catalogue().into_iter().find(|test| test.id == id).unwrap();
        for seed in 1..=5 {
            let options = Options { seed, net: test.net, timers: None };
            let outcome = grading::run(&test, &options);
            assert!(outcome.passed(), "{id} seed {seed}: {:?}", outcome.verdict);
        }
    }

    macro_rules! played {
        ($($name:ident: $id:literal;)*) => {
            $(
                #[test]
                fn $name() {
                    play($id);
                }
            )*
        };
    }

    played! {
        basic: "NET01";
        types: "NET02";
        disconnect: "NET03";
        counts: "NET04";
        bytes: "NET05";
        concurrent_many: "NET06";
        unreliable: "NET07";
        concurrent_one: "NET08";
        regression1: "NET09";
        killed: "NET10";
        benchmark: "NET11";
        long_delay_race: "NET12";
    }
}
