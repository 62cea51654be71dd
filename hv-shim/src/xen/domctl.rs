//! What can be asked of a domain's vCPUs (public/domctl.h; the registers' layout is that of public/arch-x86/xen.h).

use std::{io, sync::Arc};

use super::{hypercalls::Hypercalls, privcmd::Buffer};
use crate::ShimError;

const HYPERVISOR_DOMCTL: u64 = 36;

const GETVCPUCONTEXT: u32 = 13;
const GETVCPUINFO: u32 = 14;

/// `struct xen_domctl`: a command, an interface version, a domain, and a union.
const BYTES: usize = 16 + 128;
const UNION: usize = 16;

/// Interface versions that there have been or soon may be: Xen 4.13 has 0x12, 4.22 has 0x18.
const VERSIONS: std::ops::Range<u32> = 0x11..0x30;

/// `struct vcpu_guest_context` has 5,168 bytes.
const CONTEXT_BYTES: usize = 8192;

/// Asks about vCPUs.
pub(super) struct VcpuQueries {
    xen: Arc<Hypercalls>,
    op: Buffer,
    context: Buffer,
}

/// What `XEN_DOMCTL_getvcpuinfo` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VcpuInfo {
    /// Whether it was started, and not taken off line.
    pub(super) is_online: bool,
    /// Whether it waits for an event.
    pub(super) is_blocked: bool,
    /// Whether it runs now.
    pub(super) is_running: bool,
    pub(super) cpu_time_ns: u64,
    /// Where it runs, or ran last.
    pub(super) cpu: u32,
}

/// Of `XEN_DOMCTL_getvcpucontext`, what a sample needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VcpuContext {
    pub(super) instruction_pointer: u64,
    pub(super) is_user: bool,
    /// Physical address of the page tables in use.
    pub(super) root: u64,
}

impl VcpuQueries {
    /// Finds out which version of the interface this Xen has: a wrong one is answered with EACCES.
    pub(super) fn new(xen: Arc<Hypercalls>) -> Result<Self, ShimError> {
        let io = |error| ShimError::Io { what: "asking Xen for its interface to domains".into(), error };
        let (op, context) = (xen.privcmd.buffer(BYTES), xen.privcmd.buffer(CONTEXT_BYTES));
        let mut queries = Self { xen, op: op.map_err(io)?, context: context.map_err(io)? };
        for version in VERSIONS {
            queries.op.put_u32(4, version);
            match queries.info(0, 0) {
                Ok(_) => return Ok(queries),
                Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
                Err(error) => return Err(io(error)),
            }
        }
        Err(ShimError::UnknownInterface)
    }

    pub(super) fn info(&mut self, domain: u16, vcpu: u32) -> io::Result<VcpuInfo> {
        self.ask(GETVCPUINFO, domain, vcpu)?;
        Ok(VcpuInfo {
            is_online: self.op.bytes()[UNION + 4] != 0,
            is_blocked: self.op.bytes()[UNION + 5] != 0,
            is_running: self.op.bytes()[UNION + 6] != 0,
            cpu_time_ns: self.op.u64(UNION + 8),
            cpu: self.op.u32(UNION + 16),
        })
    }

    /// Its registers, for which it is paused. The vCPU that asks can't be read (EINVAL).
    pub(super) fn context(&mut self, domain: u16, vcpu: u32, is_hvm: bool) -> io::Result<VcpuContext> {
        self.read_context(domain, vcpu)?;
        Ok(VcpuContext::decode(self.context.bytes(), is_hvm))
    }

    fn read_context(&mut self, domain: u16, vcpu: u32) -> io::Result<()> {
        let address = self.context.address();
        self.op.put_u64(UNION + 8, address);
        self.ask(GETVCPUCONTEXT, domain, vcpu)
    }

    /// The page tables that its kernel has, in kernel mode if those are others. It is paused for the question.
    pub(super) fn kernel_root(&mut self, domain: u16, vcpu: u32) -> io::Result<u64> {
        self.read_context(domain, vcpu)?;
        Ok(VcpuContext::control(self.context.bytes(), 3))
    }

    fn ask(&mut self, command: u32, domain: u16, vcpu: u32) -> io::Result<()> {
        self.op.put_u32(0, command);
        self.op.put_u16(8, domain);
        self.op.put_u32(UNION, vcpu);
        self.xen.privcmd.hypercall(HYPERVISOR_DOMCTL, &[self.op.address()]).map(drop)
    }
}

impl VcpuContext {
    const FLAGS: usize = 512;
    const USER_REGS: usize = 520;
    const RIP: usize = Self::USER_REGS + 128;
    const CS: usize = Self::USER_REGS + 136;
    const CTRLREG: usize = 4984;

    /// Reads `struct vcpu_guest_context`.
    fn decode(bytes: &[u8], is_hvm: bool) -> Self {
        /// `VGCF_in_kernel`: a PV guest's kernel runs in ring 3 like its programs.
        const IN_KERNEL: u64 = 1 << 2;
        let word = |at| word(bytes, at);
        let control = |register| Self::control(bytes, register);
        let is_user = match is_hvm {
            true => word(Self::CS) & 3 == 3,
            false => word(Self::FLAGS) & IN_KERNEL == 0,
        };
        // PV guests have page tables of their own for user mode, and a register for them that no processor has.
        let user_root = Some(control(1)).filter(|&root| is_user && !is_hvm && root != 0);
        Self { instruction_pointer: word(Self::RIP), is_user, root: user_root.unwrap_or_else(|| control(3)) }
    }

    /// A control register.
    fn control(bytes: &[u8], register: usize) -> u64 {
        word(bytes, Self::CTRLREG + 8 * register)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(words: &[(usize, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 5168];
        for &(at, word) in words {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// As Xen 4.17 shows a PV guest: program and kernel both have an RPL of 3, the flags tell them apart.
    #[test]
    fn a_pv_guest_is_told_by_its_flags() {
        let registers = |flags| {
            context(&[(512, flags), (648, 0x1000_1234), (656, 0xe033), (4992, 0xaa000), (5008, 0xbb000)])
        };
        let user = VcpuContext::decode(&registers(0x119), false);
        let expected = VcpuContext { instruction_pointer: 0x1000_1234, is_user: true, root: 0xaa000 };
        assert_eq!(user, expected);
        let kernel = VcpuContext::decode(&registers(0x11d), false);
        assert_eq!((kernel.is_user, kernel.root), (false, 0xbb000));
    }

    #[test]
    fn any_other_guest_is_told_by_its_code_segment() {
        let registers = |cs| context(&[(512, 0x11), (648, 0x40_0000), (656, cs), (5008, 0x1_2345_6000)]);
        let user = VcpuContext::decode(&registers(0x33), true);
        let expected = VcpuContext { instruction_pointer: 0x40_0000, is_user: true, root: 0x1_2345_6000 };
        assert_eq!(user, expected);
        assert!(!VcpuContext::decode(&registers(0x10), true).is_user);
    }
}
