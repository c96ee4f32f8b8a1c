/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The arrays, by grain, for 1 << 14 roots at first:
 *
 *   grain     24      23    ...     ..     ..    first    ...    grain_min
 *   roots   the fewest    doubling each time    1 << 14          the most
 *           |_____________ after the pages ________|  |_ after the pages _|
 *                                                  |
 *                                        before the page map
 *
 * The first one lies among the small parts of the header, for small dicts have
 * no page to give to it alone.
 */
#include "shm/dict/index.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"

#include <string.h>

#define BYTES_PER_ROOT 128u
/* log2 of the fewest roots of a shard, and of the most of a dict. */
#define SHARD_BITS_MIN 4u
#define BITS_MAX 36u
/* log2 of the roots in a page. */
#define PAGE_BITS 10u
/* Under one hold of a shard's lock. */
#define MOVES_A_STEP 64u
#define ROOTS_A_STEP 4096u
/* The same, for a store that helps. */
#define MOVES_A_STORE 8u
#define ROOTS_A_STORE 256u
#define HELPED_MASK UINT32_MAX
#define MOVE_WORDS (TREE_REMOVE_WORDS + TREE_INSERT_WORDS)
static_assert(MOVE_WORDS <= GUARD_UNDO_MAX, "log");
static_assert(BITS_MAX + GRAIN_MAX <= ORDER_BITS_MAX, "an order");

/* What a grain without an array leads to: no reference at all. */
static const uint32_t nowhere[2] = {UINT32_MAX, UINT32_MAX};

/* ---- how many ---------------------------------------------------------- */

uint32_t index_bits(uint64_t hint, uint64_t first, uint32_t shard_bits,
                    uint64_t capacity)
{
    uint64_t roots = capacity / BYTES_PER_ROOT;
    uint32_t bits;

    /* More than there can be just now is what there will be in the end. */
    if (hint > first / SLAB_CELL_MIN)
        roots = hint > roots ? hint : roots;
    else if (hint > 0 && first >= PAGE_BYTES)
        roots = capacity / PAGE_BYTES * hint / (first / PAGE_BYTES);
    bits = 63u - (uint32_t)__builtin_clzll(roots | 1);
    if (bits < shard_bits + SHARD_BITS_MIN)
        bits = shard_bits + SHARD_BITS_MIN;
    return bits < BITS_MAX ? bits : BITS_MAX;
}

struct index_shape index_shape(uint32_t shard_bits, uint32_t bits,
                               uint32_t bits_max, bool fixed)
{
    struct index_shape s;
    uint32_t fewest = shard_bits + SHARD_BITS_MIN;

    /* What fills no page wastes none. */
    if (fewest < PAGE_BITS)
        fewest = PAGE_BITS;
    if (bits_max < bits || fixed)
        bits_max = bits;
    if (bits_max > fewest + (GRAIN_MAX - GRAIN_MIN))
        fewest = bits_max - (GRAIN_MAX - GRAIN_MIN);
    if (fewest > bits || fixed)
        fewest = bits;
    s.order_bits = fewest + GRAIN_MAX;
    s.grain_first = s.order_bits - bits;
    s.grain_min = s.order_bits - bits_max;
    if (s.grain_min < GRAIN_MIN)
        s.grain_min = GRAIN_MIN;
    return s;
}

/* ---- where ------------------------------------------------------------- */

