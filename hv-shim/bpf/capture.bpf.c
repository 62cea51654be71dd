// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs with every sample of a KVM host. If the current thread is a vCPU's, what the sample can't tell of the guest goes
 * ahead of it into the same buffer: registers, the root of the page tables, the privilege level, and the tops of the
 * guest's stacks if they are wanted.
 *
 * What is here trusts nothing that it reads: every read may fail, every walk has an end, and whoever reads the buffer
 * compares. Of a process of the guest nothing is copied that this process could not read itself.
 */
#include "kernel.h"

/* Filled in when the program is loaded (hv-shim/src/kvm/bpf/layout.rs); offsets in bytes. */
struct layout {
	u32 task_notifier; /* task_struct.preempt_notifiers.first */
	u32 vcpu_notifier; /* kvm_vcpu.preempt_notifier.link */
	u32 vcpu_id; /* kvm_vcpu.vcpu_id */
	u32 vcpu_registers; /* kvm_vcpu.arch.regs */
	u32 vcpu_cr3; /* kvm_vcpu.arch.cr3 */
	u32 vcpu_vmcb; /* vcpu_svm.vmcb; 0 if this is no AMD */
	u32 vcpu_kvm; /* kvm_vcpu.kvm */
	u32 kvm_slots; /* kvm.memslots[0] */
	u32 slots_tree; /* kvm_memslots.gfn_tree */
	u32 slots_node_index; /* kvm_memslots.node_idx */
	u32 slot_nodes; /* kvm_memory_slot.gfn_node */
	u32 node_bytes;
	u32 node_left;
	u32 node_right;
	u32 slot_first_frame; /* kvm_memory_slot.base_gfn */
	u32 slot_pages; /* kvm_memory_slot.npages */
	u32 slot_host_address; /* kvm_memory_slot.userspace_addr */
	u32 stack_bytes; /* the most of each stack */
};
extern const volatile struct layout layout;

/* The buffers of all CPUs, and for each a place to make a record in. */
extern struct map buffers, scratch;

#define EFER_LMA (1 << 10)
#define CR4_LA57 (1 << 12)

#define PAGE 4096ULL
#define FRAME 0x000ffffffffff000ULL
#define PRESENT 1
#define USER 4
#define LARGE 0x80

#define REGISTERS 17
#define RSP 4

/* A stack of a kernel of Linux (THREAD_SIZE): its own, and that of its interrupts. */
#define KERNEL_STACK 0x4000ULL
/* Where Linux has the stack of one page on which a process that is interrupted enters it first (CPU_ENTRY_AREA_BASE, in half
   a TiB of its own). */
#define ENTRY_AREA 0xfffffe0000000000ULL
#define ENTRY_AREA_BITS 39
/* What leaf functions may use below the stack pointer (System V psABI). */
#define RED_ZONE 128

/* Linux's struct pt_regs. */
#define FRAME_WORDS 21
/* The part of it that the processor writes, at its end. */
#define INTERRUPT_FRAME 40
#define FRAME_CS 17
#define FRAME_SP 19
#define USER_CS 0x33

/* Two of the kernel's stacks at the most, and the process's. */
#define PIECES 3
#define MOST_OF_A_STACK 0x4000
#define MOST (PIECES * MOST_OF_A_STACK)

/* Each page of three stacks through five levels of tables, and what else is read. */
#define MOST_STEPS(bytes) (20 + 15 * ((bytes) / 4096 + 1))

/* Of the tree of memory slots. */
#define MOST_DEPTH 16

struct piece {
	u64 address;
	u32 length;
	/* Whether it is the process's. */
	u32 of_process;
};

