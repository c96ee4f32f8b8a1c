/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/attempt.h - what every change of one key does: look up, make room,
 * build, link, in rounds.
 *
 * LOCK   attempt_run takes the shard's lock; the rest needs it held.
 * CRASH  what is being built hangs on the shard's `pending` word; it becomes
 *        garbage when the attempt ends, whoever ends it.
 */
#ifndef SHD_DICT_ATTEMPT_H
#define SHD_DICT_ATTEMPT_H

#include "shm/dict/room.h"

/* A body's result: its shard has no more room to give; get pages free
 * elsewhere, and call it again. */
#define ATTEMPT_NEED_ROOM 2

/* One attempt to store, under the lock of its shard. */
struct attempt {
    const struct dict *d;
    struct shard *shard;
    struct guard *guard;
    struct place at;
    struct tree_path path;
    uint32_t old;        /* the entry that is there, 0: none */
    struct entry *entry; /* its address */
    bool live;
    bool kept_went; /* making room removed the old value itself */
    struct room room;
    uint64_t pages;  /* what may be needed of whole pages, for elsewhere */
    uint64_t ready;  /* free ones that did not do */
    uint64_t settle; /* room_settle's holds when it is done */
    bool held;       /* the lock is, when attempt_run begins */
    bool spare;      /* what is garbage at the end may stay (attempt_spares) */
};

/* Holds of the lock in which a store frees garbage when it is done. What is
 * left is freed by those who come next, and serves whoever needs room. */
#define ATTEMPT_SETTLE 64

void attempt_start(struct attempt *a, const struct dict *d, const void *key,
                   size_t len, bool safe, uint32_t *forcible);
void attempt_start_at(struct attempt *a, const struct dict *d,
                      const struct place *at, const void *key, size_t len,
                      bool safe, uint32_t *forcible);

/* Runs `body` under the shard's lock until it needs no more room. */
int attempt_run(struct attempt *a,
                int (*body)(struct attempt *a, void *context), void *context);

/* Fills old, entry, live and path for the key. Any step of making room makes
 * them stale. */
int attempt_look_up(struct attempt *a, const void *key, size_t len);

void attempt_begin(struct attempt *a, struct txn *t, uint32_t words);

/* Commits if rc is SHD_OK, else aborts; returns rc. */
int attempt_end(struct txn *t, int rc);

/* Classes by which a cell may be larger than need be, where memory is short */
#define ATTEMPT_LARGER 2u

/* The class to take a cell from: the one asked for, or when that has none and
 * a larger one has, that. */
uint32_t attempt_larger(const struct attempt *a, uint32_t class);

static inline uint32_t attempt_class(const struct attempt *a, uint32_t class)
{
    return atomic_load32(&a->shard->slab.partial[class]) != 0
               ? class
               : attempt_larger(a, class);
}

/* SHD_NOMEM from an allocator: makes a step of room here. SHD_OK: try again;
 * ATTEMPT_NEED_ROOM. */
int attempt_make_room(struct attempt *a, uint32_t class, int *steps);

/* What a store has let go of, a chain of so many cells, may stay garbage until
 * the next in its shard, which takes the cells if they are as many as it needs,
 * and else frees them. In all shards together that is this share of the dict's
 * pages at most. Who makes room in that shard frees it before anything else.
 */
#define ATTEMPT_SPARE_SHARE 32u

static inline bool attempt_spares(const struct attempt *a, uint64_t cells)
{
    return atomic_load32(&a->shard->garbage) == 0 &&
           cells * a->d->shards * ATTEMPT_SPARE_SHARE <=
               pages_count(&a->d->pages);
}

/* Builds the item's chain on a pending word of the shard. */
int attempt_build_chain(struct attempt *a, const struct item *item, int slot,
                        int *steps);

/* Makes the pending chain belong to the cell at ref. */
int attempt_adopt_chain(struct attempt *a, struct txn *t, int slot,
                        uint32_t ref);

/* The site of a chain on a pending word of the shard. */
struct chain_site attempt_site(const struct attempt *a, int slot);

/* Puts a filled fresh entry where the look-up led: instead of the old one, or
 * as a new one. */
#define LINK_OLD_WORDS (TREE_REPLACE_WORDS + ROOM_DISCARD_WORDS)
#define LINK_WORDS                                                            \
    (SLAB_EXPIRY_WORDS + 2 * LIST_WORDS + 2u +                                \
     (TREE_INSERT_WORDS > LINK_OLD_WORDS ? TREE_INSERT_WORDS                  \
                                         : LINK_OLD_WORDS))
int attempt_link(struct attempt *a, struct txn *t, uint32_t ref,
                 uint64_t expires);

/* After a look-up: asks for the lines that attempt_link will write to when the
 * old value goes, so that they come while the new one is copied. */
void attempt_will_link(const struct attempt *a);

/* ---- store.c, for other changes under the lock ------------------------ */

/* What one transaction may log that stores a filled fresh entry. */
#define STORE_WORDS (CHAIN_ONE_WORDS + SLAB_ALLOC_WORDS + LINK_WORDS + 8u)

/* A store under the lock: looks up, makes room, stores. */
int store_locked(struct attempt *a, uint32_t op, struct item *item);

/* SHD_OK, SHD_CHANGED: does it hold for the live entry that was looked up? */
int store_condition(const struct attempt *a, const struct condition *when);

#endif
