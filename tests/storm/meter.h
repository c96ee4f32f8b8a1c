/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/storm/meter.h - how long operations take, and why.
 *
 * An operation's wall time includes what the scheduler let other processes
 * have of the processor while this one could have run. On a machine with
 * fewer processors than workers that is most of it, and says nothing about
 * locks. The kernel counts it (/proc/thread-self/schedstat, second number);
 * the *stall* of an operation is its wall time without that: running, or
 * asleep waiting for somebody - also for a lock's holder that the scheduler
 * has put aside.
 *
 * A waiter's stall can be somebody else's delay: the lock's holder was put
 * aside by the scheduler in the middle of its operation. Long operations are
 * kept with their times, so that this can be told (meter_explained): what is
 * left of a stall then is the library's.
 *
 * Asking the kernel costs more than an operation, so it is asked only after
 * something took long, and every METER_BATCH operations: the part of the
 * delay that can be charged to a wrong operation stays below METER_BATCH
 * times METER_LONG_NS.
 */
#ifndef SHD_TESTS_STORM_METER_H
#define SHD_TESTS_STORM_METER_H

#include <stdbool.h>
#include <stdint.h>

#define METER_BATCH 64u
#define METER_LONG_NS 100000u
#define METER_BUCKETS 320u
#define METER_EPISODE_NS 20000000u
#define METER_EPISODES 1024u

struct histogram {
    uint64_t count;
    uint64_t max_ns;
    uint64_t bucket[METER_BUCKETS]; /* 8 to each power of two */
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *h);

/* The upper end of the bucket that holds that quantile. */
uint64_t histogram_quantile(const struct histogram *h, double q);

/* A long operation. */
struct episode {
    uint64_t begin_ns, end_ns;
    uint64_t stall_ns; /* the rest of it the process was put aside */
    uint32_t kind;
    uint32_t cut; /* it never came to its end: explains, and is not judged */
};

/* Lies in memory that outlives the worker. */
struct meter {
    struct histogram wall, stall;
    uint64_t busy_since_ns; /* in an operation since then, or 0 */
    uint64_t ran_ns;        /* processor time of the worker, lately, */
    uint64_t delay_ns;      /* and how long it has been put aside */
    uint32_t worst_wall_kind, worst_stall_kind;
    uint64_t episodes;
    struct episode episode[METER_EPISODES]; /* the last ones */
};

uint64_t meter_now_ns(void);

/* For the calling thread, after every fork; m is of nobody else now. -1: no
 * such file. */
int meter_open(struct meter *m);

void meter_begin(struct meter *m);
void meter_end(struct meter *m, uint32_t kind);

/* Before process `pid`, whose meter it is, is killed, or before it is waited
 * for: notes the operation that is cut off, if it is a long one in which the
 * process was put aside. */
void meter_cut(struct meter *m, int pid, uint32_t kind);

/* The same of one that has been stopped by the caller since then. */
void meter_stopped(struct meter *m, uint64_t since_ns, uint32_t kind);

/* Is that process asleep? */
bool meter_is_asleep(int pid);

/* Forgets the long operations, which have been judged. Nobody uses it. */
void meter_forget_episodes(struct meter *m);

/* The longest time that another process, which had begun its operation, was
 * put aside during that episode. */
uint64_t meter_explained(const struct meter *const *meters, unsigned count,
                         const struct episode *e);

#endif
