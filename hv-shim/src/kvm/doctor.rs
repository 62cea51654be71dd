//! What this host allows, looked at one by one.

use std::fs;

use super::{
    HOST,
    bpf::{Bpf, Processor},
    can_run_guests, cpus,
    domains::Domains,
    idle::IdleCode,
    perf::{self, Counter, Pace, Scope, Setting},
    vcpu_times,
    vcpus::Vcpus,
};
use crate::{CallGraph, Check, Outcome, OwnKernel, ShimError};

/// A slow pace: nothing is enabled here.
const SECOND_NS: u64 = 1_000_000_000;

pub(crate) fn doctor() -> Vec<Check> {
    vec![kvm(), machine(), counters(), guests(), registers(), times(), exits(), symbols(), processes()]
}

fn kvm() -> Check {
    if can_run_guests() {
        return pass("hypervisor", "KVM: /dev/kvm is there");
    }
    warn(
        "hypervisor",
        "none: neither Xen nor /dev/kvm",
        "the host and its containers can be sampled; for guests, modprobe kvm-amd or kvm-intel",
    )
}

/// Whether all CPUs may be sampled.
fn machine() -> Check {
    let name = "perf events";
    let cpu = match cpus::online() {
        Ok(online) => online.first().copied().unwrap_or(0),
        Err(error) => return fail(name, error.to_string(), "mount /sys"),
    };
    let open = |scope, kernel| {
        Setting { scope, kernel, call_graph: CallGraph::Off, guests: false }.sampler(
            cpu,
            Counter::Clock,
            Pace::Period(SECOND_NS),
        )
    };
    let Err(error) = open(Scope::Machine, true) else {
        return pass(name, "the whole machine may be sampled");
    };
    if error.raw_os_error() == Some(libc::ENOSYS) {
        return fail(name, ShimError::NoPerfEvents.to_string(), "use a kernel with perf events");
    }
    let setting = perf::paranoid().map_or_else(|| "unknown".into(), |value| value.to_string());
    let found =
        format!("this user may not sample the machine: {error}; kernel.perf_event_paranoid is {setting}");
    let advice = "run as root, or setcap cap_perfmon,cap_bpf,cap_sys_ptrace,cap_syslog,cap_dac_read_search+ep on the program";
    if open(Scope::Children, false).is_ok() {
        return warn(
            name,
            found,
            format!("{advice}; without, `xenoscope record -- COMMAND` samples the command alone"),
        );
    }
    fail(name, found, advice)
}

/// Whether the processor counts.
fn counters() -> Check {
    let name = "counters";
    let clock =
        "the kernel's clock serves instead: code that runs with interrupts off is not seen where it runs";
    let cpu = cpus::online().ok().and_then(|online| online.first().copied()).unwrap_or(0);
    let setting = Setting { scope: Scope::Machine, kernel: true, call_graph: CallGraph::Off, guests: false };
    match setting.sampler(cpu, Counter::Cycles, Pace::Hertz(1)) {
        Ok(_) if perf::counts_cycles() => pass(name, "the processor's cycles can be counted"),
        Ok(_) => warn(name, "the processor's counters do not count (an emulated or broken unit)", clock),
        Err(error) => match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => warn(
                name,
                "the processor's counters are taken: this kernel hands them to guests (a mediated vPMU)",
                format!("{clock}; to have them, start guests without a PMU"),
            ),
            Some(libc::ENOENT | libc::ENODEV) => {
                warn(name, "the processor shows no counters, as in most virtual machines", clock)
            }
            _ => warn(name, format!("the processor's cycles can't be counted: {error}"), clock),
        },
    }
}

fn guests() -> Check {
    let name = "guests";
    match Domains::new(Vcpus::default()).list() {
        Ok(domains) => {
            let names: Vec<String> = domains
                .into_iter()
                .filter(|domain| domain.number != HOST)
                .map(|domain| domain.name)
                .collect();
            match names.len() {
                0 => pass(name, "none runs, or none that this user may see"),
                count => pass(name, format!("{count}: {}", names.join(", "))),
            }
        }
        Err(error) => fail(name, error.to_string(), "mount /proc"),
    }
}

/// Whether guests' registers and memory can be read, from which the names of what runs there come.
fn registers() -> Check {
    let name = "guests' state";
    if !can_run_guests() {
        return pass(name, "there can be no guests");
    }
    match Bpf::open().and_then(|bpf| Ok((bpf.layout.processor, bpf.capture(1, CallGraph::Off)?))) {
        Ok((Processor::Amd, _)) => {
            pass(name, "BPF programs read guests' registers and where their memory is")
        }
        Ok((Processor::Intel, _)) => warn(
            name,
            "BPF programs read where guests' memory is; the root of their page tables is in a place of the processor's \
             (VMCS) that they can't read: kernels are named, processes are not",
            "name programs by files (--guest-exe)",
        ),
        Err(lack) => warn(
            name,
            format!(
                "guests' registers and memory can't be read: {lack}; samples of guests have addresses alone"
            ),
            format!("{}; or name kernels and programs by files (--guest-kernel, --guest-exe)", lack.advice()),
        ),
    }
}

/// Whether it is known what vCPUs do with their time.
fn times() -> Check {
    let name = "vCPUs' times";
    match vcpu_times::lack() {
        None => pass(name, "the scheduler accounts what threads run and wait"),
        Some(lack) => warn(name, lack, "without, reports don't tell what vCPUs do with their time"),
    }
}

/// Whether it can be counted what guests are left for.
fn exits() -> Check {
    let name = "VM exits";
    if !can_run_guests() {
        return pass(name, "there can be no guests");
    }
    let cpu = cpus::online().ok().and_then(|online| online.first().copied()).unwrap_or(0);
    match Bpf::open().and_then(|bpf| bpf.count_exits(1, cpu).map(|_| ())) {
        Ok(()) => pass(name, "BPF programs can count them (--exits)"),
        Err(lack) => warn(name, format!("they can't be counted: {lack}"), lack.advice()),
    }
}

fn symbols() -> Check {
    match OwnKernel::default().symbols().ok().and_then(|symbols| IdleCode::find(&symbols)) {
        Some(_) => pass("kernel symbols", "/proc/kallsyms tells addresses"),
        None => warn(
            "kernel symbols",
            "/proc/kallsyms tells no addresses: the host's kernel goes without names",
            "run as root or with CAP_SYSLOG, and sysctl kernel.kptr_restrict=1",
        ),
    }
}

/// Whether the processes of others can be looked at: theirs are the guests, and the programs that names come from.
fn processes() -> Check {
    match fs::read_link("/proc/1/exe") {
        Ok(_) => pass("processes", "all processes can be looked at"),
        Err(error) => warn(
            "processes",
            format!("other users' processes can't be looked at: {error}"),
            "run as root or with CAP_SYS_PTRACE, in the host's own process namespace rather than in a container's",
        ),
    }
}

fn pass(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, outcome: Outcome::Pass, found: found.into(), advice: None }
}

fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { name, outcome: Outcome::Warn, found: found.into(), advice: Some(advice.into()) }
}

fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { name, outcome: Outcome::Fail, found: found.into(), advice: Some(advice.into()) }
}
