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

use crossbeam_channel::{Receiver, Select, Sender, bounded};
use hv_shim::{Memories, OwnKernel, Owner, Taken};
use profile::{AddressSpaceRoot, Domain, DomainId, DomainKind, Time};
use symbolizer::SymbolFiles;

pub(crate) use self::look::{Answer, GuestMapping, GuestProcess, Image, Whose, own_kernel};
use self::look::{Means, Question, Worker};
pub(crate) use self::process::Process;

/// For how long samples wait for their kernel's names, and for word of a process of a kernel that is known. Both take a
/// fraction of a second, unless the guest forges something, or this machine is an emulator's.
const KERNEL_PATIENCE: Duration = Duration::from_secs(10);
const PROCESS_PATIENCE: Duration = Duration::from_secs(3);

/// And for those of a kernel that was not found before: the guest may be booting, and everybody's samples wait behind its own.
const RETRY_PATIENCE: Duration = Duration::from_secs(2);

/// For how long dom0 is not looked at while a look at a guest's kernel is under way.
const GUESTS_FIRST: Duration = Duration::from_secs(2);

/// After this time it is looked again what a process has mapped.
const PROCESS_AGE: Duration = Duration::from_secs(2);

/// Between two questions about one root of page tables pass so many times what the answer took, so that they take a
/// small part of a CPU's time; and at the most this time.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// And at least such a part of the time for which its process has been known: who lives for long is asked about seldom, and
/// a process of a fraction of a second is not missed. But no longer than this, for samples wait for it.
const REST_OF_AGE: u32 = 4;
const LONGEST_REST_OF_AGE: Duration = Duration::from_millis(250);

/// After this time it is looked again whether the kernel still runs, with the same modules; earlier if code without a
/// name runs in it.
const KERNEL_AGE: Duration = Duration::from_secs(2);
const UNNAMED_AGE: Duration = Duration::from_millis(250);

/// Pages of a kernel's code that are remembered for having no names.
const MOST_NAMELESS: usize = 4096;

/// A kernel that was not found is looked for again after this time, and then after longer ones: the process may have ended
/// whose page tables were followed, or the guest may be booting.
const FIRST_RETRY: Duration = Duration::from_millis(250);
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
    /// Whether somebody watches: what a guest does now counts for more then than what dom0's functions and processes were
    /// called in the first seconds, and samples don't wait for that.
    pub watched: bool,
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
    /// After which time it is looked for again, if it is not found.
    retry: Duration,
    /// When a kernel that is known was last asked about.
    refreshed: Instant,
    /// Pages of its code that have no names, though it was asked anew.
    nameless: HashSet<u64>,
    /// Whether its processes can be told.
    knows_processes: bool,
    processes: HashMap<AddressSpaceRoot, Root>,
}

/// What is known of a root of page tables, which may be one process's now and another's the next moment.
#[derive(Default)]
struct Root {
    /// When a question was asked that is not answered.
    asked: Option<Instant>,
    /// Whose the samples are that were taken up to this time is known, as far as it can be.
    until: Option<Time>,
    /// When it was last looked what its process has mapped; none where it is nobody's.
    looked: Option<Instant>,
    /// Which life of a process has it, and since when that is known.
    owner: Option<((u32, u64, u32), Instant)>,
    /// Until when it is not asked again.
    rests_until: Option<Instant>,
}

