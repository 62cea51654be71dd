//! An image that processes map: what it says about the frames of its functions.

use profile::CodeAddress;

use crate::{
    Broken, Stacks,
    call_frames::{CallFrames, Step},
    go::GoFunctions,
    machine::{BP, Machine, RA, SP},
};

/// Bytes of an image, at the address that they were linked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The address.
    pub address: u64,
    /// The bytes. What of them could not be read is zeros: no table's entry is.
    pub bytes: Vec<u8>,
}

impl Part {
    /// What of it begins at an address.
    pub(crate) fn from(&self, address: u64) -> Option<Self> {
        let at = usize::try_from(address.checked_sub(self.address)?).ok()?;
        let bytes = self.bytes.get(at..).filter(|bytes| !bytes.is_empty())?.to_vec();
        Some(Self { address, bytes })
    }
}

/// The parts of an image that tell of its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// `.eh_frame_hdr`, with what follows it in its segment: `.eh_frame` as a rule.
    pub eh_frame_header: Option<Part>,
    /// `.eh_frame`, where it is known by itself.
    pub eh_frame: Option<Part>,
    /// Go's table of functions (`.gopclntab`).
    pub go_functions: Option<Part>,
}

/// What one image says about the frames of its functions, at the addresses that it was linked to; remembers what it
/// was asked.
#[derive(Debug, Default)]
pub struct Image {
    call_frames: Option<CallFrames>,
    go: Option<GoFunctions>,
}

impl Image {
    /// Takes an image's parts. What is damaged in them is as if it were not there.
    pub fn new(parts: Parts) -> Self {
        let Parts { eh_frame_header, eh_frame, go_functions } = parts;
        let call_frames = CallFrames::new(eh_frame_header, eh_frame);
        Self { call_frames, go: go_functions.and_then(GoFunctions::parse) }
    }

    /// Goes from the frame at a linked address to its caller.
    pub(crate) fn step(
        &self,
        at: CodeAddress,
        registers: &mut Machine,
        stacks: &Stacks<'_>,
    ) -> Result<Step, Broken> {
        let address = at.for_lookup();
        let innermost = matches!(at, CodeAddress::InstructionPointer(_));
        if let Some(step) = self.go.as_ref().and_then(|go| go.step(address, registers, stacks)) {
            return step;
        }
        let Some(frames) = &self.call_frames else { return by_frame_pointer(registers, stacks) };
        frames.step(address, innermost, registers, stacks).unwrap_or_else(|| match registers.get(BP) {
            // By convention, what has no caller has no frame pointer either.
            Some(0) => Ok(Step::Outermost),
            _ => Err(Broken::NoUnwindInfo),
        })
    }
}

/// The caller of a frame that keeps its frame pointer (System V psABI, section 3.2.2).
pub(crate) fn by_frame_pointer(registers: &mut Machine, stacks: &Stacks<'_>) -> Result<Step, Broken> {
    let frame = registers.get(BP).ok_or(Broken::NoUnwindInfo)?;
    if frame == 0 {
        return Ok(Step::Outermost);
    }
    if frame < registers.sp() || !frame.is_multiple_of(8) {
        return Err(Broken::NoUnwindInfo);
    }
    let caller = stacks.word(frame).zip(stacks.word(frame.wrapping_add(8)));
    let (bp, return_address) = caller.ok_or(Broken::NotCopied)?;
    let mut caller = Machine::default();
    caller.set(BP, Some(bp));
    caller.set(SP, Some(frame.wrapping_add(16)));
    caller.set(RA, Some(return_address));
    *registers = caller;
    Ok(Step::Caller { interrupted: false })
}
