//! Xen's own profiler of old (public/xenoprof.h), driven from dom0 by hypercalls alone: up to Xen 4.21, from a PV dom0.
//!
//! One session is all that a hypervisor has, and one that dies leaves it running: every start therefore ends whatever
//! it finds, once it holds the claim that keeps two of ours apart ([`XENOPROF`]).

mod buffers;
mod operations;

use std::{
    io, mem,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use profile::{CpuAccount, Event, EventId, LossCause, Mode, PhysCpu, Source, Time};

use self::{
    buffers::{Buffer, Entry, Watched},
    operations::{op, operate, try_to},
};
use super::{
    claim::{Claim, XENOPROF},
    domctl::VcpuQueries,
    hypercalls::{DomainInfo, Hypercalls},
    privcmd::Access,
    processor::Processor,
    queues::Queues,
    standing,
};
use crate::{
    Owner, PmuTrust, Record, Request, Sampling, ShimError, Stopped, Taken, Watermark, clock,
    events::{Counted, EventError, EventSpec, Modes, PERIODS},
};

/// The name by which a domain maps what Xen shares with it.
const DOMID_SELF: u16 = 0x7ff0;

/// How many records a domain's buffers hold; Xen reduces it to what fits into 32 pages.
const RECORDS: u32 = 8192;

/// `MAX_OPROF_DOMAINS`.
const MOST_DOMAINS: usize = 25;

const RATES_HZ: RangeInclusive<f64> = 0.1..=20_000.0;

/// How often the domains are looked at, and for how long a session lasts at least.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// For how long a counter is waited for while this CPU is kept busy.
const PROOF: Duration = Duration::from_millis(300);

/// Whether this hypervisor has xenoprof, and dom0 can use it; otherwise why not. Changes nothing.
pub(super) fn look(xen: &Hypercalls) -> Result<(), String> {
    let lacking = "this Xen has no xenoprof (Xen 4.22 has dropped it, and builds may leave it out)";
    match operate(xen, op::NONE, &mut []) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return Err(lacking.into()),
        Err(error) => return Err(format!("xenoprof can't be asked: {error}")),
        Ok(_) => return Err("xenoprof knows an operation that there is not".into()),
    }
    let domains = xen.domains().map_err(|error| format!("the domains can't be listed: {error}"))?;
    match domains.iter().any(|info| info.domid == 0 && info.is_hvm()) {
        true => Err("xenoprof shares its buffers with a PV dom0 only, and this one is PVH".into()),
        false => Ok(()),
    }
}

/// Ends a session that a dead process of ours has left running; tells whether there was one.
pub(super) fn remove_left_over(xen: &Hypercalls) -> Result<bool, ShimError> {
    if XENOPROF.left_over().is_none() {
        return Ok(false);
    }
    let _claim = XENOPROF.claim("")?;
    recover(xen);
    Ok(true)
}

/// Ends whatever session there is. Each operation is refused where what it ends was never begun.
fn end(xen: &Hypercalls) {
    for op in [op::STOP, op::DISABLE_VIRQ, op::RELEASE_COUNTERS, op::SHUTDOWN] {
        try_to(xen, op);
    }
}

/// The same, of a session that may have died anywhere on its way.
fn recover(xen: &Hypercalls) {
    end(xen);
    if operate(xen, op::INIT, &mut [0; INIT_BYTES]).is_err() {
        return;
    }
    for op in [op::RESET_ACTIVE_LIST, op::RESET_PASSIVE_LIST] {
        try_to(xen, op);
    }
    // dom0's own buffers are taken back only where it is in the active list, which a session that died early never put
    // it into. Asked for again they are shared now, or are so still (EBUSY): never taken back without having been shared.
    let shared = operate(xen, op::GET_BUFFER, &mut own_buffer());
    if shared.map_or_else(|error| error.raw_os_error() == Some(libc::EBUSY), |_| true)
        && operate(xen, op::SET_ACTIVE, &mut DOM0.to_le_bytes()).is_ok()
    {
        try_to(xen, op::DISABLE_VIRQ);
    }
    try_to(xen, op::SHUTDOWN);
}

