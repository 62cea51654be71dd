//! Looking into guests that were made up: every layout that is known, and what no kernel would do.
#![forbid(unsafe_code)]

mod explore;
mod hostile;
mod kernels;
mod processes;
mod synthetic;
