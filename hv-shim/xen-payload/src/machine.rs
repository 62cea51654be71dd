//! The machine as the sampling core sees it.

use core::arch::asm;

use sampler::{
    Machine,
    probe::{CodeRange, Symbols},
};

use crate::{hooks::config, memory, xen::address};

/// Xen's stacks are 32 KiB, aligned to their size (`STACK_ORDER` 3); interrupt stacks lie in the same block.
const STACK_SIZE: u64 = 0x8000;

/// This CPU.
pub(crate) struct ThisCpu;

impl Machine for ThisCpu {
    #[inline(always)]
    fn read(&self, address: u64) -> u64 {
        // SAFETY: the core reads the hypervisor's own structures and code only, all of them mapped for as long as
        // Xen runs; their addresses come from its symbols and from pointers that the probe has checked.
        unsafe { (address as *const u64).read_unaligned() }
    }

    #[inline(always)]
    fn cr3(&self) -> u64 {
        let value;
        // SAFETY: reads a register; the hypervisor runs at privilege level 0.
        unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    fn direct_map(&self, machine: u64) -> Option<u64> {
        memory::direct_map(machine)
    }

    fn vmread(&self, field: u64) -> Option<u64> {
        let value: u64;
        let failed: u8;
        // SAFETY: only asked for under Intel's exit handler, in VMX operation; with no current structure the
        // instruction fails and says so in the flags.
        unsafe {
            asm!("vmread {value}, {field}", "setbe {failed}",
                value = out(reg) value, field = in(reg) field, failed = out(reg_byte) failed, options(nomem, nostack));
        }
        (failed == 0).then_some(value)
    }
}

/// The end of the stack that this runs on.
#[inline(always)]
pub(crate) fn stack_top() -> u64 {
    let pointer: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    (pointer | (STACK_SIZE - 1)) + 1
}

/// Switches interrupts off on this CPU for as long as it lives.
pub(crate) struct InterruptsOff {
    flags: u64,
}

impl InterruptsOff {
    pub(crate) fn new() -> Self {
        let flags;
        // SAFETY: saves the flags and clears IF; the red zone is off for this target. A compiler barrier for memory.
        unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
        Self { flags }
    }
}

impl Drop for InterruptsOff {
    fn drop(&mut self) {
        const INTERRUPT_FLAG: u64 = 1 << 9;
        if self.flags & INTERRUPT_FLAG != 0 {
            // SAFETY: interrupts were on before.
            unsafe { asm!("sti") };
        }
    }
}

/// The time stamp counter: a seed.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: the instruction has no preconditions at privilege level 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

unsafe extern "C" {
    fn xenoscope_text();
    fn xenoscope_text_end();
}

/// What the probe starts from.
pub(crate) fn symbols() -> Symbols {
    let optional = config().optional;
    Symbols {
        idle_vcpu: address!(idle_vcpu),
        cpu_online_map: address!(cpu_online_map),
        cpu_present_map: address!(cpu_present_map),
        per_cpu_offset: address!(__per_cpu_offset),
        curr_vcpu: address!(per_cpu__curr_vcpu),
        dom_xen: address!(dom_xen),
        hardware_domain: address!(hardware_domain),
        toggle_guest_mode: address!(toggle_guest_mode),
        svm_asm_do_resume: optional.svm_asm_do_resume,
        svm_stgi_label: optional.svm_stgi_label,
        vmx_asm_vmexit_handler: optional.vmx_asm_vmexit_handler,
        direct_apic_vector: address!(direct_apic_vector),
        apic_timer_interrupt: address!(apic_timer_interrupt),
        softirq_handlers: address!(softirq_handlers),
        timer_softirq_action: address!(timer_softirq_action),
        code: match (optional.text_start, optional.text_end) {
            (0, _) | (_, 0) => Default::default(),
            (start, end) => [
                CodeRange { start, end },
                CodeRange { start: address!(of xenoscope_text), end: address!(of xenoscope_text_end) },
            ],
        },
    }
}
