// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs when a vCPU is about to enter its guest (the tracepoint kvm:kvm_entry), on its thread: adds what the exit before has
 * cost to its row.
 */
#include "exits.h"

extern struct map exits;
extern volatile struct books books;
/* Which turn it is: whoever reads the rows changes it. */
extern const volatile u64 turn;

SECTION("program") int on_entry(const u64 *arguments)
{
	u32 thread = get_current_pid_tgid();
	struct pending *left = map_lookup_elem(&pending, &thread);
	struct cost *cost, first;
	u64 ns;

	/* The first argument is the vCPU. */
	if (!left || !left->since || left->vcpu != arguments[0])
		return 0;
	ns = ktime_get_ns() - left->since;
	left->since = 0;
	left->exit.turn = turn;
	/* A row is its thread's alone, so that nobody else adds to it at the same time. */
	cost = map_lookup_elem(&exits, &left->exit);
	if (cost) {
		cost->count++;
		cost->total_ns += ns;
		if (ns > cost->longest_ns)
			cost->longest_ns = ns;
		return 0;
	}
	first.count = 1;
	first.total_ns = ns;
	first.longest_ns = ns;
	if (map_update_elem(&exits, &left->exit, &first, 0)) {
		__sync_fetch_and_add(&books.dropped, 1);
		__sync_fetch_and_add(&books.dropped_ns, ns);
	}
	return 0;
}
