/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/fields.h"

#include <string.h>

#include "fuzz/workers.h"
#include "shm/dict/entry.h"
#include "shm/dict/index.h"
#include "shm/guard/txn.h"
#include "shm/memory/catalogue.h"

#define LOCK_DIED 0x40000000u /* FUTEX_OWNER_DIED */

static const struct dict *some_dict(struct play *p)
{
    return &p->dict[play_draw(p, 3) == 0 ? PLAY_SHARDED : PLAY_SMALL]->dict;
}

static unsigned char *base_of(const struct play *p)
{
    return p->segment->segment.base;
}

static void put(struct play *p, uint64_t at, const void *from, size_t bytes)
{
    if (at > p->segment->segment.size - 8)
        return;
    workers_wrote(base_of(p) + at, bytes);
    memcpy(base_of(p) + at, from, bytes);
}

/* ---- cells -------------------------------------------------------------------- */

/* One that is handed out; 0: none was found. */
static uint32_t some_cell(struct play *p, const struct dict *d)
{
    uint32_t n = pages_count(&d->pages), ref = 0;
    uint32_t first = n == 0 ? 0 : (uint32_t)play_draw(p, n);
    uint64_t skip = play_draw(p, 16);

    for (uint32_t i = 0; i < n && i < d->pages.max && ref == 0; i++) {
        uint32_t page = (first + i) % n, at = 0, next;

        if (d->pages.table[page].owner == 0)
            continue;
        while ((next = slab_next_used(&d->pages, page, &at)) != 0) {
            ref = next;
            if (skip-- == 0)
                break;
        }
    }
    return ref;
}

static uint32_t some_reference(struct play *p, const struct dict *d,
                               uint32_t old, uint32_t self)
{
    uint64_t end = d->pages.at + (uint64_t)d->pages.max * PAGE_BYTES;

    switch (play_draw(p, 8)) {
    case 0: return 0;
    case 1: return self;
    case 2: return old + 1;
    case 3: return (uint32_t)(end / SEGMENT_UNIT);
    case 4: /* at the end of a page */
        return (old & ~255u) + 254;
    case 5: return (uint32_t)play_draw(p, UINT32_MAX);
    default: return some_cell(p, d);
    }
}

static uint32_t some_number(struct play *p, uint32_t old)
{
    switch (play_draw(p, 8)) {
    case 0: return 0;
    case 1: return UINT32_MAX;
    case 2: return old + 1;
    case 3: return old - 1;
    case 4: return old * 2;
    case 5: return old + 8;
    case 6: return (uint32_t)play_draw(p, 1 << 16);
    default: return old ^ 1u << play_draw(p, 32);
    }
}

/* Another kind, another type, or one of the bits. */
static uint32_t some_meta(struct play *p, uint32_t old)
{
    static const uint32_t BITS[] = {CELL_CHAINED, CELL_RED, CELL_FLAGS,
                                    1u << CELL_HASH_SHIFT, 1u << 31};
    uint64_t n = play_draw(p, 8);

    if (n < 5)
        return old ^ BITS[n];
    if (n == 5)
        return (old & ~CELL_KIND_MASK) |
               (uint32_t)play_draw(p, 4) << CELL_KIND_SHIFT;
    return (old & ~CELL_TYPE_MASK) | (uint32_t)play_draw(p, 8);
}

/* Of what comes after the head: where the value, the chain, the list is. */
static uint64_t in_body(struct play *p, const struct cell *c)
{
    const struct entry *e = (const struct entry *)(const void *)c;

    if (cell_kind(c->meta) != CELL_ENTRY)
        return sizeof(*c) + play_draw(p, 4) * 4;
    switch (play_draw(p, 4)) {
    case 0: return 24 + play_draw(p, 2) * 4; /* the expiry, the key's length */
    case 1: return 32 + play_draw(p, 4) * 4; /* the key */
    default:
        return (entry_value_at(c->meta, entry_key_len(e->key_expires)) +
                play_draw(p, 6) * 4 - 8) % PAGE_BYTES & ~3ull;
    }
}

