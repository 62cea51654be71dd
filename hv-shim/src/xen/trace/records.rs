//! Words of a trace buffer become what they tell (public/trace.h). The words are Xen's, and whatever else was written there:
//! nothing of them is relied on.

use super::reasons::Reason;

/// A vCPU, by its domain's number and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Vcpu {
    pub(super) domain: u16,
    pub(super) index: u16,
}

impl Vcpu {
    /// What Xen itself and its idle CPUs are numbered from.
    const FIRST_RESERVED: u16 = 0x7ff0;

    /// Whether it is somebody's, and not what a CPU runs that has nothing to do.
    pub(super) fn is_guests(self) -> bool {
        self.domain < Self::FIRST_RESERVED
    }
}

/// What a vCPU is at (`RUNSTATE_*`, public/vcpu.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runstate {
    Running,
    /// It would run, but has no CPU.
    Runnable,
    Blocked,
    /// It may not run: paused, or not started.
    Offline,
}

impl Runstate {
    fn of(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Running,
            1 => Self::Runnable,
            2 => Self::Blocked,
            _ => Self::Offline,
        }
    }
}

/// What a record tells, as far as it is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A vCPU is at something else.
    Changed { vcpu: Vcpu, old: Runstate, new: Runstate },
    /// A vCPU goes on where it has been running.
    Continues(Vcpu),
    /// The vCPU that runs there left its guest, or, if paravirtualized, came to Xen.
    Left { reason: Reason, at: Option<u64> },
    /// It is about to enter its guest.
    Enters,
    /// So many records found no room since then.
    Lost { count: u32, since: u64 },
}

/// Which records are wanted: everything that has to do with vCPUs' states.
pub(super) const STATES: u32 = 0x0002_1000;
/// Also what has to do with exits: hardware guests' (`TRC_HVM_ENTRYEXIT`), and paravirtualized ones' ways to Xen
/// (`TRC_PV_ENTRY`). All three subclasses have the number 1, so that the mask lets through nothing else.
pub(super) const EXITS: u32 = 0x0028_1000;

const RUNSTATE_CHANGE: u32 = 0x0002_1001;
const CONTINUE_RUNNING: u32 = 0x0002_1002;
const LOST_RECORDS: u32 = 0x0001_f001;
const ENTRY: u32 = 0x0008_1001;
const EXIT: u32 = 0x0008_1002;
/// AMD's since Xen 4.19; before, and Intel's still, they are told as [`EXIT`].
const SVM_EXIT: u32 = 0x0008_1003;
/// Addresses have 64 bits.
const WIDE: u32 = 0x100;
/// A guest of a guest's.
const NESTED: u32 = 0x400;

const PV_HYPERCALL: u32 = 0x0020_100d;
const PV_TRAP: u32 = 0x0020_1003;
const PV_PAGE_FAULT: u32 = 0x0020_1004;
const PV_INVALID_OP: u32 = 0x0020_1005;
const PV_PRIVILEGED: u32 = 0x0020_1006;
const PV_MATH_STATE: u32 = 0x0020_1008;
const PV_PAGING_FIXUP: u32 = 0x0020_1009;
const PV_DESCRIPTOR_FAULT: u32 = 0x0020_100a;
const PV_PAGE_TABLE_WRITE: u32 = 0x0020_100b;
const PV_PAGE_TABLE_WRITE_PAE: u32 = 0x0020_100c;

/// A record: `struct t_rec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceRecord<'a> {
    event: u32,
    /// When, in cycles of the time stamp counter; few kinds have none.
    cycles: Option<u64>,
    extra: &'a [u32],
}

/// The records in some words; ends early where the last is cut off.
pub(super) struct Records<'a>(pub(super) &'a [u32]);

impl<'a> Iterator for Records<'a> {
    type Item = TraceRecord<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        const HAS_CYCLES: u32 = 1 << 31;
        let (&header, rest) = self.0.split_first()?;
        let (cycles, rest) = match header & HAS_CYCLES {
            0 => (None, rest),
            _ => match rest {
                [low, high, rest @ ..] => (Some(wide(*low, *high)), rest),
                _ => return None,
            },
        };
        let (extra, rest) = rest.split_at_checked((header >> 28 & 7) as usize)?;
        self.0 = rest;
        Some(TraceRecord { event: header & 0x0fff_ffff, cycles, extra })
    }
}

