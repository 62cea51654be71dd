//! What a recording says besides its samples and books: how it was made, what it refers to, how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Chain, ChainId, Domain, DomainId, Event, EventId, Frame, Mode, PhysCpu, Process, ProcessId, Time,
};

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
    /// A process is there, or is known better than before.
    Process(Process),
    /// A remark.
    Note(Note),
    /// A moment that the user named.
    Mark(Mark),
    /// A guest goes on in another place. Stands before the [`Fact::Domain`] that introduces it there.
    DomainMoved(Move),
    /// Of the samples taken from a time on, not all are told yet when the next books are: they wait for names.
    SamplesWait {
        /// When the first of them was taken.
        since: Time,
    },
}

/// A guest that went on in another place of the same host: it was migrated there, or saved and restored. Each stay is a
/// domain of its own, with what the first one had in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// What it was before.
    pub from: DomainId,
    /// The hypervisor's number for that.
    pub from_number: u32,
    /// What it is since.
    pub to: DomainId,
    /// When it was last seen to run there.
    pub left: Time,
    /// When it was first seen to run again.
    pub arrived: Time,
}

impl Move {
    /// For how long it ran nowhere, in nanoseconds, at the most.
    pub fn away_ns(&self) -> u64 {
        self.arrived.0.saturating_sub(self.left.0)
    }
}

impl Fact {
    /// How many kinds of them this version knows.
    pub(super) const KINDS: u8 = 7;
}

/// The next of each kind of thing that samples refer to by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The next [`NameId`](crate::NameId).
    Name(Box<str>),
    /// The next [`FrameId`](crate::FrameId).
    Frame(Frame),
    /// The next [`ChainId`](crate::ChainId).
    Chain(Chain),
    /// The next [`PlaceId`].
    Place(Place),
    /// The next lane.
    Lane(Lane),
}

/// What equal samples have in common: where, and on whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// See [`Sample::charged_to`](crate::Sample::charged_to).
    pub charged_to: Option<DomainId>,
    /// See [`Sample::process`](crate::Sample::process).
    pub process: Option<ProcessId>,
    /// See [`Sample::mode`](crate::Sample::mode).
    pub mode: Mode,
    /// See [`Sample::chain`](crate::Sample::chain).
    pub chain: ChainId,
}

/// The number of a place in the order in which the recording introduces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceId(pub u32);

/// One event on one CPU: its samples follow each other in time, and so are stored as differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Where.
    pub cpu: PhysCpu,
    /// Of what.
    pub event: EventId,
}

/// A moment that the user named: `xenoscope mark`. It begins a phase, which the next one ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub time: Time,
    /// What the user calls it: untrusted text.
    pub name: String,
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
    /// The file is as large as it may be; another one goes on where this one ends.
    Continued,
    /// The file is as large as it may be.
    Full,
}
