/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/wild/scribble.h"

#include "shm/dict/index.h"

#include <string.h>

const char *const SCRIBBLE_NAMES[SCRIBBLE_WHERES] = {"anywhere", "a dict",
                                                     "a shard"};

static uint64_t draw(struct scribbler *s, uint64_t below)
{
    uint64_t z;

    if (s->source != NULL)
        return play_draw(s->source, below);
    z = s->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (z ^ z >> 31) % below;
}

void scribble_start(struct scribbler *s, const struct play *p,
                    enum scribble_where where, uint32_t shard, uint64_t seed)
{
    memset(s, 0, sizeof(*s));
    s->base = p->segment->segment.base;
    s->small = p->dict[PLAY_SMALL]->dict;
    s->sharded = p->dict[PLAY_SHARDED]->dict;
    s->where = where;
    s->shard = shard;
    s->random = seed;
    s->used = p->segment->segment.size;
}

/* ---- where -------------------------------------------------------------- */

static uint64_t at_of(const struct scribbler *s, const void *p)
{
    return (uint64_t)((const unsigned char *)p - s->base);
}

/* In a guard: mostly what is in use of it. */
static uint64_t in_guard(struct scribbler *s, const struct guard *g)
{
    static const uint32_t AT[] = {0,   0,   48,  56,  64,  64,  72,  128,
                                  128, 136, 144, 192, 320, 576, 592, 640};
    uint64_t n = draw(s, 24);

    return at_of(s, g) + (n < 16 ? AT[n] : draw(s, SEGMENT_GUARD_BYTES));
}

/* A page of the dict's that has memory, and that is the shard's. */
static uint32_t some_page(struct scribbler *s, const struct dict *d,
                          bool of_shard)
{
    uint32_t n = pages_count(&d->pages);
    uint32_t first = n == 0 ? 0 : (uint32_t)draw(s, n);

    for (uint32_t i = 0; of_shard && i < n; i++) {
        uint32_t page = (first + i) % n;

        if (d->pages.table[page].owner == dict_owner(s->shard))
            return page;
    }
    return of_shard ? PAGE_NONE : first;
}

static uint64_t some_root(struct scribbler *s, const struct dict *d,
                          uint32_t shard, uint32_t grain)
{
    uint64_t first = index_first(d, shard, grain);

    return first + draw(s, index_first(d, shard + 1, grain) - first);
}

/* What is one shard's. */
static uint64_t in_shard(struct scribbler *s, const struct dict *d,
                         uint32_t shard, bool all)
{
    uint32_t grain = index_grain(atomic_load64(&d->pages.bounds->state));
    uint32_t page = some_page(s, d, !all);

    switch (draw(s, 8)) {
    case 0: return in_guard(s, dict_guard(d, shard));
    case 1: return at_of(s, &d->shard[shard]) + draw(s, 144);
    case 2:
        if (index_has(d, grain))
            return at_of(s, &d->roots[grain][some_root(s, d, shard, grain)]);
        break;
    case 3:
        if (page != PAGE_NONE)
            return at_of(s, &d->pages.table[page]) +
                   draw(s, sizeof(struct page));
        break;
    default:
        if (page != PAGE_NONE)
            return d->pages.at + (uint64_t)page * PAGE_BYTES +
                   draw(s, draw(s, 2) ? PAGE_BYTES : 64);
        break;
    }
    return at_of(s, &d->shard[shard]) + draw(s, 144);
}

static uint64_t in_dict(struct scribbler *s, const struct dict *d)
{
    uint32_t shard = (uint32_t)draw(s, d->shards);

    switch (draw(s, 6)) {
    case 0: return at_of(s, d->header) + draw(s, sizeof(*d->header));
    case 1:
        return at_of(s, d->pages.map) +
               draw(s, pages_map_bytes(pages_count(&d->pages)) + 8);
    default: return in_shard(s, d, shard, true);
    }
}

