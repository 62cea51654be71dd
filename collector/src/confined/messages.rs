//! What the recorder and a process that looks into a guest say to each other.
//!
//! A message is its length in four bytes and then itself. A message is plain data: the recorder takes it apart by code
//! that was made for it and nothing else, and holds none of it for true.

use std::{
    io::{self, Read, Write},
    ops::Range,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use unwind::{Border, FrameTable, OrcTable};

use super::packed::{self, Packed};

/// Larger than what a kernel with the most symbols has to say.
const LONGEST: usize = 256 << 20;

/// What a message's length takes before it.
const LENGTH: usize = 4;

/// What most messages fit into: a page, or the numbers of a thousand.
const USUAL: usize = 8 << 10;

/// Pages that are asked for at once, at the most.
pub(crate) const MOST_PAGES: usize = 256;

pub(crate) const PAGE: usize = 4096;

/// What the recorder asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Whether the guest's page tables hold the machine's frames.
    pub(crate) frames: PageNumbers,
    /// Whether it is wanted how callers are found: those tables are large.
    pub(crate) callers: bool,
    pub(crate) about: About,
}

/// What the numbers of pages mean.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum PageNumbers {
    /// The guest's.
    Guest,
    /// The machine's.
    Machine,
}

/// What is asked about; roots of page tables are as the processor has them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum About {
    /// The kernel under these page tables, if it is not the one that was told of already.
    Kernel(u64),
    /// The same, without its own symbols: they are known.
    KnownKernel(u64),
    /// The process that these page tables are of, and what it has mapped.
    Process(u64),
    /// The same, without what it has mapped.
    Task(u64),
    /// Whether these page tables are still of the process that was told of last.
    StillThere(u64),
    /// An ELF file of so many bytes: its pages are asked for as if they were the guest's.
    File(u64),
    /// All processes, and the files with code that they have mapped.
    Everything,
}

/// What is said to the recorder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The contents of these pages are wanted: see [`send_pages`].
    Wants(Vec<u64>),
    Answer(Box<Answer>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Kernel(Result<FoundKernel, String>),
    /// It is the one that was told of, with the same modules and generated code.
    SameKernel,
    Process(Option<FoundProcess>),
    Task(Option<FoundTask>),
    StillThere(bool),
    File(Option<FoundImage>),
    Everything(Result<FoundEverything, String>),
}

/// A kernel. All texts are the guest's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundKernel {
    /// Whether another kernel was told of before, or none.
    pub(crate) is_new: bool,
    pub(crate) release: String,
    pub(crate) build_id: Option<Vec<u8>>,
    pub(crate) slide: Option<u64>,
    pub(crate) modules: u32,
    /// How many symbols it has, those of its modules left out.
    pub(crate) all_symbols: u32,
    /// Its functions, and where what is between them begins; none if it is not new, or they were not asked for.
    pub(crate) symbols: Symbols,
    /// Those of its modules and of the code that it generated.
    pub(crate) loaded: Symbols,
    /// How callers are found in its code and in that of its modules.
    pub(crate) callers: Vec<OrcTable>,
    /// Its code for indirect jumps.
    pub(crate) thunks: Vec<Range<u64>>,
    /// What lies between it and Xen.
    pub(crate) borders: Vec<Border>,
    /// What can't be told of this kernel, and why.
    pub(crate) lacks: Vec<(Lack, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lack {
    Modules,
    GeneratedCode,
    Processes,
}

/// Symbols of a kernel, or of what it has loaded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Symbols {
    names: Texts,
    #[serde(with = "packed")]
    rows: Vec<Row>,
    owners: Vec<String>,
}

/// A symbol but for its name.
#[derive(Clone, Copy, Debug)]
struct Row {
    address: u64,
    kind: u8,
    /// The place among the owners, from 1 on; 0 for the kernel itself.
    owner: u32,
}

impl Packed<13> for Row {
    fn to_bytes(self) -> [u8; 13] {
        let mut bytes = [0; 13];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8] = self.kind;
        bytes[9..].copy_from_slice(&self.owner.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 13]) -> Self {
        let [address @ .., kind, a, b, c, d] = bytes;
        Self { address: u64::from_le_bytes(address), kind, owner: u32::from_le_bytes([a, b, c, d]) }
    }
}

impl Symbols {
    /// Adds a symbol: its address, its letter, its name, and its module if it is of one that was announced.
    pub(crate) fn push(&mut self, address: u64, kind: char, name: &str) {
        self.names.push(name);
        let (kind, owner) = (u8::try_from(kind).unwrap_or(b'?'), self.owners.len() as u32);
        self.rows.push(Row { address, kind, owner });
    }

