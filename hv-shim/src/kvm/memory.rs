//! A guest's memory, which is its virtual machine monitor's: read there, at the addresses that KVM itself uses.
//!
//! Comes in: a vCPU that was met in a sample, from which the kernel's own structures lead to the slots of memory that its
//! guest has. The monitor is not asked, nor held up. What KVM does not map for the guest from memory (devices, holes) is
//! missing.

use std::{io, ops::Range, sync::Arc};

use guest::{GuestMemory, GuestPhysical, Missing};
use profile::DomainKind;

use super::{
    bpf::{Bpf, SlotLayout},
    vcpus::Vcpus,
};
use crate::Memories;

/// More than any guest has: KVM takes 32764 at most, a machine with every slot of memory in use a few hundred.
const MOST_SLOTS: usize = 4096;

const PAGE: u64 = 4096;

/// The memory of all guests of this host that were met in samples.
pub(super) struct KvmMemories {
    pub(super) bpf: Arc<Bpf>,
    pub(super) vcpus: Vcpus,
}

impl Memories for KvmMemories {
    fn open(&self, domain: u32, _kind: DomainKind) -> Option<Box<dyn GuestMemory>> {
        let vcpu = self.vcpus.lock().structure_of(domain)?;
        let slots = slots(&self.bpf.layout.slots, &|address| self.bpf.kernel.u64(address), vcpu)?;
        Some(Box::new(MonitorsMemory { pid: domain as libc::pid_t, slots }))
    }
}

/// A piece of a guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    guest: Range<u64>,
    /// Where the monitor has its first byte.
    host: u64,
}

/// The slots of a vCPU's guest, in ascending order, from the kernel's tree of them (`kvm_memslots.gfn_tree`, Linux 5.17).
/// The kernel may change it meanwhile: what does not fit is left out.
fn slots(layout: &SlotLayout, word: &dyn Fn(u64) -> Option<u64>, vcpu: u64) -> Option<Vec<Slot>> {
    let kvm = word(vcpu.wrapping_add(layout.vcpu_kvm))?;
    let all = word(kvm.wrapping_add(layout.kvm_slots))?;
    let index = word(all.wrapping_add(layout.node_index))? & 1;
    let node_in_slot = layout.nodes + index * layout.node_bytes;
    let mut found = Vec::new();
    let mut nodes = vec![word(all.wrapping_add(layout.tree))?];
    let mut visits = 0;
    while let Some(node) = nodes.pop() {
        visits += 1;
        if node == 0 || visits > 2 * MOST_SLOTS {
            continue;
        }
        let slot = node.wrapping_sub(node_in_slot);
        let field = |offset: u64| word(slot.wrapping_add(offset));
        let (Some(first), Some(pages), Some(host)) =
            (field(layout.first_frame), field(layout.pages), field(layout.host_address))
        else {
            continue;
        };
        let (start, length) = (first.checked_mul(PAGE), pages.checked_mul(PAGE));
        if let (Some(start), Some(length)) = (start, length)
            && let Some(end) = start.checked_add(length)
        {
            found.push(Slot { guest: start..end, host });
        }
        nodes.extend(
            [layout.node_left, layout.node_right].iter().filter_map(|side| word(node.wrapping_add(*side))),
        );
    }
    found.sort_by_key(|slot| slot.guest.start);
    Some(found)
}

struct MonitorsMemory {
    pid: libc::pid_t,
    slots: Vec<Slot>,
}

impl MonitorsMemory {
    /// Where the monitor has a byte of the guest's, and how many follow it in one piece.
    fn place(&self, address: u64) -> Option<(u64, u64)> {
        let after = self.slots.partition_point(|slot| slot.guest.start <= address);
        let slot = self.slots[..after].last().filter(|slot| slot.guest.contains(&address))?;
        Some((slot.host.wrapping_add(address - slot.guest.start), slot.guest.end - address))
    }
}

