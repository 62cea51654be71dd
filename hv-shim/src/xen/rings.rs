//! The shim's pages, mapped: from the control page down to each ring's data.

use abi::{
    Ordering, PAGE_WORDS,
    control::{
        CLOCK_XEN_SYSTEM_TIME, ControlPage, LIST_ENTRIES, LeasePage, MAGIC, METADATA_CONTROL,
        METADATA_REFUSED,
        directory::{self, MAX_DATA_PAGES},
    },
    record::{self, DOMAIN_IDLE, KIND_SAMPLE, Sample},
    ring::{Consumer, ConsumerPage, Loss, RingHeader, WATERMARK_ASLEEP},
};
use profile::{AddressSpaceRoot, CpuAccount, EventId, LossCause, Mode, PhysCpu, Time};

use super::{
    backends::Backends,
    callers::Functions,
    captured,
    privcmd::{Access, Mapping, Privcmd},
};
use crate::{Owner, ProcessKey, Record, ShimError, Taken, Watermark};

/// The domain that owns Xen's own shared pages.
const DOMID_XEN: u16 = 0x7ff2;

/// The domain whose threads are known.
const DOM0: u32 = 0;

/// More rings than any machine has CPUs: a damaged control page must not keep us busy.
const MOST_RINGS: u64 = 4096;

/// All that the shim shares.
pub(super) struct Shared {
    control: Mapping,
    lease: Mapping,
    pub(super) rings: Vec<Ring>,
}

impl Shared {
    /// Maps everything, from what the payload's metadata says.
    pub(super) fn map(privcmd: &Privcmd, metadata: &str) -> Result<Self, ShimError> {
        let (control, lease) = map_control(privcmd, metadata)?;
        let page: &ControlPage = control.page();
        let count = page.rings.load(Ordering::Relaxed);
        if count > MOST_RINGS {
            return Err(contract(format!("{count} rings")));
        }
        let mut rings = Vec::new();
        let mut list = page.list.load(Ordering::Relaxed);
        while (rings.len() as u64) < count {
            let mapped = map(privcmd, "the list of rings", &[list], Access::ReadOnly)?;
            let word = |place: usize| mapped.words()[place].load(Ordering::Relaxed);
            for place in 0..LIST_ENTRIES.min((count - rings.len() as u64) as usize) {
                rings.push(Ring::map(privcmd, word(place))?);
            }
            list = word(LIST_ENTRIES);
        }
        Ok(Self { control, lease, rings })
    }

    pub(super) fn control(&self) -> &ControlPage {
        self.control.page()
    }

    pub(super) fn lease(&self) -> &LeasePage {
        self.lease.page()
    }
}

fn map_control(privcmd: &Privcmd, metadata: &str) -> Result<(Mapping, Mapping), ShimError> {
    let frame = control_frame(metadata)?;
    let control = map(privcmd, "the control page", &[frame], Access::ReadOnly)?;
    let page: &ControlPage = control.page();
    let (magic, version) = (page.magic.load(Ordering::Acquire), page.version.load(Ordering::Relaxed));
    if magic != MAGIC || version != abi::VERSION {
        return Err(contract(format!("version {version}, magic {magic:#x}")));
    }
    let clock = page.clock.load(Ordering::Relaxed);
    if clock != CLOCK_XEN_SYSTEM_TIME {
        return Err(contract(format!("clock {clock}")));
    }
    let lease = map(privcmd, "the lease", &[page.lease.load(Ordering::Relaxed)], Access::Writable)?;
    Ok((control, lease))
}

/// Reads the payload's metadata.
fn control_frame(metadata: &str) -> Result<u64, ShimError> {
    if let Some((_, reason)) = metadata.split_once(METADATA_REFUSED) {
        return Err(ShimError::Refused { reason: reason.to_owned() });
    }
    metadata
        .split_once(METADATA_CONTROL)
        .and_then(|(_, rest)| u64::from_str_radix(rest.split_whitespace().next()?, 16).ok())
        .ok_or_else(|| contract(format!("its metadata reads {metadata:?}")))
}

