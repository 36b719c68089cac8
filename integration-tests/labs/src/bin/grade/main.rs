//! `grade`: runs the labs' tests on this store, replays failures, and shows them.
//!
//! Without a verb it runs tests: all of them, or those named by suite ("raft"), part ("3B"), id
//! ("R12") or original name ("TestBackup3B"). Exit 0: all passed; 1: something failed or could not
//! be decided; 2: wrong usage.

mod args;
mod check;
mod list;
mod live;
mod log;
mod play;
mod real;
mod results;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Args, Verb};

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.verb {
        Some(Verb::List(list)) => list::list(list),
        Some(Verb::Check(check)) => check::check(check),
        Some(Verb::Log(log)) => log::log(log),
        None => play::play(&args.play),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("grade: {error:#}");
            ExitCode::from(2)
        }
    }
}