impl TraceRecord<'_> {
    /// When, and what.
    pub(super) fn told(&self, is_amd: bool) -> Option<(u64, Told)> {
        Some((self.cycles?, self.meaning(is_amd)?))
    }

    fn meaning(&self, is_amd: bool) -> Option<Told> {
        // Both states stand in the event's number.
        const STATES: u32 = 0xff0;
        if self.event & !STATES == RUNSTATE_CHANGE {
            let (old, new) = (Runstate::of(self.event >> 8), Runstate::of(self.event >> 4));
            return Some(Told::Changed { vcpu: self.vcpu()?, old, new });
        }
        let left = |reason, at| Some(Told::Left { reason, at });
        let event = self.event & !(WIDE | NESTED);
        match event {
            CONTINUE_RUNNING => Some(Told::Continues(self.vcpu()?)),
            LOST_RECORDS => match *self.extra {
                [count, _current, low, high] => Some(Told::Lost { count, since: wide(low, high) }),
                _ => None,
            },
            ENTRY => Some(Told::Enters),
            SVM_EXIT => left(Reason::Svm(*self.extra.first()?), self.address(1)),
            EXIT if is_amd => left(Reason::Svm(*self.extra.first()?), self.address(1)),
            EXIT => left(Reason::Vmx(*self.extra.first()?), self.address(1)),
            PV_HYPERCALL => left(Reason::PvHypercall(*self.extra.first()? & 0xf_ffff), None),
            PV_TRAP => left(Reason::PvTrap(*self.extra.get(self.width())? & 0x7fff), self.address(0)),
            PV_PAGE_FAULT => left(Reason::PvTrap(14), self.address(0)),
            PV_INVALID_OP => left(Reason::PvInvalidOp, self.address(0)),
            PV_PRIVILEGED => left(Reason::PvPrivileged, self.address(0)),
            PV_MATH_STATE => left(Reason::PvMathState, None),
            PV_PAGING_FIXUP => left(Reason::PvPagingFixup, self.address(0)),
            PV_DESCRIPTOR_FAULT => left(Reason::PvDescriptorFault, self.address(0)),
            // The entry that is written comes first: two words; then its address.
            PV_PAGE_TABLE_WRITE | PV_PAGE_TABLE_WRITE_PAE => {
                left(Reason::PvPageTableWrite, self.address(2 + self.width()))
            }
            _ => None,
        }
    }

    fn vcpu(&self) -> Option<Vcpu> {
        let &word = self.extra.first()?;
        Some(Vcpu { domain: (word >> 16) as u16, index: word as u16 })
    }

    /// How many words an address has.
    fn width(&self) -> usize {
        if self.event & WIDE != 0 { 2 } else { 1 }
    }

    fn address(&self, at: usize) -> Option<u64> {
        let low = *self.extra.get(at)?;
        Some(if self.width() == 2 { wide(low, *self.extra.get(at + 1)?) } else { low.into() })
    }
}