/// How far an answer is.
#[derive(Clone, Copy, Default)]
enum Standing {
    #[default]
    Unasked,
    Asked {
        at: Instant,
        /// For how long samples wait for the answer, if for the first ones only.
        patience: Duration,
    },
    Answered,
    Failed(Instant),
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Guest {
    /// Asks which kernel there is. Returns whether samples should wait for the answer.
    fn ask_kernel(&mut self, root: AddressSpaceRoot, patience: Duration) -> bool {
        if self.questions.try_send(Question::Kernel(root)).is_err() {
            return false;
        }
        self.refreshed = Instant::now();
        self.kernel = Standing::Asked { at: self.refreshed, patience };
        !patience.is_zero()
    }

    /// Whether dom0 is looked at later, since this look has only begun: where dom0 has few CPUs they hold each other up, and
    /// this one is what it is all done for.
    fn is_looked_at_first(&self) -> bool {
        matches!(self.kernel, Standing::Asked { at, .. } if at.elapsed() < GUESTS_FIRST)
    }

    /// Whether a sample of this time should wait for the answer whose page tables these are, which is asked for if it is
    /// not known. What was taken up to the time `newest` is at hand.
    fn awaits_process(&mut self, root: AddressSpaceRoot, time: Time, newest: Time) -> bool {
        let known = self.processes.entry(root).or_default();
        if known.until.is_some_and(|until| time <= until) {
            return false;
        }
        if let Some(asked) = known.asked {
            return asked.elapsed() < PROCESS_PATIENCE;
        }
        let now = Instant::now();
        if known.rests_until.is_some_and(|until| now < until) {
            return true;
        }
        let still = known.looked.is_some_and(|looked| looked.elapsed() <= PROCESS_AGE);
        let question = Question::Process { root, until: newest, known: still };
        if self.questions.try_send(question).is_err() {
            return false;
        }
        known.asked = Some(now);
        true
    }

    /// Takes the answer whose page tables these are.
    fn learn(&mut self, root: AddressSpaceRoot, until: Time, owner: &Whose) {
        // Another kernel's, if it is not known.
        let Some(known) = self.processes.get_mut(&root) else { return };
        let now = Instant::now();
        let took = known.asked.take().map_or(Duration::ZERO, |asked| now - asked);
        known.until = Some(until);
        match owner {
            Whose::Same => {}
            Whose::Process(process) => {
                known.looked = Some(now);
                let life = process.task.life();
                if known.owner.is_none_or(|(of, _)| of != life) {
                    known.owner = Some((life, now));
                }
            }
            Whose::Nobody => (known.looked, known.owner) = (None, None),
        }
        let age = known.owner.map_or(Duration::ZERO, |(_, since)| now - since);
        let rest = (took * REST).max(LONGEST_REST_OF_AGE.min(age / REST_OF_AGE));
        known.rests_until = Some(now + LONGEST_REST.min(rest));
    }
}

impl Guests {
    /// Ready to answer, if this hypervisor shows its domains' memory and there is a command that starts a process to look
    /// into it ([`crate::serve`]).
    pub(crate) fn new(
        memories: Option<Arc<dyn Memories>>,
        own_kernel: OwnKernel,
        options: Option<&Looking>,
        callers: bool,
    ) -> Self {
        let (tell, answers) = bounded(QUEUE);
        let means = memories.zip(options).map(|(memories, options)| Means {
            memories,
            own_kernel,
            watched: options.watched,
            command: options.command.as_slice().into(),
            callers,
            files: options.files.clone(),
        });
        Self { means, tell, answers, guests: HashMap::new() }
    }

    /// Whether somebody watches.
    pub(crate) fn are_watched(&self) -> bool {
        self.means.as_ref().is_some_and(|means| means.watched)
    }

    /// Whether dom0's kernel gets its names, a little later, from whoever looks into dom0.
    pub(crate) fn name_kernel_of(&self, domain: &Domain) -> bool {
        self.are_watched() && domain.kind == DomainKind::Dom0
    }

