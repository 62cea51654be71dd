//! Events of the kernel's `perf_event_open` (perf_event_open(2), include/uapi/linux/perf_event.h).

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd},
};

use perf_event_open_sys::{bindings as sys, ioctls};

use super::callers;
use crate::CallGraph;

/// Who may use events without privileges: the higher, the fewer.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    /// The processor's cycles.
    Cycles,
    /// The kernel's clock, for machines without counters.
    Clock,
}

/// When a sample is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// So many a second: the kernel finds the period.
    Hertz(u64),
    /// After so many of what is counted.
    Period(u64),
}

/// An event of one CPU, not enabled yet.
pub(super) struct PerfEvent {
    file: File,
    /// Counts how often the CPU went over to another thread.
    switches: Option<File>,
    /// Whether it tells how many records were lost, which Linux 6.0 brought.
    tells_lost: bool,
    layout: SampleLayout,
}

/// What a sample holds beside the instruction pointer, the thread and the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SampleLayout {
    /// All records tell the number of their event, of which this is the sampler's. Another one, a program's, writes to the
    /// same buffer.
    pub(super) number: Option<u64>,
    /// The period that ended with it.
    pub(super) period: bool,
    /// What the event and its count of switches have counted so far.
    pub(super) counts: Option<CountLayout>,
    /// What was captured of callers.
    pub(super) call_graph: CallGraph,
}

/// What stands for each event of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountLayout {
    Value,
    ValueAndLost,
}

/// Who is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everybody on every CPU.
    Machine,
    /// What the calling thread executes from now on, and whatever that starts.
    Children,
}

/// How to open events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) scope: Scope,
    /// Whether the kernel's own code is sampled: users of [`Scope::Children`] may not see it.
    pub(super) kernel: bool,
    /// What is captured of callers.
    pub(super) call_graph: CallGraph,
    /// Whether a program is to tell of guests, by records of its own in the sampler's buffer.
    pub(super) guests: bool,
}

impl Setting {
    /// What all events have in common. Records other than samples end with the thread and the time (`sample_id_all`).
    fn attributes(self) -> sys::perf_event_attr {
        let mut attributes = sys::perf_event_attr {
            size: size_of::<sys::perf_event_attr>() as u32,
            clockid: libc::CLOCK_MONOTONIC,
            sample_type: (sys::PERF_SAMPLE_TID | sys::PERF_SAMPLE_TIME).into(),
            ..Default::default()
        };
        attributes.set_disabled(1);
        attributes.set_use_clockid(1);
        attributes.set_sample_id_all(1);
        attributes.set_exclude_kernel(u64::from(!self.kernel));
        if self.scope == Scope::Children {
            attributes.set_inherit(1);
            attributes.set_enable_on_exec(1);
        }
        attributes
    }

    /// Opens what samples one CPU.
    pub(super) fn sampler(self, cpu: u32, counter: Counter, pace: Pace) -> io::Result<PerfEvent> {
        let mut attributes = self.attributes();
        (attributes.type_, attributes.config) = match counter {
            Counter::Cycles => (sys::PERF_TYPE_HARDWARE, sys::PERF_COUNT_HW_CPU_CYCLES.into()),
            Counter::Clock => (sys::PERF_TYPE_SOFTWARE, sys::PERF_COUNT_SW_CPU_CLOCK.into()),
        };
        attributes.sample_type |= u64::from(sys::PERF_SAMPLE_IP);
        match pace {
            Pace::Hertz(hertz) => {
                attributes.set_freq(1);
                attributes.__bindgen_anon_1.sample_freq = hertz;
                attributes.sample_type |= u64::from(sys::PERF_SAMPLE_PERIOD);
            }
            Pace::Period(period) => attributes.__bindgen_anon_1.sample_period = period,
        }
        callers::ask(&mut attributes, self.call_graph, self.kernel);
        let period = matches!(pace, Pace::Hertz(_));
        if self.guests {
            attributes.sample_type |= u64::from(sys::PERF_SAMPLE_IDENTIFIER);
        }
        // A CPU may be idle between two samples of a clock without a sample that shows it; not without a switch.
        let with_switches = counter == Counter::Clock && self.scope == Scope::Machine;
        if with_switches {
            attributes.sample_type |= u64::from(sys::PERF_SAMPLE_READ);
            attributes.read_format = sys::PERF_FORMAT_GROUP.into();
        }
        attributes.read_format |= u64::from(sys::PERF_FORMAT_LOST);
        let file = self.open_telling_lost(cpu, &mut attributes)?;
        let tells_lost = attributes.read_format & u64::from(sys::PERF_FORMAT_LOST) != 0;
        let counts =
            with_switches.then_some(if tells_lost { CountLayout::ValueAndLost } else { CountLayout::Value });
        let switches =
            with_switches.then(|| self.switches(cpu, attributes.read_format, &file)).transpose()?;
        let layout = SampleLayout { number: None, period, counts, call_graph: self.call_graph };
        let mut event = PerfEvent { file, switches, tells_lost, layout };
        if self.guests {
            event.layout.number = Some(event.number()?);
        }
        Ok(event)
    }

