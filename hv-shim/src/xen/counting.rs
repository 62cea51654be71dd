//! What is to be sampled: from a request and the processor to the payload's settings, and back to events.

use abi::pmu::{EventConfig, MODE_HYPERVISOR, MODE_KERNEL, MODE_USER, MODES, Unusable};
use profile::{CpuAccount, Event, Source};

use super::processor::Processor;
use crate::{
    PmuTrust, Request, ShimError,
    events::{Counted, EventError, EventSpec, Modes, PERIODS},
};

/// Rates beyond it are not what a timer or an NMI can do.
const RATES_HZ: std::ops::RangeInclusive<f64> = 0.1..=20_000.0;

/// Where a rate is asked for, the first period: soon over, and then the rate is known.
const FIRST_PERIOD: u64 = 10_000;

/// What is to be sampled.
pub(super) struct Counting {
    /// What the counters are to sample; empty where the timer does.
    counters: Vec<(EventSpec, EventConfig)>,
    /// What the timer samples where the counters don't serve; none where it could not stand in for them.
    timer: Option<EventSpec>,
    /// None where a period was asked for.
    rate_hz: Option<f64>,
}

impl Counting {
    pub(super) fn plan(request: &Request, processor: &Processor) -> Result<Self, ShimError> {
        if !RATES_HZ.contains(&request.rate_hz) {
            let (low, high) = (RATES_HZ.start(), RATES_HZ.end());
            return Err(ShimError::Request(format!(
                "a rate of {} Hz is out of range: {low} to {high} Hz can be sampled",
                request.rate_hz
            )));
        }
        if let Some(period) = request.period.filter(|period| !PERIODS.contains(period)) {
            return Err(EventError::Period(period).into());
        }
        let clock = |modes| EventSpec { name: "cpu-clock".into(), counted: Counted::CpuClock, modes };
        let (wanted, timer) = match request.events.as_slice() {
            [] => {
                let cycles = EventSpec { name: "cycles".into(), counted: Counted::Cycles, modes: Modes::ALL };
                let has_cycles = processor.selector(Counted::Cycles).is_some();
                (has_cycles.then_some(cycles).into_iter().collect(), Some(clock(Modes::ALL)))
            }
            [spec] if spec.counted == Counted::CpuClock => (Vec::new(), Some(spec.clone())),
            // Time is not what was asked for, but the next best.
            [spec] if spec.counted == Counted::Cycles => (vec![spec.clone()], Some(clock(spec.modes))),
            specs => (specs.to_vec(), None),
        };
        if request.period.is_some() && wanted.is_empty() {
            return Err(EventError::PeriodOfClock.into());
        }
        let config = |spec: EventSpec| -> Result<_, ShimError> {
            let config = EventConfig {
                selector: processor.selector_of(&spec)?,
                period: request.period.unwrap_or(FIRST_PERIOD),
                interval_ns: request.period.map_or((1e9 / request.rate_hz) as u64, |_| 0),
                modes: modes(spec.modes),
            };
            Ok((spec, config))
        };
        let counters = match request.pmu_trust {
            PmuTrust::Never if timer.is_none() => {
                return Err(ShimError::Request(
                    "these events need the performance counters, which are not to be trusted".into(),
                ));
            }
            PmuTrust::Never => Vec::new(),
            PmuTrust::Auto | PmuTrust::Assume => wanted.into_iter().map(config).collect::<Result<_, _>>()?,
        };
        Ok(Self { counters, timer, rate_hz: request.period.is_none().then_some(request.rate_hz) })
    }

    /// What the payload is told of the counters.
    pub(super) fn configs(&self) -> Vec<EventConfig> {
        self.counters.iter().map(|(_, config)| *config).collect()
    }

    /// In which modes the timer's samples are wanted.
    pub(super) fn timer_modes(&self) -> u64 {
        self.timer.as_ref().map_or(MODES, |spec| modes(spec.modes))
    }

    /// The payload's answer: the timer takes over, with a note, or there is nothing to sample.
    pub(super) fn without_counters(&mut self, why: Unusable) -> Result<Option<String>, ShimError> {
        if self.timer.is_none() {
            return Err(ShimError::Request(format!(
                "the performance counters can't be used: {}; `-e cpu-clock` samples by the timer",
                why.reason()
            )));
        }
        let was_asked = !std::mem::take(&mut self.counters).is_empty();
        Ok(was_asked.then(|| {
            format!(
                "time was sampled by the timer, because the performance counters can't be used: {}",
                why.reason()
            )
        }))
    }

