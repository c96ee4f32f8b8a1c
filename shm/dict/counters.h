/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/counters.h - hits and misses, counted where nobody else writes.
 *
 * OWNS   a page for each lock behind the table of workers; a dict uses that of
 *        its first shard's. It is never anything else, so that a late count,
 *        of a dict that has been destroyed, scribbles on nothing.
 *          63 lines of 64 bytes   hits, misses; each for the workers whose
 *                                 slot leads there, one as a rule
 *          the last line          the generation they are of
 * LOCK   none: a worker adds to its own line, and all are summed on reading.
 *        Two that share a line, or two threads, may lose a count.
 * CRASH  a count is one store; none is logged, none is taken back.
 * COST   a read adds 1 to a word that no other processor writes.
 */
#ifndef SHD_DICT_COUNTERS_H
#define SHD_DICT_COUNTERS_H

#include "shm/dict/read.h"

#define COUNTERS_STRIPES 63u
#define COUNTERS_WORDS 8u /* of a stripe */

enum { COUNTERS_HITS = 0, COUNTERS_MISSES = 1 };

static inline uint32_t counters_stripe(uint64_t number)
{
    return (uint32_t)(number % COUNTERS_STRIPES) * COUNTERS_WORDS;
}

/* For a handle that reads and may write: finds the page and takes memory for
 * it. Without memory nothing is counted. */
void counters_open(struct dict *d);

void counters_sum(const struct dict *d, uint64_t *hits, uint64_t *misses);

/* This process's line is another one from now on: env->stripe. */
void counters_move(struct dict *d);

/* After a read that ended with rc. What only describes is not counted. */
static inline void counters_read(const struct dict *d, uint32_t how, int rc)
{
    uint64_t *line = (uint64_t *)(uintptr_t)atomic_load64(&d->counters);

    if (line == NULL || (how & (READ_NO_MARK | READ_DESCRIBE)) != 0)
        return;
    line += rc == SHD_NOTFOUND ? COUNTERS_MISSES : COUNTERS_HITS;
    atomic_store64(line, atomic_load64(line) + 1);
}

#endif
