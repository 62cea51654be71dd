//! What dom0's side writes into the payload before it is loaded.

/// The name of the payload's symbol that stands before its [`Config`].
pub const SYMBOL: &str = "xenoscope_config";

/// The payload's settings: words in its data, filled in before it is uploaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// [`crate::VERSION`].
    pub version: u64,
    /// The mean sampling period in nanoseconds.
    pub period_ns: u64,
    /// For how long a renewal of the lease holds, in nanoseconds.
    pub lease_ns: u64,
    /// Data pages of each ring: a power of two.
    pub ring_pages: u64,
    /// Symbols that not every Xen has.
    pub optional: OptionalSymbols,
}

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
}

impl Config {
    /// How many words there are.
    pub const WORDS: usize = size_of::<Self>() / 8;

    /// The words, in the order of the fields.
    pub const fn words(&self) -> [u64; Self::WORDS] {
        let optional = &self.optional;
        [
            self.version,
            self.period_ns,
            self.lease_ns,
            self.ring_pages,
            optional.pfn_pdx_hole_shift,
            optional.pfn_pdx_bottom_mask,
            optional.pfn_top_mask,
            optional.svm_asm_do_resume,
            optional.svm_stgi_label,
            optional.vmx_asm_vmexit_handler,
        ]
    }
}
