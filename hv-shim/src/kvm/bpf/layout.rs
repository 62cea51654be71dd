//! Where this kernel keeps what is wanted of its structures: from its own type information (BTF).

use std::{fs, path::Path};

use guest::{Btf, LayoutError, join_types};

use super::{Lack, tracepoint::ExitRecord};

/// The type information of the kernel, and of modules that add to it.
const TYPES: &str = "/sys/kernel/btf";

/// Whose virtualization KVM uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kvm) enum Processor {
    Amd,
    Intel,
}

/// Offsets in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct Layout {
    pub(in crate::kvm) processor: Processor,
    task_notifier: u64,
    vcpu_notifier: u64,
    vcpu_id: u64,
    vcpu_registers: u64,
    vcpu_cr3: u64,
    /// None if this is no AMD.
    vcpu_vmcb: Option<u64>,
    pub(in crate::kvm) slots: SlotLayout,
}

/// How to get from a vCPU to its guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct SlotLayout {
    pub(in crate::kvm) vcpu_kvm: u64,
    /// A pointer to the slots in use.
    pub(in crate::kvm) kvm_slots: u64,
    /// The root of their tree, ordered by the guest's frames.
    pub(in crate::kvm) tree: u64,
    /// Which of its two nodes a slot is in that tree by.
    pub(in crate::kvm) node_index: u64,
    pub(in crate::kvm) nodes: u64,
    pub(in crate::kvm) node_bytes: u64,
    pub(in crate::kvm) node_left: u64,
    pub(in crate::kvm) node_right: u64,
    pub(in crate::kvm) first_frame: u64,
    pub(in crate::kvm) pages: u64,
    pub(in crate::kvm) host_address: u64,
}

impl Layout {
    pub(super) fn of_this_kernel() -> Result<Self, Lack> {
        let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
        let (processor, module) = match () {
            () if loaded("kvm_amd") => (Processor::Amd, "kvm_amd"),
            () if loaded("kvm_intel") => (Processor::Intel, "kvm_intel"),
            () => return Err(Lack::NoModule),
        };
        let read = |name: &str| fs::read(Path::new(TYPES).join(name));
        let no_layout = |what: String| Lack::NoLayout { what };
        let kernel = read("vmlinux").map_err(|error| no_layout(format!("{TYPES}/vmlinux: {error}")))?;
        let types = match read(module) {
            Ok(module) => join_types(&kernel, &module),
            Err(_) => Ok(kernel),
        };
        let layout = types.and_then(|types| Self::of(&Btf::of_kernel(&types)?, processor));
        layout.map_err(|error| no_layout(error.to_string()))
    }

    fn of(types: &Btf, processor: Processor) -> Result<Self, LayoutError> {
        // A module's types are not always told. Since Linux 3 the pointer to the control block comes right behind the
        // vCPU that a `struct vcpu_svm` begins with; whether it is there is seen by what it leads to.
        let vmcb = || types.offset("vcpu_svm", "vmcb").or_else(|_| types.size("kvm_vcpu"));
        Ok(Self {
            processor,
            task_notifier: types.offset("task_struct", "preempt_notifiers.first")?,
            vcpu_notifier: types.offset("kvm_vcpu", "preempt_notifier.link")?,
            vcpu_id: types.offset("kvm_vcpu", "vcpu_id")?,
            vcpu_registers: types.offset("kvm_vcpu", "arch.regs")?,
            vcpu_cr3: types.offset("kvm_vcpu", "arch.cr3")?,
            vcpu_vmcb: if processor == Processor::Amd { Some(vmcb()?) } else { None },
            slots: SlotLayout {
                vcpu_kvm: types.offset("kvm_vcpu", "kvm")?,
                kvm_slots: types.offset("kvm", "memslots")?,
                tree: types.offset("kvm_memslots", "gfn_tree")?,
                node_index: types.offset("kvm_memslots", "node_idx")?,
                nodes: types.offset("kvm_memory_slot", "gfn_node")?,
                node_bytes: types.size("rb_node")?,
                node_left: types.offset("rb_node", "rb_left")?,
                node_right: types.offset("rb_node", "rb_right")?,
                first_frame: types.offset("kvm_memory_slot", "base_gfn")?,
                pages: types.offset("kvm_memory_slot", "npages")?,
                host_address: types.offset("kvm_memory_slot", "userspace_addr")?,
            },
        })
    }

    #[cfg(test)]
    pub(super) fn at_the_beginning() -> Self {
        let slots = SlotLayout {
            vcpu_kvm: 0,
            kvm_slots: 0,
            tree: 0,
            node_index: 0,
            nodes: 0,
            node_bytes: 0,
            node_left: 0,
            node_right: 0,
            first_frame: 0,
            pages: 0,
            host_address: 0,
        };
        Self {
            processor: Processor::Amd,
            task_notifier: 0,
            vcpu_notifier: 0,
            vcpu_id: 0,
            vcpu_registers: 0,
            vcpu_cr3: 0,
            vcpu_vmcb: Some(8),
            slots,
        }
    }

    /// With the two numbers of a thread for the address of its vCPU: of no vCPU, but known to whoever has them.
    #[cfg(test)]
    pub(super) fn with_numbers_for_a_vcpu() -> Option<Self> {
        let types = fs::read(Path::new(TYPES).join("vmlinux")).ok()?;
        let kernel = Btf::of_kernel(&types).ok()?;
        let task_notifier = kernel.offset("task_struct", "pid").ok()?;
        Some(Self { task_notifier, vcpu_vmcb: None, processor: Processor::Intel, ..Self::at_the_beginning() })
    }

    /// As the program that looks at exits wants them: `struct layout` in exit.bpf.c.
    pub(super) fn words_of_exits(&self, record: &ExitRecord) -> [u32; 8] {
        [
            self.task_notifier,
            self.vcpu_notifier,
            self.vcpu_id,
            self.vcpu_cr3,
            self.vcpu_vmcb.unwrap_or(0),
            record.reason.start as u64,
            record.reason.len() as u64,
            record.instruction_pointer.start as u64,
        ]
        .map(|offset| offset as u32)
    }

    /// As the program that runs with samples wants them: `struct layout` in capture.bpf.c.
    pub(super) fn words(&self, stack_bytes: u32) -> [u32; 18] {
        let slots = &self.slots;
        [
            self.task_notifier,
            self.vcpu_notifier,
            self.vcpu_id,
            self.vcpu_registers,
            self.vcpu_cr3,
            self.vcpu_vmcb.unwrap_or(0),
            slots.vcpu_kvm,
            slots.kvm_slots,
            slots.tree,
            slots.node_index,
            slots.nodes,
            slots.node_bytes,
            slots.node_left,
            slots.node_right,
            slots.first_frame,
            slots.pages,
            slots.host_address,
            stack_bytes.into(),
        ]
        .map(|offset| offset as u32)
    }
}
