/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/base/hash.h"

uint64_t hash_long(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}
