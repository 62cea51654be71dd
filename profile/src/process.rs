//! Processes, as far as they are known from outside.

use serde::{Deserialize, Serialize};

use crate::{AddressSpaceRoot, DomainId, Time};

/// A process as one recording knows it: a handle into its table of [`Process`]es.
///
/// Systems hand the numbers of dead processes out again, and a process that executes another program has other names
/// for its addresses, so each such life has a handle of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId(pub u32);

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its handle in this recording.
    pub id: ProcessId,
    /// Whose process it is.
    pub domain: DomainId,
    /// Its number in its domain, where that is known.
    pub pid: Option<u32>,
    /// The root of its page tables, where that is what it is told by.
    pub root: Option<AddressSpaceRoot>,
    /// What its domain's kernel calls it (`comm`): untrusted text.
    pub name: Option<String>,
    /// The control group that it is in, as a path below the hierarchy's root (`/` for none in particular): what
    /// containers are told by. Untrusted text.
    pub container: Option<String>,
    /// When it was first seen.
    pub from: Time,
}
