//! What is compared across recordings: names that outlive a rebuild, a reboot and a new guest of the same role.

use std::fmt;

use profile::Mode;

use crate::Visible;

/// Something that has a weight in every run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What the hypervisor did for everybody and for itself.
    Hypervisor,
    /// All that is charged to a domain.
    Domain {
        /// Its name: untrusted text, like all below.
        domain: String,
    },
    /// A mode of a domain.
    Mode {
        /// See above.
        domain: String,
        /// Which.
        mode: Mode,
    },
    /// All processes of a name in a domain.
    Process {
        /// See above.
        domain: String,
        /// Their name.
        process: String,
    },
    /// A function.
    Function {
        /// See above.
        domain: String,
        /// In which mode it ran.
        mode: Mode,
        /// The image that it lies in.
        module: Option<String>,
        /// Its name without what changes from build to build.
        name: String,
        /// Whether what it called is included.
        total: bool,
    },
}

impl Subject {
    /// Whose it is; nobody's is empty.
    pub fn domain(&self) -> &str {
        match self {
            Self::Hypervisor => "",
            Self::Domain { domain }
            | Self::Mode { domain, .. }
            | Self::Process { domain, .. }
            | Self::Function { domain, .. } => domain,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypervisor => f.write_str("the hypervisor, for everybody"),
            Self::Domain { domain } => write!(f, "{}", Visible(domain)),
            Self::Mode { domain, mode } => write!(f, "{}: {mode} mode", Visible(domain)),
            Self::Process { domain, process } => {
                write!(f, "{}: process {}", Visible(domain), Visible(process))
            }
            Self::Function { domain, mode, module, name, total } => {
                write!(f, "{}: {mode} function {}", Visible(domain), Visible(name))?;
                if let Some(module) = module {
                    write!(f, " in {}", Visible(module))?;
                }
                if *total { write!(f, " with what it calls") } else { Ok(()) }
            }
        }
    }
}

/// A function's name without what changes from one build to the next: Rust's hashes, and the suffixes by which
/// compilers tell copies and parts of a function apart (`.isra.0`, `.constprop.3`, `.cold`, `.llvm.123…`).
pub fn stable_name(name: &str) -> &str {
    let mut name = name;
    if let Some((front, hash)) = name.rsplit_once("::h")
        && hash.len() == 16
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        name = front;
    }
    const MADE: [&str; 8] = ["isra", "constprop", "part", "cold", "llvm", "lto_priv", "localalias", "clone"];
    loop {
        let Some((front, last)) = name.rsplit_once('.') else { return name };
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        let numbered = front.rsplit_once('.').filter(|(_, word)| is_number && MADE.contains(word));
        name = match numbered {
            Some((front, _)) if !front.is_empty() => front,
            _ if MADE.contains(&last) && !front.is_empty() => front,
            _ => return name,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outlive_a_build() {
        for (name, stable) in [
            ("core::fmt::write::h0123456789abcdef", "core::fmt::write"),
            ("core::fmt::write::habc", "core::fmt::write::habc"),
            ("tcp_ack.isra.0", "tcp_ack"),
            ("do_work.constprop.12.isra.0.cold", "do_work"),
            ("f.llvm.1234567890", "f"),
            ("f.part", "f"),
            ("v8.3", "v8.3"),
            ("isra.0", "isra.0"),
            (".cold", ".cold"),
            ("", ""),
        ] {
            assert_eq!(stable_name(name), stable, "{name}");
        }
    }
}
