/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An extent: the common header, the kind's own part, the bits of bells. The
 * header and the bits have memory from the start; of its own part a kind
 * commits what it needs when it needs it.
 */
#include "shm/ipc/object.h"
#include "shm/base/error.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"
#include "shm/worker/doorbell.h"
#include "shm/worker/registry.h"

#include <stdio.h>
#include <string.h>

/* Each but the last needs an object destroyed between being found and looked
 * into. */
#define OPEN_ROUNDS 16

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static uint32_t bell_words(const struct segment *s)
{
    return (s->workers_max + 63) / 64;
}

static uint64_t bells_bytes(const struct segment *s, uint32_t places)
{
    return (uint64_t)places * bell_words(s) * 8;
}

/* ---- making and finding ------------------------------------------------ */

static int initialize(const struct guard_env *env,
                      const struct catalogue_object *c, void *context)
{
    const struct object_spec *spec = context;
    const struct segment *s = env->segment;
    uint64_t bells_at =
        c->extent_at + OBJECT_HEADER_BYTES + round_up(spec->own_bytes, 64);
    struct object_header *h;
    struct object o;
    int rc = segment_commit(s, c->extent_at,
                            OBJECT_HEADER_BYTES + spec->own_commit);

    if (rc == SHD_OK)
        rc = segment_commit(s, bells_at, bells_bytes(s, spec->places));
    if (rc != SHD_OK)
        return rc;
    h = segment_at(s, c->extent_at, sizeof(*h));
    if (h == NULL)
        return error_set(SHD_CORRUPT, "an extent lies outside the segment");
    h->generation = c->generation;
    h->kind = spec->kind;
    h->places = spec->places;
    h->own_bytes = spec->own_bytes;
    h->bells_at = bells_at;
    rc = object_view(env, c, &o);
    if (rc == SHD_OK && spec->initialize != NULL)
        rc = spec->initialize(&o, spec->context);
    return rc;
}

int object_view(const struct guard_env *env, const struct catalogue_object *c,
                struct object *out)
{
    const struct segment *s = env->segment;
    struct object_header *h = segment_at(s, c->extent_at, sizeof(*h));
    uint64_t room = c->extent_bytes - OBJECT_HEADER_BYTES;
    /* Once: what is believed is what has been checked. */
    uint64_t own = h == NULL ? 0 : atomic_load64(&h->own_bytes);
    uint64_t bells_at = h == NULL ? 0 : atomic_load64(&h->bells_at);
    uint32_t places = h == NULL ? 0 : atomic_load32(&h->places);

    if (h == NULL || h->generation != c->generation || h->kind != c->kind ||
        places > GUARD_WAITS || own > room ||
        bells_at != c->extent_at + OBJECT_HEADER_BYTES + round_up(own, 64) ||
        bells_bytes(s, places) > room - round_up(own, 64) ||
        guard_at(s, c->guards_first + c->guards - 1) == NULL)
        return error_set(SHD_CORRUPT, "object '%s': its header is damaged",
                         c->name);
    memset(out, 0, sizeof(*out));
    out->env = env;
    out->header = h;
    out->places = places;
    out->bell_words = bell_words(s);
    out->bells = segment_at(s, bells_at, bells_bytes(s, places));
    out->generation = c->generation;
    out->own_at = c->extent_at + OBJECT_HEADER_BYTES;
    out->own_bytes = own;
    out->kind = c->kind;
    out->guards_first = c->guards_first;
    out->guard = guard_at(s, c->guards_first);
    out->guards = c->guards;
    memcpy(out->name, c->name, sizeof(out->name));
    if (out->bells == NULL || out->own_bytes > room)
        return error_set(SHD_CORRUPT, "object '%s': its parts lie outside it",
                         c->name);
    return SHD_OK;
}

static int create(const struct guard_env *env, const char *name,
                  const struct object_spec *spec, struct catalogue_object *c)
{
    union {
        const struct object_spec *spec;
        void *context;
    } u = {.spec = spec};

    assert(spec->places <= GUARD_WAITS && spec->guards > 0);
    memset(c, 0, sizeof(*c));
    snprintf(c->name, sizeof(c->name), "%s", name);
    c->kind = spec->kind;
    c->size_bytes = spec->size_bytes;
    c->guards = spec->guards;
    c->extent_bytes =
        round_up(OBJECT_HEADER_BYTES + round_up(spec->own_bytes, 64) +
                     bells_bytes(env->segment, spec->places),
                 SEGMENT_PAGE);
    return catalogue_create(env, c, initialize, u.context);
}

static bool has_moved_on(const struct guard_env *env, const char *name,
                         uint64_t generation)
{
    struct catalogue_object now;
    int rc = catalogue_find(env, name, &now);

    return rc == SHD_NOTFOUND ||
           (rc == SHD_OK && now.generation != generation);
}

/* All that wait at it, before it is gone: the bits are gone with it, and who
 * arms in between finds it gone at its next look. */
