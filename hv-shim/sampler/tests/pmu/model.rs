//! A processor's performance counters as the manuals describe them (AMD64 Architecture Programmer's Manual, volume 2,
//! 13.2; Intel Software Developer's Manual, volume 3, 20.2 and volume 4): what can be written where, how counters
//! count, wrap and interrupt. What would be a general-protection fault is a panic.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use sampler::pmu::{LVTPC_MASKED, LVTPC_NMI, Registers};

/// A generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// K7 to K10.
    Legacy,
    /// Family 15h to Zen 3.
    Core,
    /// Zen 4.
    AmdV2,
    /// Architectural, of this version.
    Intel(u32),
}

pub const ALL: [Kind; 8] = [
    Kind::Legacy,
    Kind::Core,
    Kind::AmdV2,
    Kind::Intel(1),
    Kind::Intel(2),
    Kind::Intel(3),
    Kind::Intel(4),
    Kind::Intel(5),
];

/// In what way a processor only pretends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Every register reads as zero, and takes everything.
    Zero,
    /// Counters keep what is written to them.
    Still,
    /// They go on when they are stopped.
    Unstoppable,
    /// They stop at their end.
    Saturating,
    /// No interrupt is delivered.
    Silent,
}

const USER: u64 = 1 << 16;
const KERNEL: u64 = 1 << 17;
const INTERRUPT: u64 = 1 << 20;
const ENABLE: u64 = 1 << 22;

/// How many events of a code happen, at which privilege level.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub code: u64,
    pub count: u64,
    pub user: bool,
}

pub const INSTRUCTIONS: u64 = 0xc0;

pub fn kernel(code: u64, count: u64) -> Work {
    Work { code, count, user: false }
}

/// One CPU.
pub struct Cpu {
    pub kind: Kind,
    pub flaw: Cell<Flaw>,
    msrs: RefCell<BTreeMap<u32, u64>>,
    pub lvtpc: Cell<u32>,
    /// The one NMI that can wait.
    pub nmi: Cell<bool>,
    /// Every write, in order; LVTPC as register 0.
    pub written: RefCell<Vec<(u32, u64)>>,
    /// What the counters count, as long as no register says otherwise: the counter, the code, the levels.
    counting: RefCell<Option<Vec<(u8, u64, u64)>>>,
}

/// A register's part in the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Selector,
    Counter(u8),
    FixedControl,
    Control,
    Status,
    Clear,
}

impl Cpu {
    pub fn new(kind: Kind) -> Self {
        let cpu = Self {
            kind,
            flaw: Cell::new(Flaw::None),
            msrs: RefCell::default(),
            lvtpc: Cell::new(LVTPC_MASKED),
            nmi: Cell::new(false),
            written: RefCell::default(),
            counting: RefCell::default(),
        };
        // Firmware leaves all counters globally enabled, but for the oldest with such a register.
        if let Some(control) = cpu.global(Role::Control) {
            cpu.msrs.borrow_mut().insert(control, cpu.global_mask());
        }
        cpu
    }

    pub fn general(&self) -> u8 {
        match self.kind {
            Kind::Legacy | Kind::Intel(4..) => 4,
            Kind::Core | Kind::AmdV2 => 6,
            Kind::Intel(_) => 2,
        }
    }

    pub fn fixed(&self) -> u8 {
        if matches!(self.kind, Kind::Intel(2..)) { 3 } else { 0 }
    }

    fn width(&self) -> u8 {
        if matches!(self.kind, Kind::Intel(1)) { 40 } else { 48 }
    }

    fn wrap(&self) -> u64 {
        1 << self.width()
    }

    pub fn selector(&self, counter: u8) -> u32 {
        match self.kind {
            Kind::Legacy => 0xc001_0000 + u32::from(counter),
            Kind::Core | Kind::AmdV2 => 0xc001_0200 + 2 * u32::from(counter),
            Kind::Intel(_) => 0x186 + u32::from(counter),
        }
    }

    pub fn counter(&self, counter: u8) -> u32 {
        match self.kind {
            Kind::Legacy => 0xc001_0004 + u32::from(counter),
            Kind::Core | Kind::AmdV2 => 0xc001_0201 + 2 * u32::from(counter),
            Kind::Intel(_) if counter >= self.general() => 0x309 + u32::from(counter - self.general()),
            Kind::Intel(_) => 0xc1 + u32::from(counter),
        }
    }

