//! Two sets of runs: what changed, by how much, and whether chance alone could have done it.
//!
//! The unit is the run: samples within one are not independent of each other. Whether there is a change is told by
//! permutation: if there is none, it does not matter which run is of which side, so the sides are drawn anew thousands of
//! times, and each time the largest of *all* subjects' statistics is kept (Westfall and Young's max-T). A change counts if
//! it is larger than all but a fraction α of these: the chance of any false one, however many subjects there are and
//! however they hang together, is at most α. How large a change is, is told by resampling the runs of each side (bootstrap).
//! Both draw from a generator with a fixed seed: the same files give the same verdict.

mod resample;
mod run;
mod subject;

use serde::{Deserialize, Serialize};

use self::resample::{Hypothesis, Resampling};
pub use self::{
    run::{Aliases, Run},
    subject::{Subject, stable_name},
};

/// What weights are divided by, to be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The run's busy weight: shares. What one function gains, others lose.
    #[default]
    Share,
    /// The run's seconds: weight a second (of time: CPUs busy with it).
    Time,
    /// The work that was done in the run: weight a unit of work.
    Work,
}

/// How two sets are compared.
#[derive(Clone, Debug)]
pub struct Comparing {
    /// What weights are divided by.
    pub measure: Measure,
    /// What was done in each run of the baseline and then of the candidate, for [`Measure::Work`].
    pub work: Vec<f64>,
    /// The chance of a false alarm that is taken.
    pub alpha: f64,
    /// Subjects with less than this share of the busy weight, in the mean of all runs, are left out.
    pub min_share: f64,
}

impl Default for Comparing {
    fn default() -> Self {
        Self { measure: Measure::Share, work: Vec::new(), alpha: 0.05, min_share: 0.002 }
    }
}

/// The sets can't be compared.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// There is nothing on one side.
    #[error("there are no runs of the {0}")]
    NoRuns(&'static str),
    /// Weights mean different things.
    #[error("{one} and {other} were sampled differently: {what}")]
    Unlike {
        /// A run.
        one: String,
        /// The run that differs from it.
        other: String,
        /// In what.
        what: String,
    },
    /// A recording was not finished.
    #[error("{0} is not whole: what is missing of it can't be told from what did not happen")]
    NotWhole(String),
    /// A run without samples.
    #[error("{0} holds no samples of the event")]
    Empty(String),
    /// The numbers for `Measure::Work` are not there or no work.
    #[error("{runs} runs need as many positive numbers of work, and there are {given}")]
    Work {
        /// How many runs there are.
        runs: usize,
        /// How many numbers.
        given: usize,
    },
}

/// What became of one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Of what.
    pub subject: Subject,
    /// The mean of the baseline's runs: a share, or the event's unit a second or a unit of work.
    pub baseline: f64,
    /// The mean of the candidate's.
    pub candidate: f64,
    /// Where the difference lies with the confidence 1 - α, for all subjects at once.
    pub interval: (f64, f64),
    /// The chance that some subject changes as much by chance alone; as small as the number of runs lets it become.
    pub p: f64,
    /// The smallest increase (of the same kind as the difference) that would be noticed in four cases of five.
    pub detectable: f64,
}

impl Change {
    /// By how much it changed, as a fraction of the baseline; infinite where there was none.
    pub fn relative(&self) -> f64 {
        relative(self.candidate - self.baseline, self.baseline)
    }
}

/// A difference as a fraction of what it differs from.
pub(crate) fn relative(difference: f64, of: f64) -> f64 {
    if difference == 0.0 { 0.0 } else { difference / of }
}

/// What came of a comparison.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The largest changes first.
    pub changes: Vec<Change>,
    /// The smallest p that so many runs allow.
    pub smallest_p: f64,
}

/// Sees that runs can be compared at all. Unlike hosts are an error unless they are allowed, and then a note.
pub fn check_alike(runs: &[&Run], unlike_hosts: bool) -> Result<Vec<String>, CompareError> {
    let mut notes = Vec::new();
    let Some((first, rest)) = runs.split_first() else { return Ok(notes) };
    for run in runs {
        if !run.whole {
            return Err(CompareError::NotWhole(run.label.clone()));
        }
        if run.samples == 0 || run.busy == 0 {
            return Err(CompareError::Empty(run.label.clone()));
        }
    }
    for run in rest {
        let unlike =
            |what| Err(CompareError::Unlike { one: first.label.clone(), other: run.label.clone(), what });
        if run.event != first.event {
            let text = |(name, unit, source): &(String, String, profile::Source)| {
                format!("{name} in {unit} from {}", source.as_str())
            };
            return unlike(format!("{}, and {}", text(&first.event), text(&run.event)));
        }
        if run.host != first.host {
            let text = |(name, hypervisor, cpus): &(String, String, u32)| {
                format!("{name} with {cpus} CPUs and {hypervisor}")
            };
            let what = format!("on {}, and on {}", text(&first.host), text(&run.host));
            if !unlike_hosts {
                return unlike(what);
            }
            notes.push(format!("{} and {} are of unlike hosts: {what}", first.label, run.label));
        }
        if run.kernel != first.kernel {
            notes.push(format!(
                "{} ran on kernel {}, {} on {}",
                first.label, first.kernel, run.label, run.kernel
            ));
        }
    }
    notes.dedup();
    Ok(notes)
}

