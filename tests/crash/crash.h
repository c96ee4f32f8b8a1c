/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/crash.h - what the parts of tests/crash share.
 *
 *   crash.c    the jobs, the table, the command line
 *   scene.c    a segment with its workers, and what is said of a failure
 *   judge.c    what must hold in a state that was recovered
 *   states.c   a case: its operation recorded, and every state of its prefixes
 *   trace.c    the stores; kernel.c  workers that are no processes
 *   script.c   operations as text; cases.c  the table of cases
 */
#ifndef SHD_TESTS_CRASH_CRASH_H
#define SHD_TESTS_CRASH_CRASH_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "shm/api/handle.h"
#include "tests/crash/cases.h"
#include "tests/crash/kernel.h"
#include "tests/crash/script.h"
#include "tests/crash/trace.h"

#define FAILURES_SHOWN 3u
#define WAYS 4u /* of coming next */
#define LEVELS 3u
#define JOBS_MAX 64u
#define WORKERS_MAX 12u
#define LOCKS_MAX 12u
#define SEED 1000000u /* of the values of an operation */

enum { BUILDER, OPERATOR, RECOVERER }; /* and one recoverer a level */
enum way { REAP, CHANGE, JOIN, UNMARKED };

/* Where a state is: prefixes and ways, as --at tells and takes them. */
struct at {
    uint32_t depth; /* deaths */
    uint32_t k[LEVELS], way[LEVELS];
};

/* What a fingerprint is known to stand for. */
struct known {
    uint64_t fingerprint; /* 0: nothing */
    uint64_t content;
};

struct run {
    struct world world;
    const struct crash_case *c;
    uint32_t n;
    char setup[400], operation[160];
    unsigned char *image, *image2;
    size_t image_bytes;
    uint64_t incarnation[KERNEL_WORKERS];
    struct dict dict; /* as a worker has it that has just attached */
    int holder;       /* a file description with the others' bytes */
    struct state before, after, now;
    uint64_t content_before, content_after;
    uint64_t room; /* for another dict, bytes */
    uint64_t left; /* workers that have left, and did not die */
    uint64_t seq[LOCKS_MAX];
    struct trace level[LEVELS + 1], death[LEVELS], checking;
    struct known *known;
    uint32_t known_count, known_room;
    struct at at;
    bool committed, first_pass;
    unsigned failures;
    uint64_t random;
};

/* One job's figures, in memory that all share. */
struct totals {
    uint64_t stores, states[LEVELS], distinct, kills;
    uint64_t left_out[LEVELS];
    const char *name; /* of the case it works on, and where in it */
    uint32_t number;
    struct at at;
    uint32_t passed, failed;
    bool ended;
};

struct shared {
    uint32_t next;
    bool interrupted;
    struct totals of[JOBS_MAX];
};

struct options {
    const char *only;
    struct at at;
    int64_t number; /* -1: all */
    bool one_way; /* of each prefix of an operation, in turn; else all */
    uint32_t seconds, jobs, kills;
    uint32_t trust; /* of the states that differ from known ones in free cells
                       only, one of so many is checked in full; 1: all */
    uint32_t every[LEVELS]; /* one of so many prefixes of that level */
};

extern struct options crash_options;
extern struct shared *crash_shared;
extern struct totals *crash_mine; /* of this job */
extern time_t crash_deadline;

/* ---- scene.c ---------------- */

uint64_t crash_random(struct run *r);

/* Has the time run out, or was it interrupted? */
bool crash_is_over(void);

void crash_at_print(const struct at *at, char *to, size_t size);

/* A failure, and how to see it again; of a call, gives false. */
void crash_say(struct run *r, const char *what);
bool crash_failed_call(struct run *r, const char *call, int rc);

/* The process becomes that worker, as it was before the operation. */
void crash_become(struct run *r, uint32_t worker);

/* All but those that died on the way to a state that deep. */
uint32_t crash_alive_after(uint32_t deaths);

bool crash_build(struct run *r);
void crash_tear_down(struct run *r);
void crash_keep(const struct run *r, unsigned char *image);
void crash_put_back(const struct run *r, const unsigned char *image);

/* Capacity of the largest dict that can still be made. */
void crash_measure_room(struct run *r);

/* ---- judge.c ---------------- */

/* What the fingerprint leaves out, and may differ from state to state. */
void judge_mask(const struct run *r);

/* Even counters that readers may have seen just before the death. */
void judge_note_counters(struct run *r);

bool judge_check(struct run *r, const char *when);
uint64_t judge_workers_left(const struct run *r);
bool judge_nothing_leaks(struct run *r);
uint64_t judge_content(const struct state *s);

/* Looks at a recovered state, and leaves it as it was. */
bool judge(struct run *r, uint64_t *content);

/* ---- states.c ---------------- */

/* True if nothing was found. */
bool states_run_case(const struct crash_case *c, uint32_t n, uint32_t pass);

#endif
