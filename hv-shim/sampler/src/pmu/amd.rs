//! AMD's counters (AMD64 Architecture Programmer's Manual, volume 2, 13.2; CPUID functions in volume 3, appendix E).
//!
//! | generation | since | registers |
//! |---|---|---|
//! | legacy | K7 | four selectors from C001_0000 on, four counters from C001_0004 on |
//! | core extensions | family 15h | six pairs from C001_0200 on; the first four are the legacy ones |
//! | version 2 | Zen 4 | the same pairs, their number in CPUID, and global control and status |
//!
//! Counters have 48 bits. Delivering an interrupt leaves LVTPC as it is.

use super::{Bank, Global, Pmu, Registers};

const LEGACY: Bank = Bank { selector: 0xc001_0000, counter: 0xc001_0004, stride: 1, count: 4 };
const CORE: Bank = Bank { selector: 0xc001_0200, counter: 0xc001_0201, stride: 2, count: 6 };
/// PerfCntrGlobalCtl, PerfCntrGlobalStatus, PerfCntrGlobalStatusClr.
const GLOBAL: Global = Global { control: 0xc000_0301, status: 0xc000_0300, clear: 0xc000_0302 };

/// As many pairs as fit below the registers that follow them.
const MOST: u32 = 8;

pub(super) fn probe<R: Registers>(registers: &R) -> Option<Pmu> {
    let [highest, ..] = registers.cpuid(0x8000_0000, 0);
    let [version, ..] = registers.cpuid(1, 0);
    let family = match version >> 8 & 0xf {
        0xf => 0xf + (version >> 20 & 0xff),
        family => family,
    };
    let extended = if highest >= 0x8000_0001 { registers.cpuid(0x8000_0001, 0)[2] } else { 0 };
    let [features, counts, ..] =
        if highest >= 0x8000_0022 { registers.cpuid(0x8000_0022, 0) } else { [0; 4] };
    let has_core_extensions = extended >> 23 & 1 != 0;
    let (general, global) = if features & 1 != 0 {
        (Bank { count: (counts & 0xf).min(MOST) as u8, ..CORE }, Some(GLOBAL))
    } else if has_core_extensions {
        (CORE, None)
    } else if family >= 6 {
        (LEGACY, None)
    } else {
        return None;
    };
    let has_svm = extended >> 2 & 1 != 0;
    // K8 has SVM, but reserves the bits.
    let host_only = has_svm && family >= 0x10;
    (general.count > 0).then_some(Pmu {
        general,
        fixed: None,
        global,
        width: 48,
        masks_lvtpc: false,
        host_only,
    })
}