    /// Opens an event that tells how many of its records were lost, or on older kernels one that does not: the attributes
    /// then say so.
    fn open_telling_lost(self, cpu: u32, attributes: &mut sys::perf_event_attr) -> io::Result<File> {
        match self.open(cpu, attributes, None) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                attributes.read_format &= !u64::from(sys::PERF_FORMAT_LOST);
                self.open(cpu, attributes, None)
            }
            result => result,
        }
    }

    /// Opens what counts how often a CPU goes over to another thread, whenever `leader` counts.
    fn switches(self, cpu: u32, read_format: u64, leader: &File) -> io::Result<File> {
        let mut attributes = self.attributes();
        (attributes.type_, attributes.config) =
            (sys::PERF_TYPE_SOFTWARE, sys::PERF_COUNT_SW_CONTEXT_SWITCHES.into());
        attributes.read_format = read_format;
        attributes.set_disabled(0);
        self.open(cpu, &mut attributes, Some(leader))
    }

    /// Opens what tells of the processes of one CPU: what they are called, what they map, when they end.
    pub(super) fn changes(self, cpu: u32) -> io::Result<PerfEvent> {
        let mut attributes = self.attributes();
        (attributes.type_, attributes.config) = (sys::PERF_TYPE_SOFTWARE, sys::PERF_COUNT_SW_DUMMY.into());
        attributes.set_task(1);
        attributes.set_comm(1);
        attributes.set_comm_exec(1);
        attributes.set_mmap(1);
        attributes.set_mmap2(1);
        let file = self.open(cpu, &mut attributes, None)?;
        Ok(PerfEvent { file, switches: None, tells_lost: false, layout: SampleLayout::default() })
    }

    /// Opens what a program's own records are of.
    pub(super) fn program_output(self, cpu: u32) -> io::Result<PerfEvent> {
        let mut attributes = self.attributes();
        (attributes.type_, attributes.config) =
            (sys::PERF_TYPE_SOFTWARE, sys::PERF_COUNT_SW_BPF_OUTPUT.into());
        attributes.sample_type |= u64::from(sys::PERF_SAMPLE_IDENTIFIER | sys::PERF_SAMPLE_RAW);
        attributes.__bindgen_anon_1.sample_period = 1;
        attributes.read_format = sys::PERF_FORMAT_LOST.into();
        let file = self.open_telling_lost(cpu, &mut attributes)?;
        let tells_lost = attributes.read_format != 0;
        Ok(PerfEvent { file, switches: None, tells_lost, layout: SampleLayout::default() })
    }

    fn open(
        self,
        cpu: u32,
        attributes: &mut sys::perf_event_attr,
        leader: Option<&File>,
    ) -> io::Result<File> {
        let pid = match self.scope {
            Scope::Machine => -1,
            Scope::Children => 0,
        };
        open(attributes, pid, cpu as libc::c_int, leader)
    }
}

