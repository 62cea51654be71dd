//! The gate: does a candidate stay within the bounds that rules set?

use std::fmt;

use profile::Mode;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::compare::{
    Aliases, Change, CompareError, Comparing, Measure, Run, Sides, Subject, check_alike, compare_where, glob,
    relative,
};

/// What a candidate is judged by.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rules {
    /// The chance of a false alarm that is taken, over all rules together [5 %].
    pub alpha: Option<Fraction>,
    /// What weights are divided by: `share`, `time` or `work`.
    pub measure: Measure,
    /// Subjects with a smaller share of the busy weight are not looked at [0.5 %].
    pub min_share: Option<Fraction>,
    /// Runs with fewer samples tell nothing [200].
    pub min_samples: Option<u64>,
    /// Runs that lost more tell nothing [10 %].
    pub max_lost: Option<Fraction>,
    /// Which domains are the same by another name.
    pub alias: Vec<Alias>,
    /// Bounds on functions.
    pub function: Vec<Rule>,
    /// Bounds on functions that the baseline does not have.
    pub new_function: Vec<NewFunction>,
    /// Bounds on modes.
    pub mode: Vec<Rule>,
    /// Bounds on domains.
    pub domain: Vec<Rule>,
    /// Bounds on processes.
    pub process: Vec<Rule>,
    /// A bound on what the hypervisor does for everybody.
    pub hypervisor: Option<Rule>,
}

/// Domains that are compared under one name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// A pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The name.
    pub name: String,
}

/// A bound on how much something may grow. Patterns have `*` for any text and `?` for any character.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Whose: a pattern.
    #[serde(default = "any")]
    pub domain: String,
    /// What is called so: a pattern.
    #[serde(default = "any")]
    pub name: String,
    /// In which mode.
    pub mode: Option<WrittenMode>,
    /// In which image: a pattern.
    pub module: Option<String>,
    /// Whether what a function called is included.
    #[serde(default)]
    pub total: bool,
    /// How much more than the baseline's may be.
    pub max_increase: Fraction,
    /// An increase that must be noticed in four cases of five, or the verdict is that nothing can be told [100 % more than that].
    pub detect: Option<Fraction>,
}

/// A bound on functions that the baseline does not have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NewFunction {
    /// Whose: a pattern.
    #[serde(default = "any")]
    pub domain: String,
    /// A larger share of the busy weight is a regression.
    pub max_share: Fraction,
}

fn any() -> String {
    "*".to_owned()
}

/// A mode as rules write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenMode(pub Mode);

impl<'de> Deserialize<'de> for WrittenMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mode = Mode::ALL.into_iter().find(|mode| mode.as_str() == text);
        mode.map(Self)
            .ok_or_else(|| de::Error::custom(format!("{text} is not hypervisor, kernel, user or backend")))
    }
}

