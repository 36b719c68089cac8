//! `clerk`: the command line of the cluster.
//!
//! One verb per call. Standard output carries only the answer, as a table or text for people or as
//! one JSON document for programs. Everything else (progress, warnings, what is waited for) goes to
//! standard error. The exit code shows the outcome (docs/cli.md, the contract for scripts).
//!
//! Left out on purpose: a shell with many commands in one connection, and settings in files.

mod admin;
mod args;
mod bench;
mod bulk;
mod check;
mod cluster;
mod completions;
mod context;
mod escape;
mod failure;
mod keys;
mod local;
mod log_level;
mod lost;
mod moves;
mod output;
mod page;
mod placing;
mod records;
mod recover;
mod settle;
mod slow;
mod sort;
mod status;
mod survey;
mod top;
mod verify;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::args::{Args, Verb};
use self::context::Context;
use self::failure::Failure;
use self::output::Output;

// Requests, rows and messages are many small pieces, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => output::end_with_usage(&error),
    };
    let output = Output::new(args.output);
    // One thread: it is faster for a closed loop on a machine that also runs the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(args, output));
            // A thread that reads standard input must not hold the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::new("io", format!("cannot start a runtime: {error}"))),
    };
    std::process::exit(match result {
        Ok(()) => 0,
        Err(failure) => output.failure(&failure),
    })
}

async fn run(args: Args, output: Output) -> Result<(), Failure> {
    // The load generator handles signals itself, so that its record is complete.
    if matches!(args.verb, Verb::Bench(_)) {
        return perform(args, output).await;
    }
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| Failure::new("io", format!("cannot wait for signals: {error}")))?;
    tokio::select! {
        biased;
        _ = interrupt.recv() => Err(failure::interrupted()),
        result = perform(args, output) => result,
    }
}

async fn perform(args: Args, output: Output) -> Result<(), Failure> {
    let context = Context::new(&args, output);
    match args.verb {
        Verb::Up(up) => cluster::up(&context, &up).await,
        Verb::Down(down) => cluster::down(&context, &down).await,
        Verb::AddGroup(add) => cluster::add_group(&context, &add).await,
        Verb::Kill(names) => cluster::kill(&context, &names).await,
        Verb::Start(names) => cluster::start(&context, &names).await,
        Verb::Logs(logs) => cluster::logs(&context, &logs),
        Verb::Check(check) => check::check(&context, &check),
        Verb::Get(get) => keys::get(&context, &get).await,
        Verb::Put(put) => keys::put(&context, &put).await,
        Verb::Append(append) => keys::append(&context, &append).await,
        Verb::Delete(delete) => keys::delete(&context, &delete).await,
        Verb::Load(load) => bulk::load(&context, &load).await,
        Verb::Dump => bulk::dump(&context).await,
        Verb::Verify(verify) => verify::verify(&context, &verify).await,
        Verb::Join(join) => admin::join(&context, &join).await,
        Verb::Leave(leave) => admin::leave(&context, &leave).await,
        Verb::Move(give) => admin::give(&context, &give).await,
        Verb::Weight(weight) => placing::weight(&context, &weight).await,
        Verb::Pin(pin) => placing::pin(&context, &pin).await,
        Verb::Unpin(unpin) => placing::unpin(&context, &unpin).await,
        Verb::Balance(balance) => placing::balance(&context, &balance).await,
        Verb::MoveRate(verb) => placing::move_rate(&context, &verb).await,
        Verb::DeclareLost(verb) => lost::declare_lost(&context, &verb).await,
        Verb::Query(query) => admin::query(&context, &query).await,
        Verb::History => admin::history(&context).await,
        Verb::LogLevel(verb) => log_level::log_level(&context, &verb).await,
        Verb::Slow => slow::slow(&context).await,
        Verb::Status => status::status(&context).await,
        Verb::Top => top::top(&context).await,
        Verb::Page(verb) => page::page(&context, &verb).await,
        Verb::Moves(verb) => moves::moves(&context, &verb).await,
        Verb::RecoverControllers(verb) => recover::recover_controllers(&context, &verb).await,
        Verb::Bench(bench) => bench::bench(&context, &bench).await,
        Verb::Completions(completions) => completions::completions(&context, &completions),
    }
}
