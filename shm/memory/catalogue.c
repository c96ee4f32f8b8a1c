/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of an object's slot:
 *
 *   FREE --1--> DYING --2--> LIVE --3--> DYING --4--> FREE
 *
 * 1  One transaction reserves the slot, its address room and its guards. A
 *    half-made object is DYING, that is: nobody finds it, and if its maker
 *    dies, whoever comes next finishes it off as any dying object. The lock
 *    stays taken until
 * 2  the extent is filled and one store makes it findable.
 * 3  One store makes it unfindable: that of step 2 of the object that takes its
 *    place, if one does. The lock is let go, for
 * 4  each of its guards is taken in turn and its `object` set to 0 in a
 *    transaction, which also moves the sequence counter: readers that were
 *    inside see it, those that come later see the 0. Then, under the
 *    catalogue's lock again, its memory is given back and the slot freed.
 *
 * Several processes may be at 4 with the same object. Each looks again under
 * the lock, by generation, before it does something that would hurt the
 * object's successor; so memory is given back before the slot is free, piece
 * by piece, with the lock let go in between.
 *
 * Guards are for ever: a range of them serves one object after the other, and
 * is never initialised a second time once guards_used covers it.
 */
#include "shm/memory/catalogue.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/guard/txn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_WORDS (sizeof(struct catalogue_object) / 8)
/* What is given back under one hold of the lock: some 20 ms of work. */
#define DECOMMIT_BYTES (256ull << 20)

/* ---- the table -------------------------------------------------------- */

static struct catalogue_object *slot_at(const struct segment *s,
                                        uint32_t index)
{
    return segment_at(
        s, s->catalogue_at + (uint64_t)index * sizeof(struct catalogue_object),
        sizeof(struct catalogue_object));
}

static struct guard *own_guard(const struct guard_env *env)
{
    return guard_at(env->segment, GUARD_CATALOGUE);
}

uint32_t catalogue_guards(const struct segment *s)
{
    uint32_t used = atomic_load32(&segment_header(s)->guards_used);

    return used < s->locks_max ? used : s->locks_max;
}

int catalogue_initialize(struct segment *s)
{
    struct guard *g = guard_at(s, GUARD_CATALOGUE);
    int rc = segment_commit(s, segment_offset(s, g), sizeof(*g));

    if (rc == SHD_OK)
        rc = segment_commit(s, s->catalogue_at,
                            (uint64_t)s->objects_max *
                                sizeof(struct catalogue_object));
    if (rc == SHD_OK)
        atomic_store32(&segment_header(s)->guards_used, GUARD_FIRST_OBJECT);
    return rc;
}

int catalogue_name_check(const char *name)
{
    size_t len;

    if (name == NULL || name[0] == '\0')
        return error_set(SHD_NAME, "the object's name is empty");
    len = strlen(name);
    if (len > 63)
        return error_set(SHD_NAME,
                         "the object's name has %zu bytes, at most 63 are "
                         "allowed",
                         len);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];

        if (c == '/' || c < 0x20 || c == 0x7f)
            return error_set(SHD_NAME,
                             "the object's name has byte 0x%02x: no slash "
                             "and no control bytes are allowed",
                             c);
    }
    return SHD_OK;
}

/* The first thing that is wrong with a taken slot's copy, or NULL. */
static const char *object_fault(const struct segment *s,
                                const struct catalogue_object *o)
{
    uint64_t generations = atomic_load64(&segment_header(s)->generations);
    uint32_t used = catalogue_guards(s);

    if (o->state != CATALOGUE_LIVE && o->state != CATALOGUE_DYING)
        return "state is unknown";
    if (o->kind == 0)
        return "kind is 0";
    if (o->generation == 0 || o->generation > generations)
        return "generation was never given";
    if (o->extent_at % SEGMENT_PAGE != 0 ||
        o->extent_bytes % SEGMENT_PAGE != 0 || o->extent_bytes == 0 ||
        o->extent_at < s->extents_at ||
        segment_at(s, o->extent_at, o->extent_bytes) == NULL)
        return "extent lies outside of the segment's room";
    if (o->guards == 0 || o->guards_first < GUARD_FIRST_OBJECT ||
        o->guards_first > used || o->guards > used - o->guards_first)
        return "guards are not in use";
    if (memchr(o->name, '\0', sizeof(o->name)) == NULL || o->name[0] == '\0')
        return "name is not a string";
    return NULL;
}

