//! The books as they go on: how many samples come, how many are lost, what they cost.

use std::collections::{BTreeMap, HashMap, VecDeque};

use profile::{CpuAccount, DomainId, LossCause, Snapshot, VcpuTimes};

/// Rates are over at least this time.
const SPAN_NS: u64 = 2_000_000_000;

/// Sums over all CPUs at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    time: u64,
    taken: u64,
    lost: u64,
    quiet_ns: u64,
    awake_ns: u64,
    own_ns: u64,
    idle_ns: u64,
}

impl Totals {
    fn of(snapshot: &Snapshot) -> Self {
        let sum = |count: fn(&CpuAccount) -> u64| {
            snapshot.cpus.iter().fold(0u64, |sum, (_, account)| sum.saturating_add(count(account)))
        };
        Self {
            time: snapshot.time.0,
            taken: sum(|account| account.taken),
            lost: sum(CpuAccount::lost_total),
            quiet_ns: sum(|account| account.quiet_ns),
            awake_ns: sum(|account| account.awake_ns),
            own_ns: sum(|account| account.own_ns),
            idle_ns: snapshot.idle_ns,
        }
    }
}

/// What the status line says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Samples taken a second, of all CPUs; none before the first two books.
    pub taken_hz: Option<f64>,
    /// Samples lost since sampling began.
    pub lost: u64,
    /// Samples taken since sampling began.
    pub taken: u64,
    /// The part of the samples of the last seconds that was lost.
    pub losing: f64,
    /// The part of the CPUs' time awake that samples cost; none where that is not measured.
    pub overhead: Option<f64>,
    /// The part of the CPUs' time in which no domain ran.
    pub idle: Option<f64>,
}

/// What a new snapshot tells that is worth a line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    Lost { count: u64, causes: BTreeMap<LossCause, u64> },
    Quiet { ns: u64 },
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    points: VecDeque<Totals>,
    lost: BTreeMap<LossCause, u64>,
    cpus: usize,
    /// The domains' CPU times of the last seconds, the oldest first.
    times: VecDeque<(u64, HashMap<DomainId, u64>)>,
    /// For how long domains' vCPUs waited for a CPU, and all that they did, up to some moments of the last seconds.
    waits: VecDeque<(u64, HashMap<DomainId, Wait>)>,
}

/// Nanoseconds, of all vCPUs of a domain.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    waiting: u64,
    all: u64,
}

impl Books {
    pub(crate) fn take(&mut self, snapshot: &Snapshot) -> Vec<News> {
        let totals = Totals::of(snapshot);
        let before = self.points.back().copied().unwrap_or_default();
        let mut news = Vec::new();
        let mut lost: BTreeMap<LossCause, u64> = BTreeMap::new();
        for (cause, count) in snapshot.cpus.iter().flat_map(|(_, account)| &account.lost) {
            let sum = lost.entry(*cause).or_default();
            *sum = sum.saturating_add(*count);
        }
        if totals.lost > before.lost {
            let more = |(cause, count): (&LossCause, &u64)| {
                let count = count.saturating_sub(self.lost.get(cause).copied().unwrap_or(0));
                (count > 0).then_some((*cause, count))
            };
            let causes = lost.iter().filter_map(more).collect();
            news.push(News::Lost { count: totals.lost - before.lost, causes });
        }
        if totals.quiet_ns > before.quiet_ns {
            news.push(News::Quiet { ns: totals.quiet_ns - before.quiet_ns });
        }
        self.lost = lost;
        self.cpus = snapshot.cpus.len();
        self.points.push_back(totals);
        let times = snapshot.domains.iter().map(|time| (time.domain, time.cpu_ns)).collect();
        self.times.push_back((totals.time, times));
        let is_old = |time: Option<u64>| time.is_some_and(|time| totals.time.saturating_sub(time) >= SPAN_NS);
        while is_old(self.points.get(1).map(|point| point.time)) {
            self.points.pop_front();
            self.times.pop_front();
        }
        news
    }

    /// Takes what vCPUs did with their time.
    pub(crate) fn take_vcpu_times(&mut self, times: &VcpuTimes) {
        let mut waits: HashMap<DomainId, Wait> = HashMap::new();
        for time in &times.vcpus {
            let wait = waits.entry(time.vcpu.domain).or_default();
            wait.waiting = wait.waiting.saturating_add(time.waiting_ns);
            for part in [time.running_ns, time.waiting_ns, time.blocked_ns] {
                wait.all = wait.all.saturating_add(part);
            }
        }
        self.waits.push_back((times.time.0, waits));
        while self.waits.get(1).is_some_and(|(time, _)| times.time.0.saturating_sub(*time) >= SPAN_NS) {
            self.waits.pop_front();
        }
    }

