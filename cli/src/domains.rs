//! `xenoscope domains`: what runs here.

use std::{io::Write, process::ExitCode};

use analysis::Visible;
use hv_shim::DomainState;
use serde_json::json;

/// List the domains that run on this host
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope domains                     what can be named with --domain
  xenoscope domains --json | jq -r '.domains[].name'")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let domains = hv_shim::detect()?.domains()?;
    let mut out = anstream::stdout().lock();
    if args.json {
        let rows: Vec<_> = domains.iter().map(row).collect();
        writeln!(out, "{:#}", json!({ "schema": 1, "domains": rows }))?;
    } else {
        writeln!(
            out,
            "{:>5}  {:<5} {:>5} {:>12}  {:<36}  NAME",
            "ID", "KIND", "VCPUS", "CPU TIME (s)", "UUID"
        )?;
        for domain in &domains {
            let uuid = domain.uuid.map_or_else(|| "-".into(), |uuid| uuid.to_string());
            let seconds = domain.cpu_ns as f64 / 1e9;
            let DomainState { number, kind, vcpus, .. } = domain;
            writeln!(
                out,
                "{number:>5}  {kind:<5} {vcpus:>5} {seconds:>12.1}  {uuid:<36}  {}",
                Visible(&domain.name)
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(domain: &DomainState) -> serde_json::Value {
    json!({
        "id": domain.number,
        "name": domain.name,
        "uuid": domain.uuid.map(|uuid| uuid.to_string()),
        "kind": domain.kind,
        "vcpus": domain.vcpus,
        "cpu_s": domain.cpu_ns as f64 / 1e9,
    })
}
