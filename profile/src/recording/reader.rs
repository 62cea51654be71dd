//! Reading a recording.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use serde::Deserialize;

use crate::{ExitCost, KeptStacks, NameId, Sample, Snapshot, Time, VcpuTimes};

use super::{
    Damage, End, Entry, Exits, Fact, Header, Mark, Note, PlaceId, RecordingError, Samples, Tables,
    chunk::{ChunkReader, Kind, Next},
    columns, entries, exits, samples,
};

/// A recording whose header has been read, and whose samples wait to be.
#[derive(Debug)]
pub struct Recording<R> {
    header: Header,
    chunks: ChunkReader<R>,
    entries: entries::Decoder,
    samples: samples::Decoder,
    exits: exits::Decoder,
}

impl Recording<BufReader<File>> {
    /// Opens a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let name = path.as_ref().display().to_string();
        match File::open(path) {
            Ok(file) => Self::named(BufReader::new(file), name),
            Err(source) => Err(RecordingError::Open { file: name, source }),
        }
    }
}

impl<R: Read> Recording<R> {
    /// Reads from something that is not a named file.
    pub fn read(input: R) -> Result<Self, RecordingError> {
        Self::named(input, "the recording".to_owned())
    }

    fn named(input: R, name: String) -> Result<Self, RecordingError> {
        let mut chunks = ChunkReader::new(input, name)?;
        match chunks.next()? {
            Next::Chunk(Kind::Header) => {}
            Next::Chunk(_) => return Err(chunks.damaged(Damage::MisplacedHeader)),
            Next::EndOfFile | Next::Torn => return Err(chunks.no_header()),
            Next::Damaged(damage) => return Err(chunks.damaged(damage)),
        }
        let header = decode("the header", chunks.payload()).map_err(|damage| chunks.damaged(damage))?;
        let (entries, samples, exits) = Default::default();
        Ok(Self { header, chunks, entries, samples, exits })
    }

    /// How the recording was made.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads what the recording tells next; after [`Told::End`], [`Told::Cut`] and [`Told::Damage`] nothing follows.
    ///
    /// Nothing of it is checked against what was told before: [`Recorded::take`] does that. Where the input waits for
    /// what is still being written, so does this.
    pub fn read_next(&mut self) -> Result<Told, RecordingError> {
        let told = match self.chunks.next()? {
            Next::Chunk(kind) => self.decode(kind),
            Next::EndOfFile | Next::Torn => Ok(Told::Cut { at_byte: self.chunks.at() }),
            Next::Damaged(damage) => Err(damage),
        };
        Ok(told.unwrap_or_else(|damage| Told::Damage { at_byte: self.chunks.at(), damage }))
    }

    fn decode(&mut self, kind: Kind) -> Result<Told, Damage> {
        let payload = self.chunks.payload();
        Ok(match kind {
            Kind::Header => return Err(Damage::MisplacedHeader),
            Kind::Facts => Told::Facts(decode_facts(payload)?),
            Kind::Entries => {
                let entries = self.entries.take(payload)?;
                for entry in &entries {
                    if let Entry::Lane(lane) = entry {
                        self.samples.lane(*lane, &self.header.events);
                    }
                }
                Told::Entries(entries)
            }
            Kind::Samples => Told::Samples(self.samples.take(payload)?),
            Kind::Stacks => Told::Stacks(decode_stacks(payload)?),
            Kind::Snapshot => Told::Snapshot(decode("a snapshot", payload)?),
            Kind::VcpuTimes => Told::VcpuTimes(decode("the vCPUs' times", payload)?),
            Kind::Exits => Told::Exits(self.exits.take(payload)?),
            Kind::End => Told::End(decode("the end", payload)?),
            Kind::Other(_) => Told::Other,
        })
    }

    /// Shows every sample in the order of the file, and returns the rest of what the recording says.
    ///
    /// One chunk is held in memory at a time, and the tables, which grow with what was introduced so far.
    pub fn for_each_sample(
        self,
        mut visit: impl FnMut(&Sample, &Tables),
    ) -> Result<Recorded, RecordingError> {
        self.for_all_samples(|samples, tables| samples.iter(tables).for_each(|sample| visit(&sample, tables)))
    }