/// Compares all subjects that weigh enough.
pub fn compare(baseline: &[Run], candidate: &[Run], how: &Comparing) -> Result<Comparison, CompareError> {
    compare_where(baseline, candidate, how, Sides::Both, |_| Some(0.0))
}

/// Which changes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sides {
    /// Increases and decreases.
    Both,
    /// Increases alone.
    Increases,
}

/// Compares the subjects for which `margin` says by which fraction of the baseline they may grow: a change counts as one
/// where it exceeds that.
pub(crate) fn compare_where(
    baseline: &[Run],
    candidate: &[Run],
    how: &Comparing,
    sides: Sides,
    margin: impl Fn(&Subject) -> Option<f64>,
) -> Result<Comparison, CompareError> {
    for (side, runs) in [("baseline", baseline), ("candidate", candidate)] {
        if runs.is_empty() {
            return Err(CompareError::NoRuns(side));
        }
    }
    let runs: Vec<&Run> = baseline.iter().chain(candidate).collect();
    let divisors = divisors(&runs, how)?;
    let mut subjects: Vec<&Subject> = runs.iter().flat_map(|run| run.weights.keys()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let mut hypotheses = Vec::new();
    for subject in subjects {
        let Some(margin) = margin(subject) else { continue };
        let weight = |run: &Run| run.weights.get(subject).copied().unwrap_or(0);
        let mean_share =
            runs.iter().map(|run| weight(run) as f64 / run.busy as f64).sum::<f64>() / runs.len() as f64;
        if mean_share < how.min_share {
            continue;
        }
        let values = runs.iter().zip(&divisors).map(|(run, divisor)| weight(run) as f64 / divisor);
        // What counting so few samples alone makes vary.
        let noise = runs.iter().zip(&divisors).map(|(run, divisor)| {
            let a_sample = run.busy as f64 / run.samples as f64;
            let samples = weight(run) as f64 / a_sample;
            samples.max(1.0).sqrt() * a_sample / divisor
        });
        hypotheses
            .push((subject.clone(), Hypothesis { values: values.collect(), noise: noise.collect(), margin }));
    }
    let resampling = Resampling::of(hypotheses.iter().map(|(_, h)| h), baseline.len(), how.alpha, sides);
    let mut changes: Vec<Change> = hypotheses
        .into_iter()
        .zip(resampling.outcomes)
        .map(|((subject, _), outcome)| Change {
            subject,
            baseline: outcome.baseline,
            candidate: outcome.candidate,
            interval: outcome.interval,
            p: outcome.p,
            detectable: outcome.detectable,
        })
        .collect();
    changes.sort_by(|a, b| {
        let size = |change: &Change| (change.candidate - change.baseline).abs();
        size(b).total_cmp(&size(a)).then_with(|| a.subject.cmp(&b.subject))
    });
    Ok(Comparison { changes, smallest_p: resampling.smallest_p })
}

fn divisors(runs: &[&Run], how: &Comparing) -> Result<Vec<f64>, CompareError> {
    match how.measure {
        Measure::Share => Ok(runs.iter().map(|run| run.busy as f64).collect()),
        Measure::Time => Ok(runs.iter().map(|run| run.seconds.max(f64::MIN_POSITIVE)).collect()),
        Measure::Work => match how.work.len() == runs.len() && how.work.iter().all(|&work| work > 0.0) {
            true => Ok(how.work.clone()),
            false => Err(CompareError::Work { runs: runs.len(), given: how.work.len() }),
        },
    }
}

/// Whether a text is of a pattern, in which `*` is any text and `?` any character.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and what it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, is) in [
            ("web-*", "web-17", true),
            ("web-*", "web", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a?c*f", "abcdeff", true),
            ("*ab", "aab", true),
            ("*a*b*c", "xxaxxbxx", false),
        ] {
            assert_eq!(glob(pattern, text), is, "{pattern} {text}");
        }
    }
}
