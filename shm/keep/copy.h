/* SPDX-License-Identifier: BSD-2-Clause */
/* keep/copy.h - what a shard, or an object, holds at one moment, as records.
 *
 * OWNS   nothing shared.
 * HOLDS  the records are one state of the shard or object, between two
 *        transactions; entries that have expired by then are left out.
 * LOCK   none, if nobody changes it while it is copied, READ_TRIES times;
 *        then its lock, for hold_ms at most, else SHD_BUSY. Readers are not
 *        held up by that, nor is any other shard.
 * CRASH  nothing shared is written.
 * COST   memory for all that a shard or an object holds; some 200 ns an entry.
 */
#ifndef SHD_KEEP_COPY_H
#define SHD_KEEP_COPY_H

#include "shm/dict/dict.h"
#include "shm/ipc/object.h"
#include "shm/keep/record.h"

struct copy {
    struct record_buffer out; /* emptied by each call */
    struct record_sums sums;  /* of all calls that succeeded */
    uint32_t hold_ms;
    int64_t to_wall_ms;  /* wall clock less clock_now_ms() */
    uint64_t held_ns;    /* the longest time a lock was held */
    uint64_t skipped;    /* expired entries */
    uint64_t seq;        /* of the guard, of the last one */
    /* of the copy that is being made: */
    struct record_sums part;
    uint64_t part_skipped, since_ns, now_ms;
    const struct reading *reading;
};

/* ENTRY, LIST and ELEMENT records of a shard. SHD_GONE, SHD_BUSY, SHD_CORRUPT,
 * SHD_NOMEM. */
int copy_shard(struct copy *c, const struct dict *d, uint32_t shard);

/* An object that is no dict: its own record, and those of what is in it. */
int copy_object(struct copy *c, const struct guard_env *env,
                const struct catalogue_object *o);

/* ---- for copy_*.c ------------------------------------------------------ */

/* Now and then while something is copied: SHD_OK; SHD_CHANGED, it is torn
 * already; SHD_BUSY, the lock has been held for too long. */
int copy_still(struct copy *c);

/* Runs `part` in a read section of g until what it has copied is one state. */
int copy_run(struct copy *c, const struct guard_env *env, struct guard *g,
             const char *name,
             int (*part)(struct copy *c, const void *context),
             const void *context);

/* From clock_now_ms() to wall clock; 0 stays 0. */
static inline uint64_t copy_wall(const struct copy *c, uint64_t ms)
{
    return ms == 0 ? 0 : ms + (uint64_t)c->to_wall_ms;
}

#endif