static uint64_t page_up(uint64_t n)
{
    return (n + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

uint64_t index_array_bytes(const struct index_shape *s, uint32_t grain)
{
    return grain > GRAIN_MAX ? 0 : 4ull << (s->order_bits - grain);
}

uint64_t index_arrays_bytes(const struct index_shape *s)
{
    uint64_t bytes = 0;

    for (uint32_t g = s->grain_min; g <= GRAIN_MAX; g++)
        bytes += g == s->grain_first ? 0 : page_up(index_array_bytes(s, g));
    return bytes;
}

int64_t index_extra_bytes(const struct index_shape *s, uint64_t at,
                          uint32_t grain)
{
    uint64_t first = page_up(at), end;

    if (grain == s->grain_first)
        return 0;
    end = at + index_array_bytes(s, s->grain_first);
    end = end / PAGE_BYTES * PAGE_BYTES;
    return (int64_t)page_up(index_array_bytes(s, grain)) -
           (int64_t)(end > first ? end - first : 0);
}

int index_view(struct dict *d, const struct index_shape *s, void *first,
               unsigned char *others)
{
    if (first == NULL || others == NULL)
        return SHD_CORRUPT;
    d->order_bits = (uint8_t)s->order_bits;
    d->hash_shift = (uint8_t)(64 - s->order_bits);
    d->shard_shift = (uint8_t)(s->order_bits - d->shard_bits);
    d->grain_first = (uint8_t)s->grain_first;
    d->grain_min = (uint8_t)s->grain_min;
    for (uint32_t g = 0; g < GRAINS; g++)
        d->roots[g] = (uint32_t *)(uintptr_t)nowhere;
    for (uint32_t g = GRAIN_MAX; g >= s->grain_min; g--) {
        d->pages.tags |= 1ull << g;
        d->roots[g] = g == s->grain_first ? first : (void *)others;
        if (g != s->grain_first)
            others += page_up(index_array_bytes(s, g));
    }
    d->pages.state = PAGES_STATE_UNSEEN;
    return SHD_OK;
}

static struct index_shape shape_of(const struct dict *d)
{
    return (struct index_shape){d->order_bits, d->grain_first, d->grain_min};
}

uint64_t index_bytes(const struct dict *d, uint32_t grain)
{
    const struct index_shape s = shape_of(d);

    return index_array_bytes(&s, grain);
}

/* ---- the tag ----------------------------------------------------------- */

uint64_t index_tag(uint32_t grain, uint32_t former, uint64_t before)
{
    uint64_t turn = (before >> 16) + 1;

    return (turn << 16 & PAGES_TAG_MASK) | former << 8 | grain;
}

bool index_tag_sound(const struct dict *d)
{
    uint64_t state = atomic_load64(&d->pages.bounds->state);

    return index_has(d, index_grain(state)) &&
           index_has(d, index_former(state));
}

/* ---- memory ------------------------------------------------------------ */

static uint64_t at_of(const struct dict *d, uint32_t grain, uint64_t byte)
{
    return segment_offset(d->env->segment, d->roots[grain]) + byte;
}

int index_forget(const struct dict *d, uint32_t grain, uint64_t from,
                 uint64_t to)
{
    return segment_decommit(d->env->segment, at_of(d, grain, from), to - from);
}

int index_commit(const struct dict *d, uint32_t grain)
{
    return segment_commit(d->env->segment, at_of(d, grain, 0),
                          index_bytes(d, grain));
}

/* Nobody looks there: these are plain stores. */
static void zero(uint32_t *roots, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        if (atomic_load32(&roots[i]) != 0)
            atomic_store32(&roots[i], 0);
    }
}

int index_clear(const struct dict *d, uint32_t grain, uint64_t from,
                uint64_t to)
{
    uint64_t begin = at_of(d, grain, from), end = at_of(d, grain, to);
    uint64_t first = page_up(begin) - begin, last = end % PAGE_BYTES;
    int rc = index_forget(d, grain, from, to);

    if (rc == SHD_OK)
        rc = segment_commit(d->env->segment, begin, to - from);
    if (rc != SHD_OK)
        return rc;
    /* What shares a page with other parts was not given back. */
    if (first > to - from)
        first = to - from;
    if (last > to - from)
        last = to - from;
    zero(d->roots[grain], from / 4, (from + first) / 4);
    zero(d->roots[grain], (to - last) / 4, to / 4);
    return SHD_OK;
}

/* ---- moving ------------------------------------------------------------ */

/* The order of an entry under a root, as its 24 bits tell. SHD_CORRUPT: they
 * say that it does not belong there. */
static int order_of(const struct entry *e, uint32_t grain, uint64_t root,
                    uint64_t *order)
{
    const uint64_t mask = (1ull << GRAIN_MAX) - 1;

    *order = ((root << grain) & ~mask) |
             atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT;
    return *order >> grain == root ? SHD_OK : SHD_CORRUPT;
}

/* The first entry of the tree goes under its root of the grain. */
static int move_first(const struct dict *d, uint32_t shard, uint64_t state,
                      uint64_t number)
{
    const struct tree_kind *nodes = &d->pages.nodes;
    uint32_t former = index_former(state), *from, *to, ref = 0;
    const struct entry *e = NULL;
    struct tree_path path;
    uint64_t order;
    struct txn t;
    int rc;

    from = &d->roots[former][number];
    rc = tree_first(d->env->segment, nodes, atomic_load32(from), &path);
    if (rc == 1) {
        ref = path.ref[path.depth - 1];
        e = entry_at(&d->pages, ref);
    }
    if (e == NULL || order_of(e, former, number, &order) != SHD_OK)
        return dict_damaged(d, "an entry is under a root that is not its own");
    to = index_root(d, index_grain(state), order);
    txn_begin(&t, d->env->segment, dict_guard(d, shard), MOVE_WORDS);
    rc = tree_remove(&t, nodes, from, &path);
    if (rc == SHD_OK) {
        rc = forest_path_below(d, to, e, &path);
        rc = rc == 0   ? tree_insert(&t, nodes, to, &path, ref)
             : rc == 1 ? SHD_CORRUPT
                       : rc;
    }
    if (rc == SHD_OK) {
        txn_commit(&t);
        return SHD_OK;
    }
    txn_abort(&t);
    return rc == SHD_CORRUPT ? dict_damaged(d, "a tree is none") : rc;
}

/* From under the shard's former roots, up to root number `stop`. */
static int move_some(const struct dict *d, uint32_t shard, uint64_t state,
                     uint64_t *root, uint64_t stop, uint32_t moves)
{
    uint32_t former = index_former(state);

    while (*root < stop && moves > 0) {
        int rc;

        if (atomic_load32(&d->roots[former][*root]) == 0) {
            (*root)++;
            continue;
        }
        rc = move_first(d, shard, state, *root);
        if (rc != SHD_OK)
            return rc;
        moves--;
    }
    return SHD_OK;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int index_move(const struct dict *d, uint32_t shard, uint64_t *root)
{
    uint64_t state = index_state(d), end;
    int rc;

    if (!index_sound(state))
        return dict_damaged(d, "its index is said to be what it is not");
    if (!index_moves(state))
        return SHD_OK;
    end = index_first(d, shard + 1, index_former(state));
    rc = move_some(d, shard, state, root, least(*root + ROOTS_A_STEP, end),
                   MOVES_A_STEP);
    return rc == SHD_OK ? *root < end : rc;
}

/* ---- helping ----------------------------------------------------------- */

/* The former roots of a shard that are known to be empty, for this tag. What
 * the word says is a hint as long as there are others. */
static uint64_t helped(const struct dict *d, uint32_t shard, uint64_t state)
{
    uint64_t word = atomic_load64(&d->shard[shard].helped);
    uint64_t all = index_first(d, 1, index_former(state));

    if (word >> 32 != (state & PAGES_TAG_MASK))
        return 0;
    return least(word & HELPED_MASK, all);
}

static bool all_helped(const struct dict *d, uint32_t shard, uint64_t state)
{
    return helped(d, shard, state) == index_first(d, 1, index_former(state));
}

/* Asked with one shard's lock. Those after it first: as a rule one of them has
 * some left. */
static bool all_shards_helped(const struct dict *d, uint32_t shard,
                              uint64_t state)
{
    for (uint32_t i = 1; i <= d->shards; i++) {
        if (!all_helped(d, (shard + i) & (d->shards - 1), state))
            return false;
    }
    return true;
}

int index_help(const struct dict *d, uint32_t shard)
{
    uint64_t state = index_state(d), first, root, begin;
    struct txn t;
    int rc;

    if (!index_sound(state) || !index_moves(state) ||
        index_first(d, 1, index_former(state)) > HELPED_MASK)
        return SHD_OK;
    first = index_first(d, shard, index_former(state));
    begin = root = first + helped(d, shard, state);
    rc = move_some(d, shard, state, &root,
                   least(root + ROOTS_A_STORE,
                         index_first(d, shard + 1, index_former(state))),
                   MOVES_A_STORE);
    if (rc != SHD_OK)
        return rc;
    if (root != begin) {
        txn_begin(&t, d->env->segment, dict_guard(d, shard), 1);
        txn_store64(&t, &d->shard[shard].helped,
                    (state & PAGES_TAG_MASK) << 32 | (root - first));
        txn_commit(&t);
    }
    return all_shards_helped(d, shard, state);
}

/* A shard whose former roots are found empty, with its lock, after the tag was
 * set, keeps them so. */
int index_help_end(const struct dict *d)
{
    uint64_t state;
    int rc = dict_lock(d, 0);

    if (rc != SHD_OK)
        return rc;
    state = index_state(d);
    if (index_sound(state) && index_moves(state) &&
        all_shards_helped(d, 0, state))
        rc = pages_set_tag(&d->pages, index_tag(index_grain(state),
                                                index_grain(state), state));
    dict_unlock(d, 0);
    return rc;
}
