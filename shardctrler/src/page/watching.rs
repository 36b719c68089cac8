//! One look at the cluster a second, for all who watch, and none while nobody does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use clerk_survey::watch::{Seen, Watcher};
use serde_json::Value;
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::service::Changes;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// The same, if a configuration was made meanwhile.
const PERIOD_MIN: Duration = Duration::from_millis(200);
/// How long it goes on after the last question: who asks each two seconds has rates, too.
const KEPT: Duration = Duration::from_secs(4);
/// What was seen this long ago is still now.
const NOW: Duration = Duration::from_millis(1200);
/// How long a question waits for the first look.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// What was seen, as text that all streams share.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    /// When.
    pub(super) at: Instant,
    /// Everything but the history and the past.
    pub(super) state: Arc<str>,
    /// The history. The same text as long as it is the same.
    pub(super) history: Arc<str>,
    /// The slow requests, likewise.
    pub(super) slow: Arc<str>,
    seen: Seen,
}

impl Texts {
    /// All of it in one document.
    pub(super) fn whole(&self) -> String {
        self.seen.whole().to_string()
    }

    /// The figures of the last minutes.
    pub(super) fn past(&self) -> String {
        self.seen.past.to_string()
    }
}

/// Whether the cluster is being looked at.
struct Asked {
    last: Instant,
    is_looking: bool,
}

pub(super) struct Watching {
    watcher: tokio::sync::Mutex<Watcher>,
    changes: Changes,
    texts: watch::Sender<Option<Texts>>,
    asked: Mutex<Asked>,
}

impl Watching {
    pub(super) fn new(watcher: Watcher, changes: Changes) -> Self {
        Self {
            watcher: tokio::sync::Mutex::new(watcher),
            changes,
            texts: watch::Sender::new(None),
            asked: Mutex::new(Asked { last: clock::now(), is_looking: false }),
        }
    }

    /// What is seen from now on: the cluster is looked at as long as somebody has such a receiver.
    pub(super) fn watch(self: &Arc<Self>) -> watch::Receiver<Option<Texts>> {
        let receiver = self.texts.subscribe();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.last = clock::now();
        if !asked.is_looking {
            asked.is_looking = true;
            let watching = Arc::clone(self);
            tokio::spawn(async move { watching.look().await }.in_current_span());
        }
        receiver
    }

    /// What is seen now. None: it takes too long.
    pub(super) async fn seen(self: &Arc<Self>) -> Option<Texts> {
        let mut receiver = self.watch();
        let is_now = |texts: &Option<Texts>| texts.as_ref().is_some_and(|texts| texts.at.elapsed() < NOW);
        let seen = clock::timeout(FIRST_MAX, receiver.wait_for(is_now)).await.ok()?.ok()?;
        seen.clone()
    }

    /// Looks until nobody watches.
    async fn look(&self) {
        let mut watcher = self.watcher.lock().await;
        let mut changes = self.changes.clone();
        let nothing = || (Arc::new(Value::Null), Arc::<str>::from(""));
        let (mut history, mut slow) = (nothing(), nothing());
        loop {
            let begun = clock::now();
            let seen = watcher.look().await;
            renew(&mut history, &seen.history);
            renew(&mut slow, &seen.slow);
            let state = Arc::from(seen.state.to_string());
            let (history, slow) = (Arc::clone(&history.1), Arc::clone(&slow.1));
            let texts = Texts { at: clock::now(), state, history, slow, seen };
            self.texts.send_replace(Some(texts));
            let rest = async {
                clock::sleep(PERIOD_MIN.saturating_sub(begun.elapsed())).await;
                tokio::select! {
                    () = clock::sleep(PERIOD.saturating_sub(begun.elapsed())) => {}
                    () = changes.next() => {}
                }
            };
            rest.await;
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if self.texts.receiver_count() == 0 && asked.last.elapsed() > KEPT {
                asked.is_looking = false;
                return;
            }
        }
    }
}

/// Makes the text anew if the value is another one.
fn renew(text: &mut (Arc<Value>, Arc<str>), value: &Arc<Value>) {
    if !Arc::ptr_eq(&text.0, value) {
        *text = (Arc::clone(value), Arc::from(value.to_string()));
    }
}
