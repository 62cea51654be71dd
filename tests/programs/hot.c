/*
 * Burns 70, 20 and 10 % of its time in three functions whose names begin with NAME, so that a sample that went to the
 * wrong guest is told by its symbol.
 *
 * The work is shared out by the number of rounds of one and the same loop, not by a clock: what a profiler should find
 * does not depend on the speed of the machine. A turn takes well under a millisecond, so that the shares hold for any
 * stretch of time that is worth sampling.
 */
#ifndef NAME
#error "give a name: -DNAME=alpha"
#endif
#define JOIN(name, suffix) name##_##suffix
#define FUNCTION(name, suffix) JOIN(name, suffix)
#define WORKER __attribute__((noinline, noclone, aligned(64)))

/* The rounds that one percent of a turn gets. */
#define ROUNDS 60

static volatile unsigned long sink;

/*
 * The same instructions for each share; the tag keeps the functions from being folded into one. Each round waits for
 * the product of the one before it and touches no memory, so that it takes as long in one function as in another: what
 * is stored and loaded again is fast or slow as the processor has learnt it.
 */
#define WORK(percent, tag)                                             \
	unsigned long value = (tag);                                       \
	for (unsigned long round = 0; round < (percent) * ROUNDS; round++) \
		value = (value ^ round) * 0x9e3779b97f4a7c15;                  \
	sink = value;

WORKER void FUNCTION(NAME, hot)(void)
{
	WORK(70, 1)
}

WORKER void FUNCTION(NAME, warm)(void)
{
	WORK(20, 2)
}

WORKER void FUNCTION(NAME, cool)(void)
{
	WORK(10, 3)
}

WORKER void FUNCTION(NAME, turn)(void)
{
	FUNCTION(NAME, hot)();
	FUNCTION(NAME, warm)();
	FUNCTION(NAME, cool)();
	__asm__ volatile(""); /* keeps the last call from becoming a jump, which would hide its caller */
}

int main(void)
{
	for (;;)
		FUNCTION(NAME, turn)();
}
