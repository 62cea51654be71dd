/*
 * A plugin for QEMU that counts, for each CPU, the instructions executed at addresses of Xen's code and in all. The counts
 * are in a file that is shared with whoever reads it: a line of 64 bytes for each CPU, the two numbers in front.
 *
 *   -plugin file=PLUGIN,counts=FILE,cpus=N
 *
 * A block that is left in its middle, by a fault, counts as a whole.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * The part of qemu-plugin.h that is needed, version 1 of that interface: Debian has no package with the header.
 */
#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
enum registers { NO_REGISTERS };
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*translated)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*executed)(unsigned cpu, void *data),
					  enum registers flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);

/* Xen's image, stubs and livepatches (xen/include/asm-x86/config.h: XEN_VIRT_START and what is around it). */
#define XEN_FROM 0xffff82d000000000
#define XEN_TO 0xffff82e000000000

struct line {
	volatile uint64_t hypervisor, all, unused[6];
};
static struct line *counts;
static unsigned cpus;

/* A CPU is played by one thread at a time. */
static void in_xen(unsigned cpu, void *instructions)
{
	if (cpu < cpus) {
		counts[cpu].hypervisor += (uintptr_t)instructions;
		counts[cpu].all += (uintptr_t)instructions;
	}
}

static void elsewhere(unsigned cpu, void *instructions)
{
	if (cpu < cpus)
		counts[cpu].all += (uintptr_t)instructions;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
	uint64_t address = qemu_plugin_tb_vaddr(block);
	void *instructions = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(block, address >= XEN_FROM && address < XEN_TO ? in_xen : elsewhere,
					     NO_REGISTERS, instructions);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments)
{
	const char *path = NULL;

	(void)info;
	for (int i = 0; i < count; i++) {
		if (!strncmp(arguments[i], "counts=", 7))
			path = arguments[i] + 7;
		else if (!strncmp(arguments[i], "cpus=", 5))
			cpus = atoi(arguments[i] + 5);
	}
	size_t size = cpus * sizeof *counts;
	int file = path ? open(path, O_CREAT | O_TRUNC | O_RDWR, 0600) : -1;
	if (!size || file < 0 || ftruncate(file, size)) {
		perror("executed: the file of the counts");
		return -1;
	}
	counts = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (counts == MAP_FAILED)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
