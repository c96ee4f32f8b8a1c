/* SPDX-License-Identifier: BSD-2-Clause */
#include "tally.h"

#include <stdlib.h>
#include <string.h>

static void out_of_memory(void)
{
    fputs("http_load: out of memory\n", stderr);
    exit(1);
}

static int bits_has(const struct bits *bits, uint64_t number)
{
    size_t word = number / 64;

    return word < bits->count && (bits->words[word] >> number % 64 & 1);
}

static void bits_add(struct bits *bits, uint64_t number)
{
    size_t word = number / 64;

    if (word >= bits->count) {
        size_t count = word * 2 + 64;
        uint64_t *words = realloc(bits->words, count * sizeof(*words));

        if (!words)
            out_of_memory();
        memset(words + bits->count, 0, (count - bits->count) * sizeof(*words));
        bits->words = words;
        bits->count = count;
    }
    bits->words[word] |= UINT64_C(1) << number % 64;
}

void tally_init(struct tally *tally, size_t counter_count)
{
    memset(tally, 0, sizeof(*tally));
    tally->counters = calloc(counter_count, sizeof(*tally->counters));
    if (!tally->counters)
        out_of_memory();
    tally->counter_count = counter_count;
}

void tally_free(struct tally *tally)
{
    for (size_t i = 0; i < tally->counter_count; i++)
        free(tally->counters[i].values.words);
    free(tally->counters);
    free(tally->jobs.acked_set.words);
    free(tally->jobs.lost_set.words);
    free(tally->jobs.popped_set.words);
}

void tally_counted(struct tally_counter *counter, uint64_t value)
{
    counter->acked++;
    if (bits_has(&counter->values, value))
        counter->duplicates++;
    bits_add(&counter->values, value);
    if (value > counter->value_max)
        counter->value_max = value;
}

void tally_pushed(struct tally_jobs *jobs, uint64_t number)
{
    jobs->pushed++;
    bits_add(&jobs->acked_set, number);
}

void tally_push_lost(struct tally_jobs *jobs, uint64_t number)
{
    jobs->pushes_lost++;
    bits_add(&jobs->lost_set, number);
}

/* A job may be popped before its push is answered, so what is known about
 * the push is looked at in tally_close_jobs. */
void tally_popped(struct tally_jobs *jobs, uint64_t number)
{
    jobs->popped++;
    if (number >= jobs->next)
        jobs->unknown++;
    else if (bits_has(&jobs->popped_set, number))
        jobs->twice++;
    else
        bits_add(&jobs->popped_set, number);
}

void tally_close_jobs(struct tally_jobs *jobs)
{
    jobs->missing = 0;
    for (uint64_t number = 0; number < jobs->next; number++) {
        const int popped = bits_has(&jobs->popped_set, number);

        if (bits_has(&jobs->acked_set, number))
            jobs->missing += !popped;
        else if (popped && !bits_has(&jobs->lost_set, number))
            jobs->unknown++; /* its push was refused */
    }
}

/* 16 buckets an octave: 0..15 us one each, then by the top five bits. */
static size_t bucket_of(uint64_t us)
{
    unsigned shift = 0;

    while (us >> shift >= 32)
        shift++;
    return us < 16 ? us : (size_t)shift * 16 + (us >> shift);
}

static uint64_t bucket_edge(size_t bucket)
{
    size_t shift = bucket < 32 ? 0 : bucket / 16 - 1;

    return (uint64_t)(bucket - shift * 16 + 1) << shift;
}

void tally_latency(struct tally_latency *latency, uint64_t us)
{
    latency->count++;
    latency->buckets[bucket_of(us)]++;
    if (us > latency->max_us)
        latency->max_us = us;
}

uint64_t tally_quantile_us(const struct tally_latency *latency, double share)
{
    uint64_t want = (uint64_t)((double)latency->count * share), seen = 0;

    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen > want)
            return bucket_edge(i) < latency->max_us ? bucket_edge(i)
                                                    : latency->max_us;
    }
    return latency->max_us;
}
