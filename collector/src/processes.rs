//! Which process a number means, while processes are born, execute other programs and die.
//!
//! A process is introduced to the recording by its first sample: most never have one.

use std::{collections::HashMap, io::Write, sync::Arc};

use hv_shim::{Change, MappedFile, Mapping, ProcessKey, ProcessState, Sampling};
use profile::{AddressSpaceRoot, DomainId, Process, ProcessId, Time, recording::Writer};
use symbolizer::{ImageId, SymbolTable, Symbolizer, load_linked};

use crate::{
    callers::Images,
    confined::messages::FoundTask,
    guests::{GuestMapping, GuestProcess, Image},
};

/// For how long the dead are remembered: their last samples may still be on their way.
const MOURNING_NS: u64 = 2_000_000_000;

/// How often it is looked whether a process has told of code that it generates.
const GENERATED_EVERY_NS: u64 = 1_000_000_000;

/// All processes of a recording, as far as they are needed.
#[derive(Default)]
pub(crate) struct Processes {
    introduced: u32,
    /// The life that each process leads now.
    lives: HashMap<(DomainId, Option<ProcessKey>), Life>,
    files: Files,
    /// What tells of their frames.
    images: Images,
    /// Lives that ended since they were last asked for.
    ended: Vec<ProcessId>,
}

/// A process from its birth, or the program that it executed last, up to the next such event.
struct Life {
    facts: Facts,
    /// Its handle, once it was introduced.
    id: Option<ProcessId>,
    died: Option<Time>,
    /// When it was last looked for code that it generates.
    looked_for_generated: Option<Time>,
}

/// What a child has of its parent.
#[derive(Clone, Default)]
struct Facts {
    name: Option<String>,
    container: Option<String>,
    /// Of a process of the host.
    mappings: Arc<Vec<Mapping>>,
    /// Of a process of a guest, with what else tells it from another of the same page tables.
    guest: Option<Arc<GuestFacts>>,
}

#[derive(PartialEq, Eq)]
struct GuestFacts {
    pid: u32,
    start_time: u64,
    mappings: Vec<GuestMapping>,
}

impl From<ProcessState> for Facts {
    fn from(state: ProcessState) -> Self {
        let mappings = Arc::new(state.mappings);
        Self { name: state.name, container: state.container, mappings, guest: None }
    }
}

impl Life {
    fn new(facts: Facts) -> Self {
        Self { facts, id: None, died: None, looked_for_generated: None }
    }
}

/// Which domain, by the recording's handle and by the hypervisor's number.
#[derive(Clone, Copy)]
pub(crate) struct Whose {
    pub(crate) domain: DomainId,
    pub(crate) number: u32,
}

impl Processes {
    /// The handle of a process that was sampled; without a key, of all that is not known of a domain's processes.
    pub(crate) fn sampled<W: Write>(
        &mut self,
        whose: Whose,
        key: Option<ProcessKey>,
        now: Time,
        sampling: &dyn Sampling,
        symbolizer: &mut Symbolizer,
        writer: &mut Writer<W>,
    ) -> ProcessId {
        let life = self.lives.entry((whose.domain, key)).or_insert_with(|| {
            let state = key.and_then(|key| sampling.process(whose.number, key));
            Life::new(state.unwrap_or_default().into())
        });
        if let Some(id) = life.id {
            return id;
        }
        if let Some(id) = self.same_by_other_root(whose.domain, key) {
            return id;
        }
        let life = self.lives.get_mut(&(whose.domain, key)).expect("just looked at");
        let id = ProcessId(self.introduced);
        self.introduced += 1;
        life.id = Some(id);
        for mapping in &*life.facts.mappings {
            self.files.map(id, mapping, symbolizer);
        }
        if let Some(guest) = &life.facts.guest {
            self.files.map_guest(whose.domain, id, &guest.mappings, symbolizer);
        }
        writer.process(process(id, whose.domain, key, &life.facts, now));
        id
    }

    /// The handle of a guest's process that was introduced by the other one of its two roots: one is loaded in its kernel,
    /// the other in user mode.
    fn same_by_other_root(&mut self, domain: DomainId, key: Option<ProcessKey>) -> Option<ProcessId> {
        let of = |life: &Life| life.facts.guest.as_ref().map(|guest| (guest.pid, guest.start_time));
        let wanted = of(self.lives.get(&(domain, key))?)?;
        let others = self.lives.iter().filter(|((of_domain, _), _)| *of_domain == domain);
        let id = others.filter(|(_, life)| of(life) == Some(wanted)).find_map(|(_, life)| life.id)?;
        self.lives.get_mut(&(domain, key))?.id = Some(id);
        Some(id)
    }