static int object_check(const struct segment *s, uint32_t index,
                        const struct catalogue_object *o)
{
    const char *fault = object_fault(s, o);

    if (fault == NULL)
        return SHD_OK;
    return error_set(SHD_CORRUPT, "catalogue: slot %u: %s", index, fault);
}

static bool is_named(const struct catalogue_object *slot,
                     const uint64_t name[8])
{
    const uint64_t *words = (const uint64_t *)(const void *)slot->name;

    for (int i = 0; i < 8; i++)
        if (atomic_load64(&words[i]) != name[i])
            return false;
    return true;
}

/* The slot of the live object of that name; objects_max if there is none. */
static uint32_t scan(const struct segment *s, const char *name)
{
    uint64_t words[8] = {0};
    uint32_t i;

    memcpy(words, name, strlen(name));
    for (i = 0; i < s->objects_max; i++) {
        const struct catalogue_object *slot = slot_at(s, i);

        if (atomic_load32(&slot->state) == CATALOGUE_LIVE &&
            is_named(slot, words))
            break;
    }
    return i;
}

int catalogue_find(const struct guard_env *env, const char *name,
                   struct catalogue_object *copy)
{
    const struct segment *s = env->segment;
    struct reading r;
    uint32_t i;
    int rc = catalogue_name_check(name);

    if (rc != SHD_OK)
        return rc;
    reading_begin(&r, env, own_guard(env));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        i = scan(s, name);
        if (i < s->objects_max)
            reading_copy(copy, slot_at(s, i), sizeof(*copy));
    } while (!reading_done(&r));
    if (i == s->objects_max)
        return error_set(SHD_NOTFOUND, "there is no object '%s'", name);
    return object_check(s, i, copy);
}

int catalogue_at(const struct guard_env *env, uint32_t index,
                 struct catalogue_object *copy)
{
    const struct segment *s = env->segment;
    struct reading r;
    int rc;

    if (index >= s->objects_max)
        return error_set(SHD_INVAL, "there are %u object slots, no slot %u",
                         s->objects_max, index);
    reading_begin(&r, env, own_guard(env));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        reading_copy(copy, slot_at(s, index), sizeof(*copy));
    } while (!reading_done(&r));
    if (copy->state != CATALOGUE_LIVE && copy->state <= CATALOGUE_DYING)
        return error_set(SHD_NOTFOUND, "object slot %u is free", index);
    return object_check(s, index, copy);
}

/* ---- finding room, under the lock or in a read section ---------------- */

struct range {
    uint64_t first, end;
};

/* What the taken slots own, in private memory. */
struct owned {
    struct range *extents; /* sorted */
    uint32_t extents_count;
    uint8_t *guards; /* [locks_max], for how many are in use may change when
                        it is overwritten: 1 if it may not be given out */
    uint32_t free_slot; /* objects_max: none */
};

