//! The thread that has a guest looked into: questions in, names out.
//!
//! What a guest has in memory is parsed by a process that can do nothing else ([`Process`]). Here its answers, which are
//! untrusted, become tables of symbols; and where the guest is dom0, in which this runs, they only say which process it
//! is: what that has mapped is told by dom0's own kernel.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::File,
    io,
    ops::Range,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use guest::{GuestMemory, GuestPhysical, Missing};
use hv_shim::{Memories, OwnKernel, own_processes};
use profile::{AddressSpaceRoot, Domain, DomainId, DomainKind, Time};
use symbolizer::{Linked, LinkedFunction, SymbolFiles, SymbolTable};
use unwind::{FrameTable, KernelCode};

use super::{GUESTS_FIRST, process::Process, wait_for};
use crate::confined::messages::{
    About, Answer as Told, FoundImage, FoundImageId, FoundKernel, FoundMapping, FoundProcess, FoundTask,
    Lack, Resident,
};

/// A guest whose process died so often is left alone.
const MOST_DEATHS: u32 = 3;

/// A domain's memory is let go of after this time: what is mapped of one that dies keeps it from going away.
const MEMORY_AGE: Duration = Duration::from_millis(500);

pub(super) enum Question {
    /// Which kernel runs under these page tables?
    Kernel(AddressSpaceRoot),
    /// Whose are these page tables? What was sampled up to a time has been taken before.
    Process {
        root: AddressSpaceRoot,
        until: Time,
        /// Whether the process that was told of last will do, if it still has them.
        known: bool,
    },
}

pub(crate) enum Answer {
    /// What the kernel that this runs on says of itself.
    OwnKernel { domain: DomainId, result: Result<SymbolTable, String> },
    /// None where it is the kernel that was told of, with the same modules.
    Kernel { domain: DomainId, result: Result<Option<Box<KernelNames>>, String> },
    /// Whose page tables these were at some moment after what was sampled up to `until`.
    Process { domain: DomainId, root: AddressSpaceRoot, until: Time, owner: Whose },
}

/// Whose page tables are.
pub(crate) enum Whose {
    /// Those of the process that was told of last.
    Same,
    Process(GuestProcess),
    /// No process of the kernel has them.
    Nobody,
}

/// A guest's kernel, by its own symbols.
pub(crate) struct KernelNames {
    /// Its own; none if they are known.
    pub(crate) symbols: Option<SymbolTable>,
    /// Those of its modules and of the code that it generated.
    pub(crate) loaded: Option<SymbolTable>,
    /// How callers are found in its code; none where that can't be read.
    pub(crate) code: Option<KernelCode>,
    /// Why its processes can't be told, if they can't.
    pub(crate) no_processes: Option<String>,
}

/// A process of a guest. All texts are the guest's.
pub(crate) struct GuestProcess {
    pub(crate) task: FoundTask,
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
    /// As the guest's memory has it.
    Guest(FoundImageId),
    /// A file of dom0's, by its device and its number there.
    OwnFile((u32, u32), u64),
}

impl Image {
    const MEMORY: Self = Self::Guest(FoundImageId::Memory);

    /// Whether no file is behind it.
    pub(crate) fn is_memory(self) -> bool {
        self == Self::MEMORY
    }
}

/// An image's content.
pub(crate) struct GuestImage {
    /// What [`GuestMapping::key`] gives.
    pub(crate) key: (String, Image),
    /// None where it can't be read: its code is located then, and not named.
    pub(crate) content: Option<Linked>,
    /// How its functions' callers are found.
    pub(crate) frames: FrameTable,
}

impl GuestMapping {
    /// What the same image is known by in all processes of a guest.
    pub(crate) fn key(&self) -> (String, Image) {
        (self.path.clone(), self.image)
    }
}

/// One guest, and the process that looks into it.
pub(super) struct Worker {
    means: Means,
    domain: DomainId,
    number: u32,
    kind: DomainKind,
    gone: Arc<AtomicBool>,
    process: Option<Process>,
    /// The guest's memory while one look follows another, and since when.
    memory: Option<(Instant, Box<dyn GuestMemory>)>,
    deaths: u32,
    /// Files of dom0's that were handed out.
    read: HashSet<(String, Image)>,
    /// What the guest goes by.
    names: [String; 2],
}

