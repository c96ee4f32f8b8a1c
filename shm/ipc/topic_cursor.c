/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of cursors: those with a name, and those of the subscribers of a
 * lossless topic. Changed under the topic's lock, each in one transaction.
 * The memory of a cursor is taken when there are more than ever before.
 */
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/ipc/topic.h"
#include "shm/worker/registry.h"

#include <stdio.h>
#include <string.h>

#define NAME_WORDS (sizeof(((struct topic_cursor *)0)->name) / 8)
#define CURSOR_WORDS (sizeof(struct topic_cursor) / 8)

static struct topic_cursor *cursor_at(const struct topic *t, uint32_t index)
{
    return index < t->cursors_max ? &t->cursors[index] : NULL;
}

/* Cursors that may be touched. */
static uint32_t cursors_used(const struct topic *t)
{
    uint32_t used = atomic_load32(&t->header->cursors_used);

    return used < t->cursors_max ? used : t->cursors_max;
}

uint64_t topic_cursors_bound(const struct topic *t)
{
    uint64_t bound = UINT64_MAX;

    for (uint32_t i = 0; i < cursors_used(t); i++) {
        const struct topic_cursor *c = &t->cursors[i];

        if (atomic_load32(&c->state) != TOPIC_CURSOR_FREE &&
            atomic_load64(&c->owner) != 0 && atomic_load64(&c->at) < bound)
            bound = atomic_load64(&c->at);
    }
    return bound;
}

/* ---- making and freeing, with the lock --------------------------------- */

/* A free cursor's number, with memory; *fresh: it never was one. SHD_FULL. */
static int cursor_find_free(const struct topic *t, uint32_t *index,
                            bool *fresh)
{
    uint32_t first = atomic_load32(&t->header->cursors_free);
    uint32_t used = cursors_used(t);

    *fresh = first == 0;
    if (!*fresh) {
        if (first > used || atomic_load32(&t->cursors[first - 1].state) !=
                                TOPIC_CURSOR_FREE)
            return error_set(SHD_CORRUPT,
                             "topic '%s': the free cursors are none",
                             t->object.name);
        *index = first - 1;
        return SHD_OK;
    }
    if (used == t->cursors_max)
        return error_set(SHD_FULL,
                         "topic '%s' has %u cursors, all in use: make it "
                         "with more subscribers_max",
                         t->object.name, t->cursors_max);
    *index = used;
    return segment_commit(t->object.env->segment,
                          segment_offset(t->object.env->segment,
                                         &t->cursors[used]),
                          sizeof(struct topic_cursor));
}

/* Takes a free cursor for this worker. */
static int cursor_make(const struct topic *t, const char *name, uint64_t at,
                       uint64_t seq, uint32_t *index)
{
    struct topic_header *h = t->header;
    struct topic_cursor new = {
        .owner = atomic_load64(&t->object.env->incarnation),
        .at = at,
        .seq = seq,
        .state = name != NULL ? TOPIC_CURSOR_NAMED : TOPIC_CURSOR_PLAIN};
    uint64_t words[CURSOR_WORDS];
    struct txn txn;
    bool fresh;
    int rc = cursor_find_free(t, index, &fresh);

    if (rc != SHD_OK)
        return rc;
    if (name != NULL)
        memcpy(new.name, name, strlen(name));
    memcpy(words, &new, sizeof(words));
    txn_begin(&txn, t->object.env->segment, topic_guard(t),
              CURSOR_WORDS + 2);
    if (fresh)
        txn_store32(&txn, &h->cursors_used, *index + 1);
    else
        txn_store32(&txn, &h->cursors_free,
                    atomic_load32(&t->cursors[*index].next));
    for (size_t i = 0; i < CURSOR_WORDS; i++)
        txn_store64(&txn, (uint64_t *)(void *)&t->cursors[*index] + i,
                    words[i]);
    txn_store32(&txn, &h->subscribers, atomic_load32(&h->subscribers) + 1);
    txn_commit(&txn);
    return SHD_OK;
}

