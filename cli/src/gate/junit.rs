//! The verdict as JUnit's XML: a case for each rule; what can't be told is an error, as distinct from a failure.

use std::fmt::Write;

use analysis::{
    Visible,
    compare::Measure,
    gate::{Judged, Verdict},
};

use super::lines;

pub(super) fn write(judged: &Judged, measure: Measure, unit: &str) -> String {
    let count = |verdict| judged.judgements.iter().filter(|judgement| judgement.verdict == verdict).count();
    let general = usize::from(!judged.why.is_empty());
    let (tests, failures) = (judged.judgements.len() + general, count(Verdict::Regression));
    let errors = count(Verdict::CannotTell) + general;
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"xenoscope gate\" \
         tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\">\n"
    );
    let mut case = |name: &str, verdict: Verdict, text: &str| {
        let (name, text) = (escape(name), escape(text));
        let body = match verdict {
            Verdict::Pass => format!("<system-out>{text}</system-out>"),
            Verdict::Regression => format!("<failure message=\"regression\">{text}</failure>"),
            Verdict::CannotTell => format!("<error message=\"can't tell\">{text}</error>"),
        };
        writeln!(out, "<testcase classname=\"xenoscope.gate\" name=\"{name}\">{body}</testcase>")
            .expect("strings take all");
    };
    if general > 0 {
        case("the runs", Verdict::CannotTell, &judged.why.join("\n"));
    }
    for judgement in &judged.judgements {
        case(&judgement.rule, judgement.verdict, &lines(judgement, measure, unit).join("\n"));
    }
    out + "</testsuite>\n</testsuites>\n"
}

/// A text for XML; names come from guests.
fn escape(text: &str) -> String {
    let visible = text.split('\n').map(|line| Visible(line).to_string()).collect::<Vec<_>>().join("\n");
    visible.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_write_no_markup() {
        assert_eq!(escape("a<b>&\"\u{1b}\nc"), "a&lt;b&gt;&amp;&quot;\\u{1b}\nc");
    }
}