static int by_first(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

static void owned_free(struct owned *o)
{
    free(o->extents);
    free(o->guards);
}

static int owned_collect(const struct segment *s, struct owned *o)
{
    uint32_t used = catalogue_guards(s);
    struct catalogue_object copy;

    o->extents_count = 0;
    o->free_slot = s->objects_max;
    o->extents = calloc(s->objects_max, sizeof(*o->extents));
    o->guards = calloc(s->locks_max, 1);
    if (o->extents == NULL || o->guards == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    for (uint32_t i = 0; i < s->objects_max; i++) {
        reading_copy(&copy, slot_at(s, i), sizeof(copy));
        if (copy.state == CATALOGUE_FREE) {
            if (o->free_slot == s->objects_max)
                o->free_slot = i;
            continue;
        }
        int rc = object_check(s, i, &copy);
        if (rc != SHD_OK)
            return rc;
        o->extents[o->extents_count].first = copy.extent_at;
        o->extents[o->extents_count++].end =
            copy.extent_at + copy.extent_bytes;
        memset(o->guards + copy.guards_first, 1, copy.guards);
    }
    qsort(o->extents, o->extents_count, sizeof(*o->extents), by_first);
    /* One whose log was damaged gives the lock to nobody any more. */
    for (uint32_t i = GUARD_FIRST_OBJECT; i < used; i++)
        if (atomic_load64(&guard_at(s, i)->damaged) != 0)
            o->guards[i] = 1;
    return SHD_OK;
}

/* The first gap from `at` on that is large enough; the segment's size if there
 * is none. */
static uint64_t fit_from(const struct segment *s, const struct owned *o,
                         uint64_t at, uint64_t bytes)
{
    for (uint32_t i = 0; i < o->extents_count; i++) {
        if (o->extents[i].first >= at && o->extents[i].first - at >= bytes)
            break;
        if (o->extents[i].end > at)
            at = o->extents[i].end;
    }
    return at > s->size || s->size - at < bytes ? s->size : at;
}

/* Next fit. A process that was in the middle of a read when an object was
 * destroyed may still set a mark, or commit a page, in its extent: so an
 * address is given out again only when all others have been. */
static int find_extent(const struct segment *s, const struct owned *o,
                       struct catalogue_object *want)
{
    uint64_t next = atomic_load64(&segment_header(s)->extents_next);
    uint64_t at = s->size;

    if (next % SEGMENT_PAGE == 0 && next > s->extents_at)
        at = fit_from(s, o, next, want->extent_bytes);
    if (at == s->size)
        at = fit_from(s, o, s->extents_at, want->extent_bytes);
    if (at == s->size)
        return error_set(SHD_NOMEM,
                         "the segment has no %llu bytes of address room in "
                         "one piece for '%s': create it with a larger "
                         "size_bytes",
                         (unsigned long long)want->extent_bytes, want->name);
    want->extent_at = at;
    return SHD_OK;
}

static uint64_t largest_gap(const struct segment *s, const struct owned *o)
{
    uint64_t at = s->extents_at, largest = 0;

    for (uint32_t i = 0; i < o->extents_count; i++) {
        if (o->extents[i].first > at && o->extents[i].first - at > largest)
            largest = o->extents[i].first - at;
        if (o->extents[i].end > at)
            at = o->extents[i].end;
    }
    return s->size > at && s->size - at > largest ? s->size - at : largest;
}

int catalogue_room(const struct guard_env *env, uint64_t *bytes)
{
    struct owned owned;
    struct reading r;
    int rc;

    reading_begin(&r, env, own_guard(env));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = owned_collect(env->segment, &owned);
        if (rc == SHD_OK)
            *bytes = largest_gap(env->segment, &owned);
        owned_free(&owned);
    } while (!reading_done(&r));
    return rc;
}

/* A run of free guards among those in use, else one that goes on beyond them
 * (the last free ones count). */
static int find_guards(const struct segment *s, const struct owned *o,
                       struct catalogue_object *want)
{
    uint32_t used = catalogue_guards(s);
    uint32_t run = 0, i;

    for (i = GUARD_FIRST_OBJECT; i < used && run < want->guards; i++)
        run = o->guards[i] ? 0 : run + 1;
    want->guards_first = i - run;
    if (want->guards <= s->locks_max - want->guards_first)
        return SHD_OK;
    return error_set(SHD_FULL,
                     "no %u locks in a row are left for '%s': create the "
                     "segment with a larger locks_max (%u)",
                     want->guards, want->name, s->locks_max);
}

/* The guards beyond those in use become locks. Until guards_used covers
 * them nobody else looks at them, so a dead maker's beginnings do not
 * matter. */
static int make_guards(const struct segment *s,
                       const struct catalogue_object *want)
{
    uint32_t end = want->guards_first + want->guards;

    for (uint32_t i = catalogue_guards(s); i < end; i++) {
        struct guard *g = guard_at(s, i);
        int rc = segment_commit(s, segment_offset(s, g), sizeof(*g));

        if (rc != SHD_OK)
            return rc;
        memset(g, 0, sizeof(*g));
    }
    return SHD_OK;
}

/* ---- changes, under the lock ------------------------------------------ */

static uint64_t next_generation(const struct guard_env *env)
{
    struct segment_header *h = segment_header(env->segment);
    uint64_t generation = atomic_load64(&h->generations) + 1;
    struct txn t;

    txn_begin(&t, env->segment, own_guard(env), 1);
    txn_store64(&t, &h->generations, generation);
    txn_commit(&t);
    return generation;
}

static void set_state(const struct guard_env *env,
                      struct catalogue_object *slot, uint32_t state)
{
    struct txn t;

    txn_begin(&t, env->segment, own_guard(env), 1);
    txn_store32(&t, &slot->state, state);
    txn_commit(&t);
}

/* Step 1: the slot as `o` says, and guards_used to cover its guards. */
static void reserve(const struct guard_env *env, struct catalogue_object *slot,
                    const struct catalogue_object *o)
{
    struct segment_header *h = segment_header(env->segment);
    uint32_t end = o->guards_first + o->guards;
    uint64_t words[SLOT_WORDS];
    struct txn t;

    memcpy(words, o, sizeof(words));
    txn_begin(&t, env->segment, own_guard(env), SLOT_WORDS + 2);
    for (size_t i = 0; i < SLOT_WORDS; i++)
        txn_store64(&t, (uint64_t *)(void *)slot + i, words[i]);
    txn_store64(&t, &h->extents_next, o->extent_at + o->extent_bytes);
    if (end > atomic_load32(&h->guards_used))
        txn_store32(&t, &h->guards_used, end);
    txn_commit(&t);
}

static void assign_guards(const struct segment *s,
                          const struct catalogue_object *o, uint64_t object)
{
    for (uint32_t i = 0; i < o->guards; i++)
        atomic_store64(&guard_at(s, o->guards_first + i)->object, object);
}

/* Step 2; and step 3 of `old`, if it is not NULL. */
static void set_live(const struct guard_env *env, struct catalogue_object *slot,
                     struct catalogue_object *old)
{
    struct txn t;

    txn_begin(&t, env->segment, own_guard(env), 2);
    if (old != NULL)
        txn_store32(&t, &old->state, CATALOGUE_DYING);
    txn_store32(&t, &slot->state, CATALOGUE_LIVE);
    txn_commit(&t);
}

/* Step 2, or back to FREE. */
static int fill(const struct guard_env *env, struct catalogue_object *slot,
                const struct catalogue_object *o,
                struct catalogue_object *old,
                int (*initialize)(const struct guard_env *env,
                                  const struct catalogue_object *object,
                                  void *context),
                void *context)
{
    const struct segment *s = env->segment;
    int rc;

    assign_guards(s, o, o->generation);
    /* Late readers of a former owner may have touched a page of it. */
    rc = segment_decommit(s, o->extent_at, o->extent_bytes);
    if (rc == SHD_OK)
        rc = initialize(env, o, context);
    if (rc == SHD_OK) {
        set_live(env, slot, old);
        return SHD_OK;
    }
    /* Nobody has found it: no reader or waiter has to be told. If its memory
     * cannot be given back now, the sweep will try again. */
    assign_guards(s, o, 0);
    if (segment_decommit(s, o->extent_at, o->extent_bytes) == SHD_OK)
        set_state(env, slot, CATALOGUE_FREE);
    return rc;
}

/* *former: the slot of the object whose place it has taken; objects_max if
 * there is none. */
static int create_locked(
    const struct guard_env *env, struct catalogue_object *want,
    uint32_t *former,
    int (*initialize)(const struct guard_env *env,
                      const struct catalogue_object *object, void *context),
    void *context)
{
    const struct segment *s = env->segment;
    struct owned owned;
    uint32_t i = scan(s, want->name);
    struct catalogue_object *old = NULL;
    int rc;

    *former = i;
    if (i < s->objects_max)
        old = slot_at(s, i);
    if (old != NULL && (env->replacing == 0 ||
                        atomic_load64(&old->generation) != env->replacing)) {
        *former = s->objects_max;
        reading_copy(want, old, sizeof(*want));
        rc = object_check(s, i, want);
        return rc != SHD_OK
                   ? rc
                   : error_set(SHD_EXISTS, "object '%s' exists", want->name);
    }
    if (old == NULL && env->replacing != 0)
        return error_set(SHD_GONE, "object '%s' has been destroyed",
                         want->name);
    rc = owned_collect(s, &owned);
    if (rc == SHD_OK && owned.free_slot == s->objects_max)
        rc = error_set(SHD_FULL,
                       "all %u object slots are taken: create the segment "
                       "with a larger objects_max",
                       s->objects_max);
    if (rc == SHD_OK)
        rc = find_extent(s, &owned, want);
    if (rc == SHD_OK)
        rc = find_guards(s, &owned, want);
    if (rc == SHD_OK)
        rc = make_guards(s, want);
    i = owned.free_slot;
    owned_free(&owned);
    if (rc != SHD_OK)
        return rc;
    want->created_ms = clock_wall_ms();
    want->generation = next_generation(env);
    want->state = CATALOGUE_DYING;
    reserve(env, slot_at(s, i), want);
    rc = fill(env, slot_at(s, i), want, old, initialize, context);
    if (rc == SHD_OK)
        want->state = CATALOGUE_LIVE;
    return rc;
}

/* ---- finishing off ---------------------------------------------------- */

/* Takes the object's guards from it, one after the other. */
static int clear_guards(const struct guard_env *env,
                        const struct catalogue_object *o)
{
    for (uint32_t i = 0; i < o->guards; i++) {
        struct guard *g = guard_at(env->segment, o->guards_first + i);
        struct txn t;
        int rc = guard_lock(env, g);

        if (rc == SHD_CORRUPT) {
            /* Nobody gets this lock any more, and no object will. */
            (void)atomic_cas64(&g->object, o->generation, 0);
            continue;
        }
        if (rc != SHD_OK)
            return rc;
        /* Somebody may have finished it already, and given it on. */
        if (atomic_load64(&g->object) == o->generation) {
            txn_begin(&t, env->segment, g, 1);
            txn_store64(&t, &g->object, 0);
            txn_commit(&t);
        }
        guard_unlock(g);
        /* Who waits for something of the object is to find it gone. */
        guard_kick(g);
    }
    return SHD_OK;
}

/* Gives back a piece of the extent from *done on, and with the last piece
 * frees the slot. *done is extent_bytes when nothing is left to do. */
static int free_piece(const struct guard_env *env, uint32_t index,
                      const struct catalogue_object *o, uint64_t *done)
{
    struct catalogue_object *slot = slot_at(env->segment, index);
    uint64_t len = o->extent_bytes - *done;
    int rc = guard_lock(env, own_guard(env));

    if (rc != SHD_OK)
        return rc;
    if (len > DECOMMIT_BYTES)
        len = DECOMMIT_BYTES;
    if (atomic_load32(&slot->state) != CATALOGUE_DYING ||
        atomic_load64(&slot->generation) != o->generation) {
        *done = o->extent_bytes;
    } else {
        rc = segment_decommit(env->segment, o->extent_at + *done, len);
        if (rc == SHD_OK)
            *done += len;
        if (*done == o->extent_bytes)
            set_state(env, slot, CATALOGUE_FREE);
    }
    guard_unlock(own_guard(env));
    return rc;
}

/* Steps 4 for a dying object that no lock protects: a copy without a fault. */
static int finish_off(const struct guard_env *env, uint32_t index,
                      const struct catalogue_object *o)
{
    uint64_t done = 0;
    int rc = clear_guards(env, o);

    while (rc == SHD_OK && done < o->extent_bytes)
        rc = free_piece(env, index, o, &done);
    return rc;
}

int catalogue_sweep(const struct guard_env *env)
{
    const struct segment *s = env->segment;
    struct catalogue_object copy;
    int first = SHD_OK;
    /* A death while a slot was being freed: it is dying again only then. */
    int rc = guard_reap(env, own_guard(env));

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < s->objects_max; i++) {
        const struct catalogue_object *slot = slot_at(s, i);

        if (atomic_load32(&slot->state) != CATALOGUE_DYING)
            continue;
        /* Under the lock nobody is making it: it is dying for certain. */
        rc = guard_lock(env, own_guard(env));
        if (rc != SHD_OK)
            return rc;
        reading_copy(&copy, slot, sizeof(copy));
        guard_unlock(own_guard(env));
        if (copy.state != CATALOGUE_DYING)
            continue;
        rc = object_check(s, i, &copy);
        if (rc == SHD_OK)
            rc = finish_off(env, i, &copy);
        if (first == SHD_OK)
            first = rc;
    }
    return first;
}

