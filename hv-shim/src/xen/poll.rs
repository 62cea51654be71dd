//! Samples from outside: a thread reads, at randomized periods, the registers of every vCPU that runs.
//!
//! Serves on every Xen and loads nothing. What it can't see is told as its bias ([`profile::Source::VcpuPoll`]).

use std::{
    collections::HashMap,
    mem,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use profile::{AddressSpaceRoot, CpuAccount, Event, EventId, Mode, PhysCpu, Source, Time, Uuid};

use super::{
    domctl::{VcpuContext, VcpuQueries},
    hypercalls::Hypercalls,
    queues::Queues,
};
use crate::{
    Owner, ProcessKey, Record, Request, Sampling, ShimError, Stopped, Taken, Watermark, clock,
    events::{Counted, EventSpec, Modes},
};

/// Each reading wakes this domain and stops others: beyond it, nothing else would be measured.
const RATES_HZ: RangeInclusive<f64> = 0.1..=10_000.0;

/// How often the domains are listed.
const LIST_EVERY: Duration = Duration::from_millis(250);

/// A session.
pub(super) struct Session {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), ShimError>>>,
    plan: Plan,
    max_overhead: Option<f64>,
    started: Time,
    notes: Vec<String>,
}

/// What is to be sampled.
#[derive(Clone, Debug)]
struct Plan {
    /// What the event is called.
    name: String,
    rate_hz: f64,
    modes: Modes,
}

/// What the reading thread and the collector have in common.
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

struct State {
    queues: Queues,
    /// Nothing earlier will come.
    until: Time,
    figures: Figures,
}

/// What reading costs, and what it misses.
#[derive(Clone, Copy, Default)]
struct Figures {
    rounds: u64,
    /// CPU time of the reading thread.
    own_ns: u64,
    reads: u64,
    /// How long the readings took: vCPUs were paused for no longer.
    paused_ns: u64,
    longest_pause_ns: u64,
    /// CPU time that vCPUs had and no sample stands for.
    unseen_ns: u64,
}

impl Plan {
    fn of(request: &Request) -> Result<Self, ShimError> {
        let refuse = |why: String| Err(ShimError::Request(why));
        if !RATES_HZ.contains(&request.rate_hz) {
            let (low, high) = (RATES_HZ.start(), RATES_HZ.end());
            return refuse(format!(
                "a rate of {} Hz is out of range: vCPUs can be read at {low} to {high} Hz",
                request.rate_hz
            ));
        }
        let (name, modes) = match request.events.as_slice() {
            [] => ("cpu-clock".to_owned(), Modes::ALL),
            [EventSpec { name, counted: Counted::CpuClock, modes }] => (name.clone(), *modes),
            [spec, ..] => {
                return refuse(format!(
                    "{} can't be sampled by reading vCPUs (vcpu-poll): time can, as -e cpu-clock",
                    spec.name
                ));
            }
        };
        if request.period.is_some() {
            return refuse("vCPUs are read at a rate (-F), not at a period (vcpu-poll)".into());
        }
        if !modes.kernel && !modes.user {
            return refuse("reading vCPUs (vcpu-poll) shows nothing of the hypervisor".into());
        }
        Ok(Self { name, rate_hz: request.rate_hz, modes })
    }