/// What is had of the machine and of the user for all guests.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) memories: Arc<dyn Memories>,
    /// The kernel that this runs on.
    pub(super) own_kernel: OwnKernel,
    /// Whether somebody watches.
    pub(super) watched: bool,
    /// What starts a process that looks into a guest.
    pub(super) command: Arc<[OsString]>,
    /// Whether callers are wanted.
    pub(super) callers: bool,
    /// Where symbols are that a guest does not have in memory.
    pub(super) files: Arc<SymbolFiles>,
}

impl Worker {
    pub(super) fn new(means: Means, domain: &Domain, gone: Arc<AtomicBool>) -> Self {
        let &Domain { id, number, kind, .. } = domain;
        Self {
            means,
            domain: id,
            number,
            kind,
            gone,
            process: None,
            memory: None,
            deaths: 0,
            read: HashSet::new(),
            names: [domain.name.clone(), number.to_string()],
        }
    }

    /// Answers until nobody asks any more, or listens.
    pub(super) fn work(mut self, questions: &Receiver<Question>, answers: &Sender<Answer>) {
        let domain = self.domain;
        let names_own_kernel = self.means.watched && self.kind == DomainKind::Dom0;
        if names_own_kernel {
            step_back();
        }
        // Ready before it is asked. If that fails, who asks is told.
        let _ = self.started();
        if names_own_kernel {
            // After the guests: when it is asked about dom0, or when they have had their time. There are samples without page
            // tables to ask about.
            wait_for(questions, GUESTS_FIRST);
            let result = own_kernel(&self.means.own_kernel);
            if answers.send(Answer::OwnKernel { domain, result }).is_err() {
                return;
            }
        }
        while let Some(question) = self.next(questions) {
            let answer = match question {
                Question::Kernel(root) => Answer::Kernel { domain, result: self.kernel(root) },
                Question::Process { root, until, known } => match self.owner(root, known) {
                    Ok(owner) => Answer::Process { domain, root, until, owner },
                    // What was known of its kernel is lost.
                    Err(why) => Answer::Kernel { domain, result: Err(why) },
                },
            };
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    /// The next question. What is mapped of the guest stays so for the next look only if that begins at once, and not for
    /// long.
    fn next(&mut self, questions: &Receiver<Question>) -> Option<Question> {
        self.memory.take_if(|(opened, _)| opened.elapsed() > MEMORY_AGE || self.gone.load(Ordering::Relaxed));
        if let Ok(question) = questions.try_recv() {
            return Some(question);
        }
        self.memory = None;
        questions.recv().ok()
    }

    /// Asks about the guest.
    fn ask(&mut self, about: About) -> Result<Told, String> {
        let memories = self.means.memories.clone();
        let open = || Some((Instant::now(), memories.open(self.number, self.kind)?));
        let memory = self.memory.take().or_else(open).ok_or("its memory can't be looked into")?;
        let told = self.ask_in(&*memory.1, about);
        self.memory = Some(memory);
        told
    }

    /// Asks about what is in a file, which may be a guest's: it is not parsed here either.
    fn ask_file(&mut self, file: File) -> Result<Option<FoundImage>, String> {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        match self.ask_in(&FilePages(file), About::File(size))? {
            Told::File(image) => Ok(image),
            _ => Err(CONFUSED.to_owned()),
        }
    }

    fn ask_in(&mut self, memory: &dyn GuestMemory, about: About) -> Result<Told, String> {
        if self.deaths == MOST_DEATHS {
            return Err(format!("{MOST_DEATHS} processes that looked into it died: it is left alone"));
        }
        let gone = Arc::clone(&self.gone);
        self.started()?.ask(about, memory, &gone).map_err(|error| {
            let ended = self.process.take().map(Process::end);
            if gone.load(Ordering::Relaxed) {
                return "it is no more".to_owned();
            }
            self.deaths += 1;
            died(&error, ended)
        })
    }

    /// The process, which is started if there is none.
    fn started(&mut self) -> Result<&mut Process, String> {
        match &mut self.process {
            Some(process) => Ok(process),
            none => {
                let started = Process::start(&self.means.command, self.means.callers);
                Ok(none.insert(started.map_err(|error| format!("no process to look into it: {error}"))?))
            }
        }
    }

    fn kernel(&mut self, root: AddressSpaceRoot) -> Result<Option<Box<KernelNames>>, String> {
        // This system's own kernel lists its symbols.
        let is_own = self.kind == DomainKind::Dom0;
        match self.ask(if is_own { About::KnownKernel(root.0) } else { About::Kernel(root.0) })? {
            Told::Kernel(found) => found.and_then(kernel_names).map(|names| Some(Box::new(names))),
            Told::SameKernel => Ok(None),
            _ => Err(CONFUSED.to_owned()),
        }
    }

    fn owner(&mut self, root: AddressSpaceRoot, known: bool) -> Result<Whose, String> {
        if known && matches!(self.ask(About::StillThere(root.0))?, Told::StillThere(true)) {
            return Ok(Whose::Same);
        }
        Ok(self.process(root)?.map_or(Whose::Nobody, Whose::Process))
    }

    fn process(&mut self, root: AddressSpaceRoot) -> Result<Option<GuestProcess>, String> {
        if self.kind == DomainKind::Dom0 {
            return self.own_process(root);
        }
        match self.ask(About::Process(root.0))? {
            Told::Process(None) => Ok(None),
            Told::Process(Some(mut found)) => {
                for (index, image) in &mut found.images {
                    let path = found.mappings.get(*index as usize).map(|mapping| mapping.path.as_str());
                    if let (Some(image), Some(path)) = (image, path) {
                        self.complete(image, path)?;
                    }
                }
                Ok(Some(guest_process(found)))
            }
            _ => Err(CONFUSED.to_owned()),
        }
    }

    /// Adds to what a guest has of an image in memory what a file of the same build has.
    fn complete(&mut self, image: &mut FoundImage, path: &str) -> Result<(), String> {
        let Some(build_id) = image.build_id.clone().filter(|_| image.resident < Resident::All) else {
            return Ok(());
        };
        let (files, names) = (self.means.files.clone(), self.names.clone());
        for file in files.candidates(&names.each_ref().map(String::as_str), path, &build_id) {
            let Some(whole) = self.ask_file(file)? else { continue };
            if whole.build_id.as_deref() == Some(&build_id) && whole.resident > image.resident {
                image.take_functions(whole);
            }
            if image.resident == Resident::All {
                break;
            }
        }
        Ok(())
    }

    fn task(&mut self, root: AddressSpaceRoot) -> Result<Option<FoundTask>, String> {
        match self.ask(About::Task(root.0))? {
            Told::Task(task) => Ok(task),
            _ => Err(CONFUSED.to_owned()),
        }
    }

    /// A process of the system that this runs in.
    fn own_process(&mut self, root: AddressSpaceRoot) -> Result<Option<GuestProcess>, String> {
        let Some(task) = self.task(root)? else { return Ok(None) };
        let Some(state) = own_processes::state(task.pid) else { return Ok(None) };
        // Between the two it may have executed something else.
        if self.task(root)?.is_none_or(|now| now.life() != task.life()) {
            return Ok(None);
        }
        let mut process = GuestProcess { mappings: Vec::new(), images: Vec::new(), task };
        process.task.container = state.container;
        for hv_shim::Mapping { addresses, offset, file } in state.mappings {
            let image = match file.inode {
                0 => Image::MEMORY,
                inode => Image::OwnFile(file.device, inode),
            };
            let mapping = GuestMapping { addresses, offset, path: file.path.clone(), image };
            if !image.is_memory() && self.read.insert(mapping.key()) {
                let image = match own_processes::open(process.task.pid, &file) {
                    Some(opened) => self.own_image(opened, &file.path)?,
                    None => None,
                };
                process.images.push(GuestImage::new(mapping.key(), image));
            }
            process.mappings.push(mapping);
        }
        Ok(Some(process))
    }

    /// A file of the system that this runs in, which may be a container's.
    fn own_image(&mut self, file: File, path: &str) -> Result<Option<FoundImage>, String> {
        let Some(mut image) = self.ask_file(file)? else { return Ok(None) };
        self.complete(&mut image, path)?;
        Ok(Some(image))
    }
}

/// The names that the kernel that this runs on gives.
pub(crate) fn own_kernel(kernel: &OwnKernel) -> Result<SymbolTable, String> {
    let text = kernel.symbols().map_err(|error| error.to_string())?;
    SymbolTable::from_kallsyms(text.as_bytes()).map_err(|error| format!("/proc/kallsyms: {error}"))
}

/// Lets all other threads of this program go first, and those of the process that this one starts later.
fn step_back() {
    const NICE: i32 = 10;
    // Nothing depends on it.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// A file, page by page, as if it were memory. Behind its end its last page has zeros.
struct FilePages(File);

impl GuestMemory for FilePages {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        let mut read = 0;
        while read < bytes.len() {
            match self.0.read_at(&mut bytes[read..], address.0.saturating_add(read as u64)) {
                Ok(0) if read > 0 => break,
                Ok(0) | Err(_) => return Err(Missing(address)),
                Ok(more) => read += more,
            }
        }
        Ok(())
    }
}

const CONFUSED: &str = "the process that looks into it said what it was not asked";

/// Why there is no answer.
fn died(error: &io::Error, ended: Option<io::Result<std::process::ExitStatus>>) -> String {
    let signal = ended.and_then(|status| status.ok()?.signal());
    match (error.kind(), signal) {
        (io::ErrorKind::TimedOut, _) => {
            "the process that looked into it took longer than it may, and was ended".to_owned()
        }
        (_, Some(libc::SIGSYS)) => {
            "the process that looked into it tried what it must not, and was ended".to_owned()
        }
        (_, Some(signal)) => format!("the process that looked into it died of signal {signal}"),
        _ => format!("the process that looked into it died: {error}"),
    }
}

fn kernel_names(found: FoundKernel) -> Result<KernelNames, String> {
    let own = || SymbolTable::from_rows(found.symbols.iter());
    let symbols = (found.is_new && found.symbols.len() > 0).then(own).transpose();
    // What is loaded may be nothing.
    let loaded = SymbolTable::from_rows(found.loaded.iter()).ok();
    let processes = found.lacks.into_iter().find(|(lack, _)| *lack == Lack::Processes);
    Ok(KernelNames {
        symbols: symbols.map_err(|error| format!("its symbols can't be used: {error}"))?,
        loaded,
        code: (!found.callers.is_empty())
            .then(|| KernelCode::new(found.callers, found.thunks).with_borders(found.borders)),
        no_processes: processes.map(|(_, why)| why),
    })
}

fn guest_process(found: FoundProcess) -> GuestProcess {
    let mapping = |FoundMapping { addresses, offset, path, image }| GuestMapping {
        addresses,
        offset,
        path,
        image: Image::Guest(image),
    };
    let mappings: Vec<GuestMapping> = found.mappings.into_iter().map(mapping).collect();
    let image = |(index, content): (u32, Option<FoundImage>)| {
        let key = mappings.get(index as usize)?.key();
        Some(GuestImage::new(key, content))
    };
    let images = found.images.into_iter().filter_map(image).collect();
    GuestProcess { task: found.task, mappings, images }
}

impl GuestImage {
    fn new(key: (String, Image), found: Option<FoundImage>) -> Self {
        let Some(mut image) = found else {
            return Self { key, content: None, frames: FrameTable::default() };
        };
        let frames = std::mem::take(&mut image.frames);
        Self { key, content: linked(&image), frames }
    }
}

fn linked(image: &FoundImage) -> Option<Linked> {
    let functions = image.functions().map(|(function, name)| LinkedFunction {
        address: function.address,
        size: function.size,
        name,
        local: function.local,
        weak: function.weak,
    });
    Linked::from_parts(image.segments.iter().copied(), functions, image.build_id.as_deref()).ok()
}
