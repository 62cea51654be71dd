//! What a recording says besides its samples and books: how it was made, what it refers to, how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Chain, Domain, DomainId, Event, Frame, Process, Time};

/// How a recording was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The program that made it, with its version.
    pub tool: String,
    /// When sampling began, by the wall clock, in nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// The same moment by the clock of the samples.
    pub started: Time,
    /// Where.
    pub host: Host,
    /// What was sampled; an [`EventId`](crate::EventId) is an index into this list.
    pub events: Vec<Event>,
    /// The command whose life the recording spans, if it was made for one.
    pub command: Option<Vec<String>>,
    /// What the user asked for besides, as option and value.
    pub options: BTreeMap<String, String>,
}

/// The machine that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The hypervisor and its version: `Xen 4.17.7`, `KVM`.
    pub hypervisor: String,
    /// The build id of the hypervisor's image.
    pub build_id: Option<String>,
    /// The release of the kernel of dom0 or of the host.
    pub kernel: String,
    /// The name of dom0 or of the host.
    pub hostname: String,
    /// How many physical CPUs there are.
    pub cpus: u32,
}

/// Something that samples refer to, or that explains them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A domain is there, or is known better than before.
    Domain(Domain),
    /// A domain is no more.
    DomainGone {
        /// Which.
        domain: DomainId,
        /// Since when.
        at: Time,
    },
    /// The next [`NameId`](crate::NameId).
    Name(String),
    /// The next [`FrameId`](crate::FrameId).
    Frame(Frame),
    /// The next [`ChainId`](crate::ChainId).
    Chain(Chain),
    /// A remark.
    Note(Note),
    /// A process is there, or is known better than before.
    Process(Process),
}

/// Something that whoever reads a report must be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When it turned out.
    pub time: Time,
    /// A sentence for the user.
    pub text: String,
}

/// The end of a recording that was finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When sampling stopped.
    pub time: Time,
    /// Why.
    pub reason: EndReason,
}

/// Why a recording ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The time asked for was over.
    Duration,
    /// The command ended, with this status.
    CommandEnded(i32),
    /// The user stopped it.
    Interrupted,
    /// The host could not go on sampling.
    HostError(String),
}