impl GuestMemory for MonitorsMemory {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing(address);
        let mut at = address.0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (host, length) = self.place(at).ok_or(missing)?;
            let (piece, after) =
                rest.split_at_mut(rest.len().min(usize::try_from(length).unwrap_or(usize::MAX)));
            read_of_process(self.pid, host, piece).map_err(|_| missing)?;
            at = at.wrapping_add(piece.len() as u64);
            rest = after;
        }
        Ok(())
    }
}

/// Copies bytes of a process's memory: all of them, or it is an error.
fn read_of_process(pid: libc::pid_t, address: u64, bytes: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel writes to the local piece only, which is `bytes`; the remote address is the other process's, and
    // the kernel checks it.
    let copied = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(copied) {
        Ok(copied) if copied == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const LAYOUT: SlotLayout = SlotLayout {
        vcpu_kvm: 0,
        kvm_slots: 8,
        tree: 16,
        node_index: 24,
        nodes: 0,
        node_bytes: 24,
        node_left: 16,
        node_right: 8,
        first_frame: 48,
        pages: 56,
        host_address: 64,
    };

    /// A tree whose slots are at 0x1000, 0x2000 and so on, the first one its root: frame, pages, address, left, right.
    fn kernel(slots: &[[u64; 5]]) -> HashMap<u64, u64> {
        let node = |number: u64| if number == 0 { 0 } else { 0x1000 * number + 24 };
        let mut words = HashMap::from([(0x10, 0x20), (0x28, 0x40), (0x50, node(1)), (0x58, 1)]);
        for (number, &[frame, pages, host, left, right]) in (1..).zip(slots) {
            let slot = 0x1000 * number;
            words.extend([(slot + 48, frame), (slot + 56, pages), (slot + 64, host)]);
            words.extend([(node(number) + 16, node(left)), (node(number) + 8, node(right))]);
        }
        words
    }

    #[test]
    fn slots_are_those_of_the_kernels_tree() {
        let words = kernel(&[[0x100, 2, 0xa000, 2, 0], [0, 1, 0xf000, 0, 0]]);
        let found = slots(&LAYOUT, &|address| words.get(&address).copied(), 0x10).unwrap();
        let slot = |guest, host| Slot { guest, host };
        assert_eq!(found, [slot(0..0x1000, 0xf000), slot(0x10_0000..0x10_2000, 0xa000)]);
        let memory = MonitorsMemory { pid: 0, slots: found };
        assert_eq!(memory.place(0x10_1fff), Some((0xbfff, 1)));
        assert_eq!(memory.place(0xfff), Some((0xffff, 1)));
        assert_eq!(memory.place(0x1000), None);
        assert_eq!(memory.place(0x10_2000), None);
    }

    #[test]
    fn a_tree_that_changes_meanwhile_has_an_end() {
        let words = kernel(&[[0, 1, 0xa000, 1, 1], [u64::MAX, u64::MAX, 0, 0, 0]]);
        let found = slots(&LAYOUT, &|address| words.get(&address).copied(), 0x10).unwrap();
        assert!(found.len() <= 2 * MOST_SLOTS, "{}", found.len());
        assert_eq!(slots(&LAYOUT, &|_| None, 0x10), None);
    }

    #[test]
    fn memory_is_read_where_the_monitor_has_it() {
        let own = [1_u8, 2, 3, 4];
        let slot = Slot { guest: 0x1000..0x1004, host: own.as_ptr().addr() as u64 };
        let memory = MonitorsMemory { pid: std::process::id() as libc::pid_t, slots: vec![slot] };
        let mut bytes = [0; 2];
        memory.read(GuestPhysical(0x1001), &mut bytes).unwrap();
        assert_eq!(bytes, [2, 3]);
        assert_eq!(memory.read(GuestPhysical(0x1003), &mut bytes), Err(Missing(GuestPhysical(0x1003))));
        let nowhere = MonitorsMemory { slots: vec![Slot { guest: 0..0x1000, host: 0x10 }], ..memory };
        assert_eq!(nowhere.read(GuestPhysical(0), &mut bytes), Err(Missing(GuestPhysical(0))));
    }
}
