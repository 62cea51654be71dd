//! Copying recordings into a new one: several together, parts of one, or one with names taken out.

use std::{
    collections::HashMap,
    io::{Read, Write},
};

use crate::{
    Chain, ChainId, CodeAddress, Domain, DomainId, DomainTime, Frame, FrameId, ImageOffset, NameId, Origin,
    PhysCpu, Process, ProcessId, Sample, Snapshot, SourceLine, Space, Time, Uuid, VcpuId, VcpuTime,
    VcpuTimes,
};

use super::{
    End, Exits, Mark, Move, Note, Place, Recorded, Recording, RecordingError, Tables, Writer, reader::Rows,
};

/// A function whose code a compiler put at an address, and the line of it that the address is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFrame {
    /// The function, demangled: untrusted text.
    pub function: Option<String>,
    /// The file: untrusted text.
    pub file: Option<String>,
    /// From 1; 0 where no line is told.
    pub line: u32,
}

/// Knows what code was made from.
pub trait SourceCode {
    /// What is at an address that a file of this build id (hexadecimal digits) was linked to: the inlined functions,
    /// innermost first, and last the function that they were put into; nothing where nobody knows.
    fn frames(&self, build_id: &str, address: u64) -> Vec<SourceFrame>;
}

/// What of a recording is copied, and how.
#[derive(Clone, Copy, Default)]
pub struct Selection<'a> {
    /// The stretches of time, by the recording's own clock, first included, last not; all of it if there are none.
    pub stretches: &'a [(Time, Time)],
    /// Which domains' samples; everybody's, and the hypervisor's own, without it.
    pub domains: Option<&'a dyn Fn(&Domain) -> bool>,
    /// Whose processes and functions lose their names.
    pub redacted: Option<&'a dyn Fn(&Domain) -> bool>,
    /// What is known of the source of what was sampled.
    pub source: Option<&'a dyn SourceCode>,
}

/// Copies recordings into one.
///
/// What is the same in several becomes one: domains by UUID, name and number, processes by all that is known of them.
#[derive(Debug)]
pub struct Copier<W: Write> {
    writer: Writer<W>,
    domains: HashMap<DomainKey, DomainId>,
    processes: HashMap<Process, ProcessId>,
    /// One more than the last number of a CPU's samples.
    next: HashMap<PhysCpu, u64>,
    /// Names that were taken out, and what stands for them.
    pseudonyms: HashMap<(&'static str, String), String>,
    books: Option<Snapshot>,
    vcpu_times: Option<VcpuTimes>,
}

/// What tells one life of a domain from others.
type DomainKey = (u32, String, Option<Uuid>, Time);

impl<W: Write> Copier<W> {
    /// Copies into what this writer writes.
    pub fn new(writer: Writer<W>) -> Self {
        Self {
            writer,
            domains: HashMap::new(),
            processes: HashMap::new(),
            next: HashMap::new(),
            pseudonyms: HashMap::new(),
            books: None,
            vcpu_times: None,
        }
    }

    /// Copies what is selected of a recording, `shift` nanoseconds later (modulo 2^64). Its books are left to the caller.
    pub fn copy<R: Read>(
        &mut self,
        recording: Recording<R>,
        selection: &Selection<'_>,
        shift: u64,
    ) -> Result<Recorded, RecordingError> {
        let mut copy = Copy {
            copier: self,
            selection,
            shift,
            domains: HashMap::new(),
            processes: HashMap::new(),
            names: HashMap::new(),
            frames: HashMap::new(),
            chains: HashMap::new(),
            sequences: HashMap::new(),
        };
        let recorded = recording.for_all(|told, tables| match told {
            Rows::Samples(samples) => samples.iter(tables).for_each(|sample| copy.sample(&sample, tables)),
            Rows::Exits(exits) => exits.iter().for_each(|exits| copy.exits(exits, tables)),
        })?;
        copy.rest(&recorded);
        Ok(recorded)
    }

    /// Adds a remark.
    pub fn note(&mut self, note: Note) {
        self.writer.note(note);
    }