/* ---- create, destroy -------------------------------------------------- */

int catalogue_create(const struct guard_env *env,
                     struct catalogue_object *want,
                     int (*initialize)(const struct guard_env *env,
                                       const struct catalogue_object *object,
                                       void *context),
                     void *context)
{
    char name[sizeof(want->name)];
    struct catalogue_object old;
    uint32_t former;
    int rc;

    if (memchr(want->name, '\0', sizeof(want->name)) == NULL)
        return error_set(SHD_NAME, "the object's name is over 63 bytes");
    rc = catalogue_name_check(want->name);
    if (rc != SHD_OK)
        return rc;
    if (want->kind == 0 || want->guards == 0 || want->extent_bytes == 0 ||
        want->extent_bytes % SEGMENT_PAGE != 0)
        return error_set(SHD_INVAL, "an object without kind, guards or room");
    /* The table's names are compared as words: nothing after the NUL. */
    memset(name, 0, sizeof(name));
    memcpy(name, want->name, strlen(want->name));
    memcpy(want->name, name, sizeof(name));
    want->reserved = 0;
    /* What cannot be finished just now only keeps its room. */
    (void)catalogue_sweep(env);
    rc = guard_lock(env, own_guard(env));
    if (rc != SHD_OK)
        return rc;
    rc = create_locked(env, want, &former, initialize, context);
    if (rc == SHD_OK && former < env->segment->objects_max)
        reading_copy(&old, slot_at(env->segment, former), sizeof(old));
    guard_unlock(own_guard(env));
    /* If not now, a sweep does. */
    if (rc == SHD_OK && former < env->segment->objects_max &&
        object_fault(env->segment, &old) == NULL)
        (void)finish_off(env, former, &old);
    return rc;
}

