//! The probe and the reading of interrupted vCPUs, on a Xen made by hand: a few words of memory.

use std::collections::HashMap;

use abi::record::{DOMAIN_IDLE, Guest, Mode};
use sampler::{
    Machine, interrupted,
    probe::{CodeRange, DIRECT_MAP, Layout, Refusal, Svm, Symbols, is_present, layout},
};

/// Memory in words, by address; what is not there reads as zero. Words may lie anywhere.
#[derive(Clone, Default)]
struct Xen {
    bytes: HashMap<u64, u8>,
    vmcs: HashMap<u64, u64>,
    cr3: u64,
}

impl Xen {
    fn put(&mut self, address: u64, bytes: &[u8]) {
        self.bytes.extend((address..).zip(bytes.iter().copied()));
    }

    fn word(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }
}

impl Machine for Xen {
    fn read(&self, address: u64) -> u64 {
        let byte = |i| self.bytes.get(&address.wrapping_add(i)).copied().unwrap_or(0);
        u64::from_le_bytes(std::array::from_fn(|i| byte(i as u64)))
    }

    fn cr3(&self) -> u64 {
        self.cr3
    }

    fn direct_map(&self, machine: u64) -> Option<u64> {
        Some(DIRECT_MAP.start + machine)
    }

    fn vmread(&self, field: u64) -> Option<u64> {
        self.vmcs.get(&field).copied()
    }
}

const HEAP: u64 = 0xffff_8300_0010_0000;
const IDLE_DOMAIN: u64 = HEAP;
const DOM_XEN: u64 = HEAP + 0x1000;
const DOM0: u64 = HEAP + 0x2000;
const GUEST: u64 = HEAP + 0x3000;
const VCPU: u64 = HEAP + 0x8000;
const VMCB: u64 = HEAP + 0xb000;
const STACK_TOP: u64 = HEAP + 0x20000;
const DATA: u64 = 0xffff_82d0_4050_0000;
const TEXT: u64 = 0xffff_82d0_4020_0000;
const FLAGS: u64 = 0x380;
const VMCB_FIELD: u64 = 0x5c0;
const FRAME: u64 = STACK_TOP - 0x38 - 8 - 200;
const PER_CPU: u64 = 0x1000;

/// A CPU's idle vCPU.
fn idle(cpu: u64) -> u64 {
    HEAP + 0x100_0000 + cpu * 0x2000
}

fn symbols() -> Symbols {
    Symbols {
        idle_vcpu: DATA + 0x30_0000,
        cpu_online_map: DATA + 0x10_0000,
        cpu_present_map: DATA + 0x10_0400,
        per_cpu_offset: DATA + 0x20_0000,
        curr_vcpu: DATA + 0x1000_0000,
        dom_xen: DATA + 0x400,
        hardware_domain: DATA + 0x408,
        toggle_guest_mode: TEXT + 0x1000,
        svm_asm_do_resume: TEXT + 0x2000,
        svm_stgi_label: TEXT + 0x2194,
        vmx_asm_vmexit_handler: TEXT + 0x3000,
        direct_apic_vector: DATA + 0x1000,
        apic_timer_interrupt: TEXT + 0x4000,
        softirq_handlers: DATA + 0x2000,
        timer_softirq_action: TEXT + 0x5000,
        code: [CodeRange { start: TEXT, end: TEXT + 0x10_0000 }, CodeRange::default()],
    }
}

/// A machine of two CPUs; `domain_field` is what differs between versions.
fn xen(domain_field: u64) -> Xen {
    xen_of(2, domain_field)
}

/// A machine of so many CPUs, the second of which runs a guest's vCPU.
fn xen_of(cpus: u64, domain_field: u64) -> Xen {
    let (mut xen, symbols) = (Xen::default(), symbols());
    for map in [symbols.cpu_online_map, symbols.cpu_present_map] {
        (0..cpus.div_ceil(64)).for_each(|word| xen.word(map + 8 * word, u64::MAX >> (64 - cpus.min(64))));
    }
    for (domain, number) in [(IDLE_DOMAIN, 0x7fff), (DOM_XEN, 0x7ff2), (DOM0, 0), (GUEST, 3)] {
        xen.word(domain, number);
    }
    for (cpu, vcpu) in (0..cpus).map(|cpu| (cpu, idle(cpu))) {
        xen.word(symbols.idle_vcpu + 8 * cpu, vcpu);
        xen.word(vcpu, cpu | cpu << 32);
        xen.word(vcpu + domain_field, IDLE_DOMAIN);
        xen.word(vcpu + FLAGS, 1);
        xen.word(symbols.per_cpu_offset + 8 * cpu, (cpu + 1) * PER_CPU);
    }
    xen.word(symbols.dom_xen, DOM_XEN);
    xen.word(symbols.hardware_domain, DOM0);
    // The vCPU 5 of the domain 3, on the CPU 1.
    xen.word(VCPU, 5 | 1 << 32);
    xen.word(VCPU + domain_field, GUEST);
    xen.word(VCPU + FLAGS, 1);
    xen.word(VCPU + VMCB_FIELD, VMCB);
    xen.word(symbols.curr_vcpu + 2 * PER_CPU, VCPU);
    xen.put(STACK_TOP - 0x40, &1u32.to_le_bytes());
    xen.word(STACK_TOP - 0x38, VCPU);
    xen.word(STACK_TOP - 0x30, 2 * PER_CPU);
    // testb $1, FLAGS(%rbx), behind a test of something near.
    xen.put(symbols.toggle_guest_mode + 0x14, &[0xf6, 0x40, 0xdb, 0x01]);
    xen.put(symbols.toggle_guest_mode + 0x2c, &[0xf6, 0x83, 0x80, 0x03, 0, 0, 1]);
    // mov VMCB_FIELD+8(%rbx), %rax … vmrun … stgi
    xen.put(symbols.svm_asm_do_resume + 0x7d, &[0x48, 0x8b, 0x83, 0xc8, 0x05, 0, 0]);
    xen.put(symbols.svm_asm_do_resume + 0xa2, &[0x0f, 0x01, 0xd8]);
    xen.word(symbols.direct_apic_vector + 8 * 0xf9, symbols.apic_timer_interrupt);
    xen.word(symbols.softirq_handlers, symbols.timer_softirq_action);
    xen
}