/* What goes into the buffer (hv-shim/src/kvm/bpf/vcpu_state.rs). */
struct captured {
	u64 vcpu;
	u32 vcpu_id;
	u8 has_vmcb;
	u8 privilege;
	u8 nested_paging;
	/* Whether there is what the kernel saved of the process when it was entered. */
	u8 has_frame;
	/* As KVM counts them: rax rcx rdx rbx rsp rbp rsi rdi r8 … r15 rip. */
	u64 registers[REGISTERS];
	u64 cr3;
	u64 vmcb_cr3;
	u64 vmcb_rip;
	u64 frame[FRAME_WORDS];
	struct piece pieces[PIECES];
	u8 bytes[MOST];
};

/* What is being done with the guest's memory. */
enum job {
	/* Copy a stack. */
	COPY,
	/* Read what the kernel saved at the end of its stack when a process entered it. */
	FRAME_READ,
	/* Read where the stack of interrupts says that the other one was left. */
	LINK,
	DONE,
};

/*
 * A walk through the guest's memory, one access at a time. All that changes is kept here and not in registers: the verifier
 * then knows nothing of it and need not follow what every access may have found.
 */
struct walk {
	/* Memory slots. */
	u64 tree;
	u64 node_in_slot;
	u64 node;
	/* The one that was looked at last. */
	u64 first_frame;
	u64 pages;
	u64 host_address;
	/* Page tables. */
	u64 root;
	u32 levels;
	/* Which bits of the address index the table that is next; 0 when they are through. */
	u32 shift;
	/* The address that is looked up, and where the next access is. */
	u64 address;
	u64 physical;
	u32 job;
	u32 piece;
	/* How much is still wanted of the stack, where it was begun, and where it ends. */
	u64 wanted;
	u64 from;
	u64 end;
	/* How many stacks of the kernel were begun. */
	u32 kernel_stacks;
	/* Words that are free behind what the kernel saves. */
	u32 room;
	/* How many bytes were copied. */
	u32 used;
	u32 unused;
};

struct scratch {
	struct captured captured;
	/* Room for a whole page behind wherever the last one begins. */
	u8 slack[PAGE];
	struct walk walk;
};

/* Where the guest's monitor, which is the current process, has a byte of the guest's memory; 0 where it has none. */
SUBPROGRAM u64 host_address(struct walk *walk)
{
	u64 frame = walk->physical / PAGE;

	walk->node = walk->tree;
	for (int depth = 0; depth < MOST_DEPTH; depth++) {
		u64 slot = walk->node - walk->node_in_slot;

		/* Most are in the slot of the one before. */
		if (frame - walk->first_frame < walk->pages)
			return walk->host_address + (walk->physical - walk->first_frame * PAGE);
		if (!walk->node)
			break;
		probe_read_kernel(&walk->first_frame, sizeof(u64), slot + layout.slot_first_frame);
		probe_read_kernel(&walk->pages, sizeof(u64), slot + layout.slot_pages);
		probe_read_kernel(&walk->host_address, sizeof(u64), slot + layout.slot_host_address);
		probe_read_kernel(&walk->node, sizeof(u64), walk->node + (frame < walk->first_frame ? layout.node_left : layout.node_right));
	}
	return 0;
}

/* Begins to look up an address. */
ALWAYS_INLINE void look_up(struct walk *walk, u64 address)
{
	u32 shift = 12 + 9 * (walk->levels - 1);

	walk->address = address;
	walk->shift = shift;
	walk->physical = (walk->root & FRAME) + ((address >> shift & 511) << 3);
}

ALWAYS_INLINE u64 stack_end(u64 address)
{
	u64 size = address >> ENTRY_AREA_BITS == ENTRY_AREA >> ENTRY_AREA_BITS ? PAGE : KERNEL_STACK;

	return (address & ~(size - 1)) + size;
}

ALWAYS_INLINE void copy_stack(struct scratch *scratch, u32 number, u64 from, u64 end)
{
	struct walk *walk = &scratch->walk;

	if (number >= PIECES)
		return;
	scratch->captured.pieces[number].address = from;
	scratch->captured.pieces[number].of_process = number == PIECES - 1;
	walk->piece = number;
	walk->from = from;
	walk->end = end;
	walk->wanted = end - from < layout.stack_bytes ? end - from : layout.stack_bytes;
	walk->job = COPY;
	look_up(walk, from);
}