    /// What is pushed from now on is a module's.
    pub(crate) fn begin_owner(&mut self, name: &str) {
        self.owners.push(name.to_owned());
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, char, &str, Option<&str>)> + Clone {
        self.rows.iter().zip(self.names.iter()).map(|(&Row { address, kind, owner }, name)| {
            let owner = (owner as usize).checked_sub(1).and_then(|owner| self.owners.get(owner));
            (address, char::from(kind), name, owner.map(String::as_str))
        })
    }
}

/// Many texts in one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Texts {
    text: String,
    #[serde(with = "packed")]
    ends: Vec<u32>,
}

impl Texts {
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    /// All of them; those are empty whose places make no sense.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let starts = std::iter::once(&0).chain(&self.ends);
        let range = |(&start, &end): (&u32, &u32)| self.text.get(start as usize..end as usize);
        starts.zip(&self.ends).map(move |place| range(place).unwrap_or_default())
    }
}

/// A process. All texts are the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundTask {
    pub(crate) pid: u32,
    /// When it was started: tells it from others of its number.
    pub(crate) start_time: u64,
    /// Grows with each program that it executes.
    pub(crate) executed: u32,
    pub(crate) name: String,
    pub(crate) container: Option<String>,
}

impl FoundTask {
    /// What tells one life of a process from all others, in which it runs one program.
    pub(crate) fn life(&self) -> (u32, u64, u32) {
        (self.pid, self.start_time, self.executed)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundProcess {
    pub(crate) task: FoundTask,
    pub(crate) mappings: Vec<FoundMapping>,
    /// What is mapped and was not in an earlier answer: the index of one of the mappings that have it, and its content;
    /// none where that can't be read.
    pub(crate) images: Vec<(u32, Option<FoundImage>)>,
}

/// All that runs in user mode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundEverything {
    pub(crate) processes: Vec<FoundTask>,
    pub(crate) files: Vec<FoundFile>,
}

/// A file that has code, and what of it is in the guest's memory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundFile {
    pub(crate) path: String,
    pub(crate) build_id: Option<Vec<u8>>,
    pub(crate) resident: Resident,
}

/// Which functions of a file can be named by what is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Resident {
    /// None.
    Nothing,
    /// Those that other files may call.
    Dynamic,
    /// Some of those in the full table, or of those in `.gnu_debugdata`.
    Some,
    /// All that the file itself names.
    All,
}

/// Code that a process has mapped.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundMapping {
    pub(crate) addresses: Range<u64>,
    pub(crate) offset: u64,
    pub(crate) path: String,
    pub(crate) image: FoundImageId,
}

/// What has the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum FoundImageId {
    /// By the address of its pages' list in the guest's kernel, and its size.
    File(u64, u64),
    /// The kernel's own library.
    Vdso,
    /// Memory with no file behind it.
    Memory,
}

/// An image's content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundImage {
    pub(crate) build_id: Option<Vec<u8>>,
    pub(crate) resident: Resident,
    /// How its functions' callers are found.
    pub(crate) frames: FrameTable,
    /// Its executable segments: place in the file, size there, address that it is linked to.
    pub(crate) segments: Vec<(u64, u64, u64)>,
    names: Texts,
    functions: Vec<FoundFunction>,
}

/// A function but for its name.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FoundFunction {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) local: bool,
    pub(crate) weak: bool,
}

impl FoundImage {
    pub(crate) fn new(
        build_id: Option<Vec<u8>>,
        resident: Resident,
        frames: FrameTable,
        segments: Vec<(u64, u64, u64)>,
    ) -> Self {
        Self { build_id, resident, frames, segments, names: Texts::default(), functions: Vec::new() }
    }

    pub(crate) fn push(&mut self, function: FoundFunction, name: &str) {
        self.names.push(name);
        self.functions.push(function);
    }

    /// Adds what another file of the same build has, such as one with what was stripped off this one.
    pub(crate) fn take_functions(&mut self, other: Self) {
        self.resident = other.resident;
        for (&function, name) in other.functions() {
            self.push(function, name);
        }
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = (&FoundFunction, &str)> {
        self.functions.iter().zip(self.names.iter())
    }
}

pub(crate) fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = postcard::to_extend(message, vec![0; LENGTH]).map_err(io::Error::other)?;
    send_framed(&mut to, &mut bytes)
}

