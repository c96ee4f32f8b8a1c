/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/trace.h - every store of the library into a segment.
 *
 * OWNS   the hooks that -fsanitize=thread calls before each store, and
 *        wrappers of the calls that store (memcpy, locks, fallocate ...).
 * HOLDS  recorded: the words of the segment, in the order of the program,
 *        with their values before and after, so that any prefix of a run can
 *        be put there and taken back;
 *        counted: a process that is told to stop at point k has done what is
 *        before it, and nothing after, when it kills itself.
 *
 * A point is one call of the compiler's hook, or one wrapped call; memcpy and
 * memset count each word. What a call on a lock stores is the kernel's and
 * glibc's to get right, and one point.
 */
#ifndef SHD_TESTS_CRASH_TRACE_H
#define SHD_TESTS_CRASH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Which addresses are the segment. */
void trace_segment(const void *base, size_t len);

/* ---- counting: a real death ----------------------------------------------- */

/* Counts from 1. This process dies by SIGKILL before point `stop`; 0: never.
 * `at_death`, if not NULL, is called first: to plant a bug. */
void trace_begin(uint64_t stop, void (*at_death)(void));

/* The number of points since trace_begin(). */
uint64_t trace_end(void);

/* ---- recording ------------------------------------------------------------ */

enum { /* struct trace_word.flags */
    TRACE_POINT = 1, /* the first word of a point */
    TRACE_STATE = 2  /* a death just before it is possible */
};

struct trace_word {
    uint64_t old, new;
    uint32_t at; /* number of the word in the segment */
    uint32_t flags;
};

struct trace {
    struct trace_word *word;
    uint32_t count, room;
};

/* Stores are added to t from now on; NULL: not any more. */
void trace_record(struct trace *t);

/* Puts word i of t there, or takes all from the end back to word i. */
void trace_apply(const struct trace *t, uint32_t i);
void trace_rewind(const struct trace *t, uint32_t end, uint32_t i);

/* For wrapped calls: len bytes at p are about to change; `flags` are of each
 * word but the first, which begins a point if `point` says so. */
void trace_store(const volatile void *p, size_t len, bool point,
                 uint32_t flags);
bool trace_in_segment(const volatile void *p);
void *trace_at(uint64_t offset);
bool trace_recording(void);

/* A point of a process that counts. */
void trace_point(void);

/* ---- fingerprints --------------------------------------------------------- */

/* A fingerprint of the segment's bytes without the words that are masked, kept
 * up to date with every recorded, applied and rewound word. trace_unmask_all
 * begins anew. */
void trace_unmask_all(void);
void trace_mask(const void *p, size_t len);
uint64_t trace_fingerprint(void);

/* What the fingerprint has for the word at p, beyond what it had for `old`. */
uint64_t trace_share(const uint64_t *p, uint64_t old);

#endif
