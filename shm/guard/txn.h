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
    uint64_t id;       /* the odd value of the sequence counter */
    uint32_t undo;     /* entries in the log */
    uint32_t undo_max; /* what the operation has announced */
    uint32_t claims;
    uint32_t releases;
};

/* Opens a transaction that will log at most `words` stores, which must not be
 * over GUARD_UNDO_MAX. */
void txn_begin(struct txn *t, const struct segment *s, struct guard *g,
               uint32_t words);

/* Changes a reachable word. p is aligned to its size, in the segment. */
static inline void txn_store64(struct txn *t, uint64_t *p, uint64_t v);
static inline void txn_store32(struct txn *t, uint32_t *p, uint32_t v);

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
void txn_commit(struct txn *t);

/* Undoes everything. */
void txn_abort(struct txn *t);

/* For recovery: undoes or completes what the log of g tells, and makes the
 * sequence counter even. SHD_CORRUPT, with nothing changed: the log is not
 * what a transaction of this guard has written. */
int txn_recover(const struct segment *s, struct guard *g);

/* Can recovery believe that log? For `state` and `seq` as they were loaded. */
bool txn_log_sound(const struct segment *s, const struct guard *g,
                   uint64_t state, uint64_t seq);

/* ---- how -------------------------------------------------------------- */

static inline uint64_t txn_state(uint32_t undo, uint32_t claims,
                                 uint32_t releases)
{
    return (uint64_t)undo | (uint64_t)claims << 16 | (uint64_t)releases << 32;
}

#define TXN_WHERE_BITS 33
#define TXN_WHERE_MASK ((1ull << TXN_WHERE_BITS) - 1)

/* 31 bits in the upper part of a word. */
static inline uint64_t txn_tag(uint64_t where, uint64_t old, uint64_t id)
{
    uint64_t h = (where * 0x9e3779b97f4a7c15ull) ^
                 (old * 0xc2b2ae3d27d4eb4full) ^ (id * 0x165667b19e3779f9ull);

    return (h ^ h >> 29) & ~TXN_WHERE_MASK;
}

static inline void txn_log(struct txn *t, const uint64_t *word)
{
    assert(t->undo < t->undo_max);
    struct guard_undo *u = &t->guard->undo[t->undo];
    uint64_t where = segment_offset(t->segment, word) / 8;
    uint64_t old = atomic_load64(word);

    u->where = where | txn_tag(where, old, t->id);
    u->old = old;
    atomic_compiler_barrier();
    t->undo++;
    atomic_store64(&t->guard->state, txn_state(t->undo, t->claims, 0));
    atomic_compiler_barrier();
}

static inline void txn_store64(struct txn *t, uint64_t *p, uint64_t v)
{
    txn_log(t, p);
    atomic_store64(p, v);
}

static inline void txn_store32(struct txn *t, uint32_t *p, uint32_t v)
{
    txn_log(t, (const uint64_t *)((uintptr_t)p & ~(uintptr_t)7));
    atomic_store32(p, v);
}

#endif
