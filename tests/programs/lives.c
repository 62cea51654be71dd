/*
 * Processes that come and go: a child works for a while as `first`, then executes this program as `second`, works for a
 * while longer and ends; then comes the next. Numbers of processes are few, so that they serve again and again.
 *
 * Each works at an address that tells its number and which of the two it is: a page for each number. All else that they
 * execute is in the program itself, where nothing else is: time is asked of the kernel, not of its page of functions.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FIRST 0x100000000
#define SECOND 0x200000000
#define PAGE 4096
/* After the first round, the kernel gives out none below 300. */
#define NUMBERS "304"
#ifndef LIFE_MS
#define LIFE_MS 3000
#endif

static void must(int done, const char *what)
{
	if (!done) {
		perror(what);
		exit(1);
	}
}

static long now_ms(void)
{
	struct timespec now;
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void work(unsigned long base)
{
	/* mov %rdi,%rcx; 1: dec %rcx; jnz 1b; ret */
	static const unsigned char code[] = { 0x48, 0x89, 0xf9, 0x48, 0xff, 0xc9, 0x75, 0xfb, 0xc3 };
	void *page = (void *)(base + getpid() * PAGE);
	int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	must(mmap(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, kind, -1, 0) == page, "mmap");
	memcpy(page, code, sizeof code);
	long end = now_ms() + LIFE_MS;
	while (now_ms() < end)
		((void (*)(long))page)(20000);
}

static void live(char *program)
{
	prctl(PR_SET_NAME, "first");
	work(FIRST);
	execl("/proc/self/exe", program, "second", NULL);
	must(0, "execute");
}

int main(int count, char **arguments)
{
	if (count > 1) {
		prctl(PR_SET_NAME, arguments[1]);
		work(SECOND);
		return 0;
	}
	FILE *numbers = fopen("/proc/sys/kernel/pid_max", "w");
	must(numbers && fputs(NUMBERS, numbers) > 0 && fclose(numbers) == 0, "pid_max");
	for (;;) {
		pid_t child = fork();
		/* The kernel's own threads may have all numbers for a moment. */
		if (child < 0)
			usleep(10000);
		if (child == 0) {
			if (getpid() >= 300)
				live(arguments[0]);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}
