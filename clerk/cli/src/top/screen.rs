//! The terminal: taken, drawn on, and given back as it was, whatever ends the program.
//!
//! Ctrl-C and Ctrl-Z stay signals, so they work while nobody reads keys.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::sync::{Mutex, Once, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;

use super::line::Line;
use crate::failure::Failure;

/// Another screen, no cursor, no line that goes on in the next one; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Of a terminal that does not say how large it is.
const SIZE: (usize, usize) = (80, 24);
/// Keys that were typed and not yet obeyed.
const TYPED_MAX: usize = 16;

/// What must be given back: nothing, or the modes of the keyboard if there is one.
static TAKEN: Mutex<Option<Option<Termios>>> = Mutex::new(None);

/// Whether somebody looks on who can see a frame replace the one before.
pub(super) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

/// The terminal while it is taken.
pub(super) struct Screen {
    is_coloured: bool,
}

impl Screen {
    pub(super) fn open() -> Result<Self, Failure> {
        give_back_before_a_panic_is_told();
        let screen = Self { is_coloured: std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()) };
        enter()?;
        Ok(screen)
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => SIZE,
        }
    }

    /// Replaces what is shown. Lines are not erased first: nothing flickers.
    pub(super) fn draw(&self, lines: &[Line]) -> Result<(), Failure> {
        let lines: Vec<String> = lines.iter().map(|line| line.drawn(self.is_coloured) + "\x1b[K").collect();
        write(&format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
    }

    /// Stops, as the one who typed Ctrl-Z expects.
    pub(super) fn suspend(&self) {
        leave();
        let _ = kill_process(getpid(), Signal::STOP);
    }

    /// Takes the terminal again. A shell may have used it meanwhile.
    pub(super) fn resume(&self) -> Result<(), Failure> {
        enter()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> Result<(), Failure> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let keyboard = match taken.take() {
        Some(keyboard) => keyboard,
        None => tcgetattr(io::stdin()).ok(),
    };
    *taken = Some(keyboard.clone());
    if let Some(mut modes) = keyboard {
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN);
        modes.input_modes.remove(InputModes::IXON);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Drain, &modes)
            .map_err(|error| Failure::new("io", format!("cannot take the terminal: {error}")))?;
    }
    write(ENTER)
}

/// Gives the terminal back; nothing if it is not taken.
fn leave() {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(keyboard) = taken.take() {
        let _ = write(LEAVE);
        if let Some(modes) = keyboard {
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &modes);
        }
    }
}

/// On the other screen nobody would see why.
fn give_back_before_a_panic_is_told() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            leave();
            told(info);
        }));
    });
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new("io", format!("cannot write to the terminal: {error}")))
}

/// What is typed from here on: nothing if there is no keyboard.
pub(super) fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (sender, typed) = mpsc::channel(TYPED_MAX);
    if io::stdin().is_terminal() {
        // A thread of its own: a read of a terminal lasts until somebody types.
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            loop {
                match io::stdin().lock().read(&mut bytes) {
                    Ok(0) => return,
                    Ok(count) if sender.blocking_send(bytes[..count].to_vec()).is_err() => return,
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
                    _ => {}
                }
            }
        });
    }
    typed
}
