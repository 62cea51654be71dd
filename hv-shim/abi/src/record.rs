//! Records: whole 64-bit words, typed and length-prefixed.
//!
//! ```text
//! word 0   length in words u16 · kind u8 · mode u8 · domain u16 · vCPU u16
//! word 1   sequence number on this CPU
//! word 2   time
//! word 3   weight: how many of the event's units the sample stands for
//! word 4   instruction pointer
//! word 5   stack pointer; in the hypervisor's code that of the paravirtualized vCPU that it came from
//! word 6   address-space root (CR3; 0 where the code ran in the hypervisor's own)
//! word 7   event u16 · source u8 · guest u8 · 0 u32
//! then     sections (see [`crate::section`])
//! ```
//! A newer producer may add sections and kinds; a reader steps over what it does not know.

/// The longest record.
pub const MAX_WORDS: usize = 8704;

/// Words of a sample without sections: one cache line.
pub const SAMPLE_WORDS: usize = 8;

/// The kind of a record that is a sample.
pub const KIND_SAMPLE: u8 = 1;

/// The domain number of the idle domain: the hypervisor worked for itself.
pub const DOMAIN_IDLE: u16 = 0x7fff;

/// Whose code ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// The hypervisor's.
    Hypervisor = 0,
    /// The domain's kernel's.
    Kernel = 1,
    /// A process's of the domain.
    User = 2,
}

/// What the interrupted vCPU's registers were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Guest {
    /// Nothing: the hypervisor's own code was interrupted.
    None = 0,
    /// The interrupt frame of a paravirtualized vCPU.
    Pv = 1,
    /// AMD's virtual machine control block.
    Svm = 2,
    /// Intel's virtual machine control structure.
    Vmx = 3,
}

/// The source of a sample: the local APIC timer.
pub const SOURCE_TIMER: u8 = 1;

/// The source of a sample: a performance counter's overflow, by NMI.
pub const SOURCE_PMU: u8 = 2;

/// A sample as it crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Whose code ran.
    pub mode: Mode,
    /// The current vCPU's domain.
    pub domain: u16,
    /// The current vCPU's index in it.
    pub vcpu: u16,
    /// The sample's number on its CPU.
    pub sequence: u64,
    /// When it was taken.
    pub time: u64,
    /// How many of the event's units it stands for.
    pub weight: u64,
    /// The interrupted instruction.
    pub instruction_pointer: u64,
    /// The stack pointer there; in the hypervisor's code that of the paravirtualized vCPU that it came from.
    pub stack_pointer: u64,
    /// The root of the interrupted code's page tables; 0 for the hypervisor's.
    pub root: u64,
    /// Which event.
    pub event: u16,
    /// Which source.
    pub source: u8,
    /// What the registers were read from.
    pub guest: Guest,
}

/// Why a record can't be read as a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Shorter than a sample, or not as long as it says.
    Length,
    /// A mode that this version does not have.
    Mode(u8),
    /// A register source that this version does not have.
    Guest(u8),
}

/// A record's first word, with another length.
#[inline]
pub const fn with_length(first: u64, words: usize) -> u64 {
    first & !0xffff | words as u64
}

/// The length that a record's first word tells.
#[inline]
pub const fn length_in_words(first: u64) -> usize {
    (first & 0xffff) as usize
}

/// The kind that a record's first word tells.
#[inline]
pub const fn kind(first: u64) -> u8 {
    (first >> 16) as u8
}

/// The mode that a sample's first word tells, as [`Mode`] numbers them.
#[inline]
pub const fn mode(first: u64) -> u8 {
    (first >> 24) as u8
}

impl Sample {
    /// The sample's words.
    #[inline]
    pub const fn encode(&self) -> [u64; SAMPLE_WORDS] {
        [
            SAMPLE_WORDS as u64
                | (KIND_SAMPLE as u64) << 16
                | (self.mode as u64) << 24
                | (self.domain as u64) << 32
                | (self.vcpu as u64) << 48,
            self.sequence,
            self.time,
            self.weight,
            self.instruction_pointer,
            self.stack_pointer,
            self.root,
            self.event as u64 | (self.source as u64) << 16 | (self.guest as u64) << 24,
        ]
    }

    /// Makes a sample's words those of another that was taken at the same moment: only its number, and the event and how
    /// often that happened, are its own.
    #[inline]
    pub const fn change(words: &mut [u64; SAMPLE_WORDS], sequence: u64, event: u16, weight: u64) {
        words[1] = sequence;
        words[3] = weight;
        words[7] = words[7] & !0xffff | event as u64;
    }

    /// Reads a record of kind [`KIND_SAMPLE`]; sections behind the fixed part are left to others.
    pub const fn decode(words: &[u64]) -> Result<Self, RecordError> {
        if words.len() < SAMPLE_WORDS || length_in_words(words[0]) != words.len() {
            return Err(RecordError::Length);
        }
        let mode = match mode(words[0]) {
            0 => Mode::Hypervisor,
            1 => Mode::Kernel,
            2 => Mode::User,
            other => return Err(RecordError::Mode(other)),
        };
        let guest = match (words[7] >> 24) as u8 {
            0 => Guest::None,
            1 => Guest::Pv,
            2 => Guest::Svm,
            3 => Guest::Vmx,
            other => return Err(RecordError::Guest(other)),
        };
        Ok(Self {
            mode,
            domain: (words[0] >> 32) as u16,
            vcpu: (words[0] >> 48) as u16,
            sequence: words[1],
            time: words[2],
            weight: words[3],
            instruction_pointer: words[4],
            stack_pointer: words[5],
            root: words[6],
            event: words[7] as u16,
            source: (words[7] >> 16) as u8,
            guest,
        })
    }
}
