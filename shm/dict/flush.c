/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marking everything as expired goes page by page, one transaction each, and
 * lets go of the lock after a few, so that nobody waits for long.
 */
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/dict/attempt.h"
#include "shm/dict/store.h"

/* Pages, or batches of expired entries, in one hold of the lock. */
#define PAGES_A_HOLD 8
/* Times a page may change hands under our eyes: what is in it has been stored
 * since we began. */
#define TURNS_MAX 16
#define PAGE_ENTRIES_MAX (PAGE_BYTES / SLAB_CELL_MIN)
#define FLUSH_WORDS (PAGE_ENTRIES_MAX + SLAB_EXPIRY_WORDS)

static_assert(FLUSH_WORDS <= GUARD_UNDO_MAX, "log");

static int flush_page(const struct dict *d, uint32_t shard, uint32_t page,
                      uint64_t now)
{
    uint32_t at = 0, ref;
    uint64_t earliest = 0;
    struct txn t;
    int rc = SHD_OK;

    txn_begin(&t, d->env->segment, dict_guard(d, shard), FLUSH_WORDS);
    while ((ref = slab_next_used(&d->pages, page, &at)) != 0) {
        struct entry *e = entry_at(&d->pages, ref);
        uint64_t expires;

        if (e == NULL || cell_kind(atomic_load32(&e->cell.meta)) != CELL_ENTRY)
            continue;
        expires = atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK;
        if (expires == 0 || expires > now) {
            txn_store64(
                &t, &e->key_expires,
                (atomic_load64(&e->key_expires) & ~ENTRY_EXPIRES_MASK) | now);
            expires = now;
        }
        if (earliest == 0 || expires < earliest)
            earliest = expires;
    }
    if (earliest != 0)
        rc = slab_expiry_lower(&d->pages, &d->shard[shard].slab, &t, page,
                               earliest);
    return attempt_end(&t, rc);
}

int store_flush_all(const struct dict *d)
{
    uint64_t now = clock_now_ms();
    uint32_t page = 0, turns = 0;

    /* The bound comes down, and with it the memory behind it goes, if the dict
     * shrinks meanwhile. */
    while (!dict_gone(d, 0) && page < pages_described(&d->pages)) {
        uint32_t owner = atomic_load32(&d->pages.table[page].owner);
        int rc;

        if (owner == 0 || owner > d->shards || turns > TURNS_MAX) {
            page++;
            turns = 0;
            continue;
        }
        rc = dict_lock(d, owner - 1);
        if (rc != SHD_OK)
            return rc;
        for (int n = 0; n < PAGES_A_HOLD && rc == SHD_OK &&
                        page < pages_described(&d->pages) &&
                        atomic_load32(&d->pages.table[page].owner) == owner;
             n++) {
            rc = flush_page(d, owner - 1, page++, now);
            turns = 0;
        }
        turns++;
        dict_unlock(d, owner - 1);
        if (rc != SHD_OK)
            return rc;
        /* If the page changed hands in between, its new owner is next. */
    }
    /* The owners that were looked at may have been another object's bytes. */
    return dict_gone(d, 0) ? dict_gone_error(d) : SHD_OK;
}

/* One hold of the lock: the number removed; *idle when nothing is left to do
 * in the shard. */
static int flush_step(const struct dict *d, uint32_t shard, uint64_t max,
                      bool *idle)
{
    int rc = dict_lock(d, shard);
    int removed = 0;

    *idle = false;
    if (rc != SHD_OK)
        return rc;
    rc = room_collect(d, shard);
    if (rc == 0) {
        removed = room_expire(d, shard, max);
        *idle = removed == 0;
    }
    dict_unlock(d, shard);
    return rc < 0 ? rc : removed;
}

static int flush_shard(const struct dict *d, uint32_t shard, uint64_t *left,
                       uint64_t *sum)
{
    bool idle = false;

    while (!idle && *left > 0) {
        int removed = flush_step(d, shard, *left, &idle);

        if (removed < 0)
            return removed;
        *left -= (uint64_t)removed;
        *sum += (uint64_t)removed;
    }
    return room_settle(d, shard, 0);
}

int store_flush_expired(const struct dict *d, uint64_t max, uint64_t *freed)
{
    uint64_t left = max == 0 ? UINT64_MAX : max;
    uint64_t sum = 0;
    int rc = SHD_OK;

    for (uint32_t i = 0; i < d->shards && rc == SHD_OK && left > 0; i++)
        rc = flush_shard(d, i, &left, &sum);
    if (freed != NULL)
        *freed = sum;
    return rc;
}
