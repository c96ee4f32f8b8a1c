/* SPDX-License-Identifier: BSD-2-Clause */
/* base/hash.h - the keyed hash of keys: XXH3, seeded by the segment.
 * Source: libxxhash (Debian libxxhash-dev), inlined. A dict stays O(log n)
 * under collisions all the same: see dict/forest.h.
 */
#ifndef SHD_BASE_HASH_H
#define SHD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Keys up to this long are hashed where the call is. */
#define HASH_INLINE_MAX 16u

uint64_t hash_long(const void *data, size_t len, uint64_t seed);

/* Of what is inlined, the compiler keeps the way that short keys take. */
static inline uint64_t hash_bytes(const void *data, size_t len, uint64_t seed)
{
    return len <= HASH_INLINE_MAX ? XXH3_64bits_withSeed(data, len, seed)
                                  : hash_long(data, len, seed);
}

#endif
