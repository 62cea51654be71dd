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
static long (*const perf_event_output)(void *context, struct map *map, u64 flags, void *data, u64 size) = (void *)25;
static u32 (*const get_smp_processor_id)(void) = (void *)8;
static u64 (*const get_current_task)(void) = (void *)35;
static long (*const probe_read_user)(void *to, u32 size, u64 from) = (void *)112;
static long (*const probe_read_kernel)(void *to, u32 size, u64 from) = (void *)113;

#define CURRENT_CPU 0xffffffffULL