void fields_damage_cell(struct play *p, const struct dict *d, uint32_t ref)
{
    uint32_t word;
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT, field = play_draw(p, 12);
    const struct cell *c = (const struct cell *)(void *)(base_of(p) + at);

    if (ref == 0)
        return;
    if (field >= 6)
        field = field < 8 ? 4 : field < 10 ? 6 : field - 8;
    at += field == 6 ? in_body(p, c) : field * 4;
    if (at > p->segment->segment.size - 8)
        return;
    memcpy(&word, base_of(p) + at, 4);
    if (field < 4)
        word = some_reference(p, d, word, ref);
    else if (field == 4)
        word = some_meta(p, word);
    else if (field == 6 && play_draw(p, 2) == 0)
        word = some_reference(p, d, word, ref);
    else
        word = some_number(p, word);
    put(p, at, &word, 4);
}

/* ---- what describes them ------------------------------------------------------- */

static void damage_word(struct play *p, const struct dict *d, const void *what,
                        uint64_t bytes)
{
    uint64_t at = (uint64_t)((const unsigned char *)what - base_of(p)) +
                  play_draw(p, bytes / 4) * 4;
    uint32_t word;

    memcpy(&word, base_of(p) + at, 4);
    word = play_draw(p, 2) == 0 ? some_number(p, word)
                                : some_reference(p, d, word, word);
    put(p, at, &word, 4);
}

void fields_damage_page(struct play *p, const struct dict *d, uint32_t number)
{
    struct page *page = &d->pages.table[number];
    uint32_t word, field = (uint32_t)play_draw(p, 16) * 4;

    memcpy(&word, (unsigned char *)page + field, 4);
    if (field >= 16 && field < 32) /* links: page numbers + 1 */
        word = (uint32_t)play_draw(p, 32);
    else if (field == 40)
        word = (uint32_t)play_draw(p, d->shards + 3);
    else if (field == 44)
        word ^= 1u << play_draw(p, 20);
    else
        word = some_number(p, word);
    put(p, (uint64_t)((unsigned char *)page - base_of(p)) + field, &word, 4);
}

void fields_damage_root(struct play *p, const struct dict *d, uint64_t order)
{
    uint32_t grain = index_grain(atomic_load64(&d->pages.bounds->state)), word;
    uint32_t *root;

    if (!index_has(d, grain))
        return;
    root = index_root(d, grain, order);
    word = some_reference(p, d, *root, 0);
    put(p, (uint64_t)((const unsigned char *)root - base_of(p)), &word, 4);
}

void fields_damage_shard(struct play *p, const struct dict *d, uint32_t shard)
{
    damage_word(p, d, &d->shard[shard], 192);
}

static void damage_roots(struct play *p, const struct dict *d)
{
    uint32_t grain = index_grain(atomic_load64(&d->pages.bounds->state));
    uint32_t shard = (uint32_t)play_draw(p, d->shards), word;
    uint64_t first, n;

    if (!index_has(d, grain))
        return;
    first = index_first(d, shard, grain);
    n = index_first(d, shard + 1, grain) - first;
    if (n == 0)
        return;
    first += play_draw(p, n < 32 ? n : 32);
    word = some_reference(p, d, d->roots[grain][first], 0);
    put(p,
        (uint64_t)((const unsigned char *)&d->roots[grain][first] -
                   base_of(p)),
        &word, 4);
}

static void damage_guard(struct play *p, struct guard *g)
{
    static const uint32_t AT[] = {0, 4, 48, 56, 64, 72, 80};

    for (uint64_t n = 0; n <= play_draw(p, 2); n++) {
        uint32_t at = AT[play_draw(p, sizeof(AT) / sizeof(AT[0]))], word;

        memcpy(&word, (unsigned char *)g + at, 4);
        word = some_number(p, word);
        put(p, (uint64_t)((unsigned char *)g - base_of(p)) + at, &word, 4);
    }
}

