//! The code of a guest's kernel, to tell whether one function of it can have called another: from the file that the guest
//! boots and the list of its symbols.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    path::Path,
};

use object::{Object, ObjectSection, ObjectSegment};
use profile::{ChainId, CodeAddress, Frame, Space, recording::Tables};

/// How many jumps from function to function are followed.
const MOST_JUMPS: usize = 8;

/// Where the compressed kernel begins in a `vmlinuz` and how long it is, and how much precedes it
/// (Documentation/arch/x86/boot.rst: `setup_sects`, `payload_offset`, `payload_length`).
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// What LZ4's command-line program of old writes first; then come blocks, each behind its length.
const LZ4: [u8; 4] = 0x184c_2102_u32.to_le_bytes();
const LZ4_BLOCK: usize = 8 << 20;

/// A kernel's code, at the addresses that it was linked to.
pub struct KernelCode {
    segments: Vec<(u64, Vec<u8>)>,
    /// The addresses that each name has: several, where files have functions of one name.
    by_name: HashMap<String, Vec<u64>>,
    /// All of them, in order.
    starts: Vec<u64>,
    thunks: HashSet<u64>,
    /// Code that is written anew when the kernel boots, by the ends of it that can be returned to.
    patched: BTreeMap<u64, Range<u64>>,
}

/// How a function comes to be called from a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// The place's call leads to it.
    Direct,
    /// The call leads to another function, which goes on to it by a jump.
    Jump,
    /// The call leads to whatever a register or a word says, or is put there when the kernel boots.
    Indirect,
    /// There is no call, or it leads elsewhere.
    None,
}