static void cursor_free(const struct topic *t, uint32_t index)
{
    struct topic_header *h = t->header;
    struct topic_cursor *c = &t->cursors[index];
    struct txn txn;

    txn_begin(&txn, t->object.env->segment, topic_guard(t), 5);
    txn_store64(&txn, &c->owner, 0);
    txn_store32(&txn, &c->state, TOPIC_CURSOR_FREE);
    txn_store32(&txn, &c->next, atomic_load32(&h->cursors_free));
    txn_store32(&txn, &h->cursors_free, index + 1);
    txn_store32(&txn, &h->subscribers, atomic_load32(&h->subscribers) - 1);
    txn_commit(&txn);
}

static void cursor_own(const struct topic *t, struct topic_cursor *c,
                       uint64_t owner)
{
    struct txn txn;

    txn_begin(&txn, t->object.env->segment, topic_guard(t), 1);
    txn_store64(&txn, &c->owner, owner);
    txn_commit(&txn);
}

/* Its subscriber has gone: a name stays. */
static void cursor_leave(const struct topic *t, uint32_t index)
{
    if (atomic_load32(&t->cursors[index].state) == TOPIC_CURSOR_NAMED)
        cursor_own(t, &t->cursors[index], 0);
    else
        cursor_free(t, index);
}

/* The cursor of that name, or cursors_max. */
static uint32_t cursor_find(const struct topic *t, const char *name)
{
    uint64_t words[NAME_WORDS] = {0};

    memcpy(words, name, strlen(name));
    for (uint32_t i = 0; i < cursors_used(t); i++) {
        const struct topic_cursor *c = &t->cursors[i];
        const uint64_t *has = (const uint64_t *)(const void *)c->name;
        size_t same = 0;

        if (atomic_load32(&c->state) != TOPIC_CURSOR_NAMED)
            continue;
        while (same < NAME_WORDS && atomic_load64(&has[same]) == words[same])
            same++;
        if (same == NAME_WORDS)
            return i;
    }
    return t->cursors_max;
}

int topic_put_cursor(const struct topic *t, const char *name, uint64_t at,
                     uint64_t seq)
{
    struct topic_span span;
    uint32_t index;
    int rc = object_lock(&t->object, 0);

    if (rc != SHD_OK)
        return rc;
    if (topic_span_load(t, &span) != SHD_OK)
        rc = topic_span_corrupt(t);
    else if (at > span.head_at || seq > span.head_seq + 1)
        rc = error_set(SHD_INVAL, "cursor '%s' of topic '%s' is past the head",
                       name, t->object.name);
    else if (cursor_find(t, name) < t->cursors_max)
        rc = error_set(SHD_EXISTS, "topic '%s' has two cursors '%s'",
                       t->object.name, name);
    else
        rc = cursor_make(t, name, at, seq, &index);
    if (rc == SHD_OK)
        cursor_own(t, &t->cursors[index], 0);
    object_unlock(&t->object, 0);
    return rc;
}

/* ---- subscribing ------------------------------------------------------- */

static int take_over(const struct topic *t, const char *name, uint32_t index,
                     const struct topic_span *span, struct topic_subscriber *s)
{
    struct topic_cursor *c = &t->cursors[index];
    uint64_t owner = atomic_load64(&c->owner);

    if (owner != 0 && !registry_is_dead(t->object.env, owner))
        return error_set(SHD_EXISTS,
                         "cursor '%s' of topic '%s' is used by worker %llu",
                         name, t->object.name, (unsigned long long)owner);
    s->at = atomic_load64(&c->at);
    s->seq = atomic_load64(&c->seq);
    if (s->at % TOPIC_UNIT != 0 || s->at > span->head_at)
        return error_set(SHD_CORRUPT,
                         "topic '%s': cursor '%s' is past the head",
                         t->object.name, name);
    cursor_own(t, c, atomic_load64(&t->object.env->incarnation));
    return SHD_OK;
}

