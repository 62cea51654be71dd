//! `xenoscope redact`: a recording that can be given away.

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;
use profile::{
    Domain,
    recording::{Recording, Selection},
};

use crate::{DEFAULT_RECORDING, copy};

/// Take names out of a recording, so that it can be given away
///
/// Processes, containers, modules and functions of the domains named get numbers instead, the same for the same, and lose
/// their addresses; the command that was recorded loses its arguments. Domains keep their names.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope redact --domain web -o public.xsr         one tenant's
  xenoscope redact --all -o public.xsr                everybody's but the hypervisor's")]
pub(crate) struct Args {
    /// The recording
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    input: PathBuf,

    /// Where the redacted recording goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Whose names are taken out; may be given more than once
    #[arg(short, long = "domain", value_name = "NAME|ID", required_unless_present = "all")]
    domains: Vec<String>,

    /// Take all domains' names out
    #[arg(long, conflicts_with = "domains")]
    all: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let known = Recording::open(&args.input)?.for_all_samples(|_, _| ())?;
    for wanted in &args.domains {
        let there = known.tables.domains().any(|domain| domain.is_called(wanted));
        ensure!(there, "no domain {wanted:?} in this recording");
    }
    let redacted = |domain: &Domain| args.all || args.domains.iter().any(|wanted| domain.is_called(wanted));
    let selection = Selection { redacted: Some(&redacted), ..Selection::default() };
    let mut header = known.header.clone();
    if let Some(command) = &mut header.command {
        command.truncate(1);
        command.push("[redacted]".to_owned());
    }
    copy::whole(&args.input, &args.output, &header, &selection)?;
    Ok(ExitCode::SUCCESS)
}
