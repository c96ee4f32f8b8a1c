/* SPDX-License-Identifier: BSD-2-Clause */
/* tally.h - what a load client was told, to be held against the truth.
 *
 * OWNS   one record a counter, one a job, the latencies.
 * HOLDS  a counter in the dictionary is at least `acked`, and at most
 *        `acked + lost`: a request whose answer never came wholly may have
 *        been done or not. No value is answered twice. A job pushed and
 *        acknowledged is popped once, or its pop's answer was lost.
 * LOCK   none; one thread. */
#ifndef LOAD_TALLY_H
#define LOAD_TALLY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A set of numbers from 0, as bits; grows as needed. */
struct bits {
    uint64_t *words;
    size_t count; /* words */
};

struct tally_counter {
    uint64_t acked;
    uint64_t lost;
    uint64_t value_max;  /* largest value answered */
    uint64_t duplicates; /* values answered twice */
    struct bits values;
};

struct tally_jobs {
    uint64_t pushed;      /* acknowledged */
    uint64_t pushes_lost;
    uint64_t popped;
    uint64_t pops_lost;
    uint64_t twice;       /* popped twice */
    uint64_t unknown;     /* popped, never pushed */
    uint64_t missing;     /* pushed and acknowledged, never popped */
    uint64_t next;        /* number of the next job */
    struct bits acked_set;
    struct bits lost_set;
    struct bits popped_set;
};

enum { LATENCY_BUCKETS = 64 * 16 };

/* Latencies in us, to 1/16 of their value. */
struct tally_latency {
    uint64_t count;
    uint64_t max_us;
    uint64_t buckets[LATENCY_BUCKETS];
};

struct tally {
    struct tally_counter *counters;
    size_t counter_count;
    struct tally_jobs jobs;
    struct tally_latency latency;
    uint64_t answered; /* whole answers, of any kind */
    uint64_t refused;  /* answers that are neither 2xx nor expected */
    uint64_t lost;     /* requests without a whole answer */
    uint64_t unsent;   /* requests for which there was no connection */
    uint64_t timeouts; /* of the lost: the connection lived, but was mute */
    uint64_t garbled;  /* 200, with a body that cannot be right */
};

/* Exits the process when memory is short. */
void tally_init(struct tally *tally, size_t counter_count);

void tally_free(struct tally *tally);

/* A counter's new value was answered. */
void tally_counted(struct tally_counter *counter, uint64_t value);

/* The job of that number was handed out. */
void tally_popped(struct tally_jobs *jobs, uint64_t number);
void tally_pushed(struct tally_jobs *jobs, uint64_t number);
void tally_push_lost(struct tally_jobs *jobs, uint64_t number);

/* Fills in jobs->missing, once the list is empty. */
void tally_close_jobs(struct tally_jobs *jobs);

void tally_latency(struct tally_latency *latency, uint64_t us);

/* Upper edge of the bucket that holds that share (0..1) of all. */
uint64_t tally_quantile_us(const struct tally_latency *latency,
                           double share);

#endif
