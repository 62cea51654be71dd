//! What the numbers in samples stand for.

use std::{collections::BTreeMap, iter};

use crate::{
    Chain, ChainId, Domain, DomainId, DomainTime, EventId, Frame, FrameId, NameId, Origin, Process,
    ProcessId, Space, Time, VcpuTime,
};

use super::{Damage, Entry, Exits, Fact, Lane, Move, Place, PlaceId, Samples};

/// No chain has more frames. A longer one would make the work of a reader grow with the square of the file.
pub const MAX_DEPTH: u16 = 1024;

/// The tables of a recording: every number in a sample that was read from it resolves here.
///
/// The look-ups take numbers from the same recording only, and panic on others.
#[derive(Debug, Default)]
pub struct Tables {
    domains: BTreeMap<DomainId, Domain>,
    gone: BTreeMap<DomainId, Time>,
    moves: Vec<Move>,
    processes: BTreeMap<ProcessId, Process>,
    names: Vec<Box<str>>,
    frames: Vec<Frame>,
    chains: Vec<Chain>,
    depths: Vec<u16>,
    places: Vec<Place>,
    lanes: Vec<Lane>,
}

impl Tables {
    /// All domains that were seen, by their handles.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }

    /// A domain.
    pub fn domain(&self, id: DomainId) -> &Domain {
        &self.domains[&id]
    }

    /// When a domain was found to be gone, if it was.
    pub fn gone(&self, id: DomainId) -> Option<Time> {
        self.gone.get(&id).copied()
    }

    /// The moves of guests from one domain to another, in their order. What it was before may be in an earlier file.
    pub fn moves(&self) -> impl Iterator<Item = &Move> {
        self.moves.iter().filter(|moved| self.domains.contains_key(&moved.to))
    }

    /// A process.
    pub fn process(&self, id: ProcessId) -> &Process {
        &self.processes[&id]
    }

    /// All processes that were seen, by their handles.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// A text.
    pub fn name(&self, id: NameId) -> &str {
        &self.names[id.0 as usize]
    }

