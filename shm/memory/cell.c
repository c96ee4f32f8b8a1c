/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/memory/cell.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the tail of a cell's last word is its low bytes: little-endian only"
#endif

/* The low `len` bytes, 1..7, of a word in private memory: as memcpy into a
 * zeroed word, which for a length the compiler does not know is a call. */
static uint64_t tail_load(const unsigned char *p, size_t len)
{
    uint32_t low, high;
    uint16_t low2;

    if (len >= 4) {
        memcpy(&low, p, 4);
        memcpy(&high, p + len - 4, 4);
        return low | (uint64_t)high << (len - 4) * 8;
    }
    if (len == 1)
        return p[0];
    memcpy(&low2, p, 2);
    return low2 | (uint64_t)p[len - 1] << (len - 1) * 8;
}

static void tail_store(unsigned char *p, uint64_t w, size_t len)
{
    uint32_t part;

    if (len >= 4) {
        part = (uint32_t)w;
        memcpy(p, &part, 4);
        w >>= (len - 4) * 8;
        part = (uint32_t)w;
        memcpy(p + len - 4, &part, 4);
        return;
    }
    for (size_t i = 0; i < len; i++)
        p[i] = (unsigned char)(w >> i * 8);
}

void cell_copy_out(void *to, const void *cell, size_t len)
{
    const uint64_t *from = cell;
    unsigned char *out = to;

    for (; len >= 8; len -= 8, out += 8) {
        uint64_t w = atomic_load64(from++);

        memcpy(out, &w, 8);
    }
    if (len > 0)
        tail_store(out, atomic_load64(from), len);
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
    if (len > 0)
        atomic_store64(to, tail_load(in, len));
}

void cell_store(struct txn *t, void *cell, const void *from, size_t len)
{
    uint64_t *to = cell;
    const unsigned char *in = from;
    uint64_t w;

    for (; len >= 8; len -= 8, in += 8) {
        memcpy(&w, in, 8);
        txn_store64(t, to++, w);
    }
    if (len > 0)
        txn_store64(t, to, tail_load(in, len));
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
    x = atomic_load64(a) & ((1ull << len * 8) - 1);
    y = tail_load(b, len);
    return x == y ? 0 : x < y ? -1 : 1;
}
