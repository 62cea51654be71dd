/*
 * Leaves a hardware guest for its hypervisor all the time, and from one function: CPUID is answered by the hypervisor.
 * What works there on behalf of the guest has exactly one chain of callers below it: ask, keep_asking, main.
 *
 *     exits [TURNS]
 *
 * With a number it asks 1,000 times in each of so many turns, half a second apart, and writes 100 bytes to a port that nothing
 * listens to, which the virtual machine's monitor answers (function put). Then it says so and does nothing more.
 */
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <unistd.h>

#define WORKER __attribute__((noipa)) static

/* Where firmware tells how far it is. */
#define PORT 0x80

static volatile unsigned sink;

WORKER void ask(void)
{
	for (int call = 0; call < 1000; call++) {
		unsigned a, b, c, d;

		__cpuid_count(0, 0, a, b, c, d);
		sink += a ^ b ^ c ^ d;
	}
}

WORKER void put(void)
{
	for (int byte = 0; byte < 100; byte++)
		outb(byte, PORT);
	sink++;
}

WORKER void keep_asking(void)
{
	for (int turn = 0; turn < 1000; turn++)
		ask();
	/* What follows the call keeps it from becoming a jump. */
	sink++;
}

int main(int count, char **arguments)
{
	if (count == 2) {
		int turns = atoi(arguments[1]);

		if (iopl(3) != 0) {
			perror("exits: iopl");
			return 1;
		}
		for (int turn = 0; turn < turns; turn++) {
			ask();
			put();
			usleep(500000);
		}
		printf("exits: %d CPUID, %d OUT\n", turns * 1000, turns * 100);
		fflush(stdout);
		for (;;)
			pause();
	}
	for (;;)
		keep_asking();
}