/// Opens an event of a thread (0: this one, -1: all) on a CPU (-1: wherever it runs), in the group of another if wanted.
fn open(
    attributes: &mut sys::perf_event_attr,
    pid: libc::pid_t,
    cpu: libc::c_int,
    leader: Option<&File>,
) -> io::Result<File> {
    let leader = leader.map_or(-1, AsRawFd::as_raw_fd);
    let flags = sys::PERF_FLAG_FD_CLOEXEC.into();
    // SAFETY: the attributes are a whole struct of the size that they tell; the kernel reads no more.
    let fd = unsafe { perf_event_open_sys::perf_event_open(attributes, pid, cpu, leader, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

impl PerfEvent {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn layout(&self) -> SampleLayout {
        self.layout
    }

    pub(super) fn enable(&self) -> io::Result<()> {
        // SAFETY: the descriptor is an event's; the request takes no pointer.
        check(unsafe { ioctls::ENABLE(self.file.as_raw_fd(), 0) })
    }

    pub(super) fn disable(&self) -> io::Result<()> {
        // SAFETY: as above.
        check(unsafe { ioctls::DISABLE(self.file.as_raw_fd(), 0) })
    }

    /// Opens a tracepoint by its number, for what a program makes of it on whichever CPU: it counts on one, and is not enabled.
    pub(super) fn of_tracepoint(id: u64, cpu: u32) -> io::Result<Self> {
        let mut attributes = sys::perf_event_attr {
            size: size_of::<sys::perf_event_attr>() as u32,
            type_: sys::PERF_TYPE_TRACEPOINT,
            config: id,
            ..Default::default()
        };
        attributes.set_disabled(1);
        let file = open(&mut attributes, -1, cpu as libc::c_int, None)?;
        Ok(Self { file, switches: None, tells_lost: false, layout: SampleLayout::default() })
    }

    /// Has a BPF program run before each sample, or of a tracepoint whenever it is passed.
    pub(super) fn set_program(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the descriptor is an event's, the argument another descriptor.
        check(unsafe { ioctls::SET_BPF(self.file.as_raw_fd(), program.as_raw_fd() as u32) })
    }

    /// Writes to the buffer of another event, which has one.
    pub(super) fn write_to_buffer_of(&self, other: &PerfEvent) -> io::Result<()> {
        // SAFETY: both are descriptors of events.
        check(unsafe { ioctls::SET_OUTPUT(self.file.as_raw_fd(), other.file.as_raw_fd()) })
    }

    fn number(&self) -> io::Result<u64> {
        let mut number = 0;
        // SAFETY: the descriptor is an event's; the kernel writes one u64.
        check(unsafe { ioctls::ID(self.file.as_raw_fd(), &raw mut number) })?;
        Ok(number)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Sets another period, which begins now.
    pub(super) fn set_period(&self, period: u64) -> io::Result<()> {
        // SAFETY: the descriptor is an event's. The bindings take the argument for the period itself, but the kernel
        // reads one u64 at that address, which outlives the call.
        check(unsafe { ioctls::PERIOD(self.file.as_raw_fd(), (&raw const period).addr() as u64) })
    }

    /// How many records found no room since the event was opened, by the kernel's own count; none where it keeps none.
    pub(super) fn lost(&self) -> Option<u64> {
        // The value and the loss; of a group the number of its events first, and the same of the second at the end.
        let mut bytes = [0; 40];
        let before = if self.switches.is_some() { 2 } else { 1 };
        let read = (&self.file).read(&mut bytes).ok()?;
        let (words, _) = bytes[..read].as_chunks();
        words.get(before).copied().filter(|_| self.tells_lost).map(u64::from_ne_bytes)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether an error says that this user may not do this.
pub(super) fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// The kernel's setting of who may use events; none where it has none.
pub(super) fn paranoid() -> Option<i32> {
    fs::read_to_string(PARANOID).ok()?.trim().parse().ok()
}

/// Whether the processor's counters count what this thread does: those of virtual machines and of broken units only
/// pretend to.
pub(super) fn counts_cycles() -> bool {
    let mut attributes = sys::perf_event_attr {
        size: size_of::<sys::perf_event_attr>() as u32,
        type_: sys::PERF_TYPE_HARDWARE,
        config: sys::PERF_COUNT_HW_CPU_CYCLES.into(),
        ..Default::default()
    };
    attributes.set_exclude_kernel(1);
    let Ok(mut file) = open(&mut attributes, 0, -1, None) else { return false };
    for round in 0..100_000_u64 {
        std::hint::black_box(round);
    }
    let mut count = [0; 8];
    file.read_exact(&mut count).is_ok() && u64::from_ne_bytes(count) > 0
}
