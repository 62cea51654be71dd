//! `perf.data` in: what `perf record` and `perf kvm record` have sampled, as a recording.
//!
//! A process with samples in guest mode is a virtual machine: its guest's code is charged to it as kernel and user, the
//! host's kernel on its vCPUs' threads as hypervisor, all else of the process as backend; exactly as if the host had been
//! sampled here. Chains that perf took are kept; names come from the kernel symbols that the caller has, mapped files are
//! located.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Read, Seek, SeekFrom, Write},
};

use linux_perf_data::{
    AttributeDescription, PerfFile, PerfFileReader, PerfFileRecord,
    linux_perf_event_reader::{CpuMode, EventRecord, SampleRecord},
};
use profile::{
    Chain, ChainId, CodeAddress, Domain, DomainId, DomainKind, Event, EventId, Frame, ImageOffset, Mode,
    Origin, PhysCpu, Process, ProcessId, Sample, Source, Space, Time, VcpuId,
    recording::{End, EndReason, Header, Host, MAX_DEPTH, Note, RecordingError, Writer},
};

use crate::perf_file;

/// A `perf.data` could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is something else, or damaged.
    #[error("the perf.data can't be read")]
    Perf(#[from] linux_perf_data::Error),
    /// What it says of itself can't be.
    #[error("the perf.data is damaged: {0}")]
    Damaged(&'static str),
    /// Part of it is not what it should be.
    #[error("a record of the perf.data can't be read")]
    Record(#[source] io::Error),
    /// It holds no samples with address, time and CPU.
    #[error("the perf.data has no samples with address and time")]
    NoSamples,
    /// There are more domains, processes or events in it than a recording can have.
    #[error("the perf.data has too many {0}")]
    TooMany(&'static str),
    /// The recording could not be written.
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

/// Names for addresses of a kernel: the function and where it begins.
pub type KernelSymbols<'a> = &'a dyn Fn(u64) -> Option<(String, u64)>;

/// What was taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Samples written.
    pub samples: u64,
    /// Samples without an address or a time.
    pub skipped: u64,
    /// Virtual machines.
    pub guests: usize,
}

const HOST: DomainId = DomainId(0);

/// What perf's kernel counts threads and processes by.
type Pid = i32;

/// Reads a `perf.data` twice and writes it as a recording.
pub fn import_perf<R: Read + Seek, W: Write>(
    mut input: R,
    host_kernel: KernelSymbols<'_>,
    guest_kernel: KernelSymbols<'_>,
    sink: W,
) -> Result<(Imported, W), ImportError> {
    perf_file::check(&mut input)?;
    let first = Survey::of(&mut input)?;
    input.seek(SeekFrom::Start(0)).map_err(ImportError::Record)?;
    let PerfFileReader { mut perf_file, mut record_iter } = PerfFileReader::parse_file(&mut input)?;
    let header = header(&perf_file, &first)?;
    let mut import = Import {
        writer: Writer::new(sink, &header)?,
        survey: &first,
        host_kernel,
        guest_kernel,
        domains: HashMap::new(),
        processes: HashMap::new(),
        lives: 0,
        names: HashMap::new(),
        maps: HashMap::new(),
        counts: HashMap::new(),
        lost: 0,
        imported: Imported::default(),
    };
    import.introduce(&first);
    while let Some(record) = record_iter.next_record(&mut perf_file)? {
        let PerfFileRecord::EventRecord { attr_index, record } = record else { continue };
        let parsed = perf_file::parse(&record)?;
        import.take(attr_index, parsed)?;
    }
    import.finish(&first)
}

/// What must be known before the first sample is written.
#[derive(Default)]
struct Survey {
    times: Option<(u64, u64)>,
    /// Processes whose threads were in guest mode, with these threads in the order of their numbers.
    guests: BTreeMap<Pid, BTreeSet<Pid>>,
    commands: HashMap<Pid, String>,
    cpus: u32,
}

impl Survey {
    fn of(input: impl Read + Seek) -> Result<Self, ImportError> {
        let mut survey = Self::default();
        let PerfFileReader { mut perf_file, mut record_iter } = PerfFileReader::parse_file(input)?;
        while let Some(record) = record_iter.next_record(&mut perf_file)? {
            let PerfFileRecord::EventRecord { record, .. } = record else { continue };
            match perf_file::parse(&record)? {
                EventRecord::Sample(sample) => survey.sample(&sample),
                EventRecord::Comm(comm) => {
                    let name = String::from_utf8_lossy(&comm.name.as_slice()).into_owned();
                    survey.commands.insert(comm.pid, name);
                }
                _ => {}
            }
        }
        if survey.times.is_none() {
            return Err(ImportError::NoSamples);
        }
        Ok(survey)
    }

    fn sample(&mut self, sample: &SampleRecord<'_>) {
        if let Some(time) = sample.timestamp {
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
        self.cpus = self.cpus.max(sample.cpu.unwrap_or(0).saturating_add(1));
        if is_guest(sample.cpu_mode)
            && let (Some(pid), Some(tid)) = (sample.pid, sample.tid)
        {
            self.guests.entry(pid).or_default().insert(tid);
        }
    }
}

fn is_guest(mode: CpuMode) -> bool {
    matches!(mode, CpuMode::GuestKernel | CpuMode::GuestUser)
}

fn header(file: &PerfFile, survey: &Survey) -> Result<Header, ImportError> {
    let text = |text: Result<Option<&str>, linux_perf_data::Error>| {
        text.ok().flatten().unwrap_or_default().to_owned()
    };
    let attributes = file.event_attributes();
    if attributes.len() > usize::from(u16::MAX) {
        return Err(ImportError::TooMany("events"));
    }
    let started = survey.times.map_or(0, |(first, _)| first);
    // perf stores a pair of the wall clock and its own only if it was asked to (-k).
    let anchor = file.clock_data().ok().flatten();
    let unix = anchor
        .map_or(0, |clock| clock.wall_clock_ns.wrapping_sub(clock.clockid_time_ns).wrapping_add(started));
    Ok(Header {
        tool: format!("perf {}", text(file.perf_version())),
        started_unix_ns: unix,
        started: Time(started),
        host: Host {
            hypervisor: if survey.guests.is_empty() { "Linux" } else { "KVM" }.to_owned(),
            build_id: None,
            kernel: text(file.os_release()),
            hostname: text(file.hostname()),
            cpus: file.nr_cpus().ok().flatten().map_or(survey.cpus, |cpus| cpus.nr_cpus_online),
        },
        events: attributes.iter().map(event).collect(),
        command: file.cmdline().ok().flatten().map(|words| words.into_iter().map(str::to_owned).collect()),
        options: BTreeMap::from([("imported".to_owned(), "perf.data".to_owned())]),
    })
}

fn event(attribute: &AttributeDescription) -> Event {
    let name = attribute.name().unwrap_or("unknown").to_owned();
    let is_clock = name.contains("clock");
    let (unit, source) = match is_clock {
        true => ("ns".to_owned(), Source::CpuClock),
        false => (name.split(':').next().unwrap_or_default().to_owned(), Source::Pmu),
    };
    use linux_perf_data::linux_perf_event_reader::SamplingPolicy;
    let rate_hz = match attribute.attributes().sampling_policy {
        SamplingPolicy::Frequency(hz) => hz as f64,
        SamplingPolicy::Period(period) if is_clock => 1e9 / period.get() as f64,
        _ => 0.0,
    };
    Event { name, unit, source, rate_hz }
}

/// A mapping of a file.
#[derive(Clone)]
struct Mapped {
    end: u64,
    /// What is added to an address for its offset in the file.
    slide: u64,
    name: String,
}

struct Import<'a, W: Write> {
    writer: Writer<W>,
    survey: &'a Survey,
    host_kernel: KernelSymbols<'a>,
    guest_kernel: KernelSymbols<'a>,
    domains: HashMap<Pid, DomainId>,
    processes: HashMap<Pid, ProcessId>,
    /// How many lives of processes there were.
    lives: u32,
    names: HashMap<Pid, String>,
    /// By process, then by where they begin.
    maps: HashMap<Pid, BTreeMap<u64, Mapped>>,
    /// How many samples each CPU has.
    counts: HashMap<PhysCpu, u64>,
    lost: u64,
    imported: Imported,
}

impl<W: Write> Import<'_, W> {
    fn introduce(&mut self, survey: &Survey) {
        let from = Time(survey.times.map_or(0, |(first, _)| first));
        let (uuid, name) = (None, "host".to_owned());
        let kind = DomainKind::Host;
        self.writer.domain(Domain { id: HOST, number: 0, name, uuid, kind, vcpus: survey.cpus, from });
        for (index, (pid, vcpus)) in (1..).zip(&survey.guests) {
            let id = DomainId(index);
            let name = match survey.commands.get(pid) {
                Some(command) => format!("{command} [{pid}]"),
                None => format!("guest [{pid}]"),
            };
            let (number, kind) = (pid.unsigned_abs(), DomainKind::Kvm);
            let vcpus = vcpus.len() as u32;
            self.writer.domain(Domain { id, number, name, uuid, kind, vcpus, from });
            self.domains.insert(*pid, id);
        }
        self.imported.guests = survey.guests.len();
    }

    fn take(&mut self, attribute: usize, record: EventRecord<'_>) -> Result<(), ImportError> {
        match record {
            EventRecord::Sample(sample) => return self.sample(attribute, &sample),
            EventRecord::Comm(comm) => {
                let name = String::from_utf8_lossy(&comm.name.as_slice()).into_owned();
                if comm.pid == comm.tid {
                    self.names.insert(comm.pid, name);
                    self.processes.remove(&comm.pid);
                }
                if comm.is_execve {
                    self.maps.remove(&comm.pid);
                }
            }
            EventRecord::Fork(fork) if fork.pid != fork.ppid => {
                self.processes.remove(&fork.pid);
                if let Some(name) = self.names.get(&fork.ppid).cloned() {
                    self.names.insert(fork.pid, name);
                }
                if let Some(maps) = self.maps.get(&fork.ppid).cloned() {
                    self.maps.insert(fork.pid, maps);
                }
            }
            EventRecord::Exit(exit) if exit.pid == exit.tid => {
                self.processes.remove(&exit.pid);
                self.maps.remove(&exit.pid);
            }
            EventRecord::Mmap(map) if map.is_executable && map.cpu_mode == CpuMode::User => {
                self.map(map.pid, map.address, map.length, map.page_offset, &map.path.as_slice());
            }
            EventRecord::Mmap2(map) if map.protection & PROT_EXEC != 0 && map.cpu_mode == CpuMode::User => {
                self.map(map.pid, map.address, map.length, map.page_offset, &map.path.as_slice());
            }
            EventRecord::Lost(lost) => self.lost = self.lost.saturating_add(lost.count),
            _ => {}
        }
        Ok(())
    }

    fn map(&mut self, pid: Pid, address: u64, length: u64, offset: u64, path: &[u8]) {
        let path = String::from_utf8_lossy(path);
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let slide = offset.wrapping_sub(address);
        let mapped = Mapped { end: address.saturating_add(length), slide, name };
        self.maps.entry(pid).or_default().insert(address, mapped);
    }

    fn sample(&mut self, attribute: usize, sample: &SampleRecord<'_>) -> Result<(), ImportError> {
        let (Some(ip), Some(time), Ok(event)) = (sample.ip, sample.timestamp, u16::try_from(attribute))
        else {
            self.imported.skipped += 1;
            return Ok(());
        };
        let time = Time(time);
        let (pid, tid) = (sample.pid.unwrap_or(0), sample.tid.unwrap_or(0));
        let guest = self.domains.get(&pid).copied();
        let vcpus = self.survey.guests.get(&pid);
        let vcpu = vcpus.and_then(|threads| threads.iter().position(|&thread| thread == tid));
        let charged_to = guest.unwrap_or(HOST);
        let mode = match (sample.cpu_mode, guest, vcpu) {
            (CpuMode::GuestKernel, ..) => Mode::Kernel,
            (CpuMode::GuestUser, ..) => Mode::User,
            (CpuMode::User, None, _) => Mode::User,
            (CpuMode::User, Some(_), _) | (_, Some(_), None) => Mode::Backend,
            (_, Some(_), Some(_)) => Mode::Hypervisor,
            (_, None, _) => Mode::Kernel,
        };
        // Which process of a guest ran is not known: all its user code is of one.
        let owner = if sample.cpu_mode == CpuMode::GuestUser {
            (charged_to, pid.wrapping_neg())
        } else {
            (HOST, pid)
        };
        let process = match sample.cpu_mode {
            CpuMode::GuestKernel => None,
            _ if pid == 0 => None,
            _ => Some(self.process(owner.0, owner.1, time)?),
        };
        let chain = self.chain(sample, ip, charged_to, pid, process);
        let cpu = PhysCpu(sample.cpu.unwrap_or(0));
        let written = self.counts.entry(cpu).or_default();
        self.writer.sample(Sample {
            time,
            cpu,
            vcpu: vcpu.map(|index| VcpuId { domain: charged_to, index: index as u32 }),
            charged_to: Some(charged_to),
            process,
            mode,
            event: EventId(event),
            weight: sample.period.unwrap_or(1),
            sequence: *written,
            chain,
        });
        *written += 1;
        self.imported.samples += 1;
        Ok(())
    }

    fn process(&mut self, domain: DomainId, pid: Pid, from: Time) -> Result<ProcessId, ImportError> {
        if let Some(&known) = self.processes.get(&pid) {
            return Ok(known);
        }
        let id = ProcessId(self.lives);
        self.lives = self.lives.checked_add(1).ok_or(ImportError::TooMany("processes"))?;
        // The guest's user code stands under the negative number of its virtual machine.
        let (number, name) = match pid {
            ..0 => (None, Some("guest user".to_owned())),
            _ => (Some(pid.unsigned_abs()), self.names.get(&pid).cloned()),
        };
        self.writer.process(Process { id, domain, pid: number, root: None, name, container: None, from });
        self.processes.insert(pid, id);
        Ok(id)
    }

    /// The chain of a sample: perf's, whose contexts are marked by numbers in it, or the one address.
    fn chain(
        &mut self,
        sample: &SampleRecord<'_>,
        ip: u64,
        charged_to: DomainId,
        pid: Pid,
        process: Option<ProcessId>,
    ) -> ChainId {
        let mut mode = sample.cpu_mode;
        let mut frames: Vec<(CpuMode, CodeAddress)> = Vec::new();
        if let Some(chain) = &sample.callchain {
            for index in 0..chain.len().min(usize::from(MAX_DEPTH)) {
                let Some(address) = chain.get(index) else { break };
                match context(address) {
                    Some(Some(other)) => mode = other,
                    Some(None) => {}
                    None => frames.push((
                        mode,
                        match frames.is_empty() {
                            true => CodeAddress::InstructionPointer(address),
                            false => CodeAddress::ReturnAddress(address),
                        },
                    )),
                }
            }
        }
        if frames.is_empty() {
            frames.push((sample.cpu_mode, CodeAddress::InstructionPointer(ip)));
        }
        let mut caller = None;
        for (mode, address) in frames.into_iter().rev() {
            let frame = self.frame(mode, address, charged_to, pid, process);
            let frame = self.writer.frame(frame);
            caller = Some(self.writer.chain(Chain { caller, frame }));
        }
        caller.expect("there is at least the sample's own address")
    }

    fn frame(
        &mut self,
        mode: CpuMode,
        address: CodeAddress,
        charged_to: DomainId,
        pid: Pid,
        process: Option<ProcessId>,
    ) -> Frame {
        let lookup = address.for_lookup();
        let (space, found) = match (mode, process) {
            (CpuMode::GuestKernel, _) => (Space::Kernel(charged_to), (self.guest_kernel)(lookup)),
            (CpuMode::GuestUser, Some(process)) => (Space::User(charged_to, process), None),
            (CpuMode::User, Some(process)) => (Space::User(HOST, process), None),
            _ => (Space::Kernel(HOST), (self.host_kernel)(lookup)),
        };
        if let Some((name, start)) = found {
            let (function, module) = (Some(self.writer.name(&name)), Some(self.writer.name("vmlinux")));
            let offset = ImageOffset(address.raw().wrapping_sub(start));
            return Frame { space, address, function, module, offset, origin: Origin::default() };
        }
        let maps = self.maps.get(&pid).filter(|_| mode == CpuMode::User);
        let mapped = maps.and_then(|maps| maps.range(..=lookup).next_back());
        let mapped = mapped.map(|(_, mapped)| mapped).filter(|mapped| lookup < mapped.end);
        let (module, offset) = match mapped {
            Some(mapped) => (Some(self.writer.name(&mapped.name)), address.raw().wrapping_add(mapped.slide)),
            None => (None, 0),
        };
        Frame {
            space,
            address,
            function: None,
            module,
            offset: ImageOffset(offset),
            origin: Origin::default(),
        }
    }

    fn finish(mut self, survey: &Survey) -> Result<(Imported, W), ImportError> {
        if self.imported.samples == 0 {
            return Err(ImportError::NoSamples);
        }
        let time = Time(survey.times.map_or(0, |(_, last)| last));
        let text = "taken in from a perf.data: idle time is not known".to_owned();
        self.writer.note(Note { time, text });
        if self.lost > 0 {
            let text = format!("perf lost {} records", self.lost);
            self.writer.note(Note { time, text });
        }
        let sink = self.writer.finish(End { time, reason: EndReason::Duration })?;
        Ok((self.imported, sink))
    }
}

/// `PROT_EXEC` of mmap(2).
const PROT_EXEC: u32 = 4;

/// What a number in a chain says of those behind it (`enum perf_callchain_context`); none if it is an address, and no
/// mode if it is a context that is not known here.
fn context(number: u64) -> Option<Option<CpuMode>> {
    const MAX: u64 = -4095i64 as u64;
    if number < MAX {
        return None;
    }
    Some(match -(number as i64) {
        128 => Some(CpuMode::Kernel),
        512 => Some(CpuMode::User),
        // A guest's context alone does not say of which half; the two that do follow it.
        2176 => Some(CpuMode::GuestKernel),
        2560 => Some(CpuMode::GuestUser),
        _ => None,
    })
}
