/*
 * Counts how often it gets through the same piece of work, and prints about once a second how many turns it had in how
 * much time, by the clock and of the CPU: what a sampler takes from it shows as fewer turns.
 */
#include <stdio.h>
#include <time.h>

#define SECOND 1000000000L
#define ROUNDS 20000

static volatile unsigned long sink;

static long nanoseconds(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * SECOND + now.tv_nsec;
}

int main(void)
{
	long wall = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), turns = 0;

	for (;;) {
		for (long round = 0; round < ROUNDS; round++)
			sink += round;
		turns++;
		long now = nanoseconds(CLOCK_MONOTONIC);
		if (now - wall < SECOND)
			continue;
		long used = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
		printf("turns: %ld in %ld ns wall, %ld ns cpu\n", turns, now - wall, used - cpu);
		fflush(stdout);
		wall = now;
		cpu = used;
		turns = 0;
	}
}
