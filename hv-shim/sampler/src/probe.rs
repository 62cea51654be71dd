//! Where the running hypervisor keeps what a sample needs.
//!
//! Nothing of this is promised by Xen, and builds differ. Each offset is found by what must hold for it on this
//! very machine, and each finding is checked in a second way where there is one; on any doubt the probe refuses and
//! says why, before anything has been changed.

use abi::record::Mode;

use crate::Machine;

/// The addresses of the hypervisor's symbols that the probe starts from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Symbols {
    /// `idle_vcpu`: an array of a pointer to each CPU's idle vCPU.
    pub idle_vcpu: u64,
    /// `cpu_online_map`: a bit a CPU.
    pub cpu_online_map: u64,
    /// `cpu_present_map`: a bit a CPU, set for those too that are offline for now.
    pub cpu_present_map: u64,
    /// `__per_cpu_offset`: an array of each CPU's offset to its own data.
    pub per_cpu_offset: u64,
    /// `per_cpu__curr_vcpu`: each CPU's vCPU whose state is loaded.
    pub curr_vcpu: u64,
    /// `dom_xen`: a pointer to the domain that owns Xen's own shared pages.
    pub dom_xen: u64,
    /// `hardware_domain`: a pointer to dom0.
    pub hardware_domain: u64,
    /// `toggle_guest_mode`: the function that moves a PV vCPU between its kernel and its processes.
    pub toggle_guest_mode: u64,
    /// `svm_asm_do_resume`, 0 where there is no AMD support.
    pub svm_asm_do_resume: u64,
    /// `svm_stgi_label`: behind the instruction at which interrupts of AMD guests are taken; 0 where it is gone.
    pub svm_stgi_label: u64,
    /// `vmx_asm_vmexit_handler`, 0 where there is no Intel support.
    pub vmx_asm_vmexit_handler: u64,
    /// `direct_apic_vector`: an array of the handlers of the local APIC's own interrupts.
    pub direct_apic_vector: u64,
    /// `apic_timer_interrupt`: the handler of the local APIC's timer.
    pub apic_timer_interrupt: u64,
    /// `softirq_handlers`: an array of functions.
    pub softirq_handlers: u64,
    /// `timer_softirq_action`: the first of them.
    pub timer_softirq_action: u64,
    /// The code whose calls are looked for: see [`Layout::code`].
    pub code: [CodeRange; 2],
}

/// A range of code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeRange {
    /// Its first byte.
    pub start: u64,
    /// Behind its last.
    pub end: u64,
}

impl CodeRange {
    /// Whether an address lies in it.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end
    }
}

/// What is needed to read AMD's guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Svm {
    /// The address that an interrupt's frame holds when the interrupt ended a guest's run.
    pub stgi: u64,
    /// `vcpu.arch.hvm.svm.vmcb`.
    pub vcpu_vmcb: u64,
}

/// Where the running hypervisor keeps what a sample needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `vcpu.domain`.
    pub vcpu_domain: u64,
    /// From the end of a stack down to `cpu_info.current_vcpu`.
    pub current_below_top: u64,
    /// From the end of a stack down to `cpu_info.guest_cpu_user_regs`.
    pub frame_below_top: u64,
    /// `vcpu.arch.flags`, whose bit 0 (`TF_kernel_mode`) says that a PV vCPU is in its kernel.
    pub vcpu_flags: Option<u64>,
    /// None where this Xen has no AMD support.
    pub svm: Option<Svm>,
    /// The exit handler of Intel's guests; empty where this Xen has no Intel support.
    pub vmx_exit: CodeRange,
    /// The local APIC timer's place in `direct_apic_vector`.
    pub timer_vector: u64,
    /// Code whose calls are looked for on the hypervisor's stack: its own, and the shim's. Empty where that is not known.
    pub code: [CodeRange; 2],
}

impl Svm {
    /// A vCPU's VMCB, if it is an AMD guest's: the field behind the pointer has the same page's machine address.
    pub fn vmcb<M: Machine>(&self, machine: &M, vcpu: u64) -> Option<u64> {
        let (vmcb, physical) = (machine.read(vcpu + self.vcpu_vmcb), machine.read(vcpu + self.vcpu_vmcb + 8));
        (DIRECT_MAP.contains(&vmcb) && machine.direct_map(physical) == Some(vmcb)).then_some(vmcb)
    }
}

impl Layout {
    /// The mode of a paravirtualized vCPU that left its code at this address.
    #[inline(always)]
    pub(crate) fn pv_mode<M: Machine>(&self, machine: &M, vcpu: u64, instruction_pointer: u64) -> Mode {
        let kernel = match self.vcpu_flags {
            Some(offset) => machine.read(vcpu + offset) & 1 == 1,
            None => instruction_pointer >> 63 == 1,
        };
        if kernel { Mode::Kernel } else { Mode::User }
    }
}