    /// Adds the books of a recording that was copied `shift` later to those of the copy.
    pub fn add_books(&mut self, recorded: &Recorded, shift: u64) {
        let Some(snapshot) = &recorded.snapshot else { return };
        let books = self.books.get_or_insert_with(|| Snapshot {
            time: snapshot.time,
            unix_ns: snapshot.unix_ns,
            cpus: Vec::new(),
            idle_ns: 0,
            domains: Vec::new(),
        });
        books.time = books.time.max(later(snapshot.time, shift));
        books.unix_ns = books.unix_ns.max(snapshot.unix_ns);
        books.idle_ns = books.idle_ns.saturating_add(snapshot.idle_ns);
        for (cpu, account) in &snapshot.cpus {
            match books.cpus.iter_mut().find(|(known, _)| known == cpu) {
                Some((_, sum)) => sum.add(account),
                None => books.cpus.push((*cpu, account.clone())),
            }
        }
        for time in &snapshot.domains {
            let domain = recorded.tables.domain(time.domain);
            let Some(&domain) = self.domains.get(&key(domain, shift)) else { continue };
            match books.domains.iter_mut().find(|known| known.domain == domain) {
                Some(sum) => sum.cpu_ns = sum.cpu_ns.saturating_add(time.cpu_ns),
                None => books.domains.push(DomainTime { domain, cpu_ns: time.cpu_ns }),
            }
        }
        self.add_vcpu_times(recorded, shift);
    }

    fn add_vcpu_times(&mut self, recorded: &Recorded, shift: u64) {
        let Some(times) = &recorded.vcpu_times else { return };
        let until = later(times.time, shift);
        let sums = self.vcpu_times.get_or_insert_with(|| VcpuTimes { time: until, vcpus: Vec::new() });
        sums.time = sums.time.max(until);
        for time in &times.vcpus {
            let domain = recorded.tables.domain(time.vcpu.domain);
            let Some(&domain) = self.domains.get(&key(domain, shift)) else { continue };
            let vcpu = VcpuId { domain, ..time.vcpu };
            match sums.vcpus.iter_mut().find(|known| known.vcpu == vcpu) {
                Some(sum) => sum.add(time),
                None => sums.vcpus.push(VcpuTime { vcpu, ..*time }),
            }
        }
    }

    /// What stands for a name: the same for the same.
    fn pseudonym(&mut self, what: &'static str, name: &str) -> String {
        let next = self.pseudonyms.len() + 1;
        self.pseudonyms.entry((what, name.to_owned())).or_insert_with(|| format!("{what} {next}")).clone()
    }

    /// Ends the copy.
    pub fn finish(mut self, end: End) -> Result<W, RecordingError> {
        if let Some(books) = self.books {
            self.writer.snapshot(books);
        }
        if let Some(times) = self.vcpu_times {
            self.writer.vcpu_times(times);
        }
        self.writer.finish(end)
    }
}

fn key(domain: &Domain, shift: u64) -> DomainKey {
    (domain.number, domain.name.clone(), domain.uuid, later(domain.from, shift))
}

fn later(time: Time, shift: u64) -> Time {
    Time(time.0.wrapping_add(shift))
}

/// The copying of one recording: what its numbers have become.
struct Copy<'a, W: Write> {
    copier: &'a mut Copier<W>,
    selection: &'a Selection<'a>,
    shift: u64,
    domains: HashMap<DomainId, DomainId>,
    processes: HashMap<ProcessId, ProcessId>,
    names: HashMap<NameId, NameId>,
    /// Outermost first: more than one where functions were inlined.
    frames: HashMap<FrameId, Box<[FrameId]>>,
    chains: HashMap<ChainId, ChainId>,
    /// What is added to the numbers of a CPU's samples, so that they follow those of the recording before.
    sequences: HashMap<PhysCpu, u64>,
}

