//! Events by name, as users write them: `cycles:u,cpu/event=0x76,umask=0x00/,r04c0`.
//!
//! Comes in: the text of `-e`, `-c` and `-F`. Goes out: [`EventSpec`]s, which no hypervisor has looked at yet. Not here:
//! which code a processor has for a name.

use std::{fmt, ops::RangeInclusive};

use strsim::damerau_levenshtein;

/// The most events in one recording.
pub const MAX_EVENTS: usize = abi::pmu::MAX_EVENTS;

/// Periods that a counter can have.
pub const PERIODS: RangeInclusive<u64> = abi::pmu::SHORTEST_PERIOD..=abi::pmu::LONGEST_PERIOD;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// No counter: time, by the timer.
    CpuClock,
    /// Cycles in which the CPU did not idle.
    Cycles,
    /// Instructions retired.
    Instructions,
    /// Accesses to a cache; which one differs between processors.
    CacheReferences,
    /// Those of them that missed.
    CacheMisses,
    /// Branches retired.
    Branches,
    /// Those of them that were mispredicted.
    BranchMisses,
    /// Cycles of a clock that does not change.
    RefCycles,
    /// Cycles of the bus or of another slow clock.
    BusCycles,
    /// Cycles in which no instruction came from the front end.
    StalledCyclesFrontend,
    /// Cycles in which the back end took none.
    StalledCyclesBackend,
    /// A code of the processor's own: event select and unit mask, edge, inverse, counter mask as in
    /// [`abi::pmu::SELECTOR_BITS`].
    Raw(u64),
}

/// All that have a name, with its other spelling.
const NAMES: [(Counted, &str, Option<&str>); 11] = [
    (Counted::CpuClock, "cpu-clock", None),
    (Counted::Cycles, "cycles", Some("cpu-cycles")),
    (Counted::Instructions, "instructions", None),
    (Counted::CacheReferences, "cache-references", None),
    (Counted::CacheMisses, "cache-misses", None),
    (Counted::Branches, "branches", Some("branch-instructions")),
    (Counted::BranchMisses, "branch-misses", None),
    (Counted::RefCycles, "ref-cycles", None),
    (Counted::BusCycles, "bus-cycles", None),
    (Counted::StalledCyclesFrontend, "stalled-cycles-frontend", Some("idle-cycles-frontend")),
    (Counted::StalledCyclesBackend, "stalled-cycles-backend", Some("idle-cycles-backend")),
];

impl Counted {
    /// All that have a name.
    pub fn named() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(counted, ..)| counted)
    }

    /// Its name; none for codes.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(counted, ..)| *counted == self).map(|&(_, name, _)| name)
    }

    /// What a sample's weight counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::CpuClock => "ns",
            Self::Raw(_) => "events",
            Self::Cycles
            | Self::RefCycles
            | Self::BusCycles
            | Self::StalledCyclesFrontend
            | Self::StalledCyclesBackend => "cycles",
            Self::Instructions => "instructions",
            Self::CacheReferences => "references",
            Self::CacheMisses | Self::BranchMisses => "misses",
            Self::Branches => "branches",
        }
    }

    fn of_name(text: &str) -> Result<Self, EventError> {
        let is = |(_, name, other): &&(Self, &str, Option<&str>)| *name == text || *other == Some(text);
        if let Some(&(counted, ..)) = NAMES.iter().find(is) {
            return Ok(counted);
        }
        // A few letters away, or the beginning of it.
        let is_near = |name: &&str| {
            damerau_levenshtein(name, text) <= text.len() / 3 || text.len() > 2 && name.contains(text)
        };
        let names = NAMES.iter().flat_map(|&(_, name, other)| [Some(name), other]).flatten();
        Err(EventError::Unknown { name: text.into(), near: names.filter(is_near).collect() })
    }
}

/// The modes in which samples of an event are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Modes {
    /// In the hypervisor: `:h`.
    pub hypervisor: bool,
    /// In kernels of guests, dom0's among them: `:k`.
    pub kernel: bool,
    /// In processes of guests: `:u`.
    pub user: bool,
}

