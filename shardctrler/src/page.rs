//! The page of the cluster, and what it shows and asks for: the routes that a controller adds to its
//! HTTP port (docs/operations.md).
//!
//! A controller looks at the whole cluster only while somebody watches, once a second, and all watchers
//! share what it saw (`watching`). It asks the servers as any client does, over connections of its
//! own, on the thread of the HTTP port: the thread that drives the replica takes no part.
//!
//! Changes are asked for as JSON and made by the code of the command line. A plan is free. To make one
//! a request must carry the admin token (`token`), come from the page itself if it comes from a page,
//! and be JSON, which no form of another site can send.
//!
//! Left out on purpose: users and their rights, and starting or stopping processes.

mod acts;
mod events;
mod openapi;
mod token;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base::clock;
use clerk::api::Address;
use clerk::connection::{Options, TarpcConnection};
use clerk_survey::page::{FILES, POLICY};
use clerk_survey::reach::{Reach, name};
use clerk_survey::refused::Refused;
use clerk_survey::watch::Watcher;
use raft::types::NodeId;
use serde_json::json;
use tokio::sync::Semaphore;

pub use self::token::{AdminToken, TokenError};
use self::watching::Watching;
use crate::service::Changes;

/// Bytes of the body of a request.
const BODY_BYTES_MAX: usize = 16 << 10;
/// How long a body may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(5);
/// Streams of events at once.
const STREAMS_MAX: usize = 10;
/// Plans and changes at once.
const ACTS_MAX: usize = 4;
/// How long a plan or a change takes at most.
const ACT_MAX: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";

/// What the page needs to know of its controller.
pub struct Settings {
    /// The cluster, and how it is reached.
    pub connection: Options,
    /// The controllers.
    pub members: BTreeMap<NodeId, Address>,
    /// Which of them this is.
    pub me: u64,
    /// Who may make changes; none: nobody.
    pub token: Option<AdminToken>,
    /// Tells when there is a new configuration.
    pub changes: Changes,
}

/// The page of a controller.
struct Site {
    reach: Reach,
    token: Option<AdminToken>,
    watching: Arc<Watching>,
    streams: Arc<Semaphore>,
    acts: Semaphore,
}

impl Site {
    fn new(settings: Settings) -> Self {
        let Settings { connection, members, me, token, changes } = settings;
        let ids = members.iter().map(|(id, address)| ((0, address.clone()), id.0)).collect();
        let reach = Reach {
            cluster: connection.cluster.clone(),
            connection: Arc::new(TarpcConnection::new(connection)),
            controllers: members.into_values().collect(),
            known: BTreeMap::new(),
            ids,
        };
        let watcher = Watcher::new(reach.clone(), name(0, me), token.is_some());
        Self {
            reach,
            token,
            watching: Arc::new(Watching::new(watcher, changes)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            acts: Semaphore::new(ACTS_MAX),
        }
    }
}

/// The routes. Made on the runtime that serves them: the connections to the servers live there, too.
pub fn routes(settings: Settings) -> Router {
    let mut router = Router::new()
        .route("/v1/state", get(show_state))
        .route("/v1/events", get(events::stream))
        .route("/v1/slow", get(show_slow))
        .route("/v1/openapi.json", get(show_openapi))
        .route("/v1/plan", post(acts::plan))
        .route("/v1/act", post(acts::act));
    for (place, file) in FILES.iter().enumerate() {
        let path = if place == 0 { "/".to_owned() } else { format!("/{}", file.name) };
        router = router.route(&path, get(async || shown(file.kind, file.text)));
    }
    router.with_state(Arc::new(Site::new(settings)))
}

/// An answer with what browsers have to keep to.
fn shown(kind: &'static str, text: impl IntoResponse) -> Response {
    let policy = (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    ([(CONTENT_TYPE, HeaderValue::from_static(kind)), policy], text).into_response()
}

/// Everything that is known of the cluster now.
async fn show_state(State(site): State<Arc<Site>>) -> Response {
    match site.watching.seen().await {
        Some(seen) => shown(JSON, seen.whole()),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, &unavailable()),
    }
}

/// The slow requests of all servers.
async fn show_slow(State(site): State<Arc<Site>>) -> Response {
    match site.watching.seen().await {
        Some(seen) => shown(JSON, seen.slow.to_string()),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, &unavailable()),
    }
}

async fn show_openapi() -> Response {
    shown(JSON, openapi::document().to_string())
}

fn unavailable() -> Refused {
    Refused::new("unavailable", "the cluster was not seen in time: try again")
}

/// A failure as docs/cli.md has it.
fn refuse(status: StatusCode, refused: &Refused) -> Response {
    let Refused { code, message, next, .. } = refused;
    let error = json!({"error": {"code": code, "message": message, "next": next}});
    (status, shown(JSON, error.to_string())).into_response()
}

/// A header as text.
fn header(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// When a request that begins now has to end.
fn until() -> clock::Instant {
    clock::now().after(ACT_MAX)
}

#[cfg(test)]
mod tests;
