//! The project's own commands: what a person or a machine does with the whole of it.
//!
//! They find out what this machine lacks, put it there where they may, and otherwise say which command would. The work
//! itself is done by cargo and by the lab.
#![forbid(unsafe_code)]

mod ci;
mod demo;
mod failures;
mod lab_run;
mod process;
mod setup;
mod static_binary;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Profile a host with guests under known loads, and show what comes out.
    Demo {
        /// The host's hypervisor.
        #[arg(long, value_enum, default_value_t = demo::Hypervisor::Xen)]
        hypervisor: demo::Hypervisor,
        /// The folder for the pictures, the report and the recording [default: target/demo].
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Run all tests, those on real hypervisors included.
    Test {
        /// Also those whose hosts take many minutes.
        #[arg(long)]
        long: bool,
    },
    /// Real hypervisor hosts in QEMU.
    #[command(subcommand)]
    Lab(Lab),
    /// Everything that must hold before a change goes in.
    Ci,
}

#[derive(Subcommand)]
enum Lab {
    /// Boot a scenario's host and run its steps.
    Run {
        /// The scenario; docs/lab.md describes its format.
        scenario: PathBuf,
        /// The folder for all that comes of it.
        #[arg(long)]
        out: PathBuf,
        /// A program for the /usr/bin of dom0 or of the KVM host, linked statically, instead of xenoscope as it is now.
        #[arg(long)]
        program: Option<PathBuf>,
        /// Keep the images that the machine booted from.
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo { hypervisor, out } => demo::run(hypervisor, out),
        Command::Test { long } => test::run(long),
        Command::Lab(Lab::Run { scenario, out, program, keep }) => {
            lab_run::run(&scenario, out, program, keep)
        }
        Command::Ci => ci::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
