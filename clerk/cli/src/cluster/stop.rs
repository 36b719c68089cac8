//! Stopping servers, kindly and otherwise.

use std::time::Duration;

use base::clock::{self, Instant};
use rustix::process::Signal;
use serde_json::json;

use crate::args::{self, Name};
use crate::context::Context;
use crate::failure::Failure;
use crate::local::{Directory, process};

const PERIOD: Duration = Duration::from_millis(20);
/// A server that has not stopped by then is killed: it has nothing to lose.
const KINDNESS: Duration = Duration::from_secs(10);
const KILLED: Duration = Duration::from_secs(30);

pub(crate) async fn down(context: &Context, down: &args::Down) -> Result<(), Failure> {
    let directory = Directory::new(&context.directory);
    let until = context.settle_until();
    // A directory is made only where there is something to be stopped.
    let lock = if directory.path().exists() { Some(directory.lock(until).await?) } else { None };
    let cluster = match directory.load_or_find(context.output) {
        Err(failure) if failure.code == "no_cluster" => {
            // Nothing runs, and nothing is there to be deleted, any more.
            let document = json!({"stopped": [], "purged": down.purge});
            context.output.answer(&document, || "nothing runs\n".to_owned());
            return Ok(());
        }
        cluster => cluster?,
    };
    let names =
        if down.names.is_empty() { cluster.select(&[Name::All])? } else { cluster.select(&down.names)? };
    let stopped = stop(context, &directory, &names, until).await?;
    if down.purge {
        // What belongs to a cluster is known from its file alone.
        directory.load().map_err(|failure| {
            let message = format!("stopped {}, and deleted nothing: {}", stopped.join(" "), failure.message);
            Failure { message, ..failure }
        })?;
        directory.purge(cluster)?;
        directory.vanish();
    }
    drop(lock);
    context.output.answer(&json!({"stopped": stopped, "purged": down.purge}), || {
        let mut text = if stopped.is_empty() {
            "nothing runs\n".to_owned()
        } else {
            format!("stopped {}\n", stopped.join(" "))
        };
        if down.purge {
            text += &format!("deleted the data in {}\n", directory.path().display());
        }
        text
    });
    Ok(())
}

pub(super) async fn stop(
    context: &Context,
    directory: &Directory,
    names: &[String],
    until: Instant,
) -> Result<Vec<String>, Failure> {
    let mut asked = Vec::new();
    for name in names {
        if process::signal(&directory.of(name), Signal::TERM)? {
            asked.push(name.clone());
        }
    }
    let kindness = until.since(clock::now()).min(KINDNESS);
    if !wait_until_gone(directory, &asked, kindness).await.is_empty() {
        let stubborn = wait_until_gone(directory, &asked, Duration::ZERO).await;
        context.output.note(format!("killing what does not stop: {}", stubborn.join(" ")));
        for name in &stubborn {
            process::signal(&directory.of(name), Signal::KILL)?;
        }
        gone(directory, &stubborn).await?;
    }
    Ok(asked)
}

pub(crate) async fn kill(context: &Context, names: &args::Names) -> Result<(), Failure> {
    let directory = Directory::new(&context.directory);
    let names = directory.load_or_find(context.output)?.select(&names.names)?;
    let mut killed = Vec::new();
    for name in &names {
        if process::signal(&directory.of(name), Signal::KILL)? {
            killed.push(name.clone());
        }
    }
    gone(&directory, &killed).await?;
    if killed.is_empty() {
        let failure = Failure::new("not_running", format!("not running: {}", names.join(" ")));
        return Err(failure.next("`clerk status` shows what runs"));
    }
    context.output.answer(&json!({"killed": killed}), || format!("killed {}\n", killed.join(" ")));
    Ok(())
}

async fn gone(directory: &Directory, names: &[String]) -> Result<(), Failure> {
    let left = wait_until_gone(directory, names, KILLED).await;
    if left.is_empty() {
        Ok(())
    } else {
        Err(Failure::new("io", format!("killed, but still there: {}", left.join(" "))))
    }
}

/// Waits until nobody holds the directories of `names`; those still held after `limit`.
async fn wait_until_gone(directory: &Directory, names: &[String], limit: Duration) -> Vec<String> {
    let until = clock::now().after(limit);
    loop {
        let held = names.iter().filter(|name| process::holder(&directory.of(name)).is_some());
        let held: Vec<String> = held.cloned().collect();
        if held.is_empty() || clock::now() >= until {
            return held;
        }
        clock::sleep(PERIOD).await;
    }
}
