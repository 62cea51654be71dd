//! What is captured with samples on this machine, counted and compared with guests' memory, as JSON.
//!
//!     stretches SECONDS [BYTES|fp|off] [HZ]
//!
//! `tests/programs/deep.c` keeps its stack as it is and filled with what is told from the address: of its samples every
//! byte is compared with what mapping the guest's memory gives, and with what it must be.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    time::{Duration, Instant},
};

use guest::{GuestMemory, GuestPhysical};
use hv_shim::{CallGraph, Captured, Owner, PmuTrust, Record, Request, SampleBy, Taken};
use profile::{CodeAddress, DomainKind, HypervisorVirtual, StackPiece, Stretch};
use serde_json::{Value, json};

/// What a word of deep.c's stack is, beside its address.
const PATTERN: u64 = 0x5ca1_ab1e_0000_0000;

/// How many samples of a domain are compared with its memory.
const COMPARED: usize = 40;

#[derive(Default)]
struct Domain {
    shapes: BTreeMap<String, u64>,
    /// Bytes of stacks.
    bytes: u64,
    /// Words of the pattern, and words among them that are something else.
    pattern: u64,
    broken: u64,
    /// Stacks that begin where no process's memory is, and how many have bytes all the same.
    hostile: u64,
    hostile_with_bytes: u64,
    /// Root of page tables and stack of some samples of deep.c.
    of_deep: Vec<(u64, StackPiece)>,
}