    /// Begins to look into a domain that was just seen: at once if the page tables of its kernel are known without a
    /// sample. Else all is made ready until there is one.
    pub(crate) fn attach(&mut self, domain: &Domain) {
        let root = self.means.as_ref().and_then(|means| means.memories.root(domain.number, domain.kind));
        if let Some(guest) = self.guest(domain)
            && let Some(root) = root
        {
            guest.ask_kernel(root, KERNEL_PATIENCE);
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
            let (means, domain, tell) = (means.clone(), domain.clone(), self.tell.clone());
            let is_gone = gone.clone();
            thread::spawn(move || Worker::new(means, &domain, is_gone).work(&asked, &tell));
            Guest {
                questions,
                gone,
                kernel: Standing::Unasked,
                retry: FIRST_RETRY,
                refreshed: Instant::now(),
                nameless: HashSet::new(),
                knows_processes: false,
                processes: HashMap::new(),
            }
        }))
    }

    /// Whether a sample should wait: an answer that names it is on its way. What has not been asked yet is asked. The
    /// user may have `named` the kernel; `is_unnamed` tells whether an address of it has no name. What was taken up to the
    /// time `newest` is at hand.
    pub(crate) fn is_awaited(
        &mut self,
        domain: &Domain,
        named: bool,
        taken: &Taken,
        newest: Time,
        is_unnamed: impl FnOnce() -> bool,
    ) -> bool {
        let Some((root, is_user)) = root_of_any_code(domain, taken) else { return false };
        // The page tables of a PV domain's processes do not show its kernel.
        let shows_kernel = !(is_user && matches!(domain.kind, DomainKind::Pv | DomainKind::Dom0));
        let own_code = taken.owner == Owner::Kernel(domain.number);
        let is_dom0 = domain.kind == DomainKind::Dom0;
        let others_come_first = is_dom0
            && self.guests.get(&domain.id).is_none_or(|guest| matches!(guest.kernel, Standing::Unasked))
            && self.guests.values().any(Guest::is_looked_at_first);
        let waits = !(is_dom0 && self.are_watched());
        let Some(guest) = self.guest(domain) else { return false };
        match guest.kernel {
            Standing::Unasked if others_come_first => return waits && (is_user || !named),
            Standing::Unasked => {
                let patience = if waits { KERNEL_PATIENCE } else { Duration::ZERO };
                return shows_kernel && guest.ask_kernel(root, patience) && !named;
            }
            Standing::Failed(at) => {
                if at.elapsed() > guest.retry && shows_kernel {
                    let is_early = guest.retry < RETRY_EVERY;
                    guest.retry = RETRY_EVERY.min(guest.retry * 2);
                    let patience = if is_early && !named { RETRY_PATIENCE } else { Duration::ZERO };
                    return guest.ask_kernel(root, patience);
                }
                return false;
            }
            Standing::Asked { at, patience } => {
                return (is_user || !named) && at.elapsed() < patience;
            }
            Standing::Answered => {}
        }
        if shows_kernel {
            let age = guest.refreshed.elapsed();
            let page = taken.instruction_pointer >> 12;
            let is_news = own_code && !guest.nameless.contains(&page) && is_unnamed();
            if is_news && guest.nameless.len() < MOST_NAMELESS {
                // A module that is being loaded has its names a moment later.
                if age <= UNNAMED_AGE {
                    return true;
                }
                guest.nameless.insert(page);
                return guest.ask_kernel(root, PROCESS_PATIENCE);
            }
            if age > KERNEL_AGE && guest.questions.try_send(Question::Kernel(root)).is_ok() {
                guest.refreshed = Instant::now();
            }
        }
        let process = root_of_process(domain, taken).filter(|_| guest.knows_processes);
        process.is_some_and(|root| guest.awaits_process(root, taken.time, newest))
    }

    /// Asks ahead whose process a sample is of, which is not written yet: questions about several are then answered
    /// together.
    pub(crate) fn foresee(&mut self, domain: &Domain, taken: &Taken, newest: Time) {
        if let Some(root) = root_of_process(domain, taken)
            && let Some(guest) = self.guests.get_mut(&domain.id)
            && guest.knows_processes
            && matches!(guest.kernel, Standing::Answered)
        {
            guest.awaits_process(root, taken.time, newest);
        }
    }

    /// Waits for a time, or less if there is an answer; but so long that many answers are not taken one by one.
    pub(crate) fn rest(&self, most: Duration) {
        let least = most / 10;
        thread::sleep(least);
        wait_for(&self.answers, most - least);
    }

    /// The next answer, if there is one; none about domains that are no more.
    pub(crate) fn next_answer(&mut self) -> Option<Answer> {
        while let Ok(answer) = self.answers.try_recv() {
            let now = Instant::now();
            match &answer {
                Answer::OwnKernel { domain, .. } if !self.guests.contains_key(domain) => continue,
                Answer::OwnKernel { .. } => {}
                Answer::Kernel { domain, result } => {
                    let Some(guest) = self.guests.get_mut(domain) else { continue };
                    guest.kernel = if result.is_ok() { Standing::Answered } else { Standing::Failed(now) };
                    match result {
                        Ok(None) => {}
                        Ok(Some(names)) => {
                            guest.retry = FIRST_RETRY;
                            guest.knows_processes = names.no_processes.is_none();
                            // Not with every change: a guest that changes its modules all the time would have samples wait
                            // for the same pages over and over.
                            if names.symbols.is_some() {
                                guest.nameless.clear();
                                guest.processes.clear();
                            }
                        }
                        Err(_) => guest.knows_processes = false,
                    }
                }
                Answer::Process { domain, root, until, owner } => {
                    let Some(guest) = self.guests.get_mut(domain) else { continue };
                    guest.learn(*root, *until, owner);
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

/// Waits until a message is there, which stays there, or for a time.
fn wait_for<T>(messages: &Receiver<T>, most: Duration) {
    let mut ready = Select::new();
    ready.recv(messages);
    // Either will do.
    let _ = ready.ready_timeout(most);
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
