/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making, finding and checking a topic. The kind's part of the extent:
 *
 *   | header 192 | ring | up to cursors_max * 128, as they are needed |
 */
#include "shm/base/error.h"
#include "shm/ipc/topic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_DEFAULT (1ull << 20)
#define CURSORS_A_WORKER 4u
#define CURSORS_MIN 64u

/* Bytes of events, at any time. */
static uint64_t room_of(uint64_t capacity)
{
    return capacity + topic_spare(capacity);
}

/* And a 0 behind them. */
static uint64_t ring_of(uint64_t capacity)
{
    return (room_of(capacity) + TOPIC_UNIT + 63) / 64 * 64;
}

static uint64_t own_bytes(uint64_t capacity, uint64_t cursors)
{
    return sizeof(struct topic_header) + ring_of(capacity) +
           cursors * sizeof(struct topic_cursor);
}

/* ---- making and finding ------------------------------------------------ */

struct making {
    uint64_t capacity;
    uint32_t flags, cursors_max;
    uint64_t at, seq; /* where the first event goes, and its number */
};

static int initialize(const struct object *o, void *context)
{
    const struct making *m = context;
    struct topic_header *h = object_own(o, 0, sizeof(*h));

    if (h == NULL)
        return object_damaged(o, "it has no room for its header");
    h->capacity_bytes = m->capacity;
    h->flags = m->flags;
    h->cursors_max = m->cursors_max;
    h->tail_at = m->at;
    h->tail_seq = m->seq;
    return SHD_OK;
}

static uint32_t cursors_default(const struct segment *s)
{
    uint64_t n = (uint64_t)s->workers_max * CURSORS_A_WORKER;

    if (n < CURSORS_MIN)
        n = CURSORS_MIN;
    return n < TOPIC_CURSORS_MAX ? (uint32_t)n : TOPIC_CURSORS_MAX;
}

static int plan(const struct segment *s, const struct shd_topic_options *o,
                struct making *m)
{
    m->capacity =
        o->capacity_bytes != 0 ? o->capacity_bytes : CAPACITY_DEFAULT;
    m->flags = o->flags;
    m->cursors_max = o->subscribers_max != 0 ? o->subscribers_max
                                             : cursors_default(s);
    if (m->capacity < TOPIC_BYTES_MIN || m->capacity > TOPIC_BYTES_MAX)
        return error_set(SHD_INVAL, "a topic of %llu bytes: from %u to %llu",
                         (unsigned long long)m->capacity, TOPIC_BYTES_MIN,
                         (unsigned long long)TOPIC_BYTES_MAX);
    if (m->cursors_max > TOPIC_CURSORS_MAX)
        return error_set(SHD_INVAL, "a topic for %u subscribers: at most %u",
                         m->cursors_max, TOPIC_CURSORS_MAX);
    m->capacity = (m->capacity + 63) / 64 * 64;
    return SHD_OK;
}

static int matches(const struct topic *t, const struct shd_topic_options *o,
                   const struct making *m)
{
    if (o->capacity_bytes != 0 && m->capacity != t->capacity)
        return error_set(SHD_MISMATCH,
                         "topic '%s' exists, with %llu bytes, not %llu",
                         t->object.name, (unsigned long long)t->capacity,
                         (unsigned long long)m->capacity);
    if ((o->capacity_bytes != 0 || o->flags != 0) && o->flags != t->flags)
        return error_set(SHD_MISMATCH, "topic '%s' exists, and is %slossless",
                         t->object.name,
                         (t->flags & SHD_TOPIC_LOSSLESS) != 0 ? "" : "not ");
    return SHD_OK;
}

static int find_or_make(const struct guard_env *env, const char *name,
                        const struct shd_topic_options *o, uint64_t at,
                        uint64_t seq, bool make, struct topic *out)
{
    struct making m = {.at = at, .seq = seq};
    struct object_spec spec = {.kind = SHD_OBJECT_TOPIC,
                               .guards = 1,
                               .places = TOPIC_PLACES,
                               .initialize = initialize,
                               .context = &m};
    struct object object;
    int rc = plan(env->segment, o, &m);

    if (rc != SHD_OK)
        return rc;
    spec.size_bytes = m.capacity;
    spec.own_bytes = own_bytes(m.capacity, m.cursors_max);
    spec.own_commit = own_bytes(m.capacity, 0);
    rc = object_open(env, name, SHD_OBJECT_TOPIC, make ? &spec : NULL, &object,
                     NULL);
    if (rc == SHD_OK)
        rc = topic_view(&object, out);
    return rc == SHD_OK ? matches(out, o, &m) : rc;
}

int topic_open(const struct guard_env *env, const char *name,
               const struct shd_topic_options *o, bool make,
               struct topic *out)
{
    return find_or_make(env, name, o, 0, 1, make, out);
}

int topic_make(const struct guard_env *env, const char *name,
               const struct shd_topic_options *o, uint64_t at, uint64_t seq,
               struct topic *out)
{
    return find_or_make(env, name, o, at, seq, true, out);
}

static bool is_plausible(const struct topic *t)
{
    return t->capacity >= TOPIC_BYTES_MIN &&
           t->capacity <= TOPIC_BYTES_MAX &&
           t->capacity % TOPIC_UNIT == 0 &&
           t->cursors_max <= TOPIC_CURSORS_MAX &&
           (t->flags & ~(uint32_t)SHD_TOPIC_LOSSLESS) == 0 &&
           own_bytes(t->capacity, t->cursors_max) == t->object.own_bytes;
}

