/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/memory/cell.h"

/* Neither the compiler nor libc knows that others store to `cell` meanwhile;
 * so it is called, never inlined, and nothing of it is used but the copy. */
__attribute__((noinline)) void cell_copy_bulk(void *to, const void *cell,
                                              size_t len)
{
    atomic_compiler_barrier();
    memcpy(to, cell, len);
    atomic_compiler_barrier();
}

void cell_fill(void *cell, const void *from, size_t len)
{
    uint64_t *to = cell;
    const unsigned char *in = from;
    uint64_t w;

    if (!CELL_BY_WORDS && len >= CELL_BULK) {
        size_t whole = len & ~(size_t)7;

        atomic_compiler_barrier();
        memcpy(to, in, whole);
        atomic_compiler_barrier();
        to += whole / 8;
        in += whole;
        len -= whole;
    }
    for (; len >= 8; len -= 8, in += 8) {
        memcpy(&w, in, 8);
        atomic_store64(to++, w);
    }
    if (len > 0)
        atomic_store64(to, cell_tail_load(in, len));
}
