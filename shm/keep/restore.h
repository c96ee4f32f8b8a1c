/* SPDX-License-Identifier: BSD-2-Clause */
/* keep/restore.h - what keep/save.h has saved, into a segment, in steps.
 *
 * OWNS   the file; the segment is its maker's (api/keep.c), who gives it a name
 *        when all is in it.
 * HOLDS  a file that is damaged anywhere ends in an error that names the place.
 * LOCK   those of ordinary operations.
 * CRASH  as of those; nobody else sees the segment yet.
 * COST   a step is RESTORE_STEP records, or a few MiB of them.
 */
#ifndef SHD_KEEP_RESTORE_H
#define SHD_KEEP_RESTORE_H

#include "shm/dict/dict.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"
#include "shm/keep/record.h"

struct restore {
    const struct guard_env *env; /* NULL: the file is read, and that is all */
    struct file_reader file;
    struct record_reader reader;
    struct record segment; /* the first record: its words */
    char segment_name[256];
    bool frozen;           /* time has stood still since the save */
    uint64_t wall_ms, now_ms; /* when it began; of the save if frozen */
    uint32_t kind;         /* RECORD_ of the object at hand, 0: none */
    struct dict dict;
    uint64_t dict_evicted; /* by its own count; they are in `evicted` */
    struct queue queue;
    struct topic topic;
    char name[64];         /* of the object at hand */
    uint64_t ring_left;    /* of a topic */
    uint32_t deliveries_max; /* of a queue */
    unsigned char key[65536]; /* of the list at hand */
    size_t key_len;
    uint64_t expires;
    bool list_expired;
    uint64_t expired;      /* entries that time has passed over */
    uint64_t evicted;      /* entries that found no room */
    bool done;
};

/* Opens the file and reads its first record. restore_end in any case. */
int restore_begin(struct restore *r, const char *path, bool frozen);

/* The options, and the seed, of a segment that what follows fits into. */
struct shd_segment_options restore_options(const struct restore *r,
                                           uint64_t *hash_seed);

/* Into which all goes from now on. */
void restore_into(struct restore *r, const struct guard_env *env);

/* 1: there is more. 0: all of it has been read, and is there. Or an error. */
int restore_step(struct restore *r);
void restore_end(struct restore *r);

#endif
