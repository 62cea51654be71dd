//! `xenoscope import`: what perf has sampled.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use symbolizer::SymbolTable;

use crate::{DEFAULT_RECORDING, output::Output};

/// Make a recording of a perf.data, such as `perf kvm record` writes
///
/// A process with samples in guest mode is a virtual machine: what its guest did, what the host did for it and what the
/// rest of it did are told apart as in any recording.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perf kvm --host --guest record -a -o perf.data.kvm sleep 10
  xenoscope import perf.data.kvm --kallsyms /proc/kallsyms --guest-kallsyms web.kallsyms -o kvm.xsr")]
pub(crate) struct Args {
    /// The perf.data
    #[arg(value_name = "PERF_DATA")]
    input: PathBuf,

    /// Where the recording goes
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_RECORDING)]
    output: PathBuf,

    /// The symbols of the host's kernel (kallsyms, System.map)
    #[arg(long, value_name = "FILE")]
    kallsyms: Option<PathBuf>,

    /// The symbols of the guests' kernel, which all of them run
    #[arg(long, value_name = "FILE")]
    guest_kallsyms: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let host = args.kallsyms.as_deref().map(symbols).transpose()?;
    let guest = args.guest_kallsyms.as_deref().map(symbols).transpose()?;
    let name = |table: &Option<SymbolTable>, address: u64| {
        let symbol = table.as_ref()?.lookup(address)?;
        Some((symbolizer::demangle(symbol.name).into_owned(), symbol.start))
    };
    let file = args.input.display();
    let input = File::open(&args.input).with_context(|| format!("could not open {file}"))?;
    let output = Output::open(&args.output)?;
    let host_kernel = |address| name(&host, address);
    let guest_kernel = |address| name(&guest, address);
    let (imported, _) = formats::import_perf(BufReader::new(input), &host_kernel, &guest_kernel, output)
        .with_context(|| format!("could not take in {file}"))?;
    let formats::Imported { samples, skipped, guests } = imported;
    eprintln!("xenoscope: {samples} samples, {guests} guests: {}", args.output.display());
    if skipped > 0 {
        eprintln!("xenoscope: {skipped} samples without address or time were left out");
    }
    Ok(ExitCode::SUCCESS)
}

fn symbols(path: &Path) -> anyhow::Result<SymbolTable> {
    let file = || format!("the symbols in {}", path.display());
    let text = std::fs::read(path).with_context(file)?;
    SymbolTable::from_kallsyms(&text).with_context(file)
}
