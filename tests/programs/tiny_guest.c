/*
 * A virtual machine on KVM without an operating system, in a VMM that is not QEMU: its one virtual CPU works in ring 0
 * at the kernel's half of the addresses and in ring 3 at the user's half, in turns, and keeps the time of both by its
 * own time-stamp counter. So it is known what a profiler should find, and where.
 *
 *     tiny_guest SECONDS USER_ROUNDS KERNEL_ROUNDS [LATER]
 *
 * LATER seconds after its beginning it is given a second virtual CPU, which goes round in the ring 0 loop and accounts
 * nothing.
 *
 * It prints where the two loops lie and, at the end, the turns and the ticks of either ring. Both loops have callers
 * with frame pointers. Where there is no usable /dev/kvm it says so and ends with status 77.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NOT_HERE 77
#define MEMORY 0x200000

/* Where things are in the guest's physical memory; ring 0 sees all of it from KERNEL on, ring 3 its two pages from USER
   on. */
enum { ROOT = 0x1000, UPPER_KERNEL = 0x2000, LOWER_KERNEL = 0x3000, UPPER_USER = 0x4000, LOWER_USER = 0x5000,
       PAGES_USER = 0x6000, SEGMENTS = 0x7000, TASK_STATE = 0x8000, GATES = 0x9000, KERNEL_STACK = 0xb000,
       CONTROL = 0xc000, USER_STACK = 0xd000, KERNEL_CODE = 0x10000, USER_CODE = 0x11000 };
#define KERNEL 0xffffffff80000000UL
#define KERNEL_STACK_END (KERNEL + KERNEL_STACK + 0x1000)
#define USER 0x400000UL

/* Of a page table's entries. */
enum { PRESENT = 1, WRITABLE = 2, FOR_USER = 4, LARGE = 0x80 };
/* Selectors, with the ring that they are for. */
enum { KERNEL_CS = 0x10, KERNEL_DS = 0x18, USER_DS = 0x2b, USER_CS = 0x33, TASK = 0x40 };
/* The fault by which ring 3 calls ring 0: one that all ways of running a guest handle alike. */
enum { INVALID_OPCODE = 6 };

/* What VMM and guest tell each other. */
struct control {
	uint64_t kernel_rounds, user_rounds, kernel_ticks, user_ticks, turns, last_change;
};

extern const char kernel_start[], kernel_call[], k_hot[], kernel_end[], user_start[], u_hot[], user_end[];

/*
 * The guest's code. It is copied, so that its own addresses must be relative; the control page, KERNEL + CONTROL, is
 * told by numbers whose sign is extended.
 */
__asm__(
	".pushsection .rodata\n"
	".set kernel_rounds, 0xffffffff8000c000\n"
	".set user_rounds, 0xffffffff8000c008\n"
	".set kernel_ticks, 0xffffffff8000c010\n"
	".set user_ticks, 0xffffffff8000c018\n"
	".set turns, 0xffffffff8000c020\n"
	".set last_change, 0xffffffff8000c028\n"

	".macro now\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	".endm\n"

	/* Adds the time since the last change of rings. */
	".macro account ticks\n"
	"	now\n"
	"	mov %rax, %rcx\n"
	"	sub last_change, %rcx\n"
	"	add %rcx, \\ticks\n"
	"	mov %rax, last_change\n"
	".endm\n"

	".balign 64\n"
	"kernel_start:\n"
	"	now\n"
	"	mov %rax, last_change\n"
	"0:	xor %ebp, %ebp\n"
	"	call k_main\n"
	"	account kernel_ticks\n"
	"	pushq $0x2b\n"     /* USER_DS */
	"	pushq $0x402000\n" /* the end of the stack */
	"	pushq $0x202\n"    /* interrupts may come */
	"	pushq $0x33\n"     /* USER_CS */
	"	pushq $0x400000\n" /* USER */
	"	mov user_rounds, %rdi\n"
	"	iretq\n"
	"kernel_call:\n"
	"	add $40, %rsp\n" /* no return to what has faulted */
	"	account user_ticks\n"
	"	incq turns\n"
	"	jmp 0b\n"
	"k_main:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	mov kernel_rounds, %rdi\n"
	"	call k_hot\n"
	"	pop %rbp\n"
	"	ret\n"
	".balign 64\n"
	"k_hot:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"0:	dec %rdi\n"
	"	jnz 0b\n"
	"	pop %rbp\n"
	"	ret\n"
	"kernel_end:\n"

	".balign 64\n"
	"user_start:\n"
	"	xor %ebp, %ebp\n"
	"	call u_main\n"
	"	ud2\n"
	"u_main:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	call u_hot\n"
	"	pop %rbp\n"
	"	ret\n"
	".balign 64\n"
	"u_hot:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"0:	dec %rdi\n"
	"	jnz 0b\n"
	"	pop %rbp\n"
	"	ret\n"
	"user_end:\n"
	".popsection\n");