fn map(privcmd: &Privcmd, what: &str, frames: &[u64], access: Access) -> Result<Mapping, ShimError> {
    privcmd.map(DOMID_XEN, frames, access).map_err(ShimError::io(format!("mapping {what} of the shim")))
}

fn contract(what: String) -> ShimError {
    ShimError::Contract { what }
}

/// One CPU's ring.
pub(super) struct Ring {
    header: Mapping,
    consumer_page: Mapping,
    data: Mapping,
    consumer: Consumer,
    cpu: PhysCpu,
    read: u64,
    /// Words that were there when it was drained last.
    last_words: usize,
    unreadable: u64,
    damaged: bool,
}

impl Ring {
    fn map(privcmd: &Privcmd, frame: u64) -> Result<Self, ShimError> {
        let mapped = map(privcmd, "a ring's directory", &[frame], Access::ReadOnly)?;
        let word = |place: usize| mapped.words()[place].load(Ordering::Relaxed);
        let pages = word(directory::DATA_PAGES);
        if !pages.is_power_of_two() || pages > MAX_DATA_PAGES as u64 {
            return Err(contract(format!("a ring of {pages} pages")));
        }
        let frames: Vec<u64> = (0..pages as usize).map(|page| word(directory::DATA + page)).collect();
        let header = map(privcmd, "a ring's header", &[word(directory::HEADER)], Access::ReadOnly)?;
        let page: &RingHeader = header.page();
        let size = page.size.load(Ordering::Relaxed);
        if size != pages * PAGE_WORDS as u64 {
            return Err(contract(format!("a ring of {pages} pages that says it has {size} words")));
        }
        Ok(Self {
            cpu: PhysCpu(page.cpu.load(Ordering::Relaxed) as u32),
            consumer_page: map(privcmd, "a ring's position", &[word(directory::CONSUMER)], Access::Writable)?,
            data: map(privcmd, "a ring's data", &frames, Access::ReadOnly)?,
            consumer: Consumer::new(pages as usize * PAGE_WORDS),
            header,
            read: 0,
            last_words: 0,
            unreadable: 0,
            damaged: false,
        })
    }

    pub(super) fn cpu(&self) -> PhysCpu {
        self.cpu
    }

    pub(super) fn header(&self) -> &RingHeader {
        self.header.page()
    }

    /// Hands out what is new; `functions` are what Xen's chains are made of, `backends` who serves whom in dom0.
    pub(super) fn drain(
        &mut self,
        functions: &Functions,
        backends: &Backends,
        each: &mut dyn FnMut(Record),
    ) -> Watermark {
        let header: &RingHeader = self.header.page();
        let consumer_page: &ConsumerPage = self.consumer_page.page();
        // Before the records: all those up to this time are in the ring by now.
        let watermark = match header.watermark.0.load(Ordering::Acquire) {
            WATERMARK_ASLEEP => Watermark::Asleep,
            time => Watermark::At(Time(time)),
        };
        if self.damaged {
            return Watermark::Asleep;
        }
        self.last_words = 0;
        let (read, last_words, unreadable) = (&mut self.read, &mut self.last_words, &mut self.unreadable);
        let drained = self.consumer.drain(self.data.words(), header, consumer_page, |words| {
            *last_words += words.len();
            match taken(words, functions, backends) {
                Some(sample) => {
                    *read += 1;
                    each(Record::Sample(sample));
                }
                None => *unreadable += 1,
            }
        });
        // Nothing that follows can be found any more: it counts as unreadable.
        self.damaged = drained.is_err();
        watermark
    }

    /// Whether the last drain found so little that the ring could have been left alone for much longer.
    pub(super) fn was_all_but_empty(&self) -> bool {
        self.last_words < self.data.words().len() / 32
    }

