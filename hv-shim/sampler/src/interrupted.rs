//! What an interrupt interrupted: whose code, at which address, on whose behalf.
//!
//! | where the interrupt found the CPU | the registers are in |
//! |---|---|
//! | in a paravirtualized vCPU | the frame at the top of Xen's stack (`guest_cpu_user_regs`) |
//! | in Xen | the interrupt's own frame further down |
//! | in a hardware guest on AMD | the VMCB: the interrupt ends the guest's run and is taken only when Xen sets the global interrupt flag again, at a known instruction. The frame at the top of the stack then still holds what the guest had at its exit *before* |
//! | in a hardware guest on Intel | the frame at the top of the stack for rip and rsp, the VMCS for the rest: Xen's exit handler acknowledges the interrupt and calls its handler itself |

use abi::record::{DOMAIN_IDLE, Guest, Mode, SOURCE_TIMER, Sample};

use crate::{Machine, probe::Layout};

/// Offsets in `struct cpu_user_regs` (public/arch-x86/xen-x86_64.h), part of Xen's stable ABI.
mod frame {
    pub(super) const RIP: u64 = 128;
    pub(super) const RSP: u64 = 152;
}

/// Offsets in the VMCB's state save area (AMD64 Architecture Programmer's Manual, volume 2, table B-2).
mod vmcb {
    pub(super) const CPL: u64 = 0x4cb;
    pub(super) const CR3: u64 = 0x550;
    pub(super) const RIP: u64 = 0x578;
    pub(super) const RSP: u64 = 0x5d8;
}

/// Fields of the VMCS (Intel Software Developer's Manual, volume 3, appendix B).
mod vmcs {
    pub(super) const SS_ACCESS_RIGHTS: u64 = 0x4818;
    pub(super) const CR3: u64 = 0x6802;
}

/// `VCPU::vcpu_id` is the first field of `struct vcpu`, `domain_id` the first of `struct domain`.
const VCPU_ID: u64 = 0;
const DOMAIN_ID: u64 = 0;

/// The physical address bits of CR3: without PCID and control bits.
const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Reads what was interrupted. `regs` is the interrupt's frame and `stack_top` the end of the stack that it is on.
#[inline]
pub fn sample<M: Machine>(
    machine: &M,
    layout: &Layout,
    stack_top: u64,
    regs: u64,
    sequence: u64,
    time: u64,
    weight: u64,
) -> Sample {
    let vcpu = machine.read(stack_top - layout.current_below_top);
    let domain = machine.read(vcpu + layout.vcpu_domain);
    let mut sample = Sample {
        mode: Mode::Hypervisor,
        domain: machine.read16(domain + DOMAIN_ID),
        vcpu: machine.read16(vcpu + VCPU_ID),
        sequence,
        time,
        weight,
        instruction_pointer: machine.read(regs + frame::RIP),
        stack_pointer: machine.read(regs + frame::RSP),
        root: 0,
        event: 0,
        source: SOURCE_TIMER,
        guest: Guest::None,
    };
    if sample.domain == DOMAIN_IDLE {
        return sample;
    }
    let guest_frame = stack_top - layout.frame_below_top;
    if regs == guest_frame {
        // The return address just below the frame tells who called the interrupt's handler.
        if layout.vmx_exit.contains(machine.read(guest_frame - 8)) {
            in_vmx_guest(machine, &mut sample);
        } else {
            in_pv_guest(machine, layout, vcpu, &mut sample);
        }
    } else if let Some(svm) = &layout.svm
        && sample.instruction_pointer == svm.stgi
    {
        in_svm_guest(machine, machine.read(vcpu + svm.vcpu_vmcb), &mut sample);
    }
    sample
}

/// A sample that was overdue when its CPU went idle: charged to the vCPU that ran last, whose state the idle vCPU
/// leaves loaded (`curr_vcpu`). Where in its code the sample belongs is not known any more: `nowhere` is the address
/// that says so.
pub fn overdue<M: Machine>(
    machine: &M,
    layout: &Layout,
    curr_vcpu: u64,
    nowhere: u64,
    sequence: u64,
    time: u64,
    weight: u64,
) -> Sample {
    let domain = machine.read(curr_vcpu + layout.vcpu_domain);
    Sample {
        mode: Mode::Hypervisor,
        domain: machine.read16(domain + DOMAIN_ID),
        vcpu: machine.read16(curr_vcpu + VCPU_ID),
        sequence,
        time,
        weight,
        instruction_pointer: nowhere,
        stack_pointer: 0,
        root: 0,
        event: 0,
        source: SOURCE_TIMER,
        guest: Guest::None,
    }
}

fn in_pv_guest<M: Machine>(machine: &M, layout: &Layout, vcpu: u64, sample: &mut Sample) {
    let kernel = match layout.vcpu_flags {
        Some(offset) => machine.read(vcpu + offset) & 1 == 1,
        None => sample.instruction_pointer >> 63 == 1,
    };
    sample.mode = if kernel { Mode::Kernel } else { Mode::User };
    // Xen runs on the page tables of the vCPU that it came from.
    sample.root = machine.cr3() & CR3_ADDRESS;
    sample.guest = Guest::Pv;
}

fn in_svm_guest<M: Machine>(machine: &M, vmcb: u64, sample: &mut Sample) {
    let cpl = machine.read(vmcb + vmcb::CPL) & 0xff;
    sample.mode = if cpl == 3 { Mode::User } else { Mode::Kernel };
    sample.instruction_pointer = machine.read(vmcb + vmcb::RIP);
    sample.stack_pointer = machine.read(vmcb + vmcb::RSP);
    sample.root = machine.read(vmcb + vmcb::CR3) & CR3_ADDRESS;
    sample.guest = Guest::Svm;
}

fn in_vmx_guest<M: Machine>(machine: &M, sample: &mut Sample) {
    // The privilege level is the stack segment's: bits 5 and 6 of its access rights.
    let rights = machine.vmread(vmcs::SS_ACCESS_RIGHTS).unwrap_or(0);
    sample.mode = if rights >> 5 & 3 == 3 { Mode::User } else { Mode::Kernel };
    sample.root = machine.vmread(vmcs::CR3).unwrap_or(0) & CR3_ADDRESS;
    sample.guest = Guest::Vmx;
}