    /// A frame.
    pub fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.0 as usize]
    }

    /// All frames, by their numbers.
    pub fn all_frames(&self) -> &[Frame] {
        &self.frames
    }

    /// A link of a call chain.
    pub fn chain(&self, id: ChainId) -> Chain {
        self.chains[id.0 as usize]
    }

    /// What samples of a place have in common.
    pub fn place(&self, id: PlaceId) -> Place {
        self.places[id.0 as usize]
    }

    /// All places, by their numbers.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// All lanes, by their numbers.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The frames of a call chain, innermost first.
    pub fn frames(&self, id: ChainId) -> impl Iterator<Item = &Frame> {
        iter::successors(Some(self.chain(id)), |link| link.caller.map(|caller| self.chain(caller)))
            .map(|link| self.frame(link.frame))
    }

    /// About how many bytes of memory all of it takes.
    pub fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
        let chains = self.chains.len() * (size_of::<Chain>() + size_of::<u16>());
        let lives = self.domains.len() * size_of::<Domain>() + self.processes.len() * size_of::<Process>();
        let places = self.places.len() * size_of::<Place>() + self.lanes.len() * size_of::<Lane>();
        names + self.frames.len() * size_of::<Frame>() + chains + lives + places
    }

    /// Enters a fact, if all that it refers to is known.
    pub(super) fn learn(&mut self, fact: Fact) -> Result<(), Damage> {
        match fact {
            Fact::Domain(domain) => {
                self.domains.insert(domain.id, domain);
            }
            Fact::DomainGone { domain, at } => {
                self.check_domain(domain)?;
                self.gone.insert(domain, at);
            }
            // It comes before the domain that it tells of.
            Fact::DomainMoved(moved) => self.moves.push(moved),
            Fact::Process(process) => {
                self.check_domain(process.domain)?;
                self.processes.insert(process.id, process);
            }
            // They are not referred to; the reader keeps them.
            Fact::Note(_) | Fact::Mark(_) | Fact::SamplesWait { .. } => {}
        }
        Ok(())
    }

    /// Enters what comes next of its kind, if all that it refers to is known.
    pub(super) fn enter(&mut self, entry: Entry, events: usize) -> Result<(), Damage> {
        match entry {
            Entry::Name(name) => self.names.push(name),
            Entry::Frame(frame) => {
                self.check_space(frame.space)?;
                let Origin { linked, line, .. } = frame.origin;
                let origin = [linked.map(|linked| linked.build_id), line.map(|line| line.file)];
                for name in [frame.function, frame.module].into_iter().chain(origin).flatten() {
                    check("name", name.0, self.names.len())?;
                }
                self.frames.push(frame);
            }
            Entry::Chain(chain) => {
                check("frame", chain.frame.0, self.frames.len())?;
                let depth = match chain.caller {
                    None => 1,
                    Some(caller) => {
                        check("chain", caller.0, self.chains.len())?;
                        self.depths[caller.0 as usize] + 1
                    }
                };
                if depth > MAX_DEPTH {
                    return Err(Damage::TooDeep(MAX_DEPTH));
                }
                self.chains.push(chain);
                self.depths.push(depth);
            }
            Entry::Place(place) => {
                check("chain", place.chain.0, self.chains.len())?;
                place.charged_to.map_or(Ok(()), |domain| self.check_domain(domain))?;
                place.process.map_or(Ok(()), |process| self.check_process(process))?;
                self.places.push(place);
            }
            Entry::Lane(lane) => {
                let EventId(event) = lane.event;
                check("event", event.into(), events)?;
                self.lanes.push(lane);
            }
        }
        Ok(())
    }

    /// Checks that all that samples refer to is known.
    pub(super) fn check_samples(&self, samples: &Samples) -> Result<(), Damage> {
        let largest = |numbers: &mut dyn Iterator<Item = u32>| numbers.max();
        if let Some(place) = largest(&mut samples.places().iter().map(|place| place.0)) {
            check("place", place, self.places.len())?;
        }
        match largest(&mut samples.lanes().iter().copied()) {
            Some(lane) => check("lane", lane, self.lanes.len()),
            None => Ok(()),
        }
    }

    /// Checks that the domains of a snapshot are known.
    pub(super) fn check_times(&self, times: &[DomainTime]) -> Result<(), Damage> {
        times.iter().try_for_each(|time| self.check_domain(time.domain))
    }

    /// Checks that the domains of vCPUs are known.
    pub(super) fn check_vcpus(&self, vcpus: &[VcpuTime]) -> Result<(), Damage> {
        vcpus.iter().try_for_each(|time| self.check_domain(time.vcpu.domain))
    }

    /// Checks that all that exits refer to is known.
    pub(super) fn check_exits(&self, exits: &[Exits]) -> Result<(), Damage> {
        exits.iter().try_for_each(|exits| {
            check("place", exits.place.0, self.places.len())?;
            check("name", exits.reason.0, self.names.len())
        })
    }

    fn check_domain(&self, id: DomainId) -> Result<(), Damage> {
        match self.domains.contains_key(&id) {
            true => Ok(()),
            false => Err(Damage::Unknown { what: "domain", id: id.0 }),
        }
    }

    /// Checks that a space's domain and process are known.
    pub(super) fn check_space(&self, space: Space) -> Result<(), Damage> {
        match space {
            Space::Hypervisor => Ok(()),
            Space::Kernel(domain) => self.check_domain(domain),
            Space::User(domain, process) => {
                self.check_domain(domain)?;
                self.check_process(process)
            }
        }
    }

    fn check_process(&self, id: ProcessId) -> Result<(), Damage> {
        match self.processes.contains_key(&id) {
            true => Ok(()),
            false => Err(Damage::Unknown { what: "process", id: id.0 }),
        }
    }
}

fn check(what: &'static str, id: u32, count: usize) -> Result<(), Damage> {
    if (id as usize) < count { Ok(()) } else { Err(Damage::Unknown { what, id }) }
}
