//! What the program wrote ahead of a sample: the guest's state when it was left.

use profile::{AddressSpaceRoot, Registers, StackPiece, Stretch};

use crate::{CallGraph, Captured, Owner};

/// The rest of CR3 is flags and the number by which a processor knows an address space for now (PCID).
pub(super) const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// As KVM counts them: rax rcx rdx rbx rsp rbp rsi rdi r8 … r15 rip.
const REGISTERS: usize = 17;

/// Linux's `struct pt_regs`: what it saves of a process that enters it.
const FRAME: usize = 21;

/// Stacks that are copied at the most: two of the kernel's, one of the process's.
const PIECES: usize = 3;

/// A guest's state, as far as the host's kernel has it (`struct captured` in capture.bpf.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct VcpuState {
    /// Where the kernel's `struct kvm_vcpu` is.
    pub(in crate::kvm) vcpu: u64,
    pub(in crate::kvm) vcpu_id: u32,
    registers: [u64; REGISTERS],
    /// What the kernel last read of the root of the guest's page tables.
    cr3: u64,
    /// What AMD's processors save of a guest.
    vmcb: Option<Vmcb>,
    /// What the guest's kernel saved of the process that it serves.
    frame: Option<[u64; FRAME]>,
    kernel_stacks: Vec<StackPiece>,
    process_stacks: Vec<StackPiece>,
}

/// A part of a virtual machine control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vmcb {
    privilege: u8,
    nested_paging: bool,
    cr3: u64,
    rip: u64,
}

/// Where a guest was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct GuestState {
    /// The root of the page tables that were loaded.
    pub(in crate::kvm) root: AddressSpaceRoot,
    /// Whether a process of it ran, not its kernel.
    pub(in crate::kvm) user: bool,
}

impl GuestState {
    /// Of a guest whose control structure BPF can't read, as it is with Intel's processors. The root that the kernel last
    /// read of it, whenever that was, still maps the guest's kernel, and nothing can be told of a process by it.
    pub(super) fn of_kernel(instruction_pointer: u64, root: u64) -> Option<Self> {
        let of_kernel = instruction_pointer >> 63 == 1 && root != 0;
        of_kernel.then_some(Self { root: AddressSpaceRoot(root), user: false })
    }
}

impl VcpuState {
    /// How much the program writes, without the stacks.
    const BYTES: usize = 16 + 8 * (REGISTERS + 3 + FRAME) + 16 * PIECES;

    /// What it makes its records in (`struct scratch`): these, three stacks, a page, and the walk through a guest.
    pub(super) const SCRATCH_BYTES: u32 = Self::BYTES as u32 + 3 * CallGraph::MOST_BYTES + 4096 + 144;

    /// What a record of it takes in a buffer, where two stacks are copied.
    pub(in crate::kvm) fn most_bytes(call_graph: CallGraph) -> u32 {
        match call_graph {
            CallGraph::Stack { bytes } => Self::BYTES as u32 + 2 * bytes,
            CallGraph::Off | CallGraph::FramePointers => Self::BYTES as u32,
        }
    }

    pub(in crate::kvm) fn parse(bytes: &[u8]) -> Option<Self> {
        let (fixed, mut copied) = bytes.split_at_checked(Self::BYTES)?;
        let (words, _) = fixed.as_chunks();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let [has_vmcb, privilege, nested_paging, has_frame] = [12, 13, 14, 15].map(|at| fixed[at]);
        let after = 2 + REGISTERS;
        let vmcb = Vmcb {
            privilege,
            nested_paging: nested_paging != 0,
            cr3: word(after + 1) & CR3_ADDRESS,
            rip: word(after + 2),
        };
        let frame = after + 3;
        let mut state = Self {
            vcpu: word(0),
            vcpu_id: word(1) as u32,
            registers: std::array::from_fn(|number| word(2 + number)),
            cr3: word(after) & CR3_ADDRESS,
            vmcb: (has_vmcb != 0).then_some(vmcb),
            frame: (has_frame != 0).then(|| std::array::from_fn(|number| word(frame + number))),
            kernel_stacks: Vec::new(),
            process_stacks: Vec::new(),
        };
        for piece in 0..PIECES {
            let at = frame + FRAME + 2 * piece;
            let (address, length, of_process) = (word(at), word(at + 1) as u32, word(at + 1) >> 32 != 0);
            if length > 0 {
                let (bytes, rest) = copied.split_at_checked(length as usize)?;
                let stacks = if of_process { &mut state.process_stacks } else { &mut state.kernel_stacks };
                stacks.push(StackPiece { address, bytes: bytes.to_vec() });
                copied = rest;
            }
        }
        Some(state)
    }

