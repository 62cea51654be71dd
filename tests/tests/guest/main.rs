//! Does what is found in a guest's memory agree with what the guest says of itself? Boots real kernels of three Debian
//! releases: `cargo xtask test` runs these.
//!
//! A file for each question; what they measure is printed in lines that begin with `figure:`.
#![forbid(unsafe_code)]

// The questions.
mod chains;
mod files;
mod kernels;
mod machine_frames;
mod processes;
mod running;

// What they are answered with.
mod machines;
mod truth;
