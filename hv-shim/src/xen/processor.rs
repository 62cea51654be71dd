//! Which processor this is, and its codes for events.

use crate::{
    events::{Counted, EventError, EventSpec},
    xen::hypercalls::CpuidLeaf,
};

/// The vendors whose counters are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vendor {
    Amd,
    Intel,
}

/// A processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Processor {
    vendor: Option<Vendor>,
    family: u32,
    model: u32,
    /// Leaf 0AH: eax, ebx, ecx, edx.
    architectural: [u32; 4],
}

impl Processor {
    /// From what CPUID says on the hardware.
    pub(super) fn of(leaves: &[CpuidLeaf]) -> Self {
        let leaf = |number: u32| {
            let found =
                leaves.iter().find(|leaf| leaf.leaf == number && matches!(leaf.subleaf, 0 | u32::MAX));
            found.map_or([0; 4], |leaf| leaf.registers)
        };
        let [_, b, c, d] = leaf(0);
        let name: Vec<u8> = [b, d, c].iter().flat_map(|word| word.to_le_bytes()).collect();
        let version = leaf(1)[0];
        let (family, model) = (version >> 8 & 0xf, version >> 4 & 0xf);
        Self {
            vendor: match name.as_slice() {
                b"GenuineIntel" => Some(Vendor::Intel),
                b"AuthenticAMD" | b"HygonGenuine" => Some(Vendor::Amd),
                _ => None,
            },
            family: if family == 0xf { family + (version >> 20 & 0xff) } else { family },
            model: if matches!(family, 0x6 | 0xf) { model | version >> 12 & 0xf0 } else { model },
            architectural: leaf(0xa),
        }
    }

    pub(super) fn is_amd(&self) -> bool {
        self.vendor == Some(Vendor::Amd)
    }

    /// Its code for an event; none if it has none.
    pub(super) fn selector(&self, counted: Counted) -> Option<u64> {
        match (counted, self.vendor?) {
            (Counted::CpuClock, _) => None,
            (Counted::Raw(code), Vendor::Amd) => Some(code),
            // The upper bits of an event are AMD's.
            (Counted::Raw(code), Vendor::Intel) => (code >> 32 == 0).then_some(code),
            (counted, Vendor::Amd) => self.amd(counted),
            (counted, Vendor::Intel) => self.intel(counted),
        }
    }

    /// Its code, or who lacks one.
    pub(super) fn selector_of(&self, spec: &EventSpec) -> Result<u64, EventError> {
        self.selector(spec.counted)
            .ok_or_else(|| EventError::Lacking { name: spec.name.clone(), processor: self.to_string() })
    }

    /// Processor Programming References and BIOS and Kernel Developer's Guides, *Performance Monitor Counters*.
    fn amd(&self, counted: Counted) -> Option<u64> {
        let is_zen = self.family >= 0x17;
        let is_zen_1 = matches!(self.family, 0x17 | 0x18) && self.model < 0x30;
        let is_zen_4 = self.family >= 0x1a
            || self.family == 0x19 && (self.model >= 0x60 || self.model < 0x20 && self.model >= 0x10);
        Some(match counted {
            Counted::Cycles => 0x76,
            Counted::Instructions => 0xc0,
            Counted::Branches => 0xc2,
            Counted::BranchMisses => 0xc3,
            // Requests of the L2 cache, and those for data that missed in it.
            Counted::CacheReferences if is_zen => 0xff60,
            Counted::CacheMisses if is_zen => 0x0964,
            Counted::CacheReferences => 0x077d,
            Counted::CacheMisses => 0x077e,
            Counted::StalledCyclesFrontend if is_zen_1 => 0x0287,
            Counted::StalledCyclesBackend if is_zen_1 => 0x0187,
            Counted::StalledCyclesFrontend if is_zen => 0xa9,
            Counted::StalledCyclesFrontend if !is_zen => 0xd0,
            Counted::StalledCyclesBackend if !is_zen => 0xd1,
            // Event 120H, unit mask 1.
            Counted::RefCycles if is_zen_4 => 0x1_0000_0120,
            _ => return None,
        })
    }

