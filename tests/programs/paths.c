/*
 * Calls functions by five paths, 8 to 40 of them deep. Each function is called by one other and from one place, so that
 * wherever a sample finds it, there is exactly one chain of callers: path8_3 is called by path8_4, and so on up to
 * path8_7, which main calls. The number behind the underscore counts from the leaf.
 */
/* Alike functions must not be folded into one. */
#define WORKER __attribute__((noipa)) static

static volatile unsigned long sink;

/* Most of the time is spent in leaves, the rest on every level. */
#define LEAF(path)                                       \
	WORKER long path##_0(long n)                     \
	{                                                \
		for (long round = 0; round < 4000; round++) \
			sink += round ^ n;               \
		return n;                                \
	}

/* Frames of several sizes. What follows the call keeps it from becoming a jump, which would hide its caller. */
#define LEVEL(path, level, callee)                              \
	WORKER long path##_##level(long n)                      \
	{                                                       \
		volatile long room[1 + (level) % 4];            \
		for (long round = 0; round < 100; round++)      \
			room[round % (1 + (level) % 4)] = n;    \
		return path##_##callee(n + 1) + room[0];        \
	}

#define TO_8(path) \
	LEVEL(path, 1, 0) LEVEL(path, 2, 1) LEVEL(path, 3, 2) LEVEL(path, 4, 3) \
	LEVEL(path, 5, 4) LEVEL(path, 6, 5) LEVEL(path, 7, 6)
#define TO_16(path) \
	TO_8(path) \
	LEVEL(path, 8, 7) LEVEL(path, 9, 8) LEVEL(path, 10, 9) LEVEL(path, 11, 10) \
	LEVEL(path, 12, 11) LEVEL(path, 13, 12) LEVEL(path, 14, 13) LEVEL(path, 15, 14)
#define TO_24(path) \
	TO_16(path) \
	LEVEL(path, 16, 15) LEVEL(path, 17, 16) LEVEL(path, 18, 17) LEVEL(path, 19, 18) \
	LEVEL(path, 20, 19) LEVEL(path, 21, 20) LEVEL(path, 22, 21) LEVEL(path, 23, 22)
#define TO_32(path) \
	TO_24(path) \
	LEVEL(path, 24, 23) LEVEL(path, 25, 24) LEVEL(path, 26, 25) LEVEL(path, 27, 26) \
	LEVEL(path, 28, 27) LEVEL(path, 29, 28) LEVEL(path, 30, 29) LEVEL(path, 31, 30)
#define TO_40(path) \
	TO_32(path) \
	LEVEL(path, 32, 31) LEVEL(path, 33, 32) LEVEL(path, 34, 33) LEVEL(path, 35, 34) \
	LEVEL(path, 36, 35) LEVEL(path, 37, 36) LEVEL(path, 38, 37) LEVEL(path, 39, 38)

#define PATH(depth) LEAF(path##depth) TO_##depth(path##depth)

PATH(8)
PATH(16)
PATH(24)
PATH(32)
PATH(40)

int main(void)
{
	for (;;) {
		sink += path8_7(sink);
		sink += path16_15(sink);
		sink += path24_23(sink);
		sink += path32_31(sink);
		sink += path40_39(sink);
	}
}