impl Modes {
    /// Wherever it is.
    pub const ALL: Self = Self { hypervisor: true, kernel: true, user: true };

    fn parse(text: &str) -> Result<Self, EventError> {
        let mut modes = Self { hypervisor: false, kernel: false, user: false };
        for letter in text.chars() {
            let mode = match letter {
                'h' => &mut modes.hypervisor,
                'k' => &mut modes.kernel,
                'u' => &mut modes.user,
                other => return Err(EventError::Modifier(other)),
            };
            *mode = true;
        }
        Ok(if text.is_empty() { Self::ALL } else { modes })
    }
}

/// An event as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSpec {
    /// As the user wrote it.
    pub name: String,
    /// What is counted.
    pub counted: Counted,
    /// Where.
    pub modes: Modes,
}

impl EventSpec {
    /// Reads a list of events, separated by commas.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, EventError> {
        let mut specs: Vec<Self> = Vec::new();
        for item in split(text) {
            let spec = Self::parse(item.trim())?;
            if specs.iter().any(|known| (known.counted, known.modes) == (spec.counted, spec.modes)) {
                return Err(EventError::Twice(spec.name));
            }
            specs.push(spec);
        }
        if specs.len() > MAX_EVENTS {
            return Err(EventError::TooMany(specs.len()));
        }
        let is_clock = |spec: &Self| spec.counted == Counted::CpuClock;
        if specs.len() > 1 && specs.iter().any(is_clock) {
            return Err(EventError::ClockWithOthers);
        }
        Ok(specs)
    }

    fn parse(text: &str) -> Result<Self, EventError> {
        if text.is_empty() {
            return Err(EventError::Empty);
        }
        let (counted, modifiers) = match text.strip_prefix("cpu/") {
            Some(rest) => {
                let (terms, modifiers) = rest.split_once('/').ok_or(EventError::NoEnd(text.into()))?;
                (Counted::Raw(raw_terms(terms)?), modifiers.strip_prefix(':').unwrap_or(modifiers))
            }
            None => {
                let (name, modifiers) = text.split_once(':').unwrap_or((text, ""));
                (raw_code(name).map_or_else(|| Counted::of_name(name), Ok)?, modifiers)
            }
        };
        Ok(Self { name: text.into(), counted, modes: Modes::parse(modifiers)? })
    }
}

/// At the commas that are not between slashes.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |letter| {
        inside ^= letter == '/';
        letter == ',' && !inside
    })
}

/// `rNNN`: event select and unit mask as in a selector, in hexadecimal.
fn raw_code(name: &str) -> Option<Counted> {
    let code = u64::from_str_radix(name.strip_prefix('r')?, 16).ok()?;
    (code & !abi::pmu::SELECTOR_BITS == 0).then_some(Counted::Raw(code))
}

/// `event=0x76,umask=0x00`, and `edge`, `inv`, `cmask`.
fn raw_terms(text: &str) -> Result<u64, EventError> {
    let mut selector = 0;
    for term in text.split(',') {
        let bad = || EventError::Term(term.into());
        let (key, value) = term.split_once('=').unwrap_or((term, "1"));
        let value = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        let value = value.map_err(|_| bad())?;
        let (most, place) = match key {
            "event" => (0xfff, 0),
            "umask" => (0xff, 8),
            "edge" => (1, 18),
            "inv" => (1, 23),
            "cmask" => (0xff, 24),
            _ => return Err(bad()),
        };
        if value > most {
            return Err(bad());
        }
        // The event's upper four bits have a place of their own.
        selector |= if key == "event" { value & 0xff | (value & 0xf00) << 24 } else { value << place };
    }
    Ok(selector)
}

