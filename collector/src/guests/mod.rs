//! Names for dom0's processes, and for guests that nobody gave files for: what their own memory says.
//!
//! Looking into a guest takes longer than rings should wait, so each has a thread that does it ([`look`]): a guest that
//! makes its own look last does not hold up the others'. Samples wait for the first answer about their kernel or process,
//! in the order in which they came, but never for long: what comes too late is written without names, and later samples
//! have them.

mod look;
mod process;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use hv_shim::{Memories, Owner, Taken};
use profile::{AddressSpaceRoot, Domain, DomainId, DomainKind};
use symbolizer::SymbolFiles;

pub(crate) use self::look::{Answer, GuestMapping, GuestProcess, Image};
use self::look::{Means, Question, Worker};
pub(crate) use self::process::Process;

/// For how long samples wait for their kernel's names, and for a process of a kernel that is known. Both take a fraction
/// of a second, unless the guest forges something, or this machine is an emulator's.
const KERNEL_PATIENCE: Duration = Duration::from_secs(10);
const PROCESS_PATIENCE: Duration = Duration::from_secs(3);

/// After this time it is looked again whether a root of page tables is still the same process's, with the same mappings.
const PROCESS_AGE: Duration = Duration::from_secs(2);

/// After this time it is looked again whether the kernel still runs, with the same modules; earlier if code without a
/// name runs in it.
const KERNEL_AGE: Duration = Duration::from_secs(2);
const UNNAMED_AGE: Duration = Duration::from_millis(250);

/// Pages of a kernel's code that are remembered for having no names.
const MOST_NAMELESS: usize = 4096;

/// A kernel that was not found is looked for again after this time: it may have been booting.
const RETRY_EVERY: Duration = Duration::from_secs(3);

/// Questions about a guest that may wait; what finds no place is asked with a later sample.
const QUEUE: usize = 256;

/// Guests that are looked into at the most: each has a thread.
const MOST_GUESTS: usize = 1024;

/// How guests are looked into.
#[derive(Clone, Debug)]
pub struct Looking {
    /// What starts a process that calls [`serve`](crate::serve), the program first.
    pub command: Vec<OsString>,
    /// Where symbols are that a guest does not have in memory.
    pub files: Arc<SymbolFiles>,
}

/// What is known of guests, and who is asked.
pub(crate) struct Guests {
    /// None where they are left alone.
    means: Option<Means>,
    /// What each thread answers with.
    tell: Sender<Answer>,
    answers: Receiver<Answer>,
    guests: HashMap<DomainId, Guest>,
}

struct Guest {
    /// Its thread ends when this does.
    questions: Sender<Question>,
    /// Set when the guest is no more: a look that is under way then ends, and with it all that is mapped.
    gone: Arc<AtomicBool>,
    kernel: Standing,
    /// When a kernel that is known was last asked about.
    refreshed: Instant,
    /// Pages of its code that have no names, though it was asked anew.
    nameless: HashSet<u64>,
    /// Whether its processes can be told.
    knows_processes: bool,
    processes: HashMap<AddressSpaceRoot, Standing>,
}

/// How far an answer is.
#[derive(Clone, Copy, Default)]
enum Standing {
    #[default]
    Unasked,
    Asked {
        at: Instant,
        /// Whether samples wait for the answer: for the first one only.
        awaited: bool,
    },
    Answered(Instant),
    Failed(Instant),
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Guest {
    /// Asks which kernel there is. Returns whether samples should wait for the answer.
    fn ask_kernel(&mut self, root: AddressSpaceRoot, awaited: bool) -> bool {
        if self.questions.try_send(Question::Kernel(root)).is_err() {
            return false;
        }
        self.refreshed = Instant::now();
        self.kernel = Standing::Asked { at: self.refreshed, awaited };
        awaited
    }

    /// Whether a sample should wait for the answer whose page tables these are, which is asked for if it is not known.
    fn awaits_process(&mut self, root: AddressSpaceRoot) -> bool {
        let standing = self.processes.entry(root).or_default();
        let is_first = match *standing {
            Standing::Unasked => true,
            Standing::Asked { at, awaited } => return awaited && at.elapsed() < PROCESS_PATIENCE,
            Standing::Answered(at) | Standing::Failed(at) if at.elapsed() <= PROCESS_AGE => return false,
            // Samples go on under what is known meanwhile.
            Standing::Answered(_) | Standing::Failed(_) => false,
        };
        if self.questions.try_send(Question::Process(root)).is_err() {
            return false;
        }
        *standing = Standing::Asked { at: Instant::now(), awaited: is_first };
        is_first
    }
}

impl Guests {
    /// Ready to answer, if this hypervisor shows its domains' memory and there is a command that starts a process to look
    /// into it ([`crate::serve`]).
    pub(crate) fn new(memories: Option<Arc<dyn Memories>>, options: Option<&Looking>, callers: bool) -> Self {
        let (tell, answers) = bounded(QUEUE);
        let means = memories.zip(options).map(|(memories, options)| Means {
            memories,
            command: options.command.as_slice().into(),
            callers,
            files: options.files.clone(),
        });
        Self { means, tell, answers, guests: HashMap::new() }
    }

    /// Begins to look into a domain that was just seen, if the page tables of its kernel are known without a sample.
    pub(crate) fn attach(&mut self, domain: &Domain) {
        let root = self.means.as_ref().and_then(|means| means.memories.root(domain.number, domain.kind));
        if let Some(root) = root
            && let Some(guest) = self.guest(domain)
            && guest.questions.try_send(Question::Kernel(root)).is_ok()
        {
            guest.kernel = Standing::Asked { at: Instant::now(), awaited: true };
        }
    }

