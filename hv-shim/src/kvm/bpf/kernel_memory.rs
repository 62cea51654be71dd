//! The kernel's own memory, in pieces.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Mutex,
};

use super::{
    Lack,
    calls::{self, MapKind},
    program::{Object, ProgramKind, Symbol},
};

static PEEK: Object = Object(include_bytes!(concat!(env!("OUT_DIR"), "/peek.bpf.o")));

/// What a read may be (`MOST` in peek.bpf.c).
const MOST: usize = 512;

/// A program that is run to read the kernel's memory. An address that means nothing is no harm.
pub(in crate::kvm) struct KernelMemory {
    program: OwnedFd,
    /// Where it leaves what it read: one at a time.
    peeked: Mutex<OwnedFd>,
}

impl KernelMemory {
    pub(super) fn open() -> Result<Self, Lack> {
        let peeked = calls::create_map(MapKind::Array, 8 + MOST as u32, 1).map_err(Lack::refused("a map"))?;
        let program = PEEK.load(ProgramKind::RawTracepoint, &[("peeked", Symbol::Map(peeked.as_fd()))])?;
        Ok(Self { program, peeked: Mutex::new(peeked) })
    }

    /// A word; none where there is no memory.
    pub(in crate::kvm) fn u64(&self, address: u64) -> Option<u64> {
        let mut value = [0; 8];
        self.read(address, &mut value)?;
        Some(u64::from_le_bytes(value))
    }

    /// Fills up to [`MOST`] bytes; none where not all of it is memory.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let peeked = self.peeked.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        calls::run(self.program.as_fd(), &[address, bytes.len() as u64]).ok()?;
        let mut found = [0; 8 + MOST];
        calls::look_up(peeked.as_fd(), &mut found).ok()?;
        let (failed, found) = found.split_at(8);
        bytes.copy_from_slice(found.get(..bytes.len())?);
        (failed == [0; 8]).then_some(())
    }
}
