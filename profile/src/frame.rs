//! Frames and call chains, interned: a name, a frame or a chain is stored once and referred to by number.

use serde::{Deserialize, Serialize};

use crate::{CodeAddress, ImageOffset, Space};

/// The number of a text in the order in which the recording introduces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NameId(pub u32);

/// The number of a frame in the order in which the recording introduces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameId(pub u32);

/// The number of a chain in the order in which the recording introduces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainId(pub u32);

/// A place in somebody's code.
///
/// *Named* when `function` is known; *located* when only `module` and `offset` are; neither when nothing claims
/// the address. A function without a module is none: it says why the chain has a gap here ([`Frame::is_gap`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Whose code it is.
    pub space: Space,
    /// Where in that space.
    pub address: CodeAddress,
    /// The function, demangled: untrusted text.
    pub function: Option<NameId>,
    /// The image that it lies in (`xen`, `vmlinux`, a file's name): untrusted text.
    pub module: Option<NameId>,
    /// The offset from the start of `function` if that is known, else from the start of `module`.
    pub offset: ImageOffset,
    /// What its code was made from.
    pub origin: Origin,
}

/// What a frame's code was made from, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Where a file has it.
    pub linked: Option<Linked>,
    /// The line of source, from debug information.
    pub line: Option<SourceLine>,
    /// Whether its function has no code of its own here: the compiler put it into the frame's caller, whose offset it has.
    pub inlined: bool,
}

impl Origin {
    /// The same with other numbers of names.
    pub fn named(self, mut name: impl FnMut(NameId) -> NameId) -> Self {
        let linked = self.linked.map(|linked| Linked { build_id: name(linked.build_id), ..linked });
        let line = self.line.map(|line| SourceLine { file: name(line.file), ..line });
        Self { linked, line, ..self }
    }
}

/// A place in an ELF file, whichever of its copies was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Linked {
    /// The file's build id (`.note.gnu.build-id`), in hexadecimal digits.
    pub build_id: NameId,
    /// The address that the instruction was linked to; for a return address, that of the call's last byte.
    pub address: u64,
}

/// A line of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceLine {
    /// The file, as the compiler was told of it: untrusted text.
    pub file: NameId,
    /// From 1; 0 where no line is told.
    pub line: u32,
}

impl Frame {
    /// Whether it stands for callers that could not be found: its function says why.
    pub fn is_gap(&self) -> bool {
        self.function.is_some() && self.module.is_none()
    }
}

/// A call chain: a frame and the chain of its caller. Chains that share their outer frames share them here too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chain {
    /// The chain of the caller; none for an outermost frame.
    pub caller: Option<ChainId>,
    /// The frame itself.
    pub frame: FrameId,
}
