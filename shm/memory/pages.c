/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The owner word is the truth and the map an index to it: a set bit is a hint
 * to try the compare-and-swap. Both are changed by txn_claim and txn_release,
 * which say in which order and why.
 *
 * Low pages are taken first, so that a dict which is never filled never takes
 * more memory than its peak from the system.
 */
#include "shm/memory/pages.h"
#include "shm/base/error.h"

#include <stdio.h>

/* Pages committed at once: one system call a MiB. */
#define COMMIT_PAGES 256u
/* Each but the last needs another thread that saw another bound meanwhile. */
#define SEE_TRIES 1000

/* Nothing in the tag that the view has no array for. */
static uint64_t sane(const struct pages *p, uint64_t state)
{
    for (int shift = 0; shift < 16; shift += 8) {
        uint64_t what = state >> shift & 0xff;

        if (what >= 64 || (p->tags >> what & 1) == 0)
            state = (state & ~(0xffull << shift)) | (uint64_t)PAGES_TAG_NONE
                                                        << shift;
    }
    return state;
}

/* Another thread of the process may have committed a page, seen it, and be at
 * work in it: its bound must not be put back to what this one has loaded
 * before. So all are swapped, and `state`, which is what everybody looks at,
 * is the last. */
void pages_see(const struct pages *p)
{
    struct pages *own = (struct pages *)(uintptr_t)p;

    for (int i = 0; i < SEE_TRIES; i++) {
        uint64_t state = atomic_load64_acquire(&own->state);
        uint64_t seen = atomic_load64_acquire(&own->seen);
        uint64_t end = atomic_load64_acquire(&own->nodes.end);
        uint64_t now = atomic_load64(&p->bounds->state);
        uint64_t bytes =
            (now >> 32 < p->max ? now >> 32 : p->max) * PAGE_BYTES;

        if (atomic_cas64(&own->nodes.end, end, p->at + bytes) &&
            atomic_cas64(&own->seen, seen, bytes) &&
            atomic_cas64(&own->state, state, sane(p, now)))
            return;
    }
}

/* Committed goes forward beside it, at the hands of others. */
int pages_set_tag(const struct pages *p, uint64_t tag)
{
    for (int i = 0; i < SEE_TRIES; i++) {
        uint64_t old = atomic_load64(&p->bounds->state);

        if (atomic_cas64(&p->bounds->state, old,
                         (old & ~PAGES_TAG_MASK) | tag)) {
            pages_follow(p);
            return SHD_OK;
        }
    }
    return error_set(SHD_BUSY, "pages: too many take memory at once");
}

/* Committed comes to be `to`, if that is in the direction asked for. */
static void set_committed(const struct pages *p, uint64_t to, bool forward)
{
    for (int i = 0; i < 1000; i++) {
        uint64_t old = atomic_load64(&p->bounds->state);

        if (forward ? old >> 32 >= to : old >> 32 <= to)
            return;
        if (atomic_cas64(&p->bounds->state, old,
                         to << 32 | (old & PAGES_TAG_MASK)))
            return;
    }
}

void pages_set_committed(const struct pages *p, uint64_t to)
{
    set_committed(p, to, pages_committed(p) < to);
}

/* The word of page `to` may be looked at as well, if there is such a page. */
static uint32_t map_words(uint32_t to)
{
    return (to + 63) / 64;
}

/* The first page whose bit is set from `from` on, or PAGE_NONE. */
static uint32_t first_free(const struct pages *p, uint32_t from)
{
    uint32_t count = pages_count(p), words = map_words(count);
    uint32_t w = from / 64, n;
    uint64_t bits;

    if (w >= words)
        return PAGE_NONE;
    bits = atomic_load64(&p->map[w]) & ~0ull << from % 64;
    while (bits == 0 && ++w < words)
        bits = atomic_load64(&p->map[w]);
    if (bits == 0)
        return PAGE_NONE;
    n = w * 64 + (uint32_t)__builtin_ctzll(bits);
    return n < count ? n : PAGE_NONE;
}

/* May it be claimed, for all that the map says? */
static bool is_free(const struct pages *p, uint32_t n)
{
    return n < pages_count(p) &&
           (atomic_load64(&p->map[n / 64]) >> n % 64 & 1) != 0;
}

/* One that this process has given back, if it still is free. */
static uint32_t search_recent(const struct pages *p, struct pages *hints)
{
    uint32_t recents = atomic_load32(&p->recents);

    for (uint32_t i = 0; i < recents && i < PAGES_RECENT; i++) {
        uint32_t n = atomic_load32(&p->recent[i]);

        if (is_free(p, n))
            return n;
    }
    if (recents != 0)
        atomic_store32(&hints->recents, 0);
    return PAGE_NONE;
}