static bool post_all(const struct guard_env *env,
                     const struct catalogue_object *c, struct object *o,
                     struct object_notice *n)
{
    object_notice_begin(n);
    if (c->kind == SHD_OBJECT_DICT || object_view(env, c, o) != SHD_OK ||
        object_lock(o, 0) != SHD_OK)
        return false;
    for (uint32_t i = 0; i < o->places; i++)
        object_post(o, i, WAIT_ALL, n);
    object_unlock(o, 0);
    return true;
}

/* The one that *c says by a new one, which *c says then. */
static int replace(const struct guard_env *env, const char *name,
                   const struct object_spec *spec, struct catalogue_object *c)
{
    struct object_notice n;
    struct object old;
    bool told = post_all(env, c, &old, &n);
    int rc = create(env, name, spec, c);

    if (told)
        object_deliver(&old, &n);
    return rc;
}

static int open_once(const struct guard_env *env, const char *name,
                     uint32_t kind, const struct object_spec *spec,
                     struct object *out, bool *created, bool *again)
{
    struct catalogue_object c;
    int rc = catalogue_find(env, name, &c);

    *again = *created = false;
    if (spec != NULL &&
        (rc == SHD_NOTFOUND ||
         (rc == SHD_OK && c.generation == env->replacing))) {
        rc = rc == SHD_OK ? replace(env, name, spec, &c)
                          : create(env, name, spec, &c);
        *created = rc == SHD_OK;
        if (rc == SHD_EXISTS)
            rc = SHD_OK;
    }
    if (rc != SHD_OK)
        return rc;
    if (c.kind != kind)
        rc = error_set(SHD_MISMATCH, "'%s' exists and is a %s, no %s", name,
                       object_kind_name(c.kind), object_kind_name(kind));
    else
        rc = object_view(env, &c, out);
    *again = rc != SHD_OK && has_moved_on(env, name, c.generation);
    return rc;
}

int object_open(const struct guard_env *env, const char *name, uint32_t kind,
                const struct object_spec *spec, struct object *out,
                bool *created)
{
    bool again = true, made = false;
    int rc = catalogue_name_check(name);

    if (rc != SHD_OK)
        return rc;
    for (int i = 0; i < OPEN_ROUNDS && again; i++)
        rc = open_once(env, name, kind, spec, out, &made, &again);
    if (created != NULL)
        *created = made;
    return rc;
}

int object_gone_error(const struct object *o)
{
    return error_set(SHD_GONE, "%s '%s' has been destroyed",
                     object_kind_name(o->kind), o->name);
}

int object_damaged(const struct object *o, const char *what)
{
    return error_set(SHD_CORRUPT, "%s '%s': %s", object_kind_name(o->kind), o->name,
                     what);
}

int object_lock(const struct object *o, uint32_t guard)
{
    struct guard *g = object_guard(o, guard);
    int rc = guard_lock(o->env, g);

    if (rc == SHD_OK && object_gone(o, guard)) {
        guard_unlock(g);
        rc = object_gone_error(o);
    }
    return rc;
}

void object_unlock(const struct object *o, uint32_t guard)
{
    guard_unlock(object_guard(o, guard));
}

/* ---- waking ------------------------------------------------------------ */

static uint64_t *bells_of(const struct object *o, uint32_t place)
{
    return o->bells + (uint64_t)place * o->bell_words;
}

/* Takes up to count bits of the place over into the notice. */
static void take_bells(const struct object *o, uint32_t place, uint32_t count,
                       struct object_notice *n)
{
    uint64_t *bits = bells_of(o, place);
    bool left = false;

    if (n->bells == 0)
        memset(n->ring, 0, o->bell_words * 8ul);
    n->bells = o->bell_words;
    for (uint32_t w = 0; w < o->bell_words; w++) {
        uint64_t set = atomic_load64(&bits[w]), kept = set;

        while (kept != 0 && count > 0) {
            n->ring[w] |= kept & -kept;
            kept &= kept - 1;
            count--;
        }
        if (kept != set)
            atomic_store64(&bits[w], kept);
        left = left || kept != 0;
    }
    if (!left)
        atomic_store32(&o->header->belled[place], 0);
}

void object_post(const struct object *o, uint32_t place, uint32_t count,
                 struct object_notice *n)
{
    uint32_t posted;

    assert(place < o->places);
    posted = wait_post(object_place(o, place));
    if (posted != 0) {
        n->count[place] = n->posted[place] == 0 ||
                                  count > UINT32_MAX - n->count[place]
                              ? count
                              : n->count[place] + count;
        n->posted[place] = posted;
    }
    if (atomic_load32(&o->header->belled[place]) != 0)
        take_bells(o, place, count, n);
}

void object_deliver(const struct object *o, const struct object_notice *n)
{
    for (uint32_t i = 0; i < GUARD_WAITS; i++)
        if (n->posted[i] != 0)
            wait_wake(object_place(o, i), n->posted[i], n->count[i]);
    for (uint32_t w = 0; w < n->bells; w++)
        for (uint64_t bits = n->ring[w]; bits != 0; bits &= bits - 1)
            doorbell_ring(o->env,
                          w * 64 + (uint32_t)__builtin_ctzll(bits));
}

