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
    struct place at;

    at.order = hash >> d->hash_shift;
    at.shard = (uint32_t)(at.order >> d->shard_shift);
    at.hash = (uint32_t)at.order & ((1u << GRAIN_MAX) - 1);
    at.root = NULL;
    return at;
}

static inline struct place place_of_key(const struct dict *d, const void *key,
                                        size_t len)
{
    return place_of_hash(d, hash_bytes(key, len, d->env->segment->hash_seed));
}

#endif
