/*
 * Works in step with a clock of 1 kHz: sleeps until a millisecond begins, then works for about 30 % of it. A profiler
 * whose samples keep the same step sees it always or never.
 *
 * Each second it prints the CPU time that the kernel has charged it with, which is what a profiler should find, and how
 * long it was in its only function that works, without what a reading of the clock takes. The amount of work is measured once at the start; `phaselock ROUNDS`
 * sets it instead.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define MILLISECOND 1000000L
#define SECOND (1000 * MILLISECOND)
#define PERCENT 30

static volatile unsigned long sink;

__attribute__((noinline, noclone)) void phaselock_work(long rounds)
{
	for (long round = 0; round < rounds; round++)
		sink += round;
}

static long nanoseconds(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * SECOND + now.tv_nsec;
}

static long charged(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * SECOND
	     + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

/* How long a reading of the clock takes: a hypervisor may play the time stamp counter itself. The shortest of several tries. */
static long measured_reading(void)
{
	long shortest = SECOND;
	for (int attempt = 0; attempt < 200; attempt++) {
		long start = nanoseconds(CLOCK_MONOTONIC);
		long duration = nanoseconds(CLOCK_MONOTONIC) - start;
		if (duration < shortest)
			shortest = duration;
	}
	return shortest;
}

/* The rounds that fill a share of a millisecond. The shortest of several tries: the others were interrupted. */
static long measured_rounds(void)
{
	const long rounds = 20000;
	long shortest = SECOND;
	for (int attempt = 0; attempt < 200; attempt++) {
		long start = nanoseconds(CLOCK_MONOTONIC);
		phaselock_work(rounds);
		long duration = nanoseconds(CLOCK_MONOTONIC) - start;
		if (duration > 0 && duration < shortest)
			shortest = duration;
	}
	return rounds * (MILLISECOND * PERCENT / 100) / shortest;
}

int main(int count, char **arguments)
{
	long rounds = count > 1 ? atol(arguments[1]) : measured_rounds();
	long reading = measured_reading();
	long wall = nanoseconds(CLOCK_MONOTONIC), cpu = charged(), work = 0;
	long next = wall - wall % MILLISECOND;

	printf("phaselock: %ld rounds a millisecond, %ld ns for the clock\n", rounds, reading);
	for (;;) {
		next += MILLISECOND;
		long now = nanoseconds(CLOCK_MONOTONIC);
		if (now > next) /* late: what was missed is left out, the step is kept */
			next += (now - next + MILLISECOND - 1) / MILLISECOND * MILLISECOND;
		struct timespec until = { next / SECOND, next % SECOND };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		long begun = nanoseconds(CLOCK_MONOTONIC);
		phaselock_work(rounds);

		now = nanoseconds(CLOCK_MONOTONIC);
		work += now - begun - reading;
		if (now - wall >= SECOND) {
			long used = charged();
			printf("phaselock: cpu %.3f s in %.3f s, work %.3f s\n", (double)(used - cpu) / SECOND,
			       (double)(now - wall) / SECOND, (double)work / SECOND);
			fflush(stdout);
			wall = now;
			cpu = used;
			work = 0;
		}
	}
}
