/*
 * Points its stack at what it may not read, a while at each, and asks the kernel for something with it: whoever copies
 * the stacks of others must copy nothing there.
 */
#include <stdint.h>
#include <sys/syscall.h>

static const uint64_t pointers[] = {
	0x66600001000ull,	 /* nothing is mapped there */
	0x666fffffff8ull,
	0xffff888000001000ull, /* the kernel's map of all memory */
	0xffffffff81000000ull, /* its code */
	0xffffffffff600800ull, /* the page for system calls of old */
	0xffff82d040200000ull, /* Xen's code, as a paravirtualized guest sees it */
	0xffff830000100000ull, /* Xen's map of all memory */
	0x0000800000000000ull, /* no address at all */
	0xfffffffffffffff8ull,
	0x00007ffffffff001ull, /* the last page of a process, off by one */
};

int main(void)
{
	for (;;)
		for (unsigned int which = 0; which < sizeof pointers / sizeof *pointers; which++)
			for (int turn = 0; turn < 1000; turn++)
				__asm__ volatile("mov %%rsp, %%r12\n\t"
						 "mov %[pointer], %%rsp\n\t"
						 "mov $10000, %%ecx\n\t"
						 "1: dec %%ecx\n\t"
						 "jnz 1b\n\t"
						 "mov %[call], %%eax\n\t"
						 "syscall\n\t"
						 "mov %%r12, %%rsp"
						 :
						 : [pointer] "r"(pointers[which]), [call] "i"(SYS_sched_yield)
						 : "rax", "rcx", "r11", "r12", "memory");
}
