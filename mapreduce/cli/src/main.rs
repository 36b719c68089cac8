//! `mr`: MapReduce from the command line.
//!
//! Standard output carries the answer; everything else goes to standard error. Exit codes: 0 done,
//! 1 failed, 2 wrong usage, 130 Ctrl-C.

// Pairs are many small strings.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // A command that still runs must not keep the process alive.
    std::process::exit(mapreduce_cli::main(mapreduce_cli::find).await)
}
