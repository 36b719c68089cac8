//! `shardkv`: one replica of a group as a process.
//!
//! What can fail on the way up fails before anything is written, in the order that `base::process` tells;
//! and once it serves, only a signal or a disk error ends it.

use std::sync::Arc;

use base::process::{self, ServerArgs};
use clap::Parser;
use clerk::api::{Address, GroupId};
use clerk::connection::{Options, TarpcConnection};
use raft::host::{self, Host, HostError};
use raft::rsm;
use raft::types::NodeId;
use shardkv::server;
use shardkv::service::{Service, Settings};
use shardkv::state_machine::Machine;
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

fn main() {
    let args = process::load::<Args>();
    let span = tracing::info_span!("server", group = args.group, node = args.server.id);
    process::run(run(args).instrument(span));
}

async fn run(args: Args) -> Result<(), HostError> {
    let Host { listener, here, transport, parts } = host::open(&args.server, args.group).await?;
    let group = GroupId(args.group);
    let machine = Machine::new(group);
    let standing = machine.standing();
    let replica = rsm::start(parts, machine).await?;
    let settings = Settings {
        group,
        members: args.server.members.0.iter().map(|(id, address)| (NodeId(*id), address.clone())).collect(),
        controllers: args.controllers,
        connection: Arc::new(TarpcConnection::new(Options::of(&args.server.cluster))),
        seed: rand::random(),
        pid: std::process::id(),
    };
    let service = Arc::new(Service::new(replica, standing, settings));
    let signal = tokio::select! {
        biased;
        signal = process::shutdown_signal() => signal?,
        never = server::serve(listener, here, Arc::clone(&service), transport) => match never {},
    };
    tracing::info!(signal, "stopping");
    service.stop().await;
    Ok(())
}
