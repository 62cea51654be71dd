//! Registers and stack bytes to call chains.
//!
//! Comes in: what was copied of a thread when a sample was taken ([`profile::Registers`] and the bytes of its
//! [`Stacks`]), and what its code says about its frames: a kernel's own tables ([`KernelCode`], ORC), an image's call
//! frame information or Go's table of functions ([`Image`]). Goes out: the [`Chain`] of code addresses, innermost first,
//! and how it [`End`]ed: at an outermost function, or for which reason before it.
//!
//! Tables are taken apart by [`OrcTable::parse`] and [`FrameTable::read`]; what these make of them is plain data, so that it
//! can be done by a process that may do nothing else.
//!
//! **All of it is foreign.** Stacks and tables may be forged to lead in circles, out of the stack or through absurd
//! counts: every walk goes up the stack or ends, chains have at most [`MAX_FRAMES`], a caller counts only where its
//! process or kernel has code, and nothing panics.
//!
//! Nothing is guessed where tables are missing in part: the chain ends and says so. Frame pointers are followed only
//! where an image has no tables at all, or where code was generated at run time.
//!
//! Not here: how stacks are copied, how tables are read out of files and memory, and names.
#![forbid(unsafe_code)]

mod call_frames;
mod chain;
mod frame_table;
mod go;
mod image;
mod kernel;
mod machine;
mod orc;
mod process;
mod stacks;

pub use chain::{Broken, Chain, End, MAX_FRAMES};
pub use frame_table::FrameTable;
pub use image::{Image, Part, Parts};
pub use kernel::{Border, Entered, KernelCode};
pub use orc::OrcTable;
pub use process::{Code, Process, walk};
pub use stacks::Stacks;
