//! Which task a CPU runs.

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    kernel::Kernel,
    look::{GuestAddress, Look},
    tasks::Task,
};

/// Where among the variables of a CPU its current task is noted, if that is no variable by itself: from Linux 6.2 to 6.14.
#[derive(Debug)]
pub(crate) struct CurrentLayout {
    in_hot_variables: Result<u64, LayoutError>,
}

impl CurrentLayout {
    pub(crate) fn of(btf: &Btf) -> Self {
        Self { in_hot_variables: btf.offset("pcpu_hot", "current_task") }
    }
}

impl Kernel {
    /// The task that a CPU runs, which is counted as the guest's kernel counts.
    ///
    /// This is whom a sample in the kernel belongs to: page tables do not tell there. It holds for a CPU that stands
    /// still, or whose task is known not to have changed since.
    pub fn current_task(&self, look: &Look<'_>, cpu: u32) -> Result<Task, GuestError> {
        let space = self.space(look, "the current task of a CPU");
        let layout = &self.layouts.as_ref().map_err(Clone::clone)?.current;
        let place = match (self.places.current_task, self.places.hot_variables, &layout.in_hot_variables) {
            (Some(variable), ..) => variable,
            (None, Some(variables), Ok(offset)) => variables.plus(*offset),
            _ => return Err(GuestError::NoSymbol("current_task")),
        };
        let offsets = self.places.cpu_offsets.ok_or(GuestError::NoSymbol("__per_cpu_offset"))?;
        let offset = space.u64(offsets.plus(8 * u64::from(cpu)))?;
        let structure = space.pointer(place.plus(offset))?;
        self.task_at(look, structure)
    }
}