static uint64_t in_head(struct scribbler *s)
{
    const struct segment *g = s->small.env->segment;

    switch (draw(s, 5)) {
    case 0: return draw(s, 400);
    case 1: return in_guard(s, guard_at(g, (uint32_t)draw(s, 2)));
    case 2: return g->catalogue_at + draw(s, 4 * SEGMENT_OBJECT_BYTES);
    case 3: return g->workers_at + draw(s, 4 * SEGMENT_WORKER_BYTES);
    default: return draw(s, g->extents_at);
    }
}

/* What is a queue's, a topic's, a lock's or a mailbox's. */
static uint64_t in_object(struct scribbler *s)
{
    const struct segment *g = s->small.env->segment;
    const struct catalogue_object *o =
        (const struct catalogue_object *)(s->base + g->catalogue_at) +
        PLAY_DICTS + draw(s, 6);
    uint64_t at = o->extent_at, bytes = o->extent_bytes;

    if (draw(s, 5) == 0 && o->guards_first < g->locks_max)
        return in_guard(s, guard_at(g, o->guards_first));
    if (bytes == 0 || at >= s->used || bytes > s->used - at)
        return draw(s, s->used);
    /* Its head, and what comes after that, more often than the rest. */
    return at + draw(s, bytes >> (draw(s, 4) * 2 % 7) | 1);
}

static uint64_t place(struct scribbler *s)
{
    switch (s->where) {
    case SCRIBBLE_SMALL: return in_dict(s, &s->small);
    case SCRIBBLE_SHARD: return in_shard(s, &s->sharded, s->shard, false);
    default: break;
    }
    switch (draw(s, 5)) {
    case 0: return in_head(s);
    case 1: return in_dict(s, &s->sharded);
    case 2: return in_object(s);
    default: return in_dict(s, &s->small);
    }
}

/* ---- what --------------------------------------------------------------- */

static uint32_t some_reference(struct scribbler *s)
{
    const struct dict *d = draw(s, 4) == 0 ? &s->sharded : &s->small;

    return (uint32_t)((d->pages.at + draw(s, 1 << 16)) / SEGMENT_UNIT);
}

static uint64_t some_word(struct scribbler *s, uint64_t old)
{
    switch (draw(s, 10)) {
    case 0: return 0;
    case 1: return ~0ull;
    case 2: return old + 1;
    case 3: return old - 1;
    case 4: return old ^ 1ull << draw(s, 64);
    case 5: return draw(s, 64);
    case 6: return some_reference(s) | (uint64_t)some_reference(s) << 32;
    case 7: return (old & ~0xffffffffull) | some_reference(s);
    case 8: return (old & 0xffffffffull) | draw(s, 1 << 16) << 32;
    default: return draw(s, ~0ull);
    }
}

/* Widths that leave what is another's alone stay within 8 bytes. */
static void write_at(struct scribbler *s, uint64_t at)
{
    bool narrow = s->where == SCRIBBLE_SHARD;
    uint64_t how = draw(s, narrow ? 12 : 64), word;

    if (at >= s->used)
        return;
    if (how < 4) {
        s->base[at] = (unsigned char)draw(s, 256);
    } else if (how == 62) {
        at &= ~63ull;
        for (int i = 0; i < 64; i++)
            s->base[at + (uint64_t)i] = (unsigned char)draw(s, 256);
    } else if (how == 63 && s->where == SCRIBBLE_ANYWHERE) {
        at &= ~4095ull;
        memset(s->base + at, (int)draw(s, 256), 4096);
    } else {
        at &= ~(narrow ? 3ull : 7ull);
        if (narrow) {
            uint32_t half;

            memcpy(&half, s->base + at, 4);
            half = (uint32_t)some_word(s, half);
            memcpy(s->base + at, &half, 4);
            return;
        }
        memcpy(&word, s->base + at, 8);
        word = some_word(s, word);
        memcpy(s->base + at, &word, 8);
    }
}

void scribble_at(struct scribbler *s, uint64_t at)
{
    write_at(s, at);
    s->done++;
}

void scribble(struct scribbler *s)
{
    write_at(s, place(s));
    s->done++;
}
