/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/index.h - the roots, and how their number follows the capacity.
 *
 * OWNS   the arrays of roots: one for each grain there may be, a power of two
 *        long; of which one is in use, and two while the index is changed. The
 *        tag of the pages' bounds (memory/pages.h):
 *          byte 0   the grain         keys are put under its roots
 *          byte 1   the former grain  the same, or: keys may still be there
 *          byte 2-3 counts up with each change of the tag
 * HOLDS  an entry is under the root of its order in the array of the grain, or
 *        while the index is changed in that of the former one; in one of them.
 * LOCK   the tag: changed with shard 0's lock. An entry goes over in a
 *        transaction of its own, with the lock of its shard.
 * CRASH  at any moment both arrays are sound, and who looks into both, the
 *        former one last, misses nothing. Whoever resizes next goes on; and
 *        stores, a few entries each, until there is one index again.
 * COST   index_help: at most 8 entries, and 256 empty roots, for a store.
 *        index_move: one tree's removal and one's insertion for each entry.
 *        A look: nothing; the tag lies in the word that tells how many pages
 *        may be touched, which is looked at anyway. While the index is changed
 *        two roots in place of one for what is not there.
 *
 * Who has taken the lock of a shard after the tag was changed acts on the new
 * one (dict_enter), so once each shard has been passed with its lock, its
 * former roots empty, they stay empty. Readers without the lock: if they have
 * the tag of before, the entry moved after they loaded the shard's sequence
 * counter, and they are not valid. The tag counts so that a thread that was
 * long away cannot put back what the others of its process have seen.
 *
 * Two designs were drawn. The other was linear hashing: one array, grown at
 * its end, and a boundary in each shard below which roots are split. It needs
 * no second array; but each look has to know the boundary, which is one line
 * more for every reader, and finds its root with half a dozen instructions
 * more, for good. Here only the time of a change is slower, and the price is
 * that half as much memory again is the index's then.
 */
#ifndef SHD_DICT_INDEX_H
#define SHD_DICT_INDEX_H

#include "shm/dict/dict.h"

/* Grains of one dict: the last ones leave eight bits to a tree, so that two
 * keys in it seldom have the same. */
#define GRAIN_MIN 8u
#define ORDER_BITS_MAX 60u

/* How orders are cut. */
struct index_shape {
    uint32_t order_bits;
    uint32_t grain_first;
    uint32_t grain_min;
};

static inline uint32_t index_grain(uint64_t state)
{
    return (uint8_t)state;
}

static inline uint32_t index_former(uint64_t state)
{
    return (uint8_t)(state >> 8);
}

static inline bool index_moves(uint64_t state)
{
    return index_grain(state) != index_former(state);
}

/* A damaged one is not, as this process sees it. */
static inline bool index_sound(uint64_t state)
{
    return index_grain(state) <= GRAIN_MAX && index_former(state) <= GRAIN_MAX;
}

/* The state as this process sees it, after dict_enter. */
static inline uint64_t index_state(const struct dict *d)
{
    return atomic_load64(&d->pages.state);
}

static inline uint32_t *index_root(const struct dict *d, uint32_t grain,
                                   uint64_t order)
{
    return &d->roots[grain][order >> grain];
}

static inline uint64_t index_roots(const struct dict *d, uint32_t grain)
{
    return 1ull << (d->order_bits - grain);
}

/* The number of a shard's first root; those after it are the next shard's. */
static inline uint64_t index_first(const struct dict *d, uint32_t shard,
                                   uint32_t grain)
{
    return (uint64_t)shard << (d->shard_shift - grain);
}

/* log2 of the roots of a dict of that capacity. `hint`: entries expected at
 * the capacity `first`; 0: as many as it may have small ones. */
uint32_t index_bits(uint64_t hint, uint64_t first, uint32_t shard_bits,
                    uint64_t capacity);

/* For a dict that begins with 1 << bits roots and may come to have
 * 1 << bits_max. `fixed`: neither more nor fewer. */
struct index_shape index_shape(uint32_t shard_bits, uint32_t bits,
                               uint32_t bits_max, bool fixed);

/* The bytes of one array (0: there is no such grain), and of all but the first
 * grain's, each a multiple of 4096. */
uint64_t index_array_bytes(const struct index_shape *s, uint32_t grain);
uint64_t index_arrays_bytes(const struct index_shape *s);

/* Memory of the index's array beyond what it is when the grain is the first
 * one, whose array begins at `at`; may be below 0. */
int64_t index_extra_bytes(const struct index_shape *s, uint64_t at,
                          uint32_t grain);

/* Fills d->roots, and what the tag may be. NULL as an address: SHD_CORRUPT.
 * `at` gives the address of a part of the extent. */
int index_view(struct dict *d, const struct index_shape *s, void *first,
               unsigned char *others);

/* Is there an array of that grain? */
static inline bool index_has(const struct dict *d, uint64_t grain)
{
    return grain >= d->grain_min && grain <= GRAIN_MAX;
}

/* Is the shared tag one that can be? */
bool index_tag_sound(const struct dict *d);

/* The header's word for a dict that begins. */
uint64_t index_tag(uint32_t grain, uint32_t former, uint64_t before);

/* For repair: memory for all of a grain's array, whatever it holds. */
int index_commit(const struct dict *d, uint32_t grain);

/* With shard 0's lock, and nobody using that grain: gives memory to a part of
 * its array, which holds nothing then. The array has `bytes`. */
int index_clear(const struct dict *d, uint32_t grain, uint64_t from,
                uint64_t to);
uint64_t index_bytes(const struct dict *d, uint32_t grain);

/* The same, the other way: gives memory back, as far as whole pages of it hold
 * nothing else. */
int index_forget(const struct dict *d, uint32_t grain, uint64_t from,
                 uint64_t to);

/* With the shard's lock, while the index is changed: moves some entries from
 * under the shard's former roots, root number *root on, which goes forward. 1:
 * there is more; SHD_OK: all of the shard has moved. */
int index_move(const struct dict *d, uint32_t shard, uint64_t *root);

/* With the shard's lock: the same for a few, from where the last one stopped;
 * for whoever stores while the index is changed. 1: all of all shards has
 * moved. */
int index_help(const struct dict *d, uint32_t shard);

/* Without a lock: ends the change if so. */
int index_help_end(const struct dict *d);

#endif
