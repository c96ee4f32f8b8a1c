/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/step/step.h - what the parts of tests/step share.
 *
 *   step.c    the cases, and the deaths in each of them
 *   judge.c   is what a death leaves in order, and as it was before or after?
 *   truth.c   are those the bytes a death leaves?
 *
 * One case at a time, in a process of its own.
 */
#ifndef SHD_TESTS_STEP_STEP_H
#define SHD_TESTS_STEP_STEP_H

#include "shm/api/handle.h"
#include "tests/crash/cases.h"
#include "tests/crash/script.h"
#include "tests/step/stepping.h"

#define DEPTH_MAX 3u
#define SEEN_MAX (1u << 16)

enum { /* verdicts */
       IS_BEFORE = 1,
       IS_AFTER = 2,
       IS_BETWEEN = 4 /* each key is as in one of the two */
};

struct counts {
    uint64_t cases, changes, states, distinct, nested, writes, steps, kills,
        references;
};

/* What a process that runs a case tells, also by its death. */
struct told {
    struct counts counts;
    uint64_t at[DEPTH_MAX]; /* changes so far, and the recovery's; or 0 */
    uint64_t ip;            /* of the last one's instruction */
    unsigned depth;
    bool failed;
    char what[160]; /* failed first, and */
    uint64_t found_at;
};

/* 0: the operation; 1: a recovery; 2: the recovery from its death. */
struct level {
    unsigned char *image; /* before it; and as far as it has come */
    unsigned char *now;
    struct stepping_journal *journal;
};

struct run {
    struct world a; /* where workers die */
    struct world b; /* where this process comes next */
    const struct crash_case *c;
    char name[96], setup[400], operation[160];
    size_t bytes; /* of a segment */
    size_t used;  /* beyond there are zeroes in all images */
    uint64_t fresh_free;
    uint64_t workers[2]; /* of A: this process, and who dies, if it has joined
                            before the scene was set; else 0 */
    struct level level[DEPTH_MAX];
    struct state before, after, now;
    struct {
        uint64_t low, high;
        unsigned verdict;
    } seen[SEEN_MAX];
    uint32_t seen_count;
    bool in_guard, was_in_guard; /* did this moment change a guard? */
    uint64_t taken[DEPTH_MAX];   /* states of the journal, about */
    unsigned failures;
};

extern struct told *told;

/* A failure, and how to see it again. */
void step_say(struct run *r, const char *what);

/* The bytes of a segment. */
unsigned char *step_bytes(const struct world *w);

/* Where in a guard that offset is; SIZE_MAX: in none. */
size_t step_in_guard(const struct run *r, size_t at);

/* Runs the script in A from the image of that level. */
bool step_record(struct run *r, unsigned depth, const char *script,
                 struct stepping_journal *j);

/* Recovers from the deaths in B and looks at everything: IS_ bits, or 0,
 * having said what is wrong. by_lock: meets the lock first, else reaps. */
unsigned judge(struct run *r, bool by_lock);

/* B gets the bytes, is recovered, and read. */
bool judge_read(struct run *r, const unsigned char *bytes, bool by_lock,
                struct state *s);

/* r->now beside r->before and r->after. */
unsigned judge_compare(struct run *r);

/* After step_record() of the operation at level 0. Kills a worker behind its
 * k'th change, or behind some; the kernel must leave what was computed. */
bool truth_kill(struct run *r, uint64_t k);
bool truth_kill_some(struct run *r, uint64_t seed);

/* Steps through it by ptrace, which must give the same journal. */
bool truth_by_ptrace(struct run *r);

#endif
