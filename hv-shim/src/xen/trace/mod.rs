//! What vCPUs did with their time, and what it cost that guests were left, by Xen's own trace buffers: beside the samples,
//! whoever takes these.
//!
//! Xen has one trace, for whoever in dom0 turns it on. So one that somebody else reads is left alone; one that was left on
//! by a process of ours that died is turned off by the next recording. Buffers stay in Xen until it reboots, once they
//! are there.

mod beside;
mod buffers;
mod clocks;
mod exits;
mod operations;
mod reasons;
mod records;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use profile::ExitCost;

pub(super) use self::beside::Beside;
use self::{
    buffers::{Ring, Wrong},
    clocks::{Clocks, Seen},
    exits::{Exits, Leaving},
    operations::Info,
    records::{Records, Runstate, Told, Vcpu},
};
use super::{
    claim::{Claim, TRACE_BUFFERS},
    domctl::VcpuQueries,
    hypercalls::{DomainInfo, Hypercalls},
};
use crate::{ShimError, VcpuClock, clock, own_processes};

/// As many as xentrace has made.
const PAGES: u32 = 32;

/// A buffer in use is read at least that often by the tools that there are: xentrace looks every 100 ms.
const WATCH: Duration = Duration::from_millis(250);

/// How long a first record is waited for.
const FIRST_RECORD: Duration = Duration::from_secs(2);

/// How far apart may be what one CPU did after another, and when their records can be read.
const SLACK: Duration = Duration::from_millis(20);

/// More records than all buffers hold, on any machine that there is: what waits longer never comes to an end.
const MOST_WAITING: usize = 8 << 20;

/// Programs that read the trace buffers, and may do so too seldom to be noticed.
const READERS: [&str; 2] = ["xentrace", "xenbaked"];

/// What the claim says of what has to be put back.
const EVENT_MASK: &str = "event mask ";

/// Turns off what a process of ours that has died left on. Returns what there is to say of it.
pub(super) fn remove_left_over(xen: &Hypercalls) -> Result<Option<String>, ShimError> {
    let Some(said) = TRACE_BUFFERS.left_over() else { return Ok(None) };
    let _claim = TRACE_BUFFERS.claim(&said)?;
    let mask = said.lines().find_map(|line| line.strip_prefix(EVENT_MASK)).and_then(|mask| mask.parse().ok());
    let turned_off = operations::disable(xen).and_then(|()| match mask {
        Some(mask) => operations::set_event_mask(xen, mask),
        None => Ok(()),
    });
    turned_off.map_err(ShimError::io("turning off what an earlier collector had left traced"))?;
    Ok(Some("an earlier collector had left Xen's tracing on: it was turned off first".into()))
}

/// How the trace buffers stand, for who only wants to know.
pub(super) fn look(xen: &Hypercalls) -> Result<String, ShimError> {
    let info = operations::info(xen).map_err(ShimError::io("asking for Xen's trace buffers"))?;
    Ok(match (info.frame, TRACE_BUFFERS.left_over()) {
        (_, Some(_)) => "left on by a recording that died: the next `xenoscope record` turns it off".into(),
        (None, None) => "no buffers yet: `--times on` has Xen make 32 pages for each CPU, which it keeps \
                         until it reboots"
            .into(),
        (Some(_), None) => "buffers are there".into(),
    })
}

/// A session of tracing.
pub(super) struct Trace {
    xen: Arc<Hypercalls>,
    queries: VcpuQueries,
    /// None once it has ended.
    running: Option<Running>,
    clocks: Clocks,
    /// None where they were not asked for.
    exits: Option<Exits>,
    is_amd: bool,
    time: Timescale,
    /// Read, and not yet certain to be in order.
    waiting: Vec<(u64, u32, Told)>,
    words: Vec<u32>,
    /// All that happened by then is accounted for.
    horizon: u64,
    figures: Figures,
}

#[derive(Default)]
struct Figures {
    records: u64,
    lost: u64,
    /// How often Xen was asked anew about a vCPU.
    doubts: u64,
    /// Why it ended before its time.
    ended: Option<String>,
}

/// Xen tracing for us.
struct Running {
    xen: Arc<Hypercalls>,
    rings: Vec<Ring>,
    /// What Xen traced before.
    found: Info,
    mask: u32,
    /// Whether it is for us that Xen traces; where it is not, or no more, all is left as it is.
    is_ours: bool,
    _claim: Claim,
}

/// From cycles of the time stamp counter to nanoseconds.
#[derive(Clone, Copy)]
struct Timescale {
    begin: (u64, u64),
    /// As Xen says.
    nominal: f64,
}