    /// Whether it is known for how long vCPUs wait.
    pub(crate) fn knows_waits(&self) -> bool {
        !self.waits.is_empty()
    }

    /// The part of its vCPUs' time in which they waited for a CPU, in the last seconds.
    pub(crate) fn waiting(&self, domain: DomainId) -> Option<f64> {
        let ((_, first), (_, last)) = (self.waits.front()?, self.waits.back()?);
        let last = last.get(&domain)?;
        let first = first.get(&domain).copied().filter(|_| self.waits.len() > 1).unwrap_or_default();
        let all = last.all.saturating_sub(first.all);
        (all > 0).then(|| last.waiting.saturating_sub(first.waiting) as f64 / all as f64)
    }

    pub(crate) fn rates(&self) -> Rates {
        let Some(last) = self.points.back() else { return Rates::default() };
        // The first books count from the beginning of sampling, whose time they do not tell.
        let first = self.points.front().filter(|first| first.time < last.time);
        let part = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        Rates {
            taken_hz: first
                .and_then(|first| part(last.taken.saturating_sub(first.taken), last.time - first.time))
                .map(|per_ns| per_ns * 1e9),
            lost: last.lost,
            taken: last.taken,
            losing: first
                .and_then(|first| {
                    part(last.lost.saturating_sub(first.lost), last.taken.saturating_sub(first.taken))
                })
                .unwrap_or(0.0),
            overhead: part(last.own_ns, last.awake_ns),
            idle: first.and_then(|first| {
                part(
                    last.idle_ns.saturating_sub(first.idle_ns),
                    (last.time - first.time).saturating_mul(self.cpus as u64),
                )
            }),
        }
    }

    /// How many CPUs' worth of time a domain has had in the last seconds, by the hypervisor's account.
    pub(crate) fn cpus_used(&self, domain: DomainId) -> Option<f64> {
        let ((from, first), (until, last)) = (self.times.front()?, self.times.back()?);
        // One that was born meanwhile began with nothing.
        let used = last.get(&domain)?.saturating_sub(first.get(&domain).copied().unwrap_or(0));
        (until > from).then(|| used as f64 / (until - from) as f64)
    }
}

/// What was lost for which cause, in words.
pub(crate) fn in_words(causes: &BTreeMap<LossCause, u64>) -> String {
    causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use profile::{PhysCpu, Time, VcpuId, VcpuTime};

    use super::*;

    fn snapshot(seconds: u64, taken: u64, lost: u64) -> Snapshot {
        let account = CpuAccount {
            taken,
            written: taken - lost,
            lost: BTreeMap::from([(LossCause::RingFull, lost)]),
            awake_ns: seconds * 500_000_000,
            own_ns: seconds * 5_000_000,
            ..CpuAccount::default()
        };
        Snapshot {
            time: Time(seconds * 1_000_000_000),
            unix_ns: 0,
            cpus: vec![(PhysCpu(0), account)],
            idle_ns: seconds * 250_000_000,
            domains: Vec::new(),
        }
    }

    #[test]
    fn waiting_is_of_the_last_seconds_and_of_all_vcpus() {
        let mut books = Books::default();
        let domain = DomainId(3);
        assert!(!books.knows_waits());
        // One always runs; the other waits for half of its time from the fifth second on.
        for second in 1..=8u64 {
            let waited = second.saturating_sub(4) * 500_000_000;
            let time = |index, running_ns, waiting_ns| VcpuTime {
                vcpu: VcpuId { domain, index },
                running_ns,
                waiting_ns,
                blocked_ns: 0,
            };
            let whole = second * 1_000_000_000;
            let vcpus = vec![time(0, whole, 0), time(1, whole - waited, waited)];
            books.take_vcpu_times(&VcpuTimes { time: Time(whole), vcpus });
            let expected = if second > 5 {
                0.25
            } else if second == 5 {
                0.125
            } else {
                0.0
            };
            assert_eq!(books.waiting(domain), Some(expected), "after {second} s");
        }
        assert_eq!(books.waiting(DomainId(4)), None);
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_totals_of_all() {
        let mut books = Books::default();
        assert!(books.take(&snapshot(1, 1000, 0)).is_empty());
        assert_eq!(books.rates().taken_hz, None);
        for second in 2..=10 {
            books.take(&snapshot(second, second * 1000, 0));
        }
        let news = books.take(&snapshot(11, 11_000, 250));
        let causes = BTreeMap::from([(LossCause::RingFull, 250)]);
        assert_eq!(news, [News::Lost { count: 250, causes }]);
        let rates = books.rates();
        assert_eq!((rates.taken_hz, rates.taken, rates.lost), (Some(1000.0), 11_000, 250));
        assert_eq!((rates.losing, rates.overhead, rates.idle), (0.125, Some(0.01), Some(0.25)));
    }
}