/* Numbers that are another's, too. */
static void damage_object(struct play *p)
{
    const struct segment *s = &p->segment->segment;
    uint64_t n = play_draw(p, 10), other = play_draw(p, 10);
    uint64_t at = s->catalogue_at + n * SEGMENT_OBJECT_BYTES;
    uint64_t from = s->catalogue_at + other * SEGMENT_OBJECT_BYTES;
    uint64_t field = play_draw(p, 16) * 4, word;
    uint32_t half;

    if (n >= s->objects_max || other >= s->objects_max)
        return;
    if (play_draw(p, 2) == 0) {
        field &= ~7ull;
        memcpy(&word, base_of(p) + from + field, 8);
        put(p, at + field, &word, 8);
        return;
    }
    memcpy(&half, base_of(p) + at + field, 4);
    half = some_number(p, half);
    put(p, at + field, &half, 4);
}

void fields_damage(struct play *p)
{
    const struct segment *s = &p->segment->segment;
    const struct dict *d;

    if (p->dict[PLAY_SMALL] == NULL || p->dict[PLAY_SHARDED] == NULL)
        return;
    d = some_dict(p);
    switch (play_draw(p, 16)) {
    case 0:
    case 1:
        fields_damage_page(p, d,
                           (uint32_t)play_draw(p, d->pages.max < 64
                                                      ? d->pages.max
                                                      : 64));
        break;
    case 2:
        damage_word(p, d, &d->shard[play_draw(p, d->shards)], 192);
        break;
    case 3: damage_word(p, d, d->header, sizeof(*d->header)); break;
    case 4: damage_roots(p, d); break;
    case 5: damage_object(p); break;
    case 6:
        damage_guard(p, play_draw(p, 2) == 0
                            ? guard_at(s, (uint32_t)play_draw(p, s->locks_max))
                            : dict_guard(d, (uint32_t)play_draw(p, d->shards)));
        break;
    case 7: damage_word(p, d, base_of(p) + 256, 96); break;
    default: fields_damage_cell(p, d, some_cell(p, d)); break;
    }
}

/* ---- claims -------------------------------------------------------------------- */

static void fill_claim(struct play *p, const struct dict *d,
                       struct guard_claim *c, uint64_t id)
{
    uint64_t table = (uint64_t)((unsigned char *)d->pages.table - base_of(p));
    uint64_t map = (uint64_t)((unsigned char *)d->pages.map - base_of(p));
    uint64_t page = play_draw(p, 32);

    c->owner_at = table + page * sizeof(struct page) +
                  offsetof(struct page, owner);
    c->map_at = map + page / 64 * 8;
    c->bit = page % 64;
    c->owner = dict_owner((uint32_t)play_draw(p, d->shards));
    switch (play_draw(p, 16)) {
    case 0: c->owner_at += 1 + play_draw(p, 3); break;
    case 1: c->map_at += 4; break;
    case 2: c->bit = 64 + (uint32_t)play_draw(p, 100); break;
    case 3: c->owner = 0; break;
    case 4: c->owner_at = ~3ull - play_draw(p, 64) * 4; break;
    case 5: c->map_at = ~7ull - play_draw(p, 64) * 8; break;
    default: break;
    }
    c->tag = txn_tag(c->owner_at ^ (uint64_t)c->owner << 36,
                     c->map_at ^ (uint64_t)c->bit << 40, txn_salt(id));
    if (play_draw(p, 16) == 0)
        c->tag++;
}

void fields_forge_claims(struct play *p)
{
    struct guard *g;
    const struct dict *d;
    bool releases = play_draw(p, 2) == 0;
    uint32_t max = releases ? GUARD_RELEASES_MAX : GUARD_CLAIMS_MAX, n;
    uint64_t id;

    if (p->dict[PLAY_SMALL] == NULL || p->dict[PLAY_SHARDED] == NULL)
        return;
    d = some_dict(p);
    n = 1 + (uint32_t)play_draw(p, max < 4 ? max : 4);
    n = n < max ? n : max;
    g = dict_guard(d, (uint32_t)play_draw(p, d->shards));
    workers_wrote(g, sizeof(*g));
    id = g->seq | 1;
    for (uint32_t i = 0; i < n; i++)
        fill_claim(p, d, releases ? &g->releases[i] : &g->claims[i], id);
    g->seq = id;
    g->state = releases ? txn_state(0, 0, n) : txn_state(0, n, 0);
    g->state |= play_draw(p, 16) == 0 ? 1ull << (48 + play_draw(p, 16)) : 0;
    g->lock = play_draw(p, 4) == 0 ? 0 : LOCK_DIED;
}
