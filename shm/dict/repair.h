/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/repair.h - a dict that somebody has scribbled over is made sound again.
 *
 * The ladder, and a shard goes down it only as far as it must:
 *   roll back   the log of its lock can be believed: the operation in flight
 *               is undone, as after any death
 *   rebuild     roots, LRU list, page descriptors and counts are made anew
 *               from the cells: an entry is one whose key leads, by its hash,
 *               to this shard and to the 24 bits of it in the cell, and all
 *               that it owns is whole. A list that breaks off is cut there
 *   reset       this shard is emptied
 *
 * HOLDS  afterwards every invariant of the dict; no value that was deleted has
 *        come back: what may have been garbage is kept only if a tree or the
 *        LRU list still leads to it.
 * LOCK   one shard's lock at a time; that shard is closed to all others, also
 *        to readers, while it is rebuilt. Shards that are sound are only
 *        looked at.
 * CRASH  what is done is not logged, but behind a fence (guard_fence): a shard
 *        whose repair was cut off answers SHD_CORRUPT until it is repaired
 *        again, from the start, out of the same cells.
 * COST   private memory of some 100 bytes a page and 24 bytes an entry of one
 *        shard; time like a check.
 */
#ifndef SHD_DICT_REPAIR_H
#define SHD_DICT_REPAIR_H

#include "shm/dict/dict.h"

/* What was done, added up over what is repaired. `text` gets a sentence a
 * line, NUL-terminated and cut at `size`. */
struct repair {
    char *text;
    size_t size, used;
    struct shd_repair done;
};

void repair_say(struct repair *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* SHD_OK: every invariant holds now. SHD_CORRUPT: not, and the text says what
 * is beyond repair. SHD_BUSY: a lock was not to be had. SHD_GONE. */
int repair_dict(const struct guard_env *env, const struct catalogue_object *o,
                struct repair *r);

#endif
