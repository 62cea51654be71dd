//! The processor's registers, for the core's performance counters.

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, Ordering},
};

use abi::pmu::Unusable;
use sampler::pmu::{Registers, fixmap_of};

use crate::{hooks::config, machine::ThisCpu};

/// IA32_APIC_BASE: where the local APIC's registers are, and how they are reached.
const APIC_BASE: u32 = 0x1b;
const APIC_BASE_X2: u64 = 1 << 10;
const APIC_BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Registers of the local APIC, by their offsets; as model-specific registers, a sixteenth of it above 800H.
const APIC_VERSION: u32 = 0x30;
const APIC_LVTPC: u32 = 0x340;
const X2APIC: u32 = 0x800;

/// Where the local APIC's registers are mapped; 0 where they are model-specific ones.
static WINDOW: AtomicU64 = AtomicU64::new(0);

/// This CPU's registers.
pub(crate) struct Msrs;

/// Finds out how the local APIC is reached. Before that nothing of it may be asked for.
pub(crate) fn find_apic() -> Result<(), Unusable> {
    let base = Msrs.rdmsr(APIC_BASE);
    let window = if base & APIC_BASE_X2 != 0 {
        0
    } else {
        let l1 = config().optional.l1_fixmap;
        let window = if l1 == 0 { None } else { fixmap_of(&ThisCpu, l1, base & APIC_BASE_ADDRESS) };
        window.ok_or(Unusable::NoApic)?
    };
    WINDOW.store(window, Ordering::Relaxed);
    // An integrated APIC of a version that there is, with an entry for counters.
    let version = apic_read(APIC_VERSION);
    let (number, highest_entry) = (version & 0xff, version >> 16 & 0xff);
    if (0x10..0x20).contains(&number) && highest_entry >= 4 { Ok(()) } else { Err(Unusable::NoApic) }
}

fn apic_read(register: u32) -> u32 {
    match WINDOW.load(Ordering::Relaxed) {
        0 => Msrs.rdmsr(X2APIC + (register >> 4)) as u32,
        // SAFETY: mapped by Xen for as long as it runs; registers are read as whole words.
        window => unsafe { ((window + u64::from(register)) as *const u32).read_volatile() },
    }
}

fn apic_write(register: u32, value: u32) {
    match WINDOW.load(Ordering::Relaxed) {
        0 => Msrs.wrmsr(X2APIC + (register >> 4), u64::from(value)),
        // SAFETY: as above.
        window => unsafe { ((window + u64::from(register)) as *mut u32).write_volatile(value) },
    }
}

/// An instruction that may fault: a fault is caught by Xen's exception table, which goes on behind it, and leaves
/// `failed` set.
macro_rules! checked {
    ($instruction:literal, $failed:ident, $($operands:tt)*) => {
        asm!(
            "xor {failed:e}, {failed:e}",
            concat!("2: ", $instruction),
            "jmp 4f",
            "3: mov {failed:e}, 1",
            "4:",
            ".pushsection .ex_table, \"a\", @progbits",
            ".balign 4",
            ".long 2b - ., 3b - .",
            ".popsection",
            failed = out(reg) $failed, $($operands)*, options(nostack)
        )
    };
}

impl Registers for Msrs {
    #[inline(always)]
    fn rdmsr(&self, msr: u32) -> u64 {
        let (low, high): (u32, u32);
        // SAFETY: the core asks only for registers that it has tried, or that CPUID promises.
        unsafe {
            asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nostack, preserves_flags));
        }
        u64::from(high) << 32 | u64::from(low)
    }

    #[inline(always)]
    fn wrmsr(&self, msr: u32, value: u64) {
        // SAFETY: as above; counters, their selectors and the local APIC's entry for them are nobody else's while the
        // shim has them.
        unsafe {
            asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
                options(nostack, preserves_flags));
        }
    }

    fn try_rdmsr(&self, msr: u32) -> Option<u64> {
        let (low, high, failed): (u32, u32, u32);
        // SAFETY: see `checked`; reading a register has no effect.
        unsafe { checked!("rdmsr", failed, in("ecx") msr, out("eax") low, out("edx") high) };
        (failed == 0).then_some(u64::from(high) << 32 | u64::from(low))
    }

    fn try_wrmsr(&self, msr: u32, value: u64) -> bool {
        let failed: u32;
        // SAFETY: see `checked`; the core writes registers of counters only.
        unsafe {
            checked!("wrmsr", failed, in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32);
        }
        failed == 0
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let found = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        [found.eax, found.ebx, found.ecx, found.edx]
    }

    #[inline(always)]
    fn lvtpc(&self) -> u32 {
        apic_read(APIC_LVTPC)
    }

    #[inline(always)]
    fn set_lvtpc(&self, value: u32) {
        apic_write(APIC_LVTPC, value);
    }
}