const DOM0: u16 = 0;

/// `struct xenoprof_get_buffer`.
fn own_buffer() -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&RECORDS.to_le_bytes());
    bytes
}

/// `struct xenoprof_init`.
const INIT_BYTES: usize = 72;

/// What is to be sampled.
#[derive(Clone, Debug)]
struct Plan {
    name: String,
    selector: u64,
    modes: Modes,
    period: u64,
    /// 0 where a period was asked for.
    rate_hz: f64,
}

impl Plan {
    fn of(request: &Request, processor: &Processor, khz: u32) -> Result<Self, ShimError> {
        let refuse = |why: String| Err(ShimError::Request(why));
        if request.pmu_trust == PmuTrust::Never {
            return refuse("xenoprof needs the performance counters, which are not to be trusted".into());
        }
        let cycles = EventSpec { name: "cycles".into(), counted: Counted::Cycles, modes: Modes::ALL };
        let spec = match request.events.as_slice() {
            [] => &cycles,
            [spec] if spec.counted == Counted::Cycles => spec,
            [spec, ..] => {
                return refuse(format!("{} can't be sampled by xenoprof here: cycles can", spec.name));
            }
        };
        if !RATES_HZ.contains(&request.rate_hz) {
            return refuse(format!(
                "a rate of {} Hz is out of range: xenoprof samples at {} to {} Hz",
                request.rate_hz,
                RATES_HZ.start(),
                RATES_HZ.end()
            ));
        }
        let by_rate = (f64::from(khz) * 1e3 / request.rate_hz) as u64;
        let period = request.period.unwrap_or(by_rate.clamp(*PERIODS.start(), *PERIODS.end()));
        if !PERIODS.contains(&period) {
            return Err(EventError::Period(period).into());
        }
        Ok(Self {
            name: spec.name.clone(),
            selector: processor.selector_of(spec)?,
            modes: spec.modes,
            period,
            rate_hz: if request.period.is_some() { 0.0 } else { request.rate_hz },
        })
    }

    /// `struct xenoprof_counter`, for the first counter and for the others, which stay off.
    fn counter(&self, index: u32) -> [u8; 48] {
        let flag = |wanted: bool| u32::from(wanted);
        let mut bytes = [0; 48];
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, index);
        put(8, self.period as u32);
        put(16, flag(index == 0));
        // AMD's events have twelve bits, the upper four of which lie apart in the selector.
        put(20, (self.selector & 0xff | self.selector >> 24 & 0xf00) as u32);
        put(24, flag(self.modes.hypervisor));
        put(28, flag(self.modes.kernel));
        put(32, flag(self.modes.user));
        put(40, (self.selector >> 8 & 0xff) as u32);
        bytes
    }
}

/// A session.
pub(super) struct Session {
    xen: Arc<Hypercalls>,
    /// None once it has ended.
    running: Option<Running>,
    queries: VcpuQueries,
    plan: Plan,
    is_amd: bool,
    queues: Queues,
    started: Time,
    /// All that there was by then is in the queues.
    until: Time,
    /// Records of counters that this session has not set up.
    foreign: u64,
    followed: Instant,
    notes: Vec<String>,
    _claim: Claim,
}

/// What Xen is doing for us.
struct Running {
    xen: Arc<Hypercalls>,
    watched: Vec<Watched>,
    /// The domains that lived when it began.
    domains: Vec<DomainInfo>,
}

