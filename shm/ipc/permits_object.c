/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making, finding, looking at and checking what permits.c changes. The kind's
 * part of the extent:
 *
 *   | header 128 | permits * 48 | up to waiters_max * 64, as they are needed |
 */
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/ipc/permits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAITERS_A_WORKER 4u
#define WAITERS_MIN 64u

static uint64_t slots_bytes(uint64_t permits)
{
    return permits * sizeof(struct permit_slot);
}

static uint64_t own_bytes(uint64_t permits, uint64_t waiters_max)
{
    return sizeof(struct permits_header) + slots_bytes(permits) +
           waiters_max * sizeof(struct permit_waiter);
}

/* ---- making and finding ------------------------------------------------ */

struct making {
    uint32_t permits, waiters_max;
    uint64_t tokens; /* that count as given */
};

static int initialize(const struct object *o, void *context)
{
    const struct making *m = context;
    struct permits_header *h = object_own(o, 0, sizeof(*h));
    struct permit_slot *slots =
        object_own(o, sizeof(*h), slots_bytes(m->permits));

    if (h == NULL || slots == NULL)
        return object_damaged(o, "its parts lie outside of it");
    h->permits = m->permits;
    h->waiters_max = m->waiters_max;
    h->tokens = m->tokens;
    h->slots_free = 1;
    for (uint32_t i = 0; i + 1 < m->permits; i++)
        slots[i].next = i + 2;
    return SHD_OK;
}

static uint32_t waiters_default(const struct segment *s)
{
    uint64_t n = (uint64_t)s->workers_max * WAITERS_A_WORKER;

    if (n < WAITERS_MIN)
        n = WAITERS_MIN;
    return n < PERMITS_WAITERS_MAX ? (uint32_t)n : PERMITS_WAITERS_MAX;
}

static int find_or_make(const struct guard_env *env, const char *name,
                        uint32_t kind, uint32_t number, uint32_t waiters_max,
                        uint64_t tokens, bool make, struct permits *out)
{
    struct making m = {number != 0 ? number : 1,
                       waiters_max != 0 ? waiters_max
                                        : waiters_default(env->segment),
                       tokens};
    struct object_spec spec = {
        .kind = kind,
        .guards = 1,
        .places = 1,
        .size_bytes = m.permits,
        .own_bytes = own_bytes(m.permits, m.waiters_max),
        .own_commit = own_bytes(m.permits, 0),
        .initialize = initialize,
        .context = &m};
    struct object o;
    int rc;

    if (m.permits > PERMITS_MAX || m.waiters_max > PERMITS_WAITERS_MAX)
        return error_set(SHD_INVAL,
                         "%u permits, %u waiters: at most %u and %u",
                         m.permits, m.waiters_max, PERMITS_MAX,
                         PERMITS_WAITERS_MAX);
    rc = object_open(env, name, kind, make ? &spec : NULL, &o, NULL);
    if (rc == SHD_OK)
        rc = permits_view(&o, out);
    if (rc == SHD_OK && number != 0 && number != out->permits)
        rc = error_set(SHD_MISMATCH, "'%s' exists, with %u permits, not %u",
                       name, out->permits, number);
    return rc;
}

int permits_open(const struct guard_env *env, const char *name, uint32_t kind,
                 uint32_t number, uint32_t waiters_max, bool make,
                 struct permits *out)
{
    return find_or_make(env, name, kind, number, waiters_max, 0, make, out);
}

int permits_make(const struct guard_env *env, const char *name, uint32_t kind,
                 uint32_t number, uint32_t waiters_max, uint64_t tokens)
{
    struct permits p;

    return find_or_make(env, name, kind, number, waiters_max, tokens, true,
                        &p);
}

int permits_view(const struct object *o, struct permits *out)
{
    uint64_t slots_at = sizeof(struct permits_header);

    out->object = *o;
    out->header = object_own(o, 0, slots_at);
    if (out->header == NULL)
        return object_damaged(o, "it has no room for its header");
    out->permits = atomic_load32(&out->header->permits);
    out->waiters_max = atomic_load32(&out->header->waiters_max);
    if (out->permits == 0 || out->permits > PERMITS_MAX ||
        out->waiters_max > PERMITS_WAITERS_MAX ||
        own_bytes(out->permits, out->waiters_max) != o->own_bytes)
        return object_gone(o, 0)
                   ? object_gone_error(o)
                   : object_damaged(o, "its numbers of permits and waiters");
    out->slots = object_own(o, slots_at, slots_bytes(out->permits));
    out->waiters =
        object_own(o, slots_at + slots_bytes(out->permits),
                   out->waiters_max * sizeof(struct permit_waiter));
    return out->slots != NULL && out->waiters != NULL
               ? SHD_OK
               : object_damaged(o, "its parts lie outside of it");
}

