//! `mr`: MapReduce from the command line.
//!
//! Standard output carries the answer, everything else goes to standard error. Exit codes: 0 done, 1 failed, 2 called
//! wrongly, 130 Ctrl-C.

mod cli;

use clap::Parser;

// Pairs are many small strings.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args = cli::Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(cli::perform(args));
            // A command that still runs must not hold the process.
            runtime.shutdown_background();
            result.unwrap_or_else(|error| {
                eprintln!("mr: {error:#}");
                if error.is::<cli::Usage>() { 2 } else { 1 }
            })
        }
        Err(error) => {
            eprintln!("mr: cannot start a runtime: {error}");
            1
        }
    };
    std::process::exit(code)
}
