/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/multi.h"
#include "shm/dict/entry.h"
#include "shm/dict/index.h"
#include "shm/dict/place.h"

/* Nodes below a root that are looked for: with about as many roots as entries
 * nearly every key is found in the first three. */
#define LEVELS 3
#define CACHE_LINE 64u

static void ask_for(const void *p)
{
    __builtin_prefetch(p, 0, 3);
}

/* The header and key, and the beginning of the value. */
static void ask_for_entry(const struct dict *d, uint32_t ref)
{
    const char *e = (const char *)entry_at(&d->pages, ref);

    if (e == NULL)
        return;
    ask_for(e);
    if (cell_room(&d->pages, e) > CACHE_LINE)
        ask_for(e + CACHE_LINE);
}

/* Former ones are not looked at: it is a hint. */
static const uint32_t *root_of(const struct dict *d, const struct place *at)
{
    return index_root(d, index_grain(index_state(d)), at->order);
}

/* The node a descent goes to after this one; 0: none, or this is it as far as
 * its hash tells. */
static uint32_t below(const struct dict *d, uint32_t ref, uint32_t hash)
{
    const struct entry *e = entry_at(&d->pages, ref);
    uint32_t there;

    if (e == NULL)
        return 0;
    there = atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT;
    return there == hash ? 0 : atomic_load32(&e->cell.word[hash > there]);
}

/* node[i] is the last node on the way to key i; 0: none. */
static void fetch(const struct dict *d, const void *const *keys,
                  const size_t *lens, uint32_t n, struct place *at,
                  uint32_t *node)
{
    uint32_t ref[MULTI_BATCH];

    assert(n <= MULTI_BATCH);
    for (uint32_t i = 0; i < n; i++) {
        ref[i] = 0;
        if (keys[i] == NULL || lens[i] == 0 || lens[i] > ENTRY_KEY_MAX)
            continue;
        ref[i] = 1;
        at[i] = place_of_key(d, keys[i], lens[i]);
        ask_for(root_of(d, &at[i]));
        ask_for(&dict_guard(d, at[i].shard)->seq);
    }
    for (uint32_t i = 0; i < n; i++) {
        /* A look into a dict that is gone would take memory for it. */
        if (ref[i] != 0)
            ref[i] = dict_enter(d, at[i].shard)
                         ? atomic_load32(root_of(d, &at[i]))
                         : 0;
        node[i] = ref[i];
        if (ref[i] != 0)
            ask_for_entry(d, ref[i]);
    }
    for (int level = 1; level < LEVELS; level++) {
        for (uint32_t i = 0; i < n; i++) {
            if (ref[i] != 0)
                ref[i] = below(d, ref[i], at[i].hash);
            if (ref[i] != 0) {
                node[i] = ref[i];
                ask_for_entry(d, ref[i]);
            }
        }
    }
}

void multi_fetch(const struct dict *d, const void *const *keys,
                 const size_t *lens, uint32_t n, struct place *at)
{
    uint32_t node[MULTI_BATCH];

    fetch(d, keys, lens, n, at, node);
}

void multi_fetch_to_change(const struct dict *d, const void *const *keys,
                           const size_t *lens, uint32_t n)
{
    struct place at[MULTI_BATCH];
    uint32_t node[MULTI_BATCH];

    fetch(d, keys, lens, n, at, node);
    for (uint32_t i = 0; i < n; i++) {
        const struct entry *e = entry_at(&d->pages, node[i]);

        if (node[i] == 0 || e == NULL)
            continue;
        ask_for(&d->pages.table[cell_page(&d->pages, node[i])]);
        for (int side = LIST_PREV; side <= LIST_NEXT; side++) {
            const struct cell *c = cell_at(
                &d->pages, atomic_load32(&e->cell.word[side]), sizeof(*c));

            if (c != NULL)
                ask_for(c);
        }
    }
}