    /// Takes a change of a process of the host.
    pub(crate) fn change<W: Write>(
        &mut self,
        host: DomainId,
        now: Time,
        change: Change,
        sampling: &dyn Sampling,
        symbolizer: &mut Symbolizer,
        writer: &mut Writer<W>,
    ) {
        let key = |pid| (host, Some(ProcessKey::Pid(pid)));
        match change {
            Change::Forked { pid, parent } => {
                // The child may be dead before it can be looked at; parents live longer.
                let parent = self.lives.entry(key(parent)).or_insert_with(|| {
                    Life::new(sampling.process(0, ProcessKey::Pid(parent)).unwrap_or_default().into())
                });
                let facts = parent.facts.clone();
                self.begin(key(pid), facts, symbolizer);
            }
            Change::Executed { pid, name } => {
                // The parent's group may have been left since.
                let before = || self.lives.get(&key(pid))?.facts.container.clone();
                let container = sampling.container(pid).or_else(before);
                self.begin(key(pid), Facts { name: Some(name), container, ..Facts::default() }, symbolizer);
            }
            Change::Renamed { pid, name } => {
                if let Some(life) = self.lives.get_mut(&key(pid)) {
                    life.facts.name = Some(name);
                    if let Some(id) = life.id {
                        writer.process(process(id, host, key(pid).1, &life.facts, now));
                    }
                }
            }
            Change::Mapped { pid, mapping } => {
                if let Some(life) = self.lives.get_mut(&key(pid)) {
                    if let Some(id) = life.id {
                        self.files.map(id, &mapping, symbolizer);
                    }
                    Arc::make_mut(&mut life.facts.mappings).push(mapping);
                }
            }
            Change::Exited { pid } => {
                if let Some(life) = self.lives.get_mut(&key(pid)) {
                    life.died = Some(now);
                }
            }
        }
    }

    /// Takes what a guest's memory says of a process now. Returns its handle if later samples have other names.
    pub(crate) fn guest_process<W: Write>(
        &mut self,
        domain: DomainId,
        root: AddressSpaceRoot,
        found: GuestProcess,
        now: Time,
        symbolizer: &mut Symbolizer,
        writer: &mut Writer<W>,
    ) -> Option<ProcessId> {
        let GuestProcess { task, mappings, images } = found;
        let FoundTask { pid, start_time, name, container } = task;
        for image in images {
            let id = self.files.guest_image(domain, image.key, symbolizer);
            self.images.set(id, image.frames);
            symbolizer.set_content(id, image.content);
        }
        let guest = GuestFacts { pid, start_time, mappings };
        let facts = Facts { name: Some(name), container, guest: Some(Arc::new(guest)), ..Facts::default() };
        let key = (domain, Some(ProcessKey::Root(root)));
        let Some(life) = self.lives.get_mut(&key) else {
            self.lives.insert(key, Life::new(facts));
            return None;
        };
        let same = |before: &Facts| match (&before.guest, &facts.guest) {
            (Some(before), Some(now)) => (before.pid, before.start_time) == (now.pid, now.start_time),
            // Until now nothing was known of it.
            (None, _) => true,
            _ => false,
        };
        if !same(&life.facts) {
            self.begin(key, facts, symbolizer);
            return None;
        }
        let renamed = (&life.facts.name, &life.facts.container) != (&facts.name, &facts.container);
        let moved = life.facts.guest != facts.guest;
        life.facts = facts;
        let id = life.id?;
        if renamed || moved {
            writer.process(process(id, domain, key.1, &life.facts, now));
        }
        if moved && let Some(guest) = &life.facts.guest {
            symbolizer.forget_process(id);
            self.files.map_guest(domain, id, &guest.mappings, symbolizer);
        }
        (moved).then_some(id)
    }

    fn begin(&mut self, key: (DomainId, Option<ProcessKey>), facts: Facts, symbolizer: &mut Symbolizer) {
        self.end(key, symbolizer);
        self.lives.insert(key, Life::new(facts));
    }

    fn end(&mut self, key: (DomainId, Option<ProcessKey>), symbolizer: &mut Symbolizer) {
        if let Some(id) = self.lives.remove(&key).and_then(|life| life.id) {
            symbolizer.forget_process(id);
            self.ended.push(id);
        }
    }

    /// Forgets a domain that is no more.
    pub(crate) fn forget(&mut self, domain: DomainId, symbolizer: &mut Symbolizer) {
        self.forget_where(symbolizer, |of, _| of == domain);
    }

