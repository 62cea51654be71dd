//! What was taken and what was not, kept while recording.

use std::{collections::BTreeMap, io::Write, time::SystemTime};

use hv_shim::{Sampling, VcpuClock};
use profile::{
    CpuAccount, PhysCpu, Snapshot, Time, VcpuId, VcpuTime, VcpuTimes,
    recording::{Note, Writer},
};

use crate::domains::Domains;

/// The books of a session.
pub(crate) struct Books {
    cpus: Vec<PhysCpu>,
    /// Samples left out by the user's wish, by ring: the shim has handed them out.
    filtered: Vec<u64>,
    /// Those that are in the recording.
    written: Vec<u64>,
    /// By CPU, when it was last looked at; 0 while the CPU is offline.
    idle_seen: Vec<u64>,
    idle_ns: u64,
    /// Of dead vCPUs, what was known last.
    vcpus: BTreeMap<VcpuId, VcpuTime>,
}

/// The wall clock, in nanoseconds since 1970.
pub(crate) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Sums over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) written: u64,
    pub(crate) lost: u64,
}

impl Books {
    pub(crate) fn new(cpus: Vec<PhysCpu>, idle_seen: Vec<u64>) -> Self {
        let none = || vec![0; cpus.len()];
        Self { filtered: none(), written: none(), cpus, idle_seen, idle_ns: 0, vcpus: BTreeMap::new() }
    }

    pub(crate) fn filter(&mut self, ring: usize) {
        self.filtered[ring] += 1;
    }

    pub(crate) fn write(&mut self, ring: usize) {
        self.written[ring] += 1;
    }

    /// Takes the CPUs' idle times as the hypervisor shows them now.
    pub(crate) fn update_idle(&mut self, idle_ns: &[u64]) {
        // Xen's account goes on while a CPU is offline, and is seen when it is back: that time is nobody's.
        let known = idle_ns.iter().zip(&self.idle_seen).filter(|&(&now, &seen)| now != 0 && seen != 0);
        self.idle_ns += known.map(|(now, seen)| now.saturating_sub(*seen)).sum::<u64>();
        self.idle_seen.clear();
        self.idle_seen.extend_from_slice(idle_ns);
    }

    fn account(&self, ring: usize, sampling: &dyn Sampling) -> CpuAccount {
        let mut account = sampling.account(ring);
        account.filtered += self.filtered[ring];
        account.written -= self.filtered[ring];
        account
    }

    pub(crate) fn snapshot(&self, time: Time, domains: &Domains, sampling: &dyn Sampling) -> Snapshot {
        let account = |(ring, cpu): (usize, &PhysCpu)| (*cpu, self.account(ring, sampling));
        Snapshot {
            time,
            unix_ns: unix_ns(),
            cpus: self.cpus.iter().enumerate().map(account).collect(),
            idle_ns: self.idle_ns,
            domains: domains.times(),
        }
    }

    /// The same for the end of a file that is continued in another one: samples that wait will be in that, and of its books.
    pub(crate) fn snapshot_of_file(
        &self,
        time: Time,
        domains: &Domains,
        sampling: &dyn Sampling,
    ) -> Snapshot {
        let mut snapshot = self.snapshot(time, domains, sampling);
        for ((_, account), &written) in snapshot.cpus.iter_mut().zip(&self.written) {
            let waiting = account.written.saturating_sub(written);
            (account.taken, account.written) = (account.taken - waiting, written);
        }
        snapshot
    }

    /// What all vCPUs did with their time, given what those that are there did; none where nothing is known of any.
    pub(crate) fn vcpu_times(
        &mut self,
        time: Time,
        clocks: &[VcpuClock],
        domains: &Domains,
    ) -> Option<VcpuTimes> {
        for &VcpuClock { domain, index, running_ns, waiting_ns, blocked_ns } in clocks {
            // What was known last of one that has just died is still to be told.
            let domain = domains.last_of_number(domain).filter(|&id| domains.is_wanted(Some(id)));
            if let Some(vcpu) = domain.map(|domain| VcpuId { domain, index }) {
                self.vcpus.insert(vcpu, VcpuTime { vcpu, running_ns, waiting_ns, blocked_ns });
            }
        }
        (!self.vcpus.is_empty()).then(|| VcpuTimes { time, vcpus: self.vcpus.values().copied().collect() })
    }