    fn global(&self, role: Role) -> Option<u32> {
        let registers = match self.kind {
            Kind::AmdV2 => [0xc000_0301, 0xc000_0300, 0xc000_0302],
            Kind::Intel(2..) => [0x38f, 0x38e, 0x390],
            _ => return None,
        };
        let roles = [Role::Control, Role::Status, Role::Clear];
        roles.iter().position(|&it| it == role).map(|place| registers[place])
    }

    fn global_mask(&self) -> u64 {
        ((1 << self.general()) - 1) | (((1 << self.fixed()) - 1) << 32)
    }

    fn global_bit(&self, counter: u8) -> u64 {
        match counter.checked_sub(self.general()) {
            Some(fixed) => 1 << (32 + fixed),
            None => 1 << counter,
        }
    }

    fn counters(&self) -> std::ops::Range<u8> {
        0..self.general() + self.fixed()
    }

    fn role(&self, msr: u32) -> Option<Role> {
        if let Some(counter) = self.counters().find(|&it| self.counter(it) == msr) {
            return Some(Role::Counter(counter));
        }
        if (0..self.general()).any(|it| self.selector(it) == msr) {
            return Some(Role::Selector);
        }
        if self.fixed() > 0 && msr == 0x38d {
            return Some(Role::FixedControl);
        }
        [Role::Control, Role::Status, Role::Clear].into_iter().find(|&role| self.global(role) == Some(msr))
    }

    pub fn get(&self, msr: u32) -> u64 {
        self.msrs.borrow().get(&msr).copied().unwrap_or(0)
    }

    /// As whoever else writes it.
    pub fn put(&self, msr: u32, value: u64) {
        self.counting.replace(None);
        self.set(msr, value);
    }

    fn set(&self, msr: u32, value: u64) {
        self.msrs.borrow_mut().insert(msr, value);
    }

    /// All registers that are not zero, for comparison.
    pub fn state(&self) -> (BTreeMap<u32, u64>, u32) {
        let set =
            self.msrs.borrow().iter().filter(|(_, value)| **value != 0).map(|(k, v)| (*k, *v)).collect();
        (set, self.lvtpc.get())
    }

    /// What a counter counts, and at which levels; none if it stands still.
    fn counts(&self, counter: u8) -> Option<(u8, u64, u64)> {
        let is_on = |msr| self.get(msr) & self.global_bit(counter) != 0;
        let globally = self.global(Role::Control).is_none_or(is_on);
        let control = match counter.checked_sub(self.general()) {
            Some(number) => {
                let code = [0xc0, 0x3c, 0x300][usize::from(number)];
                let bits = self.get(0x38d) >> (4 * number) & 0b1011;
                // As in a selector: level 0 is KERNEL, the others USER.
                let level = (bits & 1) << 17 | (bits >> 1 & 1) << 16;
                let enable = if bits & 0b11 == 0 { 0 } else { ENABLE };
                code | level | enable | (bits >> 3) << 20
            }
            None => self.get(self.selector(counter)),
        };
        (globally && control & ENABLE != 0).then_some((
            counter,
            control & 0xf_0000_ffff,
            control & (USER | KERNEL),
        ))
    }

    fn interrupts(&self, counter: u8) -> bool {
        match counter.checked_sub(self.general()) {
            Some(number) => self.get(0x38d) >> (4 * number + 3) & 1 != 0,
            None => self.get(self.selector(counter)) & INTERRUPT != 0,
        }
    }

    /// Something happens.
    pub fn work(&self, work: Work) {
        if matches!(self.flaw.get(), Flaw::Zero | Flaw::Still) {
            return;
        }
        if self.flaw.get() == Flaw::Unstoppable {
            let counters = self.counters().filter(|_| work.code == INSTRUCTIONS);
            return counters.for_each(|counter| self.advance(counter, work.count));
        }
        let counting = self.counting.take();
        let counting = counting.unwrap_or_else(|| self.counters().filter_map(|it| self.counts(it)).collect());
        let level = if work.user { USER } else { KERNEL };
        for &(counter, code, levels) in &counting {
            if code == work.code && levels & level != 0 {
                self.advance(counter, work.count);
            }
        }
        self.counting.replace(Some(counting));
    }

