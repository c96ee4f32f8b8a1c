/* SPDX-License-Identifier: BSD-2-Clause */
/* collide.h - as many keys of one hash as wanted, for who knows the seed.
 *
 * The hash of 17 to 32 bytes is a sum of two products, each of 16 bytes of the
 * key with the secret and the seed. A factor of the first is made 0; then the
 * other factor, 8 bytes of the key, may be anything.
 */
#ifndef SHD_TOOLS_BENCH_COLLIDE_H
#define SHD_TOOLS_BENCH_COLLIDE_H

#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define COLLIDE_BYTES 32u

static inline void collide_key(unsigned char key[COLLIDE_BYTES], uint64_t seed,
                               uint64_t n)
{
    uint64_t secret;

    memset(key, 'c', COLLIDE_BYTES);
    memcpy(&secret, XXH3_kSecret, sizeof(secret));
    secret += seed;
    memcpy(key, &secret, sizeof(secret));
    memcpy(key + 8, &n, sizeof(n));
}

#endif