struct vcpu {
	int file;
	struct kvm_run *run;
};

static uint8_t *memory;
static int kvm, machine;

static void must(int done, const char *what)
{
	if (!done) {
		fprintf(stderr, "tiny_guest: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void put(uint64_t page, unsigned index, uint64_t value)
{
	((uint64_t *)(memory + page))[index] = value;
}

static void fill_memory(uint64_t user_rounds, uint64_t kernel_rounds)
{
	struct control *control = (struct control *)(memory + CONTROL);
	control->kernel_rounds = kernel_rounds;
	control->user_rounds = user_rounds;
	memcpy(memory + KERNEL_CODE, kernel_start, kernel_end - kernel_start);
	memcpy(memory + USER_CODE, user_start, user_end - user_start);
	put(ROOT, KERNEL >> 39 & 511, UPPER_KERNEL | PRESENT | WRITABLE);
	put(UPPER_KERNEL, KERNEL >> 30 & 511, LOWER_KERNEL | PRESENT | WRITABLE);
	put(LOWER_KERNEL, KERNEL >> 21 & 511, PRESENT | WRITABLE | LARGE);
	put(ROOT, 0, UPPER_USER | PRESENT | WRITABLE | FOR_USER);
	put(UPPER_USER, 0, LOWER_USER | PRESENT | WRITABLE | FOR_USER);
	put(LOWER_USER, USER >> 21, PAGES_USER | PRESENT | WRITABLE | FOR_USER);
	put(PAGES_USER, 0, USER_CODE | PRESENT | FOR_USER);
	put(PAGES_USER, 1, USER_STACK | PRESENT | WRITABLE | FOR_USER);
	put(SEGMENTS, KERNEL_CS / 8, 0x00af9b000000ffff);
	put(SEGMENTS, KERNEL_DS / 8, 0x00cf93000000ffff);
	put(SEGMENTS, USER_DS / 8, 0x00cff3000000ffff);
	put(SEGMENTS, USER_CS / 8, 0x00affb000000ffff);
	uint64_t task = KERNEL + TASK_STATE, gate = KERNEL + KERNEL_CODE + (kernel_call - kernel_start);
	put(SEGMENTS, TASK / 8, 0x00008b0000000067 | (task & 0xffffff) << 16 | (task >> 24 & 0xff) << 56);
	put(SEGMENTS, TASK / 8 + 1, task >> 32);
	put(GATES, INVALID_OPCODE * 2, (gate & 0xffff) | KERNEL_CS << 16 | 0x8eUL << 40 | (gate >> 16 & 0xffff) << 48);
	put(GATES, INVALID_OPCODE * 2 + 1, gate >> 32);
	uint64_t stack = KERNEL_STACK_END;
	memcpy(memory + TASK_STATE + 4, &stack, sizeof stack);
}

static void set_registers(const struct vcpu *vcpu, struct kvm_regs registers)
{
	struct kvm_sregs special;
	must(ioctl(vcpu->file, KVM_GET_SREGS, &special) == 0, "KVM_GET_SREGS");
	special.cr3 = ROOT;
	special.cr4 = 0x620;      /* PAE, OSFXSR, OSXMMEXCPT */
	special.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
	special.efer = 0x500;     /* LMA, LME */
	special.gdt.base = KERNEL + SEGMENTS;
	special.gdt.limit = TASK + 15;
	special.idt.base = KERNEL + GATES;
	special.idt.limit = 0xfff;
	struct kvm_segment segment = { .limit = 0xffffffff, .present = 1, .s = 1, .g = 1 };
	segment.selector = KERNEL_CS, segment.type = 11, segment.l = 1;
	special.cs = segment;
	segment.selector = KERNEL_DS, segment.type = 3, segment.l = 0, segment.db = 1;
	special.ds = special.es = special.fs = special.gs = special.ss = segment;
	special.tr = (struct kvm_segment){
		.base = KERNEL + TASK_STATE, .limit = 0x67, .selector = TASK, .type = 11, .present = 1
	};
	special.ldt = (struct kvm_segment){ .unusable = 1 };
	must(ioctl(vcpu->file, KVM_SET_SREGS, &special) == 0, "KVM_SET_SREGS");
	must(ioctl(vcpu->file, KVM_SET_REGS, &registers) == 0, "KVM_SET_REGS");
}

static void make_machine(uint64_t user_rounds, uint64_t kernel_rounds)
{
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	machine = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	if (machine < 0) {
		fprintf(stderr, "tiny_guest: no usable /dev/kvm: %s\n", strerror(errno));
		exit(NOT_HERE);
	}
	ioctl(machine, KVM_SET_TSS_ADDR, 0xfffbd000UL); /* of interest on Intel only */
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED, "mmap of the guest's memory");
	fill_memory(user_rounds, kernel_rounds);
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory };
	must(ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region) == 0, "KVM_SET_USER_MEMORY_REGION");
}