fn probed(xen: &Xen) -> Result<Layout, Refusal> {
    layout(xen, &symbols(), STACK_TOP, 2)
}

#[test]
fn everything_is_found_where_versions_differ() {
    for domain_field in [0x10, 0x18] {
        let expected = Layout {
            vcpu_domain: domain_field,
            current_below_top: 0x38,
            frame_below_top: STACK_TOP - FRAME,
            vcpu_flags: Some(FLAGS),
            svm: Some(Svm { stgi: symbols().svm_stgi_label, vcpu_vmcb: VMCB_FIELD }),
            vmx_exit: CodeRange { start: TEXT + 0x3000, end: TEXT + 0x3300 },
            timer_vector: 0xf9,
            code: symbols().code,
        };
        assert_eq!(probed(&xen(domain_field)), Ok(expected));
    }
}

/// As many as Xen is built for, and of those that there are the last one's state is looked at, too.
#[test]
fn machines_of_any_size_are_probed_to_their_last_cpu() {
    for cpus in [1 << 8, 1 << 12] {
        let mut xen = xen_of(cpus, 0x10);
        let found = layout(&xen, &symbols(), STACK_TOP, cpus).unwrap();
        assert_eq!((found.vcpu_domain, found.vcpu_flags), (0x10, Some(FLAGS)));
        assert!((0..cpus).all(|cpu| is_present(&xen, &symbols(), cpu)));
        assert!(!is_present(&xen, &symbols(), cpus));
        xen.word(idle(cpus - 1) + 0x10, DOM0);
        assert_eq!(layout(&xen, &symbols(), STACK_TOP, cpus), Err(Refusal::VcpuDomain));
    }
}

#[test]
fn whatever_does_not_fit_is_refused_by_name() {
    let s = symbols();
    let refused = |at: u64, value: u64| {
        let mut xen = xen(0x10);
        xen.word(at, value);
        probed(&xen).unwrap_err()
    };
    assert_eq!(refused(IDLE_DOMAIN, 1), Refusal::VcpuDomain);
    assert_eq!(refused(idle(1) + 0x10, DOM0), Refusal::VcpuDomain);
    assert_eq!(refused(idle(1), 7), Refusal::IdleVcpu);
    assert_eq!(refused(DOM_XEN, 1), Refusal::Domain);
    assert_eq!(refused(DOM0, 1), Refusal::Domain);
    assert_eq!(refused(STACK_TOP - 0x38, GUEST), Refusal::CpuInfo);
    assert_eq!(refused(s.direct_apic_vector + 8 * 0xf9, 0), Refusal::TimerVector);
    assert_eq!(refused(s.direct_apic_vector + 8 * 0xf8, s.apic_timer_interrupt), Refusal::TimerVector);
    assert_eq!(refused(s.softirq_handlers, TEXT), Refusal::TimerSoftirq);
    assert_eq!(refused(s.svm_asm_do_resume + 0x7d, 0), Refusal::Vmcb);
    assert_eq!(refused(s.svm_asm_do_resume + 0xa2, 0), Refusal::Vmcb);
}

#[test]
fn the_kernel_mode_flag_is_used_only_where_all_idle_vcpus_confirm_it() {
    let mut xen = xen(0x10);
    xen.word(idle(0) + FLAGS, 4);
    assert_eq!(probed(&xen).unwrap().vcpu_flags, None);
}

#[test]
fn a_xen_without_a_vendors_support_is_probed_without_it() {
    let symbols = Symbols { svm_asm_do_resume: 0, svm_stgi_label: 0, vmx_asm_vmexit_handler: 0, ..symbols() };
    let layout = layout(&xen(0x10), &symbols, STACK_TOP, 2).unwrap();
    assert_eq!(layout.svm, None);
    assert!(!layout.vmx_exit.contains(0) && !layout.vmx_exit.contains(TEXT + 0x3000));
}

