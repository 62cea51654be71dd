//! Pictures of a profile.
//!
//! Comes in: a [`Report`](analysis::Report) and the [`Stack`](analysis::Stack)s of one of its events. Goes out: flame
//! graphs as SVG ([`Pictures`]), one of the whole machine and one of each domain, the names for their files, and as one
//! HTML file with everything to search and filter it ([`html`]); both also for what changed. Not
//! here: counting and naming, files; and no `unsafe`.
//!
//! Width is weight; colour is mode. A function has the same colour in every picture.
#![forbid(unsafe_code)]

mod color;
mod html;
mod label;
mod picture;

pub use html::html;
pub use label::file_names;
pub use picture::{PictureError, Pictures};