int permits_reap(const struct object *o)
{
    struct permits p;
    int rc = permits_view(o, &p);

    if (rc == SHD_OK)
        rc = permits_bury_all(&p);
    return rc < 0 ? rc : SHD_OK;
}

/* ---- looking ----------------------------------------------------------- */

/* len bytes at `from`, as they are at one moment. */
static int look(const struct permits *p, const void *from, size_t len,
                void *copy)
{
    struct reading r;
    bool gone;

    reading_begin(&r, p->object.env, object_guard(&p->object, 0));
    do {
        int rc = reading_try(&r);

        if (rc != SHD_OK)
            return rc;
        gone = object_gone(&p->object, 0);
        if (!gone)
            reading_copy(copy, from, len);
    } while (!reading_done(&r));
    return gone ? object_gone_error(&p->object) : SHD_OK;
}

int permits_header_look(const struct permits *p, struct permits_header *copy)
{
    return look(p, p->header, sizeof(*copy), copy);
}

int permits_slot_at(const struct permits *p, uint32_t index,
                    struct permit_slot *copy)
{
    int rc;

    if (index >= p->permits)
        return error_set(SHD_INVAL, "'%s' has %u permits, no number %u",
                         p->object.name, p->permits, index);
    rc = look(p, &p->slots[index], sizeof(*copy), copy);
    if (rc == SHD_OK && copy->owner == 0)
        rc = SHD_NOTFOUND;
    return rc;
}

int permits_held(const struct permits *p, uint64_t incarnation,
                 uint64_t *count)
{
    struct reading r;
    bool gone;

    reading_begin(&r, p->object.env, object_guard(&p->object, 0));
    do {
        int rc = reading_try(&r);

        if (rc != SHD_OK)
            return rc;
        *count = 0;
        gone = object_gone(&p->object, 0);
        for (uint32_t i = 0; !gone && i < p->permits; i++)
            *count += atomic_load64(&p->slots[i].owner) == incarnation;
    } while (!reading_done(&r));
    return gone ? object_gone_error(&p->object) : SHD_OK;
}

int permits_waiter_at(const struct permits *p, uint32_t index,
                      struct permit_waiter *copy)
{
    uint32_t used = atomic_load32(&p->header->waiters_used);
    int rc;

    if (index >= p->waiters_max)
        return error_set(SHD_INVAL, "'%s' has %u waiters, no number %u",
                         p->object.name, p->waiters_max, index);
    /* What was never used has no memory; what was keeps it. */
    if (index >= used)
        return SHD_NOTFOUND;
    rc = look(p, &p->waiters[index], sizeof(*copy), copy);
    if (rc == SHD_OK && copy->state == PERMIT_NOBODY)
        rc = SHD_NOTFOUND;
    return rc;
}

/* ---- checking ---------------------------------------------------------- */

struct checking {
    const struct permits *p;
    struct permits_header h;
    uint8_t *seen; /* a byte a slot, then a byte a waiter */
    char *report;
    size_t size;
};

static int failed(const struct checking *c, const char *what, uint32_t index)
{
    snprintf(c->report, c->size, "%s '%s': %s %u",
             object_kind_name(c->p->object.kind), c->p->object.name, what,
             index);
    return SHD_CORRUPT;
}

static int check_free_slots(const struct checking *c)
{
    uint32_t link = c->h.slots_free;

    while (link != 0) {
        const struct permit_slot *s;

        if (link > c->p->permits || c->seen[link - 1])
            return failed(c, "the list of free permits is broken at", link);
        s = &c->p->slots[link - 1];
        if (atomic_load64(&s->owner) != 0)
            return failed(c, "a free permit has an owner: number", link - 1);
        c->seen[link - 1] = 1;
        link = atomic_load32(&s->next);
    }
    return SHD_OK;
}

