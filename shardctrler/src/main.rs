//! `shardctrler`: one replica of the shard controller as a process.

use std::path::PathBuf;
use std::sync::Arc;

use base::process;
use clap::Parser;
use clerk::api::GroupId;
use clerk::api::config::{Params, SESSIONS_LIMIT, SLOTS};
use clerk::connection::Options;
use host::{Host, HostError, ServerArgs};
use raft::rsm;
use shardctrler::page::{self, AdminToken};
use shardctrler::service::{Service, Settings};
use shardctrler::state_machine::Controller;
use shardctrler::{rows, server};
use tracing::Instrument;

/// A replica of the shard controller, which decides which group serves which shard.
///
/// The limits of the cluster are fixed by the very first start.
#[derive(Debug, Parser)]
#[command(name = "shardctrler", version)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Shards of a new cluster.
    #[arg(long, value_name = "COUNT", default_value_t = Params::default().shard_count,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS)))]
    shards: u32,
    /// Longest key of a new cluster.
    #[arg(long, value_name = "BYTES", default_value_t = Params::default().key_bytes_max,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    key_bytes_max: u32,
    /// Longest value of a new cluster.
    #[arg(long, value_name = "BYTES", default_value_t = Params::default().value_bytes_max,
          value_parser = clap::value_parser!(u32).range(1..=32 << 20))]
    value_bytes_max: u32,
    /// Sessions of a shard of a new cluster, one for each client that writes there; beyond, the
    /// least recently used one expires
    #[arg(long, value_name = "COUNT", default_value_t = Params::default().sessions_max,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(SESSIONS_LIMIT)))]
    sessions_max: u32,
    /// Take the place of controllers that all lost their data: make no new cluster, wait for `clerk
    /// recover-controllers`
    #[arg(long)]
    recover: bool,
    /// Who sends the text of this file may change the cluster over HTTP; the file's mode is 0600.
    /// Without this nobody may
    #[arg(long, value_name = "FILE", requires = "http")]
    admin_token: Option<PathBuf>,
}

impl Args {
    fn params(&self) -> Params {
        Params {
            shard_count: self.shards,
            key_bytes_max: self.key_bytes_max,
            value_bytes_max: self.value_bytes_max,
            sessions_max: self.sessions_max,
        }
    }
}

// Requests, rows and messages are many small pieces, allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    raft_disk::check::answer_if_asked(&mut shardctrler::judge::Table::default());
    let args = process::load::<Args>();
    process::run(async move {
        // First: a bad one is refused before anything is written.
        let token = args.admin_token.as_deref().map(AdminToken::read).transpose();
        let token = token.map_err(|error| error.to_string())?;
        let host = host::open(&args.server, GroupId::CONTROLLERS).await?;
        // Made only now: a span from before there is a log appears in none.
        let span = tracing::info_span!("server", group = "ctrl", node = args.server.id);
        serve(&args, host, token).instrument(span).await
    });
}

/// Starts the replica and serves until a signal comes.
async fn serve(args: &Args, host: Host, token: Option<AdminToken>) -> Result<(), HostError> {
    let Host { listener, http, here, members, transport, parts, facts, calls, keeper } = host;
    let replica = rsm::start(parts, Controller::default()).await?;
    let table = Arc::clone(replica.table());
    tokio::spawn(keeper.follow(replica.watch(), move || rows::cluster_key(&*table)).in_current_span());
    let connection = Options {
        key: here.key.clone(),
        keeps_key: false,
        connections_max: calls,
        ..Options::of(&here.cluster)
    };
    let settings = Settings {
        members: members.clone(),
        params: args.params(),
        key: rand::random_range(1..=u64::MAX),
        sessions: rand::random_range(1 << 32..1 << 61),
        recover: args.recover,
        facts,
    };
    let service = Arc::new(Service::new(replica.clone(), settings));
    if let Some(http) = http {
        let (me, changes) = (args.server.id, service.changes());
        let settings = page::Settings { connection, members, me, token, changes };
        host::show(http, service.clone(), move || page::routes(settings))?;
    }
    let listen = listener.address();
    host::until_signal(listen, server::serve(listener, here, transport, service), replica.stop()).await
}
