/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/memory/cell.h"

#include <string.h>

void cell_copy_out(void *to, const void *cell, size_t len)
{
    const uint64_t *from = cell;
    unsigned char *out = to;

    for (; len >= 8; len -= 8, out += 8) {
        uint64_t w = atomic_load64(from++);

        memcpy(out, &w, 8);
    }
    if (len > 0) {
        uint64_t w = atomic_load64(from);

        memcpy(out, &w, len);
    }
}

void cell_fill(void *cell, const void *from, size_t len)
{
    uint64_t *to = cell;
    const unsigned char *in = from;
    uint64_t w;

    for (; len >= 8; len -= 8, in += 8) {
        memcpy(&w, in, 8);
        atomic_store64(to++, w);
    }
    if (len > 0) {
        w = 0;
        memcpy(&w, in, len);
        atomic_store64(to, w);
    }
}

int cell_compare(const void *cell, const void *with, size_t len)
{
    const uint64_t *a = cell;
    const unsigned char *b = with;
    uint64_t x, y;

    for (; len >= 8; len -= 8, b += 8) {
        x = atomic_load64(a++);
        memcpy(&y, b, 8);
        if (x != y)
            return x < y ? -1 : 1;
    }
    if (len == 0)
        return 0;
    x = 0;
    y = 0;
    uint64_t last = atomic_load64(a);
    memcpy(&x, &last, len);
    memcpy(&y, b, len);
    return x == y ? 0 : x < y ? -1 : 1;
}