impl Timescale {
    fn new(khz: u32) -> Self {
        Self { begin: (clock::time_stamp(), clock::raw_ns()), nominal: 1e6 / f64::from(khz.max(1)) }
    }

    fn ns_per_cycle(&self) -> f64 {
        /// Long enough for what the two readings are apart.
        const LONG_ENOUGH: u64 = 1_000_000_000;
        let (cycles, ns) = (clock::time_stamp() - self.begin.0, clock::raw_ns() - self.begin.1);
        if ns > LONG_ENOUGH && cycles > 0 { ns as f64 / cycles as f64 } else { self.nominal }
    }

    fn cycles(&self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 / self.nominal) as u64
    }
}

/// Begins to trace; none where there are no buffers and none may be made. Fails with why it can't, after which everything
/// is as it was, but for buffers that were made.
pub(super) fn begin(
    xen: &Arc<Hypercalls>,
    is_amd: bool,
    with_exits: bool,
    may_allocate: bool,
) -> Result<Option<Trace>, ShimError> {
    let found = operations::info(xen).map_err(ShimError::io("asking for Xen's trace buffers"))?;
    if found.frame.is_none() && !may_allocate {
        return Ok(None);
    }
    if with_exits {
        cores_are_single(xen)?;
    }
    let claim = TRACE_BUFFERS.claim(&format!("\n{EVENT_MASK}{}", found.event_mask))?;
    let (highest_cpu, khz) = xen.highest_cpu_and_khz().map_err(ShimError::io("counting Xen's CPUs"))?;
    let time = Timescale::new(khz);
    let mask = if with_exits { records::STATES | records::EXITS } else { records::STATES };
    let queries = VcpuQueries::new(xen.clone())?;
    let began = clock::time_stamp();
    let running = Running::start(xen, claim, found, mask, highest_cpu)?;
    let mut trace = Trace {
        xen: xen.clone(),
        queries,
        running: Some(running),
        clocks: Clocks::new(0),
        exits: with_exits.then(Exits::default),
        is_amd,
        time,
        waiting: Vec::new(),
        words: Vec::new(),
        horizon: began,
        figures: Figures::default(),
    };
    trace.prove(began)?;
    Ok(Some(trace))
}

/// A scheduler of whole cores changes several CPUs' vCPUs at once, from one of them: nobody knows who runs on the others.
fn cores_are_single(xen: &Hypercalls) -> Result<(), ShimError> {
    let options = xen.command_line().map_err(ShimError::io("asking for Xen's options"))?;
    match options.split_whitespace().find_map(|option| option.strip_prefix("sched-gran=")) {
        None | Some("cpu") => Ok(()),
        Some(other) => Err(ShimError::Request(format!(
            "exits can't be told from each other where Xen schedules by {other} (sched-gran)"
        ))),
    }
}

impl Running {
    fn start(
        xen: &Arc<Hypercalls>,
        claim: Claim,
        found: Info,
        mask: u32,
        highest_cpu: u32,
    ) -> Result<Self, ShimError> {
        let map = |info: Info| {
            let frame = info.frame.ok_or_else(|| damaged("there is none"))?;
            let rings = buffers::map(xen, frame, info.bytes, highest_cpu);
            rings.map_err(ShimError::io("mapping Xen's trace buffers"))
        };
        let mut running =
            Self { xen: xen.clone(), rings: Vec::new(), found, mask, is_ours: false, _claim: claim };
        if found.frame.is_some() {
            running.rings = map(found)?;
            running.is_idle()?;
            running.set_up(false)?;
        } else {
            running.set_up(true)?;
            running.rings =
                map(operations::info(xen).map_err(ShimError::io("asking for Xen's trace buffers"))?)?;
        }
        if running.rings.is_empty() {
            return Err(damaged("no CPU has one"));
        }
        Ok(running)
    }

    /// Fails where anything is written or read: somebody traces.
    fn is_idle(&self) -> Result<(), ShimError> {
        if let Some(reader) = READERS.into_iter().find(|reader| own_processes::is_running(reader)) {
            return Err(ShimError::Request(format!("{reader} runs, which reads Xen's trace buffers")));
        }
        let positions = || self.rings.iter().map(Ring::positions).collect::<Vec<_>>();
        let before = positions();
        let begin = Instant::now();
        while begin.elapsed() < WATCH {
            thread::sleep(WATCH / 10);
            if positions() != before {
                return Err(ShimError::Request("somebody else traces this Xen, or has left that on".into()));
            }
        }
        Ok(())
    }

