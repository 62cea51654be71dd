//! Permutation of labels, and resampling of runs.

use super::Sides;

/// How often the sides are drawn anew.
const PERMUTATIONS: usize = 4_000;

/// How often the runs of a side are drawn anew.
const BOOTSTRAPS: usize = 1_000;

/// The quantile of the normal distribution that four cases of five lie below.
const FOUR_OF_FIVE: f64 = 0.8416;

/// A subject's values in all runs, the baseline's first.
#[derive(Clone, Debug)]
pub(super) struct Hypothesis {
    pub(super) values: Vec<f64>,
    /// The standard deviation of each that counting samples alone causes.
    pub(super) noise: Vec<f64>,
    /// The fraction by which the candidate's may exceed the baseline's.
    pub(super) margin: f64,
}

/// What came of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) baseline: f64,
    pub(super) candidate: f64,
    pub(super) interval: (f64, f64),
    pub(super) p: f64,
    pub(super) detectable: f64,
}

/// What came of all.
#[derive(Clone, Debug)]
pub(super) struct Resampling {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) smallest_p: f64,
}

impl Resampling {
    pub(super) fn of<'a>(
        hypotheses: impl Iterator<Item = &'a Hypothesis>,
        baseline: usize,
        alpha: f64,
        sides: Sides,
    ) -> Self {
        let size = |statistic: f64| match sides {
            Sides::Both => statistic.abs(),
            Sides::Increases => statistic,
        };
        let hypotheses: Vec<Scaled> = hypotheses.map(|h| Scaled::of(h, baseline)).collect();
        let runs = hypotheses.first().map_or(0, |h| h.values.len());
        let mut random = fastrand::Rng::with_seed(0x5eed);
        let mut largest = Vec::new();
        for_each_division(runs, baseline, &mut random, |in_baseline| {
            let statistics = hypotheses.iter().map(|h| size(h.statistic(in_baseline)));
            largest.push(statistics.fold(f64::NEG_INFINITY, f64::max));
        });
        largest.sort_by(f64::total_cmp);
        let own: Vec<bool> = (0..runs).map(|run| run < baseline).collect();
        // A share of the divisions as large as alpha has a larger statistic than this.
        let critical = match largest.len() {
            0 => f64::INFINITY,
            count => largest[(((1.0 - alpha) * count as f64) as usize).min(count - 1)],
        };
        let smallest_p = 1.0 / largest.len().max(1) as f64;
        let outcomes = hypotheses
            .iter()
            .map(|h| {
                // The order in which a side is added up must not make the true division smaller than itself.
                let statistic = size(h.statistic(&own)) - 1e-9;
                let as_large = largest.len() - largest.partition_point(|&larger| larger < statistic);
                let error = h.error(&own);
                Outcome {
                    baseline: mean(&h.original[..baseline]),
                    candidate: mean(&h.original[baseline..]),
                    interval: h.interval(baseline, critical, &mut random),
                    p: (as_large.max(1) as f64) * smallest_p,
                    detectable: (critical + FOUR_OF_FIVE) * error,
                }
            })
            .collect();
        Self { outcomes, smallest_p }
    }
}

/// A hypothesis whose baseline has been raised by the margin, so that what may be is no difference.
struct Scaled {
    original: Vec<f64>,
    values: Vec<f64>,
    noise: Vec<f64>,
}

impl Scaled {
    fn of(hypothesis: &Hypothesis, baseline: usize) -> Self {
        let factor = |run: usize| if run < baseline { 1.0 + hypothesis.margin } else { 1.0 };
        let scaled = |values: &[f64]| values.iter().enumerate().map(|(run, v)| v * factor(run)).collect();
        Self {
            original: hypothesis.values.clone(),
            values: scaled(&hypothesis.values),
            noise: scaled(&hypothesis.noise),
        }
    }

    /// The difference of the sides' means in units of its standard error.
    fn statistic(&self, in_baseline: &[bool]) -> f64 {
        let error = self.error(in_baseline);
        let (baseline, candidate) = self.means(in_baseline);
        if error == 0.0 { 0.0 } else { (candidate - baseline) / error }
    }

    fn means(&self, in_baseline: &[bool]) -> (f64, f64) {
        let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
        for (value, &is_baseline) in self.values.iter().zip(in_baseline) {
            sums[usize::from(is_baseline)] += value;
            counts[usize::from(is_baseline)] += 1.0;
        }
        (sums[1] / counts[1], sums[0] / counts[0])
    }

    /// The standard error of the difference: by how runs of a side vary, and never less than counting alone makes them.
    fn error(&self, in_baseline: &[bool]) -> f64 {
        let (baseline, candidate) = self.means(in_baseline);
        let (mut spread, mut noise, mut counts) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        for ((value, noisy), &is_baseline) in self.values.iter().zip(&self.noise).zip(in_baseline) {
            let side = usize::from(is_baseline);
            spread[side] += (value - if is_baseline { baseline } else { candidate }).powi(2);
            noise[side] += noisy.powi(2);
            counts[side] += 1.0;
        }
        let of_side = |side: usize| {
            let varies = if counts[side] > 1.0 { spread[side] / (counts[side] - 1.0) } else { 0.0 };
            varies.max(noise[side] / counts[side]) / counts[side]
        };
        (of_side(0) + of_side(1)).sqrt()
    }

