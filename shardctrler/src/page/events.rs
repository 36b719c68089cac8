//! The stream of what is seen (server-sent events): a state each second, and at once when there is a new
//! configuration.
//!
//! A stream holds one message at most. A reader that is slower gets the newest state next, and misses
//! those in between; one that takes nothing for a while is closed.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base::clock;
use clerk_survey::refused::Refused;
use futures::stream;
use host::Closing;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::watching::Texts;
use super::{STREAMS_MAX, Site, refuse, shown};

/// A reader that takes nothing for this long is closed.
const STALL_MAX: Duration = Duration::from_secs(10);
/// When a browser connects again, in milliseconds.
const RETRY_MILLIS: u32 = 1000;

pub(super) async fn stream(
    State(site): State<Arc<Site>>,
    Extension(closing): Extension<Closing>,
) -> Response {
    let Ok(place) = Arc::clone(&site.streams).try_acquire_owned() else {
        let message = format!("{STREAMS_MAX} streams are open already: ask for /v1/state instead");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &Refused::new("busy", message));
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(feed(site.watching.watch(), sender, closing, place));
    let messages = stream::unfold(receiver, |mut receiver| async {
        let message: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(message), receiver))
    });
    shown("text/event-stream", Body::from_stream(messages))
}

/// Sends what is new until the reader goes away.
async fn feed(
    mut texts: watch::Receiver<Option<Texts>>,
    sender: mpsc::Sender<Bytes>,
    closing: Closing,
    _place: OwnedSemaphorePermit,
) {
    let (mut history, mut slow): (Option<Arc<str>>, Option<Arc<str>>) = (None, None);
    loop {
        let seen = texts.borrow_and_update().clone();
        if let Some(seen) = seen {
            let mut message = String::new();
            if history.is_none() {
                let _ = writeln!(message, "retry: {RETRY_MILLIS}");
                event(&mut message, "past", &seen.past());
            }
            for (name, sent, text) in
                [("history", &mut history, &seen.history), ("slow", &mut slow, &seen.slow)]
            {
                if !sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, text)) {
                    event(&mut message, name, text);
                    *sent = Some(Arc::clone(text));
                }
            }
            event(&mut message, "state", &seen.state);
            match clock::timeout(STALL_MAX, sender.send(Bytes::from(message))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return closing.close(),
            }
        }
        tokio::select! {
            changed = texts.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

/// JSON has no line breaks, which would end the message.
fn event(message: &mut String, name: &str, json: &str) {
    let _ = write!(message, "event: {name}\ndata: {json}\n\n");
}
