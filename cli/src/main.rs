//! The `xenoscope` command.
//!
//! Comes in: arguments. Goes out: an exit code (0 done, 1 error, 2 usage), results on stdout, the rest on stderr. Not
//! here: anything but wiring; each command is a file of its own.
#![forbid(unsafe_code)]

mod control;
mod copy;
mod cut;
mod diff;
mod doctor;
mod domains;
mod enrich;
mod export;
mod flamegraph;
mod gate;
mod generate;
mod images;
mod import;
mod info;
mod list;
mod merge;
mod output;
mod push;
mod quiet;
mod record;
mod redact;
mod report;
mod runs;
mod sampling;
mod symbols;
mod top;
mod unload;

use std::{env, ffi::OsString, process::ExitCode};

use clap::Parser;

/// The file that a recording goes to, and is read from, unless the user says otherwise.
const DEFAULT_RECORDING: &str = "xenoscope.xsr";

/// The command that this program starts itself with to have a guest's memory parsed.
const GUEST_PROCESS: &str = "look-into-guest";

/// What starts that: this program, whatever has become of its file meanwhile.
fn guest_process() -> Vec<OsString> {
    ["/proc/self/exe", GUEST_PROCESS].map(OsString::from).into()
}

/// Profiles the whole virtualization host: hypervisor, dom0, guest kernels and guest processes.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Record(record::Args),
    Top(top::Args),
    Report(report::Args),
    Diff(diff::Args),
    Gate(gate::Args),
    Export(export::Args),
    Import(import::Args),
    Push(push::Args),
    Generate(generate::Args),
    Info(info::Args),
    Mark(control::MarkArgs),
    Status(control::StatusArgs),
    Stop(control::StopArgs),
    Merge(merge::Args),
    Cut(cut::Args),
    Redact(redact::Args),
    Enrich(enrich::Args),
    Flamegraph(flamegraph::Args),
    Domains(domains::Args),
    Symbols(symbols::Args),
    List(list::Args),
    Doctor(doctor::Args),
    Quiet(quiet::Args),
    Unload(unload::Args),
}

fn main() -> ExitCode {
    // Before anything else is made ready: samples wait for its answers.
    let result = if env::args_os().nth(1).is_some_and(|argument| argument == GUEST_PROCESS) {
        collector::serve().map(|()| ExitCode::SUCCESS).map_err(Into::into)
    } else {
        run(Cli::parse().command)
    };
    result.unwrap_or_else(|error| {
        eprintln!("xenoscope: error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Record(args) => record::run(args),
        Command::Top(args) => top::run(args),
        Command::Report(args) => report::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Gate(args) => gate::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Push(args) => push::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Info(args) => info::run(args),
        Command::Mark(args) => control::mark(args),
        Command::Status(args) => control::status(args),
        Command::Stop(args) => control::stop(args),
        Command::Merge(args) => merge::run(args),
        Command::Cut(args) => cut::run(args),
        Command::Redact(args) => redact::run(args),
        Command::Enrich(args) => enrich::run(args),
        Command::Flamegraph(args) => flamegraph::run(args),
        Command::Domains(args) => domains::run(args),
        Command::Symbols(args) => symbols::run(args),
        Command::List(args) => list::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Quiet(args) => quiet::run(args),
        Command::Unload(args) => unload::run(args),
    }
}
