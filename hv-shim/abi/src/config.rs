//! What dom0's side writes into the payload before it is loaded.

use crate::pmu::{EventConfig, MAX_EVENTS};

/// The name of the payload's symbol that stands before its [`Config`].
pub const SYMBOL: &str = "xenoscope_config";

/// The payload's settings: words in its data, filled in before it is uploaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// [`crate::VERSION`].
    pub version: u64,
    /// The mean sampling period of the timer in nanoseconds.
    pub period_ns: u64,
    /// In which modes the timer's samples are wanted: [`crate::pmu::MODES`].
    pub modes: u64,
    /// For how long a renewal of the lease holds, in nanoseconds.
    pub lease_ns: u64,
    /// Data pages of each ring: a power of two.
    pub ring_pages: u64,
    /// How many millionths of a CPU's time samples may cost; 0 is no bound.
    pub overhead_millionths: u64,
    /// [`crate::pmu::TRUST_AUTO`] or [`crate::pmu::TRUST_ASSUME`].
    pub trust: u64,
    /// How many events the counters are to sample; with none the timer does.
    pub events: u64,
    /// They.
    pub event: [EventConfig; MAX_EVENTS],
    /// What is captured with each sample: [`CALL_GRAPH_OFF`], [`CALL_GRAPH_FRAMES`] or [`CALL_GRAPH_STACKS`].
    pub call_graph: u64,
    /// The most words of each stack.
    pub stack_words: u64,
    /// Symbols that not every Xen has.
    pub optional: OptionalSymbols,
}

/// [`Config::call_graph`]: nothing.
pub const CALL_GRAPH_OFF: u64 = 0;
/// The frames that frame pointers lead to.
pub const CALL_GRAPH_FRAMES: u64 = 1;
/// Registers and stacks.
pub const CALL_GRAPH_STACKS: u64 = 2;

/// Addresses of symbols that not every Xen has: 0 where this one has not. What every Xen must have is not here: the
/// payload names it, and the loader resolves it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionalSymbols {
    /// The variables by which Xen maps page numbers to its tables' indexes; without them that is the identity.
    pub pfn_pdx_hole_shift: u64,
    /// See `pfn_pdx_hole_shift`.
    pub pfn_pdx_bottom_mask: u64,
    /// See `pfn_pdx_hole_shift`.
    pub pfn_top_mask: u64,
    /// The code that resumes AMD's guests.
    pub svm_asm_do_resume: u64,
    /// In it, where interrupts that ended a guest's run are taken.
    pub svm_stgi_label: u64,
    /// The code that Intel's guests exit to.
    pub vmx_asm_vmexit_handler: u64,
    /// `vpmu_mode`: whether guests are lent the counters.
    pub vpmu_mode: u64,
    /// `nmi_watchdog`: what Xen's watchdog uses.
    pub nmi_watchdog: u64,
    /// `xenoprof_state`: whether a session of xenoprof is active; gone in 4.22.
    pub xenoprof_state: u64,
    /// `l1_fixmap`: the page table of the range in which the local APIC's registers are mapped.
    pub l1_fixmap: u64,
    /// `set_nmi_callback`, which is called by name: 0 says that there is none.
    pub set_nmi_callback: u64,
    /// `on_selected_cpus`, likewise.
    pub on_selected_cpus: u64,
    /// `__mfn_valid`, likewise.
    pub mfn_valid: u64,
    /// `_stext`: where the hypervisor's code begins.
    pub text_start: u64,
    /// `_etext`: behind its end.
    pub text_end: u64,
}

impl Config {
    /// How many words there are.
    pub const WORDS: usize = size_of::<Self>() / 8;

    /// The words, in the order of the fields.
    pub fn words(&self) -> [u64; Self::WORDS] {
        let optional = &self.optional;
        let before = [
            self.version,
            self.period_ns,
            self.modes,
            self.lease_ns,
            self.ring_pages,
            self.overhead_millionths,
            self.trust,
            self.events,
        ];
        let events = self.event.iter().flat_map(|event| {
            let &EventConfig { selector, period, interval_ns, modes } = event;
            [selector, period, interval_ns, modes]
        });
        let after = [
            self.call_graph,
            self.stack_words,
            optional.pfn_pdx_hole_shift,
            optional.pfn_pdx_bottom_mask,
            optional.pfn_top_mask,
            optional.svm_asm_do_resume,
            optional.svm_stgi_label,
            optional.vmx_asm_vmexit_handler,
            optional.vpmu_mode,
            optional.nmi_watchdog,
            optional.xenoprof_state,
            optional.l1_fixmap,
            optional.set_nmi_callback,
            optional.on_selected_cpus,
            optional.mfn_valid,
            optional.text_start,
            optional.text_end,
        ];
        let mut words = [0; Self::WORDS];
        words.iter_mut().zip(before.into_iter().chain(events).chain(after)).for_each(|(to, word)| *to = word);
        words
    }
}