/// Begins to sample.
pub(super) fn begin(
    xen: Arc<Hypercalls>,
    processor: &Processor,
    request: &Request,
    mut notes: Vec<String>,
) -> Result<Session, ShimError> {
    look(&xen).map_err(ShimError::Request)?;
    let (highest_cpu, khz) =
        xen.highest_cpu_and_khz().map_err(ShimError::io("asking Xen about its processors"))?;
    let plan = Plan::of(request, processor, khz)?;
    // Both take the NMI's callback and the counters.
    match standing::removed_first(&xen) {
        Err(ShimError::NoLivepatch) => {}
        removed => notes.extend(removed?),
    }
    let claim = XENOPROF.claim("")?;
    recover(&xen);
    let started = Time(clock::monotonic_ns());
    let mut session = Session {
        queries: VcpuQueries::new(xen.clone())?,
        running: Some(Running::start(xen.clone(), &plan)?),
        xen,
        plan,
        is_amd: processor.is_amd(),
        queues: Queues::new(highest_cpu),
        started,
        until: started,
        foreign: 0,
        followed: Instant::now(),
        notes,
        _claim: claim,
    };
    match request.pmu_trust {
        PmuTrust::Assume => session.notes.push(
            "the performance counters were believed without evidence (--pmu-trust=assume): what was counted, and \
             whether they counted at all, is not known"
                .into(),
        ),
        PmuTrust::Auto | PmuTrust::Never => session.prove()?,
    }
    session.tell_domains();
    Ok(session)
}

const UNKNOWN_PROCESSOR: &str =
    "this Xen's xenoprof does not know this processor (it knows AMD's up to family 16h, and Intel's)";

const COUNTERS_IN_USE: &str = "xenoprof can't have the performance counters: Xen lends them to guests (vpmu), or uses \
                               them itself (watchdog)";

impl Running {
    fn start(xen: Arc<Hypercalls>, plan: &Plan) -> Result<Self, ShimError> {
        let mut running = Self { xen, watched: Vec::new(), domains: Vec::new() };
        running.set_up(plan)?;
        Ok(running)
    }

    fn set_up(&mut self, plan: &Plan) -> Result<(), ShimError> {
        let mut init = [0; INIT_BYTES];
        self.must("recognize the processor", op::INIT, &mut init)?;
        let counters = u32_at(&init, 0);
        if u32_at(&init, 4) == 0 {
            return Err(ShimError::Request("another domain uses xenoprof".into()));
        }
        let mut own = own_buffer();
        self.must("share dom0's buffers", op::GET_BUFFER, &mut own)?;
        self.must("watch dom0", op::SET_ACTIVE, &mut DOM0.to_le_bytes())?;
        self.map(DOM0, u32_at(&own, 4), u32_at(&own, 8), u64_at(&own, 16))?;
        let infos = self.xen.domains().map_err(ShimError::io("listing Xen's domains"))?;
        self.domains = infos.into_iter().filter(DomainInfo::is_alive).collect();
        let guests: Vec<u16> =
            self.domains.iter().map(|info| info.domid).filter(|&domid| domid != DOM0).collect();
        for domid in guests.into_iter().take(MOST_DOMAINS) {
            let mut passive = [0; 24];
            passive[..2].copy_from_slice(&domid.to_le_bytes());
            passive[4..8].copy_from_slice(&RECORDS.to_le_bytes());
            // It may have died by now.
            if operate(&self.xen, op::SET_PASSIVE, &mut passive).is_ok() {
                self.map(domid, u32_at(&passive, 8), u32_at(&passive, 12), u64_at(&passive, 16))?;
            }
        }
        self.must("reserve the counters", op::RESERVE_COUNTERS, &mut [])?;
        for index in 0..counters {
            self.must("take a counter's setting", op::COUNTER, &mut plan.counter(index))?;
        }
        self.must("set the counters up", op::SETUP_EVENTS, &mut [])?;
        self.must("watch NMIs", op::ENABLE_VIRQ, &mut [])?;
        for watched in &mut self.watched {
            watched.lost = watched.buffers().map(|buffer| buffer.lost()).collect();
        }
        self.must("start", op::START, &mut [])
    }

