//! The hypercalls that are needed, typed. Numbers and layouts are those of Xen's public headers (`xen/include/public`:
//! xen.h, version.h, platform.h, sysctl.h).

use std::io;

use profile::{HypervisorVirtual, Uuid};

use super::privcmd::{Buffer, Privcmd};
use crate::{HypervisorSymbol, ShimError};

const HYPERVISOR_PLATFORM_OP: u64 = 7;
const HYPERVISOR_MULTICALL: u64 = 13;
const HYPERVISOR_XEN_VERSION: u64 = 17;
const HYPERVISOR_SYSCTL: u64 = 35;

const XENVER_VERSION: u64 = 0;
const XENVER_EXTRAVERSION: u64 = 1;
const XENVER_COMMANDLINE: u64 = 9;
const XENVER_BUILD_ID: u64 = 10;

const XENPF_INTERFACE_VERSION: u32 = 0x0300_0001;
const XENPF_GET_SYMBOL: u32 = 63;

pub(super) const SYSCTL_TBUF_OP: u32 = 2;
const SYSCTL_PHYSINFO: u32 = 3;
const SYSCTL_GETDOMAININFOLIST: u32 = 6;
const SYSCTL_GETCPUINFO: u32 = 8;
pub(super) const SYSCTL_LIVEPATCH_OP: u32 = 27;
const SYSCTL_GET_CPU_POLICY: u32 = 29;

/// `struct xen_sysctl` is a command, an interface version, and a union of this many bytes.
const SYSCTL_BYTES: usize = 8 + 128;
/// Where the union begins.
pub(super) const SYSCTL_UNION: usize = 8;

/// Interface versions that there have been or soon may be: Xen 4.13 has 0x12, 4.22 has 0x16.
const SYSCTL_VERSIONS: std::ops::Range<u32> = 0x12..0x30;

/// The most domains that are listed at once; more are asked for in turns.
const DOMAINS_AT_ONCE: usize = 256;

/// Which Xen runs.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) extra: String,
}

/// What `XEN_SYSCTL_getdomaininfolist` tells.
#[derive(Clone, Debug)]
pub(super) struct DomainInfo {
    pub(super) domid: u16,
    pub(super) flags: u32,
    pub(super) cpu_time_ns: u64,
    pub(super) max_vcpu_id: u32,
    pub(super) handle: Uuid,
    /// Which devices Xen emulates for it (`XEN_X86_EMU_*`).
    pub(super) emulation: u32,
}

impl DomainInfo {
    pub(super) const DYING: u32 = 1 << 0;
    pub(super) const HVM_GUEST: u32 = 1 << 1;
    pub(super) const SHUTDOWN: u32 = 1 << 2;
    const PAUSED: u32 = 1 << 3;
    /// Where the flags have the reason that the domain gave (xen/sched.h), and the one of a domain that is to be saved.
    pub(super) const REASON_SHIFT: u32 = 16;
    pub(super) const SUSPEND: u32 = 2;

    pub(super) fn is_alive(&self) -> bool {
        self.flags & Self::DYING == 0
    }

    /// Whether it has stopped so that it can be saved or moved.
    pub(super) fn is_suspended(&self) -> bool {
        self.flags & Self::SHUTDOWN != 0 && self.flags >> Self::REASON_SHIFT & 0xff == Self::SUSPEND
    }

    /// Whether it runs with the hardware's help: HVM or PVH.
    pub(super) fn is_hvm(&self) -> bool {
        self.flags & Self::HVM_GUEST != 0
    }

    /// Whether none of its vCPUs may run, whatever it would like.
    pub(super) fn is_stopped(&self) -> bool {
        self.flags & (Self::DYING | Self::SHUTDOWN | Self::PAUSED) != 0
    }

    /// What no two domains have in common.
    pub(super) fn identity(&self) -> (u16, Uuid) {
        (self.domid, self.handle)
    }

    pub(super) fn vcpus(&self) -> u32 {
        self.max_vcpu_id.wrapping_add(1)
    }
}

/// What CPUID says (`xen_cpuid_leaf_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuidLeaf {
    pub(super) leaf: u32,
    /// `u32::MAX` where there are none.
    pub(super) subleaf: u32,
    /// eax, ebx, ecx, edx.
    pub(super) registers: [u32; 4],
}

/// The calls, with what they need to know about each other.
pub(super) struct Hypercalls {
    pub(super) privcmd: Privcmd,
    version: Version,
    sysctl_version: u32,
}