    /// The events as they are sampled.
    pub(super) fn events(&self, timer_hz: f64) -> Vec<Event> {
        let by_timer = |spec: &EventSpec| Event {
            name: spec.name.clone(),
            unit: spec.counted.unit().into(),
            source: Source::Timer,
            rate_hz: timer_hz,
        };
        if self.counters.is_empty() {
            return self.timer.iter().map(by_timer).collect();
        }
        let by_counter = |(spec, _): &(EventSpec, EventConfig)| Event {
            name: spec.name.clone(),
            unit: spec.counted.unit().into(),
            source: Source::Pmu,
            rate_hz: self.rate_hz.unwrap_or(0.0),
        };
        self.counters.iter().map(by_counter).collect()
    }

    /// What must be known of how counters were shared; `slices` as in [`abi::control::ControlPage::slices`].
    pub(super) fn shares(&self, slices: [u64; 2]) -> Option<String> {
        let bytes: Vec<u8> = slices.iter().flat_map(|word| word.to_le_bytes()).collect();
        let all = bytes[0];
        if self.counters.is_empty() || all < 2 {
            return None;
        }
        let shares = self.counters.iter().zip(&bytes[1..]);
        let shares: Vec<String> = shares
            .map(|((spec, _), &slices)| {
                let scale = f64::from(all) / f64::from(slices.max(1));
                format!("{} {:.0} % (weights times {scale:.2})", spec.name, 100.0 / scale)
            })
            .collect();
        Some(format!(
            "the events took turns on the counters, each for a part of the time: {}",
            shares.join(", ")
        ))
    }

    /// What must be known of how it went. `shortest_ns` is how far the samples of some CPU had to be apart for what they
    /// cost.
    pub(super) fn outcome(
        &self,
        cpus: &[CpuAccount],
        max_overhead: Option<f64>,
        shortest_ns: u64,
    ) -> Vec<String> {
        let sum = |count: fn(&CpuAccount) -> u64| cpus.iter().map(count).sum::<u64>() as f64;
        let awake_s = sum(|cpu| cpu.awake_ns) / 1e9;
        let mut notes = Vec::new();
        let events = self.counters.len().max(1) as f64;
        let came = sum(|cpu| cpu.taken) / awake_s.max(1e-9) / events;
        // All events of a CPU share what samples may cost.
        let bound_hz = 1e9 / (shortest_ns as f64 * events);
        let (is_bounded, instead) = match self.rate_hz {
            Some(hz) => (bound_hz * 1.05 < hz, format!("instead of the {hz:.0} Hz asked for")),
            // Whether the period was kept shows only in that the samples are as close as they may be.
            None => (bound_hz < came * 1.25, "and not at each end of the period asked for".into()),
        };
        if let Some(part) = max_overhead
            && awake_s > 0.0
            && is_bounded
        {
            notes.push(format!(
                "samples were taken at {came:.0} Hz {instead}, because they may cost {} % of each CPU's time \
                 (--max-overhead); they have cost {:.2} %",
                part * 100.0,
                sum(|cpu| cpu.own_ns) / awake_s / 1e7,
            ));
        }
        let masked_s = sum(|cpu| cpu.masked_ns) / 1e9;
        if masked_s > 0.0 {
            notes.push(format!(
                "counters were silent for {masked_s:.3} s of CPU time, because somebody else had masked or stopped them"
            ));
        }
        notes
    }
}

