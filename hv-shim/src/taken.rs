//! What comes out of a ring: samples as they were taken, and what changed between them.

use std::{ops::Range, sync::Arc};

use profile::{AddressSpaceRoot, EventId, ExitCost, Mode, Stretch, Time};

/// One thing that a ring hands out; each ring's are in the order of their times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A sample.
    Sample(Taken),
    /// Something that gives later samples another meaning.
    Change {
        /// Since when.
        time: Time,
        /// What.
        change: Change,
    },
    /// What VM exits cost since they were told the last time.
    Exits(Exits),
}

impl Record {
    /// When it was made.
    pub fn time(&self) -> Time {
        match self {
            Self::Sample(taken) => taken.time,
            Self::Change { time, .. } => *time,
            Self::Exits(exits) => exits.at.time,
        }
    }

    /// Who ran where, if it tells of that.
    pub fn taken(&self) -> Option<&Taken> {
        match self {
            Self::Sample(taken) => Some(taken),
            Self::Exits(exits) => Some(&exits.at),
            Self::Change { .. } => None,
        }
    }
}

/// What the exits of one vCPU cost that left one place for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exits {
    /// Who left, and where; its time is when this was told, and it stands for nothing (weight and number are 0).
    pub at: Taken,
    /// Why, by the name that the processor's manual has for it, in lower case.
    pub reason: Arc<str>,
    /// What it cost.
    pub cost: ExitCost,
}

/// A sample as it was taken. Domains are given by the hypervisor's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When.
    pub time: Time,
    /// Its number on its CPU.
    pub sequence: u64,
    /// How many of the event's units it stands for.
    pub weight: u64,
    /// Which event.
    pub event: EventId,
    /// The domain on whose behalf the code ran; none where the hypervisor worked for itself.
    pub charged_to: Option<u32>,
    /// The index of that domain's vCPU that was current, if one was.
    pub vcpu: Option<u32>,
    /// What the domain's row splits into.
    pub mode: Mode,
    /// Whose code ran.
    pub owner: Owner,
    /// The process that was current in the owner's domain, where that is known.
    pub process: Option<ProcessKey>,
    /// The root of the page tables that were loaded, if they were a guest's: those of its kernel, or of whichever process
    /// it ran last.
    pub page_tables: Option<AddressSpaceRoot>,
    /// The interrupted instruction.
    pub instruction_pointer: u64,
    /// What was captured for finding its callers, innermost first: the hypervisor's code, the kernel that it interrupted,
    /// the process that this one serves. Empty where callers were not asked for, or nothing could be captured.
    pub stretches: Vec<Captured>,
    /// Why there is no more of them, where that is known.
    pub missing: Option<Missing>,
    /// The domain that the thread served which ran, if that is another one and no process says it: a backend of its.
    pub serves: Option<u32>,
}

impl Taken {
    /// Where a domain's vCPU was, of which no sample was taken: it stands for nothing.
    pub(crate) fn unsampled(
        time: Time,
        (domain, vcpu): (u32, u32),
        (mode, owner): (Mode, Owner),
        instruction_pointer: u64,
    ) -> Self {
        Self {
            time,
            sequence: 0,
            weight: 0,
            event: EventId(0),
            charged_to: Some(domain),
            vcpu: Some(vcpu),
            mode,
            owner,
            process: None,
            page_tables: None,
            instruction_pointer,
            stretches: Vec::new(),
            missing: None,
            serves: None,
        }
    }
}

/// Why nothing, or nothing more, was captured with a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The ring was nearly full: whoever reads it is late.
    Room,
    /// The guest's page tables are of a kind that is not followed.
    PageTables,
}

/// What was captured of one space's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Whose code it is.
    pub owner: Owner,
    /// The root of the page tables that were loaded while it ran, if they were a guest's. Those of a kernel that serves
    /// a process may be that process's other ones.
    pub page_tables: Option<AddressSpaceRoot>,
    /// What was captured.
    pub stretch: Stretch,
}

/// Whose code ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The hypervisor's, where it is no domain's kernel.
    Hypervisor,
    /// The kernel of a domain.
    Kernel(u32),
    /// A process of a domain.
    Process(u32),
}

/// What a domain's processes are told apart by while they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessKey {
    /// The root of its page tables.
    Root(AddressSpaceRoot),
    /// Its number. Those of all threads of a process are the same.
    Pid(u32),
}

/// Something that happened to a process of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process has a child, which looks like it.
    Forked {
        /// The child.
        pid: u32,
        /// The parent.
        parent: u32,
    },
    /// A process executes another program: what was mapped is gone, the new name follows.
    Executed {
        /// Which.
        pid: u32,
        /// The kernel's name for it: untrusted text.
        name: String,
    },
    /// A process took another name.
    Renamed {
        /// Which.
        pid: u32,
        /// The kernel's name for it: untrusted text.
        name: String,
    },
    /// Code was mapped into a process.
    Mapped {
        /// Which.
        pid: u32,
        /// Where from.
        mapping: Mapping,
    },
    /// A process is no more.
    Exited {
        /// Which.
        pid: u32,
    },
}

/// Executable memory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub addresses: Range<u64>,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Whose content it has.
    pub file: MappedFile,
}

/// A file as the kernel tells of it: what the same file is known by, however it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappedFile {
    /// Its path as its process sees it, or a name in brackets for what is no file: untrusted text.
    pub path: String,
    /// Its device.
    pub device: (u32, u32),
    /// Its number there; 0 for what is no file.
    pub inode: u64,
}

/// A process as its domain shows it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessState {
    /// The kernel's name for it: untrusted text.
    pub name: Option<String>,
    /// The control group that it is in: untrusted text.
    pub container: Option<String>,
    /// Its executable memory.
    pub mappings: Vec<Mapping>,
}