    /// Where the guest was that a sample interrupted; none if that is not known.
    pub(in crate::kvm) fn at(&self, instruction_pointer: u64) -> Option<GuestState> {
        match self.vmcb {
            None => GuestState::of_kernel(instruction_pointer, self.cr3),
            Some(vmcb) => (vmcb.rip == instruction_pointer).then(|| self.when_left(vmcb)),
        }
    }

    fn when_left(&self, vmcb: Vmcb) -> GuestState {
        // Without nested paging the control block has the root of the hypervisor's shadow.
        let root = AddressSpaceRoot(if vmcb.nested_paging { vmcb.cr3 } else { self.cr3 });
        GuestState { root, user: vmcb.privilege == 3 }
    }

    /// Whether the processor's control block is of another place than a sample. Where it lies is known by Linux's sources
    /// and not from this kernel: it is the right one if it has the very instruction.
    pub(in crate::kvm) fn contradicts(&self, instruction_pointer: u64) -> bool {
        self.vmcb.is_some_and(|vmcb| vmcb.rip != instruction_pointer)
    }

    /// What was copied for finding the guest's callers, innermost first; `guest` is its number.
    pub(in crate::kvm) fn stretches(self, guest: u32) -> Vec<Captured> {
        let Some(GuestState { root, user }) = self.vmcb.map(|vmcb| self.when_left(vmcb)) else {
            return Vec::new();
        };
        let captured = |owner, registers, stacks| Captured {
            owner,
            page_tables: Some(root),
            stretch: Stretch::Copied { registers, stacks },
        };
        let registers = registers(&self.registers);
        if user {
            return vec![captured(Owner::Process(guest), registers, self.process_stacks)];
        }
        let kernel = captured(Owner::Kernel(guest), registers, self.kernel_stacks);
        let process =
            self.frame.map(|frame| captured(Owner::Process(guest), saved(&frame), self.process_stacks));
        [kernel].into_iter().chain(process).collect()
    }
}

fn registers(as_kvm_counts: &[u64; REGISTERS]) -> Registers {
    let &[ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15, ip] = as_kvm_counts;
    Registers { ip, sp, bp, bx, r12, r13, r14, r15, ax, cx, dx, si, di, r8, r9, r10, r11 }
}