    fn must(&self, what: &str, op: u64, argument: &mut [u8]) -> Result<(), ShimError> {
        let explained = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENODEV) => ShimError::Request(UNKNOWN_PROCESSOR.into()),
            Some(libc::EBUSY) => ShimError::Request(COUNTERS_IN_USE.into()),
            _ => ShimError::Io { what: format!("having xenoprof {what}"), error },
        };
        operate(&self.xen, op, argument).map(drop).map_err(explained)
    }

    /// Maps what Xen shares of a domain: one buffer for each vCPU.
    fn map(&mut self, domain: u16, count: u32, bytes: u32, address: u64) -> Result<(), ShimError> {
        let (count, bytes) = (count as usize, bytes as usize);
        let damaged = || ShimError::Contract { what: format!("{count} buffers of {bytes} bytes (xenoprof)") };
        if bytes < Buffer::HEADER_BYTES || bytes % 16 != 0 || count.saturating_mul(bytes) > 1 << 20 {
            return Err(damaged());
        }
        let pages = (count * bytes).div_ceil(abi::PAGE_SIZE) as u64;
        let frames: Vec<u64> = (0..pages).map(|page| (address >> 12) + page).collect();
        let mapping = self.xen.privcmd.map(DOMID_SELF, &frames, Access::Writable);
        let mapping =
            mapping.map_err(ShimError::io(format!("mapping xenoprof's buffers of domain {domain}")))?;
        self.watched.push(Watched { domain, mapping, buffer_bytes: bytes, lost: vec![0; count] });
        Ok(())
    }

    fn watches(&self, domid: u16) -> bool {
        self.watched.iter().any(|watched| watched.domain == domid)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Xen takes its buffers back, which must not be mapped any more.
        try_to(&self.xen, op::STOP);
        self.watched.clear();
        end(&self.xen);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Session {
    fn running(&self) -> &Running {
        self.running.as_ref().expect("until the session ends")
    }

    /// Waits for a record while this CPU is kept busy: xenoprof itself believes every counter.
    fn prove(&self) -> Result<(), ShimError> {
        let begin = Instant::now();
        while begin.elapsed() < PROOF {
            if self.running().watched.iter().flat_map(Watched::buffers).any(|buffer| !buffer.is_empty()) {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        Err(ShimError::Request(
            "xenoprof can't serve: the performance counters do not count, or do not interrupt".into(),
        ))
    }

    /// Says what must be known of the domains that are watched.
    fn tell_domains(&mut self) {
        let running = self.running();
        let numbers = |wanted: &dyn Fn(&DomainInfo) -> bool| {
            let numbers =
                running.domains.iter().filter(|info| wanted(info)).map(|info| info.domid.to_string());
            numbers.collect::<Vec<_>>().join(", ")
        };
        let unwatched = numbers(&|info| !running.watches(info.domid));
        let unreliable = numbers(&|info| self.is_amd && info.is_hvm());
        let notes = [
            (unwatched, "not sampled, because xenoprof watches 25 guests at most"),
            (
                unreliable,
                "HVM or PVH guests on an AMD processor: xenoprof shows most of their samples at the address of an \
                 earlier exit, so that their functions are not to be relied on",
            ),
        ];
        let notes = notes.into_iter().filter(|(numbers, _)| !numbers.is_empty());
        let notes: Vec<String> = notes.map(|(numbers, what)| format!("domains {numbers}: {what}")).collect();
        for note in notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Takes all that there is into the queues.
    fn read(&mut self) {
        let Self { running, queries, queues, plan, until, foreign, .. } = self;
        let Some(running) = running else { return };
        // What comes after this may be read, and counts as later.
        let now = Time(clock::monotonic_ns());
        for watched in &mut running.watched {
            let domain = u32::from(watched.domain);
            let mut lost = mem::take(&mut watched.lost);
            let buffers = watched.mapping.halves().chunks_exact(watched.buffer_bytes / 4).map(Buffer);
            for (buffer, known_lost) in buffers.zip(&mut lost) {
                let vcpu = buffer.vcpu();
                // Of a domain that has just died, the first CPU will do.
                let cpu = queries.info(watched.domain, vcpu).map_or(0, |info| info.cpu);
                let Some(queue) = queues.of(cpu) else { continue };
                buffer.drain(|entry| match entry {
                    Some(entry) if entry.counter == 0 => {
                        queue.push(sample(now, plan.period, domain, vcpu, &entry));
                    }
                    Some(_) => *foreign += 1,
                    None => queue.lose(LossCause::Unreadable, 1),
                });
                let all_lost = buffer.lost();
                queue.lose(LossCause::RingFull, all_lost.saturating_sub(mem::replace(known_lost, all_lost)));
            }
            watched.lost = lost;
        }
        *until = now;
    }

    /// Begins anew where domains have come or gone: xenoprof watches those of its start, and keeps the dead from going.
    fn follow(&mut self) -> Result<(), ShimError> {
        let infos = self.xen.domains().map_err(ShimError::io("listing Xen's domains"))?;
        let alive: Vec<_> = infos.iter().filter(|info| info.is_alive()).map(DomainInfo::identity).collect();
        let known: Vec<_> = self.running().domains.iter().map(DomainInfo::identity).collect();
        if alive == known {
            return Ok(());
        }
        try_to(&self.xen, op::STOP);
        self.read();
        // The old one goes first.
        self.running = None;
        self.running = Some(Running::start(self.xen.clone(), &self.plan)?);
        self.tell_domains();
        Ok(())
    }
}

impl Sampling for Session {
    fn events(&self) -> Vec<Event> {
        vec![Event {
            name: self.plan.name.clone(),
            unit: Counted::Cycles.unit().into(),
            source: Source::Xenoprof,
            rate_hz: self.plan.rate_hz,
        }]
    }

    fn started(&self) -> Time {
        self.started
    }

    fn cpus(&self) -> Vec<PhysCpu> {
        self.queues.cpus()
    }

    fn take_notes(&mut self) -> Vec<String> {
        mem::take(&mut self.notes)
    }

    fn renew(&mut self) -> Result<(), ShimError> {
        self.read();
        if self.followed.elapsed() >= FOLLOW_EVERY {
            self.followed = Instant::now();
            self.follow()?;
        }
        Ok(())
    }

    fn drain(&mut self, ring: usize, each: &mut dyn FnMut(Record)) -> Watermark {
        self.queues.drain(ring, each);
        Watermark::At(self.until)
    }

    fn account(&self, ring: usize) -> CpuAccount {
        self.queues.account(ring)
    }

    fn quiesce(&mut self) -> Result<(), ShimError> {
        try_to(&self.xen, op::STOP);
        self.read();
        if self.foreign > 0 {
            self.notes.push(format!(
                "{} records were of counters that were not set up, and were left out: an NMI of somebody else's finds all \
                 counters as they are",
                self.foreign
            ));
        }
        Ok(())
    }

    fn stop(mut self: Box<Self>) -> Result<Stopped, ShimError> {
        self.running = None;
        Ok(Stopped::default())
    }
}

fn sample(time: Time, weight: u64, domain: u32, vcpu: u32, entry: &Entry) -> Taken {
    Taken {
        time,
        sequence: 0,
        weight,
        event: EventId(0),
        charged_to: Some(domain),
        vcpu: Some(vcpu),
        mode: entry.mode,
        owner: match entry.mode {
            Mode::User => Owner::Process(domain),
            Mode::Kernel => Owner::Kernel(domain),
            Mode::Hypervisor | Mode::Backend => Owner::Hypervisor,
        },
        process: None,
        page_tables: None,
        instruction_pointer: entry.instruction_pointer,
        stretches: Vec::new(),
        missing: None,
        serves: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_counter_is_set_and_the_others_are_off() {
        let modes = Modes { hypervisor: false, kernel: true, user: true };
        let plan =
            Plan { name: "cycles".into(), selector: 0x1_0000_4376, modes, period: 100_000, rate_hz: 0.0 };
        let words = |index| {
            let bytes = plan.counter(index);
            [0, 8, 16, 20, 24, 28, 32, 40].map(|at| u32_at(&bytes, at))
        };
        assert_eq!(words(0), [0, 100_000, 1, 0x176, 0, 1, 1, 0x43]);
        assert_eq!(words(3)[..3], [3, 100_000, 0]);
    }
}
