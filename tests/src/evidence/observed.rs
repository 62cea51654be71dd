//! A recording, every sample of it.

use std::{collections::BTreeMap, path::Path};

use profile::{
    CpuAccount, DomainId, Frame, Mode, PhysCpu, Sample,
    recording::{Completeness, EndReason, Recorded, Recording},
};

use super::{bootstrap::Block, figures::figure};

/// A recording that was read.
pub struct Observed {
    /// In the order of the file.
    pub samples: Vec<Sample>,
    /// All the rest.
    pub recorded: Recorded,
}

impl Observed {
    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        let mut samples = Vec::new();
        let recording = Recording::open(path).unwrap();
        let recorded = recording.for_each_sample(|sample, _| samples.push(sample.clone())).unwrap();
        Self { samples, recorded }
    }

    /// The only boot of the domain of a name.
    pub fn domain(&self, name: &str) -> DomainId {
        let mut boots = self.recorded.tables.domains().filter(|domain| domain.name == name);
        let boot = boots.next().unwrap_or_else(|| panic!("{name} is not in the recording"));
        assert!(boots.next().is_none(), "{name} is in the recording twice");
        boot.id
    }

    /// The samples charged to a domain.
    pub fn samples_of(&self, domain: DomainId) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.charged_to == Some(domain))
    }

    /// Those of them that were taken in the domain's own code.
    pub fn own_samples_of(&self, domain: DomainId) -> impl Iterator<Item = &Sample> {
        self.samples_of(domain).filter(|sample| is_own(sample))
    }

    /// The samples of a mode of a domain, from the first one on that has a name.
    pub fn once_named(&self, domain: DomainId, mode: Mode) -> Vec<&Sample> {
        let samples = self.samples_of(domain).filter(|sample| sample.mode == mode);
        let from: Vec<_> = samples.skip_while(|sample| self.function(sample).is_none()).collect();
        let name = &self.recorded.tables.domain(domain).name;
        let first = from.first().unwrap_or_else(|| panic!("{name}: no {mode} sample is named"));
        let seconds = self.since_start(first) as f64 / 1e9;
        figure(format_args!("{name}, first named {mode} sample after"), format_args!("{seconds:.1} s"));
        from
    }

    /// Where a sample was taken.
    pub fn frame(&self, sample: &Sample) -> &Frame {
        let tables = &self.recorded.tables;
        tables.frame(tables.chain(sample.chain).frame)
    }

    /// The function in which a sample was taken, where it has a name.
    pub fn function(&self, sample: &Sample) -> Option<&str> {
        self.frame(sample).function.map(|name| self.recorded.tables.name(name))
    }

    /// The image that the interrupted instruction lies in.
    pub fn module(&self, sample: &Sample) -> Option<&str> {
        self.frame(sample).module.map(|name| self.recorded.tables.name(name))
    }

    /// What the process is called that was current.
    pub fn process_name(&self, sample: &Sample) -> Option<&str> {
        self.recorded.tables.process(sample.process?).name.as_deref()
    }

    /// What one of a domain's functions has of the weight of several, by blocks of time.
    pub fn blocks(&self, domain: DomainId, functions: &[String], wanted: &str, block_ns: u64) -> Vec<Block> {
        let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
        for sample in self.samples_of(domain) {
            let Some(name) = self.function(sample).filter(|name| functions.iter().any(|known| known == name))
            else {
                continue;
            };
            let block = blocks.entry(self.since_start(sample) / block_ns).or_default();
            block.whole += sample.weight as f64;
            if name == wanted {
                block.part += sample.weight as f64;
            }
        }
        blocks.into_values().collect()
    }

    /// Nanoseconds from the start of sampling.
    pub fn since_start(&self, sample: &Sample) -> u64 {
        let start = self.recorded.header.started;
        sample.time.0.checked_sub(start.0).expect("samples are taken after the start")
    }

    /// Why the recording ended; fails if it was cut.
    pub fn end(&self) -> &EndReason {
        match &self.recorded.completeness {
            Completeness::Whole(end) => &end.reason,
            other => panic!("the recording is not whole: {other:?}"),
        }
    }

    /// The books of all CPUs.
    pub fn accounts(&self) -> &[(PhysCpu, CpuAccount)] {
        &self.recorded.snapshot.as_ref().expect("books").cpus
    }

    /// Samples of a CPU in the order of the file.
    pub fn samples_on(&self, cpu: PhysCpu) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.cpu == cpu)
    }

    /// Fails unless every sample that was taken is in the file or counted as missing: the counts of the shim against
    /// the numbers that it gave to the samples.
    pub fn assert_balanced(&self) {
        for (cpu, account) in self.accounts() {
            assert_eq!(
                account.taken,
                account.written + account.filtered + account.lost_total(),
                "{cpu}: {account:?}"
            );
            let numbers: Vec<u64> = self.samples_on(*cpu).map(|sample| sample.sequence).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{cpu}: sequence numbers come twice or out of order");
            assert_eq!(numbers.len() as u64, account.written, "{cpu}: samples in the file");
            let gaps = gaps(&numbers, account.taken);
            assert_eq!(gaps, account.filtered + account.lost_total(), "{cpu}: numbers that are missing");
        }
    }
}

/// Whether a domain's sample was taken in its own code: neither in what the hypervisor did for it, nor in its backend.
pub fn is_own(sample: &Sample) -> bool {
    matches!(sample.mode, Mode::Kernel | Mode::User)
}

/// How many of the numbers from 0 to `taken` are not in a sorted list of them.
fn gaps(numbers: &[u64], taken: u64) -> u64 {
    let mut next = 0;
    let mut missing = 0;
    for &number in numbers {
        missing += number - next;
        next = number + 1;
    }
    assert!(next <= taken, "number {} was given, of {taken}", next - 1);
    missing + (taken - next)
}

#[test]
fn gaps_are_counted_before_between_and_after() {
    assert_eq!(gaps(&[0, 1, 2], 3), 0);
    assert_eq!(gaps(&[1, 2, 5], 8), 5);
    assert_eq!(gaps(&[], 4), 4);
}
