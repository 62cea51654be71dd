//! The kernel that this program runs on: dom0's, or the host's.

use std::{cell::OnceCell, fs::File, io, io::Read, sync::Arc};

use crate::ShimError;

/// More than the lists of distributions' kernels take, so that the text is never moved while it grows.
const USUAL_SIZE: usize = 16 << 20;

/// Its list of symbols, read once: making it costs the kernel as much as reading costs us.
#[derive(Default)]
pub(crate) struct OwnKernel(OnceCell<Arc<String>>);

impl OwnKernel {
    /// The text of `/proc/kallsyms`, in which addresses may be hidden from this user (zeros).
    pub(crate) fn symbols(&self) -> Result<Arc<String>, ShimError> {
        if let Some(text) = self.0.get() {
            return Ok(text.clone());
        }
        let text = read().map_err(ShimError::io("reading /proc/kallsyms"))?;
        Ok(self.0.get_or_init(|| Arc::new(text)).clone())
    }
}

fn read() -> io::Result<String> {
    let mut text = String::with_capacity(USUAL_SIZE);
    File::open("/proc/kallsyms")?.read_to_string(&mut text)?;
    Ok(text)
}
