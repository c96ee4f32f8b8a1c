/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/object.h - what queues, topics, locks ... have in common.
 *
 * OWNS   the first OBJECT_HEADER_BYTES of the extent of an object of any kind
 *        but a dict, and the bits of armed bells behind what the kind has:
 *          header   128 bytes
 *          kind's   as its spec says; from object_own() on
 *          bells    a bit a worker slot, for each of its places
 * HOLDS  the header's first half is constant once the catalogue shows it; a
 *        worker whose bit is set at a place is rung when something is posted
 *        there.
 * LOCK   guard i of the object is guards_first + i of the catalogue's. Guard 0
 *        is that of the bells, and has the object's places to wait at.
 * CRASH  bells are hints, stored without a log: any prefix of their stores
 *        leaves a worker that is rung in vain. A dead worker's bit is spent on
 *        its slot's next owner, once.
 *
 * A kind is a row in ipc/kinds.c: check and reap.
 */
#ifndef SHD_IPC_OBJECT_H
#define SHD_IPC_OBJECT_H

#include "shm/guard/reading.h"
#include "shm/ipc/wait.h"
#include "shm/memory/catalogue.h"

#define OBJECT_HEADER_BYTES 128u
#define OBJECT_BELL_WORDS_MAX (65536u / 64)

struct object_header {
    uint64_t generation;       /*  0 the catalogue's, for checking */
    uint32_t kind;             /*  8 */
    uint32_t places;           /* 12 */
    uint64_t own_bytes;        /* 16 of the kind's part */
    uint64_t bells_at;         /* 24 byte offset in the segment */
    uint64_t reserved[4];      /* 32 */
    /* With guard 0: */
    uint32_t belled[GUARD_WAITS]; /* 64 0: no bit of the place is set */
    uint8_t pad[48];              /* 80 */
};
static_assert(sizeof(struct object_header) == OBJECT_HEADER_BYTES, "layout");
static_assert(offsetof(struct object_header, belled) == 64, "layout");

/* This process's view: private memory, constant. A kind's own view begins with
 * it. */
struct object {
    const struct guard_env *env;
    struct object_header *header;
    struct guard *guard; /* [guards] */
    uint64_t *bells;     /* [places][bell_words] */
    uint64_t generation;
    uint64_t own_at, own_bytes; /* byte offset of the kind's part */
    uint32_t kind;
    uint32_t guards_first, guards;
    uint32_t places;
    uint32_t bell_words;
    char name[64];
};

/* How an object is made. */
struct object_spec {
    uint32_t kind;
    uint32_t guards;     /* at least 1 */
    uint32_t places;     /* to wait at, up to GUARD_WAITS */
    uint64_t size_bytes; /* what `shdict ls` tells */
    uint64_t own_bytes;  /* of the kind's part: address room */
    uint64_t own_commit; /* as much of it has memory, and is zero, when
                            `initialize` fills it */
    int (*initialize)(const struct object *o, void *context);
    void *context;
};

/* The object of that name; made as spec says if there is none and spec is not
 * NULL. *created tells (NULL: never mind). With env->replacing the one of that
 * generation is replaced by a new one, and who waits at it is woken.
 * SHD_NOTFOUND, SHD_MISMATCH: it is of another kind; as catalogue_create. */
int object_open(const struct guard_env *env, const char *name, uint32_t kind,
                const struct object_spec *spec, struct object *out,
                bool *created);

/* A view of an object of the catalogue. SHD_CORRUPT. */
int object_view(const struct guard_env *env, const struct catalogue_object *c,
                struct object *out);

/* len bytes of the kind's part from `at` on, or NULL if they are not in it. */
static inline void *object_own(const struct object *o, uint64_t at,
                               uint64_t len)
{
    if (at > o->own_bytes || len > o->own_bytes - at)
        return NULL;
    return segment_at(o->env->segment, o->own_at + at, len);
}

static inline struct guard *object_guard(const struct object *o,
                                         uint32_t index)
{
    return &o->guard[index];
}

static inline struct guard_wait *object_place(const struct object *o,
                                              uint32_t place)
{
    return &object_guard(o, 0)->wait[place];
}

/* Has it been destroyed? Under the guard or in its read section. Then nothing
 * of its extent may be touched: the memory has been given back. */
static inline bool object_gone(const struct object *o, uint32_t guard)
{
    return atomic_load64(&object_guard(o, guard)->object) != o->generation;
}

int object_gone_error(const struct object *o);

/* SHD_CORRUPT, and says what of the object is damaged. */
int object_damaged(const struct object *o, const char *what);

/* Takes a guard of the object. SHD_GONE: it was destroyed. */
int object_lock(const struct object *o, uint32_t guard);

/* The same by guard_lock_only. */
static inline int object_lock_only(const struct object *o, uint32_t guard)
{
    struct guard *g = object_guard(o, guard);
    int rc = guard_lock_only(o->env, g);

    if (rc == SHD_OK && object_gone(o, guard)) {
        guard_unlock(g);
        rc = object_gone_error(o);
    }
    return rc;
}

void object_unlock(const struct object *o, uint32_t guard);

/* Destroys it; who waits at its places, or has armed its bell, is told. */
int object_destroy(const struct guard_env *env, const char *name);

/* ---- waking ------------------------------------------------------------ */

/* Whom to wake, collected under guard 0 and told without it. */
struct object_notice {
    uint32_t posted[GUARD_WAITS]; /* wait_post's; 0: nobody */
    uint32_t count[GUARD_WAITS];
    uint32_t bells;   /* words of `ring` in use */
    uint64_t ring[OBJECT_BELL_WORDS_MAX];
};

static inline void object_notice_begin(struct object_notice *n)
{
    for (uint32_t i = 0; i < GUARD_WAITS; i++)
        n->posted[i] = 0;
    n->bells = 0;
}

/* With guard 0: would object_post find anybody? */
static inline bool object_awaited(const struct object *o, uint32_t place)
{
    return atomic_load32(&object_place(o, place)->armed) != 0 ||
           atomic_load32(&o->header->belled[place]) != 0;
}

/* With guard 0, after the commit: `count` who wait at the place are to wake,
 * and as many bells ring, whose bits are taken. */
void object_post(const struct object *o, uint32_t place, uint32_t count,
                 struct object_notice *n);

/* Without any guard. */
void object_deliver(const struct object *o, const struct object_notice *n);

/* With guard 0: this worker's bell rings at the next post at the place. */
int object_arm_bell(const struct object *o, uint32_t place);

/* ---- kinds ------------------------------------------------------------- */

struct object_kind {
    uint32_t kind; /* 0 ends the table */
    /* In a read section or with the guards: every invariant; must hold out
     * torn data. report names the first that fails. NULL: only the header. */
    int (*check)(const struct object *o, char *report, size_t size);
    /* Gives back what the dead hold, in small transactions, wakes whom that
     * concerns. Takes the guards itself. May be cut off and run again. NULL:
     * nobody holds anything. */
    int (*reap)(const struct object *o);
};

/* "dict", "queue" ...; "unknown". */
const char *object_kind_name(uint32_t kind);

/* The rows of ipc/kinds.c. NULL: no such kind. */
const struct object_kind *object_kind(uint32_t kind);

/* The invariants of an object of the catalogue that is no dict. */
int object_check(const struct guard_env *env, const struct catalogue_object *c,
                 char *report, size_t size);

/* For each object of these kinds: reap, and everybody who waits is woken,
 * every armed bell rung. */
int object_reap_all(const struct guard_env *env);

/* Goes into the segment's fingerprint. */
uint64_t object_fingerprint(void);

#endif
