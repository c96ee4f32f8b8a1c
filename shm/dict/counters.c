/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/counters.h"

#define GENERATION_WORD (COUNTERS_STRIPES * COUNTERS_WORDS)

static uint64_t *page_of(const struct dict *d, uint64_t *at)
{
    const struct segment *s = d->env->segment;

    *at = s->counters_at +
          (uint64_t)(d->guards - guard_at(s, 0)) * SEGMENT_COUNTERS_BYTES;
    if (*at + SEGMENT_COUNTERS_BYTES > s->extents_at)
        return NULL;
    return segment_at(s, *at, SEGMENT_COUNTERS_BYTES);
}

void counters_open(struct dict *d)
{
    uint64_t at, *page = page_of(d, &at);

    if (page == NULL || !d->env->segment->writable ||
        segment_commit(d->env->segment, at, SEGMENT_COUNTERS_BYTES) != SHD_OK)
        return;
    /* Two that open a new dict at once may both do this: a few counts go. */
    if (atomic_load64(&page[GENERATION_WORD]) != d->generation) {
        for (uint32_t i = 0; i < GENERATION_WORD; i++)
            atomic_store64(&page[i], 0);
        atomic_store64_release(&page[GENERATION_WORD], d->generation);
    }
    atomic_store64(&d->counters, (uintptr_t)(page + d->env->stripe));
}

void counters_move(struct dict *d)
{
    uint64_t page = d->counters & ~(uint64_t)(SEGMENT_COUNTERS_BYTES - 1);

    if (page != 0)
        atomic_store64(&d->counters,
                       page + d->env->stripe * sizeof(uint64_t));
}

/* A page without memory reads as zeroes. */
void counters_sum(const struct dict *d, uint64_t *hits, uint64_t *misses)
{
    uint64_t at;
    const uint64_t *page = page_of(d, &at);

    *hits = *misses = 0;
    if (page == NULL ||
        atomic_load64_acquire(&page[GENERATION_WORD]) != d->generation)
        return;
    for (uint32_t i = 0; i < GENERATION_WORD; i += COUNTERS_WORDS) {
        *hits += atomic_load64(&page[i + COUNTERS_HITS]);
        *misses += atomic_load64(&page[i + COUNTERS_MISSES]);
    }
}