int catalogue_destroy(const struct guard_env *env, const char *name)
{
    const struct segment *s = env->segment;
    struct catalogue_object copy;
    uint32_t i;
    int rc = catalogue_name_check(name);

    if (rc != SHD_OK)
        return rc;
    (void)catalogue_sweep(env);
    rc = guard_lock(env, own_guard(env));
    if (rc != SHD_OK)
        return rc;
    i = scan(s, name);
    if (i == s->objects_max) {
        rc = error_set(SHD_NOTFOUND, "there is no object '%s'", name);
    } else {
        reading_copy(&copy, slot_at(s, i), sizeof(copy));
        rc = object_check(s, i, &copy);
    }
    if (rc == SHD_OK)
        set_state(env, slot_at(s, i), CATALOGUE_DYING);
    guard_unlock(own_guard(env));
    return rc == SHD_OK ? finish_off(env, i, &copy) : rc;
}

/* ---- checking --------------------------------------------------------- */

static int check_failed(char *report, size_t size, uint32_t index,
                        const char *what)
{
    snprintf(report, size, "catalogue: slot %u: %s", index, what);
    return SHD_CORRUPT;
}

/* The whole table as it stood at one moment. */
static int copy_table(const struct guard_env *env,
                      struct catalogue_object *table, uint64_t *seq)
{
    const struct segment *s = env->segment;
    struct reading r;
    int rc;

