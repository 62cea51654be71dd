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
pub(crate) mod frame {
    pub(crate) const RBP: u64 = 32;
    pub(crate) const RAX: u64 = 80;
    pub(crate) const RCX: u64 = 88;
    pub(crate) const RIP: u64 = 128;
    pub(crate) const RSP: u64 = 152;
}

/// Offsets in the VMCB's state save area (AMD64 Architecture Programmer's Manual, volume 2, table B-2).
pub(crate) mod vmcb {
    use abi::record::Mode;

    use crate::{Machine, walk::Paging};

    pub(super) const CPL: u64 = 0x4cb;
    pub(super) const CR3: u64 = 0x550;
    pub(crate) const RIP: u64 = 0x578;
    pub(crate) const RSP: u64 = 0x5d8;
    pub(crate) const RAX: u64 = 0x5f8;
    /// In the control area (table B-1): bit 0 switches nested paging on; its root.
    const NESTED_PAGING: u64 = 0x90;
    const NESTED_ROOT: u64 = 0xb0;
    const EFER: u64 = 0x4d0;
    const CR4: u64 = 0x548;
    const CR0: u64 = 0x558;

    pub(crate) fn mode<M: Machine>(machine: &M, vmcb: u64) -> Mode {
        if machine.read(vmcb + CPL) & 0xff == 3 { Mode::User } else { Mode::Kernel }
    }

    /// The root of a guest's page tables of four levels, and how they are nested.
    pub(crate) fn paging<M: Machine>(machine: &M, vmcb: u64) -> Option<(u64, Paging)> {
        let read = |field| machine.read(vmcb + field);
        let is_nested = read(NESTED_PAGING) & 1 == 1;
        let four = super::has_four_levels(read(EFER), read(CR0), read(CR4));
        (is_nested && four).then(|| (read(CR3), Paging::Nested(read(NESTED_ROOT))))
    }
}

/// Fields of the VMCS (Intel Software Developer's Manual, volume 3, appendix B).
pub(crate) mod vmcs {
    use abi::record::Mode;

    use crate::{Machine, walk::Paging};

    const SS_ACCESS_RIGHTS: u64 = 0x4818;
    pub(super) const CR3: u64 = 0x6802;
    pub(crate) const RSP: u64 = 0x681c;
    pub(crate) const RIP: u64 = 0x681e;
    const NESTED_ROOT: u64 = 0x201a;
    /// Bit 31 switches the secondary controls on, whose bit 1 does nested paging.
    const CONTROLS: u64 = 0x4002;
    const SECONDARY_CONTROLS: u64 = 0x401e;
    const EFER: u64 = 0x2806;
    const CR0: u64 = 0x6800;
    const CR4: u64 = 0x6804;

    /// The privilege level is the stack segment's: bits 5 and 6 of its access rights.
    pub(crate) fn mode<M: Machine>(machine: &M) -> Mode {
        let rights = machine.vmread(SS_ACCESS_RIGHTS).unwrap_or(0);
        if rights >> 5 & 3 == 3 { Mode::User } else { Mode::Kernel }
    }

    /// The root of a guest's page tables of four levels, and how they are nested.
    pub(crate) fn paging<M: Machine>(machine: &M) -> Option<(u64, Paging)> {
        let read = |field| machine.vmread(field);
        let is_nested = read(CONTROLS)? >> 31 & 1 == 1 && read(SECONDARY_CONTROLS)? >> 1 & 1 == 1;
        if !is_nested || !super::has_four_levels(read(EFER)?, read(CR0)?, read(CR4)?) {
            return None;
        }
        Some((read(CR3)?, Paging::Nested(read(NESTED_ROOT)?)))
    }
}

/// Whether a guest translates addresses by page tables of four levels: in long mode (EFER.LMA), with paging (CR0.PG), and
/// not by five (CR4.LA57).
fn has_four_levels(efer: u64, cr0: u64, cr4: u64) -> bool {
    efer >> 10 & 1 == 1 && cr0 >> 31 & 1 == 1 && cr4 >> 12 & 1 == 0
}

/// `VCPU::vcpu_id` is the first field of `struct vcpu`, `domain_id` the first of `struct domain`.
const VCPU_ID: u64 = 0;
const DOMAIN_ID: u64 = 0;

/// The physical address bits of CR3: without PCID and control bits.
pub(crate) const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

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
    } else {
        // Xen's own code. What a paravirtualized vCPU had for a stack when it came here tells which thread of it did.
        sample.stack_pointer = machine.read(guest_frame + frame::RSP);
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
    sample.mode = layout.pv_mode(machine, vcpu, sample.instruction_pointer);
    // Xen runs on the page tables of the vCPU that it came from.
    sample.root = machine.cr3() & CR3_ADDRESS;
    sample.guest = Guest::Pv;
}

fn in_svm_guest<M: Machine>(machine: &M, vmcb: u64, sample: &mut Sample) {
    sample.mode = vmcb::mode(machine, vmcb);
    sample.instruction_pointer = machine.read(vmcb + vmcb::RIP);
    sample.stack_pointer = machine.read(vmcb + vmcb::RSP);
    sample.root = machine.read(vmcb + vmcb::CR3) & CR3_ADDRESS;
    sample.guest = Guest::Svm;
}

fn in_vmx_guest<M: Machine>(machine: &M, sample: &mut Sample) {
    sample.mode = vmcs::mode(machine);
    sample.root = machine.vmread(vmcs::CR3).unwrap_or(0) & CR3_ADDRESS;
    sample.guest = Guest::Vmx;
}
