/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order makes it sound: the logged words are undone, and what was claimed or
 * is to be released goes back, while the guard's own page still is the file's. If
 * the guard shows the same counter and the same log after that, the writer has
 * done no more than the one store that follows its last log entry, and that word
 * has been undone here. The guard's page itself is copied last: its copy says
 * that no transaction is open, with a counter that no writer ever reaches, so
 * that no other thread's read section mistakes one for the other.
 */
#include "shm/guard/undone.h"
#include "shm/guard/txn.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SEQ_COPY (1ull << 62)
/* Of each word one; of each claim or release two; and the guard's. */
#define PAGES_MAX                                                             \
    (GUARD_UNDO_MAX + 2 * (GUARD_CLAIMS_MAX + GUARD_RELEASES_MAX) + 1)

struct undone {
    struct guard *guard;
    uint64_t seq, state; /* as the writer left them */
    uint32_t pages;
    void *page[PAGES_MAX];
};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
uint64_t undone_epoch;

static void epoch_step(void)
{
    atomic_fence_full();
    atomic_store64_release(&undone_epoch, atomic_load64(&undone_epoch) + 1);
    atomic_fence_full();
}

static void *page_of(void *address)
{
    return (void *)((uintptr_t)address & ~(uintptr_t)(SEGMENT_PAGE - 1));
}

/* Makes the page a private copy that can be written to. */
static bool copy_page(struct undone *u, void *address)
{
    void *page = page_of(address);

    for (uint32_t i = 0; i < u->pages; i++) {
        if (u->page[i] == page)
            return true;
    }
    if (mprotect(page, SEGMENT_PAGE, PROT_READ | PROT_WRITE) != 0)
        return false;
    u->page[u->pages++] = page;
    return true;
}

static bool undo_words(const struct segment *s, struct undone *u)
{
    uint32_t n = u->state & 0xffff;

    while (n-- > 0) {
        const struct guard_undo *entry = &u->guard->undo[n];
        uint64_t *word = segment_at(s, (entry->where & TXN_WHERE_MASK) * 8, 8);

        if (word == NULL || !copy_page(u, word))
            return false;
        atomic_store64(word, entry->old);
    }
    return true;
}

/* The words first, as in recovery: what was claimed is nobody's after that, and
 * what a commit has promised to give back has gone back. */
static bool give_claims_back(const struct segment *s, struct undone *u,
                             const struct guard_claim *logged, uint32_t n)
{
    while (n-- > 0) {
        /* The log may be overwritten meanwhile. */
        const struct guard_claim c = {
            .owner_at = atomic_load64(&logged[n].owner_at),
            .map_at = atomic_load64(&logged[n].map_at),
            .owner = atomic_load32(&logged[n].owner),
            .bit = atomic_load32(&logged[n].bit),
            .tag = atomic_load64(&logged[n].tag),
        };
        void *owner = segment_at(s, c.owner_at, 4);
        void *map = segment_at(s, c.map_at, 8);

        if (owner == NULL || map == NULL || !copy_page(u, owner) ||
            !copy_page(u, map) || !txn_give_back(s, &c, u->seq))
            return false;
    }
    return true;
}

static bool undo_claims(const struct segment *s, struct undone *u)
{
    return give_claims_back(s, u, u->guard->claims, u->state >> 16 & 0xffff) &&
           give_claims_back(s, u, u->guard->releases,
                            u->state >> 32 & 0xffff);
}

/* The file shows through again. */
static void give_back(struct undone *u)
{
    for (uint32_t i = 0; i < u->pages; i++) {
        int rc = madvise(u->page[i], SEGMENT_PAGE, MADV_DONTNEED);

        assert(rc == 0);
        rc = mprotect(u->page[i], SEGMENT_PAGE, PROT_READ);
        assert(rc == 0);
        (void)rc;
    }
    u->pages = 0;
}

static bool stands_still(const struct undone *u)
{
    atomic_fence_acquire();
    return atomic_load64_acquire(&u->guard->state) == u->state &&
           atomic_load64_acquire(&u->guard->seq) == u->seq;
}

static bool enter(const struct segment *s, struct undone *u, struct guard *g)
{
    u->guard = g;
    u->pages = 0;
    u->seq = atomic_load64_acquire(&g->seq);
    u->state = atomic_load64_acquire(&g->state);
    /* Behind a fence there is nothing that was whole before. */
    if ((u->seq & 1) == 0 || atomic_load64(&g->damaged) != 0 ||
        !txn_log_sound(s, g, u->state, u->seq) ||
        !undo_words(s, u) || !undo_claims(s, u) || !stands_still(u) ||
        !copy_page(u, g))
        return false;
    atomic_store64(&g->state, 0);
    atomic_store64(&g->seq, u->seq + 1 + SEQ_COPY);
    return true;
}

struct undone *undone_enter(const struct segment *s, struct guard *g)
{
    struct undone *u = malloc(sizeof(*u));
    int rc;

    if (u == NULL)
        return NULL;
    rc = pthread_mutex_trylock(&one_at_a_time);
    if (rc != 0) {
        free(u);
        return NULL;
    }
    epoch_step();
    if (enter(s, u, g))
        return u;
    give_back(u);
    epoch_step();
    rc = pthread_mutex_unlock(&one_at_a_time);
    assert(rc == 0);
    free(u);
    return NULL;
}

bool undone_leave(struct undone *u)
{
    bool still;
    int rc;

    give_back(u);
    still = stands_still(u);
    epoch_step();
    rc = pthread_mutex_unlock(&one_at_a_time);
    assert(rc == 0);
    (void)rc;
    free(u);
    return still;
}