    fn wants(&self, mode: Mode) -> bool {
        if mode == Mode::User { self.modes.user } else { self.modes.kernel }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whole samples and counts are all that is ever changed under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to read.
pub(super) fn begin(
    xen: Arc<Hypercalls>,
    request: &Request,
    notes: Vec<String>,
) -> Result<Session, ShimError> {
    let plan = Plan::of(request)?;
    let (highest_cpu, _) = xen.highest_cpu_and_khz().map_err(ShimError::io("counting Xen's CPUs"))?;
    let started = Time(clock::monotonic_ns());
    let state = State { queues: Queues::new(highest_cpu), until: started, figures: Figures::default() };
    let shared = Arc::new(Shared { state: Mutex::new(state), stop: AtomicBool::new(false) });
    let queries = VcpuQueries::new(xen.clone())?;
    let reader = Reader {
        shared: shared.clone(),
        plan: plan.clone(),
        max_overhead: request.max_overhead,
        vcpus: HashMap::new(),
    };
    let thread = thread::Builder::new().name("vcpu-poll".into()).spawn(move || reader.run(&xen, queries));
    let thread = thread.map_err(ShimError::io("starting the thread that reads vCPUs"))?;
    Ok(Session { shared, thread: Some(thread), plan, max_overhead: request.max_overhead, started, notes })
}

impl Session {
    fn end(&mut self) -> Result<(), ShimError> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        self.join()
    }

    /// Waits for the thread's end, which was ordered or has come by itself.
    fn join(&mut self) -> Result<(), ShimError> {
        let gone = || ShimError::Contract { what: "the thread that reads vCPUs has panicked".into() };
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| gone())?,
            None => Ok(()),
        }
    }

    fn outcome(&self) -> Vec<String> {
        let (figures, (taken, weight)) = {
            let state = self.shared.state();
            (state.figures, state.queues.totals())
        };
        let elapsed_ns = (clock::monotonic_ns() - self.started.0) as f64;
        let percent = |part: u64, whole: f64| 100.0 * part as f64 / whole.max(1.0);
        let mut notes = Vec::new();
        if figures.reads > 0 {
            notes.push(format!(
                "each of {} readings paused its vCPU, for at most {:.0} µs on average and {:.0} µs once; together at most \
                 {:.2} % of the CPU time that {taken} samples stand for. The reading thread used {:.2} % of a CPU",
                figures.reads,
                figures.paused_ns as f64 / figures.reads as f64 / 1e3,
                figures.longest_pause_ns as f64 / 1e3,
                percent(figures.paused_ns, weight as f64),
                percent(figures.own_ns, elapsed_ns),
            ));
        }
        let came_hz = figures.rounds as f64 * 1e9 / elapsed_ns;
        if came_hz * 1.05 < self.plan.rate_hz {
            let why = match self.max_overhead {
                Some(part) => {
                    format!(", because reading may take {} % of a CPU (--max-overhead)", part * 100.0)
                }
                None => ": dom0 did not get round to more".into(),
            };
            notes.push(format!(
                "vCPUs were read at {came_hz:.1} Hz instead of the {:.0} Hz asked for{why}",
                self.plan.rate_hz
            ));
        }
        let all_ns = (figures.unseen_ns + weight) as f64;
        if figures.unseen_ns as f64 > 0.01 * all_ns {
            notes.push(format!(
                "no sample stands for {:.1} s ({:.0} %) of the domains' CPU time: of vCPUs that never ran when they were \
                 looked at, that of the reading thread among them",
                figures.unseen_ns as f64 / 1e9,
                percent(figures.unseen_ns, all_ns),
            ));
        }
        notes
    }
}

impl Sampling for Session {
    fn events(&self) -> Vec<Event> {
        vec![Event {
            name: self.plan.name.clone(),
            unit: Counted::CpuClock.unit().into(),
            source: Source::VcpuPoll,
            rate_hz: self.plan.rate_hz,
        }]
    }

    fn started(&self) -> Time {
        self.started
    }

    fn cpus(&self) -> Vec<PhysCpu> {
        self.shared.state().queues.cpus()
    }

    fn take_notes(&mut self) -> Vec<String> {
        mem::take(&mut self.notes)
    }

    fn renew(&mut self) -> Result<(), ShimError> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) { self.join() } else { Ok(()) }
    }

    fn drain(&mut self, ring: usize, each: &mut dyn FnMut(Record)) -> Watermark {
        let mut state = self.shared.state();
        state.queues.drain(ring, each);
        Watermark::At(state.until)
    }

    fn account(&self, ring: usize) -> CpuAccount {
        let state = self.shared.state();
        // What can't be told by CPU stands in the first one's account, and counts for all of them.
        let (own_ns, unseen_ns) =
            if ring == 0 { (state.figures.own_ns, state.figures.unseen_ns) } else { (0, 0) };
        let awake_ns = state.queues.weight(ring) + unseen_ns;
        CpuAccount { own_ns, awake_ns, ..state.queues.account(ring) }
    }

    fn quiesce(&mut self) -> Result<(), ShimError> {
        self.end()?;
        self.notes.extend(self.outcome());
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<Stopped, ShimError> {
        Ok(Stopped::default())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // An error has nowhere to go from here, and nothing is left behind anywhere.
        let _ = self.end();
    }
}

/// The thread.
struct Reader {
    shared: Arc<Shared>,
    plan: Plan,
    max_overhead: Option<f64>,
    vcpus: HashMap<(u16, u32), Vcpu>,
}

/// A vCPU that is looked at.
struct Vcpu {
    /// Whose; numbers of domains are handed out again.
    domain: Uuid,
    is_hvm: bool,
    /// Its CPU time when it was first seen or last sampled.
    sampled_ns: u64,
    /// Its CPU time when it was last looked at.
    seen_ns: u64,
}

