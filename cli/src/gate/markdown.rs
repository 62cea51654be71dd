//! The verdict as a comment on a change.

use std::fmt::Write;

use analysis::{
    Visible,
    compare::Measure,
    gate::{Judged, Verdict},
};

use super::{lines, word};

pub(super) fn write(judged: &Judged, measure: Measure, unit: &str) -> String {
    let mut out = format!("### xenoscope gate: {}\n", word(judged.verdict));
    let mut line = |text: String| writeln!(out, "{text}").expect("strings take all");
    for why in &judged.why {
        line(format!("\n{}", escape(why)));
    }
    line("\n| verdict | rule | |\n|---|---|---|".to_owned());
    for judgement in &judged.judgements {
        let verdict = match judgement.verdict {
            Verdict::Pass => "✅ pass",
            Verdict::Regression => "❌ regression",
            Verdict::CannotTell => "❔ can't tell",
        };
        let lines = lines(judgement, measure, unit);
        let text = lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("<br>");
        line(format!("| {verdict} | {} | {text} |", escape(&judgement.rule)));
    }
    for note in &judged.notes {
        line(format!("\nNote: {}", escape(note)));
    }
    out
}

/// A text for a cell of a table; names come from guests.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in Visible(text).to_string().chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' | '@' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_write_no_markup() {
        assert_eq!(escape("a|b <i> [x](y) *z*"), "a\\|b &lt;i&gt; \\[x\\](y) \\*z\\*");
    }
}
