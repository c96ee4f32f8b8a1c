/* SPDX-License-Identifier: BSD-2-Clause */
/* memory/cell.h - the first 24 bytes that every cell in use has in common.
 *
 *      0        4        8        12       16         20       24
 *      | word 0 | word 1 | word 2 | word 3 | meta     | len    | ...
 *
 *   kind    word 0  word 1  word 2    word 3           len
 *   entry   left    right   LRU prev  LRU next / next  value bytes
 *   node    next    prev    lease     next garbage     value bytes
 *   lease   left    right   node      next garbage     how (dict/lease.h)
 *   chain   next    back    of        number / garbage bytes in this cell
 *
 * meta = hash << 8 | has_flags << 7 | red << 6 | chained << 5 | kind << 3 |
 * type. An entry that carries a version is a kind of its own, for want of
 * another bit. All links are references in units of 16 bytes; 0 is none.
 */
#ifndef SHD_MEMORY_CELL_H
#define SHD_MEMORY_CELL_H

#include "shm/memory/slab.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the tail of a cell's last word is its low bytes: little-endian only"
#endif

struct cell {
    uint32_t word[4]; /*  0 */
    uint32_t meta;    /* 16 */
    uint32_t len;     /* 20 */
};
static_assert(sizeof(struct cell) == 24, "layout");

enum { CELL_ENTRY = 0, CELL_NODE = 1, CELL_CHAIN = 2, CELL_VERSIONED = 3 };

#define CELL_TYPE_MASK 0x07u
#define CELL_KIND_SHIFT 3
#define CELL_KIND_MASK (3u << CELL_KIND_SHIFT)
#define CELL_CHAINED (1u << 5) /* its value goes on in a chain */
#define CELL_RED (1u << 6)
#define CELL_FLAGS (1u << 7) /* entry: user flags are stored */
#define CELL_HASH_SHIFT 8

static inline bool cell_is_versioned(uint32_t meta)
{
    return (meta & CELL_KIND_MASK) == CELL_VERSIONED << CELL_KIND_SHIFT;
}

/* cell_kind() == CELL_NODE, in fewer instructions. */
static inline bool cell_is_node(uint32_t meta)
{
    return (meta & CELL_KIND_MASK) == CELL_NODE << CELL_KIND_SHIFT;
}

/* CELL_ENTRY, versioned or not; CELL_NODE; CELL_CHAIN. */
static inline uint32_t cell_kind(uint32_t meta)
{
    return cell_is_versioned(meta) ? CELL_ENTRY : meta >> CELL_KIND_SHIFT & 3;
}

/* The cell at ref, or NULL unless the first `bytes` bytes at it lie in one
 * page of the dict that may be touched. A page is never crossed, so what is
 * checked against its end stays inside the segment. */
static inline __attribute__((always_inline)) struct cell *
cell_at(const struct pages *p, uint32_t ref, uint32_t bytes)
{
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT;

    if (pages_number(p, at) == PAGE_NONE ||
        (at - p->at) % PAGE_BYTES + bytes > PAGE_BYTES)
        return NULL;
    return (struct cell *)(void *)(p->segment->base + at);
}

/* A cell that slab_alloc has just given: wherever the committed pages are said
 * to end by now, it lies in the room of the dict. */
static inline void *cell_fresh(const struct pages *p, uint32_t ref)
{
    return p->segment->base + (uint64_t)ref * SEGMENT_UNIT;
}

/* The page a cell lies in, or PAGE_NONE. */
static inline uint32_t cell_page(const struct pages *p, uint32_t ref)
{
    return pages_number(p, (uint64_t)ref * SEGMENT_UNIT);
}

/* Bytes from the start of a cell to the end of its page. */
static inline uint32_t cell_room(const struct pages *p, const void *cell)
{
    return PAGE_BYTES -
           (uint32_t)((segment_offset(p->segment, cell) - p->at) % PAGE_BYTES);
}

/* The low `len` bytes, 1..7, of a word in private memory: as memcpy into a
 * zeroed word, which for a length the compiler does not know is a call. */
static inline __attribute__((always_inline)) uint64_t
cell_tail_load(const unsigned char *p, size_t len)
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

static inline void cell_tail_store(unsigned char *p, uint64_t w, size_t len)
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

/* From so many bytes on they are copied as libc does it, in the largest pieces
 * there are. What a reader without the lock gets may be torn either way, and
 * counts only once it has been validated; nothing is decided by it before. The
 * thread sanitizer, and who records every store, see whole words instead. */
#define CELL_BULK 128u
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CELL_BY_WORDS 1
#endif
#endif
#if !defined(CELL_BY_WORDS) && defined(__SANITIZE_THREAD__)
#define CELL_BY_WORDS 1
#elif !defined(CELL_BY_WORDS)
#define CELL_BY_WORDS 0
#endif

/* cell_copy_out of CELL_BULK bytes or more. */
void cell_copy_bulk(void *to, const void *cell, size_t len);

/* Copies between private memory and a cell by whole words, so that a reader
 * without the lock races with nothing wider than a word; it may read, and
 * write, up to 7 bytes past len, which the cell has. `cell` is 8-aligned. */
static inline __attribute__((always_inline)) void
cell_copy_out(void *to, const void *cell, size_t len)
{
    const uint64_t *from = cell;
    unsigned char *out = to;

    if (!CELL_BY_WORDS && len >= CELL_BULK) {
        cell_copy_bulk(to, cell, len);
        return;
    }
    for (; len >= 16; len -= 16, out += 16) {
        uint64_t w = atomic_load64(from++), x = atomic_load64(from++);

        memcpy(out, &w, 8);
        memcpy(out + 8, &x, 8);
    }
    if (len >= 8) {
        uint64_t w = atomic_load64(from++);

        memcpy(out, &w, 8);
        len -= 8;
        out += 8;
    }
    if (len > 0)
        cell_tail_store(out, atomic_load64(from), len);
}

void cell_fill(void *cell, const void *from, size_t len);

/* cell_fill of a cell that can be reached: up to (len + 7) / 8 logged stores,
 * of the words that change. */
static inline __attribute__((always_inline)) void
cell_store(struct txn *t, void *cell, const void *from, size_t len)
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

/* The same bytes? For `<` and `>`: a total order, of little use to people. */
static inline __attribute__((always_inline)) int
cell_compare(const void *cell, const void *with, size_t len)
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
    y = cell_tail_load(b, len);
    return x == y ? 0 : x < y ? -1 : 1;
}

#endif