fn send_framed(to: &mut impl Write, bytes: &mut [u8]) -> io::Result<()> {
    let length = (bytes.len() - LENGTH) as u32;
    bytes[..LENGTH].copy_from_slice(&length.to_le_bytes());
    to.write_all(bytes)
}

/// The next message; none where the other side has gone away between two.
pub(crate) fn receive_or_end<T: DeserializeOwned>(from: impl Read) -> io::Result<Option<T>> {
    let Some(bytes) = receive_framed(from)? else { return Ok(None) };
    postcard::from_bytes(&bytes[LENGTH..]).map(Some).map_err(io::Error::other)
}

pub(crate) fn receive<T: DeserializeOwned>(from: impl Read) -> io::Result<T> {
    receive_or_end(from)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A message behind its length. Both sides take turns, so that nothing follows it, and a small one comes by one system
/// call: on dom0, each of those costs a way through the hypervisor.
fn receive_framed(mut from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; USUAL];
    let (mut read, mut end) = (0, LENGTH);
    while read < end {
        // Not allocated on its word alone.
        if read == bytes.len() {
            bytes.resize(end.min(2 * read), 0);
        }
        match from.read(&mut bytes[read..]) {
            Ok(0) if read == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(length) = bytes[..read].first_chunk::<LENGTH>() {
            end = LENGTH + u32::from_le_bytes(*length) as usize;
        }
        if end > LENGTH + LONGEST || read > end {
            return Err(io::Error::other("a message is longer than any, or than it says"));
        }
    }
    bytes.truncate(end);
    Ok(Some(bytes))
}

/// Answers [`Said::Wants`]: for each page a byte that says whether it is there, and if so its content. `read` fills it.
/// `bytes` is room to do this in.
pub(crate) fn send_pages(
    mut to: impl Write,
    bytes: &mut Vec<u8>,
    pages: &[u64],
    mut read: impl FnMut(u64, &mut [u8]) -> bool,
) -> io::Result<()> {
    bytes.clear();
    bytes.resize(LENGTH, 0);
    for &page in pages {
        let at = bytes.len();
        bytes.resize(at + 1 + PAGE, 0);
        match read(page, &mut bytes[at + 1..]) {
            true => bytes[at] = 1,
            false => bytes.truncate(at + 1),
        }
    }
    send_framed(&mut to, bytes)
}

/// What [`send_pages`] sent.
pub(crate) struct SentPages(Vec<u8>);

impl SentPages {
    pub(crate) fn receive(from: impl Read) -> io::Result<Self> {
        Ok(Self(receive_framed(from)?.ok_or(io::ErrorKind::UnexpectedEof)?))
    }

    /// Where each of the pages is that were asked for; none where the guest has none.
    pub(crate) fn places(&self, pages: usize) -> io::Result<Vec<Option<usize>>> {
        let mut at = LENGTH;
        let mut place = || {
            let there = *self.0.get(at)? == 1;
            let content = at + 1;
            at = content + PAGE * usize::from(there);
            (at <= self.0.len()).then_some(there.then_some(content))
        };
        let places = (0..pages).map(|_| place()).collect::<Option<_>>();
        places.ok_or_else(|| io::Error::other("pages that were sent are cut off"))
    }

    /// The content of a page at one of these places.
    pub(crate) fn page(&self, place: usize) -> &[u8] {
        &self.0[place..place + PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has in pieces of so many bytes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(bytes.len());
            self.0.read(&mut bytes[..most])
        }
    }

    fn sent(message: &Vec<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        send(&mut bytes, message).unwrap();
        bytes
    }

    #[test]
    fn messages_arrive_whole_in_whatever_pieces() {
        for message in [vec![], vec![1, 2, 3], (0..100_000).collect()] {
            let bytes = sent(&message);
            for piece in [1, 3, 4096, usize::MAX] {
                assert_eq!(receive::<Vec<u64>>(Pieces(&bytes, piece)).unwrap(), message);
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_more_than_a_message_is_an_error() {
        let bytes = sent(&vec![1, 2, 3]);
        assert!(receive_or_end::<Vec<u64>>(&bytes[..0]).unwrap().is_none());
        for length in 1..bytes.len() {
            assert!(receive_or_end::<Vec<u64>>(&bytes[..length]).is_err(), "{length}");
        }
        assert!(receive::<Vec<u64>>(&[&bytes[..], &[0]].concat()[..]).is_err());
        assert!(receive::<Vec<u64>>(&[0xff; 100][..]).is_err());
    }
}
