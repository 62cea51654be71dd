//! Does the profiler tell the truth on a real Xen, and leave no trace there? Boots real hosts: `cargo xtask test` runs
//! these.
//!
//! A file for each question; what they measure is printed in lines that begin with `figure:`. Nothing depends on how
//! fast the machine is: what is compared is of one and the same run.
#![forbid(unsafe_code)]

// The questions.
mod accuracy;
mod adversity;
mod backends;
mod bad_input;
mod books;
mod chains;
mod chains_cost;
mod cost;
mod endurance;
mod lifecycle;
mod lockstep;
mod moves;
mod names;
mod nmi;
mod overhead;
mod ownership;
mod pictures;
mod releases;
mod slowdown;
mod sources;
mod stacks;
mod times;
mod top;

// What they are answered with.
mod consoles;

use lab::evidence::{bootstrap, figures, host, kernels, observed, programs, report, reuse, symbols};
