//! One recording from its first to its last sample.

mod names;
mod samples;
mod waiting;

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use hv_shim::{
    CallGraph, Change, DomainState, Hypervisor, Owner, Record, Request, Sampling, ShimError, Taken,
};
use profile::{
    CodeAddress, Domain, DomainId, DomainKind, PhysCpu, Time,
    recording::{End, EndReason, Header, Host, Mark, Note, RecordingError, Writer},
};
use symbolizer::{SymbolTable, Symbolizer};

use self::waiting::Waiting;
use crate::{
    books::{self, Books, Sequences},
    callers::Callers,
    domains::{Domains, Filter},
    guests::{Guests, Looking, own_kernel},
    merge::{Merger, Timed},
    naming::Namer,
    processes::Processes,
};

/// How often it is looked for the last answers.
const ANSWERS_EVERY: Duration = Duration::from_millis(5);

/// What is recorded, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the shim is asked for.
    pub request: Request,
    /// Which domains.
    pub filter: Filter,
    /// How much of a recording a killed collector may take along, and its reader has to wait for.
    pub flush_every: Duration,
    /// Whether what was captured of stacks is kept in the recording.
    pub keep_stacks: bool,
    /// How names are looked for in guests' memory; none leaves guests alone.
    pub look_into_guests: Option<Looking>,
    /// The program and its version, for the recording's header.
    pub tool: String,
    /// The kernel's release and the host's name, for the same.
    pub kernel: String,
    /// See `kernel`.
    pub hostname: String,
    /// The command whose life is recorded, for the same.
    pub command: Option<Vec<String>>,
    /// What the user asked for besides, for the same.
    pub options: BTreeMap<String, String>,
}

/// What the caller of [`record`] decides and provides while it runs.
pub trait Progress {
    /// Sampling has begun: the command that is to be recorded can be started.
    fn started(&mut self) -> io::Result<()>;

    /// Asked every few milliseconds: a reason ends the recording.
    fn should_end(&mut self) -> Option<EndReason>;

    /// Told about once a second.
    fn so_far(&mut self, samples: u64, lost: u64, elapsed: Duration);

    /// The moments that the user has named since he was asked last.
    fn take_marks(&mut self) -> Vec<(Instant, String)> {
        Vec::new()
    }

    /// A domain appeared, or goes by another name: adds what symbols there are for it. Returns whether the user named its
    /// kernel: that holds, whatever is found in its memory.
    fn symbols(&mut self, domain: &Domain, symbolizer: &mut Symbolizer) -> Result<bool, String>;
}

/// Where a recording goes.
pub trait Sink: Write + Sized {
    /// How large it may become.
    fn max_bytes(&self) -> Option<u64> {
        None
    }

    /// Where the recording goes on when this is as large as it may be; none if it ends there.
    fn next(&mut self) -> io::Result<Option<Self>> {
        Ok(None)
    }
}

impl Sink for &mut Vec<u8> {}
impl Sink for io::PipeWriter {}

/// What a recording came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Samples written.
    pub samples: u64,
    /// Samples lost.
    pub lost: u64,
    /// From the first to the last moment of sampling.
    pub elapsed: Duration,
    /// Why it ended.
    pub reason: EndReason,
    /// How long the machine stood still at most when the shim was put in place.
    pub load_pause: Option<Duration>,
    /// How long the machine stood still at most when the shim was taken out.
    pub unload_pause: Option<Duration>,
    /// What the user should know; in the recording too.
    pub notes: Vec<String>,
    /// Domains that were asked for and never there.
    pub unmatched: Vec<String>,
}

/// Why a recording failed. Whatever was written is readable, and the shim is out again unless that is the failure.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The hypervisor or the shim.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// The file.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The hypervisor's own symbols make no sense.
    #[error("Xen's own symbols can't be used: {0}")]
    Symbols(symbolizer::ParseError),
    /// The command.
    #[error("the command could not be started: {0}")]
    Command(io::Error),
    /// The next file.
    #[error("the next file of the recording can't be written")]
    NextFile(#[source] io::Error),
    /// The shim, after the end of the recording.
    #[error(
        "the recording is whole, but what sampled stays behind in the hypervisor, quiet: `xenoscope unload` or the next \
         recording takes it out"
    )]
    NotStopped(#[source] ShimError),
}

