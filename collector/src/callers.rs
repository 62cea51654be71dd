//! Callers of what was sampled: what was captured of stacks, to chains of code addresses.
//!
//! What tells of an image's frames is kept by image, however many processes map it.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt};

use guest::{Budget, Elf, FileBytes, FileError, Limits};
use hv_shim::{Captured, Sampling};
use profile::{AddressSpaceRoot, CodeAddress, DomainId, ProcessId, Registers, Space, StackPiece, Stretch};
use symbolizer::{ImageId, Place, Symbolizer};
use unwind::{
    Broken, Chain, Code, End, Entered, FrameTable, Image, KernelCode, Part, Parts, Process, Stacks,
};

use crate::processes::Processes;

/// A link of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Somebody's code.
    Code(Space, CodeAddress),
    /// Callers that could not be found, and why.
    Gap(Space, Broken),
}

/// Finds callers.
#[derive(Default)]
pub(crate) struct Callers {
    kernels: HashMap<DomainId, KernelCode>,
    /// Whose page tables were loaded when a chain went on from this stack of a kernel to where its process begins.
    served: HashMap<(DomainId, TaskStack), AddressSpaceRoot>,
}

/// The stack of one task of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TaskStack(u64);

impl TaskStack {
    /// Linux: THREAD_SIZE, to which they are aligned.
    const BYTES: u64 = 16 << 10;
    /// From here on there are stacks of CPUs (Documentation/arch/x86/x86_64/mm.rst: cpu_entry_area).
    const END: u64 = 0xffff_fe00_0000_0000;

    /// The outermost of a kernel's stacks, if it is a task's.
    fn of(stacks: &[StackPiece]) -> Option<Self> {
        let address = stacks.last()?.address;
        (address < Self::END).then_some(Self(address & !(Self::BYTES - 1)))
    }
}

/// More stacks than that are not remembered.
const MOST_STACKS: usize = 1 << 16;

/// How frames of images are read.
#[derive(Default)]
pub(crate) struct Images {
    known: HashMap<ImageId, Image>,
}

impl Images {
    /// Takes a file of the host.
    pub(crate) fn read(&mut self, image: ImageId, file: &File) {
        let Ok(size) = file.metadata().map(|metadata| metadata.len()) else { return };
        let file = HostFile { file, size };
        let budget = Budget::new(Limits::default());
        if let Ok(elf) = Elf::read(&file, &budget) {
            self.set(image, frame_table(&elf, &file, &budget));
        }
    }

    pub(crate) fn get(&self, image: ImageId) -> Option<&Image> {
        self.known.get(&image)
    }

    /// Takes what was read of an image.
    pub(crate) fn set(&mut self, image: ImageId, table: FrameTable) {
        self.known.insert(image, Image::new(table));
    }
}

/// What an ELF file tells of its functions' frames.
pub(crate) fn frame_table(elf: &Elf, file: &(impl FileBytes + ?Sized), budget: &Budget) -> FrameTable {
    let tables = elf.frame_tables(file, budget);
    let part = |part: guest::Part| Part { address: part.address, bytes: part.bytes };
    FrameTable::read(&Parts {
        eh_frame_header: tables.eh_frame_header.map(part),
        eh_frame: tables.eh_frame.map(part),
        go_functions: tables.go_functions.map(part),
    })
}

struct HostFile<'a> {
    file: &'a File,
    size: u64,
}

impl FileBytes for HostFile<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        self.file.read_exact_at(bytes, offset).map_err(|_| FileError::PastEnd(offset))
    }
}

/// The images that processes have mapped, read as far as they are needed.
pub(crate) struct Mapped<'a> {
    pub(crate) symbolizer: &'a mut Symbolizer,
    pub(crate) processes: &'a mut Processes,
    pub(crate) sampling: &'a dyn Sampling,
    /// The process, as the host knows it; none if it is not the host's.
    pub(crate) pid: Option<u32>,
}

/// One process's.
struct AddressSpace<'a, 'm> {
    process: ProcessId,
    mapped: &'a mut Mapped<'m>,
}

impl Process for AddressSpace<'_, '_> {
    fn code_at(&mut self, address: u64) -> Option<Code<'_>> {
        let Mapped { symbolizer, processes, sampling, pid } = &mut *self.mapped;
        let mut place = symbolizer.place(self.process, address)?;
        if let (Place::Unread(image), Some(pid)) = (place, *pid) {
            processes.read_image(pid, image, *sampling, symbolizer);
            place = symbolizer.place(self.process, address)?;
        }
        Some(match place {
            Place::Memory => Code::Generated,
            Place::Unread(_) | Place::Unreadable => Code::Unreadable,
            Place::Linked(image, address) => match processes.image(image) {
                Some(image) => Code::Image(image, address),
                None => Code::Unreadable,
            },
        })
    }
}

impl Callers {
    /// Takes what tells of a kernel's frames.
    pub(crate) fn set_kernel(&mut self, domain: DomainId, code: KernelCode) {
        self.kernels.insert(domain, code);
    }

    /// Forgets a domain that is no more.
    pub(crate) fn forget(&mut self, domain: DomainId) {
        self.kernels.remove(&domain);
        self.served.retain(|&(of, _), _| of != domain);
    }

