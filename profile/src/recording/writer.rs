//! Writing a recording.

use std::{
    collections::{HashSet, hash_map::Entry},
    hash::Hash,
    io::{self, Write},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    Chain, ChainId, Domain, DomainId, Frame, FrameId, NameId, Process, ProcessId, Sample, Snapshot, Space,
    Time,
};

use super::{
    End, Fact, Header, MAX_DEPTH, Note, RecordingError,
    chunk::{self, Kind, MAGIC},
};

/// More than this is not held back.
const BUFFERED: usize = 256 << 10;

/// Longer names are cut: they come from guests, which could make them as long as they like.
const MAX_NAME: usize = 4096;

/// Quick, and keyed at random: guests choose what is interned.
type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// Appends to a recording.
///
/// What is recorded is buffered, and goes out with [`flush`](Self::flush) or when much has gathered. Recording never
/// fails by itself: when the sink does, nothing more is written to it (a gap would make the rest unreadable), and
/// every later `flush` and [`finish`](Self::finish) says so.
///
/// Domains and processes come before what refers to them, and numbers of names, frames and chains come from this writer: no reader
/// accepts a recording that is not so, and debug builds panic.
#[derive(Debug)]
pub struct Writer<W: Write> {
    sink: W,
    failure: Option<Arc<io::Error>>,
    domains: HashSet<DomainId>,
    processes: HashSet<ProcessId>,
    names: HashMap<Box<str>, NameId>,
    frames: HashMap<Frame, FrameId>,
    chains: HashMap<Chain, ChainId>,
    /// How many frames each chain has.
    depths: Vec<u16>,
    facts: Vec<u8>,
    samples: Vec<u8>,
    snapshot: Vec<u8>,
    /// Reused to put the chunks together.
    out: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a recording: writes what identifies it.
    pub fn new(sink: W, header: &Header) -> Result<Self, RecordingError> {
        let mut writer = Self {
            sink,
            failure: None,
            domains: HashSet::new(),
            processes: HashSet::new(),
            names: HashMap::default(),
            frames: HashMap::default(),
            chains: HashMap::default(),
            depths: Vec::new(),
            facts: Vec::new(),
            samples: Vec::new(),
            snapshot: Vec::new(),
            out: MAGIC.to_vec(),
        };
        let mut payload = Vec::new();
        encode(&mut payload, header);
        writer.write(Some((Kind::Header, &payload)))?;
        Ok(writer)
    }

    /// Records a domain; a second time if more is known of it or its operator renamed it.
    pub fn domain(&mut self, domain: Domain) {
        self.domains.insert(domain.id);
        self.fact(&Fact::Domain(domain));
    }

    /// Records that a domain is no more.
    pub fn domain_gone(&mut self, domain: DomainId, at: Time) {
        self.check_domain(Some(domain));
        self.fact(&Fact::DomainGone { domain, at });
    }

    /// Records a process; a second time if more is known of it.
    pub fn process(&mut self, process: Process) {
        self.check_domain(Some(process.domain));
        self.processes.insert(process.id);
        self.fact(&Fact::Process(process));
    }

    /// Records something that whoever reads a report must be told.
    pub fn note(&mut self, note: Note) {
        self.fact(&Fact::Note(note));
    }

    /// The number of a text. One of more than 4096 bytes is cut.
    pub fn name(&mut self, name: &str) -> NameId {
        let name = &name[..name.floor_char_boundary(MAX_NAME)];
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let id = NameId(number(self.names.len()));
        self.names.insert(name.into(), id);
        self.fact(&Fact::Name(name.to_owned()));
        id
    }

    /// The number of a frame.
    pub fn frame(&mut self, frame: Frame) -> FrameId {
        match frame.space {
            Space::Hypervisor => {}
            Space::Kernel(domain) => self.check_domain(Some(domain)),
            Space::User(domain, process) => {
                self.check_domain(Some(domain));
                self.check_process(Some(process));
            }
        }
        let (id, new) = intern(&mut self.frames, frame, FrameId);
        if new {
            self.fact(&Fact::Frame(frame));
        }
        id
    }