static uint32_t search_map(const struct pages *p, struct pages *hints)
{
    uint32_t trusted = atomic_load32(&p->trusted);
    uint32_t from = trusted == 0 ? 0 : atomic_load32(&p->full_below);
    uint32_t n = trusted == 0 ? PAGE_NONE : search_recent(p, hints);
    uint32_t word;

    if (n != PAGE_NONE)
        return n;
    n = first_free(p, from * 64);
    /* The last word may get more pages when the dict grows. */
    word = (n == PAGE_NONE ? pages_count(p) : n) / 64;
    if (word != atomic_load32(&p->full_below))
        atomic_store32(&hints->full_below, word);
    trusted = trusted == 0 ? word / PAGES_TRUST : trusted - 1;
    if (trusted != atomic_load32(&p->trusted))
        atomic_store32(&hints->trusted, trusted);
    return n;
}

/* A free page: the lowest, as far as the last searches are to be believed. The
 * hints are private to the process, and threads may race for them: they decide
 * where to look, never what is free. What one search has found the next one
 * finds at once: who prepares looks first, and then claims. */
static uint32_t search(const struct pages *p)
{
    struct pages *hints = (struct pages *)(uintptr_t)p;
    uint32_t found = atomic_load32(&p->found);

    if (found == 0 || !is_free(p, found - 1)) {
        found = search_map(p, hints) + 1; /* PAGE_NONE becomes 0 */
        atomic_store32(&hints->found, found);
    }
    return found - 1;
}

/* What `search` may not know of. */
static void remember(const struct pages *p, uint32_t n)
{
    struct pages *hints = (struct pages *)(uintptr_t)p;
    uint32_t recents = atomic_load32(&p->recents);

    if (n + 1 < atomic_load32(&p->found))
        atomic_store32(&hints->found, 0);
    if (n / 64 >= atomic_load32(&p->full_below))
        return;
    if (recents < PAGES_RECENT) {
        atomic_store32(&hints->recent[recents], n);
        atomic_store32(&hints->recents, recents + 1);
    } else {
        atomic_store32(&hints->full_below, n / 64);
    }
}

static int commit(const struct pages *p, uint64_t from, uint64_t to)
{
    int rc = segment_commit(p->segment, p->at + from * PAGE_BYTES,
                            (to - from) * PAGE_BYTES);

    if (rc != SHD_OK)
        return rc;
    /* Another process may have been further. */
    set_committed(p, to, true);
    pages_follow(p);
    return SHD_OK;
}

int pages_extend(const struct pages *p)
{
    uint64_t from = pages_committed(p);
    uint64_t to = from + COMMIT_PAGES;
    uint32_t count = pages_count(p);

    if (from >= count)
        return SHD_NOMEM;
    if (to > count)
        to = count;
    if (commit(p, from, to) == SHD_OK)
        return SHD_OK;
    return commit(p, from, from + 1);
}

int pages_prepare(const struct pages *p)
{
    uint32_t n = search(p);

    if (n == PAGE_NONE)
        return SHD_NOMEM;
    if (n < pages_committed(p))
        return SHD_OK;
    /* As far as this process knows none below the watermark is free. */
    return pages_extend(p);
}

uint32_t pages_claim(const struct pages *p, struct txn *t, uint32_t owner)
{
    struct pages *hints = (struct pages *)(uintptr_t)p;
    uint64_t committed = pages_committed(p);
    uint32_t n = search(p);

    atomic_store32(&hints->found, 0);
    /* Each failure is another shard's success. */
    for (uint32_t tries = 0; tries < p->max; tries++) {
        if (n == PAGE_NONE || n >= committed)
            return PAGE_NONE;
        if (txn_claim(t, &p->table[n].owner, owner, &p->map[n / 64], n % 64)) {
            pages_follow(p);
            return n;
        }
        n = first_free(p, n + 1);
    }
    return PAGE_NONE;
}

void pages_release(const struct pages *p, struct txn *t, uint32_t n,
                   uint32_t owner)
{
    txn_release(t, &p->table[n].owner, owner, &p->map[n / 64], n % 64);
    remember(p, n);
}

static uint64_t free_below(const struct pages *p, uint32_t end)
{
    uint64_t sum = 0;

    for (uint32_t w = 0; w < map_words(end); w++) {
        uint64_t bits = atomic_load64(&p->map[w]);

        if (end - w * 64 < 64)
            bits &= (1ull << (end - w * 64)) - 1;
        sum += (uint64_t)__builtin_popcountll(bits);
    }
    return sum;
}

uint64_t pages_free(const struct pages *p)
{
    return free_below(p, pages_count(p));
}

/* Of those that this process has given back below the part of the map that is
 * looked at anyway: each once. */
static uint64_t recent_ready(const struct pages *p, uint32_t ready)
{
    uint32_t recents = atomic_load32(&p->recents), seen[PAGES_RECENT];
    uint32_t below = atomic_load32(&p->full_below);
    uint64_t sum = 0;

    for (uint32_t i = 0; i < recents && i < PAGES_RECENT; i++) {
        uint32_t n = atomic_load32(&p->recent[i]);
        bool counts = n < ready && n / 64 < below &&
                      (atomic_load64(&p->map[n / 64]) >> n % 64 & 1) != 0;

        for (uint64_t k = 0; k < sum; k++)
            counts = counts && seen[k] != n;
        if (counts)
            seen[sum++] = n;
    }
    return sum;
}

