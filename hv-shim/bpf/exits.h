/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the two programs that count exits have between them (hv-shim/src/kvm/bpf/exits.rs): the exit that a thread's vCPU is
 * out for, and what all of them came to.
 */
#pragma once

#include "kernel.h"

/* Which exits are counted together. There are no gaps: what lies in them would be part of the key. */
struct exit {
	u64 instruction_pointer;
	/* The root of the guest's page tables, as far as the kernel has it. */
	u64 root;
	/* KVM's word for it, which is the processor's. */
	u64 reason;
	/* The monitor's process and the thread. */
	u32 process;
	u32 thread;
	u32 vcpu_id;
	/* Whether the processor's control block was read, and the privilege level that it tells. */
	u8 has_vmcb;
	u8 privilege;
	/* Whether there is a control block that tells of another instruction. */
	u8 strange;
	u8 unused;
	/* Rows are read, and deleted, after their turn: nothing is added to them by then. */
	u64 turn;
};

struct pending {
	struct exit exit;
	/* Numbers of threads are given to others: theirs is another vCPU. */
	u64 vcpu;
	/* When the guest was left; 0 while it runs. */
	u64 since;
};

struct cost {
	u64 count;
	u64 total_ns;
	u64 longest_ns;
};

struct books {
	/* Exits for which there was no room, and how long they took. */
	u64 dropped;
	u64 dropped_ns;
	/* Exits whose end was not seen. */
	u64 unpaired;
};

/* By thread; the least used makes room. */
extern struct map pending;
