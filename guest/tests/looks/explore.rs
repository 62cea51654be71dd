//! Asks a guest everything that can be asked.

use std::collections::HashSet;

use guest::{Content, Elf, FileBytes, FilePiece, FunctionSource, Kernel, Look};
use profile::GuestVirtual;

/// How much was found, of whatever kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) symbols: usize,
    pub(crate) code: usize,
    pub(crate) tasks: usize,
    pub(crate) groups: usize,
    pub(crate) mappings: usize,
    pub(crate) functions: usize,
}

/// Everything of a kernel, as far as it lets itself be read, and of its processes.
pub(crate) fn explore(look: &Look<'_>, kernel: &Kernel) -> Found {
    let mut found = explore_kernel(look, kernel);
    if let Ok(library) = kernel.vdso(look)
        && let Ok(elf) = Elf::read(&library[..], look.budget())
    {
        found.functions += listed(&elf, &library[..], look);
    }
    found.tasks += usize::from(kernel.current_task(look, 1).is_ok());
    let tasks = kernel.tasks(look).unwrap_or_default();
    found.tasks += tasks.len();
    let mut seen = HashSet::new();
    for task in tasks.iter() {
        found.groups += usize::from(kernel.cgroup(look, task).is_ok());
        let mappings = kernel.mappings(look, task).unwrap_or_default();
        found.mappings += mappings.len();
        for mapping in &mappings {
            if let Content::File(piece) = &mapping.content
                && seen.insert(piece.file)
            {
                found.functions += functions(look, kernel, piece);
            }
            let _ = kernel.read_process(look, task, GuestVirtual(mapping.range.start), &mut [0; 64]);
        }
    }
    found
}

/// The symbols of a kernel, its modules and the code that it generated.
pub(crate) fn explore_kernel(look: &Look<'_>, kernel: &Kernel) -> Found {
    let mut found = Found { symbols: kernel.symbols().len(), ..Found::default() };
    for module in kernel.modules(look).unwrap_or_default() {
        found.symbols += kernel.module_symbols(look, &module).map_or(0, |symbols| symbols.len());
    }
    found.code = kernel.generated_code(look).map_or(0, |code| code.len());
    let _ = kernel.still_runs(look);
    found
}

/// The functions of a file.
fn functions(look: &Look<'_>, kernel: &Kernel, piece: &FilePiece) -> usize {
    let Ok(file) = kernel.file(look, piece.file) else { return 0 };
    let Ok(elf) = Elf::read(&file, look.budget()) else { return 0 };
    let _ = elf.linked_address(piece.offset);
    listed(&elf, &file, look)
}

/// The functions that all tables of a file name.
fn listed(elf: &Elf, file: &(impl FileBytes + ?Sized), look: &Look<'_>) -> usize {
    let _ = elf.build_id(file, look.budget());
    [FunctionSource::DynamicSymbols, FunctionSource::SymbolTable, FunctionSource::MiniDebugInfo]
        .into_iter()
        .filter_map(|source| elf.functions(file, look.budget(), source).ok())
        .map(|functions| functions.iter().map(|function| function.name.len().min(1)).sum::<usize>())
        .sum()
}
