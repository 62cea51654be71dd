//! Answers to questions about one guest.
//!
//! All that is read is a guest's own word. A look is bounded in work, memory and time, so that a guest can spoil its own
//! names and hold up its own answers for that long at most.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use guest::{
    Content, Elf, FileBytes, FileError, FileId, FunctionList, FunctionSource, GeneratedCode, GuestMemory,
    GuestPhysical, Kernel, Limits, Look, Mapping, Module, OrcBytes, SymbolList, Task,
};

use unwind::{Border, FrameTable, OrcTable};

use super::{
    messages::{
        About, Answer, FoundEverything, FoundFile, FoundFunction, FoundImage, FoundImageId, FoundKernel,
        FoundMapping, FoundProcess, FoundTask, Lack, PAGE, Question, Resident, Symbols,
    },
    pages::Pages,
};
use crate::callers::frame_table;

/// A look's real time; the guest that takes all of it forges something.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// What was found out of a guest.
#[derive(Default)]
pub(super) struct Looking {
    known: Option<Known>,
    /// Which pages looks of these kinds took: the next one takes the same ones, and asks for them together.
    expected: HashMap<Kind, Vec<u64>>,
    /// Whether it is wanted how callers are found.
    wants_callers: bool,
}

/// Looks that take the same pages each time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// Whether the kernel is the same.
    SameKernel,
    /// The list of its tasks.
    Tasks,
    /// Whether a root of page tables has the same process.
    SameProcess(u64),
}

struct Known {
    kernel: Kernel,
    modules: Vec<Module>,
    generated: Vec<GeneratedCode>,
    /// Images that were handed out.
    read: HashSet<(String, FoundImageId)>,
    /// Processes that were told of last, by the roots that were asked about.
    told: HashMap<u64, Task>,
    /// Whether it was told that its processes can't be told.
    lacks_processes: bool,
}

/// Processes that are remembered.
const MOST_TOLD: usize = 4096;

/// Pages that are expected to be read again for a kernel, and for a process, at the most.
const MOST_OF_KERNEL: usize = 2048;
const MOST_OF_PROCESS: usize = 128;

fn limits() -> Limits {
    Limits { time: Some(LONGEST_LOOK), ..Limits::default() }
}

impl Looking {
    pub(super) fn answer(&mut self, question: &Question, memory: &Pages) -> Answer {
        self.wants_callers = question.callers;
        let look = Look::new(memory, limits());
        match question.about {
            About::Kernel(root) => self.kernel_again(&look, memory, root, true),
            About::KnownKernel(root) => self.kernel_again(&look, memory, root, false),
            About::Process(root) => Answer::Process(self.process(&look, memory, root)),
            About::Task(root) => Answer::Task(self.task(&look, memory, root)),
            About::StillThere(root) => {
                let kind = Kind::SameProcess(root);
                self.expect(memory, kind);
                let is_there = self.is_still_there(&look, root);
                self.remember(memory, 0, kind, is_there.then_some(MOST_OF_PROCESS));
                Answer::StillThere(is_there)
            }
            About::File(size) => Answer::File(read(&WholeFile { memory, size }, &look, question.callers)),
            About::Everything => Answer::Everything(self.everything(&look)),
        }
    }

    fn kernel_again(&mut self, look: &Look<'_>, memory: &Pages, root: u64, with_symbols: bool) -> Answer {
        self.expect(memory, Kind::SameKernel);
        let answer = self.kernel(look, memory, root, with_symbols);
        let is_same = matches!(answer, Answer::SameKernel);
        self.remember(memory, 0, Kind::SameKernel, is_same.then_some(MOST_OF_KERNEL));
        answer
    }

    /// Fetches what the last look at this took.
    fn expect(&self, memory: &Pages, kind: Kind) {
        if let Some(pages) = self.expected.get(&kind) {
            memory.expect(pages);
        }
    }

    /// Remembers which pages were asked for after so many, if they are no more than `most`; forgets them where the next look
    /// will take others.
    fn remember(&mut self, memory: &Pages, after: usize, kind: Kind, most: Option<usize>) {
        let pages =
            most.map(|most| (memory.asked_after(after), most)).filter(|(pages, most)| pages.len() <= *most);
        self.expected.remove(&kind);
        if self.expected.len() <= MOST_TOLD {
            self.expected.extend(pages.map(|(pages, _)| (kind, pages)));
        }
    }

