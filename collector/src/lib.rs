//! A session: from the shim's rings to a recording.
//!
//! Comes in: a [`hv_shim::Hypervisor`], what the user wants ([`Options`]), and symbols. Goes out: a recording in
//! which every sample is named, every domain known, and every loss counted. Not here: how samples are taken
//! (`hv-shim`), what an address is called (`symbolizer`), what the file looks like (`profile::recording`).
//!
//! Guests' memory is parsed by processes of this same program that can do nothing else ([`serve`]).
//!
//! Samples are merged by time ([`merge`]), charged to domains that come and go ([`domains`]), and named while their
//! guests still live ([`naming`]), callers included ([`callers`]), a process's in the life that it led then ([`processes`]).
#![forbid(unsafe_code)]

mod books;
mod callers;
mod confined;
mod domains;
mod guests;
mod merge;
mod naming;
mod processes;
mod session;
mod survey;
#[cfg(test)]
#[path = "../../guest/tests/looks/synthetic/mod.rs"]
#[expect(dead_code, unused_imports, reason = "a guest is all that is wanted here")]
mod synthetic;

pub use confined::serve;
pub use domains::Filter;
pub use guests::Looking;
pub use session::{CollectError, Options, Progress, Sink, Summary, record};
pub use survey::{FileSurvey, KernelSurvey, NamedFunctions, Survey, survey};
