//! The pages, by their paths.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{HTTP_TURN_MAX, Observed, Pages, Shown, is_named_directly, metrics, ready};

const TEXT: &str = "text/plain; charset=utf-8";
/// The text format that Prometheus reads.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

const NO_ANSWER: &str = "the replica does not answer within 5 s: look at its log";
const NO_SUCH_PAGE: &str = "no such page: there are /metrics, /livez, /readyz?verbose, /v1/server and /v1/slow; of controllers also / and /v1/state";
const OTHER_NAME: &str = "this server answers to an IP address or to localhost; ask for it by one of them";

/// These pages, and `more`.
pub(super) fn router(pages: Arc<Pages>, more: Router) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(show_livez))
        .route("/readyz", get(show_readyz))
        .route("/v1/server", get(show_server))
        .with_state(pages)
        .merge(more)
        .fallback(async || answer(StatusCode::NOT_FOUND, TEXT, NO_SUCH_PAGE.to_owned()))
        .layer(middleware::from_fn(guard))
}

/// Refuses requests that name another host, and sets what every answer says.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_named_directly) {
        return answer(StatusCode::FORBIDDEN, TEXT, OTHER_NAME.to_owned());
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn answer(status: StatusCode, kind: &'static str, mut text: String) -> Response {
    if kind == TEXT && !text.ends_with('\n') {
        text.push('\n');
    }
    (status, [(CONTENT_TYPE, kind)], text).into_response()
}

/// Whether the query of `uri` has `name`, with or without a value.
fn asks(uri: &Uri, name: &str) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|part| part.split('=').next() == Some(name))
}

async fn show_metrics(State(pages): State<Arc<Pages>>, uri: Uri) -> Response {
    let Some(shown) = pages.shown().await else { return no_answer() };
    let server = &pages.server;
    let (requests, replica, moves) = (server.measures(), server.replica_measured(), server.moves());
    let measured = metrics::Measurements { requests, replica, moves };
    let text = metrics::text(&shown, &measured, asks(&uri, "shards"));
    answer(StatusCode::OK, METRICS, text)
}

/// Whether this process should go on: the loop of its replica turns.
async fn show_livez(State(pages): State<Arc<Pages>>) -> Response {
    let silent = pages.server.since_last_tick();
    if silent > HTTP_TURN_MAX {
        let text = format!(
            "the replica's loop has not turned for {} s: look at its log and its disk",
            silent.as_secs()
        );
        return answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
    }
    answer(StatusCode::OK, TEXT, "ok".to_owned())
}

/// Whether requests may be sent here.
async fn show_readyz(State(pages): State<Arc<Pages>>, uri: Uri) -> Response {
    let Some(shown) = pages.shown().await else { return no_answer() };
    let checks = ready::checks(&shown);
    let is_ready = checks.iter().all(ready::Check::holds);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, TEXT, ready::text(&checks, asks(&uri, "verbose")))
}

/// The status as JSON: what `clerk status` asks each server for.
async fn show_server(State(pages): State<Arc<Pages>>) -> Response {
    let Some(shown) = pages.shown().await else { return no_answer() };
    let json = match &*shown {
        Shown::Controller(status) => serde_json::to_string(status),
        Shown::Group(status) => serde_json::to_string(status),
    };
    match json {
        Ok(json) => answer(StatusCode::OK, JSON, json),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
    }
}

/// The slow requests of one server.
pub(super) fn own_slow(server: Arc<dyn Observed>, name: String) -> Router {
    let show = async move || {
        let slow = server.measures().slow();
        let slow: Vec<_> = slow.iter().map(|request| request.shown(&name)).collect();
        answer(StatusCode::OK, JSON, serde_json::json!({"slow": slow}).to_string())
    };
    Router::new().route("/v1/slow", get(show))
}

fn no_answer() -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, NO_ANSWER.to_owned())
}
