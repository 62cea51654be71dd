//! What the emulated CPUs are at while a machine is not heard of.

use std::time::Duration;
use std::{ops::Range, thread};

use anyhow::{Context, Result};

use crate::qmp::Qmp;
use crate::scenario::HypervisorKind;

/// How a CPU is told of that goes on for ever although interrupts wait in its local APIC. No guest can do that: neither its
/// interrupt flag nor its own APIC keeps such an interrupt from ending its run. No kernel does it for seconds, nor Xen.
pub(crate) const STUCK: &str = "goes on although an interrupt waits in its local APIC";

/// How often, and how long from one time to the next, an interrupt must be seen to wait.
const LOOKS: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where Xen's own code and data lie (`XEN_VIRT_START`, asm/config.h).
const XEN: Range<u64> = 0xffff_82d0_0000_0000..0xffff_82d1_0000_0000;

/// Registers and local APICs of all CPUs, for people.
pub(crate) fn dump(qmp: &mut Qmp, cpus: u32) -> Result<String> {
    let mut text = qmp.monitor("info registers -a")?;
    for cpu in 0..cpus {
        text += &qmp.monitor(&format!("info lapic {cpu}"))?;
    }
    Ok(text.replace('\r', ""))
}

/// The CPU that is [`STUCK`], with that word, on a host of this hypervisor.
pub(crate) fn stuck(qmp: &mut Qmp, cpus: u32, hypervisor: HypervisorKind) -> Result<Option<String>> {
    let ours = match hypervisor {
        // The profiler runs in Xen.
        HypervisorKind::Xen => XEN,
        HypervisorKind::Kvm => 0..0,
    };
    let mut waiting = vec![true; cpus as usize];
    for _ in 0..LOOKS {
        let now = waits(&dump(qmp, cpus)?, &ours)?;
        waiting = waiting.into_iter().zip(now).map(|(before, now)| before && now).collect();
        if !waiting.contains(&true) {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(waiting.iter().position(|&waits| waits).map(|cpu| format!("CPU {cpu} {STUCK}")))
}

/// Of each CPU: whether an interrupt waits that its priority lets through, while it is outside of what is not to be blamed
/// on the emulator.
fn waits(dump: &str, ours: &Range<u64>) -> Result<Vec<bool>> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
    let behind = |line: &str, name: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned)
    };
    // In other modes than the 64-bit one the register has another name.
    let pointers = dump.lines().filter_map(|line| behind(line, "RIP=").or_else(|| behind(line, "EIP=")));
    let priorities = dump.lines().filter(|line| line.starts_with("APR "));
    let priorities = priorities.filter_map(|line| line.split("PPR ").nth(1));
    let requests = dump.lines().filter_map(|line| line.strip_prefix("IRR\t"));
    let cpus = pointers.zip(requests).zip(priorities);
    let waits = cpus.map(|((pointer, requests), priority)| {
        let class = number(priority.trim())? >> 4;
        let vectors =
            requests.split(|c: char| !c.is_ascii_digit()).filter_map(|vector| vector.parse::<u64>().ok());
        let outside = !ours.contains(&number(&pointer)?);
        Ok(outside && vectors.max().is_some_and(|vector| vector >> 4 > class))
    });
    waits.collect::<Result<_>>().context("QEMU tells of its CPUs in another way than expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(pointer: &str, requests: &str, priority: &str) -> String {
        format!(
            "\nCPU#0\nRAX=0000000000000000 RBX=0000000000000000\n{pointer} RFL=00000246 [---Z-P-] CPL=0 HLT=0\n\
             dumping local APIC state for CPU 0 \n\nISR\t (none)\nIRR\t {requests}\n\nAPR 0x00 TPR 0x00 DFR 0x0f LDR 0x01 \
             PPR {priority}\n"
        )
    }

    #[test]
    fn only_outside_of_xen_an_interrupt_that_waits_is_strange() {
        let waits = |pointer, requests, priority| waits(&dump(pointer, requests, priority), &XEN).unwrap();
        let (guest, xen) = ("RIP=ffffffff81c03e56", "RIP=ffff82d04033a1b2");
        assert_eq!(waits(guest, "240 251(level) ", "0x00"), [true]);
        assert_eq!(waits(guest, "(none)", "0x00"), [false]);
        assert_eq!(waits(guest, "251 ", "0xf0"), [false], "held back by one that is being served");
        assert_eq!(waits(xen, "251 ", "0x00"), [false]);
        assert_eq!(waits("EIP=0000fff0", "49 ", "0x00"), [true]);
    }
}
