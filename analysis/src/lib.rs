//! Recording to aggregates.
//!
//! Comes in: a [`Recording`](profile::recording::Recording). Goes out: a [`Report`], which serializes to the JSON of
//! schema 1, and the weighted [`Stack`]s that pictures are made of; of several, what changed ([`compare`]) and whether that
//! is within bounds ([`gate`]). Not here: files of symbols (names are in the
//! recording), drawing, terminals; and no `unsafe`.
//!
//! Names stay as the guests gave them; whoever shows one passes it through [`Visible`].
#![forbid(unsafe_code)]

mod aggregate;
mod books;
pub mod compare;
mod functions;
pub mod gate;
mod processes;
mod report;
mod rows;
mod select;
mod stacks;
mod visible;

pub use aggregate::Aggregate;
pub use report::{
    CpuReport, DomainReport, EventReport, FunctionReport, HostReport, Modes, Named, NoteReport,
    ProcessReport, Report,
};
pub use select::SelectError;
pub use stacks::{Layer, Stack};
pub use visible::Visible;
