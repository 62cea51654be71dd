/*
 * Leaves a hardware guest for its hypervisor all the time, and from one function: CPUID is answered by the hypervisor.
 * What works there on behalf of the guest has exactly one chain of callers below it: ask, keep_asking, main.
 */
#include <cpuid.h>

#define WORKER __attribute__((noipa)) static

static volatile unsigned sink;

WORKER void ask(void)
{
	for (int call = 0; call < 1000; call++) {
		unsigned a, b, c, d;

		__cpuid_count(0, 0, a, b, c, d);
		sink += a ^ b ^ c ^ d;
	}
}

WORKER void keep_asking(void)
{
	for (int turn = 0; turn < 1000; turn++)
		ask();
	/* What follows the call keeps it from becoming a jump. */
	sink++;
}

int main(void)
{
	for (;;)
		keep_asking();
}