/// Records until `progress` says that it is enough, into `sink`.
pub fn record<W: Sink>(
    hypervisor: &mut dyn Hypervisor,
    options: &Options,
    sink: W,
    progress: &mut dyn Progress,
) -> Result<Summary, CollectError> {
    let host = host(hypervisor, options)?;
    let guests = Guests::new(
        hypervisor.memories(),
        hypervisor.own_kernel(),
        options.look_into_guests.as_ref(),
        options.request.call_graph != CallGraph::Off,
    );
    // Before the first sample, unless somebody watches: what is known soon counts for more then.
    let own_kernel = (!guests.are_watched()).then(|| own_kernel(&hypervisor.own_kernel()));
    let sampling = hypervisor.sample(&options.request)?;
    let origin = Instant::now();
    // The hypervisor's books from the moment on at which sampling began: nothing else comes before this.
    let (states, idle) = (hypervisor.domains()?, hypervisor.idle_ns()?);
    let header = header(host, options, &*sampling);
    let wants_callers = options.request.call_graph != CallGraph::Off;
    let mut session = Session {
        cpus: sampling.cpus(),
        clock: Clock { origin, started: sampling.started() },
        books: Books::new(sampling.cpus(), idle),
        merger: Merger::new(sampling.cpus().len(), sampling.started()),
        drained: sampling.started(),
        namer: Namer::new(hypervisor_symbols(hypervisor, &*sampling)?),
        callers: Callers::default(),
        wants_callers,
        without_room: 0,
        keeps_stacks: options.keep_stacks,
        domains: Domains::new(options.filter.clone()),
        processes: Processes::new(wants_callers),
        guests,
        own_kernel,
        departed: Vec::new(),
        named_by_user: HashSet::new(),
        ready: Waiting::default(),
        waits_for_names: true,
        sequences: Sequences::default(),
        writer: Writer::new(sink, &header)?,
        notes: Vec::new(),
        hypervisor,
        sampling,
        flush_every: options.flush_every,
    };
    session.sampling.renew()?;
    session.take_domains(&states, true, progress);
    session.take_notes();
    let load_pause = session.sampling.load_pause();
    progress.started().map_err(CollectError::Command)?;
    let reason = session.run(progress)?;
    let mut summary = session.end(reason)?;
    summary.load_pause = load_pause;
    Ok(summary)
}

/// The hypervisor's own code, and what sampling put into it.
fn hypervisor_symbols(
    hypervisor: &mut dyn Hypervisor,
    sampling: &dyn Sampling,
) -> Result<Symbolizer, CollectError> {
    let (own, added) = (hypervisor.symbols()?, sampling.symbols());
    let rows = own
        .iter()
        .chain(&added)
        .map(|symbol| (symbol.address.0, symbol.kind, symbol.name.as_str(), symbol.livepatch));
    let mut symbolizer = Symbolizer::default();
    if !own.is_empty() {
        symbolizer.set_hypervisor(SymbolTable::from_xen(rows).map_err(CollectError::Symbols)?);
    }
    Ok(symbolizer)
}

fn host(hypervisor: &dyn Hypervisor, options: &Options) -> Result<Host, CollectError> {
    let host = hypervisor.host()?;
    Ok(Host {
        hypervisor: host.hypervisor,
        build_id: host.build_id,
        kernel: options.kernel.clone(),
        hostname: options.hostname.clone(),
        cpus: host.cpus,
    })
}

fn header(host: Host, options: &Options, sampling: &dyn Sampling) -> Header {
    Header {
        tool: options.tool.clone(),
        started_unix_ns: books::unix_ns(),
        started: sampling.started(),
        host,
        events: sampling.events(),
        command: options.command.clone(),
        options: options.options.clone(),
    }
}

