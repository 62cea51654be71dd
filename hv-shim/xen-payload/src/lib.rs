//! The shim that Xen loads as a livepatch: it binds the sampling core to the running hypervisor.
//!
//! Comes in: performance counters' NMIs, where those serve (`counters`), through Xen's NMI callback; the timer's
//! interrupts, through function pointers of Xen that the shim takes over (the local APIC timer's entry in the table of
//! direct interrupts, the timer softirq's handler, `pm_idle`, `dead_idle`); and its settings.
//! Goes out: samples, into rings of pages that dom0 maps. Not here: decisions of any kind, which are `sampler`'s,
//! and the rings' layout, which is `abi`'s.
//!
//! No function of Xen is patched. Its life: dom0's loader resolves every symbol, uploads the object and applies it;
//! the *postapply* hook probes, allocates and takes the pointers over; the *unload* hook, which runs while all CPUs
//! stand still, gives them back; the *postrevert* hook frees the memory.
//!
//! The interrupt path calls nothing of Xen but its clock and the handlers that it stands in for: no lock, no
//! allocation, no printing.
#![no_std]

mod counters;
mod hooks;
mod interrupts;
mod machine;
mod memory;
mod metadata;
mod pages;
mod percpu;
mod registers;
mod xen;

/// Nothing here panics; if something did, stopping at an invalid opcode shows where.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ud2 has no operands and does not return.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
