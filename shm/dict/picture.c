/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/picture.h"
#include "shm/base/clock.h"
#include "shm/dict/lease.h"

#include <string.h>

/* Of the cells in use; never more than the page had when it was looked at: it
 * may be cut anew meanwhile. */
static void count_cells(const struct dict *d, uint32_t n, uint64_t now,
                        struct shd_page *out)
{
    const struct pages *p = &d->pages;
    uint32_t at = 0, ref;

    for (uint32_t left = out->cells;
         left > 0 && (ref = slab_next_used(p, n, &at)) != 0; left--) {
        const struct cell *c = cell_at(p, ref, SLAB_CELL_MIN);
        const struct entry *e = (const struct entry *)(const void *)c;
        uint64_t expires;

        if (c == NULL)
            return;
        switch (cell_kind(atomic_load32(&c->meta))) {
        case CELL_ENTRY:
            out->entries++;
            expires = atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK;
            out->expired += expires != 0 && expires <= now;
            break;
        case CELL_NODE:
            out->elements += !lease_is(atomic_load32(&c->meta));
            break;
        default:
            out->pieces++;
        }
    }
}

static void look(const struct dict *d, uint32_t n, uint64_t now,
                 struct shd_page *out)
{
    const struct page *page = &d->pages.table[n];
    uint32_t owner = atomic_load32(&page->owner);
    uint32_t class = page_class(page);

    if (owner == 0)
        return; /* SHD_PAGE_FREE */
    if (owner > d->shards || class >= SLAB_CLASSES) {
        out->state = SHD_PAGE_DAMAGED;
        return;
    }
    out->state = (atomic_load32(&page->info) & PAGE_LEAVING) != 0
                     ? SHD_PAGE_LEAVING
                     : SHD_PAGE_USED;
    out->shard = owner - 1;
    out->cell_bytes = slab_class_bytes(class);
    out->cells = slab_class_cells(class);
    out->age_s =
        (uint32_t)(now / 1000 - (atomic_load64(&page->expiry) >> 48)) & 0xffff;
    count_cells(d, n, now, out);
}

int picture_pages(const struct dict *d, uint64_t first, struct shd_page *page,
                  uint32_t max, uint32_t *count)
{
    const struct pages *p = &d->pages;
    const uint64_t now = clock_now_ms();
    uint32_t n = 0;

    for (; n < max; n++) {
        uint64_t number = first + n;
        uint32_t limit, committed;

        /* Before each page: whoever touches one that has been given back
         * takes memory anew. */
        if (!dict_enter(d, 0))
            return dict_gone_error(d);
        limit = pages_count(p);
        committed = pages_touchable(p);
        if (number >= limit && number >= committed)
            break;
        memset(&page[n], 0, sizeof(page[n]));
        page[n].beyond = number >= limit;
        if (number >= committed)
            page[n].state = SHD_PAGE_UNTOUCHED;
        else if (number >= pages_described(p))
            page[n].state = SHD_PAGE_DAMAGED;
        else
            look(d, (uint32_t)number, now, &page[n]);
    }
    *count = n;
    return SHD_OK;
}

uint64_t picture_owned(const struct dict *d)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < d->shards; i++)
        n += atomic_load32(&d->shard[i].slab.pages);
    return n < d->pages.max ? n : d->pages.max;
}
