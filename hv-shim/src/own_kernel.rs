//! The kernel that this program runs on: dom0's, or the host's.

use std::{cell::OnceCell, fs, sync::Arc};

use crate::ShimError;

/// Its list of symbols, read once: making it costs the kernel as much as reading costs us.
#[derive(Default)]
pub(crate) struct OwnKernel(OnceCell<Arc<str>>);

impl OwnKernel {
    /// The text of `/proc/kallsyms`, in which addresses may be hidden from this user (zeros).
    pub(crate) fn symbols(&self) -> Result<Arc<str>, ShimError> {
        if let Some(text) = self.0.get() {
            return Ok(text.clone());
        }
        let text = fs::read_to_string("/proc/kallsyms").map_err(ShimError::io("reading /proc/kallsyms"))?;
        Ok(self.0.get_or_init(|| text.into()).clone())
    }
}