    /// Forgets the dead whose samples have all arrived.
    pub(crate) fn bury(&mut self, now: Time, symbolizer: &mut Symbolizer) {
        self.forget_where(symbolizer, |_, life| {
            life.died.is_some_and(|died| now.0.saturating_sub(died.0) > MOURNING_NS)
        });
    }

    fn forget_where(&mut self, symbolizer: &mut Symbolizer, gone: impl Fn(DomainId, &Life) -> bool) {
        self.lives.retain(|&(domain, _), life| {
            let stays = !gone(domain, life);
            if let Some(id) = life.id.filter(|_| !stays) {
                symbolizer.forget_process(id);
                self.ended.push(id);
            }
            stays
        });
    }

    /// The handles that will not come again, since this was asked last.
    pub(crate) fn take_ended(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.ended)
    }

    /// Reads an image that a process has mapped: its functions, and how callers of theirs are found.
    pub(crate) fn read_image(
        &mut self,
        pid: u32,
        image: ImageId,
        sampling: &dyn Sampling,
        symbolizer: &mut Symbolizer,
    ) {
        let file = self.files.known.iter().find(|(_, id)| **id == image).map(|(file, _)| file);
        let opened = file.and_then(|file| sampling.open(pid, file));
        if let Some(file) = &opened {
            self.images.read(image, file);
        }
        symbolizer.set_content(image, opened.and_then(|file| load_linked(file).ok()));
    }

    /// What tells of the frames of an image, once it was read.
    pub(crate) fn image(&self, image: ImageId) -> Option<&unwind::Image> {
        self.images.get(image)
    }

    /// Looks, not too often, whether a process tells of code that it generated. Returns its handle if there is news.
    pub(crate) fn read_generated(
        &mut self,
        host: DomainId,
        pid: u32,
        now: Time,
        sampling: &dyn Sampling,
        symbolizer: &mut Symbolizer,
    ) -> Option<ProcessId> {
        let life = self.lives.get_mut(&(host, Some(ProcessKey::Pid(pid))))?;
        let recently = |looked: Time| now.0.saturating_sub(looked.0) < GENERATED_EVERY_NS;
        if life.looked_for_generated.is_some_and(recently) {
            return None;
        }
        life.looked_for_generated = Some(now);
        let symbols = SymbolTable::from_perf_map(&sampling.generated_symbols(pid)?).ok()?;
        symbolizer.set_generated(life.id?, symbols);
        life.id
    }
}

fn process(id: ProcessId, domain: DomainId, key: Option<ProcessKey>, facts: &Facts, now: Time) -> Process {
    let (pid, root) = match key {
        Some(ProcessKey::Pid(pid)) => (Some(pid), None),
        Some(ProcessKey::Root(root)) => (facts.guest.as_ref().map(|guest| guest.pid), Some(root)),
        None => (None, None),
    };
    Process { id, domain, pid, root, name: facts.name.clone(), container: facts.container.clone(), from: now }
}

/// The files that processes have mapped, each known once.
#[derive(Default)]
struct Files {
    known: HashMap<MappedFile, ImageId>,
    of_guests: HashMap<(DomainId, (String, Image)), ImageId>,
}

impl Files {
    fn guest_image(
        &mut self,
        domain: DomainId,
        key: (String, Image),
        symbolizer: &mut Symbolizer,
    ) -> ImageId {
        let is_memory = key.1.is_memory();
        *self.of_guests.entry((domain, key)).or_insert_with_key(|(_, (path, _))| match is_memory {
            true => symbolizer.add_memory(short_name(path)),
            false => symbolizer.add_image(short_name(path)),
        })
    }

    fn map_guest(
        &mut self,
        domain: DomainId,
        process: ProcessId,
        mappings: &[GuestMapping],
        symbolizer: &mut Symbolizer,
    ) {
        for mapping in mappings {
            let image = self.guest_image(domain, mapping.key(), symbolizer);
            symbolizer.map(process, mapping.addresses.clone(), mapping.offset, image);
        }
    }

    fn map(&mut self, process: ProcessId, mapping: &Mapping, symbolizer: &mut Symbolizer) {
        let Mapping { addresses, offset, file } = mapping;
        let image = *self.known.entry(file.clone()).or_insert_with(|| match file.inode {
            0 => symbolizer.add_memory(short_name(&file.path)),
            _ => symbolizer.add_image(short_name(&file.path)),
        });
        symbolizer.map(process, addresses.clone(), *offset, image);
    }
}

/// The last part of a path; memory without a name is shown as what it is.
fn short_name(path: &str) -> &str {
    match path.rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => "[anonymous]",
    }
}
