//! The bytes of code that runs: from guests' memory, from processes of this host, from its kernel.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use guest::{Levels, Limits, Look, PageTables};
use hv_shim::{Hypervisor, Memories, own_core::KernelCore};
use profile::{Domain, DomainKind, GuestVirtual, Space};
use tui::{CodeWanted, ReadCode};

/// Reads the code of what lives on this host.
pub(super) struct LiveCode {
    memories: Option<Arc<dyn Memories>>,
}

impl LiveCode {
    pub(super) fn of(hypervisor: &dyn Hypervisor) -> Self {
        Self { memories: hypervisor.memories() }
    }

    /// Of this host as far as it lets itself be looked at.
    pub(super) fn here() -> Self {
        Self { memories: hv_shim::detect().ok().and_then(|hypervisor| hypervisor.memories()) }
    }

    fn guest(&self, domain: &Domain, wanted: &CodeWanted) -> Result<Vec<u8>, String> {
        let memory = self.memories.as_ref().and_then(|memories| memories.open(domain.number, domain.kind));
        let memory = memory.ok_or("the memory of this domain can't be read from here")?;
        let root = wanted.process.as_ref().and_then(|process| process.root);
        let root = root.ok_or("no page tables of this domain are known that have this code")?;
        let look = Look::new(&*memory, Limits::default());
        let mut bytes = vec![0; wanted.length];
        let read = |levels, bytes: &mut [u8]| {
            look.read(PageTables::of_cr3(root.0, levels), GuestVirtual(wanted.start), bytes)
        };
        match read(Levels::Four, &mut bytes).or_else(|_| read(Levels::Five, &mut bytes)) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(format!("the code can't be read: {error}")),
        }
    }
}

impl ReadCode for LiveCode {
    fn read(&mut self, wanted: &CodeWanted) -> Result<Vec<u8>, String> {
        let Some(domain) = &wanted.domain else {
            return Err("the hypervisor's own code can't be read from here".into());
        };
        match (domain.kind, wanted.space) {
            (DomainKind::Dom0 | DomainKind::Host, Space::Kernel(_)) => kernel(wanted),
            (DomainKind::Dom0 | DomainKind::Host, _) => process(wanted),
            _ => self.guest(domain, wanted),
        }
    }
}

/// A process of this host.
fn process(wanted: &CodeWanted) -> Result<Vec<u8>, String> {
    let pid = wanted.process.as_ref().and_then(|process| process.pid);
    let pid = pid.ok_or("it is not known which process this was")?;
    let path = format!("/proc/{pid}/mem");
    let read = File::open(&path).and_then(|memory| read_some(&memory, wanted.start, wanted.length));
    read.map_err(|error| format!("{path} can't be read: {error}"))
}

/// This host's kernel, as its core file has it.
fn kernel(wanted: &CodeWanted) -> Result<Vec<u8>, String> {
    let read = |core: KernelCore| match core.place(wanted.start) {
        Some((file, offset)) => read_some(file, offset, wanted.length),
        None => Err(io::Error::other("it has nothing at this address")),
    };
    KernelCore::open().and_then(read).map_err(|error| format!("{} can't be read: {error}", KernelCore::PATH))
}

/// As many bytes as there are.
fn read_some(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if filled == 0 => return Err(error),
            // What is mapped ends here.
            Err(_) => break,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Of a recording that is only shown.
pub(super) struct NoCode;

impl ReadCode for NoCode {
    fn read(&mut self, _: &CodeWanted) -> Result<Vec<u8>, String> {
        Err("recordings have no code: these are the addresses alone".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_at_a_place() {
        let file = File::open("/proc/self/exe").unwrap();
        assert_eq!(read_some(&file, 1, 3).unwrap(), b"ELF");
    }
}
