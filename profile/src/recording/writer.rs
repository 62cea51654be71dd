//! Writing a recording.

use std::{
    collections::BTreeMap,
    hash::Hash,
    io::{self, Write},
    mem,
    sync::Arc,
};

use indexmap::{IndexMap, map};
use serde::Serialize;

use crate::{
    Chain, ChainId, Domain, DomainId, ExitCost, Frame, FrameId, KeptStacks, NameId, Process, ProcessId,
    Sample, Snapshot, Space, Time, VcpuTimes,
};

use super::{
    End, Exits, Fact, Header, Lane, MAX_DEPTH, Mark, Move, Note, Place, PlaceId, RecordingError,
    chunk::{self, Kind, Packer},
    columns, entries, exits,
    kept::Kept,
    samples,
};

/// More samples, rows of a table or bytes than this are not held back.
const BUFFERED: usize = 1 << 16;

/// Nor more bytes of stacks.
const BUFFERED_STACKS: usize = 4 << 20;

/// Longer names are cut: they come from guests, which could make them as long as they like.
const MAX_NAME: usize = 4096;

/// Appends to a recording.
///
/// What is recorded is buffered, and goes out with [`flush`](Self::flush) or when much has gathered. Recording never
/// fails by itself: when the sink does, nothing more is written to it (a gap would make the rest unreadable), and
/// every later `flush` and [`finish`](Self::finish) says so.
///
/// Domains and processes come before what refers to them, and numbers of names, frames and chains come from this writer: no reader
/// accepts a recording that is not so, and debug builds panic. What no sample refers to is not written; so a recording that
/// goes on in another file ([`continue_in`](Self::continue_in)) takes along only what it needs there, and the numbers that this
/// writer gives out are not those in the file.
#[derive(Debug)]
pub struct Writer<W: Write> {
    sink: W,
    written: u64,
    failure: Option<Arc<io::Error>>,
    header: Header,
    domains: BTreeMap<DomainId, (Domain, Option<Time>)>,
    processes: BTreeMap<ProcessId, Known<Process>>,
    names: Numbered<Box<str>>,
    frames: Numbered<Frame>,
    chains: Numbered<Chain>,
    places: Numbered<Place>,
    lanes: Numbered<Lane>,
    /// How many frames each chain has.
    depths: Vec<u16>,
    facts: Vec<u8>,
    entries: entries::Encoder,
    samples: samples::Encoder,
    exits: exits::Encoder,
    stacks: Vec<u8>,
    books: Kept<Snapshot>,
    vcpu_times: Kept<VcpuTimes>,
    packer: Packer,
    /// Reused to put the chunks together.
    payload: Vec<u8>,
    out: Vec<u8>,
}

/// Something with its number, and whether this file has it.
#[derive(Debug)]
struct Known<T> {
    value: T,
    is_written: bool,
}

/// Things with the numbers that the caller knows them by, and those that they have in this file.
#[derive(Debug)]
struct Numbered<T> {
    /// Quick, and keyed at random: guests choose what is interned.
    all: IndexMap<T, Option<u32>, ahash::RandomState>,
    written: u32,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { all: IndexMap::default(), written: 0 }
    }
}

impl<T: Eq + Hash> Numbered<T> {
    /// The number of a value, and whether it is new.
    fn intern(&mut self, value: T) -> (u32, bool) {
        let next = number(self.all.len());
        match self.all.entry(value) {
            map::Entry::Occupied(entry) => (entry.index() as u32, false),
            map::Entry::Vacant(entry) => {
                entry.insert(None);
                (next, true)
            }
        }
    }

    fn get(&self, index: u32) -> (&T, Option<u32>) {
        let (value, in_file) = self.all.get_index(index as usize).expect("numbers come from this writer");
        (value, *in_file)
    }

    /// Gives a value the next number in this file.
    fn set_written(&mut self, index: u32) -> u32 {
        let in_file = self.written;
        self.all[index as usize] = Some(in_file);
        self.written += 1;
        in_file
    }

    fn forget_written(&mut self) {
        self.all.values_mut().for_each(|in_file| *in_file = None);
        self.written = 0;
    }
}