/// Why a hypervisor is refused. The words are for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `vcpu.domain` was not found.
    VcpuDomain,
    /// The idle vCPUs are not what they must be.
    IdleVcpu,
    /// `struct domain` does not begin with the domain's number.
    Domain,
    /// `struct cpu_info` was not found at the end of the stack.
    CpuInfo,
    /// The local APIC timer's interrupt has no handler in the table, or more than one.
    TimerVector,
    /// The first softirq is not the timers'.
    TimerSoftirq,
    /// The address of the VMCB was not found in the code that resumes AMD's guests.
    Vmcb,
    /// More CPUs than this build of the shim has room for.
    TooManyCpus,
    /// `struct page_info` is not what it must be, or the hypervisor's memory is mapped in an unknown way.
    PageInfo,
    /// No memory for the rings.
    NoMemory,
    /// The settings are not this version's.
    Config,
}

impl Refusal {
    /// What does not fit, as a phrase.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::VcpuDomain => "the field vcpu.domain was not found",
            Self::IdleVcpu => "the idle vCPUs do not look as expected",
            Self::Domain => "struct domain does not look as expected",
            Self::CpuInfo => "struct cpu_info was not found at the end of the stack",
            Self::TimerVector => "the local APIC timer's interrupt vector was not found",
            Self::TimerSoftirq => "the timer softirq's handler was not found",
            Self::Vmcb => "the VMCB's place was not found in svm_asm_do_resume",
            Self::TooManyCpus => "the machine has more CPUs than this build has room for",
            Self::PageInfo => "struct page_info does not look as expected",
            Self::NoMemory => "the hypervisor has no free memory for the rings",
            Self::Config => "its settings are of another version or out of range",
        }
    }
}

/// Where Xen's heap lies in its address space (asm-x86/config.h): all of its direct map.
pub const DIRECT_MAP: core::ops::Range<u64> = 0xffff_8300_0000_0000..0xffff_8880_0000_0000;

/// The numbers of special domains (public/xen.h).
const DOMID_XEN: u16 = 0x7ff2;
const DOMID_IDLE: u16 = 0x7fff;

/// `sizeof(struct cpu_user_regs)`.
const FRAME_SIZE: u64 = 200;

/// How far the probe looks for the end of a function whose size is not known.
const LONGEST_FUNCTION: u64 = 0x300;

/// Whether a CPU is online.
pub fn is_online<M: Machine>(machine: &M, symbols: &Symbols, cpu: u64) -> bool {
    is_in(machine, symbols.cpu_online_map, cpu)
}

/// Whether a CPU is there, be it online or not.
pub fn is_present<M: Machine>(machine: &M, symbols: &Symbols, cpu: u64) -> bool {
    is_in(machine, symbols.cpu_present_map, cpu)
}

fn is_in<M: Machine>(machine: &M, map: u64, cpu: u64) -> bool {
    machine.read(map + cpu / 64 * 8) >> (cpu % 64) & 1 == 1
}

/// Finds the layout. `stack_top` is the end of the stack that this runs on, `cpus` how many CPUs to look at.
pub fn layout<M: Machine>(
    machine: &M,
    symbols: &Symbols,
    stack_top: u64,
    cpus: u64,
) -> Result<Layout, Refusal> {
    let vcpu_domain = vcpu_domain(machine, symbols, cpus)?;
    check_idle_vcpus(machine, symbols, vcpu_domain, cpus)?;
    let domain_of = |symbol| machine.read16(machine.read(symbol));
    if domain_of(symbols.dom_xen) != DOMID_XEN || domain_of(symbols.hardware_domain) != 0 {
        return Err(Refusal::Domain);
    }
    let current_below_top = current_below_top(machine, symbols, stack_top, cpus)?;
    if machine.read(symbols.softirq_handlers) != symbols.timer_softirq_action {
        return Err(Refusal::TimerSoftirq);
    }
    Ok(Layout {
        vcpu_domain,
        current_below_top,
        // cpu_info: guest_cpu_user_regs, processor_id u32, verw_sel u32, current_vcpu …
        frame_below_top: current_below_top + 8 + FRAME_SIZE,
        vcpu_flags: vcpu_flags(machine, symbols, cpus),
        svm: svm(machine, symbols)?,
        vmx_exit: match symbols.vmx_asm_vmexit_handler {
            0 => CodeRange::default(),
            start => CodeRange { start, end: start + LONGEST_FUNCTION },
        },
        timer_vector: timer_vector(machine, symbols)?,
        code: symbols.code,
    })
}

fn idle_vcpu<M: Machine>(machine: &M, symbols: &Symbols, cpu: u64) -> u64 {
    machine.read(symbols.idle_vcpu + cpu * 8)
}

