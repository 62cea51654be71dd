//! `xenoscope generate`: what belongs to a package of this program, made from its own arguments.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Command, CommandFactory};

use crate::{Cli, report};

/// Write completions for a shell, or the manual pages
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope generate completions bash > /etc/bash_completion.d/xenoscope
  xenoscope generate man --output-dir /usr/share/man/man1")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write a shell's completions to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command
    Man {
        /// Where they go
        #[arg(long, value_name = "DIR", default_value = ".")]
        output_dir: PathBuf,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    match args.what {
        What::Completions { shell } => {
            // It takes a pipe that is closed for a reason to panic.
            let mut completions = Vec::new();
            clap_complete::generate(shell, &mut command, "xenoscope", &mut completions);
            return report::finish(io::stdout().write_all(&completions));
        }
        What::Man { output_dir } => {
            command.build();
            let folder = || format!("{} can't be written", output_dir.display());
            fs::create_dir_all(&output_dir).with_context(folder)?;
            clap_mangen::generate_to(shown(command), &output_dir).with_context(folder)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The command as its manual shows it.
fn shown(command: Command) -> Command {
    command.disable_help_subcommand(true)
}
