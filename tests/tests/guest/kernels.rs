//! Is the kernel found, and does it have the symbols that it says it has?

use std::time::Instant;

use guest::Kernel;

use crate::{machines, truth::Line};

/// How many lines differ; the first few are shown.
fn differing(found: &[Line], expected: &[&Line]) -> usize {
    let pairs =
        || found.iter().map(Some).chain(std::iter::repeat(None)).zip(expected.iter().copied().map(Some));
    let surplus = found.iter().skip(expected.len()).map(|line| (Some(line), None));
    let different: Vec<_> = pairs().chain(surplus).filter(|(found, expected)| found != expected).collect();
    different.iter().take(5).for_each(|(found, expected)| println!("found {found:?}, expected {expected:?}"));
    different.len()
}

/// For modules, the guest prints the letters of exported symbols in upper case, and all others in lower case.
fn without_case(mut line: Line) -> Line {
    line.kind.make_ascii_lowercase();
    line
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn every_sample_leads_to_the_kernel() {
    for machine in machines::all() {
        let mut samples = machine.snapshot.registers.clone();
        samples.sort_by_key(|sample| sample.cr3);
        samples.dedup_by_key(|sample| sample.cr3);
        let text = machine.truth.symbols.iter().find(|line| line.name == "_text").unwrap();
        for sample in &samples {
            let kernel = Kernel::find(&machine.look(), sample.cr3).unwrap();
            assert_eq!(kernel.base().unwrap().0, text.address, "{}: {sample:x?}", machine.name);
            assert_eq!(kernel.release(), machine.truth.release);
        }
        let kernel = machine.kernel(&machine.look());
        assert!(kernel.slide().unwrap() > 0, "{}: the kernel was not moved", machine.name);
        assert!(kernel.build_id().is_some());
        assert!(kernel.still_runs(&machine.look()).unwrap());
        machine.figure("roots of page tables that lead to the kernel", samples.len());
        machine.figure("slide", format_args!("{:#x}", kernel.slide().unwrap()));
    }
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn all_symbols_are_those_that_the_guest_lists() {
    for machine in machines::all() {
        let look = machine.look();
        let (work, memory) = (look.budget().work_left(), look.budget().memory_left());
        let start = Instant::now();
        let kernel = machine.kernel(&look);
        let time = start.elapsed();
        machine.figure("kernel found in", format_args!("{} ms, all read from a file", time.as_millis()));
        machine.figure("work", work - look.budget().work_left());
        machine.figure("memory in MiB", (memory - look.budget().memory_left()) >> 20);
        let line = |symbol: guest::Symbol<'_>, module: &str| Line {
            address: symbol.address.0,
            kind: symbol.kind,
            name: symbol.name.to_owned(),
            module: module.to_owned(),
        };
        let found: Vec<Line> = kernel.symbols().iter().map(|symbol| line(symbol, "")).collect();
        let own: Vec<&Line> = machine.truth.symbols.iter().filter(|line| line.module.is_empty()).collect();
        assert_eq!(differing(&found, &own), 0, "{}: symbols of the kernel differ", machine.name);
        machine.figure("symbols of the kernel, all equal", found.len());

        let modules = kernel.modules(&look).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| &*module.name).collect();
        assert_eq!(names, machine.truth.modules);
        let mut found = Vec::new();
        for module in &modules {
            let symbols = kernel.module_symbols(&look, module).unwrap();
            found.extend(symbols.iter().map(|symbol| without_case(line(symbol, &module.name))));
        }
        let is_module = |line: &&Line| machine.truth.modules.contains(&line.module);
        let expected: Vec<Line> =
            machine.truth.symbols.iter().filter(is_module).cloned().map(without_case).collect();
        assert_eq!(
            differing(&found, &expected.iter().collect::<Vec<_>>()),
            0,
            "{}: symbols of modules",
            machine.name
        );
        machine.figure("symbols of modules, all equal", format_args!("{} in {}", found.len(), modules.len()));

        let code = kernel.generated_code(&look).unwrap();
        let found: Vec<Line> = code
            .iter()
            .map(|code| Line {
                address: code.start.0,
                kind: 't',
                name: code.name.clone(),
                module: code.owner.into(),
            })
            .collect();
        let others: Vec<&Line> =
            machine.truth.symbols.iter().filter(|line| !line.module.is_empty() && !is_module(line)).collect();
        assert_eq!(differing(&found, &others), 0, "{}: generated code differs", machine.name);
        machine.figure("generated code, all equal", found.len());
    }
}
