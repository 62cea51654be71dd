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
    lives: HashMap<Slot, Life>,
    files: Files,
    /// What tells of their frames, if callers are wanted.
    images: Images,
    callers: bool,
    /// Lives that ended since they were last asked for.
    ended: Vec<ProcessId>,
    /// Guests' processes of which it is not known yet from when on they were there.
    fresh: Vec<Slot>,
}

/// Where a life is led.
type Slot = (DomainId, Option<ProcessKey>);

/// A process from its birth, or the program that it executed last, up to the next such event.
struct Life {
    facts: Facts,
    /// Its handle, once it was introduced.
    id: Option<ProcessId>,
    died: Option<Time>,
    /// When it was last looked for code that it generates.
    looked_for_generated: Option<Time>,
    /// Of a guest's process: a time from which on it was seen to be there, and one up to which.
    seen: (Option<Time>, Time),
    /// Of a guest's process: whoever had its page tables before.
    before: Option<Box<Life>>,
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
    task: FoundTask,
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
        let seen = (None, Time(0));
        Self { facts, id: None, died: None, looked_for_generated: None, seen, before: None }
    }

    /// Whether a guest's process was there both before and after a moment.
    fn certainly_at(&self, time: Time) -> bool {
        self.seen.0.is_some_and(|since| since < time) && time <= self.seen.1
    }

    /// Whether a guest's process may have run an instruction.
    fn may_have_run(&self, time: Time, instruction: Option<u64>) -> bool {
        let Some(guest) = &self.facts.guest else { return false };
        let maps = |address| guest.mappings.iter().any(|mapping| mapping.addresses.contains(&address));
        self.died.is_none_or(|died| time <= died) && instruction.is_none_or(maps)
    }
}

/// Who of those that have, and had, the same page tables was sampled.
enum Sampled {
    Now,
    Before,
    Nobody,
}

/// Which domain, by the recording's handle and by the hypervisor's number.
#[derive(Clone, Copy)]
pub(crate) struct Whose {
    pub(crate) domain: DomainId,
    pub(crate) number: u32,
}

impl Processes {
    /// None so far; `callers` tells whether those of samples are wanted.
    pub(crate) fn new(callers: bool) -> Self {
        Self { callers, ..Self::default() }
    }

