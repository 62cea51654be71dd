//! Tracing beside whatever takes the samples.

use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use profile::{CpuAccount, Event, ExitCost, Mode, PhysCpu, Time};

use super::{Leaving, Trace, reasons::Names};
use crate::{
    Exits, HypervisorSymbol, MappedFile, Owner, ProcessKey, ProcessState, Record, Request, Sampling,
    ShimError, Stopped, Taken, VcpuClock, Watermark,
    hypervisor::DRAIN_EVERY,
    xen::{hypercalls::Hypercalls, processor::Processor, trace},
};

/// How often exits are told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// From here on addresses are a kernel's, in every guest that Xen has.
const KERNELS_HALF: u64 = 1 << 63;

/// A session of sampling, and what is traced meanwhile.
pub(in crate::xen) struct Beside {
    sampling: Box<dyn Sampling>,
    trace: Option<Trace>,
    wants_times: bool,
    /// When exits were told last.
    told: Instant,
    /// The latest watermark of any ring.
    latest: Time,
    /// When the latest was that the first ring has handed out.
    last: Time,
    names: Names,
    notes: Vec<String>,
}

impl Beside {
    /// Begins to trace, if that is wanted and can be had, and then to sample. Where tracing can't be had, samples go on with
    /// a note.
    pub(in crate::xen) fn begin(
        xen: &Arc<Hypercalls>,
        request: &Request,
        sample: impl FnOnce() -> Result<Box<dyn Sampling>, ShimError>,
    ) -> Result<Self, ShimError> {
        let mut notes: Vec<String> = trace::remove_left_over(xen)?.into_iter().collect();
        let wants_times = request.vcpu_times != Some(false);
        let mut trace = None;
        if wants_times || request.exits {
            let is_amd = xen.cpuid().is_ok_and(|leaves| Processor::of(&leaves).is_amd());
            let may_allocate = request.exits || request.vcpu_times == Some(true);
            match trace::begin(xen, is_amd, request.exits, may_allocate) {
                Ok(begun) => trace = begun,
                Err(error) => {
                    notes.push(format!("nothing is told of vCPUs' times, nor of exits: {error}"));
                }
            }
        }
        let sampling = sample()?;
        // What was traced before belongs to nobody. This must take no time: the samples' clock has begun.
        if let Some(trace) = &mut trace {
            trace.begin_clocks()?;
        }
        let (latest, names) = (sampling.started(), Names::default());
        Ok(Self { sampling, trace, wants_times, told: Instant::now(), latest, last: latest, names, notes })
    }
}

impl Sampling for Beside {
    fn events(&self) -> Vec<Event> {
        self.sampling.events()
    }

    fn started(&self) -> Time {
        self.sampling.started()
    }

    fn cpus(&self) -> Vec<PhysCpu> {
        self.sampling.cpus()
    }

    fn take_notes(&mut self) -> Vec<String> {
        let mut notes = self.sampling.take_notes();
        notes.append(&mut self.notes);
        notes
    }

    fn symbols(&self) -> Vec<HypervisorSymbol> {
        self.sampling.symbols()
    }

    fn load_pause(&self) -> Option<Duration> {
        self.sampling.load_pause()
    }

    fn drain_every(&self) -> Duration {
        let own = self.sampling.drain_every();
        if self.trace.is_some() { own.min(DRAIN_EVERY) } else { own }
    }

    fn renew(&mut self) -> Result<(), ShimError> {
        if let Some(trace) = &mut self.trace {
            trace.read();
        }
        self.sampling.renew()
    }

    fn drain(&mut self, ring: usize, each: &mut dyn FnMut(Record)) -> Watermark {
        let last = &mut self.last;
        let watermark = self.sampling.drain(ring, &mut |record| {
            if ring == 0 {
                *last = record.time().max(*last);
            }
            each(record);
        });
        if let Watermark::At(time) = watermark {
            self.latest = time.max(self.latest);
        }
        // Exits are nobody's ring's. Nothing that the first one hands out after this is earlier.
        let is_due = self.told.elapsed() >= TELL_EVERY || self.trace.as_ref().is_some_and(Trace::has_ended);
        if ring == 0 && is_due {
            self.told = Instant::now();
            let shown = if let Watermark::At(time) = watermark { time } else { self.latest };
            self.last = shown.max(self.last);
            let told = self.trace.as_mut().map_or_else(Vec::new, Trace::take_exits);
            for (leaving, cost) in told {
                each(Record::Exits(exits(self.last, leaving, cost, &mut self.names)));
            }
        }
        watermark
    }

    fn account(&self, ring: usize) -> CpuAccount {
        self.sampling.account(ring)
    }

    fn vcpu_times(&mut self) -> Vec<VcpuClock> {
        match &mut self.trace {
            Some(trace) if self.wants_times => trace.vcpu_times(),
            _ => Vec::new(),
        }
    }

    fn process(&self, domain: u32, key: ProcessKey) -> Option<ProcessState> {
        self.sampling.process(domain, key)
    }

    fn served_by(&self, pid: u32) -> Option<u32> {
        self.sampling.served_by(pid)
    }

    fn has_backends(&self) -> bool {
        self.sampling.has_backends()
    }

    fn container(&self, pid: u32) -> Option<String> {
        self.sampling.container(pid)
    }

    fn open(&self, pid: u32, file: &MappedFile) -> Option<File> {
        self.sampling.open(pid, file)
    }

    fn generated_symbols(&self, pid: u32) -> Option<Vec<u8>> {
        self.sampling.generated_symbols(pid)
    }

    fn quiesce(&mut self) -> Result<(), ShimError> {
        let quiet = self.sampling.quiesce();
        // Last, so that times end where whoever asks Xen for its accounts then finds them to end.
        if let Some(trace) = &mut self.trace {
            trace.end();
            self.notes.extend(trace.notes());
        }
        quiet
    }

    fn stop(self: Box<Self>) -> Result<Stopped, ShimError> {
        self.sampling.stop()
    }
}

fn exits(time: Time, leaving: Leaving, cost: ExitCost, names: &mut Names) -> Exits {
    let domain = u32::from(leaving.vcpu.domain);
    // Nothing tells the mode, nor which process it was.
    let (mode, owner) = match leaving.at {
        Some(address) if address < KERNELS_HALF => (Mode::User, Owner::Process(domain)),
        _ => (Mode::Kernel, Owner::Kernel(domain)),
    };
    let vcpu = (domain, leaving.vcpu.index.into());
    let at = Taken::unsampled(time, vcpu, (mode, owner), leaving.at.unwrap_or(0));
    Exits { at, reason: names.of(leaving.reason), cost }
}
