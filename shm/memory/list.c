/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/memory/list.h"
#include "shm/base/error.h"

#include <stdio.h>

static struct cell *list_cell(const struct pages *p, uint32_t ref)
{
    return cell_at(p, ref, sizeof(struct cell));
}

static int broken(void)
{
    return error_set(SHD_CORRUPT, "list: a link leads outside its dict");
}

static void links_store(struct txn *t, struct cell *c, uint32_t prev,
                        uint32_t next)
{
    txn_store64(t, list_links(c), (uint64_t)next << 32 | prev);
}

static void ends_store(struct txn *t, struct list *l, uint32_t first,
                       uint32_t last)
{
    txn_store64(t, (uint64_t *)(void *)l, (uint64_t)last << 32 | first);
}

int list_push(const struct pages *p, struct txn *t, struct list *l,
              uint32_t ref)
{
    uint32_t first = atomic_load32(&l->first);
    uint32_t last = atomic_load32(&l->last);
    struct cell *c = list_cell(p, ref);

    if (c == NULL)
        return broken();
    links_store(t, c, 0, first);
    if (first != 0) {
        struct cell *old = list_cell(p, first);

        if (old == NULL)
            return broken();
        txn_store32(t, &old->word[LIST_PREV], ref);
    }
    ends_store(t, l, ref, last == 0 ? ref : last);
    return SHD_OK;
}

/* Makes the neighbours of c, which is at ref, lead to `to_prev` and `to_next`
 * instead. */
static int relink(const struct pages *p, struct txn *t, struct list *l,
                  const struct cell *c, uint32_t ref, uint32_t as_next,
                  uint32_t as_prev)
{
    uint32_t prev = atomic_load32(&c->word[LIST_PREV]);
    uint32_t next = atomic_load32(&c->word[LIST_NEXT]);
    uint32_t first = atomic_load32(&l->first);
    uint32_t last = atomic_load32(&l->last);

    if ((prev == 0) != (first == ref) || (next == 0) != (last == ref))
        return error_set(SHD_CORRUPT, "list: its ends are not its ends");
    if (prev != 0) {
        struct cell *a = list_cell(p, prev);

        if (a == NULL)
            return broken();
        txn_store32(t, &a->word[LIST_NEXT], as_next);
    }
    if (next != 0) {
        struct cell *b = list_cell(p, next);

        if (b == NULL)
            return broken();
        txn_store32(t, &b->word[LIST_PREV], as_prev);
    }
    if (prev == 0 || next == 0)
        ends_store(t, l, prev == 0 ? as_next : first,
                   next == 0 ? as_prev : last);
    return SHD_OK;
}

int list_remove(const struct pages *p, struct txn *t, struct list *l,
                uint32_t ref)
{
    const struct cell *c = list_cell(p, ref);

    if (c == NULL)
        return broken();
    return relink(p, t, l, c, ref, atomic_load32(&c->word[LIST_NEXT]),
                  atomic_load32(&c->word[LIST_PREV]));
}

int list_touch(const struct pages *p, struct txn *t, struct list *l,
               uint32_t ref)
{
    struct list_way way;

    if (!list_way_find(p, l, ref, list_cell(p, ref), &way))
        return error_set(SHD_CORRUPT, "list: its links are broken");
    list_way_go(t, l, ref, &way);
    return way.first != ref;
}

int list_replace(const struct pages *p, struct txn *t, struct list *l,
                 uint32_t old, uint32_t new)
{
    const struct cell *c = list_cell(p, old);
    struct cell *n = list_cell(p, new);

    if (c == NULL || n == NULL)
        return broken();
    links_store(t, n, atomic_load32(&c->word[LIST_PREV]),
                atomic_load32(&c->word[LIST_NEXT]));
    return relink(p, t, l, c, old, new, new);
}

int list_check(const struct pages *p, const struct list *l, uint64_t count,
               char *report, size_t size)
{
    uint32_t prev = 0, ref = l->first;
    uint64_t seen = 0;

    while (ref != 0) {
        const struct cell *c = list_cell(p, ref);

        if (c == NULL || c->word[LIST_PREV] != prev || ++seen > count) {
            snprintf(report, size,
                     "list: broken at cell %u, number %llu of "
                     "%llu",
                     ref, (unsigned long long)seen, (unsigned long long)count);
            return SHD_CORRUPT;
        }
        prev = ref;
        ref = c->word[LIST_NEXT];
    }
    if (prev != l->last || seen != count) {
        snprintf(report, size,
                 "list: ends at %u after %llu cells, not at %u "
                 "after %llu",
                 prev, (unsigned long long)seen, l->last,
                 (unsigned long long)count);
        return SHD_CORRUPT;
    }
    return SHD_OK;
}
