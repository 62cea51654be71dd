//! Up the stacks of a Linux kernel, by ORC: through interrupts and exceptions, down to where it was entered.

use std::ops::Range;

use profile::{CodeAddress, Registers};
use serde::{Deserialize, Serialize};

use crate::{
    Broken, Chain, End, MAX_FRAMES, OrcTable, Stacks,
    orc::{FrameEnd, FramePointer, FrameRegister, Kind, Orc},
};

/// Where the kernel's image is, then its modules and the code that it generates (Documentation/arch/x86/x86_64/mm.rst).
const CODE: u64 = 0xffff_ffff_8000_0000;
/// Stacks of one thread: for interrupts, exceptions, NMIs, and its own.
const MAX_STACKS: usize = 8;
/// Where the processor's part of saved registers begins (`struct pt_regs`).
const IP_IN_SAVED: u64 = 128;

/// The code of a kernel and its modules.
#[derive(Clone, Debug, Default)]
pub struct KernelCode {
    /// By their first address.
    tables: Vec<OrcTable>,
    /// Code that jumps on to where it was told, without a frame; its entries say that it has no caller.
    thunks: Vec<Range<u64>>,
    /// By their address.
    borders: Vec<Border>,
}

/// A stretch of the code by which a kernel is entered or left of which its table says nothing, or nothing that holds. What a
/// paravirtualized kernel and Xen do between each other (arch/x86/xen/xen-asm.S) puts more on the stack than a processor
/// saves, and is listed as having no caller; an exception's entry changes its stack in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Border {
    /// The stretch.
    pub code: Range<u64>,
    /// How many bytes there are in front of what a processor saves.
    pub before: u8,
    /// The code whose entry holds but for those bytes; none where it is just what a processor saves.
    pub like: Option<u64>,
}

/// What a kernel was entered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// A process, which goes on with these registers.
    FromProcess(Registers),
    /// Nothing that has callers: a thread of its own, idling; or the chain did not get so far.
    FromNowhere,
}

/// A frame of the kernel.
#[derive(Clone, Copy)]
struct Frame {
    ip: u64,
    sp: u64,
    bp: u64,
}

impl KernelCode {
    /// Code that these tables know. `thunks` are its indirect jumps (`__x86_indirect_thunk_*`).
    pub fn new(tables: impl IntoIterator<Item = OrcTable>, thunks: Vec<Range<u64>>) -> Self {
        let mut tables: Vec<OrcTable> = tables.into_iter().collect();
        tables.sort_by_key(|table| table.range().start);
        Self { tables, thunks, borders: Vec::new() }
    }

    /// The same, with what its tables don't tell.
    pub fn with_borders(self, mut borders: Vec<Border>) -> Self {
        borders.sort_by_key(|border| border.code.start);
        Self { borders, ..self }
    }

    fn table(&self, address: u64) -> Option<&OrcTable> {
        let above = self.tables.partition_point(|table| table.range().start <= address);
        self.tables.get(above.checked_sub(1)?).filter(|table| table.range().contains(&address))
    }

    /// What holds at an address.
    fn frame_at(&self, address: u64) -> Orc {
        if self.is_thunk(address) {
            return Orc::CALL;
        }
        let listed = |place| self.table(place).map_or(Orc::FRAME_POINTER, |table| table.at(place));
        let above = self.borders.partition_point(|border| border.code.start <= address);
        let border = above.checked_sub(1).map(|index| &self.borders[index]);
        match border.filter(|border| border.code.contains(&address)) {
            Some(&Border { before, like, .. }) => like.map_or(Orc::SAVED, listed).behind(before.into()),
            None => listed(address),
        }
    }

    fn is_thunk(&self, address: u64) -> bool {
        self.thunks.iter().any(|thunk| thunk.contains(&address))
    }

    /// The chain of a thread in the kernel, and what it was entered from.
    pub fn walk(&self, registers: &Registers, stacks: &Stacks<'_>) -> (Chain, Entered) {
        let mut frames = vec![CodeAddress::InstructionPointer(registers.ip)];
        match self.climb(registers, stacks, &mut frames) {
            Ok(entered) => (Chain { frames, end: End::Complete }, entered),
            Err(broken) => (Chain { frames, end: End::Broken(broken) }, Entered::FromNowhere),
        }
    }

