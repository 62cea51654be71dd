//! KVM on this machine, where it has any.
#![forbid(unsafe_code)]

mod tiny_guest;
