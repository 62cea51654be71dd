/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs have of the kernel: helper functions by their numbers (include/uapi/linux/bpf.h), and nothing of
 * its headers. Where the kernel keeps things is found out when a program is loaded and comes in as constants.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SECTION(name) __attribute__((section(name), used))
/* Compiled once, however often it is called; in the programs' own section, so that a call is a distance. */
#define SUBPROGRAM static __attribute__((section("program"), noinline))
/* Nothing is known of a value any more. */
#define OPAQUE(value) __asm__ volatile("" : "+r"(value))
#define ALWAYS_INLINE static inline __attribute__((always_inline))

struct map;

static void *(*const map_lookup_elem)(struct map *map, const void *key) = (void *)1;
static long (*const map_update_elem)(struct map *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const ktime_get_ns)(void) = (void *)5;
static u64 (*const get_current_pid_tgid)(void) = (void *)14;
static long (*const perf_event_output)(void *context, struct map *map, u64 flags, void *data, u64 size) = (void *)25;
static u32 (*const get_smp_processor_id)(void) = (void *)8;
static u64 (*const get_current_task)(void) = (void *)35;
static long (*const probe_read_user)(void *to, u32 size, u64 from) = (void *)112;
static long (*const probe_read_kernel)(void *to, u32 size, u64 from) = (void *)113;

#define CURRENT_CPU 0xffffffffULL

ALWAYS_INLINE u64 kernel_u64(u64 address)
{
	u64 value = 0;

	probe_read_kernel(&value, sizeof(value), address);
	return value;
}

ALWAYS_INLINE u32 kernel_u32(u64 address)
{
	u32 value = 0;

	probe_read_kernel(&value, sizeof(value), address);
	return value;
}

ALWAYS_INLINE u8 kernel_u8(u64 address)
{
	u8 value = 0;

	probe_read_kernel(&value, sizeof(value), address);
	return value;
}

/* The state that an AMD processor saves of a guest (APM volume 2, appendix B). */
#define VMCB_NESTED_CONTROL 0x090
#define VMCB_CPL 0x4cb
#define VMCB_EFER 0x4d0
#define VMCB_CR4 0x548
#define VMCB_CR3 0x550
#define VMCB_RIP 0x578
#define VMCB_RSP 0x5d8
