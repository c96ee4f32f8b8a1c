/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Growing, in steps, each under one hold of shard 0's lock:
 *
 *   1  unsettled               a death from here on leaves memory to give back
 *   2  memory                  for descriptors and bits; the bits of pages
 *                              without owner are set
 *   3  limit, described and capacity up, settled
 *
 * Shrinking:
 *
 *   1  limit, capacity down    one transaction; from here on nothing new is
 *                              claimed above the limit, but by who has looked
 *                              at the old limit already, with a lock:
 *   2  every lock once         then that is over
 *   3  pages above the limit   leave their shards' lists of free cells:
 *                              nothing new is put into them
 *   4  page by page            what is in them moves below the limit; room is
 *                              made there when there is none
 *   5  from the top            under shard 0's lock: the committed bound comes
 *                              down, the memory is given back, described comes
 *                              down
 *
 * 2 to 5 are "settling". They look at the pages and at the limit as it is, so
 * whoever finds `unsettled` set can do them from the start; a grown limit in
 * the middle of it brings pages back into their lists in step 3.
 *
 * A page above the limit is claimed by nobody after step 2, so its owner word
 * can only go to 0. That is why step 5 may give its memory back: who still
 * has a reference to it is a reader of what was moved, finds zeroes, and then
 * that its shard has changed. For a claim that was in flight in step 1 it is
 * the lock that orders the two, also if its holder died: taking the lock
 * undoes it.
 */
#include "shm/dict/resize.h"
#include "shm/base/error.h"
#include "shm/dict/move.h"
#include "shm/dict/room.h"

#include <stdio.h>

/* Pages that come in, or go, under one hold of shard 0's lock. */
#define GROW_PAGES 65536u
#define DROP_PAGES 4096u
/* Descriptors looked at under one hold of a shard's lock. */
#define LEAVE_PAGES 1024u
/* Pages that are emptied without trying again to make room by moving alone,
 * once that was in vain: it looks at all pages with free cells. */
#define COMPACT_EVERY 64u
/* Times a page's contents may find no room before that is evicted which is in
 * it, and before others are said to take the room. */
#define TRIES_EVICT 16u
#define TRIES_MAX 512u
#define RESIZE_WORDS 5u

/* One call's work, which is void once `resizes` is not `ticket` any more. */
struct resizing {
    const struct dict *d;
    struct dict_header *header;
    uint64_t ticket;
    uint32_t tight; /* pages to go until COMPACT_EVERY is over */
};

static int overtaken(const struct resizing *r)
{
    if (atomic_load64(&r->header->resizes) == r->ticket)
        return SHD_OK;
    return error_set(SHD_BUSY,
                     "dict '%s': another resize, to %llu bytes, has taken "
                     "over",
                     r->d->name, (unsigned long long)dict_capacity(r->d));
}

/* The lock, if this resize still counts. */
static int lock(const struct resizing *r, uint32_t shard)
{
    int rc = dict_lock(r->d, shard);

    if (rc != SHD_OK)
        return rc;
    rc = overtaken(r);
    if (rc != SHD_OK)
        dict_unlock(r->d, shard);
    return rc;
}

static void begin(const struct resizing *r, struct txn *t)
{
    txn_begin(t, r->d->env->segment, dict_guard(r->d, 0), RESIZE_WORDS);
}

/* ---- settling --------------------------------------------------------- */

/* Afterwards nobody acts on an older limit. */
static int pass_all_locks(const struct resizing *r)
{
    for (uint32_t i = 0; i < r->d->shards; i++) {
        int rc = lock(r, i);

        if (rc != SHD_OK)
            return rc;
        dict_unlock(r->d, i);
    }
    return SHD_OK;
}

/* Is the page on the wrong side of the limit for being in a list or not? */
static bool is_misplaced(const struct dict *d, uint32_t n)
{
    bool leaving =
        (atomic_load32(&d->pages.table[n].info) & PAGE_LEAVING) != 0;

    return leaving != (n >= pages_count(&d->pages));
}

