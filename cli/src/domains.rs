//! `xenoscope domains`: what runs here.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use analysis::Visible;
use collector::{NamedFunctions, Survey};
use hv_shim::DomainState;
use serde_json::{Value, json};

use crate::guest_process;

/// List the domains that run on this host
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope domains                     what can be named with --domain
  xenoscope domains --verbose           also what names there would be in each: its kernel, symbols, processes, files
  xenoscope domains --json | jq -r '.domains[].name'")]
pub(crate) struct Args {
    /// Look into each domain's memory: which kernel runs there, which processes, what has no names and why
    #[arg(short, long)]
    verbose: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut hypervisor = hv_shim::detect()?;
    let domains = hypervisor.domains()?;
    let command = guest_process();
    let survey = |domain| args.verbose.then(|| collector::survey(&*hypervisor, &command, domain));
    let mut out = anstream::stdout().lock();
    if args.json {
        let rows: Vec<_> = domains.iter().map(|domain| row(domain, survey(domain))).collect();
        writeln!(out, "{:#}", json!({ "schema": 1, "domains": rows }))?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{:>5}  {:<5} {:>5} {:>12}  {:<36}  NAME", "ID", "KIND", "VCPUS", "CPU TIME (s)", "UUID")?;
    for domain in &domains {
        let uuid = domain.uuid.map_or_else(|| "-".into(), |uuid| uuid.to_string());
        let seconds = domain.cpu_ns as f64 / 1e9;
        let DomainState { number, kind, vcpus, .. } = domain;
        writeln!(
            out,
            "{number:>5}  {kind:<5} {vcpus:>5} {seconds:>12.1}  {uuid:<36}  {}",
            Visible(&domain.name)
        )?;
        if let Some(survey) = survey(domain) {
            show(&mut out, &survey)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(out: &mut impl Write, survey: &Survey) -> io::Result<()> {
    if let Some(kernel) = &survey.kernel {
        let slide = kernel.slide.map_or_else(String::new, |slide| format!(", moved by {slide:#x}"));
        let (release, symbols, modules) = (Visible(&kernel.release), kernel.symbols, kernel.modules);
        writeln!(out, "       kernel     Linux {release}{slide}; {symbols} symbols, {modules} modules")?;
        writeln!(out, "       processes  {}", survey.processes.len())?;
    }
    if !survey.files.is_empty() {
        let count = |named| survey.files.iter().filter(|file| file.named == named).count();
        writeln!(
            out,
            "       files      {} with code; in memory are all their symbols: {}, some: {}, dynamic ones only: {}, none: {}",
            survey.files.len(),
            count(NamedFunctions::All),
            count(NamedFunctions::Some),
            count(NamedFunctions::Dynamic),
            count(NamedFunctions::None),
        )?;
    }
    for file in survey.files.iter().filter(|file| file.named < NamedFunctions::All) {
        let what = match file.named {
            NamedFunctions::None => "no symbols",
            NamedFunctions::Dynamic => "dynamic symbols only",
            _ => "some symbols",
        };
        let build_id = file.build_id.as_deref().unwrap_or("none");
        writeln!(out, "                  {}: {what}; build id {build_id}", Visible(&file.path))?;
    }
    for lack in &survey.lacks {
        writeln!(out, "       not told   {}", Visible(lack))?;
    }
    Ok(())
}

fn row(domain: &DomainState, survey: Option<Survey>) -> Value {
    let mut row = json!({
        "id": domain.number,
        "name": domain.name,
        "uuid": domain.uuid.map(|uuid| uuid.to_string()),
        "kind": domain.kind,
        "vcpus": domain.vcpus,
        "cpu_s": domain.cpu_ns as f64 / 1e9,
    });
    if let Some(survey) = survey {
        row["survey"] = survey_row(&survey);
    }
    row
}

fn survey_row(survey: &Survey) -> Value {
    let kernel = survey.kernel.as_ref().map(|kernel| {
        json!({
            "release": kernel.release,
            "build_id": kernel.build_id,
            "slide": kernel.slide.map(|slide| format!("{slide:#x}")),
            "symbols": kernel.symbols,
            "modules": kernel.modules,
        })
    });
    let processes: Vec<_> =
        survey.processes.iter().map(|(pid, name)| json!({ "pid": pid, "name": name })).collect();
    let named = |named| match named {
        NamedFunctions::None => "none",
        NamedFunctions::Dynamic => "dynamic",
        NamedFunctions::Some => "some",
        NamedFunctions::All => "all",
    };
    let files: Vec<_> = survey
        .files
        .iter()
        .map(|file| json!({ "path": file.path, "build_id": file.build_id, "named": named(file.named) }))
        .collect();
    json!({ "kernel": kernel, "processes": processes, "files": files, "lacks": survey.lacks })
}
