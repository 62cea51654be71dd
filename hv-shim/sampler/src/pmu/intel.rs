//! Intel's architectural counters (Software Developer's Manual, volume 3, 20.2; CPUID leaf 0AH in volume 2).
//!
//! | version | adds |
//! |---|---|
//! | 1 | general counters, selectors from 186H and counters from C1H on |
//! | 2 | fixed counters from 309H on, global control and status |
//! | 4 | another way to clear the status, at the same address; who uses what |
//! | 5 | fixed counters by a bit mask |
//!
//! Without full-width writes a counter is set from 32 bits whose sign is extended; periods fit into that, so that the
//! registers for full-width writes are not needed. Delivering an interrupt leaves LVTPC masked: it must be written
//! again, after the status was cleared.

use super::{Bank, Fixed, Global, Pmu, Registers};

/// IA32_PERFEVTSEL0, IA32_PMC0.
const GENERAL: Bank = Bank { selector: 0x186, counter: 0xc1, stride: 1, count: 0 };
/// IA32_FIXED_CTR_CTRL, IA32_FIXED_CTR0.
const FIXED: Fixed = Fixed { control: 0x38d, counter: 0x309, count: 0, width: 0 };
/// IA32_PERF_GLOBAL_CTRL, IA32_PERF_GLOBAL_STATUS, IA32_PERF_GLOBAL_OVF_CTRL (IA32_PERF_GLOBAL_STATUS_RESET).
const GLOBAL: Global = Global { control: 0x38f, status: 0x38e, clear: 0x390 };

/// More than any processor has.
const MOST_GENERAL: u32 = 8;
/// Instructions, cycles, reference cycles; what else there is has no place here.
const MOST_FIXED: u32 = 3;

pub(super) fn probe<R: Registers>(registers: &R, highest: u32) -> Option<Pmu> {
    if highest < 0xa {
        return None;
    }
    let [a, _, mask, d] = registers.cpuid(0xa, 0);
    let (version, general, width) = (a & 0xff, a >> 8 & 0xff, a >> 16 & 0xff);
    if version == 0 || general == 0 || !(32..=48).contains(&width) {
        return None;
    }
    let in_a_row = |mask: u32| (!mask).trailing_zeros();
    let fixed = match version {
        1 => 0,
        // By number, or, where there is one, by mask: of which those without a gap are taken.
        2..=4 => d & 0x1f,
        _ => (d & 0x1f).max(in_a_row(mask)),
    };
    let fixed = Fixed { count: fixed.min(MOST_FIXED) as u8, width: (d >> 5 & 0xff) as u8, ..FIXED };
    let fixed_width_known = (32..=48).contains(&fixed.width);
    Some(Pmu {
        general: Bank { count: general.min(MOST_GENERAL) as u8, ..GENERAL },
        fixed: (fixed.count > 0 && fixed_width_known).then_some(fixed),
        global: (version >= 2).then_some(GLOBAL),
        width: width as u8,
        masks_lvtpc: true,
        host_only: false,
    })
}
