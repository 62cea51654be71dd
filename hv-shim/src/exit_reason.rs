//! Why a hardware guest was left, by the processors' numbers: AMD's exit codes (APM volume 2, appendix C) and Intel's basic
//! exit reasons (SDM volume 3, appendix C).
//!
//! Names are those that Linux and Xen print, in lower case, words parted by `-`.

use std::borrow::Cow;

/// Why an AMD processor left a guest. Exceptions, registers and the like have their number in their name.
pub(crate) fn svm(code: u64) -> Cow<'static, str> {
    // VMEXIT_INVALID is -1, of which some have kept 32 bits.
    let code = if code == u64::from(u32::MAX) { u64::MAX } else { code };
    Cow::Borrowed(match code {
        0x00..=0x0f => return format!("read-cr{code}").into(),
        0x10..=0x1f => return format!("write-cr{}", code - 0x10).into(),
        0x20..=0x2f => return format!("read-dr{}", code - 0x20).into(),
        0x30..=0x3f => return format!("write-dr{}", code - 0x30).into(),
        0x40..=0x5f => return exception(code - 0x40),
        0x60 => "interrupt",
        0x61 => "nmi",
        0x62 => "smi",
        0x63 => "init",
        0x64 => "vintr",
        0x65 => "cr0-sel-write",
        0x66 => "read-idtr",
        0x67 => "read-gdtr",
        0x68 => "read-ldtr",
        0x69 => "read-tr",
        0x6a => "write-idtr",
        0x6b => "write-gdtr",
        0x6c => "write-ldtr",
        0x6d => "write-tr",
        0x6e => "rdtsc",
        0x6f => "rdpmc",
        0x70 => "pushf",
        0x71 => "popf",
        0x72 => "cpuid",
        0x73 => "rsm",
        0x74 => "iret",
        0x75 => "swint",
        0x76 => "invd",
        0x77 => "pause",
        0x78 => "hlt",
        0x79 => "invlpg",
        0x7a => "invlpga",
        0x7b => "io",
        0x7c => "msr",
        0x7d => "task-switch",
        0x7e => "ferr-freeze",
        0x7f => "shutdown",
        0x80 => "vmrun",
        0x81 => "hypercall",
        0x82 => "vmload",
        0x83 => "vmsave",
        0x84 => "stgi",
        0x85 => "clgi",
        0x86 => "skinit",
        0x87 => "rdtscp",
        0x88 => "icebp",
        0x89 => "wbinvd",
        0x8a => "monitor",
        0x8b => "mwait",
        0x8c => "mwait-conditional",
        0x8d => "xsetbv",
        0x8e => "rdpru",
        0x8f => "write-efer-trap",
        0x90..=0x9f => return format!("write-cr{}-trap", code - 0x90).into(),
        0xa0 => "invlpgb",
        0xa1 => "invlpgb-illegal",
        0xa2 => "invpcid",
        0xa3 => "mcommit",
        0xa4 => "tlbsync",
        0xa5 => "bus-lock",
        0xa6 => "idle-hlt",
        0x400 => "npf",
        0x401 => "avic-incomplete-ipi",
        0x402 => "avic-unaccelerated-access",
        0x403 => "vmgexit",
        u64::MAX => "invalid-guest-state",
        _ => return format!("svm-{code:#x}").into(),
    })
}

