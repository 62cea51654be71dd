//! ELF files: made ones for rare cases, and this test's own.

use std::{collections::HashMap, env, fs, io::Write, process::Command, slice};

use profile::{CodeAddress, DomainId, ProcessId, Space};
use symbolizer::{Executable, Image, ImageFile, ParseError, Symbolizer, SymbolizerError, demangle, load};
use tempfile::NamedTempFile;

use crate::tiny_elf::{DATA, FUNCTION, LABEL, LOCAL_FUNCTION, OBJECT, TEXT, TinyElf, WEAK_FUNCTION};

fn parse(elf: &TinyElf<'_>, base: Option<u64>) -> Result<Executable, ParseError> {
    Image::parse("tiny", &elf.bytes(), base)?.into_executable()
}

fn name_at(executable: &Executable, address: u64) -> Option<&str> {
    executable.symbols().lookup(address).map(|symbol| symbol.name)
}

#[test]
fn sizes_bindings_and_types_decide() {
    let executable = parse(
        &TinyElf {
            symbols: &[
                ("local", 0x40_1000, 0x20, LOCAL_FUNCTION, 1),
                ("weak", 0x40_1000, 0x20, WEAK_FUNCTION, 1),
                ("__global", 0x40_1000, 0x20, FUNCTION, 1),
                ("global", 0x40_1000, 0x20, FUNCTION, 1),
                ("label_within", 0x40_1010, 0, LABEL, 1),
                ("assembly", 0x40_1040, 0, LABEL, 1),
                (".Lprivate", 0x40_1044, 0, LABEL, 1),
                ("next", 0x40_1050, 0x10, FUNCTION, 1),
                ("table", 0x40_1080, 0x10, OBJECT, 1),
                ("imported", 0, 0, FUNCTION, 0),
                ("in_data", 0x40_2000, 0, LABEL, 1),
                ("last", 0x40_1f00, 0, FUNCTION, 1),
            ],
            ..TinyElf::default()
        },
        None,
    )
    .unwrap();
    for (address, expected) in [
        (0x40_0fff, None),
        (0x40_1000, Some("global")),
        (0x40_101f, Some("global")),
        (0x40_1020, None),
        (0x40_104f, Some("assembly")),
        (0x40_105f, Some("next")),
        (0x40_1060, None),
        (0x40_1080, None),
        (0x40_1fff, Some("last")),
        (0x40_2000, None),
    ] {
        assert_eq!(name_at(&executable, address), expected, "{address:#x}");
    }
    assert_eq!(executable.text(), slice::from_ref(&(0x40_1000..0x40_2000)));
    assert_eq!(executable.symbols().extent(), 0x40_0000..0x40_3000);
}

#[test]
fn position_independent_files_are_moved_to_their_base() {
    let pie = TinyElf {
        kind: 3,
        segments: &[(0, 0x1000, 4), (0x1000, 0x1000, TEXT)],
        symbols: &[("main", 0x1000, 0x20, FUNCTION, 1)],
        dynamic: true,
        ..TinyElf::default()
    };
    assert_eq!(parse(&pie, None).unwrap_err(), ParseError::NeedsLoadBase);
    let executable = parse(&pie, Some(0x5555_0000_0000)).unwrap();
    assert_eq!(name_at(&executable, 0x5555_0000_101f), Some("main"));
    assert_eq!(executable.text(), slice::from_ref(&(0x5555_0000_1000..0x5555_0000_2000)));
    assert_eq!(executable.symbols().extent().start, 0x5555_0000_0000);
}

#[test]
fn a_kernels_per_cpu_data_is_not_where_it_begins() {
    let vmlinux = TinyElf {
        segments: &[
            (0xffff_ffff_8100_0000, 0x20_0000, TEXT),
            (0xffff_ffff_8220_0000, 0x10_0000, DATA),
            (0, 0x3_0000, DATA),
        ],
        symbols: &[("entry_SYSCALL_64", 0xffff_ffff_8100_0080, 0x150, LABEL, 1)],
        ..TinyElf::default()
    };
    let kernel = Image::parse("vmlinux", &vmlinux.bytes(), None).unwrap().into_kernel();
    assert_eq!(kernel.extent(), 0xffff_ffff_8100_0000..0xffff_ffff_8230_0000);
    assert_eq!(kernel.lookup(0xffff_ffff_8100_0081).unwrap().name, "entry_SYSCALL_64");
}

