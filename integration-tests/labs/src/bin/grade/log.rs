//! `grade log DIR`.

use std::io::{IsTerminal as _, stdout};

use anyhow::anyhow;
use report::columns::{self, Filter, Layout};
use report::directory;

use super::args::Log;

pub(super) fn log(args: &Log) -> anyhow::Result<bool> {
    let recording = directory::read(&args.directory)?;
    let filter = Filter::parse(args.topic.as_deref(), args.server.as_deref(), args.term.as_deref());
    let filter = filter.map_err(|why| anyhow!(why))?;
    let layout = Layout { width: columns::terminal_width(), colour: stdout().is_terminal() };
    match columns::write(stdout().lock(), &recording, &filter, layout) {
        // A pager that was closed.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        outcome => Ok(outcome.map(|()| true)?),
    }
}
