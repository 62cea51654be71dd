//! The tracepoint of exits: its number, and where its records have what is wanted.

use std::{fs, io, ops::Range, path::Path};

use super::Lack;

/// Where the kernel's tracing is shown, if somebody has mounted it: by itself, or below debugfs.
const TRACING: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The record that the kernel makes of an exit (`kvm:kvm_exit`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExitRecord {
    /// The tracepoint's number.
    pub(super) id: u64,
    /// Where things are, in bytes.
    pub(super) reason: Range<usize>,
    pub(super) instruction_pointer: Range<usize>,
}

impl ExitRecord {
    /// As this kernel makes it.
    pub(super) fn of_this_kernel() -> Result<Self, Lack> {
        let mut refusal = None;
        for folder in TRACING.map(Path::new) {
            let events = folder.join("events");
            match fs::read_to_string(events.join("kvm/kvm_exit/format")) {
                Ok(text) => return Self::parse(&text).ok_or(Lack::NoTracepoint { what: "another record" }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    refusal = Some(Lack::Forbidden);
                }
                Err(_) if events.is_dir() => {
                    refusal = Some(Lack::NoTracepoint { what: "no such tracepoint" });
                }
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or(Lack::NoTracing))
    }

    /// A tracepoint's `format` file (Documentation/trace/events.rst of Linux): `ID: NUMBER`, and for each field
    /// `field:TYPE NAME; offset:N; size:N; signed:N;`.
    fn parse(text: &str) -> Option<Self> {
        let id = text.lines().find_map(|line| line.strip_prefix("ID:"))?.trim().parse().ok()?;
        let field = |name: &str| {
            let line = text.lines().find(|line| {
                let declared =
                    line.trim_start().strip_prefix("field:").and_then(|rest| rest.split(';').next());
                declared.and_then(|declared| declared.rsplit(' ').next()) == Some(name)
            })?;
            let number = |key: &str| {
                let value = line.split(';').find_map(|part| part.trim().strip_prefix(key));
                value.and_then(|value| value.parse::<u16>().ok()).map(usize::from)
            };
            let (offset, bytes) = (number("offset:")?, number("size:")?);
            Some(offset..offset + bytes)
        };
        let (reason, instruction_pointer) = (field("exit_reason")?, field("guest_rip")?);
        let understood = matches!(reason.len(), 4 | 8) && instruction_pointer.len() == 8;
        understood.then_some(Self { id, reason, instruction_pointer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: kvm_exit\nID: 1834\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:unsigned int exit_reason;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned long guest_rip;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:u32 isa;\toffset:24;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"reason %s\", __print_symbolic(REC->exit_reason, { 0x000, \"read_cr0\" }), REC->guest_rip\n";

    #[test]
    fn fields_are_where_the_format_says() {
        let record = ExitRecord { id: 1834, reason: 8..12, instruction_pointer: 16..24 };
        assert_eq!(ExitRecord::parse(FORMAT), Some(record));
        let wider = FORMAT.replace("exit_reason;\toffset:8;\tsize:4", "exit_reason;\toffset:8;\tsize:8");
        assert_eq!(ExitRecord::parse(&wider).unwrap().reason, 8..16);
    }

    #[test]
    fn what_is_not_understood_is_no_record() {
        for (from, to) in [
            ("ID: 1834", "ID: x"),
            ("guest_rip;", "rip;"),
            ("size:8", "size:2"),
            ("offset:16", "offset:-1"),
            ("offset:16", "offset:99999999999"),
        ] {
            assert_eq!(ExitRecord::parse(&FORMAT.replace(from, to)), None, "{to}");
        }
        for end in 0..FORMAT.find("\tfield:u32").unwrap() - 20 {
            assert_eq!(ExitRecord::parse(&FORMAT[..end]), None, "{end}");
        }
    }
}