fn saved(frame: &[u64; FRAME]) -> Registers {
    let &[r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, _call, ip, _cs, _flags, sp, _ss] =
        frame;
    Registers { ip, sp, bp, bx, r12, r13, r14, r15, ax, cx, dx, si, di, r8, r9, r10, r11 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u64 = 0x2000;
    const IP: u64 = 0x40_1234;

    /// What the program writes: registers are numbered from 100, what was saved of a process from 200.
    fn bytes(flags: [u8; 4], pieces: [(u64, u32, u32); PIECES], copied: &[u8]) -> Vec<u8> {
        let mut bytes = [0xffff_8880_0123_0000_u64.to_le_bytes(), 3_u64.to_le_bytes()].concat();
        bytes[12..16].copy_from_slice(&flags);
        let words = (100..117).chain([0x1000, ROOT | 0x3, IP]).chain(200..221);
        bytes.extend(words.flat_map(u64::to_le_bytes));
        for (address, length, of_process) in pieces {
            bytes.extend(address.to_le_bytes());
            bytes.extend([length.to_le_bytes(), of_process.to_le_bytes()].concat());
        }
        assert_eq!(bytes.len(), VcpuState::BYTES);
        bytes.extend(copied);
        bytes
    }

    fn without_stacks(flags: [u8; 4]) -> Vec<u8> {
        bytes(flags, [(0, 0, 0); PIECES], &[])
    }

    fn state(root: u64, user: bool) -> Option<GuestState> {
        Some(GuestState { root: AddressSpaceRoot(root), user })
    }

    #[test]
    fn a_guest_is_where_its_control_block_says() {
        let user = VcpuState::parse(&without_stacks([1, 3, 1, 0])).unwrap();
        assert_eq!((user.vcpu, user.vcpu_id), (0xffff_8880_0123_0000, 3));
        assert_eq!(user.at(IP), state(ROOT, true));
        assert!(!user.contradicts(IP) && user.contradicts(IP + 1));
        assert_eq!(user.at(IP + 1), None, "another instruction was sampled");
        let kernel = VcpuState::parse(&without_stacks([1, 0, 0, 0])).unwrap();
        assert_eq!(kernel.at(IP), state(0x1000, false));
    }

    #[test]
    fn without_a_control_block_only_kernels_are_found() {
        let found = VcpuState::parse(&without_stacks([0; 4])).unwrap();
        assert_eq!(found.at(IP), None);
        assert_eq!(found.at(0xffff_ffff_8100_0000), state(0x1000, false));
        assert!(!found.contradicts(IP));
        assert_eq!(found.stretches(5), []);
    }

    #[test]
    fn a_kernel_that_serves_a_process_has_three_stacks() {
        let pieces = [(0x9000, 2, 0), (0x8000, 1, 0), (0x7000, 3, 1)];
        let state = VcpuState::parse(&bytes([1, 0, 1, 1], pieces, &[1, 2, 3, 4, 5, 6])).unwrap();
        let stretches = state.stretches(5);
        let [kernel, process] = &stretches[..] else { panic!("{stretches:?}") };
        let piece = |address, bytes: &[u8]| StackPiece { address, bytes: bytes.to_vec() };
        assert_eq!((kernel.owner, kernel.page_tables), (Owner::Kernel(5), Some(AddressSpaceRoot(ROOT))));
        let Stretch::Copied { registers, stacks } = &kernel.stretch else { panic!("{kernel:?}") };
        assert_eq!(
            (registers.ax, registers.sp, registers.bx, registers.r15, registers.ip),
            (100, 104, 103, 115, 116)
        );
        assert_eq!(stacks[..], [piece(0x9000, &[1, 2]), piece(0x8000, &[3])]);
        assert_eq!(process.owner, Owner::Process(5));
        let Stretch::Copied { registers, stacks } = &process.stretch else { panic!("{process:?}") };
        assert_eq!(
            (registers.r15, registers.bp, registers.di, registers.ip, registers.sp),
            (200, 204, 214, 216, 219)
        );
        assert_eq!(stacks[..], [piece(0x7000, &[4, 5, 6])]);
    }

    #[test]
    fn a_process_has_its_own_stack_alone() {
        let pieces = [(0, 0, 0), (0, 0, 0), (0x7000, 3, 1)];
        let state = VcpuState::parse(&bytes([1, 3, 1, 0], pieces, &[4, 5, 6])).unwrap();
        let stretches = state.stretches(5);
        let [process] = &stretches[..] else { panic!("{stretches:?}") };
        assert_eq!(process.owner, Owner::Process(5));
        let Stretch::Copied { registers, .. } = &process.stretch else { panic!("{process:?}") };
        assert_eq!(registers.ip, 116);
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = bytes([1, 3, 1, 0], [(0, 0, 0), (0, 0, 0), (0x7000, 3, 1)], &[4, 5, 6]);
        assert!((0..whole.len()).all(|length| VcpuState::parse(&whole[..length]).is_none()));
    }
}