fn modes(modes: Modes) -> u64 {
    let when = |wanted, bit| if wanted { bit } else { 0 };
    when(modes.hypervisor, MODE_HYPERVISOR) | when(modes.kernel, MODE_KERNEL) | when(modes.user, MODE_USER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::hypercalls::CpuidLeaf;

    fn processor(vendor: &str) -> Processor {
        let word = |at: usize| u32::from_le_bytes(vendor.as_bytes()[at..at + 4].try_into().unwrap());
        let leaf = |leaf, registers| CpuidLeaf { leaf, subleaf: u32::MAX, registers };
        Processor::of(&[leaf(0, [1, word(0), word(8), word(4)]), leaf(1, [0x0010_0f42, 0, 0, 0])])
    }

    fn refused(request: &Request) -> String {
        let planned = Counting::plan(request, &processor("AuthenticAMD"));
        planned.err().expect("a refusal").to_string()
    }

    #[test]
    fn without_a_wish_cycles_are_counted_and_time_stands_in() {
        let amd = processor("AuthenticAMD");
        let mut counting = Counting::plan(&Request::at_100_hz(""), &amd).unwrap();
        let expected = EventConfig { selector: 0x76, period: 10_000, interval_ns: 10_000_000, modes: MODES };
        assert_eq!(counting.configs(), [expected]);
        let [event] = &counting.events(99.0)[..] else { panic!("one event") };
        assert_eq!((event.name.as_str(), event.source, event.rate_hz), ("cycles", Source::Pmu, 100.0));
        let note = counting.without_counters(Unusable::NotCounting).unwrap().unwrap();
        assert!(note.ends_with("they do not count"), "{note}");
        let [event] = &counting.events(99.0)[..] else { panic!("one event") };
        assert_eq!((event.name.as_str(), event.source, event.rate_hz), ("cpu-clock", Source::Timer, 99.0));
        // A processor of which nothing is known.
        let counting = Counting::plan(&Request::at_100_hz(""), &processor("CentaurHauls")).unwrap();
        assert!(counting.configs().is_empty());
    }

    #[test]
    fn what_a_timer_cannot_sample_is_refused_without_counters() {
        let amd = processor("AuthenticAMD");
        let mut counting = Counting::plan(&Request::at_100_hz("cache-misses:k,instructions"), &amd).unwrap();
        let [misses, instructions] = counting.configs()[..] else { panic!("two events") };
        assert_eq!((misses.selector, misses.modes), (0x077e, MODE_KERNEL));
        assert_eq!(instructions.selector, 0xc0);
        let error = counting.without_counters(Unusable::Vpmu).unwrap_err().to_string();
        assert!(error.contains("lends them to guests") && error.contains("-e cpu-clock"), "{error}");
        let never = Request { pmu_trust: PmuTrust::Never, ..Request::at_100_hz("cache-misses") };
        assert!(refused(&never).contains("not to be trusted"));
    }

    #[test]
    fn bad_requests_are_refused_before_anything_is_loaded() {
        assert!(refused(&Request { rate_hz: 50_000.0, ..Request::at_100_hz("") }).contains("out of range"));
        assert!(
            refused(&Request { period: Some(10), ..Request::at_100_hz("cycles") })
                .contains("1000 to 2147483647")
        );
        assert!(
            refused(&Request { period: Some(100_000), ..Request::at_100_hz("cpu-clock") })
                .contains("no period")
        );
        assert!(refused(&Request::at_100_hz("ref-cycles")).contains("has no event for ref-cycles"));
    }

    #[test]
    fn a_rate_that_was_not_kept_is_told() {
        let counting = Counting::plan(&Request::at_100_hz("r1,r2"), &processor("AuthenticAMD")).unwrap();
        let cpu = |taken| CpuAccount {
            taken,
            awake_ns: 2_000_000_000,
            own_ns: 19_000_000,
            ..CpuAccount::default()
        };
        assert_eq!(counting.outcome(&[cpu(390), cpu(390)], Some(0.01), 4_000_000), [""; 0]);
        let told = counting.outcome(&[cpu(100), cpu(100)], Some(0.01), 20_000_000);
        assert!(
            told[0].contains("at 25 Hz instead of the 100 Hz") && told[0].ends_with("cost 0.95 %"),
            "{told:?}"
        );
        let masked = CpuAccount { masked_ns: 1_500_000, ..CpuAccount::default() };
        assert!(counting.outcome(&[masked], None, 0)[0].contains("0.002 s"));
    }

    #[test]
    fn how_counters_are_shared_is_told() {
        let counting =
            Counting::plan(&Request::at_100_hz("r1,r2,r3,r4,r5"), &processor("AuthenticAMD")).unwrap();
        assert_eq!(counting.shares([0x0001_0101_0101, 0]), None);
        let told = counting.shares([0x0101_0202_0202, 0]).unwrap();
        assert!(
            told.ends_with(
                "r3 100 % (weights times 1.00), r4 50 % (weights times 2.00), r5 50 % (weights times 2.00)"
            ),
            "{told}"
        );
    }
}