/// A fraction, written as a percentage (`"10%"`) or as a number (`0.1`).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Fraction(pub f64);

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl de::Visitor<'_> for Written {
            type Value = Fraction;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percentage (\"10%\") or a fraction (0.1), not negative")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Fraction, E> {
                let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
                match number {
                    Some(number) => self.visit_f64(number / 100.0),
                    None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Fraction, E> {
                match number >= 0.0 && number.is_finite() {
                    true => Ok(Fraction(number)),
                    false => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Fraction, E> {
                self.visit_f64(number as f64)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// Rules can't be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// They are not what they should be.
    #[error("{0}")]
    Unreadable(#[from] toml::de::Error),
    /// They say nothing.
    #[error(
        "the rules bound nothing: there is no [[function]], [[new-function]], [[mode]], [[domain]], [[process]] or [hypervisor]"
    )]
    Empty,
    /// The chance of a false alarm is none.
    #[error("alpha must lie between 0 and 50 %")]
    Alpha,
}

impl Rules {
    /// Reads rules (TOML).
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let rules: Self = toml::from_str(text)?;
        if rules.all().next().is_none() && rules.new_function.is_empty() {
            return Err(RulesError::Empty);
        }
        if !(0.0..=0.5).contains(&rules.alpha()) || rules.alpha() == 0.0 {
            return Err(RulesError::Alpha);
        }
        Ok(rules)
    }

    /// Which domains mean the same.
    pub fn aliases(&self) -> Aliases {
        self.alias.iter().map(|alias| (alias.pattern.clone(), alias.name.clone())).collect()
    }

    /// The chance of a false alarm that is taken.
    pub fn alpha(&self) -> f64 {
        self.alpha.map_or(0.05, |alpha| alpha.0)
    }

    /// All bounds on growth, by what they bound.
    fn all(&self) -> impl Iterator<Item = (Kind, &Rule)> {
        let lists = [
            (Kind::Function, &self.function),
            (Kind::Mode, &self.mode),
            (Kind::Domain, &self.domain),
            (Kind::Process, &self.process),
        ];
        let listed = lists.into_iter().flat_map(|(kind, rules)| rules.iter().map(move |rule| (kind, rule)));
        listed.chain(self.hypervisor.as_ref().map(|rule| (Kind::Hypervisor, rule)))
    }

    /// The first bound on growth that a subject is under, by its place among all.
    fn growth(&self, subject: &Subject) -> Option<(usize, &Rule)> {
        self.all()
            .enumerate()
            .find(|(_, (kind, rule))| rule.bounds(*kind, subject))
            .map(|(i, (_, rule))| (i, rule))
    }

    fn newness(&self, subject: &Subject) -> Option<&NewFunction> {
        matches!(subject, Subject::Function { total: false, .. })
            .then(|| self.new_function.iter().find(|rule| glob(&rule.domain, subject.domain())))?
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Function,
    Mode,
    Domain,
    Process,
    Hypervisor,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Mode => "mode",
            Self::Domain => "domain",
            Self::Process => "process",
            Self::Hypervisor => "hypervisor",
        }
    }
}

impl Rule {
    fn bounds(&self, kind: Kind, subject: &Subject) -> bool {
        let own_mode = |mode: Mode| self.mode.is_none_or(|WrittenMode(wanted)| wanted == mode);
        let fits = match subject {
            Subject::Hypervisor => kind == Kind::Hypervisor,
            Subject::Domain { domain } => kind == Kind::Domain && glob(&self.name, domain),
            Subject::Mode { mode, .. } => {
                kind == Kind::Mode && own_mode(*mode) && glob(&self.name, mode.as_str())
            }
            Subject::Process { process, .. } => kind == Kind::Process && glob(&self.name, process),
            Subject::Function { mode, module, name, total, .. } => {
                kind == Kind::Function
                    && *total == self.total
                    && own_mode(*mode)
                    && glob(&self.name, name)
                    && self
                        .module
                        .as_ref()
                        .is_none_or(|wanted| glob(wanted, module.as_deref().unwrap_or_default()))
            }
        };
        fits && glob(&self.domain, subject.domain())
    }

    fn describe(&self, kind: Kind) -> String {
        let mut text = kind.as_str().to_owned();
        if kind != Kind::Hypervisor {
            text += &format!(" {} of {}", self.name, self.domain);
        }
        if let Some(WrittenMode(mode)) = self.mode {
            text += &format!(" in {mode} mode");
        }
        text + &format!(": at most {:.4} % more", self.max_increase.0 * 100.0).replace(".0000", "")
    }
}

/// What the gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Within all bounds, as far as can be told.
    Pass,
    /// Beyond one.
    Regression,
    /// Too few runs or samples, or too noisy ones, to tell.
    CannotTell,
}

/// A rule's outcome.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The rule, in words.
    pub rule: String,
    /// What it says.
    pub verdict: Verdict,
    /// Why, where that needs saying.
    pub why: Option<String>,
    /// What it is about: regressions, or the subject that is told most precisely.
    pub changes: Vec<Change>,
    /// How many subjects are under it.
    pub subjects: usize,
    /// The smallest increase that would be noticed in four cases of five, as a fraction of the baseline: of the subject
    /// that is told most precisely.
    pub detectable: Option<f64>,
}

/// What came of judging.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What the gate says.
    pub verdict: Verdict,
    /// Of each rule, in the order of the rules.
    pub judgements: Vec<Judgement>,
    /// Why nothing at all can be told, if so.
    pub why: Vec<String>,
    /// What the reader must know besides.
    pub notes: Vec<String>,
    /// The chance of a false alarm that was taken.
    pub alpha: f64,
}

