//! `xenoscope doctor`: what this host allows, and what to do about the rest.

use std::{io::Write, process::ExitCode};

use analysis::Visible;
use anstyle::{AnsiColor, Style};
use hv_shim::{Check, Outcome};
use serde_json::json;

/// Check what this host allows, and say what to do about each lack
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xenoscope doctor          exits with 1 if something stands in the way of `xenoscope record`")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let checks = hv_shim::doctor();
    let mut out = anstream::stdout().lock();
    if args.json {
        let rows: Vec<_> = checks.iter().map(row).collect();
        writeln!(out, "{:#}", json!({ "schema": 1, "checks": rows }))?;
    } else {
        for check in &checks {
            let (color, word) = (color(check.outcome), word(check.outcome));
            writeln!(out, "{color}{word:<4}{color:#}  {}: {}", check.name, Visible(&check.found))?;
            if let Some(advice) = &check.advice {
                writeln!(out, "      → {advice}")?;
            }
        }
    }
    let blocked = checks.iter().any(|check| check.outcome == Outcome::Fail);
    Ok(if blocked { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "ok",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
    }
}

fn color(outcome: Outcome) -> Style {
    let color = match outcome {
        Outcome::Pass => AnsiColor::Green,
        Outcome::Warn => AnsiColor::Yellow,
        Outcome::Fail => AnsiColor::Red,
    };
    color.on_default()
}

fn row(check: &Check) -> serde_json::Value {
    json!({
        "name": check.name,
        "outcome": word(check.outcome),
        "found": check.found,
        "advice": check.advice,
    })
}
