//! What comes out: a chain of addresses and the way it ended.

use std::fmt;

use profile::CodeAddress;

/// No chain gets more frames: real ones have some dozens, endless recursions as many as were copied.
pub const MAX_FRAMES: usize = 512;

/// The frames of one space, innermost first, and how they ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where the thread was, and where each call returns to.
    pub frames: Vec<CodeAddress>,
    /// How they ended.
    pub end: End,
}

/// How a chain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At an outermost function.
    Complete,
    /// Before that.
    Broken(Broken),
}

/// Why a chain ended before its outermost function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Broken {
    /// Nothing says where that function keeps its caller.
    NoUnwindInfo,
    /// The caller is further up the stack than was copied.
    NotCopied,
    /// What stands where the caller should be is not the address of code.
    NotExecutable,
    /// The caller would be no further up the stack than the callee.
    NoAdvance,
    /// It has [`MAX_FRAMES`].
    TooLong,
    /// It goes on, on a stack of which nothing was copied.
    OtherStack,
    /// The kernel was going over to another process: its stack is one's and the page tables are the other's.
    BetweenProcesses,
    /// There was no room for what would have been copied.
    NoRoom,
    /// The stack is behind page tables of a kind that is not followed.
    PageTables,
}

impl Broken {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::NoUnwindInfo,
        Self::NotCopied,
        Self::NotExecutable,
        Self::NoAdvance,
        Self::TooLong,
        Self::OtherStack,
        Self::BetweenProcesses,
        Self::NoRoom,
        Self::PageTables,
    ];

    /// The name of the frame that stands for what is missing.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoUnwindInfo => "[no unwind info]",
            Self::NotCopied => "[stack not copied so far]",
            Self::NotExecutable => "[not executable]",
            Self::NoAdvance => "[stack does not go on]",
            Self::TooLong => "[more frames]",
            Self::OtherStack => "[another stack]",
            Self::BetweenProcesses => "[between two processes]",
            Self::NoRoom => "[no room for the stack]",
            Self::PageTables => "[page tables not followed]",
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
