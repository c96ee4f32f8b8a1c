/* SPDX-License-Identifier: BSD-2-Clause */
/* keep/save.h - a segment's content into a file, in steps.
 *
 * OWNS   the file until it is finished; nothing shared.
 * HOLDS  each shard of a dict, and each queue, topic, lock, is in the file as
 *        it was at one moment between begin and the last step. Different ones
 *        were copied at different moments, later ones not earlier.
 * LOCK   keep/copy.h, in a step; none between steps.
 * CRASH  of the saver: the file that was there before stays, and no part of a
 *        new one has a name. Of workers: none of it matters.
 * COST   a step copies one shard or object, or writes up to STEP_BYTES of it.
 */
#ifndef SHD_KEEP_SAVE_H
#define SHD_KEEP_SAVE_H

#include "shm/keep/copy.h"

#define SAVE_HOLD_MS_DEFAULT 1000u

struct save {
    const struct guard_env *env;
    struct file_writer file;
    struct copy copy;
    uint64_t *seqs; /* of each guard when it was copied; UINT64_MAX: was not */
    uint32_t guards; /* room in seqs */
    uint64_t catalogue_seq;
    uint32_t index; /* the object that is at hand, or next */
    uint32_t shard; /* of a dict: the next one */
    bool in_dict;
    struct dict dict;
    uint64_t written; /* bytes of copy.out that are in the file */
    uint64_t dropped; /* objects that were destroyed meanwhile */
    uint64_t total;   /* entries and messages when it began */
    bool done;
    bool one_moment;
    uint64_t saved_ms; /* wall clock */
    char name[256];    /* of the segment; "": it has none */
};

/* save_end in any case. */
int save_begin(struct save *s, const struct guard_env *env, const char *path,
               uint32_t hold_ms);

/* 1: there is more to do. 0: the file is there. Or an error, after which only
 * save_end is of use. */
int save_step(struct save *s);
void save_end(struct save *s);

#endif
