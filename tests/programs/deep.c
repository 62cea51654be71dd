/*
 * Keeps its stack as it is, and filled with what is told from the address: a copy of it can be checked word by word,
 * wherever and whenever it is taken. Now and then it asks the kernel for something, so that there are samples in there.
 */
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATTERN 0x5ca1ab1e00000000ull
#define WORDS 4096

/* Has no stack of its own above the red zone. */
__attribute__((noinline)) static void spin(void)
{
	for (;;) {
		for (unsigned long round = 0; round < 20000; round++)
			__asm__ volatile("");
		long number = SYS_sched_yield;
		__asm__ volatile("syscall" : "+a"(number) : : "rcx", "r11", "memory");
	}
}

int main(void)
{
	volatile uint64_t words[WORDS];
	for (int word = 0; word < WORDS; word++)
		words[word] = (uint64_t)&words[word] ^ PATTERN;
	spin();
	return (int)words[0];
}
