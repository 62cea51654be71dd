//! Does the profiler tell the truth on KVM, and on hosts without guests?
//!
//! A file for each question; what they measure is printed in lines that begin with `figure:`. Nothing depends on how
//! fast the machine is: what is compared is of one and the same run.
#![forbid(unsafe_code)]

// The questions.
mod accuracy;
mod beside_perf;
mod books;
mod chains;
mod ci;
mod continuous;
mod cost;
mod inlined;
mod kept_stacks;
mod lives;
mod moves;
mod names;
mod own_guest;
mod own_machine;
mod paths;
mod times;

// What they are answered with.
mod recorder;
mod tiny_guest;

use lab::evidence::{bootstrap, figures, host, kernels, observed, programs, report, reuse};