#[test]
fn what_is_wrong_is_said() {
    let tiny = TinyElf::default;
    let error = |elf: TinyElf<'_>| parse(&elf, None).unwrap_err();
    assert_eq!(error(TinyElf { machine: 183, ..tiny() }), ParseError::OtherArchitecture(183));
    assert_eq!(error(TinyElf { kind: 1, ..tiny() }), ParseError::NotLinked(1));
    assert_eq!(error(TinyElf { symbols: &[], ..tiny() }), ParseError::NoSymbols);
    assert_eq!(error(TinyElf { segments: &[], ..tiny() }), ParseError::NoSymbols);
    assert_eq!(parse(&tiny(), Some(0x1000)).unwrap_err(), ParseError::NeedsNoLoadBase);
    assert!(matches!(Image::parse("cut", &tiny().bytes()[..100], None), Err(ParseError::DamagedElf(_))));
    let list = Image::parse("list", b"1000 T f\n", None).unwrap();
    assert_eq!(list.into_executable().unwrap_err(), ParseError::NotExecutable);
}

#[test]
fn errors_name_the_file() {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(b"MZ\x90\0 a foreign program").unwrap();
    let error = load(&ImageFile::from(file.path())).unwrap_err();
    let path = file.path().display();
    assert_eq!(error.to_string(), format!("{path}: neither ELF, System.map nor kallsyms"));

    let error = load(&"/nonexistent/vmlinux".parse().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/vmlinux");
    assert!(matches!(error, SymbolizerError::Read { .. }));
    assert!(matches!(load(&"/".parse().unwrap()), Err(SymbolizerError::Read { .. })));
}

#[test]
fn unaligned_bytes_are_read_too() {
    let mut bytes = vec![0];
    bytes.extend(TinyElf::default().bytes());
    assert!(Image::parse("tiny", &bytes[1..], None).is_ok());
}

/// This very program, where it is loaded.
fn this_program() -> (Executable, u64) {
    let path = env::current_exe().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let first = maps.lines().find(|line| line.ends_with(path.to_str().unwrap())).unwrap();
    let base = u64::from_str_radix(first.split('-').next().unwrap(), 16).unwrap();
    let image = load(&format!("{}@{base:#x}", path.display()).parse().unwrap()).unwrap();
    (image.into_executable().unwrap(), base)
}

#[inline(never)]
fn a_function_of_this_program() -> u64 {
    a_function_of_this_program as fn() -> u64 as usize as u64
}

#[test]
fn a_running_programs_address_is_named() {
    let (executable, _) = this_program();
    let mut symbolizer = Symbolizer::default();
    symbolizer.add_executable(DomainId(1), executable).unwrap();
    let address = CodeAddress::InstructionPointer(a_function_of_this_program() + 1);
    let resolved = symbolizer.resolve(Space::User(DomainId(1), ProcessId(0)), address);
    let function = demangle(resolved.symbol.unwrap());
    assert!(function.ends_with("elf::a_function_of_this_program"), "{function}");
    assert_eq!(resolved.offset.0, 1);
}

/// Every sized function that `nm` lists, at its first and at its last byte.
#[test]
fn nm_agrees_on_this_program() {
    let Ok(nm) = Command::new("nm").args(["-nS", "--defined-only"]).arg(env::current_exe().unwrap()).output()
    else {
        return;
    };
    let mut names = HashMap::<_, Vec<_>>::new();
    for line in String::from_utf8(nm.stdout).unwrap().lines() {
        let fields: Vec<_> = line.splitn(4, ' ').collect();
        if let &[address, size, "t" | "T" | "w" | "W", name] = &fields[..] {
            let [address, size] = [address, size].map(|digits| u64::from_str_radix(digits, 16).unwrap());
            names.entry((address, size)).or_default().push(name.to_owned());
        }
    }
    assert!(names.len() > 1000);
    let (executable, base) = this_program();
    for ((address, size), names) in names {
        for at in [address, address + size - 1] {
            let symbol = executable.symbols().lookup(base + at).unwrap();
            assert_eq!(symbol.start, base + address);
            assert!(names.iter().any(|name| name == symbol.name), "{at:#x}: {symbol:?}, not {names:?}");
        }
    }
}