impl Reader {
    fn run(mut self, xen: &Hypercalls, mut queries: VcpuQueries) -> Result<(), ShimError> {
        let mut listed: Option<Instant> = None;
        let mut spent = Figures::default();
        while !self.shared.stop.load(Ordering::Relaxed) {
            if listed.is_none_or(|listed| listed.elapsed() >= LIST_EVERY) {
                self.list(xen, &mut queries, &mut spent)?;
                listed = Some(Instant::now());
            }
            let samples = self.read_all(&mut queries, &mut spent);
            spent.rounds += 1;
            spent.own_ns = clock::thread_cpu_ns();
            self.hand_over(samples, &spent);
            self.wait(self.pause(&spent));
        }
        // What has run since the last round was not seen either.
        for (&(domain, index), vcpu) in &mut self.vcpus {
            vcpu.seen_ns = queries.info(domain, index).map_or(vcpu.seen_ns, |info| info.cpu_time_ns);
        }
        self.hand_over(Vec::new(), &spent);
        Ok(())
    }

    /// Follows which domains there are.
    fn list(
        &mut self,
        xen: &Hypercalls,
        queries: &mut VcpuQueries,
        spent: &mut Figures,
    ) -> Result<(), ShimError> {
        let infos = xen.domains().map_err(ShimError::io("listing Xen's domains"))?;
        self.vcpus.retain(|&(domid, _), vcpu| {
            let lives =
                infos.iter().any(|info| info.domid == domid && info.handle == vcpu.domain && info.is_alive());
            if !lives {
                spent.unseen_ns += vcpu.seen_ns.saturating_sub(vcpu.sampled_ns);
            }
            lives
        });
        for info in infos.iter().filter(|info| info.is_alive()) {
            for index in 0..info.vcpus() {
                if self.vcpus.contains_key(&(info.domid, index)) {
                    continue;
                }
                // A number without a vCPU, or one that is not there yet.
                let Ok(now) = queries.info(info.domid, index) else { continue };
                let vcpu = Vcpu {
                    domain: info.handle,
                    is_hvm: info.is_hvm(),
                    sampled_ns: now.cpu_time_ns,
                    seen_ns: now.cpu_time_ns,
                };
                self.vcpus.insert((info.domid, index), vcpu);
            }
        }
        Ok(())
    }

    /// One round: where each vCPU is that runs.
    fn read_all(&mut self, queries: &mut VcpuQueries, spent: &mut Figures) -> Vec<(u32, Taken)> {
        let mut samples = Vec::new();
        for (&(domain, index), vcpu) in &mut self.vcpus {
            // It may be gone by now; the next list tells.
            let Ok(info) = queries.info(domain, index) else { continue };
            vcpu.seen_ns = info.cpu_time_ns;
            if !info.is_running {
                continue;
            }
            let before = clock::monotonic_ns();
            // It is the one that asks, or is gone.
            let Ok(context) = queries.context(domain, index, vcpu.is_hvm) else { continue };
            let time = clock::monotonic_ns();
            spent.reads += 1;
            spent.paused_ns += time - before;
            spent.longest_pause_ns = spent.longest_pause_ns.max(time - before);
            let weight = info.cpu_time_ns.saturating_sub(vcpu.sampled_ns);
            vcpu.sampled_ns = info.cpu_time_ns;
            samples.push((info.cpu, sample(Time(time), weight, domain, index, &context)));
        }
        samples
    }

    fn hand_over(&self, samples: Vec<(u32, Taken)>, spent: &Figures) {
        let waiting = self.vcpus.values().map(|vcpu| vcpu.seen_ns.saturating_sub(vcpu.sampled_ns));
        let unseen_ns = spent.unseen_ns + waiting.sum::<u64>();
        let mut state = self.shared.state();
        for (cpu, sample) in samples {
            // One that came online since is not sampled.
            let Some(queue) = state.queues.of(cpu) else { continue };
            if self.plan.wants(sample.mode) { queue.push(sample) } else { queue.filter(sample.weight) }
        }
        state.until = Time(clock::monotonic_ns());
        state.figures = Figures { unseen_ns, ..*spent };
    }

