//! What can be wrong with an image.

use std::{io, path::PathBuf};

use profile::DomainId;

/// What is wrong with an image's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Its beginning is that of no format known here.
    #[error("neither ELF, System.map nor kallsyms")]
    ForeignFormat,
    /// A list of symbols in which a line is something else.
    #[error("line {0} is not `ADDRESS TYPE NAME`")]
    BadLine(usize),
    /// The kernel printed zeros for addresses.
    #[error(
        "all addresses are zero, because the kernel hid them (kptr_restrict): \
         copy /proc/kallsyms as root, with `sysctl kernel.kptr_restrict=1`"
    )]
    HiddenAddresses,
    /// The placeholder that Debian installs as `/boot/System.map-*`.
    #[error(
        "Debian's placeholder, not the real System.map: copy the guest's /proc/kallsyms as root, \
         or take the one in the kernel's -dbg package"
    )]
    PlaceholderMap,
    /// It names no function.
    #[error("no function symbols (stripped?)")]
    NoSymbols,
    /// Code for a processor other than x86-64; the number is ELF's `e_machine`.
    #[error("built for another architecture (ELF machine {0}), not for x86-64")]
    OtherArchitecture(u16),
    /// Neither an executable nor a shared object; the number is ELF's `e_type`.
    #[error("neither an executable nor a shared object (ELF type {0})")]
    NotLinked(u16),
    /// A list of symbols where an executable is needed.
    #[error("a list of symbols, not an executable")]
    NotExecutable,
    /// Position-independent, and nobody said where it is.
    #[error(
        "position-independent: give the address that it is loaded at as FILE@0xBASE \
         (its first line in the guest's /proc/PID/maps)"
    )]
    NeedsLoadBase,
    /// Linked to fixed addresses, and somebody said where it is.
    #[error("a load base was given, but its addresses are fixed")]
    NeedsNoLoadBase,
    /// The ELF structures contradict each other or the file's size.
    #[error("damaged ELF: {0}")]
    DamagedElf(#[from] object::read::Error),
    /// More of something than any real image has.
    #[error("too large: {0}")]
    TooLarge(&'static str),
}

/// An image that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizerError {
    /// The operating system would not let it be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was read, and is not what it ought to be.
    #[error("{}: {problem}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: ParseError,
    },
    /// What follows the last `@0x` of a file's name is not an address.
    #[error("`{0}`: the load base after `@` is not a hexadecimal address")]
    BadLoadBase(String),
    /// Two executables of one domain occupy the same addresses, so that an address does not tell which one ran.
    #[error("ambiguous: {first} and {second} of domain {} both have code at {address:#x}", domain.0)]
    Ambiguous {
        /// Whose they are.
        domain: DomainId,
        /// The one that was there.
        first: String,
        /// The one that was refused.
        second: String,
        /// An address that both claim.
        address: u64,
    },
}
