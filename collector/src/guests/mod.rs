//! Names for guests that nobody gave files for: what their own memory says.
//!
//! Looking into a guest takes longer than rings should wait, so each has a thread that does it ([`look`]): a guest that
//! makes its own look last does not hold up the others'. Samples wait for the first answer about their kernel or process,
//! in the order in which they came, but never for long: what comes too late is written without names, and later samples
//! have them.

mod look;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use hv_shim::{Memories, Owner, Taken};
use profile::{AddressSpaceRoot, Domain, DomainId, DomainKind, Mode};

pub(crate) use self::look::{Answer, GuestMapping, GuestProcess, Image};
use self::look::{Question, Worker};

/// For how long samples wait for their kernel's names, and for a process of a kernel that is known.
const KERNEL_PATIENCE: Duration = Duration::from_secs(2);
const PROCESS_PATIENCE: Duration = Duration::from_secs(1);

/// After this time it is looked again whether a root of page tables is still the same process's, with the same mappings.
const PROCESS_AGE: Duration = Duration::from_secs(2);

/// A kernel that was not found is looked for again after this time: it may have been booting.
const RETRY_EVERY: Duration = Duration::from_secs(3);

/// Questions about a guest that may wait; what finds no place is asked with a later sample.
const QUEUE: usize = 256;

/// Guests that are looked into at the most: each has a thread.
const MOST_GUESTS: usize = 1024;

/// What is known of guests, and who is asked.
pub(crate) struct Guests {
    memories: Option<Arc<dyn Memories>>,
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

impl Guests {
    /// Ready to answer, if this hypervisor shows its domains' memory.
    pub(crate) fn new(memories: Option<Arc<dyn Memories>>) -> Self {
        let (tell, answers) = bounded(QUEUE);
        Self { memories, tell, answers, guests: HashMap::new() }
    }

    /// Whether a sample should wait: an answer that names it is on its way. What has not been asked yet is asked. The
    /// user may have `named` the kernel.
    pub(crate) fn is_awaited(&mut self, domain: &Domain, named: bool, taken: &Taken) -> bool {
        let Some(memories) = &self.memories else { return false };
        let Some(root) = root_of_any_code(domain, taken) else { return false };
        if !matches!(domain.kind, DomainKind::Pv | DomainKind::Pvh | DomainKind::Hvm) {
            return false;
        }
        if self.guests.len() == MOST_GUESTS && !self.guests.contains_key(&domain.id) {
            return false;
        }
        let guest = self.guests.entry(domain.id).or_insert_with(|| {
            let (questions, asked) = bounded(QUEUE);
            let gone = Arc::new(AtomicBool::new(false));
            let worker = Worker::new(memories.clone(), domain, gone.clone());
            let tell = self.tell.clone();
            thread::spawn(move || worker.work(&asked, &tell));
            Guest {
                questions,
                gone,
                kernel: Standing::Unasked,
                knows_processes: false,
                processes: HashMap::new(),
            }
        });
        let questions = &guest.questions;
        // Returns whether the sample should wait for the answer.
        let ask = |standing: &mut Standing, question| {
            let awaited = matches!(standing, Standing::Unasked);
            if questions.try_send(question).is_err() {
                return false;
            }
            *standing = Standing::Asked { at: Instant::now(), awaited };
            awaited
        };
        match guest.kernel {
            // The page tables of a PV domain's processes do not show its kernel.
            Standing::Unasked if domain.kind == DomainKind::Pv && taken.mode == Mode::User => return false,
            Standing::Failed(at) if at.elapsed() < RETRY_EVERY => return false,
            Standing::Unasked | Standing::Failed(_) => {
                return ask(&mut guest.kernel, Question::Kernel(root)) && !named;
            }
            Standing::Asked { at, awaited } => return awaited && !named && at.elapsed() < KERNEL_PATIENCE,
            Standing::Answered(_) => {}
        }
        let Some(root) = root_of_process(domain, taken).filter(|_| guest.knows_processes) else {
            return false;
        };
        let process = guest.processes.entry(root).or_default();
        let question = Question::Process(root);
        match *process {
            Standing::Unasked => ask(process, question),
            Standing::Asked { at, awaited } => awaited && at.elapsed() < PROCESS_PATIENCE,
            // Samples go on under what is known meanwhile.
            Standing::Answered(at) | Standing::Failed(at) => {
                at.elapsed() > PROCESS_AGE && ask(process, question)
            }
        }
    }

    /// The next answer, if there is one; none about domains that are no more.
    pub(crate) fn next_answer(&mut self) -> Option<Answer> {
        while let Ok(answer) = self.answers.try_recv() {
            let now = Instant::now();
            match &answer {
                Answer::Kernel { domain, result } => {
                    let Some(guest) = self.guests.get_mut(domain) else { continue };
                    guest.knows_processes = result.as_ref().is_ok_and(|names| names.no_processes.is_none());
                    guest.kernel =
                        if result.is_ok() { Standing::Answered(now) } else { Standing::Failed(now) };
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

/// Page tables that lead to a guest's kernel, in whatever code of the guest they were loaded.
fn root_of_any_code(domain: &Domain, taken: &Taken) -> Option<AddressSpaceRoot> {
    let own = [Owner::Kernel(domain.number), Owner::Process(domain.number)];
    let captured = || taken.stretches.iter().filter(|captured| own.contains(&captured.owner));
    let captured = || captured().find_map(|captured| captured.page_tables);
    taken.page_tables.filter(|_| own.contains(&taken.owner)).or_else(captured)
}
