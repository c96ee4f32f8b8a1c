/* SPDX-License-Identifier: BSD-2-Clause */
/* base/hash.h - the keyed hash of keys: XXH3, seeded by the segment.
 * Source: libxxhash (Debian libxxhash-dev), inlined. A dict stays O(log n)
 * under collisions all the same: see dict/forest.h.
 */
#ifndef SHD_BASE_HASH_H
#define SHD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *data, size_t len, uint64_t seed);

#endif