    reading_begin(&r, env, own_guard(env));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        reading_copy(table, slot_at(s, 0), s->objects_max * sizeof(*table));
        *seq = atomic_load64(&own_guard(env)->seq);
    } while (!reading_done(&r));
    return SHD_OK;
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

static int check_pair(const struct catalogue_object *a,
                      const struct catalogue_object *b, uint32_t index,
                      char *report, size_t size)
{
    if (a->generation == b->generation)
        return check_failed(report, size, index,
                            "another object has its generation");
    if (overlap(a->extent_at, a->extent_bytes, b->extent_at, b->extent_bytes))
        return check_failed(report, size, index,
                            "its extent overlaps another's");
    if (overlap(a->guards_first, a->guards, b->guards_first, b->guards))
        return check_failed(report, size, index,
                            "its guards are another's too");
    if (a->state == CATALOGUE_LIVE && b->state == CATALOGUE_LIVE &&
        strcmp(a->name, b->name) == 0)
        return check_failed(report, size, index,
                            "another object has its name");
    return SHD_OK;
}

/* Does another object that is taken claim it as well? */
static bool is_claimed_twice(const struct segment *s, uint32_t guard,
                             uint32_t index)
{
    for (uint32_t i = 0; i < s->objects_max; i++) {
        const struct catalogue_object *o = slot_at(s, i);
        uint32_t first = atomic_load32(&o->guards_first);

        if (i != index && atomic_load32(&o->state) != CATALOGUE_FREE &&
            guard >= first && guard - first < atomic_load32(&o->guards))
            return true;
    }
    return false;
}

