//! `xenoscope gate`: the verdict on a candidate, for scripts.

mod junit;
mod markdown;
mod text;

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use analysis::gate::{Judged, Judgement, Rules, Verdict, judge};
use anyhow::Context;
use serde_json::json;

use crate::{diff, runs};

/// Judge a candidate's recordings against a baseline's, by rules
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xenoscope gate --baseline main-*.xsr --candidate change-*.xsr --rules rules.toml
  xenoscope gate … --format junit -o gate.xml

Exit codes: 0 within all bounds, 3 a regression, 4 too few or too noisy runs to tell, 1 an error, 2 usage. With fewer than
three runs a side nothing can be told. Rules, with all that they may say, are in docs/ci.md; the shortest:

  [[function]]
  domain = \"web\"
  max-increase = \"10%\"

Unlike hosts, events or sources are refused; so are recordings that are not whole.")]
pub(crate) struct Args {
    /// The recordings of what is known to be good
    #[arg(long, value_name = "RECORDING", num_args = 1.., required = true)]
    baseline: Vec<PathBuf>,

    /// The recordings of what is judged
    #[arg(long, value_name = "RECORDING", num_args = 1.., required = true)]
    candidate: Vec<PathBuf>,

    /// The rules (TOML)
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,

    /// What was done in each run, the baseline's first (for rules with measure = \"work\")
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    work: Vec<f64>,

    /// Judge this event, where there are several; the first one otherwise
    #[arg(short, long, value_name = "NAME")]
    event: Option<String>,

    /// Judge though the hosts are unlike
    #[arg(long)]
    unlike_hosts: bool,

    /// How the verdict is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,

    /// Where it is written; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// Schema 1
    Json,
    /// A test suite with a case for each rule
    Junit,
    /// For a comment on a change
    Markdown,
}

/// The exit codes that scripts rely on.
const REGRESSION: u8 = 3;
const CANNOT_TELL: u8 = 4;

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.rules.display();
    let text = fs::read_to_string(&args.rules).with_context(|| format!("could not read {file}"))?;
    let rules = Rules::parse(&text).with_context(|| format!("the rules in {file}"))?;
    let aliases = rules.aliases();
    let baseline = runs::read(&args.baseline, args.event.as_deref(), &aliases)?;
    let candidate = runs::read(&args.candidate, args.event.as_deref(), &aliases)?;
    let judged = judge(&rules, &baseline, &candidate, args.work, args.unlike_hosts)?;
    let unit = baseline.first().map_or("", |run| &run.event.1);
    let written = match args.format {
        Format::Text => text::write(&judged, rules.measure, unit),
        Format::Json => format!("{:#}\n", describe(&judged)),
        Format::Junit => junit::write(&judged, rules.measure, unit),
        Format::Markdown => markdown::write(&judged, rules.measure, unit),
    };
    match &args.output {
        Some(path) => {
            fs::write(path, written).with_context(|| format!("could not write {}", path.display()))?;
        }
        None => match anstream::stdout().write_all(written.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error).context("could not write the verdict");
            }
            _ => {}
        },
    }
    Ok(match judged.verdict {
        Verdict::Pass => ExitCode::SUCCESS,
        Verdict::Regression => ExitCode::from(REGRESSION),
        Verdict::CannotTell => ExitCode::from(CANNOT_TELL),
    })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Regression => "regression",
        Verdict::CannotTell => "can't tell",
    }
}

fn describe(judged: &Judged) -> serde_json::Value {
    let judgement = |judgement: &Judgement| {
        json!({
            "rule": judgement.rule,
            "verdict": judgement.verdict,
            "why": judgement.why,
            "subjects": judgement.subjects,
            "detectable": judgement.detectable,
            "changes": judgement.changes.iter().map(diff::change).collect::<Vec<_>>(),
        })
    };
    json!({
        "schema": 1,
        "verdict": judged.verdict,
        "alpha": judged.alpha,
        "why": judged.why,
        "notes": judged.notes,
        "rules": judged.judgements.iter().map(judgement).collect::<Vec<_>>(),
    })
}

/// What a judgement says besides its verdict, in lines.
fn lines(judgement: &Judgement, measure: analysis::compare::Measure, unit: &str) -> Vec<String> {
    let mut lines: Vec<String> = judgement.why.iter().cloned().collect();
    if judgement.verdict == Verdict::Regression {
        lines.extend(judgement.changes.iter().map(|change| {
            let value = |number| runs::value(number, measure, unit);
            let (before, after) = (value(change.baseline), value(change.candidate));
            let relative = runs::percentage(change.relative());
            format!("{}: {before} → {after} ({relative}, P {:.4})", change.subject, change.p)
        }));
    }
    if let (Some(detectable), Some(change)) = (judgement.detectable, judgement.changes.first()) {
        let percent = detectable * 100.0;
        let what = match judgement.verdict {
            Verdict::Regression => "the most precise of its subjects".to_owned(),
            _ => change.subject.to_string(),
        };
        lines.push(format!(
            "minimum detectable increase: {percent:.1} % ({what}; {} subjects)",
            judgement.subjects
        ));
    }
    lines
}