int topic_view(const struct object *o, struct topic *out)
{
    uint64_t ring_at = sizeof(struct topic_header);

    out->object = *o;
    out->header = object_own(o, 0, sizeof(*out->header));
    if (out->header == NULL)
        return object_damaged(o, "it has no room for its header");
    out->capacity = atomic_load64(&out->header->capacity_bytes);
    out->room = room_of(out->capacity);
    out->ring_bytes = ring_of(out->capacity);
    out->cursors_max = atomic_load32(&out->header->cursors_max);
    out->flags = atomic_load32(&out->header->flags);
    if (!is_plausible(out))
        return object_gone(o, 0)
                   ? object_gone_error(o)
                   : object_damaged(o, "its sizes are not those of its room");
    out->ring = object_own(o, ring_at, out->ring_bytes);
    out->cursors = object_own(o, ring_at + out->ring_bytes,
                              out->cursors_max * sizeof(*out->cursors));
    return out->ring != NULL && out->cursors != NULL
               ? SHD_OK
               : object_damaged(o, "its parts lie outside of it");
}

/* ---- checking ---------------------------------------------------------- */

struct checking {
    const struct topic *t;
    struct topic_header h;
    struct topic_span span;
    uint8_t *seen; /* a byte a cursor */
    char *report;
    size_t size;
};

static int failed(const struct checking *c, const char *what, uint64_t number)
{
    snprintf(c->report, c->size, "topic '%s': %s %llu",
             c->t->object.name, what, (unsigned long long)number);
    return SHD_CORRUPT;
}

static int check_free(const struct checking *c)
{
    uint32_t link = c->h.cursors_free;

    while (link != 0) {
        if (link > c->h.cursors_used || c->seen[link - 1])
            return failed(c, "the list of free cursors is broken at", link);
        if (atomic_load32(&c->t->cursors[link - 1].state) !=
            TOPIC_CURSOR_FREE)
            return failed(c, "in use is free cursor", link - 1);
        c->seen[link - 1] = 1;
        link = atomic_load32(&c->t->cursors[link - 1].next);
    }
    return SHD_OK;
}

static int check_cursor(const struct checking *c, uint32_t index)
{
    const struct topic_cursor *k = &c->t->cursors[index];
    const struct topic_span *span = &c->span;
    uint64_t at = atomic_load64(&k->at), seq = atomic_load64(&k->seq);
    uint64_t owner = atomic_load64(&k->owner);
    struct topic_event event;

    switch (atomic_load32(&k->state)) {
    case TOPIC_CURSOR_FREE:
        return c->seen[index] ? SHD_OK
                              : failed(c, "neither free nor used is cursor",
                                       index);
    case TOPIC_CURSOR_PLAIN:
        if (owner == 0)
            return failed(c, "nobody's is cursor", index);
        break;
    case TOPIC_CURSOR_NAMED:
        if (k->name[0] == '\0' ||
            memchr(k->name, '\0', sizeof(k->name)) == NULL)
            return failed(c, "without a name is cursor", index);
        break;
    default:
        return failed(c, "an unknown state has cursor", index);
    }
    if (at > span->head_at || seq > span->head_seq + 1 ||
        (at == span->head_at) != (seq == span->head_seq + 1))
        return failed(c, "past the head is cursor", index);
    /* A name may have been lapped while it was nobody's: who has it now is
     * told so at its next look. */
    if ((c->t->flags & SHD_TOPIC_LOSSLESS) != 0 &&
        atomic_load32(&k->state) == TOPIC_CURSOR_PLAIN && at < span->tail_at)
        return failed(c, "left behind in a lossless topic is cursor", index);
    if (at < span->tail_at || at == span->head_at)
        return SHD_OK;
    topic_event_at(c->t, at, &event);
    return event.seq == seq &&
                   topic_event_is_sound(c->t, at, seq, span->head_at, &event)
               ? SHD_OK
               : failed(c, "not at an event is cursor", index);
}

static int check_cursors(const struct checking *c)
{
    uint32_t used = 0;
    int rc;

    if (c->h.cursors_used > c->t->cursors_max)
        return failed(c, "more cursors than there is room for:",
                      c->h.cursors_used);
    rc = check_free(c);
    for (uint32_t i = 0; i < c->h.cursors_used && rc == SHD_OK; i++) {
        used += atomic_load32(&c->t->cursors[i].state) != TOPIC_CURSOR_FREE;
        rc = check_cursor(c, i);
    }
    if (rc == SHD_OK && used != c->h.subscribers)
        rc = failed(c, "the count of cursors is not", used);
    return rc;
}

static int check_events(struct checking *c)
{
    struct topic_span s;
    struct topic_event event;

    if (!topic_span_kept(c->t, &c->span))
        return failed(c, "head and tail contradict; the tail is at",
                      c->h.tail_at);
    for (s = c->span; s.tail_at < s.head_at; s.tail_seq++) {
        topic_event_at(c->t, s.tail_at, &event);
        if (!topic_event_is_sound(c->t, s.tail_at, s.tail_seq, s.head_at,
                                  &event))
            return failed(c, "damaged is event", s.tail_seq);
        s.tail_at += topic_event_bytes(event.len);
    }
    if (s.tail_seq != s.head_seq + 1)
        return failed(c, "the head's number is not", s.tail_seq - 1);
    return topic_span_follow(c->t, &c->span)
               ? SHD_OK
               : failed(c, "neither nothing nor an event is number",
                        c->span.head_seq + 1);
}

int topic_check(const struct object *o, char *report, size_t size)
{
    struct topic t;
    struct checking c = {.t = &t, .report = report, .size = size};
    int rc = topic_view(o, &t);

    if (rc != SHD_OK)
        return rc;
    reading_copy(&c.h, t.header, sizeof(c.h));
    rc = check_events(&c);
    if (rc != SHD_OK)
        return rc;
    c.seen = calloc((size_t)t.cursors_max + 1, 1);
    if (c.seen == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    rc = check_cursors(&c);
    free(c.seen);
    return rc;
}
