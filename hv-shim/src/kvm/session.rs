//! A session of sampling: two events on every CPU, one that samples and one that tells of processes.
//!
//! They have buffers of their own, so that what the kernel says it lost is either samples or news.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io, thread,
    time::{Duration, Instant},
};

use profile::{CpuAccount, Event, LossCause, PhysCpu, Source, Time};

use super::{
    HOST,
    bpf::{Bpf, Capture, Lack, VcpuState},
    callers,
    charge::Books,
    cpu::{Buffers, Cpu, Events, hertz, period, random_period},
    cpus,
    exits::ExitAccount,
    idle::IdleCode,
    perf::{self, Counter, Pace, Scope, Setting, is_refused},
    vcpu_times,
    vcpus::Vcpus,
};
use crate::{
    CallGraph, MappedFile, PmuTrust, ProcessKey, ProcessState, Record, Request, SampleBy, Sampling,
    ShimError, Stopped, VcpuClock, Watermark, clock,
    events::{Counted, Modes},
    own_processes,
};

/// The kernel's limit on rates, which it lowers by itself where samples take long.
const MAX_RATE: &str = "/proc/sys/kernel/perf_event_max_sample_rate";

/// What a sample of a clock takes in a buffer, its header and two counts included; one of cycles takes 40.
const SAMPLE_BYTES: f64 = 72.0;

/// How many seconds of samples a buffer holds unless the user says otherwise.
const BUFFERED_S: f64 = 4.0;

/// Bounds of a buffer that the user did not ask for.
const RING_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=8 << 20;

/// A record becomes visible this much after its time at the latest: between the two lies what an interrupt handler
/// does, unless this machine is itself a guest that is not running.
const SLACK_NS: u64 = 5_000_000;

/// How often periods are drawn anew: a fixed one locks step with guests' ticks.
const REDRAW_EVERY: Duration = Duration::from_millis(250);

/// How often it is looked for CPUs that come and go.
const CPUS_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Session {
    setting: Setting,
    counter: Counter,
    rate_hz: f64,
    buffers: Buffers,
    started: u64,
    cpus: Vec<Cpu>,
    vcpus: Vcpus,
    /// What tells of guests' registers, where it may.
    capture: Option<Capture>,
    /// None where the kernel hides its addresses: then all of the idle task is idling.
    idle: Option<IdleCode>,
    /// What guests are left for, if that was asked for.
    exits: Option<ExitAccount>,
    /// Whether vCPUs' times are told.
    tells_times: bool,
    redrawn: Instant,
    looked_for_cpus: Instant,
    notes: Vec<String>,
    /// Reused for what is taken from a ring.
    bytes: Vec<u8>,
}

