//! The trace buffers' operations (`XEN_SYSCTL_tbuf_op`, public/sysctl.h; its layout has been the same since Xen 4.0).

use std::io;

use crate::xen::hypercalls::{Hypercalls, SYSCTL_TBUF_OP, SYSCTL_UNION};

const GET_INFO: u32 = 0;
const SET_CPU_MASK: u32 = 1;
const SET_EVENT_MASK: u32 = 2;
const SET_SIZE: u32 = 3;
const ENABLE: u32 = 4;
const DISABLE: u32 = 5;

/// `struct xen_sysctl_tbuf_op`.
const COMMAND: usize = SYSCTL_UNION;
const CPU_BITS: usize = SYSCTL_UNION + 8;
const CPU_COUNT: usize = SYSCTL_UNION + 16;
const EVENT_MASK: usize = SYSCTL_UNION + 24;
const FRAME: usize = SYSCTL_UNION + 32;
const SIZE: usize = SYSCTL_UNION + 40;

/// More CPUs than any Xen is built for.
const MOST_CPUS: usize = 16_384;

/// How Xen's trace buffers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Info {
    /// Which events are traced, while anything is.
    pub(super) event_mask: u32,
    /// The first of the frames that say where the buffers are; none as long as there are no buffers.
    pub(super) frame: Option<u64>,
    /// How many bytes these frames have.
    pub(super) bytes: u32,
}

pub(super) fn info(xen: &Hypercalls) -> io::Result<Info> {
    let mut op = xen.sysctl_buffer(SYSCTL_TBUF_OP)?;
    op.put_u32(COMMAND, GET_INFO);
    xen.sysctl(&op)?;
    let frame = Some(op.u64(FRAME)).filter(|&frame| frame != 0);
    Ok(Info { event_mask: op.u32(EVENT_MASK), frame, bytes: op.u32(SIZE) })
}

/// Which events are traced.
pub(super) fn set_event_mask(xen: &Hypercalls, mask: u32) -> io::Result<()> {
    let mut op = xen.sysctl_buffer(SYSCTL_TBUF_OP)?;
    op.put_u32(COMMAND, SET_EVENT_MASK);
    op.put_u32(EVENT_MASK, mask);
    xen.sysctl(&op).map(drop)
}

/// Has all CPUs traced, as it is when Xen has booted.
pub(super) fn trace_all_cpus(xen: &Hypercalls) -> io::Result<()> {
    let mut bits = xen.privcmd.buffer(MOST_CPUS / 8)?;
    bits.bytes_mut().fill(0xff);
    let mut op = xen.sysctl_buffer(SYSCTL_TBUF_OP)?;
    op.put_u32(COMMAND, SET_CPU_MASK);
    op.put_u64(CPU_BITS, bits.address());
    op.put_u32(CPU_COUNT, MOST_CPUS as u32);
    xen.sysctl(&op).map(drop)
}

/// Has buffers made, of so many pages for each CPU that is online, and tracing enabled. They stay until Xen reboots.
pub(super) fn allocate(xen: &Hypercalls, pages: u32) -> io::Result<()> {
    let mut op = xen.sysctl_buffer(SYSCTL_TBUF_OP)?;
    op.put_u32(COMMAND, SET_SIZE);
    op.put_u32(SIZE, pages);
    xen.sysctl(&op).map(drop)
}

pub(super) fn enable(xen: &Hypercalls) -> io::Result<()> {
    command(xen, ENABLE)
}

/// When this returns, nothing is written into the buffers any more.
pub(super) fn disable(xen: &Hypercalls) -> io::Result<()> {
    command(xen, DISABLE)
}

fn command(xen: &Hypercalls, command: u32) -> io::Result<()> {
    let mut op = xen.sysctl_buffer(SYSCTL_TBUF_OP)?;
    op.put_u32(COMMAND, command);
    xen.sysctl(&op).map(drop)
}
