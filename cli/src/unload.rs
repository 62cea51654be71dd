//! `xenoscope unload`: the shim goes.

use std::process::ExitCode;

use crate::record;

/// Take a shim out of the hypervisor that a collector has left behind
///
/// Refused while a collector uses it: end that one instead.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xenoscope unload          exits with 0 too if there is no shim")]
pub(crate) struct Args {}

pub(crate) fn run(Args {}: Args) -> anyhow::Result<ExitCode> {
    match hv_shim::unload()? {
        Some((stopped, about)) => {
            eprintln!("xenoscope: the shim was taken out ({about})");
            record::tell_pause("out", stopped.pause);
        }
        None => eprintln!("xenoscope: there is no shim in this hypervisor"),
    }
    Ok(ExitCode::SUCCESS)
}
