//! Exits, counted in the kernel: why a vCPU left its guest, where the guest was, and how long it took until it was entered
//! again.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use profile::AddressSpaceRoot;

use super::{
    Bpf, Lack,
    calls::{self, MapKind},
    layout::Processor,
    program::{Object, ProgramKind, Symbol},
    tracepoint::ExitRecord,
    vcpu_state::{CR3_ADDRESS, GuestState},
};
use crate::kvm::perf::PerfEvent;

static EXIT: Object = Object(include_bytes!(concat!(env!("OUT_DIR"), "/exit.bpf.o")));
static ENTRY: Object = Object(include_bytes!(concat!(env!("OUT_DIR"), "/entry.bpf.o")));

/// `struct exit`, `struct pending`, `struct cost` and `struct books` in exits.h.
const EXIT_BYTES: usize = 48;
const PENDING_BYTES: usize = EXIT_BYTES + 16;
const COST_BYTES: usize = 24;
const BOOKS_BYTES: usize = 24;

/// How many rows are copied at once.
const BATCH: usize = 4096;

/// Counts exits, for as long as it lives.
pub(in crate::kvm) struct ExitCounter {
    processor: Processor,
    exits: OwnedFd,
    books: OwnedFd,
    turn: OwnedFd,
    /// Which turn it is.
    number: u64,
    programs: [OwnedFd; 2],
    /// What has them run; none any more when counting is over.
    attached: Option<(PerfEvent, OwnedFd)>,
    /// While it is open, the kernel counts runs.
    counting: Option<OwnedFd>,
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// What the exits of one thread for one reason at one place came to in one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct ExitRow {
    pub(in crate::kvm) process: u32,
    pub(in crate::kvm) thread: u32,
    pub(in crate::kvm) vcpu_id: u32,
    /// The processor's word for it.
    pub(in crate::kvm) reason: u64,
    pub(in crate::kvm) instruction_pointer: u64,
    /// None where that is not known.
    pub(in crate::kvm) state: Option<GuestState>,
    /// Whether the processor's control block is of another place.
    pub(in crate::kvm) strange: bool,
    pub(in crate::kvm) count: u64,
    pub(in crate::kvm) total_ns: u64,
    pub(in crate::kvm) longest_ns: u64,
}

/// What was not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kvm) struct ExitBooks {
    /// Exits for which there was no room, and how long they took.
    pub(in crate::kvm) dropped: u64,
    pub(in crate::kvm) dropped_ns: u64,
    /// Exits whose end was not seen.
    pub(in crate::kvm) unpaired: u64,
}

impl ExitCounter {
    /// Begins to count, on a machine with so many CPUs, of which `cpu` is one.
    pub(super) fn begin(bpf: &Bpf, cpus: u32, cpu: u32) -> Result<Self, Lack> {
        let record = ExitRecord::of_this_kernel()?;
        let mut counter = Self::load(bpf, &record, ProgramKind::Tracepoint, cpus)?;
        let refused = |what: &'static str| move |error| Lack::refused(what)(error);
        let [exit, entry] = counter.programs.each_ref().map(AsFd::as_fd);
        // Entries first: an exit's entry is not missed then.
        let entries = calls::open_raw_tracepoint(c"kvm_entry", entry)
            .map_err(refused("the tracepoint kvm:kvm_entry"))?;
        let exits =
            PerfEvent::of_tracepoint(record.id, cpu).map_err(refused("the tracepoint kvm:kvm_exit"))?;
        exits.set_program(exit).map_err(refused("a BPF program at the tracepoint kvm:kvm_exit"))?;
        counter.attached = Some((exits, entries));
        Ok(counter)
    }

    fn load(bpf: &Bpf, record: &ExitRecord, kind: ProgramKind, cpus: u32) -> Result<Self, Lack> {
        let map = |kind, value_bytes: usize, entries| {
            calls::create_map(kind, value_bytes as u32, entries).map_err(Lack::refused("a map"))
        };
        let key_bytes = EXIT_BYTES as u32;
        let exits = map(MapKind::Hash { key_bytes }, COST_BYTES, (cpus * 2048).clamp(1 << 13, 1 << 17))?;
        // Each CPU keeps some free ones to itself.
        let pending = map(MapKind::Recent, PENDING_BYTES, (1 << 13) + 256 * cpus)?;
        let books = map(MapKind::Array, BOOKS_BYTES, 1)?;
        let turn = map(MapKind::Array, 8, 1)?;
        let layout = calls::constants(&bpf.layout.words_of_exits(record)).map_err(Lack::refused("a map"))?;
        let exit = EXIT.load(
            kind,
            &[
                ("pending", Symbol::Map(pending.as_fd())),
                ("books", Symbol::Value(books.as_fd())),
                ("layout", Symbol::Value(layout.as_fd())),
            ],
        )?;
        let entry = ENTRY.load(
            ProgramKind::RawTracepoint,
            &[
                ("pending", Symbol::Map(pending.as_fd())),
                ("exits", Symbol::Map(exits.as_fd())),
                ("books", Symbol::Value(books.as_fd())),
                ("turn", Symbol::Value(turn.as_fd())),
            ],
        )?;
        Ok(Self {
            processor: bpf.layout.processor,
            exits,
            books,
            turn,
            number: 0,
            programs: [exit, entry],
            attached: None,
            counting: calls::count_runs().ok(),
            keys: vec![0; BATCH * EXIT_BYTES],
            values: vec![0; BATCH * COST_BYTES],
        })
    }