/// The samples' clock, read from here: both are the hypervisor's, and begin together.
struct Clock {
    origin: Instant,
    started: Time,
}

impl Clock {
    fn at(&self, moment: Instant) -> Time {
        Time(self.started.0 + moment.saturating_duration_since(self.origin).as_nanos() as u64)
    }

    fn now(&self) -> Time {
        Time(self.started.0 + self.origin.elapsed().as_nanos() as u64)
    }
}

/// A record on its way, with the ring that it came from.
struct Pending {
    ring: usize,
    record: Record,
}

impl Timed for Pending {
    fn time(&self) -> Time {
        self.record.time()
    }
}

/// For how long it is remembered what ran in a domain that is no more: its last samples wait behind others for longer than
/// for any name.
const MOURNING: Duration = Duration::from_secs(15);

/// Samples that wait for longer than this are worth a word: who watches must not take their absence for idleness.
const LONG_WAIT_NS: u64 = 500_000_000;

/// For how long samples wait for names once all are there, together: who ended the recording waits, too.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// The number of the domain that this runs in: dom0, or the Linux host, whose processes tell of themselves.
const CONTROL: u32 = 0;

fn code_address(taken: &Taken) -> CodeAddress {
    CodeAddress::InstructionPointer(taken.instruction_pointer)
}

struct Session<'a, W: Sink> {
    hypervisor: &'a mut dyn Hypervisor,
    sampling: Box<dyn Sampling>,
    /// Whose each ring is.
    cpus: Vec<PhysCpu>,
    clock: Clock,
    merger: Merger<Pending>,
    /// When the newest record was made that was ever drained.
    drained: Time,
    domains: Domains,
    processes: Processes,
    guests: Guests,
    /// The kernel that this runs on, once it was read.
    own_kernel: Option<Result<SymbolTable, String>>,
    /// The domains that are no more, since when, and of which it is still known what ran.
    departed: Vec<(DomainId, Instant)>,
    /// The domains whose kernels the user named.
    named_by_user: HashSet<DomainId>,
    /// Complete, and not written yet.
    ready: Waiting,
    /// Whether it may wait for names.
    waits_for_names: bool,
    namer: Namer,
    callers: Callers,
    /// Whether callers were asked for, so that their absence is a gap.
    wants_callers: bool,
    /// Samples that came without their stacks, because the ring was nearly full.
    without_room: u64,
    keeps_stacks: bool,
    books: Books,
    sequences: Sequences,
    writer: Writer<W>,
    notes: Vec<String>,
    flush_every: Duration,
}