ALWAYS_INLINE void copy_kernel_stack(struct scratch *scratch, u64 pointer)
{
	scratch->walk.kernel_stacks++;
	scratch->walk.room = 0;
	copy_stack(scratch, scratch->walk.kernel_stacks - 1, pointer, stack_end(pointer));
}

ALWAYS_INLINE void copy_process_stack(struct scratch *scratch, u64 pointer)
{
	/* The lower half is the process's. */
	if (pointer >> 47 || pointer < RED_ZONE)
		scratch->walk.job = DONE;
	else
		copy_stack(scratch, PIECES - 1, pointer - RED_ZONE, 1ULL << 47);
}

ALWAYS_INLINE void read_frame(struct walk *walk)
{
	walk->job = FRAME_READ;
	look_up(walk, walk->end - 16 * walk->room - 8 * FRAME_WORDS);
}

/* Goes on to what comes after a job, which found something or did not. */
SUBPROGRAM void go_on(struct scratch *scratch, u32 found, u64 value)
{
	struct walk *walk = &scratch->walk;

	if (walk->job == COPY && walk->piece < PIECES - 1) {
		read_frame(walk);
	} else if (walk->job == FRAME_READ && found && walk->end - walk->from >= INTERRUPT_FRAME) {
		/* What lies below the stack's pointer is left from earlier. */
		scratch->captured.has_frame = 1;
		copy_process_stack(scratch, scratch->captured.frame[FRAME_SP]);
	} else if (walk->job == FRAME_READ && walk->room == 0) {
		/* Kernels that can use FRED leave two words free behind it. */
		walk->room = 1;
		read_frame(walk);
	} else if (walk->job == FRAME_READ && walk->kernel_stacks == 1) {
		walk->job = LINK;
		look_up(walk, walk->end - 8);
	} else if (walk->job == LINK && found && value >> 63 && stack_end(value) != walk->end) {
		copy_kernel_stack(scratch, value);
	} else {
		walk->job = DONE;
	}
}

/* Copies what of a stack is in one page; more is wanted if that returns 1. */
ALWAYS_INLINE u32 copy_page(struct scratch *scratch, u64 host)
{
	struct walk *walk = &scratch->walk;
	/* All of 64 bits: verifiers of Linux 6.1 forget what they know of the lower half of a register. */
	u64 length = PAGE - (walk->address & (PAGE - 1)), used = walk->used, piece = walk->piece;

	if (length > walk->wanted)
		length = walk->wanted;
	/* For the verifier, which does not follow what was computed. */
	OPAQUE(length);
	OPAQUE(used);
	OPAQUE(piece);
	if (length > PAGE || used > MOST || piece >= PIECES ||
	    probe_read_user(scratch->captured.bytes + used, length, host))
		return 0;
	scratch->captured.pieces[piece].length += length;
	walk->used += length;
	walk->wanted -= length;
	look_up(walk, walk->address + length);
	return walk->wanted != 0;
}

/* One access to the guest's memory. */
SUBPROGRAM void step(struct scratch *scratch)
{
	struct walk *walk = &scratch->walk;
	u64 host = host_address(walk), value = 0, within;
	u32 shift = walk->shift, found = 0;

	if (!host) {
	} else if (shift) {
		probe_read_user(&value, sizeof(value), host);
		if (value & PRESENT && (walk->piece < PIECES - 1 || value & USER)) {
			if (shift > 12 && !(value & LARGE)) {
				walk->shift = shift - 9;
				walk->physical = (value & FRAME) + ((walk->address >> (shift - 9) & 511) << 3);
				return;
			}
			if (shift <= 30) {
				within = (1ULL << shift) - 1;
				walk->shift = 0;
				walk->physical = (value & FRAME & ~within) | (walk->address & within);
				return;
			}
		}
	} else if (walk->job == COPY) {
		if (copy_page(scratch, host))
			return;
	} else if (walk->job == FRAME_READ) {
		/* It lies in one page. */
		found = !probe_read_user(scratch->captured.frame, sizeof(scratch->captured.frame), host) &&
			(scratch->captured.frame[FRAME_CS] & 0xffff) == USER_CS;
	} else {
		found = !probe_read_user(&value, sizeof(value), host);
	}
	go_on(scratch, found, value);
}