    /// Sleeps until the next round or the end.
    fn wait(&self, pause: Duration) {
        let due = Instant::now() + pause;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Ends early for no reason, too.
            thread::park_timeout(left);
        }
    }

    /// Until the next round: even over ±20 % of the mean, which is long enough for what a round costs.
    fn pause(&self, spent: &Figures) -> Duration {
        let asked_ns = 1e9 / self.plan.rate_hz;
        let cost_ns = spent.own_ns as f64 / spent.rounds as f64;
        let mean_ns = match self.max_overhead {
            Some(part) => asked_ns.max(cost_ns / part),
            None => asked_ns,
        };
        // A round takes its part of the period.
        let mean_ns = (mean_ns - cost_ns).max(0.0);
        Duration::from_nanos((mean_ns * (0.8 + 0.4 * fastrand::f64())) as u64)
    }
}

fn sample(time: Time, weight: u64, domain: u16, index: u32, context: &VcpuContext) -> Taken {
    let domain = u32::from(domain);
    let (mode, owner, process) = match context.is_user {
        true => {
            let root = ProcessKey::Root(AddressSpaceRoot(context.root));
            (Mode::User, Owner::Process(domain), Some(root))
        }
        // A kernel keeps somebody's page tables; whose says nothing.
        false => (Mode::Kernel, Owner::Kernel(domain), None),
    };
    Taken {
        time,
        sequence: 0,
        weight,
        event: EventId(0),
        charged_to: Some(domain),
        vcpu: Some(index),
        mode,
        owner,
        process,
        page_tables: Some(AddressSpaceRoot(context.root)),
        instruction_pointer: context.instruction_pointer,
        stretches: Vec::new(),
        missing: None,
        serves: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_guests_is_all_that_can_be_had() {
        assert!(Plan::of(&Request::at_100_hz("")).unwrap().wants(Mode::Kernel));
        let user = Plan::of(&Request::at_100_hz("cpu-clock:u")).unwrap();
        assert!(user.wants(Mode::User) && !user.wants(Mode::Kernel));
        let refused = |request: &Request| Plan::of(request).unwrap_err().to_string();
        assert!(refused(&Request::at_100_hz("cycles")).contains("cycles can't be sampled by reading vCPUs"));
        assert!(refused(&Request::at_100_hz("cpu-clock:h")).contains("nothing of the hypervisor"));
        assert!(
            refused(&Request { rate_hz: 20_000.0, ..Request::at_100_hz("") }).contains("0.1 to 10000 Hz")
        );
        assert!(
            refused(&Request { period: Some(100_000), ..Request::at_100_hz("") }).contains("not at a period")
        );
    }

    fn reader(max_overhead: Option<f64>) -> Reader {
        let state = State { queues: Queues::new(0), until: Time(0), figures: Figures::default() };
        Reader {
            shared: Arc::new(Shared { state: Mutex::new(state), stop: AtomicBool::new(false) }),
            plan: Plan::of(&Request::at_100_hz("")).unwrap(),
            max_overhead,
            vcpus: HashMap::new(),
        }
    }

    #[test]
    fn rounds_come_as_often_as_asked_or_as_they_may_cost() {
        // 100 Hz asked, 1 ms each.
        let spent = Figures { rounds: 10, own_ns: 10_000_000, ..Figures::default() };
        let mean_ms = |reader: &Reader| {
            let pauses: Vec<f64> = (0..2000).map(|_| reader.pause(&spent).as_secs_f64() * 1e3).collect();
            pauses.iter().sum::<f64>() / 2000.0
        };
        assert!((mean_ms(&reader(None)) - 9.0).abs() < 0.2);
        assert!((mean_ms(&reader(Some(0.01))) - 99.0).abs() < 2.0);
        // More than the whole of the time is never slept.
        let spent = Figures { rounds: 1, own_ns: 1_000_000_000, ..Figures::default() };
        assert_eq!(reader(None).pause(&spent), Duration::ZERO);
    }

    #[test]
    fn a_sample_is_of_the_domain_that_it_was_read_from() {
        let context = |is_user| VcpuContext { instruction_pointer: 0x40_0000, is_user, root: 0x1000 };
        let user = sample(Time(9), 5, 3, 1, &context(true));
        assert_eq!((user.mode, user.owner, user.vcpu), (Mode::User, Owner::Process(3), Some(1)));
        assert_eq!(user.process, Some(ProcessKey::Root(AddressSpaceRoot(0x1000))));
        let kernel = sample(Time(9), 5, 3, 1, &context(false));
        assert_eq!((kernel.mode, kernel.owner, kernel.process), (Mode::Kernel, Owner::Kernel(3), None));
    }
}
