/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/recall.h - what need not be run again.
 *
 * What a recovery does depends on nothing but the words of the segment that it
 * reads (and on who recovers in what way: its kind). Each that was run is
 * remembered with those words, in the order in which it read them, and with
 * its stores. Where all of them hold the same values again, it would make the
 * same stores: they are put there, and it is not run. What they make of the
 * other words is looked at as if it had been run. A check is remembered
 * likewise, with what it found.
 *
 * OWNS   what is remembered, of one case at a time.
 * HOLDS  a tree: two runs of a kind read the same words until one reads
 *        another value than the other. That they do is checked.
 * COST   a look reads as many words as the run did.
 */
#ifndef SHD_TESTS_CRASH_RECALL_H
#define SHD_TESTS_CRASH_RECALL_H

#include "tests/crash/trace.h"

#define RECALL_KINDS 24u

struct recall;

struct recall_store {
    uint64_t value;
    uint32_t at, flags; /* as in struct trace_word */
};

struct recalled {
    const struct recall_store *store; /* until something else is learnt */
    uint32_t count;
    uint64_t found[2]; /* whatever the caller wants to know again */
    uint64_t name;     /* of that run */
};

/* NULL: no memory. */
struct recall *recall_new(void);
void recall_free(struct recall *m);

/* Is it known what a run of that kind does in the segment as it is? */
bool recall_find(const struct recall *m, uint32_t kind, struct recalled *out);

/* Marks the words that the run of that name read, as trace_marks() does. Done
 * already with that mark, it is not done again. False: it is forgotten. */
bool recall_mark(const struct recall *m, uint64_t name,
                 const struct marks *marks);

/* stores: NULL if they are not wanted. False: that cannot be. It read another
 * word than one of the same kind that had read the same until then. */
bool recall_learn(struct recall *m, uint32_t kind, const struct reads *reads,
                  const struct trace *stores, const uint64_t found[2]);

#endif
