/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/place.h - dict_place for where every call goes through: inlined.
 *
 * COST   about 40 instructions for a key of up to HASH_INLINE_MAX bytes.
 */
#ifndef SHD_DICT_PLACE_H
#define SHD_DICT_PLACE_H

#include "shm/base/hash.h"
#include "shm/dict/dict.h"

static inline struct place place_of_hash(const struct dict *d, uint64_t hash)
{
    uint32_t bits = d->shard_bits + d->root_bits;
    /* Two shifts: one by 64 bits would be undefined. */
    uint64_t top = hash >> 1 >> (63 - bits);

    return (struct place){.shard = (uint32_t)(top >> d->root_bits),
                          .root = (uint32_t)top,
                          .hash = (uint32_t)(hash << bits >> 40)};
}

static inline struct place place_of_key(const struct dict *d, const void *key,
                                        size_t len)
{
    return place_of_hash(d, hash_bytes(key, len, d->env->segment->hash_seed));
}

#endif