impl Hypercalls {
    pub(super) fn new(privcmd: Privcmd) -> Result<Self, ShimError> {
        let io = |error| ShimError::Io { what: "asking Xen for its version".into(), error };
        let version = version(&privcmd).map_err(io)?;
        let sysctl_version = sysctl_version(&privcmd)?;
        Ok(Self { privcmd, version, sysctl_version })
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// The running hypervisor's build id.
    pub(super) fn build_id(&self) -> io::Result<Vec<u8>> {
        const MOST: usize = 64;
        let mut buffer = self.privcmd.buffer(4 + MOST)?;
        buffer.put_u32(0, MOST as u32);
        let length = self.privcmd.hypercall(HYPERVISOR_XEN_VERSION, &[XENVER_BUILD_ID, buffer.address()])?;
        Ok(buffer.bytes()[4..4 + (length as usize).min(MOST)].to_vec())
    }

    /// The hypervisor's symbol table, in its own order. It tells one symbol a call, so that many calls are made at once.
    pub(super) fn symbols(&self) -> io::Result<Vec<HypervisorSymbol>> {
        const AT_ONCE: usize = 128;
        /// `struct multicall_entry`: the operation, its result, six arguments.
        const CALL: usize = 64;
        const OP: usize = 136;
        const NAME: usize = 256;
        let mut calls = self.privcmd.buffer(AT_ONCE * CALL)?;
        let mut ops = self.privcmd.buffer(AT_ONCE * OP)?;
        let names = self.privcmd.buffer(AT_ONCE * NAME)?;
        let mut symbols = Vec::new();
        let mut first = 0;
        loop {
            for (slot, number) in (0..AT_ONCE).zip(first..) {
                let (call, op, name) = (slot * CALL, slot * OP, slot * NAME);
                ops.put_u32(op, XENPF_GET_SYMBOL);
                ops.put_u32(op + 4, XENPF_INTERFACE_VERSION);
                ops.put_u32(op + 8, NAME as u32 - 1);
                ops.put_u32(op + 12, number);
                ops.put_u64(op + 16, names.address() + name as u64);
                calls.put_u64(call, HYPERVISOR_PLATFORM_OP);
                calls.put_u64(call + 16, ops.address() + op as u64);
            }
            self.privcmd.hypercall(HYPERVISOR_MULTICALL, &[calls.address(), AT_ONCE as u64])?;
            for (slot, number) in (0..AT_ONCE).zip(first..) {
                let (op, result) = (slot * OP, calls.u64(slot * CALL + 8) as i64);
                if result < 0 {
                    return Err(io::Error::from_raw_os_error(-result as i32));
                }
                // Behind the last one it stays where it is; calls further on are refused.
                if ops.u32(op + 12) == number {
                    return Ok(symbols);
                }
                let text = &names.bytes()[slot * NAME..][..NAME];
                let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                symbols.push(HypervisorSymbol {
                    address: HypervisorVirtual(ops.u64(op + 24)),
                    kind: char::from(ops.bytes()[op + 32]),
                    name: String::from_utf8_lossy(text).into_owned(),
                    livepatch: None,
                });
            }
            first += AT_ONCE as u32;
        }
    }

    /// The options that Xen was booted with.
    pub(super) fn command_line(&self) -> io::Result<String> {
        let buffer = self.privcmd.buffer(1024)?;
        self.privcmd.hypercall(HYPERVISOR_XEN_VERSION, &[XENVER_COMMANDLINE, buffer.address()])?;
        let text = buffer.bytes().split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// What CPUID says on the hardware, whatever dom0 is shown.
    pub(super) fn cpuid(&self) -> io::Result<Vec<CpuidLeaf>> {
        const MOST: usize = 512;
        const BYTES: usize = 24;
        /// `XEN_SYSCTL_cpu_policy_raw`.
        const RAW: u32 = 0;
        let leaves = self.privcmd.buffer(MOST * BYTES)?;
        let mut op = self.sysctl_buffer(SYSCTL_GET_CPU_POLICY)?;
        op.put_u32(SYSCTL_UNION, RAW);
        op.put_u32(SYSCTL_UNION + 4, MOST as u32);
        op.put_u64(SYSCTL_UNION + 16, leaves.address());
        self.sysctl(&op)?;
        let count = (op.u32(SYSCTL_UNION + 4) as usize).min(MOST);
        let leaf = |at: usize| CpuidLeaf {
            leaf: leaves.u32(at),
            subleaf: leaves.u32(at + 4),
            registers: std::array::from_fn(|register| leaves.u32(at + 8 + 4 * register)),
        };
        Ok((0..count).map(|number| leaf(number * BYTES)).collect())
    }

    /// A buffer for a system control operation, to be filled in from [`SYSCTL_UNION`] on.
    pub(super) fn sysctl_buffer(&self, command: u32) -> io::Result<Buffer> {
        let mut op = self.privcmd.buffer(SYSCTL_BYTES)?;
        op.put_u32(0, command);
        op.put_u32(4, self.sysctl_version);
        Ok(op)
    }

    pub(super) fn sysctl(&self, op: &Buffer) -> io::Result<u64> {
        self.privcmd.hypercall(HYPERVISOR_SYSCTL, &[op.address()])
    }

    /// How many CPUs are online.
    pub(super) fn cpus(&self) -> io::Result<u32> {
        let op = self.sysctl_buffer(SYSCTL_PHYSINFO)?;
        self.sysctl(&op)?;
        Ok(op.u32(SYSCTL_UNION + 8))
    }

    /// The highest number that a CPU has, and how many kHz they are clocked at.
    pub(super) fn highest_cpu_and_khz(&self) -> io::Result<(u32, u32)> {
        let op = self.sysctl_buffer(SYSCTL_PHYSINFO)?;
        self.sysctl(&op)?;
        Ok((op.u32(SYSCTL_UNION + 12), op.u32(SYSCTL_UNION + 24)))
    }

    /// Nanoseconds that each CPU has idled since Xen booted.
    pub(super) fn idle_ns(&self) -> io::Result<Vec<u64>> {
        const MOST: usize = 4096;
        let info = self.privcmd.buffer(MOST * 8)?;
        let mut op = self.sysctl_buffer(SYSCTL_GETCPUINFO)?;
        op.put_u32(SYSCTL_UNION, MOST as u32);
        op.put_u64(SYSCTL_UNION + 8, info.address());
        self.sysctl(&op)?;
        let cpus = (op.u32(SYSCTL_UNION + 16) as usize).min(MOST);
        Ok((0..cpus).map(|cpu| info.u64(cpu * 8)).collect())
    }

    /// Every domain that there is.
    pub(super) fn domains(&self) -> io::Result<Vec<DomainInfo>> {
        let bytes = domain_info_bytes(&self.version);
        let info = self.privcmd.buffer(DOMAINS_AT_ONCE * bytes)?;
        let mut op = self.sysctl_buffer(SYSCTL_GETDOMAININFOLIST)?;
        let mut domains = Vec::new();
        let mut first = 0;
        loop {
            op.put_u16(SYSCTL_UNION, first);
            op.put_u32(SYSCTL_UNION + 4, DOMAINS_AT_ONCE as u32);
            op.put_u64(SYSCTL_UNION + 8, info.address());
            self.sysctl(&op)?;
            let count = (op.u32(SYSCTL_UNION + 16) as usize).min(DOMAINS_AT_ONCE);
            let page = info.bytes()[..count * bytes].chunks_exact(bytes).map(parse_domain_info);
            domains.extend(page);
            match domains.last() {
                Some(last) if count == DOMAINS_AT_ONCE => first = last.domid + 1,
                _ => return Ok(domains),
            }
        }
    }
}

fn version(privcmd: &Privcmd) -> io::Result<Version> {
    let number = privcmd.hypercall(HYPERVISOR_XEN_VERSION, &[XENVER_VERSION, 0])?;
    let extra = privcmd.buffer(16)?;
    privcmd.hypercall(HYPERVISOR_XEN_VERSION, &[XENVER_EXTRAVERSION, extra.address()])?;
    let text = extra.bytes().split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(Version {
        major: (number >> 16) as u32,
        minor: (number & 0xffff) as u32,
        extra: String::from_utf8_lossy(text).into_owned(),
    })
}

/// Xen answers a wrong interface version with EACCES, and so does it to whoever may not ask at all.
fn sysctl_version(privcmd: &Privcmd) -> Result<u32, ShimError> {
    let io = |error| ShimError::Io { what: "asking Xen for its control interface".into(), error };
    for version in SYSCTL_VERSIONS {
        let mut op = privcmd.buffer(SYSCTL_BYTES).map_err(io)?;
        op.put_u32(0, SYSCTL_PHYSINFO);
        op.put_u32(4, version);
        match privcmd.hypercall(HYPERVISOR_SYSCTL, &[op.address()]) {
            Ok(_) => return Ok(version),
            Err(error) => match error.raw_os_error() {
                Some(libc::EACCES) => {}
                Some(libc::EPERM) => return Err(ShimError::NotControlDomain),
                _ => return Err(io(error)),
            },
        }
    }
    Err(ShimError::UnknownInterface)
}

/// `struct xen_domctl_getdomaininfo` grew in 4.16 (gpaddr_bits).
fn domain_info_bytes(version: &Version) -> usize {
    if (version.major, version.minor) >= (4, 16) { 112 } else { 104 }
}

fn parse_domain_info(bytes: &[u8]) -> DomainInfo {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    DomainInfo {
        domid: u16::from_le_bytes([bytes[0], bytes[1]]),
        flags: u32_at(4),
        cpu_time_ns: u64::from_le_bytes(bytes[56..64].try_into().expect("eight bytes")),
        max_vcpu_id: u32_at(68),
        handle: Uuid(bytes[76..92].try_into().expect("sixteen bytes")),
        // The architecture's part is the last field: 8 bytes since gpaddr_bits stands before it.
        emulation: u32_at(if bytes.len() >= 112 { 104 } else { 96 }),
    }
}
