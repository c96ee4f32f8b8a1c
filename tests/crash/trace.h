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

struct fingerprint {
    uint64_t low, high;
};

struct trace {
    struct trace_word *word;
    uint32_t count, room;
    struct fingerprint began; /* of the segment before its first word */
};

/* Stores are added to t from now on; NULL: not any more. */
void trace_record(struct trace *t);

/* Puts word i of t there, or takes the first words back. */
void trace_apply(const struct trace *t, uint32_t i);
void trace_rewind(const struct trace *t, uint32_t count);

/* A store of a recording that was made elsewhere. */
void trace_put(uint32_t at, uint64_t value, uint32_t flags);

/* ---- what was read ---------------------------------------------------------
 */

struct read {
    uint64_t value;
    uint32_t at; /* number of the word in the segment */
};

struct reads {
    struct read *read;
    uint32_t count, room;
    bool unclear; /* which words it stored into depends on more than these */
};

/* The words that are read from now on, in that order, each once, with the
 * value it has now; without those that were wholly overwritten before. A store
 * into part of a word reads it. NULL: not any more. */
void trace_reads(struct reads *r);

/* Words that were read: of[word] == mark. Those with except[word] ==
 * except_mark are left alone. */
struct marks {
    uint32_t *of, *except;
    uint32_t mark, except_mark;
};

static inline void trace_mark_word(const struct marks *m, uint32_t at)
{
    if (m->except[at] != m->except_mark)
        m->of[at] = m->mark;
}

/* Each word that is read from now on is marked as well, whenever that is.
 * NULL: not any more. */
void trace_marks(const struct marks *m);

/* Other bytes, by that seed, in all words of the segment that are neither in r
 * nor in t; the same call takes them back. */
void trace_disturb(const struct reads *r, const struct trace *t,
                   uint64_t seed);

/* A mistake that the tests of this test must find: loads of so many bytes are
 * not seen. */
void trace_blind(size_t bytes);

/* For wrapped calls: len bytes at p are read, or are about to be overwritten,
 * of which only those are recorded that change. */
void trace_load(const volatile void *p, size_t len);
void trace_overwrite(const volatile void *p, size_t len);

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
struct fingerprint trace_fingerprint(void);

#endif