    pub(super) fn account(&self) -> CpuAccount {
        let counts = &self.header().counts.0;
        let lost = |loss: Loss| counts.lost[loss as usize].load(Ordering::Relaxed);
        let unreadable = if self.damaged {
            counts.written.load(Ordering::Relaxed).saturating_sub(self.read)
        } else {
            self.unreadable
        };
        let causes = [
            (LossCause::RingFull, lost(Loss::Full)),
            (LossCause::Nested, lost(Loss::Nested)),
            (LossCause::RingDamaged, lost(Loss::Damaged)),
            (LossCause::Masked, lost(Loss::Masked)),
            (LossCause::Unreadable, unreadable),
        ];
        CpuAccount {
            taken: counts.taken(),
            written: self.read,
            filtered: counts.filtered.load(Ordering::Relaxed),
            lost: causes.into_iter().filter(|&(_, count)| count > 0).collect(),
            quiet_ns: counts.quiet_ns.load(Ordering::Relaxed),
            masked_ns: counts.masked_ns.load(Ordering::Relaxed),
            foreign: counts.foreign.load(Ordering::Relaxed),
            late: counts.late.load(Ordering::Relaxed),
            awake_ns: counts.awake_ns.load(Ordering::Relaxed),
            own_ns: counts.own_ns.load(Ordering::Relaxed),
        }
    }

    /// How far samples had to be apart for what they cost.
    pub(super) fn shortest_ns(&self) -> u64 {
        self.header().counts.0.shortest_ns.load(Ordering::Relaxed)
    }

    /// Whether a sample has been begun and not yet ended.
    pub(super) fn at_work(&self) -> bool {
        let counts = &self.header().counts.0;
        let load = |count: &abi::AtomicU64| count.load(Ordering::Acquire);
        let ended = load(&counts.written)
            + load(&counts.filtered)
            + load(&counts.lost[Loss::Full as usize])
            + load(&counts.lost[Loss::Damaged as usize])
            + load(&counts.lost[Loss::Masked as usize]);
        ended != load(&counts.begun)
    }
}

/// A record as a sample; none if it is neither a sample nor known.
fn taken(words: &[u64], functions: &Functions, backends: &Backends) -> Option<Taken> {
    if record::kind(words[0]) != KIND_SAMPLE {
        return None;
    }
    let sample = Sample::decode(words).ok()?;
    let mode = match sample.mode {
        record::Mode::Hypervisor => Mode::Hypervisor,
        record::Mode::Kernel => Mode::Kernel,
        record::Mode::User => Mode::User,
    };
    let domain = (sample.domain != DOMAIN_IDLE).then_some(u32::from(sample.domain));
    let (owner, process) = match (mode, domain) {
        (Mode::Kernel, Some(domain)) => (Owner::Kernel(domain), None),
        // Only user code tells whose page tables these are: idle CPUs and kernel threads keep somebody else's.
        (Mode::User, Some(domain)) => {
            (Owner::Process(domain), Some(ProcessKey::Root(AddressSpaceRoot(sample.root))))
        }
        _ => (Owner::Hypervisor, None),
    };
    // A process is told by its page tables, and its stack may lie anywhere.
    let serves = match (domain, mode) {
        (Some(DOM0), Mode::Kernel | Mode::Hypervisor) => backends.of_stack(sample.stack_pointer),
        _ => None,
    };
    let (stretches, missing) = captured::stretches(words, &sample, functions);
    Some(Taken {
        time: Time(sample.time),
        sequence: sample.sequence,
        weight: sample.weight,
        event: EventId(sample.event),
        charged_to: domain,
        vcpu: domain.map(|_| u32::from(sample.vcpu)),
        mode,
        owner,
        process,
        page_tables: (owner != Owner::Hypervisor).then_some(AddressSpaceRoot(sample.root)),
        instruction_pointer: sample.instruction_pointer,
        stretches,
        missing,
        serves,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_leads_to_the_control_page_or_tells_the_refusal() {
        assert_eq!(control_frame("control=1f2e     ").unwrap(), 0x1f2e);
        let refused = control_frame("refused=no free memory").unwrap_err();
        assert!(refused.to_string().ends_with("no free memory"), "{refused}");
        assert!(control_frame("").is_err());
        assert!(control_frame("control=xyz ").is_err());
    }
}