impl<W: Write> Copy<'_, W> {
    fn sample(&mut self, sample: &Sample, tables: &Tables) {
        if !self.is_wanted(sample.time) || !self.is_wanted_domain(sample.charged_to, tables) {
            return;
        }
        let next = self.copier.next.entry(sample.cpu).or_default();
        let shift = *self.sequences.entry(sample.cpu).or_insert(next.wrapping_sub(sample.sequence));
        let sequence = sample.sequence.wrapping_add(shift);
        *next = sequence.wrapping_add(1).max(*next);
        let charged_to = sample.charged_to.map(|id| self.domain(id, tables));
        let process = sample.process.map(|id| self.process(id, tables));
        let chain = self.chain(sample.chain, tables);
        let vcpu = charged_to.zip(sample.vcpu).map(|(domain, vcpu)| VcpuId { domain, ..vcpu });
        let time = later(sample.time, self.shift);
        self.copier.writer.sample(Sample {
            time,
            vcpu,
            charged_to,
            process,
            sequence,
            chain,
            ..sample.clone()
        });
    }

    fn exits(&mut self, exits: &Exits, tables: &Tables) {
        let place = tables.place(exits.place);
        if !self.is_wanted(exits.time) || !self.is_wanted_domain(place.charged_to, tables) {
            return;
        }
        let place = Place {
            charged_to: place.charged_to.map(|id| self.domain(id, tables)),
            process: place.process.map(|id| self.process(id, tables)),
            mode: place.mode,
            chain: self.chain(place.chain, tables),
        };
        let reason = self.name(exits.reason, tables);
        self.copier.writer.exits(later(exits.time, self.shift), place, reason, exits.cost);
    }

    fn is_wanted(&self, time: Time) -> bool {
        let stretches = self.selection.stretches;
        stretches.is_empty() || stretches.iter().any(|&(from, to)| from <= time && time < to)
    }

    fn is_wanted_domain(&self, id: Option<DomainId>, tables: &Tables) -> bool {
        self.selection.domains.is_none_or(|wanted| id.is_some_and(|id| wanted(tables.domain(id))))
    }

    fn domain(&mut self, id: DomainId, tables: &Tables) -> DomainId {
        if let Some(&known) = self.domains.get(&id) {
            return known;
        }
        let domain = tables.domain(id);
        let copier = &mut *self.copier;
        let next = DomainId(copier.domains.len() as u32);
        let new = *copier.domains.entry(key(domain, self.shift)).or_insert(next);
        copier.writer.domain(Domain { id: new, from: later(domain.from, self.shift), ..domain.clone() });
        self.domains.insert(id, new);
        new
    }

    fn process(&mut self, id: ProcessId, tables: &Tables) -> ProcessId {
        if let Some(&known) = self.processes.get(&id) {
            return known;
        }
        let process = tables.process(id);
        let domain = self.domain(process.domain, tables);
        let mut process = Process { domain, from: later(process.from, self.shift), ..process.clone() };
        if self.is_redacted(tables.process(id).domain, tables) {
            process.name = process.name.map(|name| self.copier.pseudonym("process", &name));
            process.container = process.container.map(|name| self.copier.pseudonym("container", &name));
        }
        let copier = &mut *self.copier;
        let next = ProcessId(copier.processes.len() as u32);
        // By all that is known but the number that it has there.
        process.id = ProcessId(0);
        let new = *copier.processes.entry(process.clone()).or_insert(next);
        copier.writer.process(Process { id: new, ..process });
        self.processes.insert(id, new);
        new
    }

    fn is_redacted(&self, domain: DomainId, tables: &Tables) -> bool {
        self.selection.redacted.is_some_and(|redacted| redacted(tables.domain(domain)))
    }

    fn chain(&mut self, innermost: ChainId, tables: &Tables) -> ChainId {
        let mut new = Vec::new();
        let mut next = Some(innermost);
        let mut caller = None;
        while let Some(id) = next {
            if let Some(&known) = self.chains.get(&id) {
                caller = Some(known);
                break;
            }
            let link = tables.chain(id);
            new.push((id, link.frame));
            next = link.caller;
        }
        for (id, frame) in new.into_iter().rev() {
            if !self.frames.contains_key(&frame) {
                let frames = self.frames_of(tables.frame(frame), tables);
                self.frames.insert(frame, frames);
            }
            for &frame in &self.frames[&frame] {
                caller = Some(self.copier.writer.chain(Chain { caller, frame }));
            }
            self.chains.insert(id, caller.expect("a frame stays one at least"));
        }
        caller.expect("a chain has at least one link")
    }

    fn frames_of(&mut self, frame: &Frame, tables: &Tables) -> Box<[FrameId]> {
        let mut frame = self.copy_of(frame, tables);
        let Origin { linked, line, inlined } = frame.origin;
        // A copy may be copied again.
        let linked = linked.filter(|_| line.is_none() && !inlined);
        let source = self.selection.source.zip(linked).map_or_else(Vec::new, |(source, linked)| {
            source.frames(self.copier.writer.text(linked.build_id), linked.address)
        });
        let mut frames = Vec::with_capacity(source.len().max(1));
        for (inside, SourceFrame { function, file, line }) in source.into_iter().rev().enumerate() {
            let writer = &mut self.copier.writer;
            if inside > 0 {
                frame.function = function.map(|name| writer.name(&name)).or(frame.function);
                frame.origin.inlined = true;
            }
            frame.origin.line = file.map(|file| SourceLine { file: writer.name(&file), line });
            frames.push(writer.frame(frame));
            // What has no function's name can't be told from what it was inlined into.
            if frame.function.is_none() {
                break;
            }
        }
        if frames.is_empty() {
            frames.push(self.copier.writer.frame(frame));
        }
        frames.into()
    }

    fn copy_of(&mut self, frame: &Frame, tables: &Tables) -> Frame {
        let (space, owner) = match frame.space {
            Space::Hypervisor => (Space::Hypervisor, None),
            Space::Kernel(domain) => (Space::Kernel(self.domain(domain, tables)), Some(domain)),
            Space::User(domain, process) => {
                let own = Space::User(self.domain(domain, tables), self.process(process, tables));
                (own, Some(domain))
            }
        };
        if owner.is_some_and(|owner| self.is_redacted(owner, tables)) {
            let mut stand_in = |what, id: Option<NameId>| {
                let name = id.map(|id| self.copier.pseudonym(what, tables.name(id)));
                name.map(|name| self.copier.writer.name(&name))
            };
            // Where code lies tells what it is.
            let address = match frame.address {
                CodeAddress::InstructionPointer(_) => CodeAddress::InstructionPointer(0),
                CodeAddress::ReturnAddress(_) => CodeAddress::ReturnAddress(0),
            };
            let function = stand_in("function", frame.function);
            let module = stand_in("module", frame.module);
            let origin = Origin { inlined: frame.origin.inlined, ..Origin::default() };
            Frame { space, address, function, module, offset: ImageOffset(0), origin }
        } else {
            let function = frame.function.map(|name| self.name(name, tables));
            let module = frame.module.map(|name| self.name(name, tables));
            let origin = frame.origin.named(|name| self.name(name, tables));
            Frame { space, function, module, origin, ..*frame }
        }
    }

    fn name(&mut self, id: NameId, tables: &Tables) -> NameId {
        *self.names.entry(id).or_insert_with(|| self.copier.writer.name(tables.name(id)))
    }

    /// Copies what no sample refers to: idle domains, ends, remarks and marks.
    fn rest(&mut self, recorded: &Recorded) {
        let tables = &recorded.tables;
        for domain in tables.domains() {
            if self.is_wanted_domain(Some(domain.id), tables) {
                let id = self.domain(domain.id, tables);
                if let Some(gone) = tables.gone(domain.id) {
                    self.copier.writer.domain_gone(id, later(gone, self.shift));
                }
            }
        }
        for moved in tables.moves() {
            if self.is_wanted_domain(Some(moved.to), tables) {
                // What it was before may be in an earlier file; its handle then means nothing.
                let known = tables.domains().any(|domain| domain.id == moved.from);
                let to = self.domain(moved.to, tables);
                let from = if known { self.domain(moved.from, tables) } else { to };
                let (left, arrived) = (later(moved.left, self.shift), later(moved.arrived, self.shift));
                self.copier.writer.domain_moved(Move { from, to, left, arrived, ..*moved });
            }
        }
        for note in &recorded.notes {
            self.copier.writer.note(Note { time: later(note.time, self.shift), text: note.text.clone() });
        }
        for mark in &recorded.marks {
            if self.is_wanted(mark.time) {
                let (time, name) = (later(mark.time, self.shift), mark.name.clone());
                self.copier.writer.mark(Mark { time, name });
            }
        }
    }
}