/// Begins to sample. `bpf` is what guests are looked at by; none where there can be no guests.
pub(super) fn begin(
    vcpus: Vcpus,
    idle: Option<IdleCode>,
    bpf: Option<Result<&Bpf, &Lack>>,
    request: &Request,
) -> Result<Session, ShimError> {
    if !matches!(request.sample_by, SampleBy::Auto) {
        return Err(ShimError::Request(
            "--source chooses how Xen is sampled: Linux hosts are sampled by their kernel's perf events"
                .into(),
        ));
    }
    check_rate(request.rate_hz)?;
    let by_clock = is_by_clock(request)?;
    raise_file_limit();
    let mut notes = Vec::new();
    let online = cpus::online()?;
    let first = *online.first().ok_or_else(|| ShimError::Request("this machine has no CPU online".into()))?;
    let (mut setting, counter) = choose(request, by_clock, first, &mut notes)?;
    let present = cpus::present()?;
    let bpf = bpf.filter(|_| setting.scope == Scope::Machine);
    let capture = bpf.and_then(|bpf| {
        let captured = bpf
            .map_err(|lack| format!("{lack}; {}", lack.advice()))
            .and_then(|bpf| capture(bpf, cpus_below(&present), setting, first, &mut notes));
        captured.map_err(|lack| notes.push(addresses_alone(&lack))).ok()
    });
    setting.guests = capture.is_some();
    let ring_bytes = request.ring_bytes.map_or_else(
        || {
            let of_guest = if setting.guests { VcpuState::most_bytes(setting.call_graph) } else { 0 };
            let sample = SAMPLE_BYTES + f64::from(callers::bytes(request.call_graph) + of_guest);
            ((request.rate_hz * BUFFERED_S * sample) as usize).clamp(*RING_BYTES.start(), *RING_BYTES.end())
        },
        |bytes| bytes as usize,
    );
    if idle.is_none() && setting.scope == Scope::Machine && counter == Counter::Clock {
        notes.push(
            "the kernel hides its symbols' addresses (kptr_restrict): all that runs in the idle task counts as idling, \
             interrupts included"
                .into(),
        );
    }
    let cpu = |number| Cpu { number, events: None, books: Books::default(), backlog: Vec::new() };
    let exits = request.exits.then(|| exits(bpf, &present, first, setting.scope));
    let exits = exits.and_then(|exits| {
        exits.map_err(|why| notes.push(format!("the exits of guests are not counted: {why}"))).ok()
    });
    let tells_times = request.vcpu_times != Some(false);
    if let Some(lack) = vcpu_times::lack().filter(|_| tells_times) {
        notes.push(format!("what vCPUs did with their time is not known: {lack}"));
    }
    let mut session = Session {
        setting,
        counter,
        rate_hz: request.rate_hz,
        buffers: Buffers::new(ring_bytes),
        started: 0,
        cpus: present.into_iter().map(cpu).collect(),
        vcpus,
        capture,
        idle,
        exits,
        tells_times,
        redrawn: Instant::now(),
        looked_for_cpus: Instant::now(),
        notes,
        bytes: Vec::new(),
    };
    session.open_all(&online)?;
    // Before the first sample can be taken.
    session.started = clock::monotonic_ns();
    session.vcpus.lock().times.begin(session.started);
    if session.setting.scope == Scope::Machine {
        for events in session.cpus.iter().filter_map(|cpu| cpu.events.as_ref()) {
            events.enable().map_err(ShimError::io("enabling an event"))?;
        }
    }
    Ok(session)
}

/// Loads what tells of guests, and tries it on a CPU, on which nothing is sampled yet.
fn capture(
    bpf: &Bpf,
    cpus: u32,
    setting: Setting,
    first: u32,
    notes: &mut Vec<String>,
) -> Result<Capture, String> {
    let loaded = bpf.capture(cpus, setting.call_graph).or_else(|lack| {
        let without = bpf.capture(cpus, CallGraph::Off)?;
        notes.push(format!("the stacks of guests are not captured: {lack}"));
        Ok(without)
    });
    let capture = loaded.map_err(|lack: Lack| format!("{lack}; {}", lack.advice()))?;
    let setting = Setting { guests: true, ..setting };
    match Events::open(setting, first, Counter::Clock, 1.0, Buffers::new(*RING_BYTES.start()), Some(&capture))
    {
        Ok(_) => Ok(capture),
        Err(error) => Err(format!("a BPF program can't be run with samples: {error}")),
    }
}

/// Begins to count exits, or tells why not.
fn exits(
    bpf: Option<Result<&Bpf, &Lack>>,
    present: &[u32],
    first: u32,
    scope: Scope,
) -> Result<ExitAccount, String> {
    if scope != Scope::Machine {
        return Err("this user may not sample the machine".into());
    }
    let advised = |lack: &Lack| format!("{lack}; {}", lack.advice());
    let bpf = bpf.ok_or("there can be no guests: there is no /dev/kvm")?.map_err(advised)?;
    ExitAccount::begin(bpf, cpus_below(present), first).map_err(|lack| advised(&lack))
}

/// What the numbers of all CPUs are below.
fn cpus_below(present: &[u32]) -> u32 {
    present.iter().max().map_or(1, |cpu| cpu + 1)
}

fn addresses_alone(why: &str) -> String {
    format!(
        "of guests the addresses are sampled and nothing else, so that what runs there has no names of itself: {why}"
    )
}