impl<W: Write> Writer<W> {
    /// Starts a recording: writes what identifies it.
    pub fn new(sink: W, header: &Header) -> Result<Self, RecordingError> {
        let packer = Packer::new().map_err(|error| RecordingError::Write(Arc::new(error)))?;
        let mut writer = Self {
            sink,
            written: 0,
            failure: None,
            header: header.clone(),
            domains: BTreeMap::new(),
            processes: BTreeMap::new(),
            names: Numbered::default(),
            frames: Numbered::default(),
            chains: Numbered::default(),
            places: Numbered::default(),
            lanes: Numbered::default(),
            depths: Vec::new(),
            facts: Vec::new(),
            entries: entries::Encoder::default(),
            samples: samples::Encoder::default(),
            exits: exits::Encoder::default(),
            stacks: Vec::new(),
            books: Kept::new(),
            vcpu_times: Kept::new(),
            packer,
            payload: Vec::new(),
            out: Vec::new(),
        };
        writer.begin()?;
        Ok(writer)
    }

    /// Records a domain; a second time if more is known of it or its operator renamed it.
    pub fn domain(&mut self, domain: Domain) {
        self.domains.insert(domain.id, (domain.clone(), None));
        self.fact(&Fact::Domain(domain));
    }

    /// Records that a domain is no more.
    pub fn domain_gone(&mut self, domain: DomainId, at: Time) {
        self.check_domain(Some(domain));
        if let Some((_, gone)) = self.domains.get_mut(&domain) {
            *gone = Some(at);
        }
        self.fact(&Fact::DomainGone { domain, at });
    }

    /// Records that a guest goes on as another domain, which is introduced next.
    pub fn domain_moved(&mut self, moved: Move) {
        self.fact(&Fact::DomainMoved(moved));
    }

    /// Records a process; a second time if more is known of it.
    pub fn process(&mut self, process: Process) {
        self.check_domain(Some(process.domain));
        let is_written = self.processes.get(&process.id).is_some_and(|known| known.is_written);
        if is_written {
            self.fact(&Fact::Process(process.clone()));
        }
        self.processes.insert(process.id, Known { value: process, is_written });
    }

    /// Records something that whoever reads a report must be told.
    pub fn note(&mut self, note: Note) {
        self.fact(&Fact::Note(note));
    }

    /// Records a moment that the user named.
    pub fn mark(&mut self, mark: Mark) {
        self.fact(&Fact::Mark(mark));
    }

    /// Notes that samples taken from a time on wait for their names.
    pub fn samples_wait(&mut self, since: Time) {
        self.fact(&Fact::SamplesWait { since });
    }

    /// The number of a text. One of more than 4096 bytes is cut.
    pub fn name(&mut self, name: &str) -> NameId {
        let name = &name[..name.floor_char_boundary(MAX_NAME)];
        match self.names.all.get_index_of(name) {
            Some(index) => NameId(index as u32),
            None => NameId(self.names.intern(name.into()).0),
        }
    }

    /// The text of a number.
    pub fn text(&self, NameId(index): NameId) -> &str {
        self.names.get(index).0
    }

    /// The number of a frame.
    pub fn frame(&mut self, frame: Frame) -> FrameId {
        self.check_space(frame.space);
        FrameId(self.frames.intern(frame).0)
    }

    /// The number of a chain. A caller that has [`MAX_DEPTH`] frames is left out, so that what is cut off an endless
    /// recursion is its outer end.
    pub fn chain(&mut self, chain: Chain) -> ChainId {
        let caller = chain.caller.filter(|caller| self.depths[caller.0 as usize] < MAX_DEPTH);
        let (id, new) = self.chains.intern(Chain { caller, ..chain });
        if new {
            self.depths.push(caller.map_or(1, |caller| self.depths[caller.0 as usize] + 1));
        }
        ChainId(id)
    }

    /// Records a sample.
    pub fn sample(&mut self, sample: Sample) {
        self.check_domain(sample.charged_to);
        self.check_process(sample.process);
        debug_assert!(
            sample.vcpu.is_none_or(|vcpu| sample.charged_to == Some(vcpu.domain)),
            "the vCPU that was current is that of the domain that is charged"
        );
        let Sample { charged_to, process, mode, chain, cpu, event, .. } = sample;
        let lane = Lane { cpu, event };
        let index = self.lanes.intern(lane).0;
        let lane = self.lanes.get(index).1.unwrap_or_else(|| {
            self.entries.lane(lane);
            self.samples.lane(lane, &self.header.events);
            self.lanes.set_written(index)
        });
        let place = self.place(Place { charged_to, process, mode, chain });
        self.samples.sample(&sample, lane, place);
        self.flush_if_much();
    }

    /// Records what VM exits of a place cost since they were recorded the last time.
    pub fn exits(&mut self, time: Time, place: Place, reason: NameId, cost: ExitCost) {
        self.check_domain(place.charged_to);
        self.check_process(place.process);
        let (place, reason) = (PlaceId(self.place(place)), self.write_name(reason));
        self.exits.exits(Exits { time, place, reason, cost });
        self.flush_if_much();
    }