static void begin_at(struct topic_subscriber *s, const struct topic_span *span,
                     uint32_t from)
{
    bool oldest = from == SHD_FROM_OLDEST;

    s->at = oldest ? span->tail_at : span->head_at;
    s->seq = oldest ? span->tail_seq : span->head_seq + 1;
}

/* With the lock. */
static int subscribe(const struct topic *t, const char *name, uint32_t from,
                     struct topic_subscriber *s)
{
    struct topic_span span;
    uint32_t index = t->cursors_max;
    int rc = topic_span_load(t, &span);

    if (rc != SHD_OK)
        return topic_span_corrupt(t);
    if (name != NULL)
        index = cursor_find(t, name);
    if (index < t->cursors_max) {
        rc = take_over(t, name, index, &span, s);
    } else {
        begin_at(s, &span, from);
        rc = cursor_make(t, name, s->at, s->seq, &index);
    }
    if (rc == SHD_OK)
        s->cursor = index + 1;
    return rc;
}

int topic_subscribe(const struct topic *t, const char *name, uint32_t from,
                    struct topic_subscriber *s)
{
    bool shared = name != NULL || (t->flags & SHD_TOPIC_LOSSLESS) != 0;
    struct topic_span span;
    int rc;

    memset(s, 0, sizeof(*s));
    if (!shared) {
        rc = topic_look(t, &span);
        if (rc != SHD_OK)
            return rc;
        begin_at(s, &span, from);
        return SHD_OK;
    }
    s->owner = atomic_load64(&t->object.env->incarnation);
    rc = object_lock(&t->object, 0);
    if (rc != SHD_OK)
        return rc;
    rc = subscribe(t, name, from, s);
    object_unlock(&t->object, 0);
    s->named = name != NULL;
    s->done_at = s->saved_at = s->at;
    s->done_seq = s->seq;
    return rc;
}

/* Publishers that wait for room look again. With the lock; deliver without. */
static void tell_publishers(const struct topic *t,
                            struct object_notice *notice)
{
    object_notice_begin(notice);
    object_post(&t->object, TOPIC_ROOM, WAIT_ALL, notice);
}

/* The cursor of s, if it still is. With the lock. */
static struct topic_cursor *own_cursor(const struct topic *t,
                                       const struct topic_subscriber *s)
{
    struct topic_cursor *c = cursor_at(t, s->cursor - 1);

    if (c == NULL || atomic_load32(&c->state) == TOPIC_CURSOR_FREE ||
        s->owner != atomic_load64(&t->object.env->incarnation) ||
        atomic_load64(&c->owner) != s->owner)
        return NULL;
    return c;
}

int topic_unsubscribe(const struct topic *t, struct topic_subscriber *s)
{
    struct object_notice notice;
    int rc;

    if (s->cursor == 0)
        return SHD_OK;
    rc = topic_acknowledge(t, s);
    if (rc == SHD_OK)
        rc = object_lock(&t->object, 0);
    if (rc != SHD_OK)
        return rc;
    if (own_cursor(t, s) != NULL)
        cursor_leave(t, s->cursor - 1);
    tell_publishers(t, &notice);
    object_unlock(&t->object, 0);
    object_deliver(&t->object, &notice);
    s->cursor = 0;
    return SHD_OK;
}

int topic_save(const struct topic *t, struct topic_subscriber *s)
{
    struct object_notice notice;
    struct topic_cursor *c;
    struct txn txn;
    int rc;

    if (s->cursor == 0 || s->done_at == s->saved_at)
        return SHD_OK;
    rc = object_lock(&t->object, 0);
    if (rc != SHD_OK)
        return rc;
    c = own_cursor(t, s);
    if (c == NULL) {
        object_unlock(&t->object, 0);
        return error_set(SHD_LOST,
                         "the cursor in topic '%s' belongs to another worker",
                         t->object.name);
    }
    txn_begin(&txn, t->object.env->segment, topic_guard(t), 2);
    txn_store64(&txn, &c->at, s->done_at);
    txn_store64(&txn, &c->seq, s->done_seq);
    txn_commit(&txn);
    tell_publishers(t, &notice);
    object_unlock(&t->object, 0);
    object_deliver(&t->object, &notice);
    s->saved_at = s->done_at;
    return SHD_OK;
}

