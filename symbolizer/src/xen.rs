//! The symbols that a running Xen gives of itself, and others that come as rows.

use crate::{
    ParseError, SymbolTable,
    listing::{self, Listed},
};

impl SymbolTable {
    /// Takes the answers of `XENPF_get_symbol`: address, the letter that `nm` would print, name; and the livepatch
    /// that the symbol is of, if it is not of Xen's own image.
    ///
    /// Xen tells its static functions apart by the file that they are in, `arch/x86/irq.c#do_IRQ`. The address does
    /// that here, so the function alone is kept.
    pub fn from_xen<'a>(
        symbols: impl IntoIterator<Item = (u64, char, &'a str, Option<&'a str>), IntoIter: Clone>,
    ) -> Result<Self, ParseError> {
        let function = |name: &'a str| name.rsplit_once('#').map_or(name, |(_, function)| function);
        Self::from_rows(
            symbols.into_iter().map(|(address, kind, name, patch)| (address, kind, function(name), patch)),
        )
    }

    /// Takes the symbols of a kernel: address, the letter that `nm` would print, name, and the loadable module if it is
    /// of one.
    pub fn from_rows<'a>(
        symbols: impl IntoIterator<Item = (u64, char, &'a str, Option<&'a str>), IntoIter: Clone>,
    ) -> Result<Self, ParseError> {
        let listed = |(address, kind, name, module)| Listed {
            address,
            kind: u8::try_from(kind).unwrap_or(b'?'),
            name,
            module,
        };
        listing::table(symbols.into_iter().map(listed))
    }
}
