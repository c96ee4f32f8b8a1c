/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/trace.h - every store of the library into a segment, counted.
 *
 * OWNS   the hooks that -fsanitize=thread calls before each store, wrappers
 *        of the calls that store many words (each word counts), and of the
 *        calls that take, give or repair a lock (before and after count: what
 *        glibc stores inside them is the kernel's and glibc's to get right).
 * HOLDS  a process that is told to stop at store k has done the stores before
 *        it in program order, and not that one, when it kills itself.
 */
#ifndef SHD_TESTS_CRASH_TRACE_H
#define SHD_TESTS_CRASH_TRACE_H

#include <stddef.h>
#include <stdint.h>

/* Which addresses are the segment. */
void trace_segment(const void *base, size_t len);

/* Counts from 1. This process dies by SIGKILL before store `stop`; 0: never.
 * `at_death`, if not NULL, is called first: to plant a bug. */
void trace_begin(uint64_t stop, void (*at_death)(void));

/* The number of stores since trace_begin(). */
uint64_t trace_end(void);

#endif
