/* SPDX-License-Identifier: BSD-2-Clause */
/* memory/list.h - doubly linked lists of cells.
 *
 * OWNS   one aligned 8-byte word of links in each cell: prev, then next.
 * HOLDS  prev and next mirror each other; 0 ends both ways.
 * LOCK   changes: inside a transaction. Walks: under the lock.
 * CRASH  death anywhere leaves it as it was at txn_begin().
 * COST   O(1), at most LIST_WORDS stores.
 */
#ifndef SHD_MEMORY_LIST_H
#define SHD_MEMORY_LIST_H

#include "shm/memory/cell.h"

#define LIST_WORDS 4u

/* In the shard's head, one aligned 8-byte word. */
struct list {
    uint32_t first; /* 0 */
    uint32_t last;  /* 4 */
};
static_assert(sizeof(struct list) == 8, "layout");

enum { LIST_PREV = 2, LIST_NEXT = 3 }; /* words of the cell */

/* Puts a cell that is in no list at the front. */
int list_push(const struct pages *p, struct txn *t, struct list *l,
              uint32_t ref);

int list_remove(const struct pages *p, struct txn *t, struct list *l,
                uint32_t ref);

/* Brings a cell of the list to the front: 1, or 0 if it was there. */
int list_touch(const struct pages *p, struct txn *t, struct list *l,
               uint32_t ref);

/* Puts `new` where `old` is; old is in no list then. */
int list_replace(const struct pages *p, struct txn *t, struct list *l,
                 uint32_t old, uint32_t new);

/* Links both ways, and that it has `count` cells. */
int list_check(const struct pages *p, const struct list *l, uint64_t count,
               char *report, size_t size);

#endif