    /// As [`for_each_sample`](Self::for_each_sample), but shows as many samples at a time as the file has together.
    pub fn for_all_samples(
        self,
        mut visit: impl FnMut(&Samples, &Tables),
    ) -> Result<Recorded, RecordingError> {
        self.for_all(|rows, tables| match rows {
            Rows::Samples(samples) => visit(samples, tables),
            Rows::Exits(_) => {}
        })
    }

    /// Shows all samples and exits in the order of the file.
    pub(super) fn for_all(
        mut self,
        mut visit: impl FnMut(Rows<'_>, &Tables),
    ) -> Result<Recorded, RecordingError> {
        let mut recorded = Recorded::new(self.header.clone());
        loop {
            let told = self.read_next()?;
            let mut is_last = told.is_last();
            if let Err(damage) = recorded.take_and_show(told, &mut visit) {
                recorded.completeness = Completeness::Damaged { at_byte: self.chunks.at(), damage };
                is_last = true;
            }
            if is_last {
                return Ok(recorded);
            }
        }
    }
}

/// What a recording has many of.
pub(super) enum Rows<'a> {
    Samples(&'a Samples),
    Exits(&'a [Exits]),
}

/// A piece of what a recording tells, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What happened.
    Facts(Vec<Fact>),
    /// What later samples refer to.
    Entries(Vec<Entry>),
    /// Samples.
    Samples(Samples),
    /// What was copied with samples.
    Stacks(Vec<KeptStacks>),
    /// The books, replacing those before.
    Snapshot(Snapshot),
    /// What vCPUs did with their time, replacing those before.
    VcpuTimes(VcpuTimes),
    /// What VM exits cost since they were told the last time.
    Exits(Vec<Exits>),
    /// The recording was finished: nothing follows.
    End(End),
    /// The writer was killed, or the file was cut: nothing follows.
    Cut {
        /// The length of the part that was read.
        at_byte: u64,
    },
    /// The file is damaged: nothing that follows can be read.
    Damage {
        /// The length of the part that was read.
        at_byte: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// Something that a later version adds.
    Other,
}

impl Told {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::End(_) | Self::Cut { .. } | Self::Damage { .. })
    }
}

/// What a recording has said besides its samples, up to where it has been read.
#[derive(Debug)]
pub struct Recorded {
    /// How it was made.
    pub header: Header,
    /// What the numbers in its samples stand for.
    pub tables: Tables,
    /// What its reader must be told.
    pub notes: Vec<Note>,
    /// The moments that the user named, in the order of their times.
    pub marks: Vec<Mark>,
    /// With how many samples what was copied of stacks is kept.
    pub kept_stacks: u64,
    /// The last books.
    pub snapshot: Option<Snapshot>,
    /// What vCPUs did with their time, as it was told last.
    pub vcpu_times: Option<VcpuTimes>,
    /// What all VM exits cost, by place and reason.
    pub exits: BTreeMap<(PlaceId, NameId), ExitCost>,
    /// The moment up to which it tells of the machine.
    pub until: Time,
    /// Whether it was finished.
    pub completeness: Completeness,
}

impl Recorded {
    /// Nothing but how a recording was made.
    pub fn new(header: Header) -> Self {
        Self {
            until: header.started,
            header,
            tables: Tables::default(),
            notes: Vec::new(),
            marks: Vec::new(),
            kept_stacks: 0,
            snapshot: None,
            vcpu_times: None,
            exits: BTreeMap::new(),
            completeness: Completeness::Torn { at_byte: 0 },
        }
    }

    /// Takes in what the recording told next, and shows its samples. All that it refers to must have been told before.
    pub fn take(&mut self, told: Told, mut visit: impl FnMut(&Samples, &Tables)) -> Result<(), Damage> {
        self.take_and_show(told, |rows, tables| match rows {
            Rows::Samples(samples) => visit(samples, tables),
            Rows::Exits(_) => {}
        })
    }