static void *run_vcpu(void *argument)
{
	const struct vcpu *vcpu = argument;
	printf("tiny_guest: process %d, vCPU thread %ld\n", getpid(), syscall(SYS_gettid));
	for (;;) {
		if (ioctl(vcpu->file, KVM_RUN, 0) < 0 && errno != EINTR)
			must(0, "KVM_RUN");
		if (vcpu->run->exit_reason != KVM_EXIT_INTR && vcpu->run->exit_reason != KVM_EXIT_UNKNOWN) {
			fprintf(stderr, "tiny_guest: the guest stopped, for KVM's reason %u\n", vcpu->run->exit_reason);
			exit(1);
		}
	}
}

/* Adds a virtual CPU and has it run, in a thread that is called as QEMU's are. */
static void add_vcpu(struct vcpu *vcpu, int number, struct kvm_regs registers)
{
	vcpu->file = ioctl(machine, KVM_CREATE_VCPU, number);
	must(vcpu->file >= 0, "KVM_CREATE_VCPU");
	vcpu->run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->file, 0);
	must(vcpu->run != MAP_FAILED, "mmap of the virtual CPU");
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head = { .nent = 256 } };
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) == 0, "KVM_GET_SUPPORTED_CPUID");
	must(ioctl(vcpu->file, KVM_SET_CPUID2, &cpuid) == 0, "KVM_SET_CPUID2");
	set_registers(vcpu, registers);
	pthread_t thread;
	must(pthread_create(&thread, NULL, run_vcpu, vcpu) == 0, "pthread_create");
	char name[16];
	snprintf(name, sizeof(name), "CPU %d/KVM", number);
	pthread_setname_np(thread, name);
}

static void pass(long seconds)
{
	struct timespec left = { .tv_sec = seconds };
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

static void tell(const char *name, uint64_t base, const char *start, const char *function, const char *end)
{
	printf("tiny_guest: %s 0x%lx-0x%lx\n", name, base + (function - start), base + (end - start));
}

int main(int count, char **arguments)
{
	if (count < 4 || count > 5 || atol(arguments[2]) < 1 || atol(arguments[3]) < 1) {
		fprintf(stderr, "usage: tiny_guest SECONDS USER_ROUNDS KERNEL_ROUNDS [LATER]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_machine(strtoull(arguments[2], NULL, 0), strtoull(arguments[3], NULL, 0));
	tell("k_hot", KERNEL + KERNEL_CODE, kernel_start, k_hot, kernel_end);
	tell("u_hot", USER, user_start, u_hot, user_end);
	static struct vcpu first, second;
	add_vcpu(&first, 0, (struct kvm_regs){ .rip = KERNEL + KERNEL_CODE, .rsp = KERNEL_STACK_END, .rflags = 2 });
	long later = count > 4 ? atol(arguments[4]) : 0;
	if (later) {
		pass(later);
		/* The first one uses little of the stack's page; the loop's count does not come to its end. */
		add_vcpu(&second, 1, (struct kvm_regs){ .rip = KERNEL + KERNEL_CODE + (k_hot - kernel_start),
							 .rsp = KERNEL_STACK_END - 0x800, .rdi = -1, .rflags = 2 });
	}
	pass(atol(arguments[1]) - later);
	const volatile struct control *control = (struct control *)(memory + CONTROL);
	printf("tiny_guest: turns %lu, ticks in user mode %lu, in kernel mode %lu\n", control->turns,
	       control->user_ticks, control->kernel_ticks);
	return 0;
}
