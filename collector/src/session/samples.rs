//! One sample on its way into the recording: whose it is, and the chain of code that it was taken in.

use hv_shim::{Exits, Missing, Owner, ProcessKey, Taken};
use profile::{
    Chain, ChainId, CodeAddress, DomainId, FrameId, KeptStacks, Mode, PhysCpu, ProcessId, Sample, Space,
    Time, VcpuId, recording::Place,
};
use unwind::Broken;

use super::{CONTROL, Session, Sink, code_address};
use crate::{
    callers::{Link, Mapped},
    processes::Whose,
};

impl<W: Sink> Session<'_, W> {
    pub(super) fn write_sample(&mut self, ring: usize, taken: &Taken) {
        let cpu = self.cpus[ring];
        self.sequences.arrive(cpu, taken.sequence);
        let current = taken.charged_to.map(|number| self.domain_of(number, taken.time));
        let served = self.served(taken);
        let charged_to = served.or(current);
        if !self.domains.is_wanted(charged_to) {
            return self.books.filter(ring);
        }
        self.books.write(ring);
        let (space, process) = self.whose(taken);
        let links = self.links(taken, cpu, space, process);
        let chain = self.chain(&links, taken);
        // A kernel that serves a process does so on its behalf.
        let process = process.or_else(|| {
            links.iter().find_map(|link| match link {
                Link::Code(Space::User(domain, id), _) if current == Some(*domain) => Some(*id),
                _ => None,
            })
        });
        self.writer.sample(Sample {
            time: taken.time,
            cpu,
            // A backend's is not the vCPU of the domain that it serves.
            vcpu: charged_to
                .zip(taken.vcpu)
                .filter(|_| served.is_none())
                .map(|(domain, index)| VcpuId { domain, index }),
            charged_to,
            process,
            mode: if served.is_some() { Mode::Backend } else { taken.mode },
            event: taken.event,
            weight: taken.weight,
            sequence: taken.sequence,
            chain,
        });
    }

    /// The domain that was served, if a backend ran: by a thread of the control domain's kernel, or by a process of it.
    fn served(&mut self, taken: &Taken) -> Option<DomainId> {
        let number = taken.serves.or_else(|| {
            let is_own = taken.owner == Owner::Process(CONTROL) && self.sampling.has_backends();
            let domain = self.domains.of_number(CONTROL).filter(|_| is_own)?;
            let at = (taken.time, Some(taken.instruction_pointer));
            self.sampling.served_by(self.processes.number_of(domain, taken.process?, at)?)
        })?;
        // One that is not known any more may have been the last to be served there.
        self.domains.of_number_at(number, taken.time)
    }

    pub(super) fn write_exits(&mut self, exits: &Exits) {
        let at = &exits.at;
        let charged_to = at.charged_to.map(|number| self.domain_of(number, at.time));
        if !self.domains.is_wanted(charged_to) {
            return;
        }
        let (space, process) = self.whose(at);
        let chain = self.chain(&[Link::Code(space, code_address(at))], at);
        let reason = self.writer.name(&exits.reason);
        self.writer.exits(at.time, Place { charged_to, process, mode: at.mode, chain }, reason, exits.cost);
    }

    /// Whose code ran, and which process was current there.
    fn whose(&mut self, taken: &Taken) -> (Space, Option<ProcessId>) {
        let owner = match taken.owner {
            Owner::Hypervisor => None,
            Owner::Kernel(number) | Owner::Process(number) => {
                Some(Whose { domain: self.domain_of(number, taken.time), number })
            }
        };
        let is_process = matches!(taken.owner, Owner::Process(_));
        let process = owner.filter(|_| is_process || taken.process.is_some()).map(|whose| {
            let (symbolizer, writer) = (&mut self.namer.symbolizer, &mut self.writer);
            let at = (taken.time, is_process.then_some(taken.instruction_pointer));
            self.processes.sampled(whose, taken.process, at, &*self.sampling, symbolizer, writer)
        });
        let space = match (owner, process) {
            (None, _) => Space::Hypervisor,
            (Some(whose), Some(process)) if is_process => Space::User(whose.domain, process),
            (Some(whose), _) => Space::Kernel(whose.domain),
        };
        (space, process)
    }

    /// Where a sample was taken and what called that, innermost first.
    fn links(&mut self, taken: &Taken, cpu: PhysCpu, space: Space, process: Option<ProcessId>) -> Vec<Link> {
        let innermost = Link::Code(space, code_address(taken));
        let mut spaces = Vec::new();
        for captured in &taken.stretches {
            spaces.push(match captured.owner {
                Owner::Hypervisor => Space::Hypervisor,
                Owner::Kernel(number) => Space::Kernel(self.domain_of(number, taken.time)),
                Owner::Process(number) => {
                    let whose = Whose { domain: self.domain_of(number, taken.time), number };
                    let of_guest = captured.page_tables.map(ProcessKey::Root);
                    let own = process.filter(|&id| space == Space::User(whose.domain, id));
                    let id = own.unwrap_or_else(|| {
                        let (symbolizer, writer) = (&mut self.namer.symbolizer, &mut self.writer);
                        let key = of_guest.or(taken.process);
                        let at = (taken.time, None);
                        self.processes.sampled(whose, key, at, &*self.sampling, symbolizer, writer)
                    });
                    Space::User(whose.domain, id)
                }
            });
        }
        if self.keeps_stacks && !spaces.is_empty() {
            let stretches = taken.stretches.iter().map(|captured| captured.stretch.clone());
            let stretches = spaces.iter().copied().zip(stretches).collect();
            self.writer.stacks(&KeptStacks { cpu, sequence: taken.sequence, stretches });
        }
        let pid = match taken.process {
            Some(ProcessKey::Pid(pid)) => Some(pid),
            _ => None,
        };
        let (symbolizer, processes) = (&mut self.namer.symbolizer, &mut self.processes);
        let mut mapped = Mapped { symbolizer, processes, sampling: &*self.sampling, pid };
        let stretches = spaces.iter().copied().zip(&taken.stretches);
        let mut links = self.callers.links(stretches, &mut mapped);
        let is_captured = links.first() == Some(&innermost);
        if !is_captured {
            links = vec![innermost];
        }
        let gap = match taken.missing {
            Some(Missing::Room) => Some(Broken::NoRoom),
            Some(Missing::PageTables) => Some(Broken::PageTables),
            None => (self.wants_callers && !is_captured).then_some(Broken::NotCopied),
        };
        self.without_room += u64::from(taken.missing == Some(Missing::Room));
        links.extend(gap.map(|broken| Link::Gap(space, broken)));
        links
    }

    /// The chain of the recording that these links make.
    fn chain(&mut self, links: &[Link], taken: &Taken) -> ChainId {
        let (innermost, callers) = links.split_first().expect("where the sample was taken, at least");
        let mut caller = None;
        for &link in callers.iter().rev() {
            let frame = self.frame(link, taken);
            caller = Some(self.writer.chain(Chain { caller, frame }));
        }
        let frame = self.frame(*innermost, taken);
        self.writer.chain(Chain { caller, frame })
    }

    fn frame(&mut self, link: Link, taken: &Taken) -> FrameId {
        match link {
            Link::Gap(space, broken) => self.namer.gap(space, broken.as_str(), &mut self.writer),
            Link::Code(space, address) => match self.namer.known(space, address) {
                Some(frame) => frame,
                None => {
                    self.read_what_names(space, address, taken);
                    self.namer.name(space, address, &mut self.writer)
                }
            },
        }
    }

    fn domain_of(&mut self, number: u32, time: Time) -> DomainId {
        match self.domains.of_number_at(number, time) {
            Some(id) => id,
            None => self.domains.add_unlisted(number, time, &mut self.writer),
        }
    }

    /// Fetches the symbols for an address, where they are to be had.
    fn read_what_names(&mut self, space: Space, address: CodeAddress, taken: &Taken) {
        let Some(ProcessKey::Pid(pid)) = taken.process else { return };
        let symbolizer = &mut self.namer.symbolizer;
        if let Some(image) = symbolizer.unread(space, address) {
            self.processes.read_image(pid, image, &*self.sampling, symbolizer);
        } else if let Space::User(domain, _) = space
            && self.namer.is_unnamed(space, address)
        {
            let (sampling, symbolizer) = (&*self.sampling, &mut self.namer.symbolizer);
            let news = self.processes.read_generated(domain, pid, taken.time, sampling, symbolizer);
            self.namer.forget_processes(news.as_slice());
        }
    }
}
