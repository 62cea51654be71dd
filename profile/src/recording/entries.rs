//! Names, frames, chains, places and lanes as columns, each as it differs from what those before it let expect.

use std::collections::hash_map;

use crate::{
    Chain, ChainId, CodeAddress, DomainId, EventId, Frame, FrameId, ImageOffset, Linked, Mode, NameId,
    Origin, PhysCpu, ProcessId, SourceLine, Space,
};

use super::{
    Damage, Entry, Lane, Place,
    columns::{Table, difference, differing, optional, take, take_bytes, take_optional, take_u32},
};

/// Quick, and keyed at random: guests choose what is in it.
type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// What was introduced since the last chunk, encoded.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    expected: Expected,
    texts: Vec<u8>,
    names: Table<1>,
    frames: Table<12>,
    chains: Table<2>,
    places: Table<4>,
    lanes: Table<2>,
}

/// What encoder and decoder know alike.
#[derive(Debug, Default)]
struct Expected {
    /// Where a module lies in a space.
    bases: HashMap<(Space, Option<NameId>), u64>,
    /// Where a function begins in its module.
    starts: HashMap<(Option<NameId>, Option<NameId>), u64>,
    /// By how much a build's addresses in a space are above those that it was linked to.
    moves: HashMap<(Space, NameId), u64>,
    domain: u64,
    process: u64,
    /// The frame that the next chain will most likely be of, and the chain and process of the next place.
    frame: u64,
    chain: u64,
    current: u64,
    /// Whose code each frame is, and the innermost frame of each chain: a process (optional), or 0 for no process's.
    frame_owners: Vec<u64>,
    chain_owners: Vec<u64>,
}

impl Expected {
    /// Where the function (without one, the module) of a frame will most likely begin.
    fn start(&self, space: Space, module: Option<NameId>, function: Option<NameId>) -> u64 {
        let base = self.bases.get(&(space, module)).copied().unwrap_or(0);
        base.wrapping_add(self.starts.get(&(module, function)).copied().unwrap_or(0))
    }

    /// What is written of a linked address: how far it is from where the last one of its build lets expect it.
    fn moved(&mut self, space: Space, build_id: NameId, raw: u64, linked: u64) -> u64 {
        let moved = raw.wrapping_sub(linked);
        let before = self.moves.insert((space, build_id), moved).unwrap_or(0);
        difference(linked, raw.wrapping_sub(before))
    }

    /// The linked address that this was written of.
    fn moved_back(&mut self, space: Space, build_id: NameId, raw: u64, written: u64) -> u64 {
        let before = self.moves.entry((space, build_id)).or_insert(0);
        let linked = differing(written, raw.wrapping_sub(*before));
        *before = raw.wrapping_sub(linked);
        linked
    }

    /// Enters a frame, which is the code of this process.
    fn enter_frame(&mut self, space: Space) {
        self.frame_owners.push(match space {
            Space::User(_, ProcessId(id)) => optional(Some(id)),
            Space::Hypervisor | Space::Kernel(_) => 0,
        });
    }

    /// Enters a chain, whose innermost frame this is.
    fn enter_chain(&mut self, FrameId(frame): FrameId) {
        self.frame = u64::from(frame) + 1;
        self.chain_owners.push(self.frame_owners.get(frame as usize).copied().unwrap_or(0));
    }

    /// The process (optional) that was most likely current in a place.
    fn process(&self, ChainId(chain): ChainId) -> u64 {
        match self.chain_owners.get(chain as usize) {
            None | Some(0) => self.current,
            Some(&owner) => owner,
        }
    }

    /// Learns where it does begin.
    fn learn(&mut self, space: Space, module: Option<NameId>, function: Option<NameId>, start: u64) {
        match (self.bases.entry((space, module)), self.starts.entry((module, function))) {
            (hash_map::Entry::Occupied(base), hash_map::Entry::Vacant(within)) => {
                within.insert(start.wrapping_sub(*base.get()));
            }
            (hash_map::Entry::Vacant(base), within) => {
                base.insert(start.wrapping_sub(*within.or_insert(0)));
            }
            (hash_map::Entry::Occupied(_), hash_map::Entry::Occupied(_)) => {}
        }
    }
}