impl KernelCode {
    /// Reads the file that a guest boots, and its symbols as they are in `/proc/kallsyms` of a kernel that lies where it was
    /// linked to.
    pub fn read(vmlinuz: &Path, kallsyms: &str) -> Self {
        let image = decompressed(&std::fs::read(vmlinuz).unwrap());
        let file = object::File::parse(&*image).unwrap();
        let segments = file.segments().map(|segment| (segment.address(), segment.data().unwrap().to_vec()));
        let mut code = Self {
            segments: segments.collect(),
            by_name: HashMap::new(),
            starts: Vec::new(),
            thunks: HashSet::new(),
            patched: BTreeMap::new(),
        };
        for line in kallsyms.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[address, "t" | "T" | "w" | "W", name] = &*words else { continue };
            let address = u64::from_str_radix(address, 16).unwrap();
            code.by_name.entry(name.to_owned()).or_default().push(address);
            code.starts.push(address);
            if name.starts_with("__x86_indirect_thunk") || name.starts_with("__SCT__") {
                code.thunks.insert(address);
            }
        }
        code.starts.sort_unstable();
        code.starts.dedup();
        // struct alt_instr: where, by what, when, how long it is. struct paravirt_patch_site: where, which, how long.
        let section = |name| {
            let section = file.section_by_name(name).unwrap_or_else(|| panic!("a kernel has {name}"));
            (section.address(), section.data().unwrap().to_vec())
        };
        let (at, bytes) = section(".altinstructions");
        for (place, row) in (at..).step_by(12).zip(bytes.as_chunks::<12>().0) {
            let distance = i32::from_le_bytes([row[0], row[1], row[2], row[3]]);
            code.patch(place.wrapping_add_signed(distance.into()), row[10]);
        }
        for row in section(".parainstructions").1.as_chunks::<16>().0 {
            code.patch(u64::from_le_bytes(*row.first_chunk().unwrap()), row[9]);
        }
        code
    }

    fn patch(&mut self, from: u64, length: u8) {
        let end = from + u64::from(length);
        self.patched.insert(end, from..end);
    }

    fn bytes<const COUNT: usize>(&self, address: u64) -> Option<[u8; COUNT]> {
        self.segments.iter().find_map(|(start, bytes)| {
            bytes.get(usize::try_from(address.checked_sub(*start)?).ok()?..)?.first_chunk().copied()
        })
    }

    /// Where an instruction leads whose last four bytes are the distance from its end.
    fn target(&self, end: u64) -> Option<u64> {
        Some(end.wrapping_add_signed(i32::from_le_bytes(self.bytes(end - 4)?).into()))
    }

    /// The start of the function that an address lies in.
    fn function(&self, address: u64) -> Option<u64> {
        let above = self.starts.partition_point(|&start| start <= address);
        above.checked_sub(1).map(|index| self.starts[index])
    }

    /// The functions that one jumps on to, or runs into.
    fn jumps(&self, from: u64) -> impl Iterator<Item = u64> {
        let next = self.starts.partition_point(|&start| start <= from);
        let end = self.starts.get(next).copied().unwrap_or(from);
        // Intel SDM, volume 2A, JMP and Jcc: EB and 70 to 7F with a distance of 8 bits, E9 and 0F 80 to 0F 8F with one of 32.
        let target = |at| match self.bytes(at)? {
            [0xeb | 0x70..=0x7f, distance] => Some((at + 2).wrapping_add_signed((distance as i8).into())),
            [0xe9, _] => self.target(at + 5),
            [0x0f, 0x80..=0x8f] => self.target(at + 6),
            _ => None,
        };
        let jumps = (from..end).filter_map(move |at| {
            target(at).filter(|&target| target != from && self.function(target) == Some(target))
        });
        // A part with a name of its own is run into, without padding in between.
        let padded = self.bytes::<1>(end - 1).is_none_or(|[last]| matches!(last, 0xcc | 0x90 | 0xc3));
        jumps.chain((!padded).then_some(end))
    }

    /// Whether a function jumps on to one of several, by way of others perhaps.
    fn leads_on(&self, from: u64, to: &[u64], left: usize) -> bool {
        let goes = |next| to.contains(&next) || self.thunks.contains(&next);
        self.jumps(from).any(|next| goes(next) || left > 0 && self.leads_on(next, to, left - 1))
    }

    /// How a function of a name comes to be called from a place of which the function and the offset in it are known, as
    /// the place that is returned to.
    pub fn call(&self, caller: (&str, u64), callee: &str) -> Call {
        let places = self.by_name.get(caller.0).into_iter().flatten();
        let callees = self.by_name.get(whole(callee)).or_else(|| self.by_name.get(callee));
        let callees = callees.map_or(&[][..], Vec::as_slice);
        places.map(|start| self.call_before(start + caller.1, callees)).min().unwrap_or(Call::None)
    }

    fn call_before(&self, end: u64, callees: &[u64]) -> Call {
        let patched = self.patched.range(end..).next();
        if patched.is_some_and(|(_, place)| place.start < end) {
            return Call::Indirect;
        }
        // Intel SDM, volume 2A, CALL: E8 with a distance, or FF /2 with a register or memory.
        let Some(bytes) = self.bytes::<8>(end - 8) else { return Call::None };
        let indirect = (1..=6).any(|at| bytes[at] == 0xff && bytes[at + 1] >> 3 & 7 == 2);
        match self.target(end).filter(|_| bytes[3] == 0xe8) {
            Some(target) if callees.contains(&target) => Call::Direct,
            Some(target) if self.thunks.contains(&target) => Call::Indirect,
            Some(target) if self.leads_on(target, callees, MOST_JUMPS) => Call::Jump,
            _ if indirect => Call::Indirect,
            // A call by way of a thunk, which may have been made a shorter one that does without.
            _ if (2..=3).any(|length| {
                let thunk = self.target(end - length + 5).filter(|target| self.thunks.contains(target));
                self.bytes(end - length) == Some([0xe8]) && thunk.is_some()
            }) =>
            {
                Call::Indirect
            }
            _ => Call::None,
        }
    }

    /// How each frame of a kernel's came to be called by the next one, in the part of a chain that is the kernel's; with the
    /// names of both.
    pub fn calls<'t>(
        &self,
        chain: ChainId,
        tables: &'t Tables,
    ) -> impl Iterator<Item = (Call, &'t str, &'t str)> {
        let frames: Vec<&Frame> = tables.frames(chain).collect();
        let named = |frame: &Frame| {
            let own = frame.module.is_some_and(|module| tables.name(module) == "vmlinux");
            let name = frame.function.filter(|_| own && matches!(frame.space, Space::Kernel(_)))?;
            Some((tables.name(name), frame.offset.0))
        };
        let calls = frames.windows(2).filter_map(|pair| {
            let is_call = matches!(pair[1].address, CodeAddress::ReturnAddress(_));
            let (callee, caller) = (named(pair[0])?, named(pair[1]).filter(|_| is_call)?);
            Some((self.call(caller, callee.0), callee.0, caller.0))
        });
        calls.collect::<Vec<_>>().into_iter()
    }
}

/// The function that a part is of, which was put apart from it.
fn whole(name: &str) -> &str {
    name.split_once(".cold").map_or(name, |(whole, _)| whole)
}

/// The kernel in a `vmlinuz` that was compressed by LZ4, as Debian's for clouds are.
fn decompressed(vmlinuz: &[u8]) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(*vmlinuz[at..].first_chunk().unwrap()) as usize;
    let begin = (usize::from(vmlinuz[SETUP_SECTORS]) + 1) * 512 + number(PAYLOAD_OFFSET);
    let payload = &vmlinuz[begin..begin + number(PAYLOAD_LENGTH)];
    // The length of what comes out ends it.
    let (payload, _) = payload.split_last_chunk::<4>().unwrap();
    let mut rest = payload.strip_prefix(&LZ4).expect("the kernel is compressed by LZ4");
    let mut image = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (block, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        image.extend(lz4_flex::block::decompress(block, LZ4_BLOCK).unwrap());
        rest = after;
    }
    image
}
