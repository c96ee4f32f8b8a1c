/* SPDX-License-Identifier: BSD-2-Clause */
/* segment/segment.h - one file, mapped once, that says what it is.
 *
 * OWNS   the file, the mapping and the header; hands out address ranges that
 *        the floors above fill. Knows no lock, no dict, no worker.
 * HOLDS  an attacher sees a whole segment or none: it is built under a
 *        temporary name (or O_TMPFILE) and linked into place.
 * LOCK   none: the header is constant after creation, apart from the words
 *        that say so, which the floors above change in transactions.
 * CRASH  death in create leaves at most a temporary file without a name.
 *
 * LAYOUT of the file, in bytes; every part starts on a page:
 *   header   | 4096
 *   guards   | locks_max * 8192         (guard/guard.h)
 *   catalogue| objects_max * 128        (memory/catalogue.h)
 *   workers  | workers_max * 192        (worker/registry.h)
 *   counters | locks_max * 4096         (dict/counters.h)
 *   extents  | up to size_bytes         (memory/catalogue.h hands them out)
 * Only what has been committed (segment_commit) may be touched.
 */
#ifndef SHD_SEGMENT_SEGMENT_H
#define SHD_SEGMENT_SEGMENT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/shdict.h"

#define SEGMENT_PAGE 4096u
#define SEGMENT_UNIT 16u              /* offsets count units of 16 bytes */
#define SEGMENT_SIZE_MAX (1ull << 36) /* 2^32 units: 64 GiB */
#define SEGMENT_MAGIC 0x3154434944485353ull /* "SSHDICT1", little-endian */
#define SEGMENT_LAYOUT_VERSION 4u
#define SEGMENT_BYTE_ORDER 0x01020304u

#define SEGMENT_GUARD_BYTES 8192u
#define SEGMENT_OBJECT_BYTES 128u
#define SEGMENT_WORKER_BYTES 192u
#define SEGMENT_COUNTERS_BYTES 4096u

/* Offset 0 of the file. */
struct segment_header {
    uint64_t magic;      /*   0 */
    uint32_t byte_order; /*   8 SEGMENT_BYTE_ORDER as the creator wrote it */
    uint32_t layout_version; /*  12 */
    uint64_t fingerprint;    /*  16 sizes of all that differs by platform */
    uint64_t size_bytes;     /*  24 of the file and the mapping */
    uint64_t hash_seed;      /*  32 */
    uint64_t pid_namespace;  /*  40 inode of /proc/self/ns/pid */
    uint64_t created_ms;     /*  48 wall clock */
    uint32_t workers_max;    /*  56 */
    uint32_t objects_max;    /*  60 */
    uint32_t locks_max;      /*  64 */
    uint32_t reserved;       /*  68 */
    uint64_t guards_at;      /*  72 byte offsets of the parts */
    uint64_t catalogue_at;   /*  80 */
    uint64_t workers_at;     /*  88 */
    uint64_t extents_at;     /*  96 */
    uint8_t boot_id[40];     /* 104 text of /proc/sys/kernel/random/boot_id */
    uint8_t reserved2[112];  /* 144 */
    /* Changed in transactions on the registry's guard: */
    uint64_t incarnations; /* 256 last one given, from 0 */
    uint64_t deaths;       /* 264 workers reaped */
    uint64_t supervisor;   /* 272 incarnation of the last one; whether it is
                                  there, its file lock tells */
    uint32_t generation;   /* 280 of workers, last one given, from 0 */
    uint32_t pad5;         /* 284 */
    uint8_t pad1[32];      /* 288 */
    /* Changed in transactions on the catalogue's guard: */
    uint64_t generations;  /* 320 last object generation given, from 0 */
    uint32_t guards_used;  /* 328 guards ever handed out (all below are
                                  committed mutexes for ever) */
    uint32_t pad2;         /* 332 */
    uint64_t extents_next; /* 336 where the next extent is looked for */
    uint8_t pad3[40];      /* 344 */
    uint8_t pad4[3712];    /* 384 */
};
static_assert(offsetof(struct segment_header, guards_at) == 72, "layout");
static_assert(offsetof(struct segment_header, boot_id) == 104, "layout");
static_assert(offsetof(struct segment_header, incarnations) == 256, "layout");
static_assert(offsetof(struct segment_header, generations) == 320, "layout");
static_assert(sizeof(struct segment_header) == SEGMENT_PAGE, "layout");

