//! Lists of kernels and of Xen.

use std::fs;

use symbolizer::{ParseError, SymbolTable};

use crate::KALLSYMS;

fn name_at(table: &SymbolTable, address: u64) -> Option<&str> {
    table.lookup(address).map(|symbol| symbol.name)
}

fn kernel() -> SymbolTable {
    SymbolTable::from_kallsyms(KALLSYMS.as_bytes()).unwrap()
}

#[test]
fn functions_reach_up_to_the_next() {
    let kernel = kernel();
    assert_eq!(name_at(&kernel, 0xffffffff821f8540), Some("__schedule"));
    assert_eq!(name_at(&kernel, 0xffffffff821f948f), Some("__schedule"));
    assert_eq!(name_at(&kernel, 0xffffffff821f9490), Some("__pfx_schedule"));
    assert_eq!(kernel.lookup(0xffffffff821f9000).unwrap().start, 0xffffffff821f8540);
}

#[test]
fn one_of_several_names_is_that_of_the_kernel() {
    let kernel = kernel();
    // Each is the first in the kernel's order; by their letters the second would win.
    assert_eq!(name_at(&kernel, 0xffffffff81356ca0), Some("__do_sys_fork"));
    assert_eq!(name_at(&kernel, 0xffffffff821f84a0), Some("__pfx_io_schedule_timeout"));
    // A System.map has no such order.
    let map =
        "ffffffff81000000 T __sched_text_start\nffffffff81000000 t __schedule\nffffffff81000100 T _etext\n";
    let map = SymbolTable::from_kallsyms(map.as_bytes()).unwrap();
    assert_eq!(name_at(&map, 0xffffffff81000080), Some("__schedule"));
}

#[test]
fn gaps_have_no_names() {
    let kernel = kernel();
    let last_of_text = "__SCT__tp_func_ma_write";
    assert_eq!(name_at(&kernel, 0xffffffff82209987), Some(last_of_text));
    // From _etext to read-only data, to the initialization code, to the first module, and below and above all.
    for address in
        [0xffffffff82209988, 0xffffffff82400000, 0xffffffff83500000, 0xffffffffa0000000, 0, u64::MAX]
    {
        assert_eq!(name_at(&kernel, address), None, "{address:#x}");
    }
    assert_eq!(kernel.extent(), 0xffffffff81000000..0xffffffff837f8910);
}

#[test]
fn without_end_marks_the_last_function_keeps_to_its_page_and_the_next() {
    let list = "ffffffff81000800 T last\nffffffffc0000000 t first\t[module]\n";
    let table = SymbolTable::from_kallsyms(list.as_bytes()).unwrap();
    assert_eq!(name_at(&table, 0xffffffff81001fff), Some("last"));
    assert_eq!(name_at(&table, 0xffffffff81002000), None);
    assert_eq!(name_at(&table, 0xffffffffbfffffff), None);
    assert_eq!(name_at(&table, 0xffffffffc0000000), Some("first"));
}

#[test]
fn modules_are_told_apart() {
    let kernel = kernel();
    let symbol = kernel.lookup(0xffffffffc0a31021).unwrap();
    assert_eq!((symbol.name, symbol.module), ("nf_tables_getset", Some("nf_tables")));
    let symbol = kernel.lookup(0xffffffffc0b00000).unwrap();
    assert_eq!((symbol.name, symbol.module), ("virtnet_poll", Some("virtio_net")));
    assert_eq!(kernel.lookup(0xffffffff81356ca0).unwrap().module, None);
    // Between the code of one module and its data, and that of the next.
    assert_eq!(name_at(&kernel, 0xffffffffc0a40000), None);
    assert_eq!(name_at(&kernel, 0xffffffffc0a41000), None);
}

