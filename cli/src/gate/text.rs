//! The verdict for people.

use std::fmt::Write;

use analysis::{
    Visible,
    compare::Measure,
    gate::{Judged, Verdict},
};
use anstyle::{AnsiColor, Style};

use super::{lines, word};

pub(super) fn write(judged: &Judged, measure: Measure, unit: &str) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("strings take all");
    let style = style(judged.verdict);
    line(format_args!("{style}{}{style:#}", word(judged.verdict)));
    for why in &judged.why {
        line(format_args!("  {}", Visible(why)));
    }
    for judgement in &judged.judgements {
        let style = self::style(judgement.verdict);
        line(format_args!("{style}{:<10}{style:#}  {}", word(judgement.verdict), Visible(&judgement.rule)));
        for text in lines(judgement, measure, unit) {
            line(format_args!("            {}", Visible(&text)));
        }
    }
    for note in &judged.notes {
        line(format_args!("note: {}", Visible(note)));
    }
    out
}

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Pass => AnsiColor::Green,
        Verdict::Regression => AnsiColor::Red,
        Verdict::CannotTell => AnsiColor::Yellow,
    }
    .on_default()
    .bold()
}