impl Encoder {
    /// How many rows there are, or sixteenths of the bytes of text.
    pub(super) fn size(&self) -> usize {
        let Self { texts, names, frames, chains, places, lanes, .. } = self;
        let rows = [names.rows(), frames.rows(), chains.rows(), places.rows(), lanes.rows()];
        rows.into_iter().fold(texts.len() / 16, usize::max)
    }

    pub(super) fn name(&mut self, name: &str) {
        self.names.push([name.len() as u64]);
        self.texts.extend_from_slice(name.as_bytes());
    }

    pub(super) fn frame(&mut self, frame: Frame) {
        let Frame { space, address, function, module, offset, origin } = frame;
        let (space_tag, domain, process) = match space {
            Space::Hypervisor => (0, None, None),
            Space::Kernel(domain) => (1, Some(domain), None),
            Space::User(domain, process) => (2, Some(domain), Some(process)),
        };
        let is_return = matches!(address, CodeAddress::ReturnAddress(_));
        let expected = &mut self.expected;
        let domain = domain.map_or(expected.domain, |DomainId(id)| id.into());
        let process = process.map_or(expected.process, |ProcessId(id)| id.into());
        let start = address.raw().wrapping_sub(offset.0);
        let row = [
            space_tag * 2 + u64::from(is_return),
            difference(domain, expected.domain),
            difference(process, expected.process),
            optional(module.map(|name| name.0)),
            optional(function.map(|name| name.0)),
            offset.0,
            difference(start, expected.start(space, module, function)),
            optional(origin.linked.map(|linked| linked.build_id.0)),
            origin
                .linked
                .map_or(0, |linked| expected.moved(space, linked.build_id, address.raw(), linked.address)),
            optional(origin.line.map(|line| line.file.0)),
            origin.line.map_or(0, |line| line.line.into()),
            origin.inlined.into(),
        ];
        expected.learn(space, module, function, start);
        expected.enter_frame(space);
        (expected.domain, expected.process) = (domain, process);
        self.frames.push(row);
    }

    pub(super) fn chain(&mut self, Chain { caller, frame }: Chain) {
        let expected = &mut self.expected;
        let up = caller.map_or(0, |caller| expected.chain_owners.len() as u64 - u64::from(caller.0));
        self.chains.push([up, difference(frame.0.into(), expected.frame)]);
        expected.enter_chain(frame);
    }

    pub(super) fn place(&mut self, place: Place) {
        let expected = &mut self.expected;
        let process = optional(place.process.map(|id| id.0));
        let row = [
            optional(place.charged_to.map(|id| id.0)),
            difference(process, expected.process(place.chain)),
            Mode::ALL.iter().position(|&mode| mode == place.mode).expect("all modes are there") as u64,
            difference(place.chain.0.into(), expected.chain),
        ];
        (expected.current, expected.chain) = (process, u64::from(place.chain.0) + 1);
        self.places.push(row);
    }

    pub(super) fn lane(&mut self, Lane { cpu, event }: Lane) {
        self.lanes.push([cpu.0.into(), event.0.into()]);
    }

    /// Appends the payload of a chunk, if there is anything to say.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>) {
        if self.size() == 0 {
            return;
        }
        self.names.drain_into(out);
        out.append(&mut self.texts);
        self.frames.drain_into(out);
        self.chains.drain_into(out);
        self.places.drain_into(out);
        self.lanes.drain_into(out);
    }
}

/// Decodes chunk after chunk.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    expected: Expected,
}

impl Decoder {
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<Entry>, Damage> {
        let bytes = &mut bytes;
        let mut entries = Vec::new();
        self.take_names(bytes, &mut entries)?;
        self.take_frames(bytes, &mut entries)?;
        self.take_chains(bytes, &mut entries)?;
        self.take_places(bytes, &mut entries)?;
        let (rows, [cpus, events]) = take(bytes)?;
        for row in 0..rows {
            let event =
                u16::try_from(events[row]).map_err(|_| Damage::Columns("an event has no such number"))?;
            let cpu = PhysCpu(take_u32(cpus[row])?);
            entries.push(Entry::Lane(Lane { cpu, event: EventId(event) }));
        }
        Ok(entries)
    }