    /// The architectural events (Software Developer's Manual, volume 3, table 20-1): leaf 0AH says in ebx which of
    /// them are not there.
    fn intel(&self, counted: Counted) -> Option<u64> {
        let [a, lacking, ..] = self.architectural;
        let (version, known) = (a & 0xff, a >> 24);
        let (place, code) = match counted {
            Counted::Cycles => (0, 0x3c),
            Counted::Instructions => (1, 0xc0),
            Counted::BusCycles => (2, 0x013c),
            Counted::CacheReferences => (3, 0x4f2e),
            Counted::CacheMisses => (4, 0x412e),
            Counted::Branches => (5, 0xc4),
            Counted::BranchMisses => (6, 0xc5),
            // By a fixed counter only.
            Counted::RefCycles => return (version >= 2).then_some(abi::pmu::REFERENCE_CYCLES),
            _ => return None,
        };
        (version > 0 && place < known && lacking >> place & 1 == 0).then_some(code)
    }
}

impl std::fmt::Display for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vendor = match self.vendor {
            Some(Vendor::Amd) => "AMD",
            Some(Vendor::Intel) => "Intel",
            None => "of an unknown vendor",
        };
        write!(f, "{vendor}, family {:#x}, model {:#x}", self.family, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(vendor: &[u8; 12], version: u32, architectural: [u32; 4]) -> Processor {
        let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().unwrap());
        let leaf = |leaf, registers| CpuidLeaf { leaf, subleaf: u32::MAX, registers };
        Processor::of(&[
            leaf(0, [0x16, word(0), word(8), word(4)]),
            leaf(1, [version, 0, 0, 0]),
            leaf(0xa, architectural),
        ])
    }

    #[test]
    fn families_have_their_own_codes() {
        let codes = |version| {
            let processor = processor(b"AuthenticAMD", version, [0; 4]);
            [Counted::Cycles, Counted::CacheMisses, Counted::StalledCyclesBackend, Counted::RefCycles]
                .map(|counted| processor.selector(counted))
        };
        // Families 10h, 17h (Zen and Zen 2) and 19h (Zen 3 and Zen 4).
        assert_eq!(codes(0x0010_0f42), [Some(0x76), Some(0x077e), Some(0xd1), None]);
        assert_eq!(codes(0x0080_0f11), [Some(0x76), Some(0x0964), Some(0x0187), None]);
        assert_eq!(codes(0x0083_0f10), [Some(0x76), Some(0x0964), None, None]);
        assert_eq!(codes(0x00a0_0f11), [Some(0x76), Some(0x0964), None, None]);
        assert_eq!(codes(0x00a1_0f11), [Some(0x76), Some(0x0964), None, Some(0x1_0000_0120)]);
    }

    #[test]
    fn intel_says_itself_which_events_it_has() {
        let full = processor(b"GenuineIntel", 0x0005_0654, [0x0730_0804, 0, 0, 0x603]);
        assert_eq!(full.selector(Counted::CacheMisses), Some(0x412e));
        assert_eq!(full.selector(Counted::RefCycles), Some(0x0300));
        assert_eq!(full.selector(Counted::StalledCyclesBackend), None);
        assert_eq!(full.selector(Counted::Raw(0x1_0000_0076)), None);
        let lacking = processor(b"GenuineIntel", 0x0005_0654, [0x0730_0804, 1 << 4, 0, 0x603]);
        assert_eq!(lacking.selector(Counted::CacheMisses), None);
        let none = processor(b"GenuineIntel", 0x0005_0654, [0; 4]);
        assert!(Counted::named().all(|counted| none.selector(counted).is_none()));
    }

    #[test]
    fn what_a_processor_lacks_is_told() {
        let spec = EventSpec::parse_list("ref-cycles").unwrap().remove(0);
        let error = processor(b"AuthenticAMD", 0x0010_0f42, [0; 4]).selector_of(&spec).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this host's processor (AMD, family 0x10, model 0x4) has no event for ref-cycles: `xenoscope list` shows \
             what it has"
        );
    }
}