/// What is wrong with a request for events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No such name.
    #[error("there is no event {name:?}{}", suggestion(.near))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        near: Vec<&'static str>,
    },
    /// Nothing between two commas.
    #[error("an event's name is missing between two commas")]
    Empty,
    /// A letter behind the colon.
    #[error("{0:?} is no modifier of an event: u is guests' processes, k their kernels, h the hypervisor")]
    Modifier(char),
    /// A slash is missing.
    #[error("{0:?} has no second slash: cpu/event=0x76,umask=0x00/")]
    NoEnd(String),
    /// Between the slashes.
    #[error("{0:?} is no part of a code: event=0…0xfff, umask=0…0xff, cmask=0…0xff, edge and inv are")]
    Term(String),
    /// The same again.
    #[error("the event {0} is asked for twice")]
    Twice(String),
    /// More than can be shared out.
    #[error("{0} events are too many: {MAX_EVENTS} can be sampled at once")]
    TooMany(usize),
    /// The timer's event with counters' ones.
    #[error("cpu-clock is sampled by the timer, the others by counters: ask for one or the others")]
    ClockWithOthers,
    /// No counter can do it.
    #[error("a period of {0} is out of range: {least} to {most} events", least = PERIODS.start(), most = PERIODS.end())]
    Period(u64),
    /// The timer has no period in events.
    #[error("cpu-clock has no period in events: ask for a rate (-F)")]
    PeriodOfClock,
    /// This processor can't.
    #[error(
        "this host's processor ({processor}) has no event for {name}: `xenoscope list` shows what it has"
    )]
    Lacking {
        /// Which event.
        name: String,
        /// Which processor.
        processor: String,
    },
}

fn suggestion(near: &[&str]) -> impl fmt::Display {
    match near {
        [] => "; `xenoscope list` shows what there is".to_owned(),
        near => format!("; near it: {}", near.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(Counted, Modes)> {
        let specs = EventSpec::parse_list(text).unwrap();
        specs.into_iter().map(|spec| (spec.counted, spec.modes)).collect()
    }

    fn refused(text: &str) -> String {
        EventSpec::parse_list(text).unwrap_err().to_string()
    }

    const USER: Modes = Modes { user: true, kernel: false, hypervisor: false };

    #[test]
    fn names_codes_and_modifiers() {
        assert_eq!(
            parsed("cycles:u,cpu/event=0x76,umask=0x01/,branch-instructions"),
            [(Counted::Cycles, USER), (Counted::Raw(0x176), Modes::ALL), (Counted::Branches, Modes::ALL)]
        );
        assert_eq!(
            parsed("cpu/event=0x1a7,cmask=2,inv/u,r4c0:hk"),
            [(Counted::Raw(0x1_0280_00a7), USER), (Counted::Raw(0x4c0), Modes { user: false, ..Modes::ALL })]
        );
        for counted in Counted::named() {
            let name = counted.name().unwrap();
            assert_eq!(parsed(name), [(counted, Modes::ALL)], "{name}");
        }
    }

    #[test]
    fn bad_requests_are_told_in_one_line() {
        assert_eq!(refused("cycls"), "there is no event \"cycls\"; near it: cycles");
        let near = refused("cache");
        assert!(near.ends_with("near it: cache-references, cache-misses"), "{near}");
        assert!(refused("nonsense").ends_with("`xenoscope list` shows what there is"));
        assert!(refused("cycles:x").contains("'x' is no modifier"));
        assert!(refused("cpu/event=0x76").contains("no second slash"));
        assert!(refused("cpu/event=0x1000/").contains("event=0x1000"));
        assert!(refused("cpu/event=,umask=0/").contains("is no part"));
        assert!(refused("cpu/frequency=3/").contains("frequency=3"));
        assert!(refused("cycles,,cycles").contains("missing"));
        assert!(refused("cycles,cpu-cycles").contains("twice"));
        assert!(refused("cpu-clock,cycles").contains("timer"));
        assert!(refused("").contains("missing"));
        let nine: Vec<String> = (0..9).map(|code| format!("r{code:x}")).collect();
        assert!(refused(&nine.join(",")).contains("9 events are too many: 8"));
        for text in ["cycls", "cpu/event=0x76", "cycles:x", "cpu-clock,cycles", "rffffffffffffffff"] {
            assert!(!refused(text).contains('\n'));
        }
    }
}