    /// Records what was copied with a sample.
    pub fn stacks(&mut self, kept: &KeptStacks) {
        for &(space, _) in &kept.stretches {
            self.check_space(space);
            if let Space::User(_, process) = space {
                self.write_process(process);
            }
        }
        append_sized(&mut self.stacks, kept);
        self.flush_if_much();
    }

    /// Records the books, which are since the start of the recording; only the last ones before a flush are kept.
    /// Domains that were gone before this file began are left out.
    pub fn snapshot(&mut self, mut snapshot: Snapshot) {
        snapshot.domains.retain(|time| self.domains.contains_key(&time.domain));
        self.books.set(snapshot);
    }

    /// Records what vCPUs did with their time since the start of the recording; only the last before a flush is kept.
    /// Domains that were gone before this file began are left out.
    pub fn vcpu_times(&mut self, mut times: VcpuTimes) {
        times.vcpus.retain(|time| self.domains.contains_key(&time.vcpu.domain));
        self.vcpu_times.set(times);
    }

    /// Writes what was recorded since the last time, as whole chunks in one piece.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        self.write(None)
    }

    /// Where this file goes.
    pub fn sink(&self) -> &W {
        &self.sink
    }

    /// See [`sink`](Self::sink); to write to it would damage the recording.
    pub fn sink_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    /// How many bytes this file has.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Ends this file at `end`, gives it back, and goes on in another one, whose header says `unix_ns` for the same
    /// moment. The books of the new file begin at the last ones of the old.
    pub fn continue_in(&mut self, sink: W, end: Time, unix_ns: u64) -> Result<W, RecordingError> {
        self.write_end(&End { time: end, reason: super::EndReason::Continued })?;
        let old = mem::replace(&mut self.sink, sink);
        self.written = 0;
        self.header.started = end;
        self.header.started_unix_ns = unix_ns;
        self.books.begin_file();
        self.vcpu_times.begin_file();
        (self.entries, self.samples, self.exits) = Default::default();
        self.names.forget_written();
        self.frames.forget_written();
        self.chains.forget_written();
        self.places.forget_written();
        self.lanes.forget_written();
        self.processes.values_mut().for_each(|process| process.is_written = false);
        self.domains.retain(|_, (_, gone)| gone.is_none());
        let domains: Vec<Domain> = self.domains.values().map(|(domain, _)| domain.clone()).collect();
        domains.into_iter().for_each(|domain| self.fact(&Fact::Domain(domain)));
        self.begin()?;
        Ok(old)
    }

    /// Ends the recording and gives the sink back.
    pub fn finish(mut self, end: End) -> Result<W, RecordingError> {
        self.write_end(&end)?;
        Ok(self.sink)
    }

    fn begin(&mut self) -> Result<(), RecordingError> {
        self.out = chunk::magic();
        let header = encode(&self.header);
        self.write(Some((Kind::Header, &header)))
    }

    fn write_end(&mut self, end: &End) -> Result<(), RecordingError> {
        self.write(None)?;
        self.write(Some((Kind::End, &encode(end))))?;
        self.sink.flush().map_err(|error| RecordingError::Write(Arc::new(error)))
    }

    /// The number of a place in this file.
    fn place(&mut self, place: Place) -> u32 {
        let index = self.places.intern(place).0;
        match self.places.get(index).1 {
            Some(place) => place,
            None => self.write_place(index),
        }
    }

    /// Introduces a place, and before it what it refers to.
    fn write_place(&mut self, index: u32) -> u32 {
        let place = *self.places.get(index).0;
        let chain = self.write_chain(place.chain);
        if let Some(process) = place.process {
            self.write_process(process);
        }
        self.entries.place(Place { chain, ..place });
        self.places.set_written(index)
    }

    fn write_chain(&mut self, ChainId(innermost): ChainId) -> ChainId {
        let mut unwritten = Vec::new();
        let mut next = Some(innermost);
        let mut caller = None;
        while let Some(index) = next {
            let (chain, in_file) = self.chains.get(index);
            if in_file.is_some() {
                caller = in_file;
                break;
            }
            unwritten.push((index, *chain));
            next = chain.caller.map(|caller| caller.0);
        }
        for (index, chain) in unwritten.into_iter().rev() {
            let frame = self.write_frame(chain.frame);
            self.entries.chain(Chain { caller: caller.map(ChainId), frame });
            caller = Some(self.chains.set_written(index));
        }
        ChainId(caller.expect("a chain has at least one link"))
    }

    fn write_frame(&mut self, FrameId(index): FrameId) -> FrameId {
        let (&frame, in_file) = self.frames.get(index);
        FrameId(in_file.unwrap_or_else(|| {
            let function = frame.function.map(|name| self.write_name(name));
            let module = frame.module.map(|name| self.write_name(name));
            if let Space::User(_, process) = frame.space {
                self.write_process(process);
            }
            let origin = frame.origin.named(|name| self.write_name(name));
            self.entries.frame(Frame { function, module, origin, ..frame });
            self.frames.set_written(index)
        }))
    }

    fn write_name(&mut self, NameId(index): NameId) -> NameId {
        let (name, in_file) = self.names.get(index);
        if let Some(in_file) = in_file {
            return NameId(in_file);
        }
        self.entries.name(name);
        NameId(self.names.set_written(index))
    }

    fn write_process(&mut self, id: ProcessId) {
        if let Some(known) = self.processes.get_mut(&id).filter(|known| !known.is_written) {
            known.is_written = true;
            append_sized(&mut self.facts, &Fact::Process(known.value.clone()));
        }
    }

    fn check_domain(&self, domain: Option<DomainId>) {
        debug_assert!(
            domain.is_none_or(|id| self.domains.contains_key(&id)),
            "{domain:?} was not introduced"
        );
    }

    fn check_space(&self, space: Space) {
        match space {
            Space::Hypervisor => {}
            Space::Kernel(domain) => self.check_domain(Some(domain)),
            Space::User(domain, process) => {
                self.check_domain(Some(domain));
                self.check_process(Some(process));
            }
        }
    }

    fn check_process(&self, process: Option<ProcessId>) {
        debug_assert!(
            process.is_none_or(|id| self.processes.contains_key(&id)),
            "{process:?} was not introduced"
        );
    }

    fn fact(&mut self, fact: &Fact) {
        append_sized(&mut self.facts, fact);
        self.flush_if_much();
    }

    fn flush_if_much(&mut self) {
        let rows = self.samples.rows().max(self.exits.rows());
        let much = self.facts.len().max(rows).max(self.entries.size()) >= BUFFERED;
        if much || self.stacks.len() >= BUFFERED_STACKS {
            // A failure is kept, and told by the next call that can fail.
            let _ = self.write(None);
        }
    }

    /// Writes `first`, or what is buffered: facts and entries before what refers to them.
    fn write(&mut self, first: Option<(Kind, &[u8])>) -> Result<(), RecordingError> {
        let result = match &self.failure {
            Some(failure) => Err(Arc::clone(failure)),
            None => self.try_write(first).map_err(Arc::new),
        };
        if result.is_err() {
            self.facts.clear();
            self.payload.clear();
            self.entries.drain_into(&mut self.payload);
            self.samples.drain_into(&mut self.payload);
            self.exits.drain_into(&mut self.payload);
            self.stacks.clear();
        }
        self.out.clear();
        result.map_err(|failure| {
            self.failure = Some(Arc::clone(&failure));
            RecordingError::Write(failure)
        })
    }

    fn try_write(&mut self, alone: Option<(Kind, &[u8])>) -> io::Result<()> {
        let (packer, out) = (&mut self.packer, &mut self.out);
        if let Some((kind, payload)) = alone {
            packer.append(out, kind, payload)?;
        } else {
            let mut append = |kind, payload: &mut Vec<u8>| {
                let result = if payload.is_empty() { Ok(()) } else { packer.append(out, kind, payload) };
                payload.clear();
                result
            };
            append(Kind::Facts, &mut self.facts)?;
            self.payload.clear();
            self.entries.drain_into(&mut self.payload);
            append(Kind::Entries, &mut self.payload)?;
            self.samples.drain_into(&mut self.payload);
            append(Kind::Samples, &mut self.payload)?;
            self.exits.drain_into(&mut self.payload);
            append(Kind::Exits, &mut self.payload)?;
            append(Kind::Stacks, &mut self.stacks)?;
            if let Some(books) = self.books.take() {
                append(Kind::Snapshot, &mut encode(&books))?;
            }
            if let Some(times) = self.vcpu_times.take() {
                append(Kind::VcpuTimes, &mut encode(&times))?;
            }
        }
        self.sink.write_all(&self.out)?;
        self.written += self.out.len() as u64;
        Ok(())
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("memory ends before four thousand million things are interned")
}

fn append_sized(list: &mut Vec<u8>, value: &impl Serialize) {
    let encoded = encode(value);
    columns::append_number(list, encoded.len() as u64);
    list.extend(encoded);
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("sequences have lengths and memory does not fail")
}