#[test]
fn data_and_values_are_not_functions() {
    let list = "0000000000000000 A fixed_percpu_data\n0000000000001000 A text_like_value\n\
                1000 T f\n1800 d table\n1900 T g\n";
    let table = SymbolTable::from_kallsyms(list.as_bytes()).unwrap();
    assert_eq!(table.len(), 2);
    assert_eq!(name_at(&table, 0x1000), Some("f"));
    assert_eq!(name_at(&table, 0x1800), None);
    assert_eq!(name_at(&table, 0x1900), Some("g"));
}

#[test]
fn what_is_wrong_is_said() {
    let parse = |text: &str| SymbolTable::from_kallsyms(text.as_bytes()).unwrap_err();
    assert_eq!(
        parse("0000000000000000 T _text\n0000000000000000 t f\t[m]\n0 D data\n"),
        ParseError::HiddenAddresses
    );
    assert_eq!(
        parse("ffffffffffffffff B The real System.map is in the linux-image-6.1.0-13-amd64-dbg package\n"),
        ParseError::PlaceholderMap
    );
    assert_eq!(parse("ffffffff81000000 D jiffies\n"), ParseError::NoSymbols);
    assert_eq!(parse("\nffffffff81000000 T f\n\nffffffff8100"), ParseError::BadLine(4));
    assert_eq!(parse("ffffffff81000000 T f\nffffffff81000010 T g m\n"), ParseError::BadLine(2));
    for foreign in ["", "\n", "#!/bin/sh\n", "dead beef cafe\n", "+1 T f\n", "10000000000000000 T f\n"] {
        assert_eq!(parse(foreign), ParseError::ForeignFormat, "{foreign:?}");
    }
}

/// Where this machine lets its kernel's list be read, each address must get the name that the kernel itself prints:
/// the first that it lists.
#[test]
fn this_machines_kernel_agrees() {
    let Ok(text) = fs::read_to_string("/proc/kallsyms") else { return };
    let table = match SymbolTable::from_kallsyms(text.as_bytes()) {
        Err(problem) => return assert_eq!(problem, ParseError::HiddenAddresses),
        Ok(table) => table,
    };
    let mut previous = 0;
    for line in text.lines() {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let address = u64::from_str_radix(fields[0], 16).unwrap();
        let is_end_mark = matches!(fields[2], "_etext" | "_einittext");
        if matches!(fields[1], "t" | "T" | "w" | "W") && address != previous && !is_end_mark {
            assert_eq!(name_at(&table, address), Some(fields[2]), "{line}");
            previous = address;
        }
    }
}

#[test]
fn xens_names_lose_the_file() {
    let xen = SymbolTable::from_xen([
        (0xffff82d040200000, 'T', "_stext", None),
        (0xffff82d040200000, 'T', "_start", None),
        (0xffff82d0402032f0, 't', "arch/x86/irq.c#set_eoi_ready", None),
        (0xffff82d040203360, 'T', "do_IRQ", None),
        (0xffff82d040203a10, 't', "common/sched/credit2.c#csched2_schedule", None),
        (0xffff82d0403a4b99, 'T', "_etext", None),
        (0xffff82d0403b0000, 'R', "hvm_intblk", None),
        (0xffff82d0405d5f80, 'D', "arch/x86/irq.c#direct_apic_vector", None),
        (0xffff82d040a00000, 't', "patched", Some("fix")),
    ])
    .unwrap();
    assert_eq!(name_at(&xen, 0xffff82d0402032ff), Some("set_eoi_ready"));
    assert_eq!(name_at(&xen, 0xffff82d040203a0f), Some("do_IRQ"));
    assert_eq!(name_at(&xen, 0xffff82d040203a10), Some("csched2_schedule"));
    for nobodys in [0xffff82d0403a4b99, 0xffff82d0403b0000, 0xffff82d0405d5f80, 0xffff82d0401fffff] {
        assert_eq!(name_at(&xen, nobodys), None, "{nobodys:#x}");
    }
    let patched = xen.lookup(0xffff82d040a00010).unwrap();
    assert_eq!((patched.name, patched.module), ("patched", Some("fix")));
    assert_eq!(SymbolTable::from_xen([]).unwrap_err(), ParseError::NoSymbols);
}