    /// The process that page tables are of, which is remembered.
    fn told_process(&mut self, look: &Look<'_>, memory: &Pages, root: u64) -> Option<Task> {
        let before = memory.asked();
        self.expect(memory, Kind::Tasks);
        let task = self.known.as_mut()?.process(look, root);
        self.remember(memory, before, Kind::Tasks, Some(MOST_OF_KERNEL));
        task
    }

    fn kernel(&mut self, look: &Look<'_>, memory: &Pages, root: u64, with_symbols: bool) -> Answer {
        let still_runs = |known: &Known| known.kernel.still_runs(look) == Ok(true);
        let (is_new, mut known) = match self.known.take().filter(still_runs) {
            Some(known) => (false, known),
            None => match Kernel::find(look, root) {
                Ok(kernel) => (true, Known::new(kernel)),
                Err(error) => return Answer::Kernel(Err(error.to_string())),
            },
        };
        let (changed, mut lacks) = known.update(look);
        let mut is_news = is_new || changed;
        if is_news || known.lacks_processes {
            // A kernel that boots has no processes yet, and a list may have changed while it was read.
            let before = memory.asked();
            let processes = known.kernel.tasks(look).map_err(|error| (Lack::Processes, error.to_string()));
            self.remember(memory, before, Kind::Tasks, Some(MOST_OF_KERNEL));
            is_news |= processes.is_ok();
            known.lacks_processes = processes.is_err();
            lacks.extend(processes.err());
        }
        let answer = if is_news {
            let symbols = if is_new && with_symbols { known.own_symbols() } else { Symbols::default() };
            Answer::Kernel(Ok(known.found(look, lacks, is_new, symbols, self.wants_callers)))
        } else {
            Answer::SameKernel
        };
        self.known = Some(known);
        answer
    }

    /// A process that can't be read now may be read the next time: it may have changed while it was looked at.
    fn process(&mut self, look: &Look<'_>, memory: &Pages, root: u64) -> Option<FoundProcess> {
        let task = &self.told_process(look, memory, root)?;
        let known = self.known.as_mut()?;
        let found = known.kernel.mappings(look, task).ok()?;
        let mut mappings = Vec::new();
        let mut images = Vec::new();
        for mapping in found.into_iter().filter(|mapping| mapping.executable) {
            let (mapping, file) = described(mapping);
            let key = (mapping.path.clone(), mapping.image);
            if mapping.image != FoundImageId::Memory && known.read.insert(key) {
                images.push((
                    mappings.len() as u32,
                    content(&known.kernel, look, mapping.image, file, self.wants_callers),
                ));
            }
            mappings.push(mapping);
        }
        Some(FoundProcess { task: told(&known.kernel, look, task), mappings, images })
    }

    fn task(&mut self, look: &Look<'_>, memory: &Pages, root: u64) -> Option<FoundTask> {
        let task = self.told_process(look, memory, root)?;
        let known = self.known.as_ref()?;
        Some(told(&known.kernel, look, &task))
    }

    fn is_still_there(&self, look: &Look<'_>, root: u64) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|known| known.told.get(&root).is_some_and(|task| known.kernel.is_still(look, task)))
    }

    fn everything(&self, look: &Look<'_>) -> Result<FoundEverything, String> {
        let kernel = &self.known.as_ref().ok_or("its kernel is not known")?.kernel;
        let tasks = kernel.tasks(look).map_err(|error| error.to_string())?;
        let mut found = FoundEverything { processes: Vec::new(), files: Vec::new() };
        let mut seen = HashSet::new();
        for task in tasks.iter().filter(|task| task.root.is_some() && task.pid == task.tgid) {
            found.processes.push(told(kernel, look, task));
            for mapping in kernel.mappings(look, task).unwrap_or_default() {
                if let Content::File(piece) = mapping.content
                    && mapping.executable
                    && seen.insert(piece.file)
                {
                    let file = kernel.file(look, piece.file).ok();
                    let read = file.and_then(|file| read(&file, look, false));
                    let (build_id, resident) =
                        read.map_or((None, Resident::Nothing), |image| (image.build_id, image.resident));
                    found.files.push(FoundFile { path: piece.path, build_id, resident });
                }
            }
        }
        Ok(found)
    }
}

