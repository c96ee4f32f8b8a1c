/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/memory/cell.h"

void cell_fill(void *cell, const void *from, size_t len)
{
    uint64_t *to = cell;
    const unsigned char *in = from;
    uint64_t w;

    for (; len >= 8; len -= 8, in += 8) {
        memcpy(&w, in, 8);
        atomic_store64(to++, w);
    }
    if (len > 0)
        atomic_store64(to, cell_tail_load(in, len));
}