int catalogue_mend_guards(const struct guard_env *env, uint32_t index,
                          uint32_t *mended)
{
    const struct segment *s = env->segment;
    struct catalogue_object o;
    int rc = guard_lock(env, own_guard(env));

    *mended = 0;
    if (rc != SHD_OK)
        return rc;
    reading_copy(&o, slot_at(s, index), sizeof(o));
    if (o.state == CATALOGUE_LIVE && object_fault(s, &o) == NULL) {
        for (uint32_t i = 0; i < o.guards; i++) {
            struct guard *g = guard_at(s, o.guards_first + i);

            if (atomic_load64(&g->object) == o.generation ||
                is_claimed_twice(s, o.guards_first + i, index))
                continue;
            atomic_store64(&g->object, o.generation);
            (*mended)++;
        }
    }
    guard_unlock(own_guard(env));
    return SHD_OK;
}

static int check_guards(const struct segment *s,
                        const struct catalogue_object *o, uint32_t index,
                        char *report, size_t size)
{
    for (uint32_t i = 0; i < o->guards; i++) {
        uint64_t object =
            atomic_load64(&guard_at(s, o->guards_first + i)->object);

        if (object == o->generation ||
            (object == 0 && o->state == CATALOGUE_DYING))
            continue;
        return check_failed(report, size, index,
                            "a guard of it serves another object");
    }
    return SHD_OK;
}

static int check_table(const struct segment *s,
                       const struct catalogue_object *table, char *report,
                       size_t size)
{
    int rc = SHD_OK;

    for (uint32_t i = 0; i < s->objects_max && rc == SHD_OK; i++) {
        const char *fault;

        if (table[i].state == CATALOGUE_FREE)
            continue;
        fault = object_fault(s, &table[i]);
        if (fault != NULL)
            return check_failed(report, size, i, fault);
        for (uint32_t j = 0; j < i && rc == SHD_OK; j++)
            if (table[j].state != CATALOGUE_FREE)
                rc = check_pair(&table[i], &table[j], i, report, size);
        if (rc == SHD_OK)
            rc = check_guards(s, &table[i], i, report, size);
    }
    return rc;
}

int catalogue_check(const struct guard_env *env, char *report, size_t size)
{
    const struct segment *s = env->segment;
    uint32_t used = atomic_load32(&segment_header(s)->guards_used);
    struct catalogue_object *table;
    uint64_t seq;
    int rc;

    if (used < GUARD_FIRST_OBJECT || used > s->locks_max) {
        snprintf(report, size, "catalogue: %u guards cannot be in use", used);
        return SHD_CORRUPT;
    }
    table = calloc(s->objects_max, sizeof(*table));
    if (table == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    /* The guards' words are not under the catalogue's lock: what looks wrong
     * beside a table that has moved since is looked at again. */
    for (int i = 0; i < READ_TRIES; i++) {
        rc = copy_table(env, table, &seq);
        if (rc != SHD_OK)
            break;
        rc = check_table(s, table, report, size);
        if (rc == SHD_OK || read_valid(own_guard(env), seq))
            break;
        rc = error_set(SHD_BUSY, "the catalogue never stood still");
    }
    free(table);
    return rc;
}
