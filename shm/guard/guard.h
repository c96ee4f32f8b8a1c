/* SPDX-License-Identifier: BSD-2-Clause */
/* guard/guard.h - one robust lock with its undo log and sequence counter.
 *
 * OWNS   the guard table of the segment: a guard's memory is never anything
 *        else, so that the kernel's robust lists and late waiters are safe.
 * HOLDS  when the lock is free or its holder is outside a transaction, the
 *        log is empty and the sequence counter even.
 * LOCK   every wait is a series of 30 ms slices bounded by wait_ms.
 * CRASH  the next locker, or a reap, undoes what the dead holder had begun
 *        before anybody else sees the lock as taken. Recovery cut off at any
 *        instruction runs again from the start and ends the same.
 * COST   lock + unlock about 30 ns; recovery a few microseconds.
 *
 * Facts about robust locks this module answers (each was reproduced):
 *   a killed waiter strands the others     timed slices; guard_kick
 *   a lock word can name a dead thread     guard_lock looks whether it lives,
 *     without OWNER_DIED                     and marks the word as the kernel
 *                                            would have
 *   a stopped owner cannot be helped       SHD_BUSY after wait_ms
 */
#ifndef SHD_GUARD_GUARD_H
#define SHD_GUARD_GUARD_H

#include "shm/base/atomic.h"
#include "shm/guard/robust.h"
#include "shm/segment/segment.h"

#define GUARD_WAIT_MS_DEFAULT 2000u
#define GUARD_SLICE_MS 30u
#define GUARD_CLAIMS_MAX 4u
#define GUARD_RELEASES_MAX 8u
#define GUARD_UNDO_MAX 476u

enum { GUARD_REGISTRY = 0, GUARD_CATALOGUE = 1, GUARD_FIRST_OBJECT = 2 };

/* A word before a transaction changed it. */
struct guard_undo {
    uint64_t where; /* 0 tag (31 bits) << 33 | byte offset / 8 (33 bits) */
    uint64_t old;   /* 8 */
};

/* Something shared by all guards that changes hands: its owner word and its
 * bit in a map of what is free (txn_claim, txn_release). */
struct guard_claim {
    uint64_t owner_at; /*  0 byte offset of the 32-bit owner word */
    uint64_t map_at;   /*  8 byte offset of the 64-bit word of the map */
    uint32_t owner;    /* 16 value of the owner word while it is ours */
    uint32_t bit;      /* 20 in the map word, 0..63 */
    uint64_t tag;      /* 24 over the fields above and the transaction */
};

/* Somewhere to wait for what is done under a guard (ipc/wait.h): in memory
 * that is never anything else, so that a late sleeper or waker finds it. */
struct guard_wait {
    uint32_t turn;  /* 0 a futex: moves on when somebody is to wake */
    uint32_t armed; /* 4 not 0: somebody may be asleep */
};

#define GUARD_WAITS 4u

struct guard {
    uint32_t lock;       /*   0 guard/robust.h */
    uint8_t pad1[36];    /*   4 */
    uint64_t alone;      /*  40 transactions of one word (guard/txn.h) */
    uint64_t owner;      /*  48 incarnation of the last holder */
    uint64_t waits;      /*  56 acquisitions that had to wait */
    uint64_t seq;        /*  64 odd while a transaction is open */
    uint64_t object;     /*  72 generation of the object it guards, 0: none */
    struct guard_wait wait[GUARD_WAITS]; /*  80 hints: changed without a log,
                                            any prefix of their stores only
                                            wakes somebody in vain */
    uint8_t pad2[16];    /* 112 */
    uint64_t state;      /* 128 undo | claims << 16 | releases << 32 */
    uint64_t recoveries; /* 136 dead holders answered for */
    uint64_t damaged;    /* 144 not 0: its log could not be trusted */
    uint8_t pad3[40];    /* 152 */
    struct guard_claim claims[GUARD_CLAIMS_MAX];     /* 192 */
    struct guard_claim releases[GUARD_RELEASES_MAX]; /* 320 */
    struct guard_undo undo[GUARD_UNDO_MAX];          /* 576 */
};
static_assert(offsetof(struct guard, lock) == 0, "layout");
static_assert(offsetof(struct guard, owner) == 48, "layout");
static_assert(offsetof(struct guard, seq) == 64, "layout");
static_assert(offsetof(struct guard, wait) == 80, "layout");
static_assert(offsetof(struct guard, state) == 128, "layout");
static_assert(offsetof(struct guard, undo) == 576, "layout");
static_assert(sizeof(struct guard) == SEGMENT_GUARD_BYTES, "layout");

