// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs when a vCPU has left its guest (the tracepoint kvm:kvm_exit), on its thread: notes when, why and where.
 */
#include "exits.h"

/* Filled in when the program is loaded (hv-shim/src/kvm/bpf/layout.rs); offsets in bytes. */
struct layout {
	u32 task_notifier; /* task_struct.preempt_notifiers.first */
	u32 vcpu_notifier; /* kvm_vcpu.preempt_notifier.link */
	u32 vcpu_id; /* kvm_vcpu.vcpu_id */
	u32 vcpu_cr3; /* kvm_vcpu.arch.cr3 */
	u32 vcpu_vmcb; /* vcpu_svm.vmcb; 0 if this is no AMD */
	u32 reason; /* In the tracepoint's record: exit_reason, */
	u32 reason_bytes; /* which has four or eight bytes, */
	u32 instruction_pointer; /* and guest_rip. */
};
extern const volatile struct layout layout;
extern volatile struct books books;

/* What the processor's control block tells, if it is of the very instruction. */
ALWAYS_INLINE void look_into_vmcb(struct exit *exit, u64 vmcb)
{
	exit->strange = kernel_u64(vmcb + VMCB_RIP) != exit->instruction_pointer;
	if (exit->strange)
		return;
	exit->has_vmcb = 1;
	exit->privilege = kernel_u8(vmcb + VMCB_CPL);
	/* Without nested paging the root there is of the hypervisor's shadow. */
	if (kernel_u8(vmcb + VMCB_NESTED_CONTROL) & 1)
		exit->root = kernel_u64(vmcb + VMCB_CR3);
}

SECTION("program") int on_exit(u64 record)
{
	u64 notifier = kernel_u64(get_current_task() + layout.task_notifier), vcpu;
	u64 thread = get_current_pid_tgid();
	struct pending left = {}, *before;
	struct exit *exit = &left.exit;

	if (!notifier)
		return 0;
	vcpu = notifier - layout.vcpu_notifier;
	left.vcpu = vcpu;
	exit->process = thread >> 32;
	exit->thread = thread;
	exit->vcpu_id = kernel_u32(vcpu + layout.vcpu_id);
	exit->root = kernel_u64(vcpu + layout.vcpu_cr3);
	exit->instruction_pointer = kernel_u64(record + layout.instruction_pointer);
	exit->reason = layout.reason_bytes == sizeof(u64) ? kernel_u64(record + layout.reason) : kernel_u32(record + layout.reason);
	if (layout.vcpu_vmcb)
		look_into_vmcb(exit, kernel_u64(vcpu + layout.vcpu_vmcb));
	left.since = ktime_get_ns();

	before = map_lookup_elem(&pending, &exit->thread);
	if (!before) {
		map_update_elem(&pending, &exit->thread, &left, 0);
		return 0;
	}
	if (before->since && before->vcpu == vcpu)
		__sync_fetch_and_add(&books.unpaired, 1);
	*before = left;
	return 0;
}
