//! Recording to aggregates.
//!
//! Comes in: a [`Recording`](profile::recording::Recording). Goes out: a [`Report`], which serializes to the JSON of
//! schema 1, the weighted [`Stack`]s that pictures are made of, and [`CallTree`]s; of several, what changed ([`compare`])
//! and whether that is within bounds ([`gate`]). Not here: files of symbols (names are in the
//! recording), drawing, terminals; and no `unsafe`.
//!
//! Names stay as the guests gave them; whoever shows one passes it through [`Visible`].
#![forbid(unsafe_code)]

mod aggregate;
mod books;
mod breakdown;
mod call_tree;
pub mod compare;
mod counted;
mod exits;
mod functions;
pub mod gate;
mod processes;
mod report;
mod rows;
mod select;
mod stacks;
mod visible;

pub use aggregate::Aggregate;
pub use breakdown::{Key, Part};
pub use call_tree::{CallTree, Node};
pub use counted::{Counted, Counts};
pub use functions::{Function, frames_with_modes, name as frame_name};
pub use processes::label as process_label;
pub use report::{
    CpuReport, DomainReport, EventReport, ExitFunctionReport, ExitReport, FunctionReport, HostReport, Modes,
    MoveReport, Named, NoteReport, ProcessReport, Report, VcpuReport,
};
pub use rows::Identity;
pub use select::SelectError;
pub use stacks::{Layer, Stack};
pub use visible::Visible;
