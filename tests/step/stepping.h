/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/step/stepping.h - every instruction that changes a segment, one by
 * one.
 *
 * OWNS   tests/crash/trace.h for the library as it is released: no hook is
 *        compiled into it. Between trace_begin() and trace_end() the segment
 *        is write-protected; an instruction that would write to it faults, is
 *        let through with the processor's trap flag set, and traps behind it.
 *        What it has changed goes into the journal.
 * HOLDS  the bytes of the segment after any entry of the journal are those a
 *        worker leaves that dies behind that very instruction; an entry also
 *        tells which locks the kernel would mark then, from the thread's list
 *        of robust locks as it is at that instruction.
 * COST   some 15 us for an instruction that writes, nothing for others.
 *
 * With stepping_by_ptrace the same is done in another way: by a process that
 * has the worker execute each single instruction (PTRACE_SINGLESTEP) and
 * compares all of the segment after it. It takes a hundred times longer; it
 * is what the first way is compared with.
 *
 * A `stop` of trace_begin counts changes of either kind.
 */
#ifndef SHD_TESTS_STEP_STEPPING_H
#define SHD_TESTS_STEP_STEPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STEPPING_DEAD_MAX 4u

struct stepping_change {
    uint64_t at; /* byte offset of an 8-byte word */
    uint64_t now;
};

struct stepping_moment {
    uint64_t ip;      /* of the instruction; 0: no instruction of this
                         process did it (a hole in the file) */
    uint32_t changes; /* 0: only the list of robust locks is another */
    uint32_t deads;   /* locks that would be marked as their owner's death */
    uint64_t dead_at[STEPPING_DEAD_MAX]; /* byte offsets of lock words */
    struct stepping_change change[];
};

struct stepping_journal {
    uint64_t moments;
    uint64_t writes; /* instructions let through: some change nothing */
    uint64_t steps;  /* instructions executed one by one */
    uint64_t used;   /* bytes */
    bool lost;       /* it was full, or the robust list was no list */
    unsigned char data[];
};

/* Shared with children; NULL without memory. */
struct stepping_journal *stepping_journal_new(void);
void stepping_journal_free(struct stepping_journal *j);

/* Where the next trace_begin() of a child writes to, emptied; NULL: nowhere.
 * The first moment is trace_begin() itself: what differs from `image`, the
 * whole segment as it was. */
void stepping_record(struct stepping_journal *j, const unsigned char *image);

extern bool stepping_by_ptrace;

/* The moments in order: NULL for the first, NULL after the last. */
const struct stepping_moment *stepping_next(const struct stepping_journal *j,
                                            const struct stepping_moment *m);

/* Puts what a moment has changed into a copy of the segment. */
void stepping_apply(const struct stepping_moment *m, unsigned char *copy);

/* Marks the locks in it as the kernel does when their owner dies. */
void stepping_die(const struct stepping_moment *m, unsigned char *copy);

#endif
