//! The hypervisor's symbols. dom0's loader gives each one its address before the payload is uploaded.
//!
//! They are reached by direct calls and by addresses relative to the instruction pointer only: an indirect call
//! would need a retpoline, and a target marked for CET-IBT, which most of Xen's functions are not. So are our own
//! symbols that are defined in assembly: the compiler would go through a global offset table, which livepatches have
//! not.

#![allow(non_upper_case_globals)] // Xen's names.

unsafe extern "C" {
    pub(crate) fn alloc_xenheap_pages();
    pub(crate) fn apic_timer_interrupt();
    pub(crate) fn cpu_raise_softirq();
    pub(crate) fn free_xenheap_pages();
    pub(crate) fn get_s_time();
    pub(crate) fn on_selected_cpus();
    pub(crate) fn put_page();
    pub(crate) fn raise_softirq();
    pub(crate) fn reprogram_timer();
    pub(crate) fn set_nmi_callback();
    pub(crate) fn share_xen_page_with_guest();
    pub(crate) fn timer_softirq_action();
    pub(crate) fn __mfn_valid();
    pub(crate) fn __x86_indirect_thunk_rax();

    pub(crate) static __per_cpu_offset: u8;
    pub(crate) static cpu_online_map: u8;
    pub(crate) static cpu_present_map: u8;
    pub(crate) static dead_idle: u8;
    pub(crate) static direct_apic_vector: u8;
    pub(crate) static dom_xen: u8;
    pub(crate) static hardware_domain: u8;
    pub(crate) static idle_vcpu: u8;
    pub(crate) static nr_cpu_ids: u32;
    pub(crate) static per_cpu__curr_vcpu: u8;
    pub(crate) static per_cpu__irq_regs: u8;
    pub(crate) static per_cpu__timer_deadline: u8;
    pub(crate) static pm_idle: u8;
    pub(crate) static softirq_handlers: u8;
    pub(crate) static toggle_guest_mode: u8;
}

/// Calls a function of Xen with up to four integer arguments; its value is what `rax` holds.
///
/// Unsafe to use: the caller vouches for the function's contract.
macro_rules! call {
    ($function:ident) => {{
        let value: u64;
        core::arch::asm!("call {f}", f = sym $crate::xen::$function, out("rax") value, clobber_abi("C"));
        value
    }};
    ($function:ident, $a:expr) => {{
        let value: u64;
        core::arch::asm!("call {f}", f = sym $crate::xen::$function,
            inout("rdi") $a as u64 => _, out("rax") value, clobber_abi("C"));
        value
    }};
    ($function:ident, $a:expr, $b:expr) => {{
        let value: u64;
        core::arch::asm!("call {f}", f = sym $crate::xen::$function,
            inout("rdi") $a as u64 => _, inout("rsi") $b as u64 => _, out("rax") value, clobber_abi("C"));
        value
    }};
    ($function:ident, $a:expr, $b:expr, $c:expr) => {{
        let value: u64;
        core::arch::asm!("call {f}", f = sym $crate::xen::$function,
            inout("rdi") $a as u64 => _, inout("rsi") $b as u64 => _, inout("rdx") $c as u64 => _,
            out("rax") value, clobber_abi("C"));
        value
    }};
    ($function:ident, $a:expr, $b:expr, $c:expr, $d:expr) => {{
        let value: u64;
        core::arch::asm!("call {f}", f = sym $crate::xen::$function,
            inout("rdi") $a as u64 => _, inout("rsi") $b as u64 => _, inout("rdx") $c as u64 => _,
            inout("rcx") $d as u64 => _, out("rax") value, clobber_abi("C"));
        value
    }};
}

/// The address of a symbol, by default of Xen's.
macro_rules! address {
    ($symbol:ident) => {
        $crate::xen::address!(of $crate::xen::$symbol)
    };
    (of $symbol:path) => {{
        let address: u64;
        // SAFETY: computes an address; touches neither memory nor flags.
        #[allow(unused_unsafe)]
        unsafe {
            core::arch::asm!("lea {a}, [rip + {s}]", a = out(reg) address, s = sym $symbol,
                options(pure, nomem, nostack, preserves_flags));
        }
        address
    }};
}

pub(crate) use {address, call};
