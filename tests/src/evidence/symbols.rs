//! Which functions there are, from those who know: kernels, Xen, programs.

use std::{collections::BTreeSet, fs, path::Path};

use object::{Object, ObjectSymbol, SymbolKind};

/// The names in a list of `address kind name`, as /proc/kallsyms and /proc/xen/xensyms are.
pub fn listed(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    // Xen puts the file before what is static.
    names.map(|name| name.rsplit('#').next().unwrap_or(name).to_owned()).collect()
}

/// The functions of an ELF file.
pub fn of_program(path: &Path) -> BTreeSet<String> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = object::File::parse(&*bytes).unwrap();
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    functions.filter_map(|symbol| symbol.name().ok()).map(str::to_owned).collect()
}