    fn set_up(&mut self, allocate: bool) -> Result<(), ShimError> {
        let io = ShimError::io("having Xen trace");
        self.is_ours = true;
        let set = || {
            if !allocate {
                operations::disable(&self.xen)?;
            }
            operations::set_event_mask(&self.xen, self.mask)?;
            operations::trace_all_cpus(&self.xen)
        };
        set().map_err(io)?;
        if allocate {
            return operations::allocate(&self.xen, PAGES)
                .map_err(ShimError::io("having Xen make trace buffers"));
        }
        // Whatever nobody has read.
        for ring in &mut self.rings {
            ring.empty().map_err(|_| damaged("their positions are none"))?;
        }
        operations::enable(&self.xen).map_err(ShimError::io("having Xen trace"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // An error has nowhere to go from here; nothing is lost but time.
        let _ = operations::disable(&self.xen);
        let _ = operations::set_event_mask(&self.xen, self.found.event_mask);
    }
}

fn damaged(what: &str) -> ShimError {
    ShimError::Request(format!("Xen's trace buffers do not look as expected: {what}"))
}

impl Trace {
    /// Waits for a record, which must be of now: else this domain's time stamp counter is not Xen's.
    fn prove(&mut self, began: u64) -> Result<(), ShimError> {
        let begin = Instant::now();
        while begin.elapsed() < FIRST_RECORD {
            // Giving up the CPU is worth a record.
            thread::sleep(Duration::from_millis(2));
            self.fetch();
            if let Some(why) = self.figures.ended.take() {
                return Err(ShimError::Request(why));
            }
            let now = clock::time_stamp();
            if let Some(&(at, ..)) = self.waiting.last() {
                return match (began..=now).contains(&at) {
                    true => Ok(()),
                    false => Err(ShimError::Request(
                        "Xen's trace is of another time than this domain's time stamp counter".into(),
                    )),
                };
            }
        }
        Err(ShimError::Request("Xen traces nothing".into()))
    }

    /// Begins to account: from now on, and with what Xen says of each vCPU now.
    fn begin_clocks(&mut self) -> Result<(), ShimError> {
        self.read();
        self.clocks = Clocks::new(self.time.cycles(SLACK));
        self.take_exits();
        let infos = self.xen.domains().map_err(ShimError::io("listing Xen's domains"))?;
        for info in infos.iter().filter(|info| info.is_alive()) {
            // Xen has no more than 8,192 vCPUs in a domain.
            for index in 0..info.vcpus().min(u16::MAX.into()) as u16 {
                let vcpu = Vcpu { domain: info.domid, index };
                if let Some(seen) = see(&mut self.queries, info, vcpu) {
                    self.clocks.begin(vcpu, &seen);
                    if let Some(exits) = &mut self.exits {
                        exits.seen(vcpu, &seen);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what Xen has traced.
    fn read(&mut self) {
        if self.running.is_none() {
            return;
        }
        let now = clock::time_stamp();
        self.fetch();
        self.account(now.saturating_sub(self.time.cycles(SLACK)));
        self.settle();
        if self.waiting.len() > MOST_WAITING {
            self.figures.ended = Some("the CPUs' time stamp counters are far apart".into());
            self.running = None;
        }
    }

    /// Empties the buffers.
    fn fetch(&mut self) {
        let Self { running, waiting, words, figures, is_amd, .. } = self;
        let Some(open) = running else { return };
        for ring in &mut open.rings {
            words.clear();
            if let Err(wrong) = ring.drain(words) {
                open.is_ours = wrong != Wrong::Shared;
                figures.ended = Some(match wrong {
                    Wrong::Shared => "somebody else has begun to read Xen's trace buffers".into(),
                    Wrong::Damaged => "a trace buffer's positions are none of it".into(),
                });
                *running = None;
                return;
            }
            for record in Records(words) {
                figures.records += 1;
                if let Some((at, told)) = record.told(*is_amd) {
                    waiting.push((at, ring.cpu, told));
                }
            }
        }
        // Each CPU's are in order already.
        waiting.sort_by_key(|&(at, ..)| at);
    }

    /// Accounts for all that happened until then.
    fn account(&mut self, until: u64) {
        let count = self.waiting.partition_point(|&(at, ..)| at <= until);
        for (at, cpu, told) in self.waiting.drain(..count) {
            match told {
                Told::Changed { vcpu, old, new } if vcpu.is_guests() => {
                    self.clocks.change(at, vcpu, old, new);
                }
                Told::Lost { count, since } => {
                    self.figures.lost += u64::from(count);
                    self.clocks.lose(since, at);
                }
                _ => {}
            }
            if let Some(exits) = &mut self.exits {
                exits.told(at, cpu, &told);
            }
        }
        self.horizon = self.horizon.max(until);
    }

    /// Asks Xen where the records leave doubts.
    fn settle(&mut self) {
        let doubted = self.clocks.in_doubt();
        if doubted.is_empty() {
            return;
        }
        self.figures.doubts += doubted.len() as u64;
        let scale = self.time.ns_per_cycle();
        for (vcpu, seen) in self.see(&doubted) {
            self.clocks.settle(vcpu, seen.as_ref(), scale);
            if let (Some(exits), Some(seen)) = (&mut self.exits, seen) {
                exits.seen(vcpu, &seen);
            }
        }
    }

    fn see(&mut self, vcpus: &[Vcpu]) -> Vec<(Vcpu, Option<Seen>)> {
        // Without the list, it is known next time.
        let Ok(infos) = self.xen.domains() else { return Vec::new() };
        let seen = |&vcpu: &Vcpu| {
            let info = infos.iter().find(|info| info.domid == vcpu.domain && info.is_alive());
            (vcpu, info.and_then(|info| see(&mut self.queries, info, vcpu)))
        };
        vcpus.iter().map(seen).collect()
    }

    /// What each vCPU did since tracing began, as far as that is known. None where it has ended before its time.
    fn vcpu_times(&mut self) -> Vec<VcpuClock> {
        self.read();
        let scale = self.time.ns_per_cycle();
        if self.running.is_some() {
            let alive = self.clocks.alive();
            for (vcpu, seen) in self.see(&alive) {
                self.clocks.check(vcpu, seen.as_ref(), scale);
            }
            self.settle();
        } else if self.figures.ended.is_some() {
            return Vec::new();
        }
        let ns = |cycles: u64| (cycles as f64 * scale) as u64;
        let clock = |(vcpu, spent): (Vcpu, clocks::Spent)| VcpuClock {
            domain: vcpu.domain.into(),
            index: vcpu.index.into(),
            running_ns: ns(spent.running),
            waiting_ns: ns(spent.waiting),
            blocked_ns: ns(spent.blocked),
        };
        self.clocks.until(self.horizon).map(clock).collect()
    }

    /// What exits have cost since this was asked last.
    fn take_exits(&mut self) -> Vec<(Leaving, ExitCost)> {
        let scale = self.time.ns_per_cycle();
        self.exits.as_mut().map_or_else(Vec::new, |exits| exits.take(scale).collect())
    }

    /// Ends tracing, with all that there was by now.
    fn end(&mut self) {
        self.read();
        if self.running.is_none() {
            return;
        }
        // Where nothing is written any more, nothing has to be waited for.
        let slack = if operations::disable(&self.xen).is_ok() { 0 } else { self.time.cycles(SLACK) };
        let until = clock::time_stamp() - slack;
        self.fetch();
        self.account(until);
        self.settle();
        self.running = None;
    }

    fn has_ended(&self) -> bool {
        self.running.is_none()
    }

    /// What has to be known of this session.
    fn notes(&self) -> Vec<String> {
        let Figures { records, lost, doubts, ended } = &self.figures;
        let mut notes = Vec::new();
        if let Some(why) = ended {
            notes.push(format!("{why}: vCPUs' times and exits end there"));
        }
        if *lost > 0 {
            notes.push(format!(
                "{lost} trace records found no room in Xen's buffers, besides {records} that did"
            ));
        }
        if *doubts > 0 {
            let unknown: u64 = self.clocks.until(self.horizon).map(|(_, spent)| spent.unknown).sum();
            notes.push(format!(
                "vCPUs' times were mended {doubts} times, because records were missing or did not fit Xen's account; of \
                 {:.3} s of all vCPUs' time it is not known whether they waited or were blocked",
                unknown as f64 * self.time.ns_per_cycle() / 1e9
            ));
        }
        if let Some(exits) = self.exits.as_ref().filter(|exits| exits.nobodys > 0) {
            notes.push(format!(
                "{} exits were left out: records of them, or of which vCPU ran, are missing",
                exits.nobodys
            ));
        }
        notes
    }
}

/// What Xen says of a vCPU; none if it is not there.
fn see(queries: &mut VcpuQueries, domain: &DomainInfo, vcpu: Vcpu) -> Option<Seen> {
    let before = clock::time_stamp();
    let info = queries.info(vcpu.domain, vcpu.index.into()).ok()?;
    let state = match () {
        () if info.is_running => Runstate::Running,
        () if info.is_blocked => Runstate::Blocked,
        () if !info.is_online || domain.is_stopped() => Runstate::Offline,
        () => Runstate::Runnable,
    };
    Some(Seen { state, cpu: info.cpu, ran_ns: info.cpu_time_ns, asked: before..clock::time_stamp() })
}
