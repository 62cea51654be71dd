//! What end-to-end tests look at: hosts that were booted for them, recordings sample by sample, reports, and how far shares
//! may vary by chance.
//!
//! Everything here panics where the evidence is not what it must be: it is for tests.

pub mod bootstrap;
pub mod chains;
pub mod complaints;
pub mod figures;
pub mod host;
pub mod kernel_code;
pub mod kernels;
pub mod observed;
pub mod paths;
pub mod programs;
pub mod report;
pub mod reuse;
pub mod shown;
pub mod symbols;
