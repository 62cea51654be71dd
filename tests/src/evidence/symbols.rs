//! Which functions there are, from those who know: kernels, Xen, programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use object::{Object, ObjectSymbol, SymbolKind};

/// The names in a list of `address kind name`, as /proc/kallsyms and /proc/xen/xensyms are.
pub fn listed(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    // Xen puts the file before what is static.
    names.map(|name| name.rsplit('#').next().unwrap_or(name).to_owned()).collect()
}

/// Where a list as /proc/kallsyms has each name: several, where files have functions of one name.
pub fn places(text: &str) -> BTreeMap<&str, Vec<u64>> {
    let mut places = BTreeMap::<_, Vec<u64>>::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[address, _, name] = &*words else { continue };
        places.entry(name).or_default().push(u64::from_str_radix(address, 16).unwrap());
    }
    places
}

/// Where lines as /proc/kallsyms has them, `address kind name [module]`, have each module's symbols.
pub fn places_in_modules<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> BTreeMap<&'a str, BTreeSet<(u64, &'a str)>> {
    let mut places = BTreeMap::<_, BTreeSet<_>>::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[address, _, name, module] = &*words else { panic!("not a module's symbol: {line}") };
        let module = module.trim_matches(['[', ']']);
        places.entry(module).or_default().insert((u64::from_str_radix(address, 16).unwrap(), name));
    }
    places
}

/// The functions of an ELF file where it is linked to run.
pub struct Functions {
    /// All symbols, by their names as they are shown.
    starts: BTreeMap<String, BTreeSet<u64>>,
    /// The end of each function, and its name.
    ends: BTreeMap<u64, (u64, String)>,
}

impl Functions {
    /// Those that a file has symbols for, dynamic ones included.
    pub fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = object::File::parse(&*bytes).unwrap();
        let mut functions = Self { starts: BTreeMap::new(), ends: BTreeMap::new() };
        for symbol in file.symbols().chain(file.dynamic_symbols()).filter(|symbol| !symbol.is_undefined()) {
            let name = symbolizer::demangle(symbol.name().unwrap()).into_owned();
            if symbol.kind() == SymbolKind::Text && symbol.size() > 0 {
                functions.ends.insert(symbol.address(), (symbol.address() + symbol.size(), name.clone()));
            }
            functions.starts.entry(name).or_default().insert(symbol.address());
        }
        functions
    }

    /// Their names as they are shown.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.starts.keys().map(String::as_str)
    }

    /// Where functions of a name begin.
    pub fn starts(&self, name: &str) -> impl Iterator<Item = u64> {
        self.starts.get(name).into_iter().flatten().copied()
    }

    /// The function that has an address.
    pub fn at(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.ends.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }
}
