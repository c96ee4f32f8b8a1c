/* SPDX-License-Identifier: BSD-2-Clause */
/* api/handle.h - what the opaque handles of shdict.h point to.
 *
 * OWNS   the process's handles: private memory, interned (attaching or opening
 *        twice gives the same handle, counted), and never handed back to the
 *        allocator while somebody might still use them: a closed handle
 *        answers SHD_CLOSED, and is revived by the next open of the same
 *        object.
 * LOCK   one process-private mutex over the tables; the hot path takes none.
 * CRASH  nothing shared lives here.
 *
 * Attaching the same file revives its closed handle. A closed one serves
 * another file only after HANDLE_CLOSED_MAX others have been closed since, so
 * a process that attaches to ever new segments does not grow for ever, and
 * a use after close is found out unless it comes very late.
 *
 * After fork the child's handler drops the parent's incarnation and gets a
 * file description of its own; handle_writer() then registers it, and reaps
 * the dead: in a prefork server without a supervisor of ours, a worker that
 * starts in the place of a killed one is the one who comes by.
 */
#ifndef SHD_API_HANDLE_H
#define SHD_API_HANDLE_H

#include "shm/dict/dict.h"
#include "shm/guard/guard.h"
#include "shm/segment/protect.h"
#include "shm/segment/segment.h"
#include "shm/worker/registry.h"

#define HANDLE_CLOSED_MAX 1024u

struct shd_dict {
    uint32_t open; /* handles given out; 0: closed */
    shd_segment *owner;
    struct shd_dict *next; /* of the owner's dicts */
    struct dict dict;
};

struct shd_segment {
    uint32_t open;   /* attaches given out; 0: closed */
    int bell_fd;     /* for shd_worker_fd, of bell_of; -1 */
    uint64_t bell_of; /* the incarnation it is published for */
    int shared_fd;   /* for shd_segment_fd: a description without our file
                        locks, so that who inherits it keeps none alive; -1 */
    uint64_t closed; /* the how-manieth close of the process it was */
    bool forked;     /* a child's, that has not registered since the fork */
    struct shd_segment *next;
    struct segment segment;
    struct protect_mapping protect; /* of the segment, as long as it is open */
    struct guard_env env;
    struct registry_self self;
    struct shd_dict *dicts;
    struct shd_watch *watches;
    struct handle_object *objects; /* api/object.h */
};

/* Before any read: SHD_OK or SHD_CLOSED (with the sentence). NULL is
 * SHD_INVAL. */
int handle_reader(shd_segment *segment);

/* Before any change: also SHD_READONLY; registers the process as a worker if
 * it is not one yet (SHD_FULL, SHD_BUSY ...). */
int handle_writer(shd_segment *segment);

/* Attaches or creates, and gives the process's handle of that file. */
int handle_attach(const char *name, const struct shd_segment_options *o,
                  shd_segment **out);
/* The open read-write handle that was attached or created under this name in
 * this process or, before the fork, in its parent. SHD_NOTFOUND. */
int handle_held(const char *name, const struct shd_segment_options *o,
                shd_segment **out);
int handle_create(const char *name, const struct shd_segment_options *o,
                  shd_segment **out);

/* The same, with that hash seed; it has no name before segment_publish. */
int handle_create_unnamed(const char *name,
                          const struct shd_segment_options *o,
                          uint64_t hash_seed, struct segment_birth *birth,
                          shd_segment **out);

/* Counts one attach less; the last closes. SHD_INVAL, SHD_CLOSED. */
int handle_close(shd_segment *segment);

/* Ends the registration, if there is one. The caller has the tables. */
int handle_leave(shd_segment *segment);

/* In the child: it has no part in its parent's watches. Async-signal-safe. */
void handle_watches_after_fork(shd_segment *segment);

/* The process-private mutex, for api/ only. */
void handle_tables_lock(void);
void handle_tables_unlock(void);

#endif