/* Copies the tops of the stacks of a guest in long mode. */
ALWAYS_INLINE void copy_stacks(struct scratch *scratch, u64 vcpu, u64 vmcb)
{
	struct captured *captured = &scratch->captured;
	struct walk *walk = &scratch->walk;
	u64 slots = kernel_u64(kernel_u64(vcpu + layout.vcpu_kvm) + layout.kvm_slots);
	u64 pointer = captured->registers[RSP];

	if (!(kernel_u64(vmcb + VMCB_EFER) & EFER_LMA))
		return;
	walk->tree = kernel_u64(slots + layout.slots_tree);
	walk->node_in_slot =
		layout.slot_nodes + (kernel_u32(slots + layout.slots_node_index) & 1) * layout.node_bytes;
	walk->pages = 0;
	walk->root = captured->nested_paging ? captured->vmcb_cr3 : captured->cr3;
	walk->levels = kernel_u64(vmcb + VMCB_CR4) & CR4_LA57 ? 5 : 4;
	walk->kernel_stacks = 0;

	if (captured->privilege == 3)
		copy_process_stack(scratch, pointer);
	else if (pointer >> 63)
		copy_kernel_stack(scratch, pointer);
	else
		return;
	for (int steps = 0; steps < (int)MOST_STEPS(layout.stack_bytes) && walk->job != DONE; steps++)
		step(scratch);
}

/* Returns 0 to drop the sample, 1 to keep it. */
SECTION("program") int on_sample(void *context)
{
	u64 notifier = kernel_u64(get_current_task() + layout.task_notifier);
	u32 cpu = get_smp_processor_id(), length;
	struct captured *captured;
	struct scratch *place;
	u64 vcpu, vmcb;

	/* Only KVM has itself told when a thread is preempted, and only while it runs a vCPU. */
	if (!notifier)
		return 1;
	place = map_lookup_elem(&scratch, &cpu);
	if (!place)
		return 1;
	captured = &place->captured;

	vcpu = notifier - layout.vcpu_notifier;
	captured->vcpu = vcpu;
	captured->vcpu_id = kernel_u32(vcpu + layout.vcpu_id);
	probe_read_kernel(captured->registers, sizeof(captured->registers), vcpu + layout.vcpu_registers);
	captured->cr3 = kernel_u64(vcpu + layout.vcpu_cr3);
	captured->has_vmcb = 0;
	captured->has_frame = 0;
	for (int number = 0; number < PIECES; number++)
		captured->pieces[number].length = 0;
	place->walk.used = 0;
	if (layout.vcpu_vmcb) {
		vmcb = kernel_u64(vcpu + layout.vcpu_vmcb);
		captured->vmcb_rip = kernel_u64(vmcb + VMCB_RIP);
		captured->vmcb_cr3 = kernel_u64(vmcb + VMCB_CR3);
		captured->privilege = kernel_u8(vmcb + VMCB_CPL);
		captured->nested_paging = kernel_u8(vmcb + VMCB_NESTED_CONTROL) & 1;
		captured->has_vmcb = 1;
		if (layout.stack_bytes)
			copy_stacks(place, vcpu, vmcb);
	}
	/* Whoever reads the buffer counts on finding both or none. */
	length = sizeof(*captured) - MOST + place->walk.used;
	OPAQUE(length);
	if (length > sizeof(*captured))
		return 1;
	return perf_event_output(context, &buffers, CURRENT_CPU, captured, length) == 0;
}
