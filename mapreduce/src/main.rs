//! `mr`: MapReduce from the command line.
//!
//! Standard output carries the answer, everything else goes to standard error. Exit codes: 0 done, 1 failed, 2 called
//! wrongly, 130 Ctrl-C.

mod cli;

use clap::Parser;

// Pairs are many small strings.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let code = cli::perform(cli::Args::parse()).await.unwrap_or_else(|error| {
        eprintln!("mr: {error:#}");
        if error.is::<cli::Usage>() { 2 } else { 1 }
    });
    // A command that still runs must not hold the process.
    std::process::exit(code)
}