    /// Whose exits are counted.
    pub(in crate::kvm) fn processor(&self) -> Processor {
        self.processor
    }

    /// Ends a turn, and takes the rows of those before it. Programs that are still at it when a turn ends have time until the
    /// next one ends.
    pub(in crate::kvm) fn next_turn(&mut self) -> io::Result<Vec<ExitRow>> {
        let ending = self.number;
        calls::set_word(self.turn.as_fd(), ending + 1)?;
        self.number += 1;
        self.take(ending)
    }

    /// Ends counting.
    pub(in crate::kvm) fn detach(&mut self) {
        // Exits first: an exit whose entry is not seen is none.
        drop(self.attached.take());
    }

    /// Takes all rows, when counting is over.
    pub(in crate::kvm) fn rest(&mut self) -> io::Result<Vec<ExitRow>> {
        self.take(u64::MAX)
    }

    /// Takes the rows of turns before this one.
    fn take(&mut self, before: u64) -> io::Result<Vec<ExitRow>> {
        let (mut rows, mut taken, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let sizes = [EXIT_BYTES, COST_BYTES];
            let (count, last) =
                calls::look_up_batch(self.exits.as_fd(), after, sizes, &mut self.keys, &mut self.values)?;
            let (keys, _) = self.keys.as_chunks::<EXIT_BYTES>();
            let (values, _) = self.values.as_chunks::<COST_BYTES>();
            for (key, value) in keys.iter().zip(values).take(count) {
                if turn_of(key) < before {
                    rows.push(ExitRow::parse(key, value));
                    taken.extend(key);
                }
            }
            after = last;
            if after.is_none() {
                break;
            }
        }
        if !rows.is_empty() {
            calls::delete_batch(self.exits.as_fd(), &taken, rows.len())?;
        }
        Ok(rows)
    }

    pub(in crate::kvm) fn books(&self) -> io::Result<ExitBooks> {
        let mut bytes = [0; BOOKS_BYTES];
        calls::look_up(self.books.as_fd(), &mut bytes)?;
        let (words, _) = bytes.as_chunks();
        let [dropped, dropped_ns, unpaired] = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
        Ok(ExitBooks { dropped, dropped_ns, unpaired })
    }

    /// How often the two programs ran, and for how many nanoseconds in all; none where that is not counted.
    pub(in crate::kvm) fn runs(&self) -> Option<[(u64, u64); 2]> {
        self.counting.as_ref()?;
        let [exit, entry] = self.programs.each_ref().map(|program| calls::runs(program.as_fd()).ok());
        Some([exit?, entry?])
    }
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|at| u64::from_le_bytes(words[at]))
}

fn turn_of(key: &[u8; EXIT_BYTES]) -> u64 {
    let [_, _, _, _, _, turn] = words(key);
    turn
}

impl ExitRow {
    fn parse(key: &[u8; EXIT_BYTES], value: &[u8; COST_BYTES]) -> Self {
        let [instruction_pointer, root, reason, ids, vcpu_and_flags, _turn] = words(key);
        let [count, total_ns, longest_ns] = words(value);
        let [has_vmcb, privilege, strange] = [32, 40, 48].map(|shift| (vcpu_and_flags >> shift) as u8);
        let root = root & CR3_ADDRESS;
        let state = match has_vmcb {
            0 => GuestState::of_kernel(instruction_pointer, root),
            _ => Some(GuestState { root: AddressSpaceRoot(root), user: privilege == 3 }),
        };
        Self {
            process: ids as u32,
            thread: (ids >> 32) as u32,
            vcpu_id: vcpu_and_flags as u32,
            reason,
            instruction_pointer,
            state,
            strange: strange != 0,
            count,
            total_ns,
            longest_ns,
        }
    }
}
