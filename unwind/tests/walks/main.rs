//! Walks up made-up stacks: kernels', processes', hostile ones.
#![forbid(unsafe_code)]

mod hostile;
mod kernel;