int topic_acknowledge(const struct topic *t, struct topic_subscriber *s)
{
    s->done_at = s->at;
    s->done_seq = s->seq;
    return topic_save(t, s);
}

int topic_forget(const struct topic *t, const char *name)
{
    uint32_t index;
    uint64_t owner;
    int rc = object_lock(&t->object, 0);

    if (rc != SHD_OK)
        return rc;
    index = cursor_find(t, name);
    if (index == t->cursors_max) {
        rc = error_set(SHD_NOTFOUND, "topic '%s' has no cursor '%s'",
                       t->object.name, name);
    } else {
        owner = atomic_load64(&t->cursors[index].owner);
        if (owner != 0 && !registry_is_dead(t->object.env, owner))
            rc = error_set(SHD_EXISTS,
                           "cursor '%s' of topic '%s' is used by worker %llu",
                           name, t->object.name, (unsigned long long)owner);
        else
            cursor_free(t, index);
    }
    object_unlock(&t->object, 0);
    return rc;
}

/* ---- the dead ---------------------------------------------------------- */

int topic_bury(const struct topic *t, uint64_t incarnation)
{
    struct object_notice notice;
    int buried = 0;
    int rc = object_lock(&t->object, 0);

    if (rc != SHD_OK)
        return rc;
    for (uint32_t i = 0; i < cursors_used(t); i++) {
        if (atomic_load64(&t->cursors[i].owner) != incarnation)
            continue;
        cursor_leave(t, i);
        buried++;
    }
    tell_publishers(t, &notice);
    object_unlock(&t->object, 0);
    object_deliver(&t->object, &notice);
    return buried;
}

int topic_bury_all(const struct topic *t)
{
    int buried = 0;

    for (uint32_t i = 0; i < cursors_used(t); i++) {
        uint64_t owner = atomic_load64(&t->cursors[i].owner);
        int rc;

        if (owner == 0 || !registry_is_dead(t->object.env, owner))
            continue;
        rc = topic_bury(t, owner);
        if (rc < 0)
            return rc;
        buried += rc;
    }
    return buried;
}

int topic_reap(const struct object *o)
{
    struct topic t;
    int rc = topic_view(o, &t);

    if (rc == SHD_OK)
        rc = topic_bury_all(&t);
    return rc < 0 ? rc : SHD_OK;
}

/* ---- looking ----------------------------------------------------------- */

int topic_cursor_at(const struct topic *t, uint32_t index,
                    struct topic_cursor *copy)
{
    struct reading r;
    int rc;

    if (index >= t->cursors_max)
        return error_set(SHD_INVAL, "topic '%s' has %u cursors, no number %u",
                         t->object.name, t->cursors_max, index);
    reading_begin(&r, t->object.env, topic_guard(t));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        memset(copy, 0, sizeof(*copy));
        if (index < cursors_used(t))
            reading_copy(copy, &t->cursors[index], sizeof(*copy));
    } while (!reading_done(&r));
    copy->name[sizeof(copy->name) - 1] = '\0';
    if (copy->state == TOPIC_CURSOR_FREE)
        return error_set(SHD_NOTFOUND, "cursor %u is free", index);
    return SHD_OK;
}

int topic_held(const struct topic *t, uint64_t incarnation, uint64_t *count)
{
    struct reading r;
    bool gone;

    reading_begin(&r, t->object.env, topic_guard(t));
    do {
        int rc = reading_try(&r);

        if (rc != SHD_OK)
            return rc;
        *count = 0;
        gone = object_gone(&t->object, 0);
        for (uint32_t i = 0; !gone && i < cursors_used(t); i++)
            *count += atomic_load64(&t->cursors[i].owner) == incarnation;
    } while (!reading_done(&r));
    return gone ? object_gone_error(&t->object) : SHD_OK;
}