    fn take_and_show(&mut self, told: Told, mut visit: impl FnMut(Rows<'_>, &Tables)) -> Result<(), Damage> {
        match told {
            Told::Facts(facts) => facts.into_iter().try_for_each(|fact| self.learn(fact))?,
            Told::Entries(entries) => {
                let events = self.header.events.len();
                entries.into_iter().try_for_each(|entry| self.tables.enter(entry, events))?;
            }
            Told::Samples(samples) => {
                self.tables.check_samples(&samples)?;
                self.until = samples.times().iter().fold(self.until, |until, &time| until.max(time));
                visit(Rows::Samples(&samples), &self.tables);
            }
            Told::Stacks(kept) => {
                let mut spaces = kept.iter().flat_map(|kept| &kept.stretches).map(|&(space, _)| space);
                spaces.try_for_each(|space| self.tables.check_space(space))?;
                self.kept_stacks += kept.len() as u64;
            }
            Told::Snapshot(snapshot) => {
                self.tables.check_times(&snapshot.domains)?;
                self.until = self.until.max(snapshot.time);
                self.snapshot = Some(snapshot);
            }
            Told::VcpuTimes(times) => {
                self.tables.check_vcpus(&times.vcpus)?;
                self.until = self.until.max(times.time);
                self.vcpu_times = Some(times);
            }
            Told::Exits(exits) => {
                self.tables.check_exits(&exits)?;
                visit(Rows::Exits(&exits), &self.tables);
                for Exits { time, place, reason, cost } in exits {
                    self.until = self.until.max(time);
                    self.exits.entry((place, reason)).or_default().add(cost);
                }
            }
            Told::End(end) => {
                self.until = end.time;
                self.completeness = Completeness::Whole(end);
            }
            Told::Cut { at_byte } => self.completeness = Completeness::Torn { at_byte },
            Told::Damage { at_byte, damage } => {
                self.completeness = Completeness::Damaged { at_byte, damage };
            }
            Told::Other => {}
        }
        Ok(())
    }

    fn learn(&mut self, fact: Fact) -> Result<(), Damage> {
        match fact {
            Fact::Note(note) => self.notes.push(note),
            Fact::Mark(mark) => {
                let place = self.marks.partition_point(|earlier| earlier.time <= mark.time);
                self.marks.insert(place, mark);
            }
            fact => self.tables.learn(fact)?,
        }
        Ok(())
    }
}

/// Whether a recording was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It was, like this.
    Whole(End),
    /// The writer was killed, or the file was cut: what lies before this byte is all there is.
    Torn {
        /// The length of the part that was read.
        at_byte: u64,
    },
    /// The file is damaged: what lies before this byte is all that can be read.
    Damaged {
        /// The length of the part that was read.
        at_byte: u64,
        /// What is wrong there.
        damage: Damage,
    },
}

/// Decodes facts, each of which says its length, so that those of later versions can be left out.
fn decode_facts(mut bytes: &[u8]) -> Result<Vec<Fact>, Damage> {
    let mut facts = Vec::new();
    while !bytes.is_empty() {
        let fact = take_sized(&mut bytes)?;
        if fact.first().is_some_and(|&kind| kind < Fact::KINDS) {
            facts.push(decode("a fact", fact)?);
        }
    }
    Ok(facts)
}

fn decode_stacks(mut bytes: &[u8]) -> Result<Vec<KeptStacks>, Damage> {
    let mut kept = Vec::new();
    while !bytes.is_empty() {
        kept.push(decode("stacks", take_sized(&mut bytes)?)?);
    }
    Ok(kept)
}

/// What comes next, behind its length.
fn take_sized<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Damage> {
    let length = columns::take_number(bytes)?;
    columns::take_bytes(bytes, usize::try_from(length).unwrap_or(usize::MAX))
}

/// Decodes one value; what a later version has added behind it is not looked at.
fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, Damage> {
    let decoded = postcard::take_from_bytes(bytes).map_err(|cause| Damage::Undecodable { what, cause });
    Ok(decoded?.0)
}
