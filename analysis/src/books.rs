//! The books: what was taken and what was not, and whether that agrees with the samples that are there.

use std::collections::BTreeMap;

use profile::{CpuAccount, DomainId, LossCause, PhysCpu, Snapshot, VcpuTime, VcpuTimes};

use crate::report::{CpuReport, VcpuReport, seconds};

/// What the last snapshot says of the whole machine. Nothing, if there is none.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) taken: Option<u64>,
    pub(crate) filtered: Option<u64>,
    pub(crate) lost: BTreeMap<LossCause, u64>,
    pub(crate) idle_s: Option<f64>,
    pub(crate) quiet_s: Option<f64>,
    pub(crate) masked_s: Option<f64>,
    pub(crate) foreign_nmis: Option<u64>,
    /// The part of the CPUs' time that samples cost, and how many were taken in a second of it; none where the shim
    /// did not tell for how long the CPUs were awake.
    pub(crate) overhead: Option<f64>,
    pub(crate) taken_hz: Option<f64>,
    pub(crate) cpus: Vec<CpuReport>,
}

impl Books {
    pub(crate) fn of(snapshot: Option<&Snapshot>) -> Self {
        let Some(snapshot) = snapshot else { return Self::default() };
        let sum = |count: fn(&CpuAccount) -> u64| {
            snapshot.cpus.iter().fold(0, |sum: u64, (_, account)| sum.saturating_add(count(account)))
        };
        let awake = Some(sum(|account| account.awake_ns)).filter(|&ns| ns > 0).map(|ns| ns as f64);
        let mut lost = every_cause(&BTreeMap::new());
        for (cause, count) in snapshot.cpus.iter().flat_map(|(_, account)| &account.lost) {
            let sum = lost.entry(*cause).or_default();
            *sum = sum.saturating_add(*count);
        }
        Self {
            taken: Some(sum(|account| account.taken)),
            filtered: Some(sum(|account| account.filtered)),
            lost,
            idle_s: Some(seconds(snapshot.idle_ns)),
            quiet_s: Some(seconds(sum(|account| account.quiet_ns))),
            masked_s: Some(seconds(sum(|account| account.masked_ns))),
            foreign_nmis: Some(sum(|account| account.foreign)),
            overhead: awake.map(|awake| sum(|account| account.own_ns) as f64 / awake),
            taken_hz: awake.map(|awake| sum(|account| account.taken) as f64 * 1e9 / awake),
            cpus: snapshot.cpus.iter().map(|(cpu, account)| cpu_report(*cpu, account)).collect(),
        }
    }
}

fn cpu_report(PhysCpu(cpu): PhysCpu, account: &CpuAccount) -> CpuReport {
    let &CpuAccount { taken, written, filtered, ref lost, .. } = account;
    CpuReport { cpu, taken, written, filtered, lost: every_cause(lost) }
}

/// The counts with those that are missing as 0: that nothing was lost is said, not left to be guessed.
fn every_cause(lost: &BTreeMap<LossCause, u64>) -> BTreeMap<LossCause, u64> {
    LossCause::ALL.into_iter().map(|cause| (cause, lost.get(&cause).copied().unwrap_or(0))).collect()
}

/// The CPU time accounted to a domain over its boots; none where the books do not know it.
pub(crate) fn cpu_time(snapshot: Option<&Snapshot>, boots: &[DomainId]) -> Option<f64> {
    let times = snapshot?.domains.iter().filter(|time| boots.contains(&time.domain));
    times.map(|time| time.cpu_ns).reduce(u64::saturating_add).map(seconds)
}

/// What each vCPU of a domain did with its time over its boots.
pub(crate) fn vcpus(times: Option<&VcpuTimes>, boots: &[DomainId]) -> Vec<VcpuReport> {
    let mut sums: BTreeMap<u32, VcpuTime> = BTreeMap::new();
    let times = times.map_or(&[][..], |times| &times.vcpus);
    for time in times.iter().filter(|time| boots.contains(&time.vcpu.domain)) {
        let sum = sums.entry(time.vcpu.index);
        sum.and_modify(|sum| sum.add(time)).or_insert(*time);
    }
    let report = |(vcpu, time): (u32, VcpuTime)| VcpuReport {
        vcpu,
        running_s: seconds(time.running_ns),
        waiting_s: seconds(time.waiting_ns),
        blocked_s: seconds(time.blocked_ns),
    };
    sums.into_iter().map(report).collect()
}

/// The sequence numbers of the samples that one CPU has in the recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    bounds: Option<(u64, u64)>,
    samples: u64,
}

impl Sequence {
    pub(crate) fn add(&mut self, number: u64) {
        let (first, last) = self.bounds.unwrap_or((number, number));
        self.bounds = Some((first.min(number), last.max(number)));
        self.samples += 1;
    }

    /// Adds what was counted apart.
    pub(crate) fn join(&mut self, other: Self) {
        if let Some((first, last)) = other.bounds {
            let (own_first, own_last) = self.bounds.unwrap_or((first, last));
            self.bounds = Some((first.min(own_first), last.max(own_last)));
            self.samples += other.samples;
        }
    }

    /// How many samples are missing between the first and the last.
    fn missing(&self) -> u64 {
        self.bounds.map_or(0, |(first, last)| (last - first).saturating_sub(self.samples.saturating_sub(1)))
    }
}

/// Where the books of a finished recording contradict themselves or its samples, in sentences.
pub(crate) fn doubts(snapshot: Option<&Snapshot>, sequences: &BTreeMap<PhysCpu, Sequence>) -> Vec<String> {
    let Some(snapshot) = snapshot else {
        return vec!["the recording has no books: how many samples were lost is not known".to_owned()];
    };
    let none = Sequence::default();
    let mut doubts = Vec::new();
    for (cpu, account) in &snapshot.cpus {
        let sequence = sequences.get(cpu).unwrap_or(&none);
        if !account.balances() {
            doubts.push(format!(
                "the books of {cpu} do not balance: {} samples taken, {} written, {} filtered, {} lost",
                account.taken,
                account.written,
                account.filtered,
                account.lost_total()
            ));
        }
        if account.written != sequence.samples {
            let (written, samples) = (account.written, sequence.samples);
            doubts.push(format!(
                "the books of {cpu} have {written} samples written, the recording holds {samples}"
            ));
        }
        // Samples lost before the first or after the last leave no gap, so the books may know of more.
        let known = account.filtered.saturating_add(account.lost_total());
        if sequence.missing() > known {
            let missing = sequence.missing();
            doubts.push(format!("{missing} samples of {cpu} are missing, its books know of {known}"));
        }
    }
    let unknown = sequences.keys().filter(|cpu| snapshot.cpus.iter().all(|(known, _)| known != *cpu));
    doubts.extend(unknown.map(|cpu| format!("there are samples of {cpu}, but no books")));
    doubts
}