/* What a process needs to take guards of one segment: private memory. */
struct guard_env {
    struct segment *segment;
    uint64_t incarnation; /* 0 until this process is a registered worker */
    uint32_t wait_ms;
    uint32_t stripe; /* which line of counters is this process's own */
    uint64_t replacing; /* of a repair: generation of the object whose place
                           the one that is made takes; else 0 */
};

/* Guard number index, or NULL if there is no such. It must be committed. */
struct guard *guard_at(const struct segment *s, uint32_t index);

/* Takes the lock, undoing what a dead holder left. SHD_BUSY: a live holder
 * kept it for env->wait_ms. SHD_CORRUPT: the lock or its log is damaged; it
 * is not held then. */
static inline int guard_lock(const struct guard_env *env, struct guard *g);

/* The same for who will hardly open a transaction: it leaves the lines that one
 * begins with where they are, with readers perhaps. */
static inline int guard_lock_only(const struct guard_env *env,
                                  struct guard *g);

/* SHD_BUSY, with who holds it: for those that wait by slices of their own. */
int guard_busy(const struct guard *g, uint32_t waited_ms);

/* Takes it only if that needs no waiting; else SHD_BUSY. */
int guard_trylock(const struct guard_env *env, struct guard *g);

static inline void guard_unlock(struct guard *g);

/* If the holder has died: recovers, and lets go of the lock. 1 if there was
 * something to recover, 0 if not, or an error. */
int guard_reap(const struct guard_env *env, struct guard *g);

/* For repair: takes the lock whatever its log holds, which is undone if it can
 * be believed. *sound tells whether the guard is as it should be now. SHD_BUSY:
 * a live holder kept it. */
int guard_seize(const struct guard_env *env, struct guard *g, bool *sound);

/* With the lock: keeps everybody out of the guard's data, readers too, also
 * when the caller dies, until guard_mend. What is changed in between is not
 * logged: who dies leaves it to be repaired from the start. */
void guard_fence(struct guard *g);

/* With the lock: opens it again, with an empty log and a sequence counter that
 * is even, not less than `seq`, and goes forward. */
void guard_mend(struct guard *g, uint64_t seq);

/* Wakes every waiter, for those that a killed waiter has left asleep: those
 * for the lock, and those at its places. */
void guard_kick(struct guard *g);

/* Moves a place's turn on and wakes all that sleep there. */
void guard_wait_kick(struct guard_wait *w);

/* Is the lock taken just now, and by which worker? 0: free. For looking. */
uint64_t guard_holder(const struct guard *g);

/* Who has the lock just now; two equal ones, one after the other, mean that
 * the holder has changed nothing in between. tid 0: it is free. */
struct guard_holding {
    uint64_t owner; /* incarnation; of the last holder, just after the lock is
                       taken */
    uint64_t seq;
    uint64_t alone;
    uint32_t tid;
    uint32_t reserved;
};
struct guard_holding guard_held_by(const struct guard *g);

/* The invariants of a guard that nobody holds or the caller does. */
int guard_check(const struct guard *g, char *report, size_t size);

/* ---- how -------------------------------------------------------------- */

/* What only the holder may ask: is there a log, or a damaged one? */
static inline bool guard_is_at_rest(const struct guard *g)
{
    return (atomic_load64(&g->damaged) | atomic_load64(&g->state) |
            (atomic_load64(&g->seq) & 1)) == 0;
}

/* After a trylock that said rc: recovers, waits, or fails. */
int guard_lock_by(const struct guard_env *env, struct guard *g, int rc);

static inline int guard_lock_only(const struct guard_env *env, struct guard *g)
{
    int rc = robust_trylock(&g->lock);

    if (rc != 0 || !guard_is_at_rest(g))
        return guard_lock_by(env, g, rc);
    atomic_store64(&g->owner, env->incarnation);
    return 0;
}

static inline int guard_lock(const struct guard_env *env, struct guard *g)
{
    /* What a transaction begins with: these lines come together. */
    atomic_will_write(&g->lock);
    atomic_will_write(&g->seq);
    atomic_will_write(&g->state);
    atomic_will_write(&g->undo[0]);
    atomic_will_write(&g->undo[4]);
    return guard_lock_only(env, g);
}

static inline void guard_unlock(struct guard *g)
{
    /* If the word is not ours any more somebody has overwritten it. Whoever
     * finds it naming nobody that lives marks it (mark_lost_owner). */
    (void)robust_unlock(&g->lock);
}

#endif
