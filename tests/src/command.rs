//! Runs the few programs of this machine that the lab relies on.

use std::io::ErrorKind;
use std::process::{Command, Output};

use anyhow::{Result, bail};

/// Runs a program to its end; when it is missing, the error says which command `mends` that.
pub(crate) fn output(command: &mut Command, mends: &str) -> Result<Output> {
    match command.output() {
        Ok(output) => Ok(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{} is missing: run `{mends}`", name(command))
        }
        Err(error) => bail!("cannot run {}: {error}", name(command)),
    }
}

/// Runs a program that must succeed, and hands back its standard output.
pub(crate) fn stdout(command: &mut Command, mends: &str) -> Result<Vec<u8>> {
    let output = output(command, mends)?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            name(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(output.stdout)
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