fn check_rate(rate_hz: f64) -> Result<(), ShimError> {
    let limit: f64 =
        fs::read_to_string(MAX_RATE).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1e5);
    if (0.1..=limit).contains(&rate_hz) {
        return Ok(());
    }
    Err(ShimError::Request(format!(
        "a rate of {rate_hz} Hz is out of range: this kernel samples at 0.1 to {limit} Hz \
         (sysctl kernel.perf_event_max_sample_rate)"
    )))
}

/// Whether time is to be sampled, not cycles. What this host's perf events could sample besides is not served yet.
fn is_by_clock(request: &Request) -> Result<bool, ShimError> {
    let unserved = |what: &str| {
        Err(ShimError::Request(format!(
            "{what} can't be sampled on Linux hosts: cycles and cpu-clock can, at a rate (-F)"
        )))
    };
    if request.period.is_some() {
        return unserved("a period");
    }
    match request.events.as_slice() {
        [] => Ok(request.pmu_trust == PmuTrust::Never),
        [spec] if spec.modes != Modes::ALL => unserved(&spec.name),
        [spec] if spec.counted == Counted::Cycles => Ok(request.pmu_trust == PmuTrust::Never),
        [spec] if spec.counted == Counted::CpuClock => Ok(true),
        [spec, ..] => unserved(&spec.name),
    }
}

/// Each CPU takes two descriptors; the usual soft limit is for programs that do not.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write one struct rlimit. A limit that stays as it was shows when it is met.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Finds out what may be sampled, and by what, on one CPU for all.
fn choose(
    request: &Request,
    by_clock: bool,
    cpu: u32,
    notes: &mut Vec<String>,
) -> Result<(Setting, Counter), ShimError> {
    let mut setting =
        Setting { scope: Scope::Machine, kernel: true, call_graph: request.call_graph, guests: false };
    let cycles =
        |setting: Setting| setting.sampler(cpu, Counter::Cycles, Pace::Hertz(hertz(request.rate_hz)));
    let mut tried = cycles(setting);
    if request.may_narrow && is_refusal(&tried) {
        setting.scope = Scope::Children;
        notes.push("only the command was sampled: this user may not sample the machine".into());
        tried = cycles(setting);
        if is_refusal(&tried) {
            setting.kernel = false;
            notes.push("only user code was sampled: this user may not sample the kernel".into());
            tried = cycles(setting);
        }
    }
    let why = match tried {
        Ok(_) if by_clock => "that was asked for".to_owned(),
        Ok(_) if perf::counts_cycles() => return Ok((setting, Counter::Cycles)),
        Ok(_) => "its counters do not count".to_owned(),
        Err(error) if is_refused(&error) => {
            return Err(ShimError::PerfForbidden { paranoid: perf::paranoid() });
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV) => "it has no counters for cycles".to_owned(),
            Some(libc::EOPNOTSUPP) => "its counters are given to a guest or may not be used".to_owned(),
            Some(libc::ENOSYS) => return Err(ShimError::NoPerfEvents),
            _ => format!("the kernel refuses to count its cycles: {error}"),
        },
    };
    match setting.sampler(cpu, Counter::Clock, Pace::Period(period(request.rate_hz))) {
        Ok(_) => {
            notes.push(format!("this processor is sampled by the kernel's clock: {why}"));
            Ok((setting, Counter::Clock))
        }
        Err(error) if is_refused(&error) => Err(ShimError::PerfForbidden { paranoid: perf::paranoid() }),
        Err(error) => Err(ShimError::Io { what: "opening an event of the kernel's clock".into(), error }),
    }
}

/// Why a CPU can't be sampled, although an event could be opened on one.
fn refusal(cpu: u32, error: io::Error) -> ShimError {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => ShimError::OpenFiles { cpu },
        Some(libc::EPERM | libc::EACCES | libc::ENOMEM) => ShimError::LockedMemory { cpu },
        _ => ShimError::Io { what: format!("opening events on CPU {cpu}"), error },
    }
}

fn is_refusal<T>(result: &io::Result<T>) -> bool {
    result.as_ref().err().is_some_and(is_refused)
}

