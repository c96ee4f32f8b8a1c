/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Growing, in steps, each under one hold of shard 0's lock:
 *
 *   1  unsettled               a death from here on leaves memory to give back
 *   2  memory                  for more roots; for descriptors and bits; the
 *                              bits of pages without owner are set
 *   3  limit, described, capacity and grain up; settled, if the index is of
 *      that grain
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
 *   6  the index               if its grain is to be another one: its array
 *                              gets memory, the tag says that it is the one
 *                              and the other the former, entries move, one by
 *                              one, shard by shard; the tag says that it is
 *                              the only one; every lock once; the memory of
 *                              the former is given back
 *   7  settled
 *
 * 2 to 7 are "settling", also after growing. They look at the pages and at the
 * limit as it is, so whoever finds `unsettled` set can do them from the start;
 * a grown limit in the middle of it brings pages back into their lists in
 * step 3.
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
#include "shm/dict/index.h"
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
#define RESIZE_WORDS 6u
/* Of an array of roots, under one hold of shard 0's lock. */
#define ROOTS_BYTES (4ull << 20)
/* A change that was begun is finished, then one to the grain there is to be;
 * each more is another resize's. */
#define INDEX_ROUNDS 8

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

static void set_unsettled(const struct resizing *r, uint64_t unsettled)
{
    struct txn t;

    begin(r, &t);
    txn_store64(&t, &r->header->unsettled, unsettled);
    txn_commit(&t);
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
    if (rc != SHD_OK || from == to)
        return rc;
    begin(r, &t);
    txn_store64(&t, &r->header->bounds.described, from);
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
        more = pages_described(&r->d->pages) > pages_count(&r->d->pages);
        dict_unlock(r->d, 0);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

/* ---- the index -------------------------------------------------------- */

/* What of the tag makes it another one than any before or after. */
static uint64_t tag_now(const struct dict *d)
{
    return atomic_load64(&d->pages.bounds->state) & PAGES_TAG_MASK;
}

bool resize_index_is(const struct dict *d, uint32_t grain)
{
    uint64_t tag = tag_now(d);

    return index_grain(tag) == grain && !index_moves(tag);
}

/* Shard 0's lock, if the index is what it was: 1, or SHD_OK without it. */
static int lock_index(const struct resizing *r, uint64_t tag)
{
    int rc = lock(r, 0);

    if (rc != SHD_OK)
        return rc;
    if (tag_now(r->d) == tag)
        return 1;
    dict_unlock(r->d, 0);
    return SHD_OK;
}

static void set_arrays(const struct resizing *r, uint64_t arrays)
{
    struct txn t;

    if (atomic_load64(&r->header->arrays) == arrays)
        return;
    begin(r, &t);
    txn_store64(&t, &r->header->arrays, arrays);
    txn_commit(&t);
}

/* Gives empty memory to the array of a grain that is not in use, or takes it
 * away. */
static int array_change(const struct resizing *r, uint64_t tag, uint32_t grain,
                        bool has)
{
    const struct dict *d = r->d;
    uint64_t bytes = index_bytes(d, grain), bit = 1ull << grain;

    for (uint64_t at = 0; at < bytes; at += ROOTS_BYTES) {
        uint64_t end = bytes - at < ROOTS_BYTES ? bytes : at + ROOTS_BYTES;
        uint64_t arrays;
        int rc = lock_index(r, tag);

        if (rc != 1)
            return rc;
        arrays = atomic_load64(&r->header->arrays);
        if (has)
            set_arrays(r, arrays | bit);
        rc = has ? index_clear(d, grain, at, end)
                 : index_forget(d, grain, at, end);
        if (rc == SHD_OK && !has && end == bytes)
            set_arrays(r, arrays & ~bit);
        dict_unlock(d, 0);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

static int set_tag(const struct resizing *r, uint64_t tag, uint32_t grain,
                   uint32_t former)
{
    int rc = lock_index(r, tag);

    if (rc != 1)
        return rc;
    rc = pages_set_tag(&r->d->pages, index_tag(grain, former, tag));
    dict_unlock(r->d, 0);
    return rc;
}

/* All that is under the former roots of a shard. */
static int move_shard(const struct resizing *r, uint64_t tag, uint32_t shard)
{
    const struct dict *d = r->d;
    uint64_t root = index_first(d, shard, index_former(tag));
    int rc = 1;

    while (rc == 1) {
        rc = lock(r, shard);
        if (rc != SHD_OK)
            return rc;
        rc = tag_now(d) == tag ? index_move(d, shard, &root) : SHD_OK;
        dict_unlock(d, shard);
    }
    return rc;
}

/* Ends a change that was begun, by whomever. */
static int index_end(const struct resizing *r, uint64_t tag)
{
    int rc = SHD_OK;

    for (uint32_t i = 0; i < r->d->shards && rc == SHD_OK; i++)
        rc = move_shard(r, tag, i);
    return rc == SHD_OK ? set_tag(r, tag, index_grain(tag), index_grain(tag))
                        : rc;
}

static int index_begin(const struct resizing *r, uint64_t tag, uint32_t grain)
{
    int rc = array_change(r, tag, grain, true);

    return rc == SHD_OK ? set_tag(r, tag, grain, index_grain(tag)) : rc;
}

/* Arrays that are not in use. */
static int forget_arrays(const struct resizing *r)
{
    const struct dict *d = r->d;
    uint64_t tag = tag_now(d);
    int rc = SHD_OK;

    for (uint32_t g = d->grain_min; g <= GRAIN_MAX && rc == SHD_OK; g++) {
        if (g != index_grain(tag) && g != index_former(tag) &&
            (atomic_load64(&r->header->arrays) >> g & 1) != 0)
            rc = array_change(r, tag, g, false);
    }
    return rc;
}

/* Step 6. */
static int index_settle(const struct resizing *r)
{
    const struct dict *d = r->d;
    uint32_t grain = (uint32_t)atomic_load64(&r->header->grain);
    int rc = SHD_OK;

    for (int i = 0; i < INDEX_ROUNDS && rc == SHD_OK; i++) {
        uint64_t tag = tag_now(d);

        if (!index_has(d, grain) || !index_has(d, index_grain(tag)) ||
            !index_has(d, index_former(tag))) {
            rc = dict_damaged(d, "its index is said to be what it is not");
        } else if (index_moves(tag)) {
            rc = index_end(r, tag);
        } else if (index_grain(tag) != grain) {
            rc = index_begin(r, tag, grain);
        } else {
            rc = pass_all_locks(r);
            return rc == SHD_OK ? forget_arrays(r) : rc;
        }
    }
    return rc != SHD_OK
               ? rc
               : error_set(SHD_BUSY,
                           "dict '%s': another resize is at its index",
                           d->name);
}

/* Step 7. */
static int finish(const struct resizing *r)
{
    struct dict_header *h = r->header;
    uint64_t grain;
    int rc = lock(r, 0);

    if (rc != SHD_OK)
        return rc;
    grain = atomic_load64(&h->grain);
    if (atomic_load64(&h->bounds.described) ==
            atomic_load64(&h->bounds.limit) &&
        index_has(r->d, grain) && resize_index_is(r->d, (uint32_t)grain) &&
        atomic_load64(&h->arrays) == 1ull << grain)
        set_unsettled(r, 0);
    dict_unlock(r->d, 0);
    return SHD_OK;
}

static int settle(struct resizing *r)
{
    int rc = pass_all_locks(r);

    if (rc == SHD_OK)
        rc = place_all(r);
    if (rc == SHD_OK)
        rc = empty_all(r);
    if (rc == SHD_OK)
        rc = drop_all(r);
    if (rc == SHD_OK)
        rc = index_settle(r);
    return rc == SHD_OK ? finish(r) : rc;
}

/* ---- the limit, with shard 0's lock ----------------------------------- */

static void set_limit(struct resizing *r, uint64_t limit, uint64_t capacity,
                      uint32_t grain, uint64_t unsettled)
{
    struct dict_header *h = r->header;
    struct txn t;

    if (!resize_index_is(r->d, grain) ||
        atomic_load64(&h->arrays) != 1ull << grain)
        unsettled = 1;
    begin(r, &t);
    if (atomic_load64(&h->bounds.described) < limit)
        txn_store64(&t, &h->bounds.described, limit);
    txn_store64(&t, &h->bounds.limit, limit);
    txn_store64(&t, &h->capacity_bytes, capacity);
    txn_store64(&t, &h->grain, grain);
    txn_store64(&t, &h->resizes, r->ticket + 1);
    txn_store64(&t, &h->unsettled, unsettled);
    txn_commit(&t);
    r->ticket++;
}

/* The capacity that has just so many pages, for the steps on the way up. */
static uint64_t capacity_of(const struct dict *d, uint64_t pages,
                            uint32_t grain)
{
    return dict_index_bytes(d, pages, grain) + pages * PAGE_BYTES;
}

static int grow(struct resizing *r, uint64_t pages, uint64_t capacity,
                uint32_t grain)
{
    const struct pages *p = &r->d->pages;
    uint64_t limit = pages_count(p), described = pages_described(p);
    bool settled = atomic_load64(&r->header->unsettled) == 0;
    int rc;

    if (pages - limit > GROW_PAGES) {
        pages = limit + GROW_PAGES;
        capacity = capacity_of(r->d, pages, grain);
    }
    if (settled)
        set_unsettled(r, 1);
    rc = pages_describe(p, limit, pages);
    if (rc == SHD_OK) {
        pages_offer(p, limit, pages, described);
        set_limit(r, pages, capacity, grain, !settled);
        return SHD_OK;
    }
    /* A resize that was cut off finds as much to do as before. */
    if (settled && pages_forget(p, limit) == SHD_OK)
        set_unsettled(r, 0);
    return rc;
}

static bool limit_can_be(const struct dict *d)
{
    uint64_t limit = atomic_load64(&d->header->bounds.limit);

    return limit > 0 && limit <= pages_described(&d->pages);
}

/* One step: SHD_OK, and the limit has come nearer to `pages`. */
static int change(struct resizing *r, uint64_t pages, uint64_t capacity,
                  uint32_t grain)
{
    uint64_t limit;
    int rc = lock(r, 0);

    if (rc != SHD_OK)
        return rc;
    limit = atomic_load64(&r->header->bounds.limit);
    if (!limit_can_be(r->d))
        rc = dict_damaged(r->d, "the limit of its pages cannot be");
    else if (pages > limit)
        rc = grow(r, pages, capacity, grain);
    else if (pages < limit)
        set_limit(r, pages, capacity, grain, 1);
    else if (dict_capacity(r->d) != capacity ||
             atomic_load64(&r->header->grain) != grain)
        set_limit(r, pages, capacity, grain,
                  atomic_load64(&r->header->unsettled));
    dict_unlock(r->d, 0);
    return rc;
}

/* ---- the call --------------------------------------------------------- */

static int target(const struct dict *d, uint64_t capacity, uint32_t *grain,
                  uint32_t *pages)
{
    uint64_t most = d->header->capacity_max_bytes;

    if (capacity > most || capacity > SEGMENT_SIZE_MAX)
        return error_set(SHD_INVAL,
                         "dict '%s' can have %llu bytes at most: that much "
                         "address room was reserved when it was made; to go "
                         "beyond, make it anew with a larger "
                         "capacity_max_bytes",
                         d->name, (unsigned long long)most);
    *grain = dict_grain_of(d, capacity);
    *pages =
        capacity < DICT_CAPACITY_MIN ? 0 : dict_pages_of(d, capacity, *grain);
    if (*pages > 0)
        return SHD_OK;
    return error_set(SHD_INVAL,
                     "a capacity of %llu bytes is too small for dict '%s': "
                     "with its %u shards and %llu roots it needs at least "
                     "%llu",
                     (unsigned long long)capacity, d->name, d->shards,
                     (unsigned long long)index_roots(d, *grain),
                     (unsigned long long)capacity_of(d, 1, *grain));
}

/* Before the capacity goes up: is there memory for more roots? So that without
 * it nothing has changed. It is given by shard 0's lock, and asked for again
 * when it is needed: another resize may give it back meanwhile. */
static int try_index(const struct resizing *r, uint32_t grain)
{
    const struct dict *d = r->d;
    bool settled;
    uint64_t tag;
    int rc = lock(r, 0);

    if (rc != SHD_OK)
        return rc;
    tag = tag_now(d);
    settled = atomic_load64(&r->header->unsettled) == 0;
    if (!limit_can_be(d)) {
        dict_unlock(d, 0);
        return dict_damaged(d, "the limit of its pages cannot be");
    }
    /* An array in use has memory. */
    if (index_grain(tag) == grain || index_former(tag) == grain) {
        dict_unlock(d, 0);
        return SHD_OK;
    }
    if (settled)
        set_unsettled(r, 1);
    dict_unlock(d, 0);
    rc = array_change(r, tag, grain, true);
    if (rc != SHD_NOMEM || array_change(r, tag, grain, false) != SHD_OK)
        return rc;
    if (settled && lock_index(r, tag) == 1) {
        set_unsettled(r, 0);
        dict_unlock(d, 0);
    }
    return rc;
}

/* The words of the header. */
static int change_all(struct resizing *r, uint64_t pages, uint64_t capacity,
                      uint32_t grain)
{
    const struct dict *d = r->d;
    int rc = pages > pages_count(&d->pages) ? try_index(r, grain) : SHD_OK;

    while (rc == SHD_OK &&
           (pages != pages_count(&d->pages) || dict_capacity(d) != capacity ||
            atomic_load64(&r->header->grain) != grain))
        rc = change(r, pages, capacity, grain);
    return rc;
}

int resize_dict(const struct dict *d, uint64_t capacity_bytes)
{
    struct resizing r = {.d = d, .header = d->header};
    uint32_t pages, grain = 0;
    int rc = dict_gone(d, 0) ? dict_gone_error(d)
                             : target(d, capacity_bytes, &grain, &pages);

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
    if (rc == SHD_OK)
        rc = change_all(&r, pages, capacity_bytes, grain);
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
    uint64_t committed = pages_committed(&d->pages);
    uint64_t unsettled = atomic_load64(&h->unsettled);
    uint64_t capacity = atomic_load64(&h->capacity_bytes);
    uint64_t grain = atomic_load64(&h->grain);
    const char *fault = NULL;

    if (!index_has(d, grain) || !index_tag_sound(d))
        fault = "its index is said to be what it is not";
    else if (limit == 0 || limit > described || described > d->pages.max)
        fault = "the limit of its pages cannot be";
    else if (committed > described)
        fault = "more pages are committed than described";
    else if (unsettled > 1 ||
             (unsettled == 0 &&
              (limit != described || !resize_index_is(d, (uint32_t)grain) ||
               atomic_load64(&h->arrays) != 1ull << grain)))
        fault = "it is resized halfway, and says it is not";
    else if (capacity > h->capacity_max_bytes ||
             dict_pages_of(d, capacity, (uint32_t)grain) != limit)
        fault = "its capacity is not what its limit was made from";
    if (fault == NULL)
        return SHD_OK;
    snprintf(report, size, "resize: %s (%llu of %llu pages, %llu committed)",
             fault, (unsigned long long)limit, (unsigned long long)described,
             (unsigned long long)committed);
    return SHD_CORRUPT;
}
