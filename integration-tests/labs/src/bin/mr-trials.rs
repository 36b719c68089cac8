//! `mr` with the apps of the labs' tests in its table: what the tests of MapReduce run on real processes.

use labs::lab::mapreduce::trials;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    std::process::exit(mapreduce_cli::main(trials::find).await)
}