    fn take_names(&mut self, bytes: &mut &[u8], entries: &mut Vec<Entry>) -> Result<(), Damage> {
        let (_, [lengths]) = take(bytes)?;
        let whole = lengths.iter().fold(0, |sum: u64, &length| sum.saturating_add(length));
        let mut texts = take_bytes(bytes, usize::try_from(whole).unwrap_or(usize::MAX))?;
        for length in lengths {
            let text = take_bytes(&mut texts, length as usize)?;
            let name = std::str::from_utf8(text).map_err(|_| Damage::Columns("a name is not UTF-8"))?;
            entries.push(Entry::Name(name.into()));
        }
        Ok(())
    }

    fn take_frames(&mut self, bytes: &mut &[u8], entries: &mut Vec<Entry>) -> Result<(), Damage> {
        let expected = &mut self.expected;
        let (rows, columns) = take(bytes)?;
        let [
            tags,
            domains,
            processes,
            modules,
            functions,
            offsets,
            starts,
            build_ids,
            moves,
            files,
            lines,
            inlined,
        ] = columns;
        for row in 0..rows {
            expected.domain = differing(domains[row], expected.domain);
            expected.process = differing(processes[row], expected.process);
            let domain = || take_u32(expected.domain).map(DomainId);
            let space = match tags[row] / 2 {
                0 => Space::Hypervisor,
                1 => Space::Kernel(domain()?),
                2 => Space::User(domain()?, ProcessId(take_u32(expected.process)?)),
                _ => return Err(Damage::Columns("there is no such space")),
            };
            let module = take_optional(modules[row])?.map(NameId);
            let function = take_optional(functions[row])?.map(NameId);
            let start = differing(starts[row], expected.start(space, module, function));
            expected.learn(space, module, function, start);
            expected.enter_frame(space);
            let raw = start.wrapping_add(offsets[row]);
            let address = match tags[row] % 2 {
                0 => CodeAddress::InstructionPointer(raw),
                _ => CodeAddress::ReturnAddress(raw),
            };
            let linked = take_optional(build_ids[row])?.map(NameId).map(|build_id| {
                let address = expected.moved_back(space, build_id, raw, moves[row]);
                Linked { build_id, address }
            });
            let line = match take_optional(files[row])?.map(NameId) {
                Some(file) => Some(SourceLine { file, line: take_u32(lines[row])? }),
                None => None,
            };
            let origin = Origin { linked, line, inlined: inlined[row] != 0 };
            let offset = ImageOffset(offsets[row]);
            entries.push(Entry::Frame(Frame { space, address, function, module, offset, origin }));
        }
        Ok(())
    }

    fn take_chains(&mut self, bytes: &mut &[u8], entries: &mut Vec<Entry>) -> Result<(), Damage> {
        let expected = &mut self.expected;
        let (rows, [callers, frames]) = take(bytes)?;
        for row in 0..rows {
            let caller = match callers[row] {
                0 => None,
                up => {
                    let caller = (expected.chain_owners.len() as u64).checked_sub(up);
                    Some(caller.ok_or(Damage::Columns("a caller is before the first chain"))?)
                }
            };
            let frame = FrameId(take_u32(differing(frames[row], expected.frame))?);
            expected.enter_chain(frame);
            let caller = caller.map(take_u32).transpose()?.map(ChainId);
            entries.push(Entry::Chain(Chain { caller, frame }));
        }
        Ok(())
    }

    fn take_places(&mut self, bytes: &mut &[u8], entries: &mut Vec<Entry>) -> Result<(), Damage> {
        let expected = &mut self.expected;
        let (rows, [charged, processes, modes, chains]) = take(bytes)?;
        for row in 0..rows {
            let chain = take_u32(differing(chains[row], expected.chain))?;
            expected.current = differing(processes[row], expected.process(ChainId(chain)));
            expected.chain = u64::from(chain) + 1;
            let mode = usize::try_from(modes[row]).ok().and_then(|mode| Mode::ALL.get(mode));
            entries.push(Entry::Place(Place {
                charged_to: take_optional(charged[row])?.map(DomainId),
                process: take_optional(expected.current)?.map(ProcessId),
                mode: *mode.ok_or(Damage::Columns("there is no such mode"))?,
                chain: ChainId(chain),
            }));
        }
        Ok(())
    }
}
