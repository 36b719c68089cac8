//! `shardkv`: one replica of a group as a process.

use std::sync::Arc;

use base::process;
use clap::Parser;
use clerk::api::{Address, GroupId};
use clerk::connection::{Options, TarpcConnection};
use host::{Host, HostError, ServerArgs};
use raft::rsm;
use shardkv::machine::Machine;
use shardkv::plan::Sizes;
use shardkv::service::{Service, Settings};
use shardkv::{judge, server};
use tracing::Instrument;

/// A replica of a group, which serves the shards that the controllers give the group.
#[derive(Debug, Parser)]
#[command(name = "shardkv", version)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The group this server belongs to.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    group: u64,
    /// The shard controllers.
    #[arg(long, value_name = "HOST:PORT,HOST:PORT,...", value_delimiter = ',', required = true)]
    controllers: Vec<Address>,
}

// Requests, rows and messages are many small pieces, allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    raft_disk::check::answer_if_asked(&mut judge::Table::default());
    let args = process::load::<Args>();
    process::run(async move {
        let host = host::open(&args.server, GroupId(args.group)).await?;
        // Made only now: a span from before the log exists appears in no log.
        let span = tracing::info_span!("server", group = args.group, node = args.server.id);
        serve(&args, host).instrument(span).await
    });
}

/// Starts the replica and serves until a signal comes.
async fn serve(args: &Args, host: Host) -> Result<(), HostError> {
    let Host { listener, http, here, members, transport, parts, facts, calls, keeper } = host;
    let group = GroupId(args.group);
    let machine = Machine::new(group);
    let standing = machine.standing();
    let replica = rsm::start(parts, machine).await?;
    let table = Arc::clone(replica.table());
    tokio::spawn(keeper.follow(replica.watch(), move || shardkv::cluster_key(&*table)).in_current_span());
    let options = Options::of_server(&here, Arc::clone(facts.counters.refusals()));
    // Controllers and groups have a pool each.
    let options = Options { connections_max: calls / 2, ..options };
    let settings = Settings {
        group,
        members,
        controllers: args.controllers.clone(),
        connection: Arc::new(TarpcConnection::new(options)),
        seed: rand::random(),
        facts,
        sizes: Sizes::USUAL,
    };
    let service = Arc::new(Service::new(replica, standing, settings));
    if let Some(http) = http {
        let (shown, name) = (service.clone(), format!("{group}.{}", args.server.id));
        host::show(http, service.clone(), move || host::own_slow(shown, name))?;
    }
    let listen = listener.address();
    let serving = server::serve(listener, here, transport, Arc::clone(&service));
    host::until_signal(listen, serving, service.stop()).await
}
