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

/* ---- how -------------------------------------------------------------- */

/* list_touch in two halves: what looks and may fail, and what stores. */
struct list_way {
    struct cell *cell, *before, *after, *head;
    uint32_t prev, next, first, last;
};

static inline uint64_t *list_links(struct cell *c)
{
    return (uint64_t *)(void *)&c->word[LIST_PREV];
}

/* False: the links contradict each other, or lead outside. */
static inline __attribute__((always_inline)) bool
list_way_find(const struct pages *p, const struct list *l, uint32_t ref,
              struct cell *cell, struct list_way *way)
{
    uint64_t ends = atomic_load64((const uint64_t *)(const void *)l);
    uint64_t links;

    *way = (struct list_way){.first = (uint32_t)ends};
    if (way->first == ref)
        return true;
    if (cell == NULL)
        return false;
    links = atomic_load64(list_links(cell));
    way->last = (uint32_t)(ends >> 32);
    way->prev = (uint32_t)links;
    way->next = (uint32_t)(links >> 32);
    way->cell = cell;
    way->before = cell_at(p, way->prev, sizeof(*cell));
    way->after = way->next == 0 ? NULL : cell_at(p, way->next, sizeof(*cell));
    way->head = cell_at(p, way->first, sizeof(*cell));
    atomic_will_write(way->before);
    atomic_will_write(way->after);
    atomic_will_write(way->head);
    return way->before != NULL && way->head != NULL &&
           (way->next == 0) == (way->last == ref) &&
           (way->next == 0 || way->after != NULL);
}

static inline __attribute__((always_inline)) void
list_way_go(struct txn *t, struct list *l, uint32_t ref,
            const struct list_way *way)
{
    uint32_t last = way->last;

    if (way->first == ref)
        return;
    txn_store32(t, &way->before->word[LIST_NEXT], way->next);
    if (way->next != 0)
        txn_store32(t, &way->after->word[LIST_PREV], way->prev);
    else
        last = way->prev;
    txn_store64(t, list_links(way->cell), (uint64_t)way->first << 32);
    txn_store32(t, &way->head->word[LIST_PREV], ref);
    txn_store64(t, (uint64_t *)(void *)l, (uint64_t)last << 32 | ref);
}

#endif