static int check_slots(const struct checking *c)
{
    uint32_t taken = 0, limited = 0;
    int rc = check_free_slots(c);

    for (uint32_t i = 0; i < c->p->permits && rc == SHD_OK; i++) {
        const struct permit_slot *s = &c->p->slots[i];
        uint64_t token = atomic_load64(&s->token);

        taken += atomic_load64(&s->owner) != 0;
        limited += atomic_load64(&s->expires_ms) != 0;
        if (atomic_load64(&s->owner) == 0 && !c->seen[i])
            rc = failed(c, "neither free nor taken is permit", i);
        else if (token != 0 && (token % c->p->permits != i ||
                                token / c->p->permits > c->h.tokens))
            rc = failed(c, "a token that was never given: permit", i);
        else if (atomic_load64(&s->owner) == 0 &&
                 atomic_load64(&s->expires_ms) != 0)
            rc = failed(c, "time is running for nobody: permit", i);
        else if (atomic_load32(&s->mark) > PERMIT_EXPIRED)
            rc = failed(c, "an unknown mark: permit", i);
    }
    if (rc == SHD_OK && taken != c->h.slots_taken)
        rc = failed(c, "the count of permits taken is not", taken);
    if (rc == SHD_OK && limited != c->h.limited)
        rc = failed(c, "the count of permits with a limit is not", limited);
    return rc;
}

static int check_line(const struct checking *c, uint8_t *seen)
{
    uint32_t link = c->h.waiters_first, before = 0, n = 0;
    uint64_t ticket = 0;

    while (link != 0) {
        const struct permit_waiter *w;

        if (link > c->h.waiters_used || seen[link - 1])
            return failed(c, "the line of waiters is broken at", link);
        w = &c->p->waiters[link - 1];
        if (atomic_load32(&w->prev) != before)
            return failed(c, "a waiter does not know who is before it:",
                          link - 1);
        if (atomic_load32(&w->state) != PERMIT_WAITING)
            return failed(c, "in line, but not waiting, is waiter", link - 1);
        if (atomic_load64(&w->ticket) <= ticket ||
            atomic_load64(&w->ticket) > c->h.tickets)
            return failed(c, "out of turn is waiter", link - 1);
        ticket = atomic_load64(&w->ticket);
        seen[link - 1] = 1;
        before = link;
        link = atomic_load32(&w->next);
        n++;
    }
    if (c->h.waiters_last != before)
        return failed(c, "the last in line is not", before);
    return n == c->h.waiting ? SHD_OK
                             : failed(c, "the count of waiters is not", n);
}

static int check_free_waiters(const struct checking *c, uint8_t *seen)
{
    uint32_t link = c->h.waiters_free;

    while (link != 0) {
        if (link > c->h.waiters_used || seen[link - 1])
            return failed(c, "the list of free waiters is broken at", link);
        if (atomic_load32(&c->p->waiters[link - 1].state) != PERMIT_NOBODY)
            return failed(c, "in use is free waiter", link - 1);
        seen[link - 1] = 1;
        link = atomic_load32(&c->p->waiters[link - 1].next);
    }
    return SHD_OK;
}

static int check_waiters(const struct checking *c)
{
    uint8_t *seen = c->seen + c->p->permits;
    int rc;

    if (c->h.waiters_used > c->p->waiters_max)
        return failed(c, "more waiters than there is room for:",
                      c->h.waiters_used);
    rc = check_line(c, seen);
    if (rc == SHD_OK)
        rc = check_free_waiters(c, seen);
    for (uint32_t i = 0; i < c->h.waiters_used && rc == SHD_OK; i++) {
        const struct permit_waiter *w = &c->p->waiters[i];
        uint32_t state = atomic_load32(&w->state);

        if (state > PERMIT_GRANTED)
            rc = failed(c, "an unknown state has waiter", i);
        else if (!seen[i] && state <= PERMIT_WAITING)
            rc = failed(c, "neither in line nor free is waiter", i);
        else if (state != PERMIT_NOBODY && atomic_load64(&w->owner) == 0)
            rc = failed(c, "nobody's is waiter", i);
    }
    return rc;
}

int permits_check(const struct object *o, char *report, size_t size)
{
    struct permits p;
    struct checking c = {.p = &p, .report = report, .size = size};
    int rc = permits_view(o, &p);

    if (rc != SHD_OK)
        return rc;
    reading_copy(&c.h, p.header, sizeof(c.h));
    c.seen = calloc((size_t)p.permits + p.waiters_max, 1);
    if (c.seen == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    rc = check_slots(&c);
    if (rc == SHD_OK)
        rc = check_waiters(&c);
    if (rc == SHD_OK && c.h.slots_free != 0 && c.h.waiters_first != 0)
        rc = failed(&c, "somebody waits, and free is permit",
                    c.h.slots_free - 1);
    free(c.seen);
    return rc;
}