/* This process's view of a segment: private memory. */
struct segment {
    unsigned char *base;
    uint64_t size; /* as checked at attach; the header's word is not
                      trusted afterwards */
    int fd;        /* an open file description of this process alone;
                      replaced in the child by segment_after_fork() */
    bool writable;
    bool huge;     /* SHD_HUGE_PAGES */
    bool prefault; /* SHD_PREFAULT */
    unsigned char *room; /* SHD_GUARD_PAGES: what the mapping lies in, */
    uint64_t room_bytes; /* and how long that is; NULL, 0: in nothing */
    uint32_t workers_max, objects_max, locks_max; /* copies, checked */
    uint64_t guards_at, catalogue_at, workers_at, counters_at, extents_at;
    uint64_t hash_seed;
    uint32_t ringer; /* worker/doorbell.h's socket + 1; 0: none yet */
    dev_t device; /* identity, for attaching twice */
    ino_t inode;
    char path[256];
};

static inline struct segment_header *segment_header(const struct segment *s)
{
    return (struct segment_header *)(void *)s->base;
}

/* len bytes at byte offset `at`, or NULL if they are not wholly inside. */
static inline void *segment_at(const struct segment *s, uint64_t at,
                               uint64_t len)
{
    if (at > s->size || len > s->size - at)
        return NULL;
    return s->base + at;
}

/* The byte offset of an address inside the mapping. */
static inline uint64_t segment_offset(const struct segment *s, const void *p)
{
    return (uint64_t)((const unsigned char *)p - s->base);
}

/* As the public functions of shdict.h. `fingerprint` is what the floors above
 * make of the sizes of their shared structs; the segment adds its own (the
 * mutex, the cache line, the header). `initialize` fills guards and tables
 * before the segment gets its name. NULL name: anonymous (memfd). */
int segment_create(const char *name, const struct shd_segment_options *o,
                   uint64_t fingerprint, int (*initialize)(struct segment *s),
                   struct segment *out);
/* The same in two steps: a segment that has no name yet, with that hash seed,
 * and then its name; with `replace` in the place of what has it, whose users go
 * on with that. What was not published is abandoned: nothing is left. */
struct segment_birth {
    bool named;
    int fd; /* the segment's */
    char path[256];
    char temp[288]; /* "": it has no temporary name */
};
int segment_create_unnamed(const char *name,
                           const struct shd_segment_options *o,
                           uint64_t hash_seed, uint64_t fingerprint,
                           int (*initialize)(struct segment *s),
                           struct segment_birth *birth, struct segment *out);
int segment_publish(struct segment_birth *birth, bool replace);
void segment_abandon(struct segment_birth *birth);

int segment_attach(const char *name, const struct shd_segment_options *o,
                   uint64_t fingerprint, struct segment *out);
int segment_destroy(const char *name);

/* Unmaps and closes. No lock of the segment may be held by this process. */
void segment_close(struct segment *s);

/* In the child after fork: gives fd a file description of its own, so that
 * file locks of the parent are not held by its children. Async-signal-safe.
 * On failure fd is -1 and the segment can only be read. */
void segment_after_fork(struct segment *s);

/* SHD_OK, SHD_READONLY, or SHD_SYS when fd was lost in fork. */
int segment_can_change(const struct segment *s);

/* Takes memory for the range from the system, so that touching it can not
 * fault: SHD_NOMEM when there is none. Idempotent, keeps what is there. */
int segment_commit(const struct segment *s, uint64_t at, uint64_t len);

/* With SHD_PREFAULT: maps the range, which is committed. */
void segment_prefault(const struct segment *s, uint64_t at, uint64_t len);

/* Gives the range's memory back; it reads as zeroes once committed again.
 * Widths are cut to whole pages inside the range. */
int segment_decommit(const struct segment *s, uint64_t at, uint64_t len);

/* Memory taken from the system so far, bytes. */
int segment_committed(const struct segment *s, uint64_t *bytes);

/* How much of the range lies in memory: it has been touched since it was taken
 * from the system, by anybody. Moves the descriptor's offset, which nobody
 * uses. */
int segment_in_memory(const struct segment *s, uint64_t at, uint64_t len,
                      uint64_t *bytes);

/* Liveness, by an open-file-description lock on byte `index` of an area that
 * is never read or written. lock: 0, or SHD_BUSY if another description has
 * it. is_locked: 1 if any *other* description holds it, 0 if none, < 0. */
int segment_liveness_lock(const struct segment *s, uint32_t index);
int segment_liveness_unlock(const struct segment *s, uint32_t index);
int segment_liveness_is_locked(const struct segment *s, uint32_t index);

/* The claim to supervise the segment: a file lock on a description of its own,
 * *fd, which whoever inherits it keeps. SHD_BUSY: somebody has it. */
int segment_supervision_lock(const struct segment *s, int *fd);

/* Lets those know who watch the file (inotify, IN_ACCESS) that something has
 * changed. Best effort: nobody depends on it. */
void segment_announce(const struct segment *s);

/* The header's invariants; report names the first that fails. */
int segment_check(const struct segment *s, char *report, size_t size);

#endif
