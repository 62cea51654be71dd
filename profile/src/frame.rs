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