fn main() {
    let mut arguments = env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(5.0, |text| text.parse().expect("seconds"));
    let call_graph = match arguments.next().as_deref() {
        None => CallGraph::Stack { bytes: CallGraph::DEFAULT_BYTES },
        Some("fp") => CallGraph::FramePointers,
        Some("off") => CallGraph::Off,
        Some(bytes) => CallGraph::Stack { bytes: bytes.parse().expect("bytes of a stack") },
    };
    let rate_hz = arguments.next().map_or(1000.0, |text| text.parse().expect("a rate"));
    let request = Request {
        sample_by: SampleBy::Shim,
        rate_hz,
        period: None,
        events: Vec::new(),
        max_overhead: None,
        pmu_trust: PmuTrust::Never,
        call_graph,
        ring_bytes: None,
        may_narrow: false,
        vcpu_times: Some(false),
        exits: false,
    };
    let mut hypervisor = hv_shim::detect().expect("a hypervisor");
    let mut names: Vec<(HypervisorVirtual, String)> = Vec::new();
    names.extend(
        hypervisor.symbols().expect("symbols").into_iter().map(|symbol| (symbol.address, symbol.name)),
    );
    let mut sampling = hypervisor.sample(&request).expect("the shim");
    names.extend(sampling.symbols().into_iter().map(|symbol| (symbol.address, symbol.name)));
    names.sort();
    let mut domains: BTreeMap<String, Domain> = BTreeMap::new();
    let mut chains: HashMap<String, u64> = HashMap::new();
    let mut samples = 0u64;
    let rings = sampling.cpus().len();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut is_over = false;
    while !is_over {
        is_over = Instant::now() >= end;
        if is_over {
            sampling.quiesce().expect("an end");
        } else {
            sampling.renew().expect("a lease");
        }
        for ring in 0..rings {
            sampling.drain(ring, &mut |record| {
                let Record::Sample(taken) = record else { return };
                samples += 1;
                let number = taken.charged_to.map_or("idle".to_owned(), |number| number.to_string());
                count(domains.entry(number).or_default(), &taken);
                if let Some(chain) = hypervisors_chain(&taken, &names) {
                    *chains.entry(chain).or_default() += 1;
                }
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let accounts: Vec<Value> = (0..rings)
        .map(|ring| {
            let account = sampling.account(ring);
            json!({ "taken": account.taken, "written": account.written, "awake_ns": account.awake_ns,
                "own_ns": account.own_ns, "lost": account.lost_total() })
        })
        .collect();
    let notes = sampling.take_notes();
    sampling.stop().expect("the shim goes");
    let kinds: HashMap<u32, DomainKind> = hypervisor
        .domains()
        .expect("domains")
        .into_iter()
        .map(|domain| (domain.number, domain.kind))
        .collect();
    let memories = hypervisor.memories().expect("memories");
    let domains: BTreeMap<String, Value> = domains
        .into_iter()
        .map(|(number, domain)| {
            let kind = number.parse().ok().and_then(|number: u32| Some((number, *kinds.get(&number)?)));
            let memory = kind.and_then(|(number, kind)| memories.open(number, kind));
            let (same, different) = memory.map_or((0, 0), |memory| compare(&*memory, &domain.of_deep));
            let value = json!({ "shapes": domain.shapes, "bytes": domain.bytes, "pattern": domain.pattern,
                "broken": domain.broken, "hostile": domain.hostile,
                "hostile_with_bytes": domain.hostile_with_bytes, "same": same, "different": different });
            (number, value)
        })
        .collect();
    let mut chains: Vec<(String, u64)> = chains.into_iter().collect();
    chains.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    chains.truncate(60);
    let result = json!({ "samples": samples, "accounts": accounts, "notes": notes, "domains": domains,
        "chains": chains });
    println!("{result:#}");
}

/// A letter for each stretch, with how many pieces of stack it has.
fn shape(stretches: &[Captured]) -> String {
    let letter = |captured: &Captured| match captured.owner {
        Owner::Hypervisor => 'H',
        Owner::Kernel(_) => 'K',
        Owner::Process(_) => 'P',
    };
    let pieces = |captured: &Captured| match &captured.stretch {
        Stretch::Copied { stacks, .. } => stacks.len(),
        Stretch::Walked(_) => 0,
    };
    stretches.iter().map(|captured| format!("{}{}", letter(captured), pieces(captured))).collect()
}

fn count(domain: &mut Domain, taken: &Taken) {
    let mode = format!("{}:{}", taken.mode, shape(&taken.stretches));
    *domain.shapes.entry(mode).or_default() += 1;
    for captured in &taken.stretches {
        let Stretch::Copied { registers, stacks } = &captured.stretch else { continue };
        let bytes: usize = stacks.iter().map(|piece| piece.bytes.len()).sum();
        domain.bytes += bytes as u64;
        if !matches!(captured.owner, Owner::Process(_)) {
            continue;
        }
        // hostile.c: addresses of the upper half, none's, and of a range that nothing is mapped in.
        if registers.sp >= 1 << 47 || registers.sp >> 32 == 0x666 {
            domain.hostile += 1;
            domain.hostile_with_bytes += u64::from(bytes > 0);
        }
        for piece in stacks {
            let is_pattern = |(at, word): &(u64, u64)| *word == at ^ PATTERN;
            let mut words = words(piece).skip_while(|word| !is_pattern(word)).peekable();
            if words.peek().is_some() {
                let (kept, broken): (Vec<_>, Vec<_>) = words.partition(is_pattern);
                domain.pattern += kept.len() as u64;
                domain.broken += broken.len() as u64;
                if let Some(root) = captured.page_tables
                    && domain.of_deep.len() < COMPARED
                {
                    domain.of_deep.push((root.0, piece.clone()));
                }
            }
        }
    }
}

fn words(piece: &StackPiece) -> impl Iterator<Item = (u64, u64)> + '_ {
    (piece.address..).step_by(8).map_while(|at| Some((at, piece.word(at)?)))
}

/// How many bytes are what the guest's memory has there, by a walk of its own.
fn compare(memory: &dyn GuestMemory, pieces: &[(u64, StackPiece)]) -> (u64, u64) {
    let mut same = 0;
    let mut different = 0;
    for (root, piece) in pieces {
        let mut at = piece.address;
        let mut rest = &piece.bytes[..];
        while !rest.is_empty() {
            let (captured, later) = rest.split_at(rest.len().min(4096 - at as usize % 4096));
            let mut now = vec![0; captured.len()];
            let is_there = translate(memory, *root, at)
                .is_some_and(|physical| memory.read(GuestPhysical(physical), &mut now).is_ok());
            let equal = captured.iter().zip(&now).filter(|(captured, now)| captured == now).count();
            let equal = if is_there { equal } else { 0 };
            same += equal as u64;
            different += (captured.len() - equal) as u64;
            at += captured.len() as u64;
            rest = later;
        }
    }
    (same, different)
}

fn read(memory: &dyn GuestMemory, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    memory.read(GuestPhysical(address), &mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

fn translate(memory: &dyn GuestMemory, root: u64, address: u64) -> Option<u64> {
    const FRAME: u64 = 0x000f_ffff_ffff_f000;
    let mut table = root & FRAME;
    for shift in [39, 30, 21, 12] {
        let entry = read(memory, table + (address >> shift & 511) * 8)?;
        if entry & 1 == 0 {
            return None;
        }
        if shift == 12 || shift < 39 && entry & 0x80 != 0 {
            let within = (1u64 << shift) - 1;
            return Some(entry & FRAME & !within | address & within);
        }
        table = entry & FRAME;
    }
    None
}

/// The functions of the hypervisor's frames, innermost first.
fn hypervisors_chain(taken: &Taken, names: &[(HypervisorVirtual, String)]) -> Option<String> {
    let first = taken.stretches.first()?;
    let Stretch::Walked(frames) = &first.stretch else { return None };
    if first.owner != Owner::Hypervisor {
        return None;
    }
    let name = |address: &CodeAddress| {
        let behind = names.partition_point(|(start, _)| start.0 <= address.for_lookup());
        behind.checked_sub(1).map_or("?", |at| names[at].1.as_str())
    };
    Some(frames.iter().map(name).collect::<Vec<_>>().join(" < "))
}
