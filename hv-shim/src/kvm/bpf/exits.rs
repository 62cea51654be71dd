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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::bpf::{KernelMemory, Layout};

    const RECORD: ExitRecord = ExitRecord { id: 0, reason: 8..12, instruction_pointer: 16..24 };

    #[test]
    fn rows_are_read_as_the_programs_write_them() {
        let key = |flags: u64, address: u64| {
            let words = [address, 0x2000 | 0x3, 0x72, 8 << 32 | 7, flags << 32 | 1, 5];
            words.map(u64::to_le_bytes).concat().try_into().unwrap()
        };
        let value = [3_u64, 300, 200].map(u64::to_le_bytes).concat().try_into().unwrap();
        let row = ExitRow {
            process: 7,
            thread: 8,
            vcpu_id: 1,
            reason: 0x72,
            instruction_pointer: 0x40_1234,
            state: Some(GuestState { root: AddressSpaceRoot(0x2000), user: true }),
            strange: false,
            count: 3,
            total_ns: 300,
            longest_ns: 200,
        };
        assert_eq!(ExitRow::parse(&key(0x00_03_01, 0x40_1234), &value), row);
        let strange = ExitRow { state: None, strange: true, ..row };
        assert_eq!(ExitRow::parse(&key(0x01_00_00, 0x40_1234), &value), strange);
        // Without a control block it is the address that tells a kernel.
        let kernel = ExitRow::parse(&key(0, 0xffff_ffff_8100_0000), &value).state;
        assert_eq!(kernel, Some(GuestState { root: AddressSpaceRoot(0x2000), user: false }));
        assert_eq!(turn_of(&key(0, 0)), 5);
    }

    /// The processes' numbers that programs see, and that this one sees of itself.
    const FIRST_NAMESPACE: &str = "pid:[4026531836]";

    /// Both programs run on this kernel's BPF machine, on orders, and take this very thread for a vCPU's: where its `struct
    /// kvm_vcpu` would be, it has its two numbers.
    #[test]
    fn exits_are_added_up_by_reason_and_place() {
        let kernel = match KernelMemory::open() {
            Err(lack @ (Lack::Forbidden | Lack::NotBuilt)) => return println!("not tried: {lack}"),
            kernel => kernel.unwrap(),
        };
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
        let Some(layout) = Layout::with_numbers_for_a_vcpu() else {
            return println!("not tried: this kernel does not tell the layout of its structures");
        };
        if namespace.to_str() != Some(FIRST_NAMESPACE) {
            return println!("not tried: this process has other numbers here than for its kernel");
        }
        let bpf = Bpf { layout, kernel };
        // As they are loaded where there is KVM, on AMD's processors, and then so that they can be run on orders.
        let amd = Bpf { layout: Layout::at_the_beginning(), kernel: KernelMemory::open().unwrap() };
        ExitCounter::load(&amd, &RECORD, ProgramKind::Tracepoint, 2).unwrap();
        let mut counter = ExitCounter::load(&bpf, &RECORD, ProgramKind::RawTracepoint, 2).unwrap();
        let [exit, entry] =
            counter.programs.each_ref().map(|program| program.as_fd().try_clone_to_owned().unwrap());
        let exit = |reason: u64, address: u64| calls::run(exit.as_fd(), &[0, reason, address]).unwrap();
        let own = std::process::id();
        // SAFETY: gettid has no preconditions.
        let vcpu = unsafe { libc::gettid() } as u64 | u64::from(own) << 32;
        let enter = || calls::run(entry.as_fd(), &[vcpu]).unwrap();
        for round in 0..10 {
            for reason in [0x72, 0x78] {
                exit(reason, 0x1000 + round % 2);
                enter();
            }
        }
        // An entry of another vCPU, one without an exit, an exit without an entry.
        exit(0x72, 0x3000);
        calls::run(entry.as_fd(), &[vcpu + 1]).unwrap();
        exit(0x72, 0x4000);
        enter();
        enter();
        assert_eq!(counter.next_turn().unwrap(), [], "programs may still be adding to them");
        exit(0x72, 0x1000);
        enter();
        let mut rows = counter.next_turn().unwrap();
        rows.sort_by_key(|row| (row.reason, row.instruction_pointer));
        assert!(rows.iter().all(|row| row.process == own && row.thread != 0));
        assert!(rows.iter().all(|row| row.total_ns >= row.longest_ns && row.longest_ns > 0));
        let found: Vec<_> = rows.iter().map(|row| (row.reason, row.instruction_pointer, row.count)).collect();
        let expected =
            [(0x72, 0x1000, 5), (0x72, 0x1001, 5), (0x72, 0x4000, 1), (0x78, 0x1000, 5), (0x78, 0x1001, 5)];
        assert_eq!(found, expected);
        let rest = counter.rest().unwrap();
        assert_eq!(rest.iter().map(|row| (row.reason, row.count)).collect::<Vec<_>>(), [(0x72, 1)]);
        assert_eq!(counter.rest().unwrap(), []);
        assert_eq!(counter.books().unwrap().unpaired, 1);
        // What they take, where a row is there already. That a tracepoint is passed comes on top of it.
        let before = counter.runs();
        for _ in 0..10_000 {
            exit(0x72, 0x5000);
            enter();
        }
        if let (Some(before), Some(after)) = (before, counter.runs()) {
            let ns = [0, 1].map(|program| (after[program].1 - before[program].1) / 10_000);
            println!("figure: the programs take {} ns of an exit, {} ns of an entry", ns[0], ns[1]);
        }
        assert_eq!(counter.rest().unwrap()[0].count, 10_000);
        // More places than there is room for.
        for place in 0..8200 {
            exit(0x60, place);
            enter();
        }
        let (rows, books) = (counter.rest().unwrap(), counter.books().unwrap());
        assert_eq!((rows.len() as u64 + books.dropped, books.unpaired), (8200, 1));
        assert!((1..=8).contains(&books.dropped) && books.dropped_ns > 0, "{books:?}");
    }
}
