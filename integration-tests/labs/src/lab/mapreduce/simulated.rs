//! Coordinators and workers as tasks of a simulated world.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{anyhow, bail};
use futures::future::BoxFuture;
use mapreduce::{Coordinate, Coordinator, Reply, Request, Run, Worker};
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Job;
use super::trials::{self, Host};
use crate::lab::{Lab, Net};
use sim::{Generator, Label, Name, World, lock};

/// The time after which a lost request or answer is missed, as at a socket.
const MISSED: Duration = Duration::from_secs(1);

/// A coordinator, and the channel that tells callers waiting for its answers that it has ended.
type Answering = (Arc<Coordinator>, watch::Sender<bool>);

/// The coordinator that answers now, and the workers that are alive.
#[derive(Clone, Default)]
pub(super) struct Seat {
    answering: Arc<Mutex<Option<Answering>>>,
    alive: Arc<Mutex<BTreeSet<u64>>>,
    numbers: Arc<AtomicU64>,
}

/// A task that can be dropped and stopped.
pub struct Task {
    running: JoinHandle<bool>,
    well: Option<bool>,
    gate: Arc<Gate>,
}

impl Task {
    fn spawn(work: impl Future<Output = bool> + Send + 'static) -> Self {
        let gate = Arc::new(Gate::default());
        let gated = Gated { work: Box::pin(work), gate: Arc::clone(&gate) };
        Self { running: tokio::spawn(gated), well: None, gate }
    }

    pub(super) async fn ended(&mut self) -> bool {
        if self.well.is_none() {
            self.well = Some((&mut self.running).await.unwrap_or(false));
        }
        self.well == Some(true)
    }

    pub(super) fn kill(&mut self) {
        self.running.abort();
    }

    pub(super) fn stop(&self, stopped: bool) {
        self.gate.stopped.store(stopped, Ordering::Relaxed);
        if let Some(waker) = lock(&self.gate.waker).take() {
            waker.wake();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Default)]
struct Gate {
    stopped: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Work that is not polled while its gate is shut.
struct Gated {
    work: Pin<Box<dyn Future<Output = bool> + Send>>,
    gate: Arc<Gate>,
}

impl Future for Gated {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.gate.stopped.load(Ordering::Relaxed) {
            *lock(&self.gate.waker) = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.work.as_mut().poll(cx)
    }
}

/// Leaves the seat when the coordinator ends, however it does.
struct Leaves(Seat);

impl Drop for Leaves {
    fn drop(&mut self) {
        if let Some((_, closed)) = lock(&self.0.answering).take() {
            closed.send_replace(true);
        }
    }
}

pub(super) fn coordinator(job: &Job, world: &World) -> anyhow::Result<Task> {
    let (directory, spec, seat, store) =
        (job.directory.clone(), job.spec.clone(), job.seat.clone(), job.store.clone());
    let life = u32::try_from(seat.numbers.fetch_add(1, Ordering::Relaxed))?;
    world.note(&format!("mr coordinator {life}"));
    let work = async move {
        let Ok(coordinator) = Coordinator::begin(directory, spec, store, life).await else { return false };
        let coordinator = Arc::new(coordinator);
        *lock(&seat.answering) = Some((Arc::clone(&coordinator), watch::Sender::new(false)));
        let _leaves = Leaves(seat.clone());
        coordinator.end(std::future::pending()).await.is_ok()
    };
    Ok(Task::spawn(work))
}

/// A worker's link to the coordinator. When it is dropped, its connection ends.
struct Way {
    lab: Lab,
    world: World,
    seat: Seat,
    name: Name,
    me: u64,
    random: Mutex<Generator>,
}

impl Way {
    /// One direction; returns whether the message arrives.
    async fn travel(&self) -> bool {
        let (delay, is_lost) = {
            let mut random = lock(&self.random);
            let delay = Duration::from_micros(random.random_range(200..500));
            (delay, self.lab.net() == Net::Unreliable && random.random_bool(0.1))
        };
        self.world.pause(if is_lost { MISSED } else { delay }, Label::of("mr", &self.name)).await;
        !is_lost
    }

    async fn ask(&self, request: Request) -> anyhow::Result<Reply> {
        self.lab.count_rpc();
        if !self.travel().await {
            bail!("no answer");
        }
        let answering =
            lock(&self.seat.answering).as_ref().map(|(one, closed)| (Arc::clone(one), closed.subscribe()));
        let Some((coordinator, mut closed)) = answering else {
            bail!("nobody listens");
        };
        let reply = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => bail!("no answer"),
            reply = coordinator.handle(request) => reply,
        };
        if self.travel().await { Ok(reply) } else { Err(anyhow!("no answer")) }
    }
}

impl Coordinate for Way {
    fn call(&self, request: Request) -> BoxFuture<'_, anyhow::Result<Reply>> {
        Box::pin(self.ask(request))
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        lock(&self.seat.alive).remove(&self.me);
        let (seat, me) = (self.seat.clone(), self.me);
        let told = move || {
            if let Some((coordinator, _)) = &*lock(&seat.answering) {
                coordinator.gone(me);
            }
        };
        self.world.after(
            Duration::from_micros(300),
            Label::of("mr gone", &self.name),
            bytes::Bytes::new(),
            told,
        );
    }
}

pub(super) fn worker(job: &Job, world: &World) -> anyhow::Result<Task> {
    let me = job.seat.numbers.fetch_add(1, Ordering::Relaxed);
    let name: Name = format!("mr worker {me}").into();
    lock(&job.seat.alive).insert(me);
    let alive = Arc::clone(&job.seat.alive);
    let host = Host {
        me,
        directory: job.directory.own.clone(),
        alive: Box::new(move |other| lock(&alive).contains(&other)),
        random: Mutex::new(rand::rngs::StdRng::seed_from_u64(job.lab.derive(&name))),
    };
    let way = Way {
        lab: job.lab.clone(),
        world: world.clone(),
        seat: job.seat.clone(),
        me,
        random: Mutex::new(job.lab.random(&format!("way of {name}"))),
        name,
    };
    let (directory, spec, store) = (job.directory.clone(), job.spec.clone(), job.store.clone());
    let Run::App(app) = &spec.run else { bail!("no app of a job of the labs") };
    let program = trials::program(app, host).map_err(anyhow::Error::msg)?;
    let work = async move {
        let (coordinator, directory, spec, program, store) =
            (&way, &directory, &spec, &*program, store.as_ref());
        Worker { coordinator, directory, spec, program, store, me }.run().await.is_ok()
    };
    Ok(Task::spawn(work))
}
