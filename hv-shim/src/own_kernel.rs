//! The kernel that this program runs on: dom0's, or the host's.

use std::{
    fs::File,
    io,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};

use crate::ShimError;

/// More than the lists of distributions' kernels take, so that the text is never moved while it grows.
const USUAL_SIZE: usize = 16 << 20;

/// Its list of symbols, read once, by whoever needs it first: making it costs the kernel as much as reading costs us.
#[derive(Clone, Debug, Default)]
pub struct OwnKernel(Arc<Mutex<Option<Arc<String>>>>);

impl OwnKernel {
    /// The text of `/proc/kallsyms`, in which addresses may be hidden from this user (zeros).
    pub fn symbols(&self) -> Result<Arc<String>, ShimError> {
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = &*read {
            return Ok(text.clone());
        }
        let text = Arc::new(read_list().map_err(ShimError::io("reading /proc/kallsyms"))?);
        Ok(read.insert(text).clone())
    }
}

fn read_list() -> io::Result<String> {
    let mut text = String::with_capacity(USUAL_SIZE);
    File::open("/proc/kallsyms")?.read_to_string(&mut text)?;
    Ok(text)
}