impl<W: Sink> Session<'_, W> {
    fn run(&mut self, progress: &mut dyn Progress) -> Result<EndReason, CollectError> {
        let mut listed = Instant::now();
        let mut flushed = Instant::now();
        let mut is_behind = false;
        loop {
            if let Some(reason) = progress.should_end() {
                // Who was told that a mark is set may end the recording in the next moment.
                self.take_marks(progress);
                return Ok(reason);
            }
            if !is_behind {
                self.guests.rest(self.sampling.drain_every());
            }
            self.sampling.renew()?;
            self.drain();
            if listed.elapsed() >= self.hypervisor.list_every() {
                self.list_domains(progress)?;
                listed = Instant::now();
            }
            self.take_marks(progress);
            is_behind = self.write_ready(progress)?;
            if flushed.elapsed() >= self.flush_every {
                self.flush()?;
                let totals = self.books.totals(&*self.sampling);
                progress.so_far(totals.written, totals.lost, self.clock.origin.elapsed());
                flushed = Instant::now();
                if !self.go_on()? {
                    return Ok(EndReason::Full);
                }
            }
        }
    }

    fn take_marks(&mut self, progress: &mut dyn Progress) {
        for (at, name) in progress.take_marks() {
            let time = self.clock.at(at);
            self.writer.mark(Mark { time, name });
        }
    }

    /// Goes on in another file if this one is full; whether the recording goes on.
    fn go_on(&mut self) -> Result<bool, CollectError> {
        let sink = self.writer.sink();
        if sink.max_bytes().is_none_or(|most| self.writer.written() < most) {
            return Ok(true);
        }
        let Some(next) = self.writer.sink_mut().next().map_err(CollectError::NextFile)? else {
            return Ok(false);
        };
        let now = self.clock.now();
        self.writer.snapshot(self.books.snapshot_of_file(now, &self.domains, &*self.sampling));
        self.writer.flush()?;
        self.writer.continue_in(next, now, books::unix_ns())?;
        Ok(true)
    }

    fn end(mut self, reason: EndReason) -> Result<Summary, CollectError> {
        self.sampling.quiesce()?;
        let elapsed = self.clock.origin.elapsed();
        // The hypervisor's books of the same interval, before anything else is done.
        let states = self.hypervisor.domains()?;
        self.domains.update(&states, self.clock.now(), false, &mut self.writer);
        self.books.update_idle(&self.hypervisor.idle_ns()?);
        self.drain();
        self.ready.extend(self.merger.rest());
        self.ask_ahead(0);
        let deadline = Instant::now() + LAST_PATIENCE;
        self.write_named(None);
        while !self.ready.is_empty() {
            // The last answers are on their way, and nothing waits for ever.
            thread::sleep(ANSWERS_EVERY);
            self.waits_for_names = Instant::now() < deadline;
            self.write_named(None);
        }
        self.take_notes();
        if self.without_room > 0 {
            self.note(format!(
                "{} samples came without their stacks, because a ring was nearly full: sample less often (-F), copy less \
                 of each stack (--call-graph stack,BYTES) or make the rings larger (--ring-size)",
                self.without_room
            ));
        }
        let unmatched = self.domains.unmatched();
        for text in &unmatched {
            self.note(format!("no domain was called {text}, nor had that number"));
        }
        let time = Time(self.clock.started.0 + elapsed.as_nanos() as u64);
        let snapshot = self.books.snapshot(time, &self.domains, &*self.sampling);
        self.books.check(&snapshot, &self.sequences, &mut self.writer);
        self.writer.snapshot(snapshot);
        self.tell_vcpu_times(time);
        let totals = self.books.totals(&*self.sampling);
        // The file first: nothing that happens now may cost it.
        self.writer.flush()?;
        self.writer.finish(End { time, reason: reason.clone() })?;
        let stopped = self.sampling.stop().map_err(CollectError::NotStopped)?;
        Ok(Summary {
            samples: totals.written,
            lost: totals.lost,
            elapsed,
            reason,
            load_pause: None,
            unload_pause: stopped.pause,
            notes: self.notes,
            unmatched,
        })
    }

    /// Empties all rings into the merger.
    fn drain(&mut self) {
        for ring in 0..self.cpus.len() {
            let (merger, drained, domains) = (&mut self.merger, &mut self.drained, &mut self.domains);
            let watermark = self.sampling.drain(ring, &mut |record| {
                if let Record::Sample(Taken {
                    owner: Owner::Kernel(number) | Owner::Process(number),
                    time,
                    ..
                }) = record
                {
                    domains.ran(number, time);
                }
                let pending = Pending { ring, record };
                *drained = pending.time().max(*drained);
                merger.push(ring, pending);
            });
            self.merger.advance(ring, watermark);
        }
        self.processes.drained(self.drained);
    }

    fn list_domains(&mut self, progress: &mut dyn Progress) -> Result<(), CollectError> {
        let states = self.hypervisor.domains()?;
        self.take_domains(&states, false, progress);
        Ok(())
    }

    fn take_domains(&mut self, states: &[DomainState], first: bool, progress: &mut dyn Progress) {
        let changes = self.domains.update(states, self.clock.now(), first, &mut self.writer);
        for id in changes.gone {
            // Not a page of it may stay mapped.
            self.guests.forget(id);
            self.departed.push((id, Instant::now()));
        }
        for (id, _) in self.departed.extract_if(.., |(_, gone)| gone.elapsed() > MOURNING) {
            self.processes.forget(id, &mut self.namer.symbolizer);
            self.namer.forget(id);
            self.namer.symbolizer.forget(id);
            self.callers.forget(id);
        }
        self.processes.bury(self.clock.now(), &mut self.namer.symbolizer);
        self.namer.forget_processes(&self.processes.take_ended());
        for id in changes.born {
            self.guests.forget(id);
            self.namer.forget(id);
            self.namer.symbolizer.forget(id);
            let domain = self.domains.domain(id).clone();
            match progress.symbols(&domain, &mut self.namer.symbolizer) {
                Ok(true) => drop(self.named_by_user.insert(id)),
                Ok(false) => {}
                Err(text) => self.note(text),
            }
            let is_looked_into = self.is_looked_into(id);
            if matches!(domain.kind, DomainKind::Dom0 | DomainKind::Host)
                && !self.named_by_user.contains(&id)
                && !(is_looked_into && self.guests.name_kernel_of(&domain))
            {
                self.name_own_kernel(id);
            }
            if is_looked_into {
                self.guests.attach(&domain);
            }
        }
    }

    /// Gives the kernel that this runs on its names.
    fn name_own_kernel(&mut self, id: DomainId) {
        let read = || own_kernel(&self.hypervisor.own_kernel());
        let names = self.own_kernel.get_or_insert_with(read).clone();
        self.take_own_kernel(id, names);
    }

    /// Writes what is complete, until the rings have to be emptied again; whether more is left. A domain that is not known
    /// yet is looked for first.
    fn write_ready(&mut self, progress: &mut dyn Progress) -> Result<bool, CollectError> {
        let until = Instant::now() + self.sampling.drain_every();
        let before = self.ready.len();
        self.ready.extend(self.merger.ready());
        let unknown = |record: &Record| {
            record.taken().is_some_and(|taken| {
                taken.charged_to.is_some_and(|number| self.domains.of_number_at(number, taken.time).is_none())
            })
        };
        if self.ready.later(before).any(unknown) {
            self.list_domains(progress)?;
        }
        self.ask_ahead(before);
        Ok(self.write_named(Some(until)))
    }

    fn note_once(&mut self, text: Option<String>) {
        if let Some(text) = text.filter(|text| !self.notes.contains(text)) {
            self.note(text);
        }
    }

    fn write(&mut self, Pending { ring, record }: Pending) {
        match record {
            Record::Sample(taken) => self.write_sample(ring, &taken),
            Record::Exits(exits) => self.write_exits(&exits),
            Record::Change { time, change } => self.take_change(time, change),
        }
    }

    fn take_change(&mut self, time: Time, change: Change) {
        if let Some(host) = self.domains.of_number(CONTROL) {
            let (symbolizer, writer) = (&mut self.namer.symbolizer, &mut self.writer);
            self.processes.change(host, time, change, &*self.sampling, symbolizer, writer);
        }
    }

    fn flush(&mut self) -> Result<(), CollectError> {
        self.take_notes();
        self.books.update_idle(&self.hypervisor.idle_ns()?);
        let now = self.clock.now();
        if let Some(since) = self.ready.since().filter(|since| now.0.saturating_sub(since.0) > LONG_WAIT_NS) {
            self.writer.samples_wait(since);
        }
        let snapshot = self.books.snapshot(now, &self.domains, &*self.sampling);
        self.writer.snapshot(snapshot);
        self.tell_vcpu_times(now);
        Ok(self.writer.flush()?)
    }

    fn tell_vcpu_times(&mut self, now: Time) {
        let clocks = self.sampling.vcpu_times();
        if let Some(times) = self.books.vcpu_times(now, &clocks, &self.domains) {
            self.writer.vcpu_times(times);
        }
    }

    fn take_notes(&mut self) {
        for note in self.sampling.take_notes() {
            self.note(note);
        }
    }

    fn note(&mut self, text: String) {
        self.writer.note(Note { time: self.clock.now(), text: text.clone() });
        self.notes.push(text);
    }
}
