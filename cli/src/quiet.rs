//! `xenoscope quiet`: no samples, though the shim stays.

use std::process::ExitCode;

/// Have a shim in the hypervisor take no samples any more, whoever uses it
///
/// For a shim that can't be taken out, because another livepatch was applied on top of it. It does nothing from then
/// on, until it is taken out; a recording that uses it goes on without samples.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xenoscope quiet           exits with 0 too if there is no shim")]
pub(crate) struct Args {}

pub(crate) fn run(Args {}: Args) -> anyhow::Result<ExitCode> {
    match hv_shim::quiet()? {
        Some(about) => eprintln!("xenoscope: the shim was told to be quiet ({about})"),
        None => eprintln!("xenoscope: there is no shim in this hypervisor"),
    }
    Ok(ExitCode::SUCCESS)
}
