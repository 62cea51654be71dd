//! The registers of a frame while its callers are sought: some are known, the others were not preserved.

use profile::Registers;

/// DWARF's numbers for the registers of x86-64 (System V psABI, figure 3.36).
pub(crate) const BX: u16 = 3;
pub(crate) const BP: u16 = 6;
pub(crate) const SP: u16 = 7;
pub(crate) const R12: u16 = 12;
/// The return address, and so the instruction pointer of the caller.
pub(crate) const RA: u16 = 16;
const COUNT: usize = 17;

/// What callees preserve, but for the stack pointer.
pub(crate) const PRESERVED: [u16; 6] = [BX, BP, R12, R12 + 1, R12 + 2, R12 + 3];

/// Registers by DWARF's numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    values: [u64; COUNT],
    known: u32,
}

impl Machine {
    pub(crate) fn get(&self, register: u16) -> Option<u64> {
        let value = *self.values.get(usize::from(register))?;
        (self.known & 1 << register != 0).then_some(value)
    }

    /// Sets or forgets a register; of those that there are not, nothing is kept.
    pub(crate) fn set(&mut self, register: u16, value: Option<u64>) {
        if let Some(place) = self.values.get_mut(usize::from(register)) {
            *place = value.unwrap_or(0);
            self.known = self.known & !(1 << register) | u32::from(value.is_some()) << register;
        }
    }

    pub(crate) fn sp(&self) -> u64 {
        self.values[usize::from(SP)]
    }
}

impl From<&Registers> for Machine {
    fn from(registers: &Registers) -> Self {
        let r = registers;
        let values = [
            r.ax, r.dx, r.cx, r.bx, r.si, r.di, r.bp, r.sp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
            r.r15, r.ip,
        ];
        Self { values, known: (1 << COUNT) - 1 }
    }
}
