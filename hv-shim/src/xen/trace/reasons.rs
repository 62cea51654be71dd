//! Why a vCPU came to Xen, and what that is called.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::exit_reason;

/// Why a vCPU came to Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// An exit, by AMD's code.
    Svm(u32),
    /// An exit, by Intel's.
    Vmx(u32),
    /// A paravirtualized kernel asked for something, by the hypercall's number.
    PvHypercall(u32),
    /// An exception that Xen handed on to a paravirtualized guest, by its number.
    PvTrap(u32),
    /// A paravirtualized guest executed what it may ask CPUID by.
    PvInvalidOp,
    /// A paravirtualized kernel executed what only Xen may, and was given what it wanted.
    PvPrivileged,
    /// A vCPU used its floating point registers for the first time in its turn.
    PvMathState,
    /// A page fault that Xen mended by itself.
    PvPagingFixup,
    /// Descriptors of a paravirtualized guest that were not mapped.
    PvDescriptorFault,
    /// A paravirtualized kernel wrote into its page tables, which Xen did for it.
    PvPageTableWrite,
}

impl Reason {
    /// Whether it is a hardware guest's exit, which ends when the guest is entered again.
    pub(super) fn is_exit(self) -> bool {
        matches!(self, Self::Svm(_) | Self::Vmx(_))
    }

    fn name(self) -> Cow<'static, str> {
        match self {
            Self::Svm(code) => exit_reason::svm(code.into()),
            Self::Vmx(reason) => exit_reason::vmx(reason.into()),
            Self::PvHypercall(number) => match HYPERCALLS.get(number as usize) {
                Some(name) => Cow::Owned(format!("hypercall-{name}")),
                None => Cow::Owned(format!("hypercall-{number}")),
            },
            Self::PvTrap(vector) => exit_reason::exception(vector.into()),
            Self::PvInvalidOp => Cow::Borrowed("forced-invalid-op"),
            Self::PvPrivileged => Cow::Borrowed("privileged-instruction"),
            Self::PvMathState => Cow::Borrowed("math-state-restore"),
            Self::PvPagingFixup => Cow::Borrowed("paging-fixup"),
            Self::PvDescriptorFault => Cow::Borrowed("descriptor-mapping-fault"),
            Self::PvPageTableWrite => Cow::Borrowed("page-table-write"),
        }
    }
}

/// Names that were asked for, kept: there are few.
#[derive(Default)]
pub(super) struct Names(HashMap<Reason, Arc<str>>);

impl Names {
    pub(super) fn of(&mut self, reason: Reason) -> Arc<str> {
        self.0.entry(reason).or_insert_with(|| reason.name().into()).clone()
    }
}

/// Hypercalls by their numbers (public/xen.h).
const HYPERCALLS: [&str; 43] = [
    "set-trap-table",
    "mmu-update",
    "set-gdt",
    "stack-switch",
    "set-callbacks",
    "fpu-taskswitch",
    "sched-op-compat",
    "platform-op",
    "set-debugreg",
    "get-debugreg",
    "update-descriptor",
    "11",
    "memory-op",
    "multicall",
    "update-va-mapping",
    "set-timer-op",
    "event-channel-op-compat",
    "xen-version",
    "console-io",
    "physdev-op-compat",
    "grant-table-op",
    "vm-assist",
    "update-va-mapping-otherdomain",
    "iret",
    "vcpu-op",
    "set-segment-base",
    "mmuext-op",
    "xsm-op",
    "nmi-op",
    "sched-op",
    "callback-op",
    "xenoprof-op",
    "event-channel-op",
    "physdev-op",
    "hvm-op",
    "sysctl",
    "domctl",
    "kexec-op",
    "tmem-op",
    "argo-op",
    "xenpmu-op",
    "dm-op",
    "hypfs-op",
];
