//! What a server shows over HTTP, to people and to the tools that watch servers: `/metrics`,
//! `/livez`, `/readyz`, `/v1/server`, `/v1/slow`. A server may add routes of its own ([`show`]).
//!
//! The port has a thread and a runtime of its own, so that a page that is large, or a reader that is
//! slow, delays no request of the store. These routes only show: nothing can be changed through them.
//!
//! It is bounded like every port: connections, bytes of a request, and time. A request must name
//! this server as a browser would if a person had typed an address or "localhost": a page from
//! elsewhere that makes a name of its own point to this host (DNS rebinding) reads nothing.

mod metrics;
mod pages;
mod ready;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use clerk::api::ConfigNum;
use clerk::api::status::{CtrlStatus, KvStatus, ReplicaStatus};
use futures::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use raft::rsm::Measured;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::error::HostError;
use crate::measures::Measures;

/// Connections at once; beyond, new ones are closed.
pub const HTTP_CONNECTIONS_MAX: usize = 32;
/// The longest head of a request, in bytes. Only routes that a server adds have bodies.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a connection may be silent before the head of a request is complete.
pub const HTTP_SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a connection lives at most.
pub const HTTP_CONNECTION_MAX: Duration = Duration::from_secs(120);
/// A replica whose loop has not turned for so long should be started anew. (A save may take long.)
pub const HTTP_TURN_MAX: Duration = Duration::from_secs(10);
/// How long the server waits for the status of its replica.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// Pages that come sooner after another show the same.
const STATUS_AGE_MAX: Duration = Duration::from_millis(100);

/// What a server knows of itself.
#[derive(Clone, Debug)]
pub enum Shown {
    /// A controller.
    Controller(Box<CtrlStatus>),
    /// A replica of a group.
    Group(Box<KvStatus>),
}

impl Shown {
    /// The replica.
    pub fn replica(&self) -> &ReplicaStatus {
        match self {
            Self::Controller(status) => &status.replica,
            Self::Group(status) => &status.replica,
        }
    }
}

/// What a replica of a group measures of the shards that move, beyond its status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moves {
    /// The newest configuration that it knows of; it may not have adopted it yet.
    pub newest: ConfigNum,
    /// Rows that it sent to other groups as a leader, and that those took.
    pub rows_out: u64,
    /// Rows that it took from other groups as a leader.
    pub rows_in: u64,
    /// For how long the push of a shard that waits longest has got nowhere.
    pub stalled: Duration,
    /// Changed rows that it remembers, of shards that leave.
    pub dirty_rows: u64,
}

/// A server that can be shown.
pub trait Observed: Send + Sync + 'static {
    /// What it knows of itself now.
    fn shown(&self) -> BoxFuture<'_, Shown>;

    /// What it measured of its requests.
    fn measures(&self) -> &Measures;

    /// What its replica measured of its work.
    fn replica_measured(&self) -> Measured;

    /// What it measured of the shards that move. None: it has no shards.
    fn moves(&self) -> Option<Moves> {
        None
    }

    /// How long ago the loop of its replica turned last.
    fn since_last_tick(&self) -> Duration;
}

/// What was shown last, and when.
type Last = Option<(clock::Instant, Arc<Shown>)>;

/// A server's pages.
struct Pages {
    server: Arc<dyn Observed>,
    last: tokio::sync::Mutex<Last>,
}

impl Pages {
    /// The status, one at a time, and not more often than it changes for people. None: the replica
    /// does not answer.
    async fn shown(&self) -> Option<Arc<Shown>> {
        let shown = async {
            let mut last = self.last.lock().await;
            match &*last {
                Some((at, shown)) if at.elapsed() < STATUS_AGE_MAX => Arc::clone(shown),
                _ => {
                    let shown = Arc::new(self.server.shown().await);
                    *last = Some((clock::now(), Arc::clone(&shown)));
                    shown
                }
            }
        };
        clock::timeout(STATUS_MAX, shown).await.ok()
    }
}

/// Closes the connection that a request came on: for a route whose reader takes nothing any more. A
/// request has it as an extension.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<Notify>);

impl Closing {
    /// Closes it.
    pub fn close(&self) {
        self.0.notify_one();
    }
}

/// Shows `server` on `listener` as long as the process lives. `more` makes further routes, on the
/// runtime of the port.
///
/// # Errors
/// When the thread or its runtime cannot be started.
pub fn show(
    listener: TcpListener,
    server: Arc<dyn Observed>,
    more: impl FnOnce() -> axum::Router + Send + 'static,
) -> Result<(), HostError> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pages = Arc::new(Pages { server, last: tokio::sync::Mutex::default() });
    let span = tracing::Span::current();
    let run = move || {
        let _in = span.entered();
        runtime.block_on(accept(listener, pages, more));
    };
    std::thread::Builder::new().name("http".to_owned()).spawn(run)?;
    tracing::info!(%address, "showing this server over HTTP");
    Ok(())
}

/// For [`show`]: the slow requests of this server alone, whose name is `name`.
pub fn own_slow(server: Arc<dyn Observed>, name: String) -> axum::Router {
    pages::own_slow(server, name)
}

/// Takes connections until the process ends.
async fn accept(listener: TcpListener, pages: Arc<Pages>, more: impl FnOnce() -> axum::Router) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "this server is not shown over HTTP"),
    };
    let router = pages::router(pages, more());
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => drop(tokio::spawn(serve(stream, router.clone(), place))),
                Err(_) => tracing::debug!(%peer, "too many HTTP connections"),
            },
            Err(error) => {
                tracing::warn!(%error, "no HTTP connection was taken");
                clock::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, router: axum::Router, _place: OwnedSemaphorePermit) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HTTP_SILENCE_MAX).max_buf_size(HTTP_HEAD_BYTES_MAX);
    let closing = Closing::default();
    let service = TowerToHyperService::new(router.layer(axum::Extension(closing.clone())));
    let connection =
        clock::timeout(HTTP_CONNECTION_MAX, http.serve_connection(TokioIo::new(stream), service));
    // What a client sends wrong, or does not take, ends its own connection and nothing else.
    tokio::select! {
        ended = connection => if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "an HTTP connection ended");
        },
        () = closing.0.notified() => tracing::debug!("an HTTP connection took nothing and was closed"),
    }
}

/// Whether the request names this server by an address or as "localhost".
fn is_named_directly(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok()
        || host.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests;
