/* SPDX-License-Identifier: BSD-2-Clause */
/* guard/txn.h - transactions: any prefix of their stores can be undone.
 *
 * OWNS   the log of the guard that the caller holds.
 * HOLDS  a logged word's old value is in the log before the word changes.
 * LOCK   the caller holds the guard, and has one transaction open at most.
 * CRASH  before txn_commit's one store: as at txn_begin. After: done, and the
 *        releases it promised are done by whoever comes next.
 * COST   about 2 ns a store.
 *
 * CRASH MODEL. A dying process's stores form a prefix of its program order,
 * and the kernel's exit path orders them before the lock is marked. So the
 * log needs compiler barriers only; the readers without the lock (guard/
 * read.h) get acquire and release through the sequence counter.
 */
#ifndef SHD_GUARD_TXN_H
#define SHD_GUARD_TXN_H

#include "shm/guard/guard.h"

struct txn {
    struct guard *guard;
    const struct segment *segment;
    const unsigned char *base; /* the segment's */
    uint64_t id;       /* the odd value of the sequence counter */
    uint64_t salt;     /* its part of every tag */
    uint64_t state;    /* the guard's state word: undo | claims << 16 */
    uint32_t undo_max; /* what the operation has announced */
    uint32_t releases;
};

/* Opens a transaction that will log at most `words` stores, which must not be
 * over GUARD_UNDO_MAX. */
static inline void txn_begin(struct txn *t, const struct segment *s,
                             struct guard *g, uint32_t words);

/* Changes a reachable word. p is aligned to its size, in the segment. */
static inline void txn_store64(struct txn *t, uint64_t *p, uint64_t v);
static inline void txn_store32(struct txn *t, uint32_t *p, uint32_t v);

/* A transaction of one word, outside of any other: that store is its commit,
 * there is nothing to log, and the sequence counter stays as it is, so that the
 * line of it stays with those who look at it. For a word that readers without
 * the lock take by itself, not together with others. Release. */
static inline void txn_store64_alone(struct guard *g, uint64_t *p, uint64_t v);

/* Takes something that all guards share: *owner goes from 0 to `value`, and
 * its bit in *map is cleared. False if another was quicker. At most
 * GUARD_CLAIMS_MAX a transaction. */
bool txn_claim(struct txn *t, uint32_t *owner, uint32_t value, uint64_t *map,
               uint32_t bit);

/* Gives it back when the transaction commits: sets the bit, and *owner to 0.
 * At most GUARD_RELEASES_MAX a transaction. */
void txn_release(struct txn *t, uint32_t *owner, uint32_t value, uint64_t *map,
                 uint32_t bit);

/* Does everything. One store decides. */
static inline void txn_commit(struct txn *t);

/* Undoes everything. */
void txn_abort(struct txn *t);

/* For recovery: undoes or completes what the log of g tells, and makes the
 * sequence counter even. SHD_CORRUPT, with nothing changed: the log is not
 * what a transaction of this guard has written. */
int txn_recover(const struct segment *s, struct guard *g);

/* What a claim or a release of the log has taken goes back, as in recovery.
 * False: no transaction of that id wrote it; nothing has changed. */
bool txn_give_back(const struct segment *s, const struct guard_claim *c,
                   uint64_t id);

/* Can recovery believe that log? For `state` and `seq` as they were loaded. */
bool txn_log_sound(const struct segment *s, const struct guard *g,
                   uint64_t state, uint64_t seq);

/* ---- how -------------------------------------------------------------- */

/* Inlined everywhere, so that a transaction that begins and ends in one
 * function lives in registers. */
#define TXN_INLINE static inline __attribute__((always_inline))

static inline uint64_t txn_state(uint32_t undo, uint32_t claims,
                                 uint32_t releases)
{
    return (uint64_t)undo | (uint64_t)claims << 16 | (uint64_t)releases << 32;
}

#define TXN_WHERE_BITS 33
#define TXN_WHERE_MASK ((1ull << TXN_WHERE_BITS) - 1)

static inline uint64_t txn_salt(uint64_t id)
{
    return id * 0x165667b19e3779f9ull;
}

/* 31 bits in the upper part of a word: one multiplication, which is a one-to-
 * one map of 64 bits, of which the upper ones depend on all. */
static inline uint64_t txn_tag(uint64_t where, uint64_t old, uint64_t salt)
{
    uint64_t h = (where << 31 ^ old ^ salt) * 0x9e3779b97f4a7c15ull;

    return h >> TXN_WHERE_BITS << TXN_WHERE_BITS;
}

static inline uint32_t txn_words(const struct txn *t)
{
    return t->state & 0xffff;
}

static inline uint32_t txn_claims(const struct txn *t)
{
    return (uint32_t)(t->state >> 16);
}

TXN_INLINE void txn_begin(struct txn *t, const struct segment *s,
                          struct guard *g, uint32_t words)
{
    uint64_t seq = atomic_load64(&g->seq);

    assert(words <= GUARD_UNDO_MAX);
    t->guard = g;
    t->segment = s;
    t->base = s->base;
    /* Both were at rest when the lock was taken. If they are not now somebody
     * has overwritten them, and they mean nothing. */
    t->id = (seq | 1) + (seq & 1) * 2;
    if (atomic_load64(&g->state) != 0)
        atomic_store64(&g->state, 0);
    t->salt = txn_salt(t->id);
    t->state = 0;
    t->undo_max = words;
    t->releases = 0;
    atomic_store64(&g->seq, t->id);
    atomic_fence_release();
}

/* After the commit: its releases, and the end. Not told by a pointer to the
 * transaction, which would keep all of it in memory. */
void txn_finish(const struct segment *s, struct guard *g, uint32_t releases,
                uint64_t id);

TXN_INLINE void txn_commit(struct txn *t)
{
    struct guard *g = t->guard;

    atomic_compiler_barrier();
    atomic_store64(&g->state, txn_state(0, 0, t->releases));
    atomic_compiler_barrier();
    if (t->releases == 0)
        atomic_store64_release(&g->seq, t->id + 1);
    else
        txn_finish(t->segment, g, t->releases, t->id);
    t->guard = NULL;
}

TXN_INLINE void txn_log(struct txn *t, const uint64_t *word)
{
    struct guard *g = t->guard;
    uint64_t state = t->state;
    struct guard_undo *u = &g->undo[state & 0xffff];
    uint64_t where = (uint64_t)((const unsigned char *)word - t->base) / 8;
    uint64_t old = atomic_load64(word);

    assert((state & 0xffff) < t->undo_max);
    t->state = ++state;
    u->where = where | txn_tag(where, old, t->salt);
    u->old = old;
    atomic_compiler_barrier();
    atomic_store64(&g->state, state);
    atomic_compiler_barrier();
}

TXN_INLINE void txn_store64(struct txn *t, uint64_t *p, uint64_t v)
{
    txn_log(t, p);
    atomic_store64(p, v);
}

TXN_INLINE void txn_store64_alone(struct guard *g, uint64_t *p, uint64_t v)
{
    atomic_store64_release(p, v);
    atomic_store64(&g->alone, atomic_load64(&g->alone) + 1);
}

TXN_INLINE void txn_store32(struct txn *t, uint32_t *p, uint32_t v)
{
    txn_log(t, (const uint64_t *)((uintptr_t)p & ~(uintptr_t)7));
    atomic_store32(p, v);
}

#endif