    /// Notes whatever does not balance once all has been read: the counts of the shim against the sequence numbers
    /// that arrived. What the shim itself has filtered never arrives; what is filtered here has.
    pub(crate) fn check<W: Write>(&self, snapshot: &Snapshot, sequences: &Sequences, writer: &mut Writer<W>) {
        for ((cpu, account), filtered_here) in snapshot.cpus.iter().zip(&self.filtered) {
            let missing = sequences.missing(*cpu, account.taken);
            let expected = account.lost_total() + account.filtered - filtered_here;
            if !account.balances() || missing != expected {
                let text = format!(
                    "the books of {cpu} do not balance: {} samples taken, {} written, {} filtered, {} counted as lost, \
                     {missing} missing by their sequence numbers",
                    account.taken,
                    account.written,
                    account.filtered,
                    account.lost_total(),
                );
                writer.note(Note { time: snapshot.time, text });
            }
        }
    }

    pub(crate) fn totals(&self, sampling: &dyn Sampling) -> Totals {
        let accounts = (0..self.cpus.len()).map(|ring| self.account(ring, sampling));
        accounts.fold(Totals::default(), |sum, account| Totals {
            written: sum.written + account.written,
            lost: sum.lost + account.lost_total(),
        })
    }
}

/// Which sequence numbers have arrived from each CPU.
#[derive(Default)]
pub(crate) struct Sequences(BTreeMap<PhysCpu, Arrived>);

#[derive(Default)]
struct Arrived {
    next: u64,
    missing: u64,
}

impl Sequences {
    /// Takes a sample's number. Numbers that come twice or late can only be damage, and make the books not balance.
    pub(crate) fn arrive(&mut self, cpu: PhysCpu, sequence: u64) {
        let arrived = self.0.entry(cpu).or_default();
        arrived.missing = arrived.missing.wrapping_add(sequence.wrapping_sub(arrived.next));
        arrived.next = sequence.wrapping_add(1);
    }

    /// How many of `taken` samples never arrived.
    fn missing(&self, cpu: PhysCpu, taken: u64) -> u64 {
        match self.0.get(&cpu) {
            Some(arrived) => arrived.missing.wrapping_add(taken.wrapping_sub(arrived.next)),
            None => taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use profile::recording::{End, EndReason, Header, Host, Recording};

    use super::*;

    #[test]
    fn gaps_in_the_sequence_are_what_is_missing() {
        let mut sequences = Sequences::default();
        for sequence in [0, 1, 4, 5, 9] {
            sequences.arrive(PhysCpu(3), sequence);
        }
        // 2, 3, 6, 7, 8 and, of twelve taken, 10 and 11.
        assert_eq!(sequences.missing(PhysCpu(3), 12), 7);
        assert_eq!(sequences.missing(PhysCpu(0), 5), 5);
    }

    /// Three were filtered by the shim, whose numbers never come; one here, whose number came.
    #[test]
    fn what_is_filtered_on_either_side_balances() {
        let header = Header {
            tool: String::new(),
            started_unix_ns: 0,
            started: Time(0),
            host: Host {
                hypervisor: String::new(),
                build_id: None,
                kernel: String::new(),
                hostname: String::new(),
                cpus: 1,
            },
            events: Vec::new(),
            command: None,
            options: BTreeMap::new(),
        };
        let mut books = Books::new(vec![PhysCpu(0)], Vec::new());
        books.filter(0);
        let mut sequences = Sequences::default();
        [0, 4, 5].iter().for_each(|&sequence| sequences.arrive(PhysCpu(0), sequence));
        let noted = |taken| {
            let account = CpuAccount { taken, written: 2, filtered: 4, ..CpuAccount::default() };
            let snapshot = Snapshot {
                time: Time(0),
                unix_ns: 0,
                cpus: vec![(PhysCpu(0), account)],
                idle_ns: 0,
                domains: Vec::new(),
            };
            let mut writer = Writer::new(Vec::new(), &header).unwrap();
            books.check(&snapshot, &sequences, &mut writer);
            writer.flush().unwrap();
            let file = writer.finish(End { time: Time(0), reason: EndReason::Duration }).unwrap();
            let recorded = Recording::read(&*file).unwrap().for_each_sample(|_, _| ()).unwrap();
            recorded.notes.iter().any(|note| note.text.contains("do not balance"))
        };
        assert!(!noted(6));
        assert!(noted(7));
    }

    #[test]
    fn a_cpu_that_is_offline_does_not_idle() {
        let mut books = Books::new(vec![PhysCpu(0), PhysCpu(1)], vec![100, 0]);
        for idle in [[110, 0], [120, 90_000], [130, 90_005], [140, 0], [150, 95_000]] {
            books.update_idle(&idle);
        }
        assert_eq!(books.idle_ns, 50 + 5);
    }
}