uint64_t pages_ready(const struct pages *p, uint64_t want, bool exact)
{
    struct pages *hints = (struct pages *)(uintptr_t)p;
    uint32_t committed = pages_touchable(p);
    uint32_t count = pages_count(p);
    uint32_t end = committed < count ? committed : count;
    uint32_t trusted = exact ? 0 : atomic_load32(&p->trusted);
    uint32_t first = end / 64;
    uint64_t sum = trusted == 0 ? 0 : recent_ready(p, end);
    uint32_t w = trusted == 0 ? 0 : atomic_load32(&p->full_below);

    for (; w < map_words(end) && sum < want; w++) {
        uint64_t bits = atomic_load64(&p->map[w]);

        if (end - w * 64 < 64)
            bits &= (1ull << (end - w * 64)) - 1;
        if (bits != 0 && w < first)
            first = w;
        sum += (uint64_t)__builtin_popcountll(bits);
    }
    if (trusted == 0 && want > 0) {
        atomic_store32(&hints->full_below, first);
        trusted = first / PAGES_TRUST;
    } else if (trusted > 0) {
        trusted--;
    }
    atomic_store32(&hints->trusted, trusted);
    return sum;
}

/* ---- growing and shrinking -------------------------------------------- */

/* Where the map, and the table, of the first n pages end. */
static uint64_t map_end(const struct pages *p, uint64_t n)
{
    return segment_offset(p->segment, p->map) + pages_map_bytes(n);
}

static uint64_t table_end(const struct pages *p, uint64_t n)
{
    return segment_offset(p->segment, p->table) + pages_table_bytes(n);
}

int pages_describe(const struct pages *p, uint64_t from, uint64_t to)
{
    /* `from` lies in the middle of a word that is there. */
    uint64_t map_at = map_end(p, from / 64 * 64);
    uint64_t table_at = table_end(p, from);
    int rc = segment_commit(p->segment, map_at, map_end(p, to) - map_at);

    if (rc == SHD_OK)
        rc = segment_commit(p->segment, table_at, table_end(p, to) - table_at);
    return rc;
}

void pages_offer(const struct pages *p, uint64_t from, uint64_t to,
                 uint64_t fresh)
{
    for (uint64_t w = from / 64; w * 64 < to; w++) {
        uint64_t bits = 0;

        for (uint64_t n = w * 64; n < w * 64 + 64 && n < to; n++) {
            if (n >= from &&
                (n >= fresh || atomic_load32(&p->table[n].owner) == 0))
                bits |= 1ull << n % 64;
        }
        if (bits != 0)
            atomic_or64(&p->map[w], bits);
    }
}

int pages_drop(const struct pages *p, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n < to; n++) {
        if (atomic_load32(&p->table[n].owner) != 0)
            return error_set(SHD_CORRUPT,
                             "pages: page %llu above the limit has an owner",
                             (unsigned long long)n);
    }
    /* Who has seen the old bound may read what is no longer there, and finds
     * zeroes; who looks from here on does not. */
    set_committed(p, from, false);
    return segment_decommit(p->segment, p->at + from * PAGE_BYTES,
                            (to - from) * PAGE_BYTES);
}

int pages_forget(const struct pages *p, uint64_t from)
{
    uint64_t map_at = map_end(p, from), table_at = table_end(p, from);
    int rc = segment_decommit(p->segment, map_at, map_end(p, p->max) - map_at);

    /* Nothing else lies between the table and the pages. */
    if (rc == SHD_OK)
        rc = segment_decommit(p->segment, table_at, p->at - table_at);
    return rc;
}

/* ---- checking --------------------------------------------------------- */

/* What cannot be, whatever other shards are doing: a page of mine that is free
 * in the map, and a page without an owner that is not. The second is looked
 * at again: a claim and a release may have come between the two loads, but
 * not each time. Beyond the limit, which may come down meanwhile, the map
 * means nothing. */
static bool contradicts(const struct pages *p, uint32_t n, uint32_t mine)
{
    for (int i = 0; i < 100; i++) {
        uint32_t owner = atomic_load32_acquire(&p->table[n].owner);
        bool free = (atomic_load64(&p->map[n / 64]) >> n % 64 & 1) != 0;

        if (n >= pages_count(p))
            return false;
        if (owner == mine)
            return free;
        if (owner != 0 || free)
            return false;
        atomic_pause();
    }
    return true;
}

int pages_check(const struct pages *p, uint32_t mine, uint32_t owners,
                char *report, size_t size)
{
    if (pages_committed(p) > p->max) {
        snprintf(report, size, "pages: %llu committed of %u",
                 (unsigned long long)pages_committed(p), p->max);
        return SHD_CORRUPT;
    }
    for (uint32_t n = 0; n < pages_described(p); n++) {
        uint32_t owner = atomic_load32(&p->table[n].owner);

        if (owner >= owners || contradicts(p, n, mine)) {
            snprintf(report, size, "pages: page %u has owner %u and is %s", n,
                     owner,
                     (atomic_load64(&p->map[n / 64]) >> n % 64 & 1) != 0
                         ? "free in the map"
                         : "not free in the map");
            return SHD_CORRUPT;
        }
    }
    return SHD_OK;
}
