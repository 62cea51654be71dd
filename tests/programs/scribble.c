/*
 * scribble FRAME SECONDS: an enemy in dom0. Writes random words over everything that the shim lets dom0 write, for some
 * seconds; FRAME is the control page's, from the payload's metadata. Fails if more than that can be mapped for writing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define DOMID_XEN 0x7ff2
#define MOST_RINGS 64

/* abi/src/control.rs */
enum { MAGIC, VERSION, RINGS, LIST, LEASE };
enum { HEADER, CONSUMER, DATA_PAGES, DATA = 8 };

struct mmapbatch_v2 {
	uint32_t count;
	uint16_t domain;
	uint64_t address;
	const uint64_t *frames;
	int *errors;
};
#define IOCTL_PRIVCMD_MMAPBATCH_V2 _IOC(_IOC_NONE, 'P', 4, sizeof(struct mmapbatch_v2))

static int privcmd;

static volatile uint64_t *map(uint64_t frame, int protection)
{
	void *page = mmap(NULL, PAGE, protection, MAP_SHARED, privcmd, 0);
	if (page == MAP_FAILED)
		return NULL;
	int error = 0;
	struct mmapbatch_v2 batch = { 1, DOMID_XEN, (uint64_t)page, &frame, &error };
	if (ioctl(privcmd, IOCTL_PRIVCMD_MMAPBATCH_V2, &batch) || error) {
		munmap(page, PAGE);
		return NULL;
	}
	return page;
}

static volatile uint64_t *must_map(uint64_t frame, int protection)
{
	volatile uint64_t *page = map(frame, protection);
	if (!page) {
		fprintf(stderr, "frame %#lx can't be mapped\n", frame);
		exit(1);
	}
	return page;
}

static void must_not_be_writable(const char *what, uint64_t frame)
{
	if (map(frame, PROT_READ | PROT_WRITE)) {
		fprintf(stderr, "%s can be mapped for writing\n", what);
		exit(1);
	}
	printf("%s: read-only\n", what);
}

static uint64_t draw(void)
{
	static uint64_t state = 0x9e3779b97f4a7c15;
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

/* Near what is there, or anything at all. */
static uint64_t word(uint64_t now)
{
	switch (draw() % 6) {
	case 0: return 0;
	case 1: return ~0ul;
	case 2: return now + draw() % 1024 - 512;
	case 3: return now ^ 1ul << draw() % 64;
	case 4: return draw() % 4;
	default: return draw();
	}
}

int main(int count, char **arguments)
{
	volatile uint64_t *writable[MOST_RINGS + 1];
	int pages = 0;

	if (count != 3)
		return 2;
	privcmd = open("/dev/xen/privcmd", O_RDWR);
	uint64_t frame = strtoul(arguments[1], NULL, 16);
	volatile uint64_t *control = must_map(frame, PROT_READ);
	if (memcmp((const void *)control, "XSCOPE01", 8) || control[RINGS] > MOST_RINGS) {
		fprintf(stderr, "frame %#lx is no control page\n", frame);
		return 1;
	}
	must_not_be_writable("the control page", frame);
	must_not_be_writable("the list", control[LIST]);
	writable[pages++] = must_map(control[LEASE], PROT_READ | PROT_WRITE);
	volatile uint64_t *list = must_map(control[LIST], PROT_READ);
	for (uint64_t ring = 0; ring < control[RINGS]; ring++) {
		volatile uint64_t *directory = must_map(list[ring], PROT_READ);
		must_not_be_writable("a directory", list[ring]);
		must_not_be_writable("a header", directory[HEADER]);
		must_not_be_writable("data", directory[DATA]);
		writable[pages++] = must_map(directory[CONSUMER], PROT_READ | PROT_WRITE);
	}
	time_t end = time(NULL) + atol(arguments[2]);
	unsigned long written = 0;
	while (time(NULL) < end) {
		for (int burst = 0; burst < 2000; burst++, written++) {
			volatile uint64_t *page = writable[draw() % pages];
			/* The first words are those with a meaning. */
			uint64_t place = draw() % (draw() % 4 ? 8 : WORDS);
			page[place] = word(page[place]);
		}
		usleep(draw() % 1000);
	}
	printf("words written: %lu\n", written);
	return 0;
}
