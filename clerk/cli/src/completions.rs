//! Completions of the command line, for shells.

use clap::CommandFactory;

use crate::args::{Args, Completions};
use crate::context::Context;
use crate::failure::Failure;

pub(crate) fn completions(context: &Context, completions: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Args::command(), "clerk", &mut script);
    context.output.bytes(&script);
    Ok(())
}