impl Known {
    fn new(kernel: Kernel) -> Self {
        let (modules, generated, read, told, lacks_processes) = Default::default();
        Self { kernel, modules, generated, read, told, lacks_processes }
    }

    /// The process that page tables are of, which is remembered.
    fn process(&mut self, look: &Look<'_>, root: u64) -> Option<Task> {
        let tasks = self.kernel.tasks(look).ok()?;
        if self.told.len() == MOST_TOLD {
            self.told.clear();
        }
        match tasks.process(root) {
            Some(task) => drop(self.told.insert(root, task.clone())),
            None => drop(self.told.remove(&root)),
        }
        self.told.get(&root).cloned()
    }

    /// Takes what the kernel has loaded now. Says whether that is news, and what of it can't be told.
    fn update(&mut self, look: &Look<'_>) -> (bool, Vec<(Lack, String)>) {
        let mut lacks = Vec::new();
        let modules = self.kernel.modules(look);
        let modules = modules.inspect_err(|error| lacks.push((Lack::Modules, error.to_string())));
        let generated = self.kernel.generated_code(look);
        let generated = generated.inspect_err(|error| lacks.push((Lack::GeneratedCode, error.to_string())));
        // A list that was read while it changed is read the next time.
        let modules = modules.unwrap_or_else(|_| self.modules.clone());
        let generated = generated.unwrap_or_else(|_| self.generated.clone());
        let changed = (&modules, &generated) != (&self.modules, &self.generated);
        (self.modules, self.generated) = (modules, generated);
        (changed, lacks)
    }

    fn found(
        &self,
        look: &Look<'_>,
        lacks: Vec<(Lack, String)>,
        is_new: bool,
        symbols: Symbols,
        wants_callers: bool,
    ) -> FoundKernel {
        let kernel = &self.kernel;
        FoundKernel {
            is_new,
            release: kernel.release().to_owned(),
            build_id: kernel.build_id().map(<[u8]>::to_vec),
            slide: kernel.slide(),
            modules: self.modules.len() as u32,
            all_symbols: kernel.symbols().len() as u32,
            symbols,
            loaded: self.loaded_symbols(look),
            callers: if wants_callers { callers(kernel, look) } else { Vec::new() },
            thunks: kernel.thunks(),
            borders: borders(kernel, look),
            lacks,
        }
    }

    /// Those of its code; of the others, which are more, only where code ends. They are in the order of their addresses.
    fn own_symbols(&self) -> Symbols {
        let mut symbols = Symbols::default();
        let mut behind_code = false;
        for symbol in self.kernel.symbols().iter() {
            let is_code = matches!(symbol.kind, 't' | 'T' | 'w' | 'W');
            if is_code || behind_code {
                symbols.push(symbol.address.0, symbol.kind, if is_code { symbol.name } else { "" });
            }
            behind_code = is_code;
        }
        symbols
    }

    /// What can't be read of single modules is left out.
    fn loaded_symbols(&self, look: &Look<'_>) -> Symbols {
        let mut symbols = Symbols::default();
        for module in &self.modules {
            if let Ok(list) = self.kernel.module_symbols(look, module) {
                symbols.begin_owner(&module.name);
                add(&mut symbols, &list);
            }
        }
        for code in &self.generated {
            symbols.begin_owner(code.owner);
            symbols.push(code.start.0, 't', &code.name);
        }
        symbols
    }
}

fn add(symbols: &mut Symbols, list: &SymbolList) {
    list.iter().for_each(|symbol| symbols.push(symbol.address.0, symbol.kind, symbol.name));
}

fn told(kernel: &Kernel, look: &Look<'_>, task: &Task) -> FoundTask {
    FoundTask {
        pid: task.tgid,
        start_time: task.start_time,
        executed: task.executed,
        name: task.comm.clone(),
        container: kernel.cgroup(look, task).ok(),
    }
}

