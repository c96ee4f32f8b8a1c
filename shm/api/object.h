/* SPDX-License-Identifier: BSD-2-Clause */
/* api/object.h - handles of objects that are no dicts.
 *
 * OWNS   the process's handles of queues, topics, locks ...: interned and kept
 *        as those of dicts are (api/handle.h). Each opaque type of shdict.h
 *        but shd_dict is this struct; `view` is what its kind looks through.
 * LOCK   the process-private mutex over the tables; the hot path takes none.
 */
#ifndef SHD_API_OBJECT_H
#define SHD_API_OBJECT_H

#include "shm/api/handle.h"
#include "shm/ipc/object.h"

#define HANDLE_VIEW_BYTES 512u

struct handle_object {
    uint32_t open; /* handles given out; 0: closed */
    shd_segment *owner;
    struct handle_object *next; /* of the owner's objects */
    union {
        struct object object; /* begins each kind's view */
        uint64_t view[HANDLE_VIEW_BYTES / 8];
    };
};

/* How shd_X_open works: `open` fills a view of at most HANDLE_VIEW_BYTES that
 * begins with a struct object, and is called with create false first (SHD_
 * NOTFOUND), and again with true if the options say that it may be made. */
struct handle_opening {
    int (*open)(const struct guard_env *env, const char *name,
                const void *options, bool create, void *view);
    const void *options;
    bool may_create;
};
int handle_object_open(shd_segment *segment, const char *name,
                       const struct handle_opening *how,
                       struct handle_object **out);

/* Copies a caller's options struct, which begins with its size: what is
 * missing at its end is 0. NULL: all of it. */
int handle_options(const void *given, void *copy, size_t size,
                   const char *what);

/* Before anything is read, or changed: as handle_reader, handle_writer. The
 * type is checked as well, so that a queue's handle is no topic's. */
static inline int handle_object_reader(struct handle_object *h, uint32_t kind);
static inline int handle_object_writer(struct handle_object *h, uint32_t kind);

int handle_object_close(struct handle_object *h, uint32_t kind);

/* Destroys the object of that name if it is of that kind; 0: of any. */
int handle_object_destroy(shd_segment *segment, const char *name,
                          uint32_t kind);

/* With the tables: all are closed. */
void handle_objects_close(shd_segment *segment);

/* ---- how -------------------------------------------------------------- */

/* With its sentence, where something is wrong or is to be done first. */
int handle_object_reader_by(struct handle_object *h, uint32_t kind);
int handle_object_writer_by(struct handle_object *h, uint32_t kind);

static inline bool handle_object_is_good(const struct handle_object *h,
                                         uint32_t kind)
{
    return h != NULL && h->object.kind == kind &&
           atomic_load32(&h->open) != 0 &&
           atomic_load32_acquire(&h->owner->open) != 0;
}

static inline int handle_object_reader(struct handle_object *h, uint32_t kind)
{
    return handle_object_is_good(h, kind) ? SHD_OK
                                          : handle_object_reader_by(h, kind);
}

static inline int handle_object_writer(struct handle_object *h, uint32_t kind)
{
    return handle_object_is_good(h, kind) && h->owner->segment.writable &&
                   atomic_load64(&h->owner->env.incarnation) != 0
               ? SHD_OK
               : handle_object_writer_by(h, kind);
}

#endif
