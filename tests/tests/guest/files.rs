//! Are files in the page cache what was put there, and are their functions found?

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::PathBuf,
};

use guest::{Content, Elf, ElfError, FileBytes, FileError, FileId, FunctionSource, Kernel, Look};
use object::{Object, ObjectSymbol, SymbolKind};

use crate::machines::{self, Machine};

/// A file that a process of the guest has mapped.
struct Mapped {
    path: String,
    file: FileId,
    /// The bytes that were put into the guest.
    original: Vec<u8>,
}

/// All files that are mapped, each once, of which it is known what was put there.
fn mapped(machine: &Machine, kernel: &Kernel, look: &Look<'_>) -> Vec<Mapped> {
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for task in kernel.tasks(look).unwrap().iter() {
        for mapping in kernel.mappings(look, task).unwrap() {
            let Content::File(piece) = mapping.content else { continue };
            if !seen.insert(piece.file) {
                continue;
            }
            if let Ok(original) = fs::read(original(machine, &piece.path)) {
                files.push(Mapped { path: piece.path, file: piece.file, original });
            }
        }
    }
    files
}

/// Where the file is that was put into the guest under this name.
fn original(machine: &Machine, path: &str) -> PathBuf {
    let path = path.strip_prefix("/overlay").map_or(path.to_owned(), |within| format!("/disk{within}"));
    machine.snapshot.files.join(path.trim_start_matches('/'))
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn resident_pages_are_those_of_the_files_and_others_are_missing() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let (mut resident, mut missing) = (0, 0);
        let files = mapped(machine, &kernel, &look);
        for Mapped { path, file, original } in &files {
            let file = kernel.file(&look, *file).unwrap();
            assert_eq!(file.size(), original.len() as u64, "{path}");
            for (index, expected) in original.chunks(4096).enumerate() {
                let mut page = vec![0; expected.len()];
                match file.read(index as u64 * 4096, &mut page) {
                    Ok(()) => {
                        assert!(page == expected, "{}: page {index} of {path} differs", machine.name);
                        resident += 1;
                    }
                    Err(FileError::NotResident(_)) => missing += 1,
                    Err(error) => panic!("{path}: {error}"),
                }
            }
        }
        assert!(resident > 1000, "{}: only {resident} pages are resident", machine.name);
        let count = files.len();
        machine.figure(
            "pages of files, all equal",
            format_args!("{resident} of {count} files, {missing} not there"),
        );
    }
}

type Symbols = BTreeSet<(u64, String)>;

/// The symbols of a table as another reader has them, and those of them that are functions.
fn expected<'a>(symbols: impl Iterator<Item = object::Symbol<'a, 'a>>) -> (Symbols, Symbols) {
    let row = |symbol: &object::Symbol<'_, '_>| (symbol.address(), symbol.name().unwrap().to_owned());
    let defined: Vec<_> = symbols.filter(|symbol| !symbol.is_undefined()).collect();
    let functions = defined.iter().filter(|symbol| symbol.kind() == SymbolKind::Text).map(row).collect();
    (defined.iter().map(row).collect(), functions)
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn functions_and_build_ids_are_those_of_the_files() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let files = mapped(machine, &kernel, &look);
        assert!(
            files.len() >= 6,
            "{}: {:?}",
            machine.name,
            files.iter().map(|file| &file.path).collect::<Vec<_>>()
        );
        let mut full = 0;
        for Mapped { path, file, original } in &files {
            let file = kernel.file(&look, *file).unwrap();
            let elf = Elf::read(&file, look.budget()).unwrap();
            let object = object::File::parse(&original[..]).unwrap();
            let id = elf.build_id(&file, look.budget()).unwrap();
            assert_eq!(id.as_deref(), object.build_id().unwrap(), "{}: {path}", machine.name);

            for source in [FunctionSource::DynamicSymbols, FunctionSource::SymbolTable] {
                let (all, expected) = match source {
                    FunctionSource::DynamicSymbols => expected(object.dynamic_symbols()),
                    _ => expected(object.symbols()),
                };
                let found = match elf.functions(&file, look.budget(), source) {
                    Ok(found) => found,
                    Err(ElfError::None(_)) if expected.is_empty() => continue,
                    Err(ElfError::Read { problem: FileError::NotResident(_), .. })
                        if source == FunctionSource::SymbolTable =>
                    {
                        continue;
                    }
                    Err(error) => panic!("{}: {path}: {source:?}: {error}", machine.name),
                };
                full += usize::from(source == FunctionSource::SymbolTable);
                let missing = found.missing() as usize;
                let found: Symbols =
                    found.iter().map(|function| (function.address, function.name.to_owned())).collect();
                assert!(found.is_subset(&all), "{}: {path}: {:?}", machine.name, found.difference(&all));
                let unfound: Vec<_> = expected.difference(&found).collect();
                assert!(unfound.len() <= missing, "{}: {path}: {source:?}: {unfound:?}", machine.name);
                println!(
                    "figure: {}: {path}: {source:?}: {} of {} functions, {missing} symbols not resident",
                    machine.name,
                    expected.len() - unfound.len(),
                    expected.len()
                );
            }
        }
        assert!(full >= 2, "{}: the programs in the initramfs have their symbol tables", machine.name);
    }
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn the_kernels_own_library_has_its_functions() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let bytes = kernel.vdso(&look).unwrap();
        let elf = Elf::read(&bytes[..], look.budget()).unwrap();
        let functions = elf.functions(&bytes[..], look.budget(), FunctionSource::DynamicSymbols).unwrap();
        assert!(
            functions.iter().any(|function| function.name == "__vdso_clock_gettime" && function.size > 0)
        );
        assert_eq!(functions.missing(), 0);
        machine.figure("functions of the vDSO", functions.len());
    }
}
