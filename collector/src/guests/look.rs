//! The thread that looks into a guest: questions in, names out.
//!
//! All that it reads is a guest's own word. A look is bounded in work, memory and time, so that a guest can spoil its own
//! names and hold up others' for that long at most.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};
use guest::{
    Content, Elf, FileBytes, FileId, FrameTables, Frames, FunctionList, FunctionSource, GuestMemory,
    GuestPhysical, Kernel, Limits, Look, Missing, Tasks,
};
use hv_shim::Memories;
use profile::{AddressSpaceRoot, Domain, DomainId, DomainKind};
use symbolizer::{Linked, LinkedFunction, SymbolTable};
use unwind::{KernelCode, OrcTable};

/// A look's real time; the guest that takes all of it forges something.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

pub(super) enum Question {
    /// Which kernel runs under these page tables?
    Kernel(AddressSpaceRoot),
    /// Whose are these page tables?
    Process(AddressSpaceRoot),
}

pub(crate) enum Answer {
    Kernel {
        domain: DomainId,
        result: Result<KernelNames, String>,
    },
    /// None where no process of the kernel has these page tables now.
    Process {
        domain: DomainId,
        root: AddressSpaceRoot,
        process: Option<GuestProcess>,
    },
}

/// A guest's kernel, by its own symbols.
pub(crate) struct KernelNames {
    pub(crate) symbols: SymbolTable,
    /// How callers are found in its code; none where that can't be read.
    pub(crate) code: Option<KernelCode>,
    /// Why its processes can't be told, if they can't.
    pub(crate) no_processes: Option<String>,
}

/// A process of a guest. All texts are the guest's.
pub(crate) struct GuestProcess {
    pub(crate) pid: u32,
    /// When it was started: tells it from others of its number.
    pub(crate) start_time: u64,
    pub(crate) name: String,
    pub(crate) container: Option<String>,
    pub(crate) mappings: Vec<GuestMapping>,
    /// What is mapped and was not in an earlier answer about this guest.
    pub(crate) images: Vec<GuestImage>,
}

/// Code that a process has mapped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct GuestMapping {
    pub(crate) addresses: Range<u64>,
    pub(crate) offset: u64,
    pub(crate) path: String,
    pub(crate) image: Image,
}

/// What has the code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Image {
    File(FileId),
    /// The kernel's own library.
    Vdso,
    /// Memory with no file behind it.
    Memory,
}

/// An image's content.
pub(crate) struct GuestImage {
    /// What [`GuestMapping::key`] gives.
    pub(crate) key: (String, Image),
    /// None where it can't be read: its code is located then, and not named.
    pub(crate) content: Option<Linked>,
    /// What it has of tables by which callers are found.
    pub(crate) frames: FrameTables,
}

impl GuestMapping {
    /// What the same image is known by in all processes of a guest.
    pub(crate) fn key(&self) -> (String, Image) {
        (self.path.clone(), self.image)
    }
}

/// One guest, and what was found out of it.
pub(super) struct Worker {
    memories: Arc<dyn Memories>,
    domain: DomainId,
    number: u32,
    kind: DomainKind,
    gone: Arc<AtomicBool>,
    kernel: Option<Kernel>,
    /// Images that were handed out.
    read: HashSet<(String, Image)>,
}

impl Worker {
    pub(super) fn new(memories: Arc<dyn Memories>, domain: &Domain, gone: Arc<AtomicBool>) -> Self {
        let &Domain { id, number, kind, .. } = domain;
        Self { memories, domain: id, number, kind, gone, kernel: None, read: HashSet::new() }
    }

    fn memory(&self) -> Option<LivingMemory> {
        let memory = self.memories.open(self.number, self.kind)?;
        Some(LivingMemory { memory, gone: self.gone.clone() })
    }

    /// Answers until nobody asks any more, or listens.
    pub(super) fn work(mut self, questions: &Receiver<Question>, answers: &Sender<Answer>) {
        let domain = self.domain;
        for question in questions {
            let answer = match question {
                Question::Kernel(root) => Answer::Kernel { domain, result: self.kernel(root) },
                Question::Process(root) => Answer::Process { domain, root, process: self.process(root) },
            };
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    fn kernel(&mut self, root: AddressSpaceRoot) -> Result<KernelNames, String> {
        let memory = self.memory().ok_or("its memory can't be looked into")?;
        let look = Look::new(&memory, limits());
        let kernel = Kernel::find(&look, root.0).map_err(|error| error.to_string())?;
        let names = KernelNames {
            symbols: symbols(&kernel, &look)?,
            code: code(&kernel, &look),
            no_processes: kernel.tasks(&look).err().map(|error| error.to_string()),
        };
        self.kernel = Some(kernel);
        Ok(names)
    }

    /// A process that can't be read now may be read the next time: it may have changed while it was looked at.
    fn process(&mut self, root: AddressSpaceRoot) -> Option<GuestProcess> {
        let kernel = self.kernel.as_ref()?;
        let memory = self.memory()?;
        let look = Look::new(&memory, limits());
        let tasks: Tasks = kernel.tasks(&look).ok()?;
        let task = tasks.process(root.0)?;
        let found = kernel.mappings(&look, task).ok()?;
        let mappings: Vec<GuestMapping> =
            found.into_iter().filter(|mapping| mapping.executable).map(described).collect();
        let mut images = Vec::new();
        for mapping in &mappings {
            if mapping.image != Image::Memory && self.read.insert(mapping.key()) {
                let (content, frames) = content(kernel, &look, mapping.image).unwrap_or_default();
                images.push(GuestImage { key: mapping.key(), content, frames });
            }
        }
        Some(GuestProcess {
            pid: task.tgid,
            start_time: task.start_time,
            name: task.comm.clone(),
            container: kernel.cgroup(&look, task).ok(),
            mappings,
            images,
        })
    }
}

/// A guest's memory until the guest is no more: then all of it is missing.
struct LivingMemory {
    memory: Box<dyn GuestMemory>,
    gone: Arc<AtomicBool>,
}

impl GuestMemory for LivingMemory {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Missing(address));
        }
        self.memory.read(address, bytes)
    }

    fn frames(&self) -> Frames {
        self.memory.frames()
    }
}