/// Why an Intel processor left a guest: of the reason's 32 bits the lower half, unless it was never entered.
pub(crate) fn vmx(reason: u64) -> Cow<'static, str> {
    const NOT_ENTERED: u64 = 1 << 31;
    if reason & NOT_ENTERED != 0 {
        return Cow::Borrowed("failed-entry");
    }
    Cow::Borrowed(match reason & 0xffff {
        0 => "exception-nmi",
        1 => "interrupt",
        2 => "triple-fault",
        3 => "init",
        4 => "sipi",
        5 => "io-smi",
        6 => "smi",
        7 => "interrupt-window",
        8 => "nmi-window",
        9 => "task-switch",
        10 => "cpuid",
        11 => "getsec",
        12 => "hlt",
        13 => "invd",
        14 => "invlpg",
        15 => "rdpmc",
        16 => "rdtsc",
        17 => "rsm",
        18 => "hypercall",
        19 => "vmclear",
        20 => "vmlaunch",
        21 => "vmptrld",
        22 => "vmptrst",
        23 => "vmread",
        24 => "vmresume",
        25 => "vmwrite",
        26 => "vmxoff",
        27 => "vmxon",
        28 => "cr-access",
        29 => "dr-access",
        30 => "io",
        31 => "msr-read",
        32 => "msr-write",
        33 => "invalid-guest-state",
        34 => "msr-load-fail",
        36 => "mwait",
        37 => "monitor-trap-flag",
        39 => "monitor",
        40 => "pause",
        41 => "machine-check",
        43 => "tpr-below-threshold",
        44 => "apic-access",
        45 => "virtualized-eoi",
        46 => "gdtr-idtr",
        47 => "ldtr-tr",
        48 => "ept-violation",
        49 => "ept-misconfig",
        50 => "invept",
        51 => "rdtscp",
        52 => "preemption-timer",
        53 => "invvpid",
        54 => "wbinvd",
        55 => "xsetbv",
        56 => "apic-write",
        57 => "rdrand",
        58 => "invpcid",
        59 => "vmfunc",
        60 => "encls",
        61 => "rdseed",
        62 => "pml-full",
        63 => "xsaves",
        64 => "xrstors",
        66 => "spp-event",
        67 => "umwait",
        68 => "tpause",
        69 => "loadiwkey",
        74 => "bus-lock",
        75 => "notify",
        76 => "seamcall",
        77 => "tdcall",
        84 => "msr-read-imm",
        85 => "msr-write-imm",
        other => return format!("vmx-{other}").into(),
    })
}

/// By the mnemonics of both manuals.
pub(crate) fn exception(vector: u64) -> Cow<'static, str> {
    Cow::Borrowed(match vector {
        0 => "exception-de",
        1 => "exception-db",
        3 => "exception-bp",
        4 => "exception-of",
        5 => "exception-br",
        6 => "exception-ud",
        7 => "exception-nm",
        8 => "exception-df",
        10 => "exception-ts",
        11 => "exception-np",
        12 => "exception-ss",
        13 => "exception-gp",
        14 => "exception-pf",
        16 => "exception-mf",
        17 => "exception-ac",
        18 => "exception-mc",
        19 => "exception-xf",
        other => return format!("exception-{other}").into(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reasons_have_the_names_that_the_field_knows() {
        let names = [0x3, 0x14, 0x4e, 0x4f, 0x60, 0x72, 0x78, 0x7b, 0x7c, 0x81, 0x400].map(svm);
        let expected = [
            "read-cr3",
            "write-cr4",
            "exception-pf",
            "exception-15",
            "interrupt",
            "cpuid",
            "hlt",
            "io",
            "msr",
            "hypercall",
            "npf",
        ];
        assert_eq!(names, expected);
        assert_eq!(
            [svm(0x500), svm(u64::MAX), svm(0xffff_ffff)],
            ["svm-0x500", "invalid-guest-state", "invalid-guest-state"]
        );
        let names = [1, 10, 12, 18, 30, 31, 32, 48, 65, 0x8000_0021, 0x1000_0000].map(vmx);
        let expected = [
            "interrupt",
            "cpuid",
            "hlt",
            "hypercall",
            "io",
            "msr-read",
            "msr-write",
            "ept-violation",
            "vmx-65",
            "failed-entry",
            "exception-nmi",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn no_two_reasons_have_one_name() {
        for names in [(0..0x500).map(svm).collect::<Vec<_>>(), (0..100).map(vmx).collect()] {
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
            let plain =
                |name: &str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
            assert!(names.iter().all(|name| plain(name)));
        }
    }
}