    /// Where the difference of the means lies: as far from it, in units of its error, as the critical value says, with the
    /// error as resampling the runs of each side shows it.
    fn interval(&self, baseline: usize, critical: f64, random: &mut fastrand::Rng) -> (f64, f64) {
        let (own, other) = self.original.split_at(baseline);
        let draw = |side: &[f64], random: &mut fastrand::Rng| {
            side.iter().map(|_| side[random.usize(..side.len())]).sum::<f64>() / side.len() as f64
        };
        let difference = mean(other) - mean(own);
        if own.len() < 2 || other.len() < 2 || !critical.is_finite() {
            return (f64::NEG_INFINITY, f64::INFINITY);
        }
        let drawn: Vec<f64> = (0..BOOTSTRAPS).map(|_| draw(other, random) - draw(own, random)).collect();
        let center = mean(&drawn);
        let variance = drawn.iter().map(|d| (d - center).powi(2)).sum::<f64>() / BOOTSTRAPS as f64;
        // Resampling n runs shows (n-1)/n of their variance.
        let n = own.len().min(other.len()) as f64;
        let flags: Vec<bool> = (0..self.values.len()).map(|run| run < baseline).collect();
        let error = (variance * n / (n - 1.0)).sqrt().max(self.error(&flags));
        (difference - critical * error, difference + critical * error)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// All divisions of the runs into sides of these sizes, the true one first; or, where they are many, some drawn at random.
fn for_each_division(
    runs: usize,
    baseline: usize,
    random: &mut fastrand::Rng,
    mut visit: impl FnMut(&[bool]),
) {
    if baseline == 0 || baseline >= runs {
        return;
    }
    let mut own: Vec<bool> = (0..runs).map(|run| run < baseline).collect();
    if divisions(runs, baseline).is_some_and(|count| count <= PERMUTATIONS) {
        // In descending order of the flags as a number.
        loop {
            visit(&own);
            let Some(last) = (0..runs - 1).rev().find(|&i| own[i] && !own[i + 1]) else { return };
            own.swap(last, last + 1);
            let rest = &mut own[last + 2..];
            rest.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
    visit(&own);
    for _ in 1..PERMUTATIONS {
        random.shuffle(&mut own);
        visit(&own);
    }
}

/// How many divisions there are; none if very many.
fn divisions(runs: usize, baseline: usize) -> Option<usize> {
    let mut count = 1usize;
    for i in 0..baseline {
        count = count.checked_mul(runs - i)? / (i + 1);
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_divisions_are_visited_once() {
        let mut seen = Vec::new();
        for_each_division(5, 2, &mut fastrand::Rng::with_seed(1), |own| seen.push(own.to_vec()));
        assert_eq!(seen.len(), 10);
        assert_eq!(seen[0], [true, true, false, false, false]);
        assert!(seen.iter().all(|own| own.iter().filter(|&&is| is).count() == 2));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 10);
        assert_eq!([divisions(20, 10), divisions(200, 100)], [Some(184_756), None]);
    }

    /// Noise of many subjects: of sixty pairs of sets that do not differ, few are said to.
    #[test]
    fn chance_alone_seldom_alarms() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut alarms = 0;
        for _ in 0..60 {
            let hypotheses: Vec<Hypothesis> = (0..12)
                .map(|_| {
                    let values = (0..10).map(|_| 1.0 + random.f64() + random.f64()).collect();
                    Hypothesis { values, noise: vec![0.01; 10], margin: 0.0 }
                })
                .collect();
            let resampling = Resampling::of(hypotheses.iter(), 5, 0.05, Sides::Both);
            alarms += usize::from(resampling.outcomes.iter().any(|outcome| outcome.p <= 0.05));
        }
        // Of sixty with a chance of one in twenty, eight or more are one case in a hundred.
        assert!(alarms <= 7, "{alarms}");
    }

    #[test]
    fn a_change_is_found_and_measured() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut side =
            |center: f64| -> Vec<f64> { (0..6).map(|_| center + 0.02 * (random.f64() - 0.5)).collect() };
        let values = [side(1.0), side(1.3)].concat();
        let change = Hypothesis { values, noise: vec![0.001; 12], margin: 0.0 };
        let values = [side(1.0), side(1.0)].concat();
        let none = Hypothesis { values, noise: vec![0.001; 12], margin: 0.0 };
        let allowed = Hypothesis { margin: 0.5, ..change.clone() };
        let outcome = Resampling::of([&change, &none].into_iter(), 6, 0.05, Sides::Both).outcomes;
        assert!(outcome[0].p <= 0.05 && outcome[1].p > 0.05, "{outcome:?}");
        assert!(outcome[0].interval.0 > 0.25 && outcome[0].interval.1 < 0.35, "{outcome:?}");
        assert!(outcome[0].detectable < 0.1);
        let outcome = Resampling::of([&allowed].into_iter(), 6, 0.05, Sides::Increases).outcomes[0];
        assert!(outcome.p > 0.9, "less than what is allowed is no increase: {outcome:?}");
    }

    /// Two runs a side have six divisions: nothing can be significant.
    #[test]
    fn few_runs_tell_nothing() {
        let values = vec![1.0, 1.0, 9.0, 9.0];
        let change = Hypothesis { values, noise: vec![0.001; 4], margin: 0.0 };
        let resampling = Resampling::of([&change].into_iter(), 2, 0.05, Sides::Both);
        assert!(resampling.smallest_p > 0.05);
        assert!(resampling.outcomes[0].p > 0.05);
        let one = Hypothesis { values: vec![1.0, 9.0], noise: vec![0.001; 2], margin: 0.0 };
        assert!(Resampling::of([&one].into_iter(), 1, 0.05, Sides::Both).outcomes[0].p > 0.05);
    }
}
