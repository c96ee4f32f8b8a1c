/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/room.h - removing entries, and making room for others.
 *
 * HOLDS  an expired entry goes before a live one; of the live the least
 *        recently written goes first, unless it was read since, or among
 *        shards changed where it is: then its mark is cleared and it moves to
 *        the front (second chance). When none of those has been read again for
 *        long, those go first.
 * LOCK   as each function says. No function ever holds two shards' locks.
 * CRASH  every removal, every move of a cell is one transaction.
 * COST   bounded: one step removes or moves at most what is in one page. An
 *        entry goes with all it owns; what that was is freed in steps.
 *
 * A page's worth of free cells of one class can be moved together, so a shard
 * whose entries are all small gives a page after at most ROOM_PAGE_CELLS of
 * its cells have become free, however they lie.
 */
#ifndef SHD_DICT_ROOM_H
#define SHD_DICT_ROOM_H

#include "shm/dict/forest.h"

/* Why an entry goes. */
enum {
    ROOM_DELETED = 0,
    ROOM_EXPIRED = 1,
    ROOM_EVICTED = 2, /* its page is needed */
    ROOM_OLD = 3      /* evicted, for nobody has used it for longest */
};

/* Cells of all classes that can be free in a shard in which no page can be
 * freed by moving: one less than a page's worth of each. */
#define ROOM_PAGE_CELLS 438u

/* What a removal may store, beyond what the caller adds. */
#define ROOM_DISCARD_WORDS (SLAB_FREE_BRIEF_WORDS + SLAB_FREE_WORDS)
#define ROOM_REMOVE_WORDS                                                     \
    (TREE_REMOVE_WORDS + LIST_WORDS + ROOM_DISCARD_WORDS + 8u)

/* What a store asks of the makers of room. */
struct room {
    bool safe;          /* remove nothing that is alive */
    bool larger;        /* a larger cell than the class's will do */
    bool last_resort;   /* nothing else is left: the old value may go */
    bool stay;          /* in this shard, whatever the age of the others */
    uint32_t *forcible; /* set to 1 when a live entry was removed */
    /* The key that is being stored, whose old value is not to be removed while
     * others are left (NULL: none is; at.shard is any): */
    struct place at;
    const void *key;
    size_t key_len;
    uint32_t keep;   /* the old value's entry as of the last look-up, or 0 */
    bool *kept_went; /* set when it was removed all the same */
    bool must_keep;  /* it is not: rather SHD_NOMEM */
};

/* Inside a transaction of the shard: takes the entry the path ends with out
 * of the tree and the LRU list, and frees its cell, or puts it on the
 * garbage if it owns a list, or more of a chain than that frees at once. */
int room_remove(const struct dict *d, uint32_t shard, struct txn *t,
                const struct place *at, struct tree_path *path, int why);

/* Inside a transaction, for an entry or node that is unlinked from all but
 * the LRU list (word 3 is free): frees it, or puts it on the garbage. */
int room_discard(const struct dict *d, uint32_t shard, struct txn *t,
                 uint32_t ref);

/* With the lock: makes the entry the last to be evicted. */
int room_touch(const struct dict *d, uint32_t shard, struct txn *t,
               uint32_t ref);

/* With the lock: an entry has been changed where it is. As room_touch where
 * there is one order of all entries (dict_has_order); else it is marked, as one
 * that was read is. */
int room_used(const struct dict *d, uint32_t shard, struct txn *t,
              uint32_t ref);

/* With the lock: frees a few cells of the garbage. 1 if there was any. */
int room_collect(const struct dict *d, uint32_t shard);

/* Without the lock: frees garbage of the shard, in at most `holds` steps of
 * ROOM_SETTLE_CELLS cells (0: until none is left). */
#define ROOM_SETTLE_CELLS 64u
int room_settle(const struct dict *d, uint32_t shard, uint64_t holds);

/* With the lock: removes expired entries of one page, at most max. The number
 * removed; 0 means that nothing has expired. */
int room_expire(const struct dict *d, uint32_t shard, uint64_t max);

/* With the lock: one step towards a free cell of the class in this shard. 1:
 * try again; 0: this shard has no more to give (see room_elsewhere). */
int room_here(const struct dict *d, uint32_t shard, uint32_t class,
              const struct room *r);

/* With the lock: frees a page of the shard by moving what is in it to free
 * cells of its class, and unless r->safe evicting what cannot move. 1 if
 * anything was done, 0 if nothing could be. */
int room_vacate(const struct dict *d, uint32_t shard, uint32_t page,
                const struct room *r);

/* Without a lock: gets `pages` pages free for the key's shard, from whichever
 * shard has the oldest entries. SHD_NOMEM: there is nothing more to take. */
int room_elsewhere(const struct dict *d, uint64_t pages, const struct room *r);

#endif