    /// The number of a chain. A caller that has [`MAX_DEPTH`] frames is left out, so that what is cut off an endless
    /// recursion is its outer end.
    pub fn chain(&mut self, chain: Chain) -> ChainId {
        let caller = chain.caller.filter(|caller| self.depths[caller.0 as usize] < MAX_DEPTH);
        let chain = Chain { caller, ..chain };
        let (id, new) = intern(&mut self.chains, chain, ChainId);
        if new {
            self.depths.push(caller.map_or(1, |caller| self.depths[caller.0 as usize] + 1));
            self.fact(&Fact::Chain(chain));
        }
        id
    }

    /// Records a sample.
    pub fn sample(&mut self, sample: Sample) {
        self.check_domain(sample.charged_to);
        self.check_domain(sample.vcpu.map(|vcpu| vcpu.domain));
        self.check_process(sample.process);
        debug_assert!(
            (sample.chain.0 as usize) < self.depths.len(),
            "{:?} is not of this recording",
            sample.chain
        );
        encode(&mut self.samples, &sample);
        self.flush_if_much();
    }

    /// Records the books; only the last ones before a flush are kept.
    pub fn snapshot(&mut self, snapshot: Snapshot) {
        snapshot.domains.iter().for_each(|time| self.check_domain(Some(time.domain)));
        self.snapshot.clear();
        encode(&mut self.snapshot, &snapshot);
    }

    /// Writes what was recorded since the last time, as whole chunks in one piece.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        self.write(None)
    }

    /// Ends the recording and gives the sink back.
    pub fn finish(mut self, end: End) -> Result<W, RecordingError> {
        let mut payload = Vec::new();
        encode(&mut payload, &end);
        self.write(Some((Kind::End, &payload)))?;
        self.sink.flush().map_err(|error| RecordingError::Write(Arc::new(error)))?;
        Ok(self.sink)
    }

    fn check_domain(&self, domain: Option<DomainId>) {
        debug_assert!(domain.is_none_or(|id| self.domains.contains(&id)), "{domain:?} was not introduced");
    }

    fn check_process(&self, process: Option<ProcessId>) {
        debug_assert!(
            process.is_none_or(|id| self.processes.contains(&id)),
            "{process:?} was not introduced"
        );
    }

    fn fact(&mut self, fact: &Fact) {
        encode(&mut self.facts, fact);
        self.flush_if_much();
    }

    fn flush_if_much(&mut self) {
        if self.facts.len() + self.samples.len() > BUFFERED {
            // A failure is kept, and told by the next call that can fail.
            let _ = self.write(None);
        }
    }

    /// Writes what is buffered, facts before what refers to them, and then `last`.
    fn write(&mut self, last: Option<(Kind, &[u8])>) -> Result<(), RecordingError> {
        let result = match &self.failure {
            Some(failure) => Err(Arc::clone(failure)),
            None => self.try_write(last).map_err(Arc::new),
        };
        for buffer in [&mut self.facts, &mut self.samples, &mut self.snapshot, &mut self.out] {
            buffer.clear();
        }
        result.map_err(|failure| {
            self.failure = Some(Arc::clone(&failure));
            RecordingError::Write(failure)
        })
    }

    fn try_write(&mut self, last: Option<(Kind, &[u8])>) -> io::Result<()> {
        let buffered =
            [(Kind::Facts, &*self.facts), (Kind::Samples, &*self.samples), (Kind::Snapshot, &*self.snapshot)];
        for (kind, payload) in buffered.into_iter().filter(|(_, payload)| !payload.is_empty()).chain(last) {
            chunk::append(&mut self.out, kind, payload)?;
        }
        self.sink.write_all(&self.out)
    }
}

/// The number of a value, and whether it is new.
fn intern<T: Eq + Hash, I: Copy>(known: &mut HashMap<T, I>, value: T, id: fn(u32) -> I) -> (I, bool) {
    let next = number(known.len());
    match known.entry(value) {
        Entry::Occupied(entry) => (*entry.get(), false),
        Entry::Vacant(entry) => (*entry.insert(id(next)), true),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("memory ends before four thousand million things are interned")
}

fn encode(buffer: &mut Vec<u8>, value: &impl Serialize) {
    postcard::to_io(value, buffer).expect("sequences have lengths and memory does not fail");
}
