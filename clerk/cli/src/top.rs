//! `top`: the cluster in a terminal, live: what is wrong, who leads, how fast it is, what moves.
//!
//! It looks at the cluster each second, by the same code as the page that controllers show
//! (`clerk_survey::watch`). A task looks; another waits for keys and signals and draws. So a key is
//! obeyed at once, also while a server hangs. Where nobody looks on (a pipe, a file) it prints one frame
//! and ends.
//!
//! `frame` makes lines out of a document, of `line`s and `table`s; `keys` says what was typed;
//! `screen` is the terminal.
//!
//! Left out on purpose: changes. They have verbs, and the page.

mod figures;
mod frame;
mod keys;
mod line;
mod screen;
mod servers;
mod table;

use std::time::Duration;

use base::clock::{self, Instant};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::frame::{Order, View};
use self::keys::{Decoder, Key};
use self::screen::Screen;
use crate::context::Context;
use crate::failure::{Failure, interrupted};
use crate::survey::{PERIOD, seen, watcher};

/// Columns of a frame that goes elsewhere than to a terminal.
const WIDE: usize = 120;
/// An Esc of which nothing follows for so long is the key, and not the begin of an arrow.
const ESCAPE_MAX: Duration = Duration::from_millis(60);

pub(crate) async fn top(context: &Context) -> Result<(), Failure> {
    if context.output.is_json() || !screen::is_there() {
        let document = seen(context).await?;
        let view = View { document: Some(&document), ..View::default() };
        context.output.answer(&document, || frame::whole(&view, WIDE));
        return Ok(());
    }
    live(context).await
}

/// What was seen last.
#[derive(Clone, Default)]
struct Looked {
    document: Option<std::sync::Arc<Value>>,
    /// Why there is none.
    why: Option<String>,
    at: Option<Instant>,
}

/// Looks each second until nobody wants to know any more.
async fn look(context: Context, looks: watch::Sender<Looked>) -> Failure {
    let reach = loop {
        match context.anew().reach_what_runs().await {
            Ok(reach) => break reach,
            Err(failure) if failure.code == "unavailable" => {
                let looked = Looked { why: Some(failure.message), ..Looked::default() };
                looks.send_replace(looked);
                clock::sleep(PERIOD).await;
            }
            Err(failure) => return failure,
        }
    };
    let mut watcher = watcher(&reach);
    loop {
        let begun = clock::now();
        let document = Some(watcher.look().await.state);
        looks.send_replace(Looked { document, why: None, at: Some(clock::now()) });
        clock::sleep(PERIOD.saturating_sub(begun.elapsed())).await;
    }
}

/// Shows what is seen, until a key or a signal ends it.
async fn live(context: &Context) -> Result<(), Failure> {
    let (sender, mut looked) = watch::channel(Looked::default());
    let mut looker = tokio::spawn(look(context.anew(), sender));
    let signal =
        |kind| signal(kind).map_err(|error| Failure::new("io", format!("cannot wait for signals: {error}")));
    let mut resized = signal(SignalKind::window_change())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut suspended = signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?;
    let mut resumed = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    let screen = Screen::open()?;
    let mut typed = screen::typed();
    let (mut decoder, mut shown) = (Decoder::default(), Shown::default());
    loop {
        shown.draw(&screen, &looked.borrow_and_update().clone())?;
        let keys = tokio::select! {
            ended = &mut looker => {
                let failure = ended.unwrap_or_else(|error| Failure::new("io", format!("cannot look: {error}")));
                return Err(failure);
            }
            keys = next(&mut typed, &mut decoder) => keys,
            _ = terminated.recv() => return Err(interrupted()),
            _ = hung_up.recv() => return Err(interrupted()),
            _ = suspended.recv() => { screen.suspend(); Vec::new() }
            _ = resumed.recv() => { screen.resume()?; Vec::new() }
            _ = resized.recv() => Vec::new(),
            _ = looked.changed() => Vec::new(),
            () = clock::sleep(PERIOD) => Vec::new(),
        };
        for key in keys {
            if key == Key::Quit {
                looker.abort();
                return Ok(());
            }
            shown.obey(key);
        }
    }
}

/// The next keys. A keyboard that is closed has none, ever.
async fn next(typed: &mut mpsc::Receiver<Vec<u8>>, decoder: &mut Decoder) -> Vec<Key> {
    let bytes = if decoder.is_amid() {
        match clock::timeout(ESCAPE_MAX, typed.recv()).await {
            Ok(bytes) => bytes,
            Err(_) => return decoder.end(),
        }
    } else {
        typed.recv().await
    };
    match bytes {
        Some(bytes) => decoder.take(&bytes),
        None => std::future::pending().await,
    }
}

/// The part of it that is on the screen.
#[derive(Default)]
struct Shown {
    order: Order,
    scroll: usize,
    scroll_max: usize,
    page: usize,
}

impl Shown {
    fn draw(&mut self, screen: &Screen, looked: &Looked) -> Result<(), Failure> {
        let (width, height) = screen.size();
        let age = looked.at.map_or(0.0, |at| at.elapsed().as_secs_f64());
        let (document, why) = (looked.document.as_deref(), looked.why.as_deref());
        let view = View { document, why, age, order: self.order };
        let frame = frame::frame(&view, width, height, self.scroll);
        (self.scroll, self.scroll_max, self.page) = (frame.scroll, frame.scroll_max, frame.page);
        screen.draw(&frame.lines)
    }

    fn obey(&mut self, key: Key) {
        let page = self.page.max(1);
        self.scroll = match key {
            Key::Quit => self.scroll,
            Key::Up => self.scroll.saturating_sub(1),
            Key::Down => self.scroll + 1,
            Key::PageUp => self.scroll.saturating_sub(page),
            Key::PageDown => self.scroll + page,
            Key::First => 0,
            Key::Last => self.scroll_max,
            Key::Sort => {
                self.order = self.order.next();
                self.scroll
            }
        }
        .min(self.scroll_max);
    }
}
