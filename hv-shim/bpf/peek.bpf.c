// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copies a piece of the kernel's memory out, when it is run by its loader.
 */
#include "kernel.h"

#define MOST 512

struct peeked {
	u64 failed;
	u8 bytes[MOST];
};

/* One such struct. */
extern struct map peeked;

SECTION("program") int on_order(const u64 *arguments)
{
	u64 address = arguments[0], length = arguments[1];
	u32 first = 0;
	struct peeked *out = map_lookup_elem(&peeked, &first);

	if (!out)
		return 0;
	if (length > MOST)
		length = MOST;
	out->failed = probe_read_kernel(out->bytes, length, address) != 0;
	return 0;
}
