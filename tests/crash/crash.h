/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/crash.h - what the parts of tests/crash share.
 *
 *   crash.c    the jobs, the table, the command line
 *   scene.c    a segment with its workers, and what is said of a failure
 *   judge.c    what must hold in a state that was recovered
 *   states.c   a case: its operation recorded, and every state of its prefixes
 *   recall.c   recoveries that need not be run again
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
#include "tests/crash/recall.h"
#include "tests/crash/script.h"
#include "tests/crash/trace.h"

#define FAILURES_SHOWN 3u
#define WAYS 4u /* of coming next */
#define LEVELS 3u
/* Over all cases, with --seconds; those that follow are as the last. */
#define PASSES 3u
#define JOBS_MAX 64u
#define CHECKS_MAX 32u
#define WORKERS_MAX 12u
#define LOCKS_MAX 12u
#define DISTURBED_OF 256u /* one of so many runs is run among other bytes */
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
    struct fingerprint fingerprint; /* 0, 0: nothing */
    uint64_t content;
    uint64_t check; /* its name, see recall.h */
};

/* A state after one death, and what followed it. */
struct twin {
    /* The words whose values in that state were read by what followed, and
     * those that its recovery had stored into by then. */
    struct marks marks;
    uint64_t checks[CHECKS_MAX]; /* names of those that were made */
    uint32_t checks_count;
    uint32_t k; /* of later prefixes that are like it: the last */
    bool valid;
    uint32_t turn;            /* states of its way that were looked at */
    uint64_t content, states; /* of the second level */
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
    struct trace level[LEVELS + 1], death[LEVELS], checking, again;
    struct known *known;
    uint32_t known_count, known_room;
    struct recall *recoveries, *checks;
    struct reads recovery_reads, check_reads;
    uint64_t kernels[RECALL_KINDS]; /* kinds of checks, by kernel_state() */
    uint32_t kernels_count;
    uint32_t disturbed[LEVELS][WAYS], checks_disturbed;
    struct twin twin[WAYS + 1]; /* the last of each way; see twin_of() */
    struct twin *marking;       /* is being looked at; NULL: none */
    uint32_t marks;             /* that were given */
    /* Words of the recovery of the twin into which all that followed stored,
     * it or another recovery; and those of one state. */
    uint32_t *always, always_count, always_room, *stored;
    uint32_t turn; /* tells which way of coming next follows which prefix */
    struct at at;
    bool committed, first_pass;
    unsigned failures;
    uint64_t random;
};

/* One job's figures, in memory that all share. */
struct totals {
    uint64_t stores, states[LEVELS], known, kills;
    struct effort {
        uint64_t run, recalled, doubted, disturbed;
    } recoveries, checks;
    uint64_t left_out[LEVELS];
    uint64_t alike; /* of the states: not looked at, but a twin's were */
    const char *name; /* of the case it works on, and where in it */
    uint32_t number;
    struct at at;
    uint32_t passed, failed, in_full;
    bool ended;
};

/* A case, and how far it has come. */
struct turn {
    uint32_t passes; /* that were begun */
    uint64_t stores; /* 0: not known yet */
    uint64_t states[PASSES][LEVELS], left_out[PASSES][LEVELS];
    bool whole[PASSES], failed;
};

struct shared {
    bool interrupted;
    struct totals of[JOBS_MAX];
    struct turn turn[];
};

struct options {
    const char *only;
    struct at at;
    int64_t number; /* -1: all */
    bool one_way; /* of each prefix of an operation, in turn; else all */
    uint32_t seconds, jobs, kills;
    uint32_t part, parts; /* of the cases, from 0 on */
    uint32_t doubt; /* of what is known one of so many is run all the same, and
                       must come to the same */
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

/* Is a state that looks like this one, with that kernel_state(), known to be
 * good? */
bool judge_is_known(struct run *r, uint64_t kernel, uint64_t *content);

/* Looks at a recovered state, and leaves it as it was. */
bool judge(struct run *r, uint64_t *content);

/* ---- states.c ---------------- */

/* True if nothing was found. */
bool states_run_case(const struct crash_case *c, uint32_t n, uint32_t pass);

#endif
