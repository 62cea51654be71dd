//! What a process has in memory, read through its own page tables.

use profile::GuestVirtual;

use crate::{error::GuestError, kernel::Kernel, look::Look, tasks::Task};

impl Kernel {
    /// Fills `bytes` with what a process has from `address` on. Pages that it has not touched, or that were swapped out,
    /// are not there.
    pub fn read_process(
        &self,
        look: &Look<'_>,
        task: &Task,
        address: GuestVirtual,
        bytes: &mut [u8],
    ) -> Result<(), GuestError> {
        let what = "the memory of a process";
        let tables = self.page_tables_of(task);
        let tables = tables.ok_or(GuestError::Damaged { what, why: "it has no page tables of its own" })?;
        look.space(tables, what).read(address, bytes)
    }
}