    fn climb(
        &self,
        registers: &Registers,
        stacks: &Stacks<'_>,
        frames: &mut Vec<CodeAddress>,
    ) -> Result<Entered, Broken> {
        // Those that the last interrupted frame had: callees preserve what is asked of them.
        let mut saved = *registers;
        let mut frame = Frame { ip: registers.ip, sp: registers.sp, bp: registers.bp };
        let mut address = frames[0];
        let mut switches = 0;
        loop {
            let word = |at: u64| stacks.word(at).ok_or(Broken::NotCopied);
            let inside = address.for_lookup();
            let before = frame.sp;
            let orc = self.frame_at(inside);
            let Orc::Frame { end, frame_pointer, kind, interrupted } = orc else {
                return if orc == Orc::End { Ok(Entered::FromNowhere) } else { Err(Broken::NoUnwindInfo) };
            };
            let (end, switched) = match end {
                FrameEnd::Register(register, offset) => {
                    let base = match register {
                        FrameRegister::Sp => frame.sp,
                        FrameRegister::Bp => frame.bp,
                        _ if matches!(address, CodeAddress::ReturnAddress(_)) => {
                            return Err(Broken::NoUnwindInfo);
                        }
                        FrameRegister::Dx => saved.dx,
                        FrameRegister::Di => saved.di,
                        FrameRegister::R10 => saved.r10,
                        FrameRegister::R13 => saved.r13,
                    };
                    (base.wrapping_add_signed(offset), false)
                }
                FrameEnd::AtBp(offset) => (word(frame.bp.wrapping_add_signed(offset))?, true),
                FrameEnd::BehindTop(offset) => (word(frame.sp)?.wrapping_add_signed(offset), true),
            };
            switches += usize::from(switched);
            let old_bp = frame.bp;
            match kind {
                Kind::Call => {
                    frame.ip = word(end.wrapping_sub(8))?;
                    frame.sp = end;
                    if frame.sp <= before && !switched {
                        return Err(Broken::NoAdvance);
                    }
                }
                Kind::Registers | Kind::Interrupted => {
                    let whole = kind == Kind::Registers;
                    let at = if whole { end.wrapping_add(IP_IN_SAVED) } else { end };
                    let [ip, segment, _, sp] = [0, 8, 16, 24].map(|offset| word(at.wrapping_add(offset)));
                    let (ip, segment, sp) = (ip?, segment?, sp?);
                    if whole {
                        saved = saved_registers(end, word)?;
                    } else if frames.len() > 1 {
                        saved = Registers { bp: frame.bp, ..saved };
                    }
                    (saved.ip, saved.sp) = (ip, sp);
                    if segment & 3 == 3 && ip < 1 << 63 {
                        return Ok(Entered::FromProcess(saved));
                    }
                    frame = Frame { ip, sp, bp: saved.bp };
                    switches += 1;
                }
            }
            if kind != Kind::Registers {
                frame.bp = match frame_pointer {
                    FramePointer::Unchanged => frame.bp,
                    FramePointer::FromEnd(offset) => word(end.wrapping_add_signed(offset))?,
                    FramePointer::FromBp(offset) => word(old_bp.wrapping_add_signed(offset))?,
                };
            }
            address = match interrupted {
                true => CodeAddress::InstructionPointer(frame.ip),
                false => CodeAddress::ReturnAddress(frame.ip),
            };
            // Code without a table is generated; two frames of it in a row would be two guesses.
            let known = self.table(address.for_lookup()).is_some();
            if !known && (frame.ip < CODE || self.table(inside).is_none()) {
                return Err(Broken::NotExecutable);
            }
            if frames.len() == MAX_FRAMES || switches > MAX_STACKS {
                return Err(Broken::TooLong);
            }
            // A jump that calls itself to get rid of what the processor guesses is no caller.
            if interrupted || !self.is_thunk(address.for_lookup()) {
                frames.push(address);
            }
        }
    }
}

impl Orc {
    /// A function that has not touched its stack.
    const CALL: Self = Self::Frame {
        end: FrameEnd::Register(FrameRegister::Sp, 8),
        frame_pointer: FramePointer::Unchanged,
        kind: Kind::Call,
        interrupted: false,
    };

    /// A function that keeps its frame pointer, as code does that the kernel generates.
    const FRAME_POINTER: Self = Self::Frame {
        end: FrameEnd::Register(FrameRegister::Bp, 16),
        frame_pointer: FramePointer::FromEnd(-16),
        kind: Kind::Call,
        interrupted: false,
    };

    /// What the processor saves of whoever was interrupted.
    const SAVED: Self = Self::Frame {
        end: FrameEnd::Register(FrameRegister::Sp, 0),
        frame_pointer: FramePointer::Unchanged,
        kind: Kind::Interrupted,
        interrupted: true,
    };

    /// The same, with so many bytes more on the stack.
    fn behind(mut self, bytes: i64) -> Self {
        if let Self::Frame { end: FrameEnd::Register(FrameRegister::Sp, offset), .. } = &mut self {
            *offset = offset.saturating_add(bytes);
        }
        self
    }
}

/// What the kernel saves of whoever it interrupts (`struct pt_regs`).
fn saved_registers(at: u64, word: impl Fn(u64) -> Result<u64, Broken>) -> Result<Registers, Broken> {
    let member = |index: u64| word(at.wrapping_add(8 * index));
    Ok(Registers {
        r15: member(0)?,
        r14: member(1)?,
        r13: member(2)?,
        r12: member(3)?,
        bp: member(4)?,
        bx: member(5)?,
        r11: member(6)?,
        r10: member(7)?,
        r9: member(8)?,
        r8: member(9)?,
        ax: member(10)?,
        cx: member(11)?,
        dx: member(12)?,
        si: member(13)?,
        di: member(14)?,
        ip: member(16)?,
        sp: member(19)?,
    })
}
