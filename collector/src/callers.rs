//! Callers of what was sampled: what was captured of stacks, to chains of code addresses.
//!
//! What tells of an image's frames is kept by image, however many processes map it.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt};

use guest::{Budget, Elf, FileBytes, FileError, Limits};
use hv_shim::{Captured, Sampling};
use profile::{CodeAddress, DomainId, ProcessId, Registers, Space, Stretch};
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
}

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
    }

    /// The links of a sample, innermost first, from what was captured of each space.
    pub(crate) fn links<'c>(
        &self,
        stretches: impl Iterator<Item = (Space, &'c Captured)> + Clone,
        mapped: &mut Mapped<'_>,
    ) -> Vec<Link> {
        let stacks = Stacks::of(stretches.clone().map(|(_, captured)| &captured.stretch));
        let mut links = Vec::new();
        // What the kernel was entered from, once that is known.
        let mut entered: Option<(Space, Registers)> = None;
        // A thread of the kernel has no process, whatever stands where its registers would.
        let mut is_own_thread = false;
        for (space, captured) in stretches {
            if is_own_thread && matches!(space, Space::User(..)) {
                continue;
            }
            let chain = match (&captured.stretch, space) {
                (Stretch::Walked(frames), _) => Chain { frames: frames.clone(), end: End::Complete },
                (Stretch::Copied { registers, .. }, Space::Hypervisor) => unknown(registers),
                (Stretch::Copied { registers, .. }, Space::Kernel(domain)) => {
                    match self.kernels.get(&domain).map(|code| code.walk(registers, &stacks)) {
                        Some((chain, Entered::FromProcess(registers))) => {
                            entered = Some((space, registers));
                            chain
                        }
                        Some((chain, Entered::FromNowhere)) => {
                            // The first instructions of a system call have no callers either.
                            is_own_thread = chain.end == End::Complete && chain.frames.len() > 1;
                            chain
                        }
                        None => unknown(registers),
                    }
                }
                (Stretch::Copied { registers, .. }, Space::User(_, process)) => {
                    let registers = entered.take().map_or(*registers, |(_, registers)| registers);
                    unwind::walk(&mut AddressSpace { process, mapped }, &registers, &stacks)
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
}

/// The chain where nothing is known of a space's frames.
fn unknown(registers: &Registers) -> Chain {
    let frames = vec![CodeAddress::InstructionPointer(registers.ip)];
    Chain { frames, end: End::Broken(Broken::NoUnwindInfo) }
}