    /// The links of a sample, innermost first, from what was captured of each space.
    pub(crate) fn links<'c>(
        &mut self,
        stretches: impl Iterator<Item = (Space, &'c Captured)> + Clone,
        mapped: &mut Mapped<'_>,
    ) -> Vec<Link> {
        let stacks = Stacks::of(stretches.clone().map(|(_, captured)| &captured.stretch));
        let mut links = Vec::new();
        // What the kernel was entered from, once that is known.
        let mut entered: Option<(Space, Registers)> = None;
        // The kernel's, if it was still entering or already leaving: those that are preserved are the process's.
        let mut at_the_border: Option<Registers> = None;
        // A thread of the kernel has no process, whatever stands where its registers would.
        let mut is_own_thread = false;
        let mut task_stack = None;
        for (space, captured) in stretches {
            if is_own_thread && matches!(space, Space::User(..)) {
                continue;
            }
            let chain = match (&captured.stretch, space) {
                (Stretch::Walked(frames), _) => Chain { frames: frames.clone(), end: End::Complete },
                (Stretch::Copied { registers, .. }, Space::Hypervisor) => unknown(registers),
                (Stretch::Copied { registers, stacks: own }, Space::Kernel(domain)) => {
                    task_stack = TaskStack::of(own).map(|stack| (domain, stack));
                    match self.kernels.get(&domain).map(|code| code.walk(registers, &stacks)) {
                        Some((chain, Entered::FromProcess(registers))) => {
                            entered = Some((space, registers));
                            chain
                        }
                        Some((chain, Entered::FromNowhere)) => {
                            // The first instructions of a system call have no callers either.
                            let is_whole = chain.end == End::Complete;
                            is_own_thread = is_whole && chain.frames.len() > 1;
                            at_the_border = (is_whole && !is_own_thread).then_some(*registers);
                            chain
                        }
                        None => unknown(registers),
                    }
                }
                (Stretch::Copied { registers, .. }, Space::User(_, process)) => {
                    let registers = match (entered.take(), at_the_border.take()) {
                        (Some((_, registers)), _) => registers,
                        (None, Some(kernel)) => Registers { ip: registers.ip, sp: registers.sp, ..kernel },
                        (None, None) => *registers,
                    };
                    let chain = unwind::walk(&mut AddressSpace { process, mapped }, &registers, &stacks);
                    if let Some((stack, root)) = task_stack.take().zip(captured.page_tables)
                        && self.is_anothers(stack, root, chain.end)
                    {
                        links.push(Link::Gap(Space::Kernel(stack.0), Broken::BetweenProcesses));
                        continue;
                    }
                    chain
                }
            };
            links.extend(chain.frames.iter().map(|&address| Link::Code(space, address)));
            if let End::Broken(broken) = chain.end {
                links.push(Link::Gap(space, broken));
            }
        }
        // A process that was not captured.
        links.extend(entered.map(|(space, _)| Link::Gap(space, Broken::NotCopied)));
        links
    }

    /// Whether a kernel's stack is one process's and the page tables are another's: a kernel that goes over from one to the
    /// other does not change both at once. Tells it by chains that came to their end with the same stack.
    fn is_anothers(&mut self, stack: (DomainId, TaskStack), root: AddressSpaceRoot, end: End) -> bool {
        if end != End::Complete {
            // With page-table isolation, both roots of a process are of one pair of pages.
            let pair = |root: AddressSpaceRoot| root.0 >> 13;
            return self.served.get(&stack).is_some_and(|&served| pair(served) != pair(root));
        }
        if self.served.len() >= MOST_STACKS {
            self.served.clear();
        }
        self.served.insert(stack, root);
        false
    }
}

/// The chain where nothing is known of a space's frames.
fn unknown(registers: &Registers) -> Chain {
    let frames = vec![CodeAddress::InstructionPointer(registers.ip)];
    Chain { frames, end: End::Broken(Broken::NoUnwindInfo) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tables_of_another_process_than_the_stacks_are_noticed() {
        let mut callers = Callers::default();
        let stack = |address| {
            let pieces = [StackPiece { address, bytes: Vec::new() }];
            TaskStack::of(&pieces).map(|stack| (DomainId(1), stack))
        };
        let (first, second) = (stack(0xffff_c900_0001_3f00).unwrap(), stack(0xffff_c900_0001_8000).unwrap());
        assert_eq!(stack(0xffff_c900_0001_0008), Some(first));
        assert_eq!(stack(0xffff_fe00_0000_2ff0), None, "the stack of a CPU");
        let (own, others) = (AddressSpaceRoot(0x1234_0000), AddressSpaceRoot(0x5678_0000));
        let broken = End::Broken(Broken::NotCopied);
        // Nothing is known of it yet.
        assert!(!callers.is_anothers(first, others, broken));
        assert!(!callers.is_anothers(first, own, End::Complete));
        assert!(!callers.is_anothers(first, own, broken));
        assert!(!callers.is_anothers(first, AddressSpaceRoot(own.0 | 0x1000), broken), "its other root");
        assert!(callers.is_anothers(first, others, broken));
        assert!(!callers.is_anothers(second, others, broken));
        // A chain that comes to its end proves itself: the stack serves again.
        assert!(!callers.is_anothers(first, others, End::Complete));
        assert!(callers.is_anothers(first, own, broken));
        callers.forget(DomainId(1));
        assert!(!callers.is_anothers(first, own, broken));
    }
}