const RIP: u64 = 128;
const RSP: u64 = 152;

fn sample(xen: &Xen, regs: u64) -> abi::record::Sample {
    interrupted::sample(xen, &probed(xen).unwrap(), STACK_TOP, regs, 9, 1_000, 7)
}

#[test]
fn a_paravirtualized_vcpu_is_told_by_its_flag_whatever_the_address() {
    let mut xen = xen(0x10);
    xen.cr3 = 0x8000_0000_0123_4fff;
    xen.word(FRAME + RIP, 0x1000);
    xen.word(FRAME + RSP, 0x2000);
    xen.word(FRAME - 8, TEXT);
    let kernel = sample(&xen, FRAME);
    assert_eq!((kernel.mode, kernel.guest, kernel.domain, kernel.vcpu), (Mode::Kernel, Guest::Pv, 3, 5));
    assert_eq!(
        (kernel.instruction_pointer, kernel.stack_pointer, kernel.root),
        (0x1000, 0x2000, 0x0123_4000)
    );
    assert_eq!((kernel.sequence, kernel.time, kernel.weight), (9, 1_000, 7));
    xen.word(VCPU + FLAGS, 0);
    assert_eq!(sample(&xen, FRAME).mode, Mode::User);
}

#[test]
fn without_the_flag_the_address_tells() {
    let mut xen = xen(0x10);
    let layout = Layout { vcpu_flags: None, ..probed(&xen).unwrap() };
    for (address, mode) in [(0xffff_ffff_8100_0000, Mode::Kernel), (0x40_0000, Mode::User)] {
        xen.word(FRAME + RIP, address);
        assert_eq!(interrupted::sample(&xen, &layout, STACK_TOP, FRAME, 0, 0, 0).mode, mode);
    }
}

/// The frame at the top of the stack still holds the exit before: its registers are a trap.
#[test]
fn an_amd_guest_is_read_from_its_vmcb_and_not_from_the_stale_frame() {
    let mut xen = xen(0x18);
    let regs = FRAME - 0x200;
    xen.word(FRAME + RIP, 0xbad);
    xen.word(FRAME + RSP, 0xbad);
    xen.word(regs + RIP, symbols().svm_stgi_label);
    xen.word(VMCB + 0x578, 0x40_1234);
    xen.word(VMCB + 0x5d8, 0x7fff_0000);
    xen.word(VMCB + 0x550, 0x5df6_0aaa);
    xen.put(VMCB + 0x4cb, &[3]);
    let user = sample(&xen, regs);
    assert_eq!((user.mode, user.guest, user.domain), (Mode::User, Guest::Svm, 3));
    assert_eq!(
        (user.instruction_pointer, user.stack_pointer, user.root),
        (0x40_1234, 0x7fff_0000, 0x5df6_0000)
    );
    xen.put(VMCB + 0x4cb, &[0]);
    assert_eq!(sample(&xen, regs).mode, Mode::Kernel);
    // Xen's own code on behalf of the same vCPU.
    xen.word(regs + RIP, TEXT + 0x777);
    let own = sample(&xen, regs);
    assert_eq!((own.mode, own.guest, own.domain, own.root), (Mode::Hypervisor, Guest::None, 3, 0));
    assert_eq!(own.instruction_pointer, TEXT + 0x777);
}

#[test]
fn an_intel_guest_is_told_by_who_called_the_handler() {
    let mut xen = xen(0x10);
    xen.word(FRAME + RIP, 0x40_5678);
    xen.word(FRAME - 8, symbols().vmx_asm_vmexit_handler + 0x99);
    xen.vmcs = HashMap::from([(0x4818, 0xc0f3), (0x6802, 0x7777_7fff)]);
    let user = sample(&xen, FRAME);
    assert_eq!((user.mode, user.guest, user.root), (Mode::User, Guest::Vmx, 0x7777_7000));
    assert_eq!(user.instruction_pointer, 0x40_5678);
    xen.vmcs.insert(0x4818, 0xa093);
    assert_eq!(sample(&xen, FRAME).mode, Mode::Kernel);
}

#[test]
fn the_hypervisors_own_work_belongs_to_nobody() {
    let mut xen = xen(0x10);
    let layout = probed(&xen).unwrap();
    xen.word(STACK_TOP - 0x38, idle(1));
    xen.word(FRAME - 0x200 + RIP, TEXT + 0x10);
    let sample = interrupted::sample(&xen, &layout, STACK_TOP, FRAME - 0x200, 0, 0, 0);
    assert_eq!((sample.mode, sample.domain), (Mode::Hypervisor, DOMAIN_IDLE));
}

#[test]
fn what_is_overdue_is_charged_to_whoever_ran_last() {
    let xen = xen(0x10);
    let sample = interrupted::overdue(&xen, &probed(&xen).unwrap(), VCPU, TEXT + 0x6000, 4, 5, 6);
    assert_eq!((sample.mode, sample.domain, sample.vcpu), (Mode::Hypervisor, 3, 5));
    assert_eq!((sample.instruction_pointer, sample.sequence, sample.weight), (TEXT + 0x6000, 4, 6));
}
