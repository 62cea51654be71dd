//! Processes, what they have mapped, and the pages and functions of their files.

use guest::{
    Content, Elf, ElfError, FileBytes, FileError, Frames, FunctionSource, GuestError, Kernel, Levels, Limits,
    Look, Mapping,
};

use profile::GuestVirtual;

use crate::synthetic::{FILE_SIZE, Linux, Release, Shape, elf, is_resident};

/// Old and new structures, in guests of each kind.
fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for release in [Release::Old, Release::New] {
        for (levels, frames, isolated) in [
            (Levels::Four, Frames::Guest, true),
            (Levels::Five, Frames::Guest, false),
            (Levels::Four, Frames::Machine, false),
        ] {
            shapes.push(Shape { release, levels, frames, isolated, ..Shape::PLAIN });
        }
    }
    shapes
}

/// Runs a test in all of them.
fn in_each(test: impl Fn(&Linux, &Look<'_>, &Kernel)) {
    for shape in shapes() {
        println!("{shape:?}");
        let linux = Linux::new(shape);
        let look = Look::new(&linux.ram, Limits::default());
        let kernel = Kernel::find(&look, linux.cr3).unwrap();
        test(&linux, &look, &kernel);
    }
}

/// What the process has mapped.
fn mappings(linux: &Linux, look: &Look<'_>, kernel: &Kernel) -> Vec<Mapping> {
    let tasks = kernel.tasks(look).unwrap();
    kernel.mappings(look, tasks.process(linux.cr3).unwrap()).unwrap()
}

#[test]
fn tasks_are_listed_and_roots_lead_to_them() {
    in_each(|linux, look, kernel| {
        let tasks = kernel.tasks(look).unwrap();
        let rows: Vec<_> = tasks
            .iter()
            .map(|task| (task.pid, task.tgid, &*task.comm, task.root.is_some(), task.start_time))
            .collect();
        let expected = [
            (0, 0, "swapper/0", false, 0),
            (2, 2, "kthreadd", false, 2000),
            (100, 100, "server", true, 100_000),
            (101, 100, "\x1b[1mred\n", true, 101_000),
        ];
        assert_eq!(rows, expected);
        for cr3 in [linux.cr3, linux.user_cr3] {
            assert_eq!(tasks.process(cr3).unwrap().pid, 100);
        }
        assert!(tasks.process(linux.cr3 + 0x10_0000).is_none());
        let server = tasks.process(linux.cr3).unwrap();
        assert!(kernel.is_still(look, server));
        let mut before = server.clone();
        before.executed += 1;
        assert!(!kernel.is_still(look, &before), "it has executed something else since");
    });
}

#[test]
fn the_current_task_of_a_cpu_is_told() {
    in_each(|_, look, kernel| {
        assert_eq!(kernel.current_task(look, 1).unwrap().pid, 101);
        assert!(kernel.current_task(look, 0).is_err());
    });
}

#[test]
fn containers_are_told_in_either_hierarchy() {
    in_each(|_, look, kernel| {
        let tasks = kernel.tasks(look).unwrap();
        let groups: Vec<_> = tasks.iter().map(|task| kernel.cgroup(look, task).unwrap()).collect();
        assert_eq!(groups, ["/", "/", "/machine.slice/box.scope", "/machine.slice/box.scope"]);
    });
}

#[test]
fn mappings_are_those_of_the_process() {
    in_each(|linux, look, kernel| {
        let found = mappings(linux, look, kernel);
        let ranges: Vec<_> = found.iter().map(|mapping| (mapping.range.start, mapping.range.end)).collect();
        assert_eq!(ranges, linux.areas);
        let Content::File(piece) = &found[0].content else { panic!("{:?}", found[0]) };
        assert_eq!((&*piece.path, piece.inode, piece.file.size()), ("/bin/server", 77, FILE_SIZE));
        assert!(found[0].executable && !found[0].writable && found[1].writable);
        let offsets = [0x40_0123, 0x3f_ffff, 0x100_0000].map(|address| found[0].file_offset(address));
        assert_eq!((offsets, found[1].file_offset(0x100_0000)), ([Some(0x123), None, None], None));
        assert_eq!((&found[1].content, &found[2].content), (&Content::Heap, &Content::Anonymous));
        let last: Vec<_> = found[found.len() - 2..].iter().map(|mapping| mapping.content.clone()).collect();
        assert_eq!(last, [Content::Stack, Content::Special("[vdso]".to_owned())]);
        let idle = kernel.tasks(look).unwrap().iter().next().cloned().unwrap();
        assert!(kernel.mappings(look, &idle).unwrap().is_empty());
    });
}

#[test]
fn pages_are_those_of_the_file_or_missing() {
    in_each(|linux, look, kernel| {
        let Content::File(piece) = mappings(linux, look, kernel).swap_remove(0).content else { panic!() };
        let file = kernel.file(look, piece.file).unwrap();
        for (index, expected) in (0..).zip(linux.file.chunks(4096)) {
            let mut page = vec![0; expected.len()];
            let read = file.read(index * 4096, &mut page);
            assert_eq!(file.has_page(index).unwrap(), is_resident(index));
            match is_resident(index) {
                true => assert!(read.is_ok() && page == expected, "page {index}: {read:?}"),
                false => assert_eq!(read, Err(FileError::NotResident(index * 4096))),
            }
        }
        let mut across = [0; 200];
        file.read(3 * 4096 - 100, &mut across).unwrap();
        assert_eq!((across[0], across[199]), (2, 3));
        assert_eq!(file.read(FILE_SIZE - 10, &mut across), Err(FileError::PastEnd(FILE_SIZE - 10)));
        assert!(!file.has_page(4095).unwrap() && !file.has_page(u64::MAX).unwrap());
    });
}

#[test]
fn functions_come_from_every_table() {
    in_each(|linux, look, kernel| {
        let Content::File(piece) = mappings(linux, look, kernel).swap_remove(0).content else { panic!() };
        let file = kernel.file(look, piece.file).unwrap();
        let program = Elf::read(&file, look.budget()).unwrap();
        assert_eq!(program.build_id(&file, look.budget()).unwrap().as_deref(), Some(&b"made"[..]));
        assert!(!program.position_independent);
        assert_eq!(program.linked_address(0x123), Some(elf::ADDRESS + 0x123));
        for (source, expected) in [
            (FunctionSource::DynamicSymbols, &elf::DYNAMIC[..]),
            (FunctionSource::SymbolTable, &elf::FULL),
            (FunctionSource::MiniDebugInfo, &elf::COMPRESSED),
        ] {
            let functions = program.functions(&file, look.budget(), source).unwrap();
            let names: Vec<_> = functions.iter().map(|function| function.name).collect();
            assert_eq!((names, functions.missing()), (expected.to_vec(), 0), "{source:?}");
            assert!(functions.iter().all(|function| function.size == 0x80 && !function.local));
        }
    });
}

#[test]
fn the_kernels_own_library_is_read_from_the_kernel() {
    in_each(|linux, look, kernel| {
        assert_eq!(kernel.vdso(look).unwrap(), linux.file[..0x2000]);
        let tasks = kernel.tasks(look).unwrap();
        // The page tables of the process have nothing of its own.
        let read =
            kernel.read_process(look, tasks.process(linux.cr3).unwrap(), GuestVirtual(0x40_0000), &mut [0]);
        assert!(matches!(read, Err(GuestError::Read { what: "the memory of a process", .. })), "{read:?}");
    });
}

#[test]
fn without_its_last_pages_a_file_keeps_its_dynamic_symbols() {
    let mut linux = Linux::new(Shape::PLAIN);
    // Where the page of section headers is, by its content.
    let page = linux.ram.bytes().chunks(4096).rposition(|page| page[0] == 69 && page[1] == 69).unwrap();
    linux.ram.missing.push(page as u64);
    let look = Look::new(&linux.ram, Limits::default());
    let kernel = Kernel::find(&look, linux.cr3).unwrap();
    let Content::File(piece) = mappings(&linux, &look, &kernel).swap_remove(0).content else { panic!() };
    let file = kernel.file(&look, piece.file).unwrap();
    let program = Elf::read(&file, look.budget()).unwrap();
    assert_eq!(program.functions(&file, look.budget(), FunctionSource::DynamicSymbols).unwrap().len(), 3);
    let error = program.functions(&file, look.budget(), FunctionSource::SymbolTable).unwrap_err();
    assert!(matches!(error, ElfError::Read { what: "its section headers", .. }), "{error:?}");
}

#[test]
fn what_is_compressed_is_decompressed() {
    // `printf 'looking %.0s' $(seq 40) | xz --check=crc32`
    let data = include_bytes!("looking.xz");
    let file = elf::with_debugdata(data);
    let budget = guest::Budget::new(Limits::default());
    let program = Elf::read(&file[..], &budget).unwrap();
    // It is decompressed, and then found to be something else.
    let error = program.functions(&file[..], &budget, FunctionSource::MiniDebugInfo).unwrap_err();
    assert_eq!(error, ElfError::Foreign);
    let file = elf::with_debugdata(&data[..data.len() / 2]);
    let error = program.functions(&file[..], &budget, FunctionSource::MiniDebugInfo).unwrap_err();
    assert!(matches!(error, ElfError::Damaged(_)), "{error:?}");
}

#[test]
fn memory_that_is_missing_is_told_and_not_taken_for_zeros() {
    let mut linux = Linux::new(Shape::PLAIN);
    let kernel = Kernel::find(&Look::new(&linux.ram, Limits::default()), linux.cr3).unwrap();
    let comm = linux.ram.bytes().windows(6).position(|text| text == b"server").unwrap();
    linux.ram.missing.push(comm as u64 / 4096);
    let error = kernel.tasks(&Look::new(&linux.ram, Limits::default())).unwrap_err();
    assert!(matches!(error, GuestError::Read { what: "the list of tasks", .. }), "{error:?}");
}
