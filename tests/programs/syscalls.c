/*
 * Spends nearly all of its time in the kernel: a call that does next to nothing, one that clears memory, and a pair
 * that passes data through a pipe. Which function of the program asked for it is told by names that begin with NAME.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef NAME
#error "give a name: -DNAME=beta"
#endif
#define JOIN(name, suffix) name##_##suffix
#define FUNCTION(name, suffix) JOIN(name, suffix)
#define WORKER __attribute__((noinline, noclone))

static char buffer[4096];

static void must(int done, const char *what)
{
	if (!done) {
		perror(what);
		exit(1);
	}
}

/* By number: the C library might answer by itself. */
WORKER void FUNCTION(NAME, ask)(void)
{
	for (int call = 0; call < 64; call++)
		syscall(SYS_getppid);
}

WORKER void FUNCTION(NAME, clear)(int zero)
{
	for (int call = 0; call < 16; call++)
		must(read(zero, buffer, sizeof buffer) == sizeof buffer, "read /dev/zero");
}

WORKER void FUNCTION(NAME, pass)(const int ends[2])
{
	for (int call = 0; call < 16; call++) {
		must(write(ends[1], buffer, sizeof buffer) == sizeof buffer, "write to a pipe");
		must(read(ends[0], buffer, sizeof buffer) == sizeof buffer, "read from a pipe");
	}
}

int main(void)
{
	int ends[2];
	int zero = open("/dev/zero", O_RDONLY);
	must(zero >= 0, "/dev/zero");
	must(pipe(ends) == 0, "pipe");
	for (;;) {
		FUNCTION(NAME, ask)();
		FUNCTION(NAME, clear)(zero);
		FUNCTION(NAME, pass)(ends);
	}
}
