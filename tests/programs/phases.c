/* Four functions that share a program's time by known parts, one of them slowed down on demand.
 * phases SLOWDOWN SECONDS: look_up does SLOWDOWN times its work; prints how many rounds were done. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

/* The tag keeps the compiler from folding the functions into one. */
#define WORK(name, tag)                                               \
	__attribute__((noinline)) static void name(unsigned long n)   \
	{                                                             \
		unsigned long x = n | (tag);                          \
		for (unsigned long i = 0; i < n; i++) {               \
			x ^= x << 13;                                 \
			x ^= x >> 7;                                  \
			x ^= x << 17;                                 \
		}                                                     \
		sink += x;                                            \
	}
WORK(parse_request, 1)
WORK(compress_body, 3)
WORK(look_up, 5)
WORK(write_log, 7)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double slowdown = argc > 1 ? atof(argv[1]) : 1, seconds = argc > 2 ? atof(argv[2]) : 1;
	double end = now() + seconds;
	unsigned long rounds = 0;

	do {
		parse_request(3000);
		compress_body(5000);
		look_up((unsigned long)(2000 * slowdown));
		write_log(1000);
		rounds++;
	} while (now() < end);
	printf("%lu\n", rounds);
	return 0;
}
