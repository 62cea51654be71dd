//! The library that the kernel gives to every process (vDSO): an ELF file in the kernel's own image.

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    kernel::Kernel,
    look::{GuestAddress, Look},
};

/// It has one or two pages of code.
const MAX_LIBRARY: u64 = 64 << 10;

/// Where the kernel notes its library.
#[derive(Debug)]
pub(crate) struct VdsoLayout {
    data: u64,
    size: u64,
}

impl VdsoLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        Ok(Self { data: btf.offset("vdso_image", "data")?, size: btf.offset("vdso_image", "size")? })
    }
}

impl Kernel {
    /// The bytes of the ELF file that processes of 64 bits have mapped as `[vdso]`.
    ///
    /// They are read from the kernel: a process has only those pages of it that it has used.
    pub fn vdso(&self, look: &Look<'_>) -> Result<Vec<u8>, GuestError> {
        let layout = self.layout(|layouts| &layouts.vdso)?;
        let space = self.space(look, "the kernel's library for processes");
        let image = self.places.vdso.ok_or(GuestError::NoSymbol("vdso_image_64"))?;
        let size = space.u64(image.plus(layout.size))?;
        if size > MAX_LIBRARY {
            return Err(space.damaged("it is larger than 64 KiB"));
        }
        space.bytes(space.pointer(image.plus(layout.data))?, size as usize)
    }
}