int object_arm_bell(const struct object *o, uint32_t place)
{
    uint32_t index = registry_index(o->env->incarnation);
    uint64_t *word;

    if (o->env->incarnation == 0 || index / 64 >= o->bell_words)
        return error_set(SHD_INVAL, "this process is not registered");
    word = &bells_of(o, place)[index / 64];
    /* First the word that says there are bits. */
    atomic_store32(&o->header->belled[place], 1);
    atomic_compiler_barrier();
    atomic_store64(word, atomic_load64(word) | 1ull << index % 64);
    return SHD_OK;
}

/* ---- all objects ------------------------------------------------------- */

/* Everybody who waits for anything looks again. */
static void tell_all(const struct object *o)
{
    struct object_notice n;

    object_notice_begin(&n);
    if (object_lock(o, 0) != SHD_OK)
        return;
    for (uint32_t i = 0; i < o->places; i++)
        object_post(o, i, WAIT_ALL, &n);
    object_unlock(o, 0);
    object_deliver(o, &n);
}

int object_destroy(const struct guard_env *env, const char *name)
{
    struct object_notice n;
    struct catalogue_object c;
    struct object o;
    bool told;
    int rc = catalogue_find(env, name, &c);

    if (rc != SHD_OK)
        return rc;
    told = post_all(env, &c, &o, &n);
    rc = catalogue_destroy(env, name);
    if (told)
        object_deliver(&o, &n);
    return rc;
}

static int reap_one(const struct guard_env *env,
                    const struct catalogue_object *c)
{
    const struct object_kind *kind = object_kind(c->kind);
    struct object o;
    int rc = object_view(env, c, &o);

    if (rc == SHD_OK && kind != NULL && kind->reap != NULL)
        rc = kind->reap(&o);
    if (rc == SHD_OK)
        tell_all(&o);
    return rc == SHD_GONE ? SHD_OK : rc;
}

int object_reap_all(const struct guard_env *env)
{
    char why[256] = "";
    int first = SHD_OK;

    for (uint32_t i = 0; i < env->segment->objects_max; i++) {
        struct catalogue_object c, now;
        int rc = catalogue_at(env, i, &c);

        if (rc == SHD_OK && c.kind != SHD_OBJECT_DICT)
            rc = reap_one(env, &c);
        /* One that was destroyed meanwhile is no damage. */
        if (rc == SHD_NOTFOUND ||
            (rc != SHD_OK && (catalogue_at(env, i, &now) != SHD_OK ||
                              now.generation != c.generation)))
            rc = SHD_OK;
        if (first != SHD_OK || rc == SHD_OK)
            continue;
        /* The slots that follow have their own last words. */
        first = rc;
        snprintf(why, sizeof(why), "%s", shd_last_error());
    }
    return first == SHD_OK ? SHD_OK : error_set(first, "%s", why);
}

/* ---- checking ---------------------------------------------------------- */

/* Their words go with the guard, not with its counter. */
static int check_bells(const struct object *o, char *report, size_t size)
{
    for (uint32_t p = 0; p < o->places; p++) {
        for (uint32_t w = 0; w < o->bell_words; w++) {
            if (atomic_load64(&bells_of(o, p)[w]) == 0 ||
                atomic_load32(&o->header->belled[p]) != 0)
                continue;
            snprintf(report, size,
                     "%s '%s': a bell is armed at place %u, which says there "
                     "is none",
                     object_kind_name(o->kind), o->name, p);
            return SHD_CORRUPT;
        }
    }
    return SHD_OK;
}

int object_check(const struct guard_env *env, const struct catalogue_object *c,
                 char *report, size_t size)
{
    const struct object_kind *kind = object_kind(c->kind);
    struct object o;
    struct reading r;
    int rc;

    if (kind == NULL) {
        snprintf(report, size, "object '%s': there is no kind %u", c->name,
                 c->kind);
        return SHD_CORRUPT;
    }
    rc = object_view(env, c, &o);
    if (rc != SHD_OK)
        return rc;
    reading_begin(&r, env, object_guard(&o, 0));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        report[0] = '\0';
        if (object_gone(&o, 0))
            rc = object_gone_error(&o);
        else if (kind->check != NULL)
            rc = kind->check(&o, report, size);
    } while (!reading_done(&r));
    /* Whoever has the guard just now keeps them in order. */
    if (rc == SHD_OK && env->segment->writable &&
        guard_trylock(env, object_guard(&o, 0)) == SHD_OK) {
        if (!object_gone(&o, 0))
            rc = check_bells(&o, report, size);
        object_unlock(&o, 0);
    }
    return rc;
}

uint64_t object_fingerprint(void)
{
    return (sizeof(struct object_header) * 1000003 + GUARD_WAITS) * 1000003 +
           sizeof(struct queue_header) * 31 + sizeof(struct message) +
           sizeof(struct mailbox_header) * 7 + sizeof(struct mailbox_box) +
           sizeof(struct topic_header) * 127 +
           offsetof(struct topic_header, sealed);
}
