//! Up the stack of a process.

use profile::{CodeAddress, Registers};

use crate::{
    Broken, Chain, End, Image, MAX_FRAMES, Stacks,
    image::{Step, by_frame_pointer},
    machine::{Machine, RA},
};

/// What is at an address of a process.
#[derive(Clone, Copy, Debug)]
pub enum Code<'a> {
    /// Code of an image, which has it at this linked address.
    Image(&'a Image, u64),
    /// Code with no image behind it: made at run time.
    Generated,
    /// Code of an image that can't be read.
    Unreadable,
}

/// What a process has mapped.
pub trait Process {
    /// The code at an address; none where there is none.
    fn code_at(&mut self, address: u64) -> Option<Code<'_>>;
}

/// The chain of a thread in user mode.
pub fn walk(process: &mut dyn Process, registers: &Registers, stacks: &Stacks<'_>) -> Chain {
    let mut machine = Machine::from(registers);
    let mut address = CodeAddress::InstructionPointer(registers.ip);
    let mut frames = Vec::new();
    let end = loop {
        let code = process.code_at(address.for_lookup());
        // A caller is one if there is code; where the thread was, it was.
        if code.is_none() && !frames.is_empty() {
            break End::Broken(Broken::NotExecutable);
        }
        if frames.len() == MAX_FRAMES {
            break End::Broken(Broken::TooLong);
        }
        frames.push(address);
        let before = machine.sp();
        let step = match code {
            Some(Code::Image(image, linked)) => {
                let linked = match address {
                    CodeAddress::InstructionPointer(_) => CodeAddress::InstructionPointer(linked),
                    CodeAddress::ReturnAddress(_) => CodeAddress::ReturnAddress(linked.wrapping_add(1)),
                };
                image.step(linked, &mut machine, stacks)
            }
            Some(Code::Generated) => by_frame_pointer(&mut machine, stacks),
            Some(Code::Unreadable) => Err(Broken::NoUnwindInfo),
            None => Err(Broken::NotExecutable),
        };
        let caller = machine.get(RA).unwrap_or(0);
        match step {
            Err(broken) => break End::Broken(broken),
            Ok(Step::Outermost) => break End::Complete,
            // Where threads begin without a caller, there is a zero for it.
            Ok(Step::Caller { .. }) if caller == 0 => break End::Complete,
            // A signal may be served on a stack of its own, which can be above.
            Ok(Step::Caller { interrupted: true }) => address = CodeAddress::InstructionPointer(caller),
            Ok(Step::Caller { interrupted: false }) if machine.sp() <= before => {
                break End::Broken(Broken::NoAdvance);
            }
            Ok(Step::Caller { interrupted: false }) => address = CodeAddress::ReturnAddress(caller),
        }
    };
    Chain { frames, end }
}
