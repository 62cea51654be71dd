//! The hypercall.

use std::io;

use crate::xen::hypercalls::Hypercalls;

const HYPERVISOR_XENOPROF: u64 = 31;

/// The operations.
pub(super) mod op {
    pub(in crate::xen::xenoprof) const INIT: u64 = 0;
    pub(in crate::xen::xenoprof) const RESET_ACTIVE_LIST: u64 = 1;
    pub(in crate::xen::xenoprof) const RESET_PASSIVE_LIST: u64 = 2;
    pub(in crate::xen::xenoprof) const SET_ACTIVE: u64 = 3;
    pub(in crate::xen::xenoprof) const SET_PASSIVE: u64 = 4;
    pub(in crate::xen::xenoprof) const RESERVE_COUNTERS: u64 = 5;
    pub(in crate::xen::xenoprof) const COUNTER: u64 = 6;
    pub(in crate::xen::xenoprof) const SETUP_EVENTS: u64 = 7;
    pub(in crate::xen::xenoprof) const ENABLE_VIRQ: u64 = 8;
    pub(in crate::xen::xenoprof) const START: u64 = 9;
    pub(in crate::xen::xenoprof) const STOP: u64 = 10;
    pub(in crate::xen::xenoprof) const DISABLE_VIRQ: u64 = 11;
    pub(in crate::xen::xenoprof) const RELEASE_COUNTERS: u64 = 12;
    pub(in crate::xen::xenoprof) const SHUTDOWN: u64 = 13;
    pub(in crate::xen::xenoprof) const GET_BUFFER: u64 = 14;
    /// No version has had so many.
    pub(in crate::xen::xenoprof) const NONE: u64 = 999;
}

/// Makes an operation with these bytes as its argument, in and out.
pub(super) fn operate(xen: &Hypercalls, op: u64, argument: &mut [u8]) -> io::Result<u64> {
    let mut buffer = xen.privcmd.buffer(argument.len())?;
    buffer.bytes_mut().copy_from_slice(argument);
    let value = xen.privcmd.hypercall(HYPERVISOR_XENOPROF, &[op, buffer.address()])?;
    argument.copy_from_slice(buffer.bytes());
    Ok(value)
}

/// An operation that may fail: there may be nothing to end.
pub(super) fn try_to(xen: &Hypercalls, op: u64) {
    let _ = operate(xen, op, &mut []);
}
