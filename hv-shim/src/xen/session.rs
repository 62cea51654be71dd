//! The shim's stay in a running Xen: found, loaded, watched over, taken out.

use std::{
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use abi::{
    Ordering, PAGE_SIZE,
    control::{CALL_GRAPH_NO_MEMORY, COMMAND_QUIET, PV_MODE_BY_ADDRESS, directory::MAX_DATA_PAGES},
    pmu::{TRUST_ASSUME, TRUST_AUTO, Unusable},
};
use profile::{CpuAccount, Event, PhysCpu, Time};

use super::{
    backends::Backends,
    callers::Functions,
    counting::Counting,
    hypercalls::Hypercalls,
    livepatch::{self, State},
    payload::{self, Settings, SymbolIndex},
    processor::Processor,
    rings::{self, Shared},
    standing::{self, NAME, find},
};
use crate::{
    CallGraph, HypervisorSymbol, PmuTrust, Record, Request, Sampling, ShimError, Stopped, Watermark,
    hypervisor::DRAIN_EVERY,
};

/// For how long a renewal holds. A collector that is stopped for longer loses samples that nobody could have kept;
/// one that is dead costs the host no longer than five seconds: where counters sample, the shim looks for a renewal every
/// 100 ms only.
const LEASE: Duration = Duration::from_millis(4_800);

/// Holds some three seconds at the usual rate of 1 kHz.
const DEFAULT_RING: u64 = 256 << 10;

/// With stacks: holds some 200 ms, four times what is between two looks at it. It is as large as one can be.
const RING_FOR_STACKS: u64 = 1 << 20;

/// A session with the shim in place.
pub(super) struct Session {
    xen: Arc<Hypercalls>,
    /// None once the pages are given back.
    shared: Option<Shared>,
    functions: Functions,
    backends: Backends,
    counting: Counting,
    max_overhead: Option<f64>,
    period: Duration,
    load_pause: Duration,
    notes: Vec<String>,
    loaded: bool,
}

/// Whether the shim knows all that it needs of this Xen, as far as can be told without loading it.
pub(super) fn look(xen: &Hypercalls) -> Result<(), ShimError> {
    let symbols = xen.symbols().map_err(ShimError::io("reading Xen's symbols"))?;
    let build_id = xen.build_id().unwrap_or_default();
    payload::bind(&SymbolIndex::new(&symbols), &build_id, &Settings::default()).map(drop)
}

/// Puts the shim in place.
pub(super) fn begin(
    xen: Arc<Hypercalls>,
    symbols: &[HypervisorSymbol],
    processor: &Processor,
    request: &Request,
    backends: Backends,
    mut notes: Vec<String>,
) -> Result<Session, ShimError> {
    let counting = Counting::plan(request, processor)?;
    let settings = settings(request, &counting)?;
    notes.extend(standing::removed_first(&xen)?);
    // One that can't be read is one that there is not, and told so.
    let build_id = xen.build_id().unwrap_or_default();
    let object = payload::bind(&SymbolIndex::new(symbols), &build_id, &settings)?;
    livepatch::upload(&xen, NAME, &object)?;
    // From here on, dropping the session takes the payload out again.
    let mut session = Session {
        xen,
        shared: None,
        functions: Functions::new([].iter()),
        backends,
        counting,
        max_overhead: request.max_overhead,
        period: Duration::from_nanos(settings.period_ns),
        load_pause: Duration::ZERO,
        notes,
        loaded: true,
    };
    let (payload, pause) = standing::apply(&session.xen)?;
    session.load_pause = pause;
    let shared = Shared::map(&session.xen.privcmd, &payload.metadata)?;
    shared.lease().owner_pid.store(u64::from(process::id()), Ordering::Relaxed);
    shared.lease().owner_since.store(unix_seconds(), Ordering::Relaxed);
    if shared.control().pv_mode.load(Ordering::Relaxed) == PV_MODE_BY_ADDRESS {
        session.notes.push(
            "kernel and user mode of paravirtualized guests are told by the address: this Xen's own flag was not found"
                .into(),
        );
    }
    if let Some(why) = Unusable::of_code(shared.control().pmu.load(Ordering::Relaxed)) {
        session.notes.extend(session.counting.without_counters(why)?);
    } else if request.pmu_trust == PmuTrust::Assume {
        session.notes.push(
            "the performance counters were believed without evidence (--pmu-trust=assume): what was counted, and \
             whether they counted at all, is not known"
                .into(),
        );
    }
    let slices = shared.control().slices.each_ref().map(|word| word.load(Ordering::Relaxed));
    session.notes.extend(session.counting.shares(slices));
    if shared.control().call_graph.load(Ordering::Relaxed) == CALL_GRAPH_NO_MEMORY {
        session.notes.push(
            "nothing was captured for finding callers: in this Xen, guests' memory can't be told from other memory".into(),
        );
    }
    session.shared = Some(shared);
    let own = session.symbols();
    session.functions = Functions::new(symbols.iter().chain(&own));
    session.look_for_backends()?;
    Ok(session)
}

fn settings(request: &Request, counting: &Counting) -> Result<Settings, ShimError> {
    let default = match request.call_graph {
        CallGraph::Stack { .. } => RING_FOR_STACKS,
        _ => DEFAULT_RING,
    };
    let ring_bytes = request.ring_bytes.unwrap_or(default);
    let most = (MAX_DATA_PAGES * PAGE_SIZE) as u64;
    if ring_bytes > most {
        return Err(ShimError::Request(format!("a ring of {ring_bytes} bytes is too large: {most} at most")));
    }
    Ok(Settings {
        period_ns: (1e9 / request.rate_hz) as u64,
        modes: counting.timer_modes(),
        overhead_millionths: request.max_overhead.map_or(0, |part| (part * 1e6).max(1.0) as u64),
        trust: if request.pmu_trust == PmuTrust::Assume { TRUST_ASSUME } else { TRUST_AUTO },
        events: counting.configs(),
        lease_ns: LEASE.as_nanos() as u64,
        call_graph: request.call_graph,
        ring_pages: ring_bytes.div_ceil(PAGE_SIZE as u64).max(1).next_power_of_two(),
    })
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Session {
    fn shared(&self) -> &Shared {
        self.shared.as_ref().expect("mapped until the session ends")
    }

    fn look_for_backends(&mut self) -> Result<(), ShimError> {
        if self.backends.are_due() {
            let domains = self.xen.domains().map_err(ShimError::io("listing Xen's domains"))?;
            self.notes.extend(self.backends.look(&domains));
        }
        Ok(())
    }

    fn take_out(&mut self) -> Result<Stopped, ShimError> {
        if !std::mem::take(&mut self.loaded) {
            return Ok(Stopped::default());
        }
        // Without mappings of ours, the hypervisor gets all of its memory back.
        self.shared = None;
        let pause = match find(&self.xen)? {
            Some(payload) if payload.state == State::Applied => Some(standing::revert(&self.xen)?),
            Some(_) => None,
            None => return Ok(Stopped::default()),
        };
        livepatch::unload(&self.xen, NAME)?;
        Ok(Stopped { pause })
    }
}

impl Sampling for Session {
    fn events(&self) -> Vec<Event> {
        self.counting.events(1.0 / self.period.as_secs_f64())
    }

    fn started(&self) -> Time {
        Time(self.shared().control().started.load(Ordering::Relaxed))
    }

    fn cpus(&self) -> Vec<PhysCpu> {
        self.shared().rings.iter().map(rings::Ring::cpu).collect()
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn symbols(&self) -> Vec<HypervisorSymbol> {
        payload::symbols(self.shared().control().text.load(Ordering::Relaxed), NAME)
    }

    fn load_pause(&self) -> Option<Duration> {
        Some(self.load_pause)
    }

    fn drain_every(&self) -> Duration {
        // A look wakes dom0 up, which costs the hypervisor as much as dozens of samples. Even later ones would miss processes
        // that live for less.
        let is_calm = self.shared().rings.iter().all(rings::Ring::was_all_but_empty);
        if is_calm { 2 * DRAIN_EVERY } else { DRAIN_EVERY }
    }

    fn renew(&mut self) -> Result<(), ShimError> {
        self.shared().lease().renewed.fetch_add(1, Ordering::Relaxed);
        self.look_for_backends()
    }

    fn served_by(&self, pid: u32) -> Option<u32> {
        self.backends.of_process(pid)
    }

    fn has_backends(&self) -> bool {
        self.backends.exist()
    }

    fn drain(&mut self, ring: usize, each: &mut dyn FnMut(Record)) -> Watermark {
        let shared = self.shared.as_mut().expect("mapped until the session ends");
        shared.rings[ring].drain(&self.functions, &self.backends, each)
    }

    fn account(&self, ring: usize) -> CpuAccount {
        self.shared().rings[ring].account()
    }

    fn quiesce(&mut self) -> Result<(), ShimError> {
        let shared = self.shared();
        let silenced = shared.lease().command.swap(COMMAND_QUIET, Ordering::SeqCst) == COMMAND_QUIET;
        // Every sample after the store finds the command. One that was begun before it is waited for.
        let deadline = Instant::now() + Duration::from_secs(2);
        while shared.rings.iter().any(rings::Ring::at_work) {
            if Instant::now() > deadline {
                return Err(ShimError::Contract { what: "a sample is never ended".into() });
            }
            thread::yield_now();
        }
        let accounts: Vec<CpuAccount> = shared.rings.iter().map(rings::Ring::account).collect();
        let shortest_ns = shared.rings.iter().map(rings::Ring::shortest_ns).max().unwrap_or(0);
        let quiet_ns: u64 = accounts.iter().map(|account| account.quiet_ns).sum();
        if quiet_ns > 0 {
            self.notes.push(format!(
                "nothing was sampled for {:.1} s of CPU time, because the collector did not run",
                quiet_ns as f64 / 1e9
            ));
        }
        if silenced {
            self.notes.push(
                "the shim was told to be quiet while this was recorded (`xenoscope quiet`): nothing was sampled from \
                 then on"
                    .into(),
            );
        }
        self.notes.extend(self.counting.outcome(&accounts, self.max_overhead, shortest_ns));
        Ok(())
    }

    fn stop(mut self: Box<Self>) -> Result<Stopped, ShimError> {
        self.take_out()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // An error has nowhere to go from here; the next start finds what is left, and the lease ends sampling.
        let _ = self.take_out();
    }
}
