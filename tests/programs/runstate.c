/*
 * Prints what Xen accounts to the virtual CPU that it runs on, whenever that has got its CPU anew: when that was, in
 * nanoseconds of Xen's time, and for how long it had run, waited for a CPU, been blocked and been offline by then. Once a
 * second, because dom0 wakes the guest for what it has printed: from another CPU, whose time need not be quite the same.
 *
 * Xen writes this into the guest kernel's memory (struct vcpu_runstate_info), where it is read through /proc/kcore. For
 * guests of one vCPU.
 */
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct runstate {
	int32_t state;
	uint64_t entered, times[4];
};

static int kcore;

static void die(const char *what)
{
	printf("runstate: %s\n", what);
	exit(1);
}

static uint64_t symbol(const char *wanted)
{
	FILE *symbols = fopen("/proc/kallsyms", "r");
	char name[256];
	unsigned long address;
	while (symbols && fscanf(symbols, "%lx %*c %255s%*[^\n]", &address, name) == 2)
		if (!strcmp(name, wanted)) {
			fclose(symbols);
			return address;
		}
	die(wanted);
	return 0;
}

/* Where the kernel's memory at an address is in the file. */
static off_t position(uint64_t address)
{
	Elf64_Ehdr header;
	if (pread(kcore, &header, sizeof header, 0) != sizeof header)
		die("no header");
	for (int i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr part;
		if (pread(kcore, &part, sizeof part, header.e_phoff + i * sizeof part) != sizeof part)
			die("no program header");
		if (part.p_type == PT_LOAD && address >= part.p_vaddr && address - part.p_vaddr < part.p_memsz)
			return part.p_offset + (address - part.p_vaddr);
	}
	die("not mapped");
	return 0;
}

static void read_at(off_t at, void *into, size_t bytes)
{
	if (pread(kcore, into, bytes, at) != (ssize_t)bytes)
		die("can't be read");
}

int main(void)
{
	kcore = open("/proc/kcore", O_RDONLY);
	if (kcore < 0)
		die("no /proc/kcore");
	uint64_t of_cpu;
	read_at(position(symbol("__per_cpu_offset")), &of_cpu, sizeof of_cpu);
	off_t at = position(symbol("xen_runstate") + of_cpu);
	static char lines[1 << 16];
	setvbuf(stdout, lines, _IOFBF, sizeof lines);
	uint64_t told = 0;
	for (int turn = 1;; turn++) {
		struct runstate now, again;
		do {
			read_at(at, &now, sizeof now);
			read_at(at, &again, sizeof again);
		} while (memcmp(&now, &again, sizeof now));
		if (now.entered != told) {
			printf("runstate %lu %lu %lu %lu %lu\n", now.entered, now.times[0], now.times[1], now.times[2],
			       now.times[3]);
			told = now.entered;
		}
		if (turn % 50 == 0)
			fflush(stdout);
		usleep(20000);
	}
}
