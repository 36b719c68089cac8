//! Changes that are asked for over HTTP: the plan for everybody, the act for those who have the token.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base::clock;
use clerk_survey::act::Act;
use clerk_survey::refused::Refused;
use serde_json::Value;

use super::{BODY_BYTES_MAX, BODY_MAX, JSON, Site, header, refuse, shown, until};

type Failed = (StatusCode, Refused);

/// What it would make.
pub(super) async fn plan(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Response {
    let planned = async {
        may_ask(&headers)?;
        let act = read(&headers, body).await?;
        let _place = place(&site)?;
        act.plan(&site.reach, until()).await.map_err(failed)
    };
    answer(planned.await)
}

/// Makes it.
pub(super) async fn act(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Response {
    let made = async {
        may_ask(&headers)?;
        may_act(&site, &headers)?;
        let act = read(&headers, body).await?;
        let _place = place(&site)?;
        let made = act.make(&site.reach, until()).await;
        let (asked, outcome) = (act.words(), made.as_ref().map(|made| made["config"].clone()));
        match outcome {
            Ok(config) => tracing::info!(asked, %config, "a change was asked for over HTTP and made"),
            Err(refused) => tracing::warn!(asked, why = refused.message, "a change was asked for over HTTP"),
        }
        made.map_err(failed)
    };
    answer(made.await)
}

fn answer(result: Result<Value, Failed>) -> Response {
    match result {
        Ok(document) => shown(JSON, document.to_string()),
        Err((status, refused)) => refuse(status, &refused),
    }
}

fn failed(refused: Refused) -> Failed {
    let status = match refused.code {
        "usage" => StatusCode::BAD_REQUEST,
        "unavailable" | "unknown" | "busy" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    (status, refused)
}

fn place(site: &Site) -> Result<tokio::sync::SemaphorePermit<'_>, Failed> {
    let busy = || failed(Refused::new("busy", "too many changes at once, nothing was done: try again"));
    site.acts.try_acquire().map_err(|_| busy())
}

/// A page may ask only the server that it came from.
fn may_ask(headers: &HeaderMap) -> Result<(), Failed> {
    let Some(origin) = header(headers, ORIGIN) else {
        // Browsers say where a page came from, other programs need not.
        return if headers.contains_key(ORIGIN) { Err(foreign()) } else { Ok(()) };
    };
    let host = header(headers, HOST).unwrap_or_default();
    let is_own = origin.strip_prefix("http://").is_some_and(|own| own.eq_ignore_ascii_case(host));
    if is_own { Ok(()) } else { Err(foreign()) }
}

fn foreign() -> Failed {
    let message = "this request comes from a page of another origin, nothing was done";
    let next = "open the page of this controller, and ask from there";
    (StatusCode::FORBIDDEN, Refused::new("origin", message).next(next))
}

/// Only who has the token may change something.
fn may_act(site: &Site, headers: &HeaderMap) -> Result<(), Failed> {
    let Some(token) = &site.token else {
        let message = "this controller was started without --admin-token: it shows, and changes nothing";
        let refused =
            Refused::new("read_only", message).next("use the command line, or start it with a token");
        return Err((StatusCode::FORBIDDEN, refused));
    };
    if header(headers, AUTHORIZATION).is_some_and(|given| token.is_in(given)) {
        return Ok(());
    }
    let refused = Refused::new("token", "the admin token is missing or wrong, nothing was done")
        .next("send `Authorization: Bearer TOKEN` with the text of the controller's --admin-token file");
    Err((StatusCode::UNAUTHORIZED, refused))
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Act, Failed> {
    let kind = header(headers, CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(JSON) {
        let refused = Refused::new("usage", format!("the body must be of type {JSON}, nothing was done"));
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, refused));
    }
    let bytes = match clock::timeout(BODY_MAX, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!("the body is not complete or has more than {BODY_BYTES_MAX} bytes");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, Refused::new("usage", message)));
        }
        Err(_) => {
            let refused = Refused::new("usage", "the body did not arrive in time");
            return Err((StatusCode::REQUEST_TIMEOUT, refused));
        }
    };
    Act::read(&bytes).map_err(failed)
}
