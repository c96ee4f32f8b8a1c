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

void cell_store(struct txn *t, void *cell, const void *from, size_t len)
{
    uint64_t *to = cell;
    const unsigned char *in = from;
    uint64_t w;

    for (; len >= 8; len -= 8, in += 8, to++) {
        memcpy(&w, in, 8);
        if (w != atomic_load64(to))
            txn_store64(t, to, w);
    }
    if (len == 0)
        return;
    w = cell_tail_load(in, len);
    if (w != atomic_load64(to))
        txn_store64(t, to, w);
}
