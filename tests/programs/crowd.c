/*
 * A process of which much can be told: threads with names of their own, one of them with what terminals would obey; files
 * that are mapped under odd names, or were deleted since; shared and anonymous memory; a heap; a program of BPF.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define THREADS 40

static void *wait_named(void *name)
{
	prctl(PR_SET_NAME, name);
	for (;;)
		pause();
}

static void map(const char *path, int kind, int doomed)
{
	int file = open(path, O_RDWR | O_CREAT, 0600);
	if (file < 0 || ftruncate(file, 3 * PAGE) != 0)
		exit(1);
	char *content = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, kind, file, 0);
	/* A hole is left in the middle. */
	content[0] = content[2 * PAGE] = 'x';
	if (doomed)
		unlink(path);
}

static void load_bpf(void)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr program = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = (unsigned long)code,
		.insn_cnt = 2,
		.license = (unsigned long)"GPL",
		.prog_name = "crowd_filter",
	};
	if (syscall(SYS_bpf, BPF_PROG_LOAD, &program, sizeof(program)) < 0)
		exit(1);
}

int main(void)
{
	pthread_t thread;
	char *names[] = { "worker", "\033[31mred\nline", "a name of 15 by", "" };
	for (int i = 0; i < THREADS; i++)
		pthread_create(&thread, NULL, wait_named, names[i % 4]);
	map("/tmp/plain", MAP_SHARED, 0);
	map("/tmp/two\nlines", MAP_PRIVATE, 0);
	map("/tmp/deleted", MAP_SHARED, 1);
	mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* Enough ranges for a tree of more than one level, none of which can be merged with its neighbours. */
	for (int i = 0; i < 300; i++)
		mmap(NULL, PAGE, i % 2 ? PROT_READ : PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	load_bpf();
	*(volatile char *)malloc(1000) = 'x';
	wait_named("crowd");
}