    /// The handle of a process that was sampled, at an instruction if that is known; without a key, of all that is not
    /// known of a domain's processes.
    pub(crate) fn sampled<W: Write>(
        &mut self,
        whose: Whose,
        key: Option<ProcessKey>,
        (now, instruction): (Time, Option<u64>),
        sampling: &dyn Sampling,
        symbolizer: &mut Symbolizer,
        writer: &mut Writer<W>,
    ) -> ProcessId {
        let key = match self.who(&(whose.domain, key), now, instruction) {
            Sampled::Now => key,
            Sampled::Nobody => None,
            Sampled::Before => {
                let before = self.lives.get(&(whose.domain, key)).and_then(|life| life.before.as_ref()?.id);
                match before {
                    Some(id) => return id,
                    // Whoever has never been sampled was not now.
                    None => None,
                }
            }
        };
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

    /// The number of a guest's or of dom0's process that was sampled, if that is known.
    pub(crate) fn number_of(
        &self,
        domain: DomainId,
        key: ProcessKey,
        (time, instruction): (Time, Option<u64>),
    ) -> Option<u32> {
        let slot = (domain, Some(key));
        let life = self.lives.get(&slot)?;
        let life = match self.who(&slot, time, instruction) {
            Sampled::Now => life,
            Sampled::Before => life.before.as_ref()?,
            Sampled::Nobody => return None,
        };
        Some(life.facts.guest.as_ref()?.task.pid)
    }

    /// Page tables that one process gives back serve the next. In between nobody tells when that was: then it is who has
    /// the instruction mapped, and nobody where that does not decide.
    fn who(&self, slot: &Slot, time: Time, instruction: Option<u64>) -> Sampled {
        let Some(life) = self.lives.get(slot).filter(|life| life.facts.guest.is_some()) else {
            return Sampled::Now;
        };
        if life.certainly_at(time) {
            return Sampled::Now;
        }
        let before = life.before.as_ref();
        if before.is_some_and(|before| before.certainly_at(time)) {
            return Sampled::Before;
        }
        let earlier = before.is_some_and(|before| before.may_have_run(time, instruction));
        match (earlier, life.may_have_run(time, instruction)) {
            (false, true) => Sampled::Now,
            (true, false) => Sampled::Before,
            _ => Sampled::Nobody,
        }
    }

    /// The handle of a guest's process that was introduced by the other one of its two roots: one is loaded in its kernel,
    /// the other in user mode.
    fn same_by_other_root(&mut self, domain: DomainId, key: Option<ProcessKey>) -> Option<ProcessId> {
        let of = |life: &Life| life.facts.guest.as_ref().map(|guest| guest.task.life());
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

    /// Takes what a guest's memory says of a process, at some moment after all that was drained up to a time. Returns its
    /// handle if later samples have other names.
    pub(crate) fn guest_process<W: Write>(
        &mut self,
        domain: DomainId,
        root: AddressSpaceRoot,
        until: Time,
        found: GuestProcess,
        symbolizer: &mut Symbolizer,
        writer: &mut Writer<W>,
    ) -> Option<ProcessId> {
        let GuestProcess { task, mappings, images } = found;
        for image in images {
            let id = self.files.guest_image(domain, image.key, symbolizer);
            self.images.set(id, image.frames);
            symbolizer.set_content(id, image.content);
        }
        let (name, container) = (Some(task.name.clone()), task.container.clone());
        let guest = Arc::new(GuestFacts { task, mappings });
        let key = Some(ProcessKey::Root(root));
        let same = |life: &&mut Life| {
            life.facts.guest.as_ref().is_some_and(|before| before.task.life() == guest.task.life())
        };
        let Some(life) = self.lives.get_mut(&(domain, key)).filter(same) else {
            let facts = Facts { name, container, guest: Some(guest), ..Facts::default() };
            self.begin_in_guest((domain, key), facts, until, symbolizer);
            return None;
        };
        (life.seen.1, life.died) = (until, None);
        let before = life.facts.guest.replace(guest);
        let guest = life.facts.guest.as_ref().filter(|now| before.as_ref() != Some(*now))?;
        (life.facts.name, life.facts.container) = (name, container);
        let id = life.id?;
        writer.process(process(id, domain, key, &life.facts, until));
        if before.is_some_and(|before| before.mappings == guest.mappings) {
            return None;
        }
        symbolizer.forget_process(id);
        self.files.map_guest(domain, id, &guest.mappings, symbolizer);
        Some(id)
    }

    /// A guest's process has still the page tables that it had, at some moment after all that was drained up to a time.
    pub(crate) fn still_there(&mut self, domain: DomainId, root: AddressSpaceRoot, until: Time) {
        if let Some(life) = self.lives.get_mut(&(domain, Some(ProcessKey::Root(root)))) {
            life.seen.1 = until;
        }
    }

    /// No process of a guest has these page tables any more, at some moment after all that was drained up to a time.
    pub(crate) fn guest_process_gone(&mut self, domain: DomainId, root: AddressSpaceRoot, until: Time) {
        if let Some(life) = self.lives.get_mut(&(domain, Some(ProcessKey::Root(root)))) {
            life.died.get_or_insert(until);
        }
    }

    /// Takes note that all is drained that was recorded up to a time: what comes then was recorded after all that was
    /// told of guests' processes up to now.
    pub(crate) fn drained(&mut self, newest: Time) {
        for slot in std::mem::take(&mut self.fresh) {
            if let Some(life) = self.lives.get_mut(&slot) {
                life.seen.0.get_or_insert(newest);
            }
        }
    }

    fn begin_in_guest(&mut self, slot: Slot, facts: Facts, until: Time, symbolizer: &mut Symbolizer) {
        let mut life = Life::new(facts);
        life.seen.1 = until;
        // Its last samples may still be on their way.
        if let Some(mut before) = self.lives.remove(&slot) {
            if let Some(earlier) = before.before.take() {
                self.end(*earlier, symbolizer);
            }
            match before.facts.guest {
                Some(_) => life.before = Some(Box::new(before)),
                None => self.end(before, symbolizer),
            }
        }
        self.lives.insert(slot, life);
        self.fresh.push(slot);
    }

    fn begin(&mut self, key: Slot, facts: Facts, symbolizer: &mut Symbolizer) {
        if let Some(before) = self.lives.insert(key, Life::new(facts)) {
            self.end(before, symbolizer);
        }
    }

    /// Forgets a life, and the one before it.
    fn end(&mut self, life: Life, symbolizer: &mut Symbolizer) {
        if let Some(id) = life.id {
            symbolizer.forget_process(id);
            self.ended.push(id);
        }
        if let Some(before) = life.before {
            self.end(*before, symbolizer);
        }
    }

    /// Forgets a domain that is no more.
    pub(crate) fn forget(&mut self, domain: DomainId, symbolizer: &mut Symbolizer) {
        self.forget_where(symbolizer, |of, _| of == domain);
    }

    /// Forgets the dead whose samples have all arrived.
    pub(crate) fn bury(&mut self, now: Time, symbolizer: &mut Symbolizer) {
        let is_over = |time: Time| now.0.saturating_sub(time.0) > MOURNING_NS;
        self.forget_where(symbolizer, |_, life| life.died.is_some_and(is_over));
        let past = self.lives.values_mut().filter(|life| life.seen.0.is_some_and(is_over));
        let past: Vec<Box<Life>> = past.filter_map(|life| life.before.take()).collect();
        past.into_iter().for_each(|life| self.end(*life, symbolizer));
    }

    fn forget_where(&mut self, symbolizer: &mut Symbolizer, gone: impl Fn(DomainId, &Life) -> bool) {
        let gone = self.lives.extract_if(|&(domain, _), life| gone(domain, life));
        let gone: Vec<Life> = gone.map(|(_, life)| life).collect();
        gone.into_iter().for_each(|life| self.end(life, symbolizer));
    }

    /// The handles that will not come again, since this was asked last.
    pub(crate) fn take_ended(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.ended)
    }

    /// Reads an image that a process has mapped: its functions, and how callers of theirs are found, if they are wanted.
    pub(crate) fn read_image(
        &mut self,
        pid: u32,
        image: ImageId,
        sampling: &dyn Sampling,
        symbolizer: &mut Symbolizer,
    ) {
        let file = self.files.known.iter().find(|(_, id)| **id == image).map(|(file, _)| file);
        let opened = file.and_then(|file| sampling.open(pid, file));
        if let Some(file) = opened.as_ref().filter(|_| self.callers) {
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
        Some(ProcessKey::Root(root)) => (facts.guest.as_ref().map(|guest| guest.task.pid), Some(root)),
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

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = (DomainId(1), Some(ProcessKey::Root(AddressSpaceRoot(0x5000))));

    /// A process that has a page of code, seen to be there from one time to another.
    fn life(pid: u32, code: u64, seen: (Option<Time>, Time)) -> Life {
        let task = FoundTask { pid, start_time: 1, executed: 0, name: String::new(), container: None };
        let addresses = code..code + 0x1000;
        let mapping =
            GuestMapping { addresses, offset: 0, path: String::new(), image: Image::OwnFile((0, 0), 1) };
        let guest = Arc::new(GuestFacts { task, mappings: vec![mapping] });
        Life { seen, ..Life::new(Facts { guest: Some(guest), ..Facts::default() }) }
    }

    fn who(processes: &Processes, time: u64, instruction: u64) -> &'static str {
        match processes.who(&SLOT, Time(time), Some(instruction)) {
            Sampled::Now => "now",
            Sampled::Before => "before",
            Sampled::Nobody => "nobody",
        }
    }

    #[test]
    fn page_tables_that_change_hands_are_told_by_looks_and_else_by_code() {
        let mut processes = Processes::default();
        assert_eq!(who(&processes, 5, 0x1000), "now", "nothing is known of any process");
        let before = Box::new(life(7, 0x1000, (Some(Time(10)), Time(20))));
        let now = Life { before: Some(before), ..life(8, 0x2000, (Some(Time(40)), Time(50))) };
        processes.lives.insert(SLOT, now);
        // Between two looks that saw the same, what has the instruction mapped does not matter.
        assert_eq!(who(&processes, 15, 0x9000), "before");
        assert_eq!(who(&processes, 45, 0x9000), "now");
        for time in [5, 21, 30, 40, 51] {
            assert_eq!(who(&processes, time, 0x1000), "before");
            assert_eq!(who(&processes, time, 0x2000), "now");
            assert_eq!(who(&processes, time, 0x9000), "nobody");
        }
        // Both run the same program.
        processes.lives.get_mut(&SLOT).unwrap().before = Some(Box::new(life(7, 0x2000, (None, Time(20)))));
        assert_eq!(who(&processes, 30, 0x2000), "nobody");
    }

    #[test]
    fn the_dead_are_not_sampled() {
        let mut processes = Processes::default();
        let dead = Life { died: Some(Time(30)), ..life(7, 0x1000, (Some(Time(10)), Time(20))) };
        processes.lives.insert(SLOT, dead);
        assert_eq!(who(&processes, 15, 0x1000), "now");
        assert_eq!(who(&processes, 30, 0x1000), "now", "between its last look and the one that missed it");
        assert_eq!(who(&processes, 31, 0x1000), "nobody");
    }
}