    /// A guest, with its thread; none for what can't be looked into.
    fn guest(&mut self, domain: &Domain) -> Option<&mut Guest> {
        let means = self.means.as_ref()?;
        let is_full = self.guests.len() >= MOST_GUESTS && !self.guests.contains_key(&domain.id);
        if is_full || matches!(domain.kind, DomainKind::Hypervisor | DomainKind::Host) {
            return None;
        }
        Some(self.guests.entry(domain.id).or_insert_with(|| {
            let (questions, asked) = bounded(QUEUE);
            let gone = Arc::new(AtomicBool::new(false));
            let worker = Worker::new(means.clone(), domain, gone.clone());
            let tell = self.tell.clone();
            thread::spawn(move || worker.work(&asked, &tell));
            Guest {
                questions,
                gone,
                kernel: Standing::Unasked,
                refreshed: Instant::now(),
                nameless: HashSet::new(),
                knows_processes: false,
                processes: HashMap::new(),
            }
        }))
    }

    /// Whether a sample should wait: an answer that names it is on its way. What has not been asked yet is asked. The
    /// user may have `named` the kernel; `is_unnamed` tells whether an address of it has no name.
    pub(crate) fn is_awaited(
        &mut self,
        domain: &Domain,
        named: bool,
        taken: &Taken,
        is_unnamed: impl FnOnce() -> bool,
    ) -> bool {
        let Some((root, is_user)) = root_of_any_code(domain, taken) else { return false };
        // The page tables of a PV domain's processes do not show its kernel.
        let shows_kernel = !(is_user && matches!(domain.kind, DomainKind::Pv | DomainKind::Dom0));
        let own_code = taken.owner == Owner::Kernel(domain.number);
        let Some(guest) = self.guest(domain) else { return false };
        match guest.kernel {
            Standing::Unasked => return shows_kernel && guest.ask_kernel(root, true) && !named,
            Standing::Failed(at) => {
                return at.elapsed() > RETRY_EVERY && shows_kernel && guest.ask_kernel(root, false);
            }
            Standing::Asked { at, awaited } => {
                return awaited && (is_user || !named) && at.elapsed() < KERNEL_PATIENCE;
            }
            Standing::Answered(_) => {}
        }
        if shows_kernel {
            let age = guest.refreshed.elapsed();
            let page = taken.instruction_pointer >> 12;
            let is_news = own_code && age > UNNAMED_AGE && !guest.nameless.contains(&page) && is_unnamed();
            if is_news && guest.nameless.len() < MOST_NAMELESS {
                guest.nameless.insert(page);
                return guest.ask_kernel(root, true);
            }
            if age > KERNEL_AGE && guest.questions.try_send(Question::Kernel(root)).is_ok() {
                guest.refreshed = Instant::now();
            }
        }
        let process = root_of_process(domain, taken).filter(|_| guest.knows_processes);
        process.is_some_and(|root| guest.awaits_process(root))
    }

    /// The next answer, if there is one; none about domains that are no more.
    pub(crate) fn next_answer(&mut self) -> Option<Answer> {
        while let Ok(answer) = self.answers.try_recv() {
            let now = Instant::now();
            match &answer {
                Answer::Kernel { domain, result } => {
                    let Some(guest) = self.guests.get_mut(domain) else { continue };
                    guest.kernel =
                        if result.is_ok() { Standing::Answered(now) } else { Standing::Failed(now) };
                    match result {
                        Ok(None) => {}
                        Ok(Some(names)) => {
                            guest.knows_processes = names.no_processes.is_none();
                            guest.nameless.clear();
                            if names.symbols.is_some() {
                                guest.processes.clear();
                            }
                        }
                        Err(_) => guest.knows_processes = false,
                    }
                }
                Answer::Process { domain, root, process } => {
                    let Some(guest) = self.guests.get_mut(domain) else { continue };
                    let standing =
                        if process.is_some() { Standing::Answered(now) } else { Standing::Failed(now) };
                    guest.processes.insert(*root, standing);
                }
            }
            return Some(answer);
        }
        None
    }

    /// Forgets a domain that is no more, or is known by another name from now on.
    pub(crate) fn forget(&mut self, domain: DomainId) {
        self.guests.remove(&domain);
    }
}

/// Page tables of a guest's process, if one of its processes was sampled, or is among the callers.
fn root_of_process(domain: &Domain, taken: &Taken) -> Option<AddressSpaceRoot> {
    let own = Owner::Process(domain.number);
    let captured = || taken.stretches.iter().find(|captured| captured.owner == own)?.page_tables;
    taken.page_tables.filter(|_| taken.owner == own).or_else(captured)
}

/// Page tables that were loaded in whatever code of a guest; and whether that was a process's.
fn root_of_any_code(domain: &Domain, taken: &Taken) -> Option<(AddressSpaceRoot, bool)> {
    let of = |owner, root: Option<AddressSpaceRoot>| match owner {
        Owner::Kernel(number) if number == domain.number => Some((root?, false)),
        Owner::Process(number) if number == domain.number => Some((root?, true)),
        _ => None,
    };
    let captured = || taken.stretches.iter().find_map(|captured| of(captured.owner, captured.page_tables));
    of(taken.owner, taken.page_tables).or_else(captured)
}