static int place_page(const struct dict *d, uint32_t shard, uint32_t n)
{
    struct txn t;
    int rc;

    txn_begin(&t, d->env->segment, dict_guard(d, shard), SLAB_LEAVE_WORDS);
    rc = slab_leave(&d->pages, &d->shard[shard].slab, &t, n,
                    n >= pages_count(&d->pages));
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

/* Step 3 for the pages of one shard from n on. */
static int place_some(const struct resizing *r, uint32_t shard, uint32_t n)
{
    const struct dict *d = r->d;
    uint32_t end = pages_described(&d->pages);
    int rc = lock(r, shard);

    if (rc != SHD_OK)
        return rc;
    if (end - n > LEAVE_PAGES)
        end = n + LEAVE_PAGES;
    for (; n < end && rc == SHD_OK; n++) {
        if (atomic_load32(&d->pages.table[n].owner) == dict_owner(shard) &&
            is_misplaced(d, n))
            rc = place_page(d, shard, n);
    }
    dict_unlock(d, shard);
    return rc;
}

/* The shard that owns a page, or d->shards: nobody, or nobody that could be.
 */
static uint32_t shard_of(const struct dict *d, uint32_t n)
{
    uint32_t owner = atomic_load32(&d->pages.table[n].owner);

    return owner == 0 || owner > d->shards ? d->shards : owner - 1;
}

static int place_all(const struct resizing *r)
{
    const struct dict *d = r->d;

    for (uint32_t n = 0; n < pages_described(&d->pages); n++) {
        uint32_t shard = shard_of(d, n);
        int rc;

        if (shard == d->shards || !is_misplaced(d, n))
            continue;
        rc = place_some(r, shard, n);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

/* With the lock: moves what is in the page, as far as there is room. SHD_OK:
 * done, or there is garbage to be freed first. SHD_NOMEM. */
static int move_page(const struct dict *d, uint32_t shard, uint32_t page)
{
    uint32_t at = 0, ref;
    int rc = room_collect(d, shard);

    if (rc < 0)
        return rc;
    if (atomic_load32(&d->shard[shard].garbage) != 0)
        return SHD_OK;
    while (atomic_load32(&d->pages.table[page].owner) == dict_owner(shard) &&
           (ref = slab_next_used(&d->pages, page, &at)) != 0) {
        rc = move_cell(d, shard, ref, page, true);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

/* One hold of the lock, for a page above the limit. */
static int empty_step(const struct resizing *r, uint32_t shard, uint32_t page,
                      const struct room *evict)
{
    const struct dict *d = r->d;
    int rc = lock(r, shard);

    if (rc != SHD_OK)
        return rc;
    /* It may have been emptied, also by a store that needed room. */
    if (atomic_load32(&d->pages.table[page].owner) == dict_owner(shard)) {
        rc = move_page(d, shard, page);
        if (rc == SHD_NOMEM && evict != NULL) {
            rc = room_vacate(d, shard, page, evict);
            rc = rc < 0 ? rc : SHD_OK;
        }
    }
    dict_unlock(d, shard);
    return rc;
}

/* Gets a page free below the limit: by removing what has expired and closing
 * gaps, as long as that helps; else as a store does. */
static int make_room(struct resizing *r, struct room *any)
{
    int rc = SHD_NOMEM;

    any->safe = true;
    if (r->tight == 0)
        rc = room_elsewhere(r->d, 1, any);
    else
        r->tight--;
    any->safe = false;
    if (rc != SHD_NOMEM)
        return rc;
    if (r->tight == 0)
        r->tight = COMPACT_EVERY;
    rc = room_elsewhere(r->d, 1, any);
    return rc == SHD_NOMEM ? SHD_OK : rc;
}

/* Step 4. */
static int empty_page(struct resizing *r, uint32_t page)
{
    const struct dict *d = r->d;
    uint32_t shard;

    for (uint32_t tries = 1; tries <= TRIES_MAX; tries++) {
        struct room any = {0};
        int rc;

        shard = shard_of(d, page);
        if (shard == d->shards)
            return SHD_OK;
        any.at.shard = shard;
        rc = room_settle(d, shard, 0);
        if (rc == SHD_OK)
            rc = empty_step(r, shard, page,
                            tries % TRIES_EVICT == 0 ? &any : NULL);
        if (rc == SHD_NOMEM)
            rc = make_room(r, &any);
        if (rc != SHD_OK)
            return rc;
    }
    return error_set(SHD_NOMEM,
                     "dict '%s': stores took the room below the new capacity "
                     "as fast as it was made",
                     d->name);
}

static int empty_all(struct resizing *r)
{
    const struct dict *d = r->d;

    for (uint32_t n = pages_described(&d->pages);
         n-- > pages_count(&d->pages);) {
        int rc = empty_page(r, n);

        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

/* Step 5, with shard 0's lock: some pages from the top. */
static int drop_some(const struct resizing *r)
{
    const struct pages *p = &r->d->pages;
    uint64_t limit = pages_count(p), to = pages_described(p);
    uint64_t from = to - limit > DROP_PAGES ? to - DROP_PAGES : limit;
    struct txn t;
    int rc = pages_drop(p, from, to);

    if (rc == SHD_OK && from == limit)
        rc = pages_forget(p, limit);
    if (rc != SHD_OK)
        return rc;
    begin(r, &t);
    txn_store64(&t, &r->header->bounds.described, from);
    if (from == limit)
        txn_store64(&t, &r->header->unsettled, 0);
    txn_commit(&t);
    return SHD_OK;
}

static int drop_all(const struct resizing *r)
{
    bool more = true;

    while (more) {
        int rc = lock(r, 0);

        if (rc != SHD_OK)
            return rc;
        if (atomic_load64(&r->header->unsettled) != 0)
            rc = drop_some(r);
        more = atomic_load64(&r->header->unsettled) != 0;
        dict_unlock(r->d, 0);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

static int settle(struct resizing *r)
{
    int rc = pass_all_locks(r);

    if (rc == SHD_OK)
        rc = place_all(r);
    if (rc == SHD_OK)
        rc = empty_all(r);
    return rc == SHD_OK ? drop_all(r) : rc;
}

/* ---- the limit, with shard 0's lock ----------------------------------- */

static void set_limit(struct resizing *r, uint64_t limit, uint64_t capacity,
                      uint64_t unsettled)
{
    struct dict_header *h = r->header;
    struct txn t;

    begin(r, &t);
    if (atomic_load64(&h->bounds.described) < limit)
        txn_store64(&t, &h->bounds.described, limit);
    txn_store64(&t, &h->bounds.limit, limit);
    txn_store64(&t, &h->capacity_bytes, capacity);
    txn_store64(&t, &h->resizes, r->ticket + 1);
    txn_store64(&t, &h->unsettled, unsettled);
    txn_commit(&t);
    r->ticket++;
}

static void set_unsettled(const struct resizing *r, uint64_t unsettled)
{
    struct txn t;

    begin(r, &t);
    txn_store64(&t, &r->header->unsettled, unsettled);
    txn_commit(&t);
}

/* The capacity that has just so many pages, for the steps on the way up. */
static uint64_t capacity_of(const struct dict *d, uint64_t pages)
{
    return dict_index_bytes(d, pages) + pages * PAGE_BYTES;
}

static int grow(struct resizing *r, uint64_t pages, uint64_t capacity)
{
    const struct pages *p = &r->d->pages;
    uint64_t limit = pages_count(p), described = pages_described(p);
    bool settled = atomic_load64(&r->header->unsettled) == 0;
    int rc;

    if (pages - limit > GROW_PAGES) {
        pages = limit + GROW_PAGES;
        capacity = capacity_of(r->d, pages);
    }
    if (settled)
        set_unsettled(r, 1);
    rc = pages_describe(p, limit, pages);
    if (rc == SHD_OK) {
        pages_offer(p, limit, pages, described);
        set_limit(r, pages, capacity, !settled);
        return SHD_OK;
    }
    /* A resize that was cut off finds as much to do as before. */
    if (settled && pages_forget(p, limit) == SHD_OK)
        set_unsettled(r, 0);
    return rc;
}

/* One step: SHD_OK, and the limit has come nearer to `pages`. */
static int change(struct resizing *r, uint64_t pages, uint64_t capacity)
{
    uint64_t limit;
    int rc = lock(r, 0);

    if (rc != SHD_OK)
        return rc;
    limit = atomic_load64(&r->header->bounds.limit);
    if (limit == 0 || limit > pages_described(&r->d->pages))
        rc = dict_damaged(r->d, "the limit of its pages cannot be");
    else if (pages > limit)
        rc = grow(r, pages, capacity);
    else if (pages < limit)
        set_limit(r, pages, capacity, 1);
    else if (dict_capacity(r->d) != capacity)
        set_limit(r, pages, capacity, atomic_load64(&r->header->unsettled));
    dict_unlock(r->d, 0);
    return rc;
}

/* ---- the call --------------------------------------------------------- */

static int target(const struct dict *d, uint64_t capacity, uint32_t *pages)
{
    uint64_t most = d->header->capacity_max_bytes;

    if (capacity > most || capacity > SEGMENT_SIZE_MAX)
        return error_set(SHD_INVAL,
                         "dict '%s' can have %llu bytes at most: that much "
                         "address room was reserved when it was made; to go "
                         "beyond, make it anew with a larger "
                         "capacity_max_bytes",
                         d->name, (unsigned long long)most);
    *pages = capacity < DICT_CAPACITY_MIN ? 0 : dict_pages_of(d, capacity);
    if (*pages > 0)
        return SHD_OK;
    return error_set(SHD_INVAL,
                     "a capacity of %llu bytes is too small for dict '%s': "
                     "its index of %llu roots was made for more, and needs at "
                     "least %llu",
                     (unsigned long long)capacity, d->name,
                     (unsigned long long)d->shards << d->root_bits,
                     (unsigned long long)capacity_of(d, 1));
}

int resize_dict(const struct dict *d, uint64_t capacity_bytes)
{
    struct resizing r = {.d = d, .header = d->header};
    uint32_t pages;
    int rc = dict_gone(d, 0) ? dict_gone_error(d)
                             : target(d, capacity_bytes, &pages);

    if (rc != SHD_OK)
        return dict_gone(d, 0) ? dict_gone_error(d) : rc;
    /* With a lock, which undoes what somebody died in the middle of. */
    rc = dict_lock(d, 0);
    if (rc != SHD_OK)
        return rc;
    r.ticket = atomic_load64(&r.header->resizes);
    dict_unlock(d, 0);
    /* Pages that were closed to claims a moment ago are not opened again
     * before the last of those claims is over. */
    if (atomic_load64(&r.header->unsettled) != 0)
        rc = pass_all_locks(&r);
    while (rc == SHD_OK && (pages != pages_count(&d->pages) ||
                            dict_capacity(d) != capacity_bytes))
        rc = change(&r, pages, capacity_bytes);
    if (rc == SHD_OK && atomic_load64(&r.header->unsettled) != 0)
        rc = settle(&r);
    if (rc == SHD_OK && dict_gone(d, 0))
        rc = dict_gone_error(d);
    return rc;
}

int resize_check(const struct dict *d, char *report, size_t size)
{
    const struct dict_header *h = d->header;
    uint64_t limit = atomic_load64(&h->bounds.limit);
    uint64_t described = atomic_load64(&h->bounds.described);
    uint64_t committed = atomic_load64(&h->bounds.committed);
    uint64_t unsettled = atomic_load64(&h->unsettled);
    uint64_t capacity = atomic_load64(&h->capacity_bytes);
    const char *fault = NULL;

    if (limit == 0 || limit > described || described > d->pages.max)
        fault = "the limit of its pages cannot be";
    else if (committed > described)
        fault = "more pages are committed than described";
    else if (unsettled > 1 || (unsettled == 0 && limit != described))
        fault = "it is resized halfway, and says it is not";
    else if (capacity > h->capacity_max_bytes ||
             dict_pages_of(d, capacity) != limit)
        fault = "its capacity is not what its limit was made from";
    if (fault == NULL)
        return SHD_OK;
    snprintf(report, size, "resize: %s (%llu of %llu pages, %llu committed)",
             fault, (unsigned long long)limit, (unsigned long long)described,
             (unsigned long long)committed);
    return SHD_CORRUPT;
}