/// A mapping, and the file that it is of.
fn described(mapping: Mapping) -> (FoundMapping, Option<FileId>) {
    let (offset, path, image, file) = match mapping.content {
        Content::File(piece) => {
            let file = piece.file;
            (piece.offset, piece.path, FoundImageId::File(file.pages().0, file.size()), Some(file))
        }
        Content::Special(name) if name == "[vdso]" => (0, name, FoundImageId::Vdso, None),
        Content::Special(name) => (0, name, FoundImageId::Memory, None),
        Content::Heap => (0, "[heap]".to_owned(), FoundImageId::Memory, None),
        Content::Stack => (0, "[stack]".to_owned(), FoundImageId::Memory, None),
        Content::Anonymous => (0, String::new(), FoundImageId::Memory, None),
    };
    (FoundMapping { addresses: mapping.range, offset, path, image }, file)
}

/// The functions of what a process has mapped, as far as the guest has the file's pages in memory.
fn content(
    kernel: &Kernel,
    look: &Look<'_>,
    image: FoundImageId,
    file: Option<FileId>,
    callers: bool,
) -> Option<FoundImage> {
    match (image, file) {
        (FoundImageId::Vdso, _) => read(&kernel.vdso(look).ok()?[..], look, callers),
        (_, Some(file)) => read(&kernel.file(look, file).ok()?, look, callers),
        _ => None,
    }
}

/// A file whose bytes can be had as if they were a guest's memory.
struct WholeFile<'a> {
    memory: &'a Pages,
    size: u64,
}

impl FileBytes for WholeFile<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let end = offset.checked_add(bytes.len() as u64);
        end.filter(|&end| end <= self.size).ok_or(FileError::PastEnd(offset))?;
        self.memory.read(GuestPhysical(offset), bytes).map_err(|_| FileError::NotResident(offset))
    }

    fn announce(&self, offset: u64, length: u64) {
        let (page, end) = (PAGE as u64, offset.saturating_add(length).min(self.size));
        self.memory.expect(&(offset / page..end.div_ceil(page)).collect::<Vec<_>>());
    }
}

/// How callers are found in a kernel and in its modules; nothing where its own table can't be read.
fn callers(kernel: &Kernel, look: &Look<'_>) -> Vec<OrcTable> {
    let Ok(own) = kernel.orc(look) else { return Vec::new() };
    let tables = [own].into_iter().chain(kernel.orc_of_modules(look).unwrap_or_default());
    let parsed = |table: OrcBytes| OrcTable::parse(table.at.0, &table.addresses, &table.entries);
    tables.filter_map(parsed).collect()
}

fn borders(kernel: &Kernel, look: &Look<'_>) -> Vec<Border> {
    let border = |guest::Border { code, before, like }| Border { code, before, like: like.map(|at| at.0) };
    kernel.borders(look).into_iter().map(border).collect()
}

/// What is in memory of an ELF file.
fn read(file: &(impl FileBytes + ?Sized), look: &Look<'_>, callers: bool) -> Option<FoundImage> {
    let elf = Elf::read(file, look.budget()).ok()?;
    let functions = |source| elf.functions(file, look.budget(), source).ok();
    let some = |list: &FunctionList| !list.is_empty();
    let table = functions(FunctionSource::SymbolTable).filter(some);
    let (lists, resident) = if table.as_ref().is_some_and(|table| table.missing() == 0) {
        (table.into_iter().collect(), Resident::All)
    } else {
        // What a stripped file has besides its dynamic symbols, it has for exactly this.
        let mini = functions(FunctionSource::MiniDebugInfo).filter(some);
        let dynamic = functions(FunctionSource::DynamicSymbols).filter(some);
        let resident = match (&table, &mini, &dynamic) {
            (None, None, None) => Resident::Nothing,
            (None, None, Some(_)) => Resident::Dynamic,
            (None, Some(_), Some(list)) if list.missing() == 0 => Resident::All,
            _ => Resident::Some,
        };
        (table.into_iter().chain(mini).chain(dynamic).collect::<Vec<FunctionList>>(), resident)
    };
    let code = elf.segments.iter().filter(|segment| segment.executable);
    let mut image = FoundImage::new(
        elf.build_id(file, look.budget()).ok().flatten(),
        resident,
        if callers { frame_table(&elf, file, look.budget()) } else { FrameTable::default() },
        code.map(|segment| (segment.offset, segment.file_size, segment.address)).collect(),
    );
    for function in lists.iter().flat_map(FunctionList::iter) {
        let guest::Function { address, size, name, local, weak } = function;
        image.push(FoundFunction { address, size, local, weak }, name);
    }
    Some(image)
}