fn wide(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use super::{
        super::{clocks::Clocks, exits::Exits},
        *,
    };

    const ALPHA: Vcpu = Vcpu { domain: 1, index: 0 };
    const BETA: Vcpu = Vcpu { domain: 2, index: 0 };

    /// As Xen 4.17 traced on an AMD processor: a paravirtualized guest gives its CPU to a PVH guest, which gives it back.
    #[rustfmt::skip]
    const TRACED: [u32; 54] = [
        0x9020_100d, 0xc1fa_e0d8, 0x1d, 0x17, // hypercall iret
        0x9002_1011, 0xc2a9_8322, 0x1d, 0x1_0000, // running to runnable
        0x9002_1101, 0xc2a9_b430, 0x1d, 0x2_0000, // runnable to running
        0x8008_1001, 0xc2b3_aeb0, 0x1d, // entry
        0xb008_1102, 0xc2b6_2940, 0x1d, 0x7c, 0x8106_a139, 0xffff_ffff, // exit: MSR
        0x8008_1001, 0xc2b8_8f80, 0x1d,
        0xb008_1102, 0xc317_7a6e, 0x1d, 0x60, 0x3000_1648, 0, // exit: interrupt
        0x9002_1011, 0xc48a_04fe, 0x1d, 0x2_0000,
        0x9002_1101, 0xc48a_1b3c, 0x1d, 0x1_0000,
        0xa020_1106, 0xc498_d404, 0x1d, 0x8107_3e03, 0xffff_ffff, // privileged instruction
        0x8020_1008, 0xc4a8_ad78, 0x1d, // floating point
        0xd020_1104, 0x729b_4c5b, 0x20, 0xcdd2_f109, 0x7fe6, 0x5338_3038, 0x5588, 0x6, // page fault
    ];

    fn told(words: &[u32], is_amd: bool) -> Vec<(u64, Told)> {
        Records(words).filter_map(|record| record.told(is_amd)).collect()
    }

    #[test]
    fn records_tell_what_was_traced() {
        let changed = |vcpu, old, new| Told::Changed { vcpu, old, new };
        let left = |reason, at| Told::Left { reason, at };
        let expected = [
            left(Reason::PvHypercall(23), None),
            changed(ALPHA, Runstate::Running, Runstate::Runnable),
            changed(BETA, Runstate::Runnable, Runstate::Running),
            Told::Enters,
            left(Reason::Svm(0x7c), Some(0xffff_ffff_8106_a139)),
            Told::Enters,
            left(Reason::Svm(0x60), Some(0x3000_1648)),
            changed(BETA, Runstate::Running, Runstate::Runnable),
            changed(ALPHA, Runstate::Runnable, Runstate::Running),
            left(Reason::PvPrivileged, Some(0xffff_ffff_8107_3e03)),
            left(Reason::PvMathState, None),
            left(Reason::PvTrap(14), Some(0x7fe6_cdd2_f109)),
        ];
        let told = told(&TRACED, true);
        assert_eq!(told.iter().map(|(_, told)| *told).collect::<Vec<_>>(), expected);
        assert_eq!((told[0].0, told[11].0), (0x1d_c1fa_e0d8, 0x20_729b_4c5b));
    }

    #[test]
    fn other_releases_and_processors_are_understood() {
        // Xen 4.20 has a number of its own for AMD's exits; a guest's guest is told by a flag.
        let newer = [0xb008_1503, 1, 0, 0x78, 0x8100_0000, 0xffff_ffff];
        let expected = Told::Left { reason: Reason::Svm(0x78), at: Some(0xffff_ffff_8100_0000) };
        assert_eq!(told(&newer, false), [(1, expected)]);
        // Intel's, of a guest of 32 bits.
        let narrow = [0xa008_1002, 1, 0, 12, 0xc010_0000];
        assert_eq!(
            told(&narrow, false),
            [(1, Told::Left { reason: Reason::Vmx(12), at: Some(0xc010_0000) })]
        );
        // A wide page fault's trap, and a write to a page table.
        let trap = [0xb020_1103, 1, 0, 0x1000, 0, 0x8006];
        let at = Some(0x1000);
        assert_eq!(told(&trap, true), [(1, Told::Left { reason: Reason::PvTrap(6), at })]);
        let write = [0xe020_110b, 1, 0, 7, 7, 8, 8, 0x1000, 0];
        assert_eq!(told(&write, true), [(1, Told::Left { reason: Reason::PvPageTableWrite, at })]);
    }

    #[test]
    fn losses_are_told_and_padding_is_not() {
        let lost = [0xc001_f001, 9, 0, 1234, 0x1_0000, 5, 0];
        assert_eq!(told(&lost, true), [(9, Told::Lost { count: 1234, since: 5 })]);
        let padding = [0x2001_f002, 0, 0, 0x9002_1002, 9, 0, 0x2_0000];
        assert_eq!(told(&padding, true), [(9, Told::Continues(BETA))]);
    }

    #[test]
    fn a_record_that_is_cut_off_ends_it() {
        for length in 0..TRACED.len() {
            assert!(told(&TRACED[..length], true).len() <= told(&TRACED, true).len());
        }
        assert_eq!(told(&TRACED[..7], true).len(), 1);
        assert_eq!(told(&[0xf000_0000 | RUNSTATE_CHANGE], true), []);
    }

    #[test]
    fn whatever_is_in_a_buffer_does_no_harm() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut clocks, mut exits) = (Clocks::new(10), Exits::default());
        for _ in 0..2_000 {
            let mut words: Vec<u32> = TRACED.iter().copied().cycle().take(random.usize(..200)).collect();
            for word in &mut words {
                if random.u8(..20) == 0 {
                    *word = random.u32(..);
                }
            }
            for (at, told) in told(&words, random.bool()) {
                if let Told::Changed { vcpu, old, new } = told {
                    clocks.change(at, vcpu, old, new);
                }
                exits.told(at, random.u32(..4), &told);
            }
        }
        assert!(clocks.until(u64::MAX).count() > 0);
        exits.take(0.5).for_each(drop);
    }
}