fn limits() -> Limits {
    Limits { time: Some(LONGEST_LOOK), ..Limits::default() }
}

/// The symbols of a kernel, its modules and the code that it generated. What can't be read of the latter two is left out.
fn symbols(kernel: &Kernel, look: &Look<'_>) -> Result<SymbolTable, String> {
    let modules: Vec<_> = kernel
        .modules(look)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|module| Some((kernel.module_symbols(look, &module).ok()?, module.name)))
        .collect();
    let generated = kernel.generated_code(look).unwrap_or_default();
    let own = kernel.symbols().iter().map(|symbol| (symbol.address.0, symbol.kind, symbol.name, None));
    let of_modules = modules.iter().flat_map(|(symbols, module)| {
        symbols.iter().map(|symbol| (symbol.address.0, symbol.kind, symbol.name, Some(module.as_str())))
    });
    let generated = generated.iter().map(|code| (code.start.0, 't', code.name.as_str(), Some(code.owner)));
    let table = SymbolTable::from_rows(own.chain(of_modules).chain(generated));
    table.map_err(|error| format!("its symbols can't be used: {error}"))
}

/// How callers are found in a kernel and its modules.
fn code(kernel: &Kernel, look: &Look<'_>) -> Option<KernelCode> {
    let own = kernel.orc(look).ok()?;
    let tables = [own].into_iter().chain(kernel.orc_of_modules(look).unwrap_or_default());
    let parsed = tables.filter_map(|table| OrcTable::parse(table.at.0, &table.addresses, &table.entries));
    Some(KernelCode::new(parsed, kernel.thunks()))
}

fn described(mapping: guest::Mapping) -> GuestMapping {
    let (offset, path, image) = match mapping.content {
        Content::File(piece) => (piece.offset, piece.path, Image::File(piece.file)),
        Content::Special(name) if name == "[vdso]" => (0, name, Image::Vdso),
        Content::Special(name) => (0, name, Image::Memory),
        Content::Heap => (0, "[heap]".to_owned(), Image::Memory),
        Content::Stack => (0, "[stack]".to_owned(), Image::Memory),
        Content::Anonymous => (0, String::new(), Image::Memory),
    };
    GuestMapping { addresses: mapping.range, offset, path, image }
}

/// The functions of what a process has mapped and the tables of its frames, as far as the guest has the file's pages in
/// memory.
fn content(kernel: &Kernel, look: &Look<'_>, image: Image) -> Option<(Option<Linked>, FrameTables)> {
    match image {
        Image::Memory => None,
        Image::Vdso => parsed(&kernel.vdso(look).ok()?[..], look),
        Image::File(file) => parsed(&kernel.file(look, file).ok()?, look),
    }
}

fn parsed(file: &(impl FileBytes + ?Sized), look: &Look<'_>) -> Option<(Option<Linked>, FrameTables)> {
    let elf = Elf::read(file, look.budget()).ok()?;
    Some((linked(&elf, file, look), elf.frame_tables(file, look.budget())))
}

fn linked(elf: &Elf, file: &(impl FileBytes + ?Sized), look: &Look<'_>) -> Option<Linked> {
    let functions = |source| elf.functions(file, look.budget(), source).ok();
    let whole = functions(FunctionSource::SymbolTable).filter(|list: &FunctionList| list.missing() == 0);
    // What a stripped file has besides its dynamic symbols, it has for exactly this.
    let lists: Vec<FunctionList> = match whole {
        Some(list) => vec![list],
        None => [
            functions(FunctionSource::SymbolTable),
            functions(FunctionSource::MiniDebugInfo),
            functions(FunctionSource::DynamicSymbols),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let functions = lists.iter().flat_map(FunctionList::iter).map(|function| LinkedFunction {
        address: function.address,
        size: function.size,
        name: function.name,
        local: function.local,
        weak: function.weak,
    });
    let code = elf.segments.iter().filter(|segment| segment.executable);
    let segments = code.map(|segment| (segment.offset, segment.file_size, segment.address));
    Linked::from_parts(segments, functions).ok()
}