/// Judges a candidate. `work` is what was done in each run of the baseline and then of the candidate.
pub fn judge(
    rules: &Rules,
    baseline: &[Run],
    candidate: &[Run],
    work: Vec<f64>,
    unlike_hosts: bool,
) -> Result<Judged, CompareError> {
    let runs: Vec<&Run> = baseline.iter().chain(candidate).collect();
    let notes = check_alike(&runs, unlike_hosts)?;
    let how = Comparing {
        measure: rules.measure,
        work,
        alpha: rules.alpha(),
        min_share: rules.min_share.map_or(0.005, |share| share.0),
    };
    let margin = |subject: &Subject| {
        let growth = rules.growth(subject).map(|(_, rule)| rule.max_increase.0);
        growth.or_else(|| rules.newness(subject).map(|_| 0.0))
    };
    let comparison = compare_where(baseline, candidate, &how, Sides::Increases, margin)?;
    let mut why = Vec::new();
    if comparison.smallest_p > how.alpha {
        why.push(format!(
            "{} and {} runs are too few: no result could be less likely by chance than {:.0} %, and {:.0} % are allowed; \
             three a side serve for 5 %, and more notice smaller changes",
            baseline.len(),
            candidate.len(),
            comparison.smallest_p * 100.0,
            how.alpha * 100.0
        ));
    }
    let (min_samples, max_lost) =
        (rules.min_samples.unwrap_or(200), rules.max_lost.map_or(0.1, |lost| lost.0));
    for run in &runs {
        if run.samples < min_samples {
            why.push(format!("{} holds {} samples, and {min_samples} are needed", run.label, run.samples));
        }
        if run.lost.is_some_and(|lost| lost > max_lost) {
            why.push(format!("{} lost {:.0} % of its samples", run.label, run.lost.unwrap_or(0.0) * 100.0));
        }
    }
    let mut judgements = judge_growth(rules, &comparison.changes, how.alpha);
    judgements.extend(
        rules.new_function.iter().map(|rule| judge_new(rules, rule, &comparison.changes, &runs, &how)),
    );
    let any = |verdict| judgements.iter().any(|judgement| judgement.verdict == verdict);
    let verdict = match () {
        () if !why.is_empty() => Verdict::CannotTell,
        () if any(Verdict::Regression) => Verdict::Regression,
        () if any(Verdict::CannotTell) => Verdict::CannotTell,
        () => Verdict::Pass,
    };
    Ok(Judged { verdict, judgements, why, notes, alpha: how.alpha })
}

fn judge_growth(rules: &Rules, changes: &[Change], alpha: f64) -> Vec<Judgement> {
    let judge = |(index, (kind, rule)): (usize, (Kind, &Rule))| {
        let own: Vec<&Change> = changes
            .iter()
            .filter(|change| rules.growth(&change.subject).is_some_and(|(own, _)| own == index))
            .filter(|change| change.baseline > 0.0 || rules.newness(&change.subject).is_none())
            .collect();
        let detectable = |change: &Change| rule.max_increase.0 + relative(change.detectable, change.baseline);
        let precise = own.iter().copied().min_by(|a, b| detectable(a).total_cmp(&detectable(b)));
        let smallest = precise.map(detectable);
        let grown: Vec<Change> = own
            .iter()
            .filter(|change| change.p <= alpha && change.candidate > change.baseline)
            .copied()
            .cloned()
            .collect();
        let needed = rule.detect.map_or(rule.max_increase.0 + 1.0, |detect| detect.0);
        let (verdict, why) = match smallest {
            _ if !grown.is_empty() => (Verdict::Regression, None),
            None if rule.name.contains(['*', '?']) || kind == Kind::Hypervisor => {
                (Verdict::Pass, Some("nothing under this rule weighs enough to be looked at".to_owned()))
            }
            None => {
                (Verdict::CannotTell, Some("nothing of that name weighs enough to be looked at".to_owned()))
            }
            Some(smallest) if smallest > needed => (
                Verdict::CannotTell,
                Some(format!(
                    "too noisy: an increase would have to be {:.0} % to be noticed, and {:.0} % are asked for (detect)",
                    smallest * 100.0,
                    needed * 100.0
                )),
            ),
            Some(_) => (Verdict::Pass, None),
        };
        let changes = if grown.is_empty() { precise.into_iter().cloned().collect() } else { grown };
        Judgement {
            rule: rule.describe(kind),
            verdict,
            why,
            changes,
            subjects: own.len(),
            detectable: smallest,
        }
    };
    rules.all().enumerate().map(judge).collect()
}

fn judge_new(
    rules: &Rules,
    rule: &NewFunction,
    changes: &[Change],
    runs: &[&Run],
    how: &Comparing,
) -> Judgement {
    let in_runs = |change: &Change| {
        runs.iter().map(|run| run.weights.get(&change.subject)).filter(Option::is_some).count()
    };
    let share = |change: &Change| {
        let weights = runs.iter().filter_map(|run| Some((*run.weights.get(&change.subject)?, run.busy)));
        let shares: Vec<f64> = weights.map(|(weight, busy)| weight as f64 / busy as f64).collect();
        shares.iter().sum::<f64>() / shares.len().max(1) as f64
    };
    let own: Vec<&Change> = changes
        .iter()
        .filter(|change| rules.newness(&change.subject).is_some_and(|own| std::ptr::eq(own, rule)))
        .filter(|change| change.baseline == 0.0 && in_runs(change) > 0)
        .collect();
    let grown: Vec<Change> = own
        .iter()
        .filter(|change| change.p <= how.alpha && share(change) > rule.max_share.0)
        .copied()
        .cloned()
        .collect();
    Judgement {
        rule: format!("new functions of {}: at most {} % each", rule.domain, rule.max_share.0 * 100.0),
        verdict: if grown.is_empty() { Verdict::Pass } else { Verdict::Regression },
        why: None,
        changes: grown,
        subjects: own.len(),
        detectable: None,
    }
}
