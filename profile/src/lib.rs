//! The vocabulary everyone shares, and the recording on disk.
//!
//! Comes in: nothing but plain values. Goes out: the types that name what a sample is ([`Sample`], [`Domain`],
//! [`Space`], [`Mode`], [`Frame`]), what was not seen ([`CpuAccount`], [`LossCause`]), and [`recording`], the file
//! that carries both. Not here: hypervisors, symbol formats, aggregation; and no `unsafe`.
#![forbid(unsafe_code)]

mod account;
mod address;
mod captured;
mod domain;
mod event;
mod frame;
mod process;
pub mod recording;
mod sample;

pub use account::{CpuAccount, DomainTime, ExitCost, LossCause, Snapshot, VcpuTime, VcpuTimes};
pub use address::{AddressSpaceRoot, CodeAddress, GuestVirtual, HypervisorVirtual, ImageOffset};
pub use captured::{KeptStacks, Registers, StackPiece, Stretch};
pub use domain::{Domain, DomainId, DomainKind, PhysCpu, Uuid, VcpuId};
pub use event::{Event, EventId, Source};
pub use frame::{Chain, ChainId, Frame, FrameId, Linked, NameId, Origin, SourceLine};
pub use process::{Process, ProcessId};
pub use sample::{Mode, Sample, Space, Time};