impl Session {
    /// Opens events on the CPUs that are online, with buffers that are as large as they may be.
    fn open_all(&mut self, online: &[u32]) -> Result<(), ShimError> {
        let wanted = self.buffers;
        while let Err(error) = self.follow_cpus(online) {
            let is_memory = matches!(error, ShimError::LockedMemory { .. });
            self.buffers = self.buffers.smaller().filter(|_| is_memory).ok_or(error)?;
            self.cpus.iter_mut().for_each(|cpu| cpu.events = None);
        }
        if self.buffers != wanted {
            self.notes.push(format!(
                "the buffers for samples have {} KiB a CPU instead of {}: this user may lock little memory (ulimit -l, sysctl \
                 kernel.perf_event_mlock_kb)",
                self.buffers.samples >> 10,
                wanted.samples >> 10
            ));
        }
        Ok(())
    }

    /// Opens events on CPUs that came online and closes those of CPUs that went.
    fn follow_cpus(&mut self, online: &[u32]) -> Result<(), ShimError> {
        let (setting, counter, rate_hz, buffers) = (self.setting, self.counter, self.rate_hz, self.buffers);
        let (running, capture) = (self.started > 0, self.capture.as_ref());
        for cpu in &mut self.cpus {
            match (&cpu.events, online.contains(&cpu.number)) {
                (None, true) => {
                    match Events::open(setting, cpu.number, counter, rate_hz, buffers, capture) {
                        Ok(events) => cpu.events = Some(events),
                        // It went again.
                        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                        Err(error) => return Err(refusal(cpu.number, error)),
                    }
                    cpu.books.last = None;
                    if running {
                        let events = cpu.events.as_ref().expect("just opened");
                        events.enable().map_err(ShimError::io("enabling an event"))?;
                        self.notes.push(format!("CPU {} came online", cpu.number));
                    }
                }
                (Some(_), false) => {
                    cpu.read(&mut self.bytes, &self.vcpus, self.idle.as_ref(), setting, rate_hz);
                    if let Some(events) = cpu.events.take() {
                        cpu.books.lost_by_kernel += events.lost().unwrap_or(0);
                    }
                    self.notes.push(format!("CPU {} went offline", cpu.number));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn redraw_periods(&self) {
        for events in self.cpus.iter().filter_map(|cpu| cpu.events.as_ref()) {
            // An error is the end of the CPU or of the session, which is noticed elsewhere.
            let _ = events.sampler.set_period(random_period(self.rate_hz));
        }
    }

    /// Reads all rings into their backlogs.
    fn read_all(&mut self) {
        for cpu in &mut self.cpus {
            cpu.read(&mut self.bytes, &self.vcpus, self.idle.as_ref(), self.setting, self.rate_hz);
        }
    }
}

impl Sampling for Session {
    fn events(&self) -> Vec<Event> {
        let (name, unit, source) = match self.counter {
            Counter::Cycles => ("cycles", "cycles", Source::Pmu),
            Counter::Clock => ("cpu-clock", "ns", Source::CpuClock),
        };
        vec![Event { name: name.into(), unit: unit.into(), source, rate_hz: self.rate_hz }]
    }

    fn started(&self) -> Time {
        Time(self.started)
    }

    fn cpus(&self) -> Vec<PhysCpu> {
        self.cpus.iter().map(|cpu| PhysCpu(cpu.number)).collect()
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn renew(&mut self) -> Result<(), ShimError> {
        let clock = self.setting.scope == Scope::Machine && self.counter == Counter::Clock;
        if clock && self.redrawn.elapsed() >= REDRAW_EVERY {
            self.redrawn = Instant::now();
            self.redraw_periods();
        }
        if self.looked_for_cpus.elapsed() >= CPUS_EVERY {
            self.looked_for_cpus = Instant::now();
            self.follow_cpus(&cpus::online()?)?;
        }
        Ok(())
    }

    fn drain(&mut self, ring: usize, each: &mut dyn FnMut(Record)) -> Watermark {
        let before = clock::monotonic_ns();
        let cpu = &mut self.cpus[ring];
        cpu.read(&mut self.bytes, &self.vcpus, self.idle.as_ref(), self.setting, self.rate_hz);
        let watermark = Time(before.saturating_sub(SLACK_NS));
        if ring == 0
            && let Some(exits) = &mut self.exits
        {
            cpu.add(exits.take(watermark, &mut self.vcpus.lock()), watermark);
        }
        cpu.backlog.drain(..).for_each(each);
        match cpu.events {
            Some(_) => Watermark::At(watermark),
            None => Watermark::Asleep,
        }
    }

    fn vcpu_times(&mut self) -> Vec<VcpuClock> {
        if self.tells_times { self.vcpus.lock().times.take() } else { Vec::new() }
    }

    fn account(&self, ring: usize) -> CpuAccount {
        let Cpu { events, books, .. } = &self.cpus[ring];
        let by_kernel = events.as_ref().and_then(Events::lost);
        let lost_by_kernel = by_kernel.map_or(books.lost, |count| count + books.lost_by_kernel);
        CpuAccount {
            taken: books.written + lost_by_kernel,
            written: books.written,
            filtered: 0,
            lost: BTreeMap::from_iter((books.lost > 0).then_some((LossCause::RingFull, books.lost))),
            quiet_ns: books.quiet_ns,
            ..CpuAccount::default()
        }
    }

    fn process(&self, domain: u32, key: ProcessKey) -> Option<ProcessState> {
        match key {
            ProcessKey::Pid(pid) if domain == HOST => own_processes::state(pid),
            _ => None,
        }
    }

    fn container(&self, pid: u32) -> Option<String> {
        own_processes::container(pid)
    }

    fn open(&self, pid: u32, file: &MappedFile) -> Option<File> {
        own_processes::open(pid, file)
    }

    fn generated_symbols(&self, pid: u32) -> Option<Vec<u8>> {
        own_processes::generated_symbols(pid)
    }

    fn quiesce(&mut self) -> Result<(), ShimError> {
        if let Some(exits) = &mut self.exits {
            exits.stop();
        }
        // What was lost is told with the next record that finds room, so room is made first.
        self.read_all();
        thread::sleep(Duration::from_nanos(2 * period(self.rate_hz)).min(Duration::from_millis(50)));
        let end = clock::monotonic_ns();
        for cpu in &mut self.cpus {
            if let Some(events) = &cpu.events {
                events.sampler.disable().map_err(ShimError::io("disabling an event"))?;
            }
        }
        self.read_all();
        if let Some(exits) = &mut self.exits {
            self.cpus[0].add(exits.rest(Time(end), &mut self.vcpus.lock()), Time(end));
            self.notes.extend(exits.notes());
        }
        let (mut lost_changes, mut strange) = (0, 0);
        for cpu in &mut self.cpus {
            if let Some(since) = cpu.books.throttled_since.take() {
                cpu.books.quiet_ns += end.saturating_sub(since);
            }
            if cpu.books.quiet_ns > 0 {
                self.notes.push(format!(
                    "the kernel throttled the samples of CPU {} for {:.2} s (sysctl kernel.perf_event_max_sample_rate)",
                    cpu.number,
                    cpu.books.quiet_ns as f64 / 1e9
                ));
            }
            lost_changes += cpu.books.lost_changes;
            strange += cpu.books.strange;
        }
        if let Some((runs @ 1.., ns)) = self.capture.as_ref().and_then(Capture::runs) {
            self.notes.push(format!(
                "the BPF program that looks at guests ran {runs} times, {:.1} µs each",
                ns as f64 / runs as f64 / 1e3
            ));
        }
        if strange > 0 {
            self.notes.push(format!(
                "of {strange} samples of guests their state was not where KVM is expected to keep it: they have their \
                 address alone"
            ));
        }
        if lost_changes > 0 {
            self.notes.push(format!(
                "{lost_changes} news of processes were lost: some of the host's may have no or wrong names"
            ));
        }
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<Stopped, ShimError> {
        Ok(Stopped::default())
    }
}
