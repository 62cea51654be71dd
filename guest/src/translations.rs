//! Translations that were found before: most of what is read of a guest lies in few pages.

use profile::GuestVirtual;

use crate::{
    memory::GuestPhysical,
    page_tables::{PageTables, Translation},
};

const SLOTS: usize = 1024;
const PAGE: u64 = 4096;

/// The last translation of each of some pages. Those that would be in the same place replace each other.
pub(crate) struct Translations {
    slots: Vec<Option<Slot>>,
}

#[derive(Clone, Copy)]
struct Slot {
    tables: PageTables,
    /// The address of the page of 4 KiB that was asked for.
    page: u64,
    /// Where that begins. The page may be part of a larger one.
    translation: Translation,
}

impl Default for Translations {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS] }
    }
}

impl Translations {
    pub(crate) fn get(&self, tables: PageTables, address: GuestVirtual) -> Option<Translation> {
        let page = address.0 & !(PAGE - 1);
        let slot = self.slots[place(tables, page)]?;
        (slot.tables == tables && slot.page == page).then(|| {
            let address = slot.translation.address.plus(address.0 - page);
            Translation { address, ..slot.translation }
        })
    }

    pub(crate) fn put(&mut self, tables: PageTables, address: GuestVirtual, translation: Translation) {
        let page = address.0 & !(PAGE - 1);
        let start = GuestPhysical(translation.address.0 & !(PAGE - 1));
        let translation = Translation { address: start, ..translation };
        self.slots[place(tables, page)] = Some(Slot { tables, page, translation });
    }
}

fn place(tables: PageTables, page: u64) -> usize {
    let mixed = ((page / PAGE) ^ ((tables.root.0 / PAGE) << 5)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 54) as usize % SLOTS
}