/// `vcpu.domain` is the first pointer into the heap that all idle vCPUs share and that leads to the idle domain.
fn vcpu_domain<M: Machine>(machine: &M, symbols: &Symbols, cpus: u64) -> Result<u64, Refusal> {
    let first = idle_vcpu(machine, symbols, 0);
    (8..0x80)
        .step_by(8)
        .find(|&offset| {
            let pointer = machine.read(first + offset);
            pointer.is_multiple_of(16)
                && DIRECT_MAP.contains(&pointer)
                && machine.read16(pointer) == DOMID_IDLE
                && (1..cpus)
                    .filter(|&cpu| is_online(machine, symbols, cpu))
                    .all(|cpu| machine.read(idle_vcpu(machine, symbols, cpu) + offset) == pointer)
        })
        .ok_or(Refusal::VcpuDomain)
}

/// `struct vcpu` begins with `vcpu_id` and `processor`; an idle vCPU's are both its CPU's number.
fn check_idle_vcpus<M: Machine>(
    machine: &M,
    symbols: &Symbols,
    vcpu_domain: u64,
    cpus: u64,
) -> Result<(), Refusal> {
    let fits = |cpu| {
        let vcpu = idle_vcpu(machine, symbols, cpu);
        machine.read(vcpu) == cpu | cpu << 32
            && machine.read16(machine.read(vcpu + vcpu_domain)) == DOMID_IDLE
    };
    let mut online = (0..cpus).filter(|&cpu| is_online(machine, symbols, cpu));
    if online.all(fits) { Ok(()) } else { Err(Refusal::IdleVcpu) }
}

/// `struct cpu_info` ends every stack. Its fields processor_id, current_vcpu and per_cpu_offset are known from
/// elsewhere: look for all three in a row.
fn current_below_top<M: Machine>(
    machine: &M,
    symbols: &Symbols,
    stack_top: u64,
    cpus: u64,
) -> Result<u64, Refusal> {
    (16..0x180)
        .step_by(8)
        .find(|&below| {
            let at = stack_top - below;
            let cpu = u64::from(machine.read32(at - 8));
            cpu < cpus && is_online(machine, symbols, cpu) && {
                let offset = machine.read(symbols.per_cpu_offset + cpu * 8);
                machine.read(at + 8) == offset
                    && machine.read(at) == machine.read(symbols.curr_vcpu.wrapping_add(offset))
            }
        })
        .ok_or(Refusal::CpuInfo)
}

/// `vcpu.arch.flags` is what toggle_guest_mode tests bit 0 of: `testb $1, disp32(register)`. Every vCPU is created
/// with that bit alone set, and idle ones keep it.
fn vcpu_flags<M: Machine>(machine: &M, symbols: &Symbols, cpus: u64) -> Option<u64> {
    let start = symbols.toggle_guest_mode;
    let test = (start..start + 0x80).find(|&at| {
        let code = machine.read(at);
        // F6 /0 ib with a 32-bit displacement from any register but rsp (which takes one more byte).
        code & 0xff == 0xf6 && code >> 8 & 0xf8 == 0x80 && code >> 8 & 7 != 4 && code >> 48 & 0xff == 1
    })?;
    let offset = u64::from(machine.read32(test + 2));
    let holds = |cpu| machine.read(idle_vcpu(machine, symbols, cpu) + offset) == 1;
    let mut online = (0..cpus).filter(|&cpu| is_online(machine, symbols, cpu));
    (offset < 0x1000 && online.all(holds)).then_some(offset)
}

/// `vcpu.arch.hvm.svm.vmcb` is the word before `vmcb_pa`. VMRUN takes that in rax: it is what the last
/// `mov disp32(%rbx),%rax` before it loads.
fn svm<M: Machine>(machine: &M, symbols: &Symbols) -> Result<Option<Svm>, Refusal> {
    let (start, stgi) = (symbols.svm_asm_do_resume, symbols.svm_stgi_label);
    if start == 0 || stgi == 0 {
        return Ok(None);
    }
    if stgi <= start || stgi - start > LONGEST_FUNCTION {
        return Err(Refusal::Vmcb);
    }
    let three_bytes = |at| machine.read(at) & 0xff_ffff;
    let vmrun = (start..stgi).find(|&at| three_bytes(at) == 0xd8_010f).ok_or(Refusal::Vmcb)?;
    let load = (start..vmrun).rfind(|&at| three_bytes(at) == 0x83_8b48).ok_or(Refusal::Vmcb)?;
    Ok(Some(Svm { stgi, vcpu_vmcb: u64::from(machine.read32(load + 3)).wrapping_sub(8) }))
}

fn timer_vector<M: Machine>(machine: &M, symbols: &Symbols) -> Result<u64, Refusal> {
    let handler = |vector| machine.read(symbols.direct_apic_vector + vector * 8);
    let mut vectors = (0..256).filter(|&vector| handler(vector) == symbols.apic_timer_interrupt);
    match (vectors.next(), vectors.next()) {
        (Some(vector), None) => Ok(vector),
        _ => Err(Refusal::TimerVector),
    }
}
