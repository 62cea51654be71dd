//! Kernels of every layout, and what is missing of them.

use guest::{Frames, Kernel, KernelError, LayoutError, Levels, Limits, Look};

use crate::synthetic::{Layout, Linux, Release, Shape};

fn look(linux: &Linux) -> Look<'_> {
    Look::new(&linux.ram, Limits::default())
}

/// Whether all symbols are found, from each root.
fn assert_found(shape: Shape) {
    let linux = Linux::new(shape);
    // A process of a PV domain does not map the kernel.
    let roots =
        if shape.frames == Frames::Machine { vec![linux.cr3] } else { vec![linux.cr3, linux.user_cr3] };
    for cr3 in roots {
        let kernel = Kernel::find(&look(&linux), cr3).unwrap_or_else(|error| panic!("{shape:?}: {error}"));
        assert_eq!(kernel.release(), "6.12.0-made-up");
        assert_eq!(kernel.slide(), Some(shape.slide), "{shape:?}");
        assert_eq!(kernel.page_tables().levels, shape.levels);
        assert_eq!(kernel.build_id(), Some(&(0..20).collect::<Vec<u8>>()[..]));
        assert_eq!(kernel.symbols().len(), linux.symbols.len());
        for (found, (address, kind, name)) in kernel.symbols().iter().zip(&linux.symbols) {
            assert_eq!((found.address.0, found.kind, found.name), (*address, char::from(*kind), &**name));
        }
    }
}

#[test]
fn every_layout_of_kallsyms_is_read() {
    for layout in Layout::ALL {
        assert_found(Shape { layout, ..Shape::PLAIN });
    }
}

#[test]
fn page_tables_of_either_depth_lead_there_isolated_or_not() {
    for levels in [Levels::Four, Levels::Five] {
        for isolated in [false, true] {
            assert_found(Shape { levels, isolated, ..Shape::PLAIN });
        }
    }
}

#[test]
fn the_frames_of_a_pv_domain_lead_there() {
    let shape = Shape { frames: Frames::Machine, isolated: false, ..Shape::PLAIN };
    assert_found(shape);
    let linux = Linux::new(shape);
    assert!(matches!(Kernel::find(&look(&linux), linux.user_cr3), Err(KernelError::NotLinux(_))));
}

#[test]
fn constants_that_are_not_protected_yet_are_found() {
    assert_found(Shape { protected: false, ..Shape::PLAIN });
}

#[test]
fn modules_and_generated_code_are_listed() {
    for release in [Release::Old, Release::New] {
        let linux = Linux::new(Shape { release, ..Shape::PLAIN });
        let look = look(&linux);
        let kernel = Kernel::find(&look, linux.cr3).unwrap();
        let modules = kernel.modules(&look).unwrap();
        let [module] = &modules[..] else { panic!("{modules:?}") };
        assert_eq!(
            (&*module.name, module.text.clone()),
            ("made_up", 0xffff_ffff_c000_1000..0xffff_ffff_c000_3000)
        );
        let symbols = kernel.module_symbols(&look, module).unwrap();
        let rows: Vec<_> =
            symbols.iter().map(|symbol| (symbol.address.0, symbol.kind, symbol.name)).collect();
        let expected =
            [(0xffff_ffff_c000_1010, 't', "first_function"), (0xffff_ffff_c000_1020, 'T', "second_function")];
        assert_eq!(rows, expected);
        let code = kernel.generated_code(&look).unwrap();
        let rows: Vec<_> = code.iter().map(|code| (code.start.0, &*code.name, code.owner)).collect();
        let expected = [
            (0xffff_ffff_c020_0000, "ftrace_trampoline", "__builtin__ftrace"),
            (0xffff_ffff_c010_0000, "bpf_prog_0123", "bpf"),
        ];
        assert_eq!(rows, expected);
    }
}

#[test]
fn a_kernel_without_types_has_names_and_says_what_it_lacks() {
    let linux = Linux::new(Shape { typed: false, ..Shape::PLAIN });
    let look = look(&linux);
    let kernel = Kernel::find(&look, linux.cr3).unwrap();
    assert_eq!(kernel.symbols().len(), linux.symbols.len());
    assert_eq!(kernel.knows_its_structures(), Err(&LayoutError::NoBtf));
    let error = kernel.tasks(&look).unwrap_err().to_string();
    assert!(error.contains("no type information in memory (BTF"), "{error}");
}

#[test]
fn what_is_not_linux_is_not_taken_for_it() {
    let mut linux = Linux::new(Shape::PLAIN);
    let elsewhere = Kernel::find(&look(&linux), 0x3f_f000).unwrap_err();
    assert_eq!(elsewhere, KernelError::NotLinux(0x3f_f000));
    // The banner is there, but its symbol is elsewhere.
    let banner = linux.ram.bytes().windows(14).position(|text| text == b"Linux version ").unwrap();
    linux.ram.bytes().copy_within(banner..banner + 80, banner + 0x100);
    linux.ram.bytes()[banner..banner + 14].fill(b'x');
    let error = Kernel::find(&look(&linux), linux.cr3).unwrap_err();
    assert!(
        matches!(&error, KernelError::NoSymbols { banner } if banner.contains("6.12.0-made-up")),
        "{error}"
    );
    linux.ram.bytes()[banner + 0x100..banner + 0x10e].fill(b'x');
    assert_eq!(Kernel::find(&look(&linux), linux.cr3).unwrap_err(), KernelError::NoBanner);
}

#[test]
fn another_kernel_in_its_place_is_noticed() {
    let mut linux = Linux::new(Shape::PLAIN);
    let kernel = Kernel::find(&look(&linux), linux.cr3).unwrap();
    assert!(kernel.still_runs(&look(&linux)).unwrap());
    let banner = linux.ram.bytes().windows(14).position(|text| text == b"Linux version ").unwrap();
    linux.ram.bytes()[banner + 14] = b'7';
    assert!(!kernel.still_runs(&look(&linux)).unwrap());
    assert!(!kernel.still_runs(&look(&Linux::new(Shape { slide: 0x500_0000, ..Shape::PLAIN }))).unwrap());
}
