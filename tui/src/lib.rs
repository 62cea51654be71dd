//! The live dashboard.
//!
//! Comes in: a recording that is being made, was made, or grows in a file ([`profile::recording::Recording`]), and the
//! terminal's keys. Goes out: pictures of it on that terminal. Not here: sampling (`collector`), and where code is read from
//! ([`ReadCode`] is given).
//!
//! The parts know nothing of each other's insides: [`State`] takes what a recording tells and never draws; [`draw`] makes
//! cells of it and never waits; a [`Feed`] reads, in a thread of its own; [`handle`] does what keys say; and [`run`] shows.
#![forbid(unsafe_code)]

mod disassembly;
mod feed;
mod jobs;
mod keys;
mod run;
mod screen;
mod state;
mod terminal;
mod view;

pub use disassembly::{CodeWanted, ReadCode};
pub use feed::{Fed, Feed, FeedOptions, Growing};
pub use keys::{Action, handle};
pub use run::{RunError, RunOptions, run};
pub use screen::{Code, Ended, Pace, Screen, View};
pub use state::*;
pub use view::{Colors, Theme, draw};
