//! Code that the kernel has generated: programs of BPF, and the trampolines of function tracing.

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    kernel::Kernel,
    look::{GuestAddress, Look},
};

const MAX_PROGRAMS: usize = 64 << 10;
const MAX_TRAMPOLINES: usize = 4096;
/// `KSYM_NAME_LEN` is 128 up to Linux 6.0, and 512 since.
const MAX_NAME: usize = 512;

/// Where the lists of generated code have what is asked of them. Not every kernel keeps such lists.
#[derive(Debug)]
pub(crate) struct GeneratedLayout {
    programs: Result<ProgramLayout, LayoutError>,
    trampolines: Result<TrampolineLayout, LayoutError>,
}

#[derive(Debug)]
struct ProgramLayout {
    list: u64,
    start: u64,
    end: u64,
    name: u64,
}

#[derive(Debug)]
struct TrampolineLayout {
    list: u64,
    start: u64,
    size: u64,
}

impl GeneratedLayout {
    pub(crate) fn of(btf: &Btf) -> Self {
        Self { programs: ProgramLayout::of(btf), trampolines: TrampolineLayout::of(btf) }
    }
}

impl ProgramLayout {
    fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let symbol = |member| btf.offset("bpf_ksym", member);
        Ok(Self {
            list: symbol("lnode")?,
            start: symbol("start")?,
            end: symbol("end")?,
            name: symbol("name")?,
        })
    }
}

impl TrampolineLayout {
    fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let ops = |member| btf.offset("ftrace_ops", member);
        Ok(Self { list: ops("list")?, start: ops("trampoline")?, size: ops("trampoline_size")? })
    }
}

/// A piece of code that the kernel has generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedCode {
    /// Where it begins.
    pub start: GuestVirtual,
    /// Where it ends.
    pub end: GuestVirtual,
    /// Its name as `/proc/kallsyms` has it: untrusted text.
    pub name: String,
    /// What stands there for a module: `bpf`, or `__builtin__ftrace`.
    pub owner: &'static str,
}

impl Kernel {
    /// The generated code that the kernel lists now, in the order of `/proc/kallsyms`. A kernel that keeps no such lists
    /// has none.
    pub fn generated_code(&self, look: &Look<'_>) -> Result<Vec<GeneratedCode>, GuestError> {
        let layouts = self.layouts.as_ref().map_err(Clone::clone)?;
        let mut code = Vec::new();
        let space = self.space(look, "the list of tracing trampolines");
        if let (Some(head), Ok(layout)) = (self.places.trampolines, &layouts.generated.trampolines) {
            for ops in space.list(head, layout.list, MAX_TRAMPOLINES)? {
                let start = space.pointer(ops.plus(layout.start))?;
                let end = start.plus(space.u64(ops.plus(layout.size))?);
                code.push(GeneratedCode {
                    start,
                    end,
                    name: "ftrace_trampoline".to_owned(),
                    owner: "__builtin__ftrace",
                });
            }
        }
        let space = self.space(look, "the list of BPF programs");
        if let (Some(head), Ok(layout)) = (self.places.bpf_symbols, &layouts.generated.programs) {
            for symbol in space.list(head, layout.list, MAX_PROGRAMS)? {
                let start = space.pointer(symbol.plus(layout.start))?;
                let end = space.pointer(symbol.plus(layout.end))?;
                code.push(GeneratedCode {
                    start,
                    end,
                    name: space.text(symbol.plus(layout.name), MAX_NAME)?,
                    owner: "bpf",
                });
            }
        }
        Ok(code)
    }
}