    fn advance(&self, counter: u8, count: u64) {
        let value = self.get(self.counter(counter)) + count;
        if value < self.wrap() {
            return self.set(self.counter(counter), value);
        }
        if self.flaw.get() == Flaw::Saturating {
            return self.put(self.counter(counter), self.wrap() - 1);
        }
        self.put(self.counter(counter), value - self.wrap());
        if let Some(status) = self.global(Role::Status) {
            self.put(status, self.get(status) | self.global_bit(counter));
        }
        let delivers = self.lvtpc.get() == LVTPC_NMI && self.flaw.get() != Flaw::Silent;
        if self.interrupts(counter) && delivers {
            self.nmi.set(true);
            if matches!(self.kind, Kind::Intel(_)) {
                self.lvtpc.set(LVTPC_NMI | LVTPC_MASKED);
            }
        }
    }

    fn write(&self, msr: u32, value: u64) -> Option<()> {
        if self.flaw.get() == Flaw::Zero {
            return Some(());
        }
        let intel = matches!(self.kind, Kind::Intel(_));
        let value = match self.role(msr)? {
            // Reserved bits: 19 and 21, and above the counter mask all but those that AMD has.
            Role::Selector if intel => (value & !0xffd7_ffff == 0).then_some(value)?,
            Role::Selector => (value & !0x30f_ffd7_ffff == 0).then_some(value)?,
            // Without full-width writes: the low 32 bits, their sign extended; the others are ignored.
            Role::Counter(counter) if intel && counter < self.general() => {
                i64::from(value as u32 as i32) as u64 & (self.wrap() - 1)
            }
            Role::Counter(_) => (value < self.wrap()).then_some(value)?,
            Role::FixedControl => (value >> (4 * self.fixed()) == 0).then_some(value)?,
            Role::Control => (value & !self.global_mask() == 0).then_some(value)?,
            // Read-only.
            Role::Status => return None,
            Role::Clear => {
                let status = self.global(Role::Status)?;
                let cleared = (value & !self.global_mask() == 0).then_some(self.get(status) & !value)?;
                self.put(status, cleared);
                0
            }
        };
        self.put(msr, value);
        Some(())
    }
}

impl Registers for Cpu {
    fn rdmsr(&self, msr: u32) -> u64 {
        self.try_rdmsr(msr).unwrap_or_else(|| panic!("#GP: rdmsr {msr:#x}"))
    }

    fn wrmsr(&self, msr: u32, value: u64) {
        self.written.borrow_mut().push((msr, value));
        self.write(msr, value).unwrap_or_else(|| panic!("#GP: wrmsr {msr:#x}, {value:#x}"));
    }

    fn try_rdmsr(&self, msr: u32) -> Option<u64> {
        if self.flaw.get() == Flaw::Zero {
            return Some(0);
        }
        self.role(msr).map(|_| self.get(msr))
    }

    fn try_wrmsr(&self, msr: u32, value: u64) -> bool {
        self.write(msr, value).is_some()
    }

    fn cpuid(&self, leaf: u32, _: u32) -> [u32; 4] {
        let (general, fixed, width) =
            (u32::from(self.general()), u32::from(self.fixed()), u32::from(self.width()));
        match (self.kind, leaf) {
            (Kind::Intel(_), 0) => [0x16, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
            (Kind::Intel(version), 0xa) => [
                version | general << 8 | width << 16 | 7 << 24,
                0,
                if version >= 5 { (1 << fixed) - 1 } else { 0 },
                // Version 5 may tell by the mask alone.
                if version >= 5 { 48 << 5 } else { fixed | 48 << 5 },
            ],
            (Kind::Intel(_), _) => [0; 4],
            (_, 0) => [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
            // Families 10h and 19h.
            (Kind::Legacy, 1) => [0x0010_0f42, 0, 0, 0],
            (_, 1) => [0x00a0_0f11, 0, 0, 0],
            (Kind::AmdV2, 0x8000_0000) => [0x8000_0028, 0, 0, 0],
            (_, 0x8000_0000) => [0x8000_001f, 0, 0, 0],
            (Kind::Legacy, 0x8000_0001) => [0, 0, 1 << 2, 0],
            (_, 0x8000_0001) => [0, 0, 1 << 2 | 1 << 23, 0],
            (Kind::AmdV2, 0x8000_0022) => [1, general, 0, 0],
            _ => [0; 4],
        }
    }

    fn lvtpc(&self) -> u32 {
        self.lvtpc.get()
    }

    fn set_lvtpc(&self, value: u32) {
        self.written.borrow_mut().push((0, u64::from(value)));
        self.lvtpc.set(value);
    }
}
