/* SPDX-License-Identifier: BSD-2-Clause */
/* memory/catalogue.h - the names in a segment, and what each one owns.
 *
 * It stands on this floor, not in segment/, because it stores through
 * transactions.
 *
 * OWNS   the table of objects, the address room behind extents_at, and which
 *        guards serve which object.
 * HOLDS  no two live objects share a name, a byte or a guard; a guard's
 *        `object` is the generation of the object it serves, or no object's.
 * LOCK   changes: the catalogue's guard, which is taken here, and never
 *        together with another. Look-ups take none.
 * CRASH  an object is there wholly or not at all; one that was being
 *        destroyed is finished off by the next create, destroy or sweep.
 */
#ifndef SHD_MEMORY_CATALOGUE_H
#define SHD_MEMORY_CATALOGUE_H

#include "shm/guard/guard.h"

enum { /* struct catalogue_object.state */
       CATALOGUE_FREE = 0,
       CATALOGUE_LIVE = 1,
       CATALOGUE_DYING = 2 /* nobody finds it; its guards are being cleared */
};

struct catalogue_object {
    uint32_t state;        /*  0 */
    uint32_t kind;         /*  4 SHD_OBJECT_ */
    uint64_t generation;   /*  8 */
    uint64_t extent_at;    /* 16 byte offset, a multiple of 4096 */
    uint64_t extent_bytes; /* 24 a multiple of 4096 */
    uint64_t size_bytes;   /* 32 what the user asked for */
    uint64_t created_ms;   /* 40 wall clock */
    uint32_t guards_first; /* 48 */
    uint32_t guards;       /* 52 */
    uint64_t reserved;     /* 56 */
    char name[64];         /* 64 NUL-terminated */
};
static_assert(sizeof(struct catalogue_object) == SEGMENT_OBJECT_BYTES,
              "layout");

/* Guard 1 and the table of a segment that is being created. */
int catalogue_initialize(struct segment *s);

/* How many guards are locks by now: 0 .. that - 1 may be looked at. */
uint32_t catalogue_guards(const struct segment *s);

/* Is this an object's name? SHD_OK or SHD_NAME with the reason. */
int catalogue_name_check(const char *name);

/* A consistent, checked copy of the live object of that name, or by slot.
 * SHD_NOTFOUND, SHD_CORRUPT. catalogue_at: SHD_INVAL past the end. */
int catalogue_find(const struct guard_env *env, const char *name,
                   struct catalogue_object *copy);
int catalogue_at(const struct guard_env *env, uint32_t index,
                 struct catalogue_object *copy);

/* The largest piece of address room that no object has just now, bytes. */
int catalogue_room(const struct guard_env *env, uint64_t *bytes);

/* Makes an object: `want` gives name, kind, size_bytes, extent_bytes and
 * guards; *want then tells the rest. `initialize` fills the extent, which
 * reads as zeroes and is not committed yet, before anybody can find it.
 * SHD_EXISTS (and *want is what exists), SHD_NOMEM, SHD_FULL.
 *   With env->replacing the live object of that name and generation goes at
 * the very store that makes the new one live: there is always one of the name,
 * the old one if this one's maker dies. Both have room until then. SHD_GONE:
 * there is no object of that name any more. */
int catalogue_create(const struct guard_env *env,
                     struct catalogue_object *want,
                     int (*initialize)(const struct guard_env *env,
                                       const struct catalogue_object *object,
                                       void *context),
                     void *context);

/* SHD_NOTFOUND. Users of the object's guards find guard.object changed. */
int catalogue_destroy(const struct guard_env *env, const char *name);

/* Finishes what a dead process was destroying. */
int catalogue_sweep(const struct guard_env *env);

/* For a repair: the guards of a live object say again whose they are; *mended,
 * how many did not. */
int catalogue_mend_guards(const struct guard_env *env, uint32_t index,
                          uint32_t *mended);

int catalogue_check(const struct guard_env *env, char *report, size_t size);

#endif
