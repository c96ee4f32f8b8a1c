/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Queues, topics, locks and mailboxes. Each has one guard, so each is copied whole, as it
 * is at one moment. Their parts were written for shd_queue_peek and its like:
 * they hold out torn data.
 */
#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/letters.h"
#include "shm/ipc/topic.h"
#include "shm/keep/copy.h"

#include <string.h>

#define COPY_LOOK 64u

/* ---- queues ------------------------------------------------------------ */

static uint32_t state_to_save(const struct message *m)
{
    uint32_t state = atomic_load32(&m->state) & ~MESSAGE_RED;

    return state == QUEUE_RESERVED ? QUEUE_READY : state;
}

static int put_message(struct copy *c, const struct queue *q,
                       const struct message *m)
{
    uint64_t len = atomic_load32(&m->len);
    uint32_t state = state_to_save(m);
    uint64_t word[5] = {state, atomic_load32(&m->attempts),
                        atomic_load64(&m->id), atomic_load64(&m->pushed_ms),
                        state == QUEUE_DELAYED
                            ? copy_wall(c, atomic_load64(&m->when))
                            : 0};
    unsigned char *value;
    int rc = c->part.messages % COPY_LOOK == 0 || len > 65536 ? copy_still(c)
                                                              : SHD_OK;

    if (rc == SHD_OK)
        rc = record_begin(&c->out, RECORD_MESSAGE, word, 5, 0, len, NULL,
                          &value);
    c->part.messages++;
    return rc == SHD_OK ? cells_read(&q->cells, m, 0, value, len) : rc;
}

static int put_list(struct copy *c, const struct queue *q,
                    const struct message_list *l, uint32_t state)
{
    uint32_t ref = atomic_load32(&l->first);

    for (uint64_t n = 0; ref != 0; n++) {
        const struct message *m = cells_at(&q->cells, ref);
        int rc = m == NULL || n > q->cells.count ? SHD_CORRUPT : SHD_OK;

        if (rc == SHD_OK &&
            (atomic_load32(&m->state) & ~MESSAGE_RED) == state)
            rc = put_message(c, q, m);
        if (rc != SHD_OK)
            return rc;
        ref = atomic_load32(&m->after);
    }
    return SHD_OK;
}

/* A letter on its way to another queue is in both as long as both have it. A
 * copy that has arrived is saved as what it is to be. */
static int put_letters(struct copy *c, const struct queue *q,
                       uint64_t *letters)
{
    const struct queue_header *h = q->header;
    const struct message *m = cells_at(&q->cells, atomic_load32(&h->letter));
    uint32_t ref = atomic_load32(&h->held.first);
    int rc = SHD_OK;

    *letters = 0;
    if (atomic_load32(&h->stage) == LETTER_PINNED) {
        rc = m == NULL ? SHD_CORRUPT : put_message(c, q, m);
        ++*letters;
    }
    for (uint64_t n = 0; rc == SHD_OK && ref != 0; n++) {
        m = cells_at(&q->cells, ref);
        if (m == NULL || n > q->cells.count)
            return SHD_CORRUPT;
        if (atomic_load64(&m->tag) != 0) {
            rc = put_message(c, q, m);
            ++*letters;
        }
        ref = atomic_load32(&m->after);
    }
    return rc;
}

/* The tree of times has leased ones too. */
static int put_delayed(struct copy *c, const struct queue *q)
{
    const struct segment *s = q->object.env->segment;
    uint32_t root = atomic_load32(&q->header->timed);
    struct tree_path path;
    int more = root == 0 ? 0 : tree_first(s, &q->cells.timed, root, &path);

    for (uint64_t n = 0; more == 1; n++) {
        const struct message *m =
            cells_at(&q->cells, path.ref[path.depth - 1]);
        int rc = m == NULL || n > q->cells.count ? SHD_CORRUPT : SHD_OK;

        if (rc == SHD_OK &&
            (atomic_load32(&m->state) & ~MESSAGE_RED) == QUEUE_DELAYED)
            rc = put_message(c, q, m);
        if (rc != SHD_OK)
            return rc;
        more = tree_next(s, &q->cells.timed, &path);
    }
    return more;
}

static int put_queue(struct copy *c, const struct queue *q,
                     const uint64_t word[6])
{
    size_t name_len = strlen(q->object.name);
    size_t len = strnlen(q->header->dead_to, sizeof(q->header->dead_to) - 1);
    unsigned char *name, *dead_to;
    int rc = record_begin(&c->out, RECORD_QUEUE, word, 6, name_len, len, &name,
                          &dead_to);

    if (rc == SHD_OK) {
        memcpy(name, q->object.name, name_len);
        memcpy(dead_to, q->header->dead_to, len);
    }
    return rc;
}

static int queue_part(struct copy *c, const void *context)
{
    const struct queue *q = context;
    const struct queue_header *h = q->header;
    const uint64_t word[6] = {h->capacity_bytes,  h->message_bytes,
                              h->messages_max,    h->lease_ms,
                              h->deliveries_max,  atomic_load64(&h->ids)};
    uint64_t letters = 0;
    int rc;

    if (object_gone(&q->object, 0))
        return SHD_GONE;
    rc = put_queue(c, q, word);
    c->part.objects++;
    /* What is leased comes back first. */
    if (rc == SHD_OK)
        rc = put_list(c, q, &h->held, QUEUE_LEASED);
    if (rc == SHD_OK)
        rc = put_list(c, q, &h->ready, QUEUE_READY);
    if (rc == SHD_OK)
        rc = put_delayed(c, q);
    if (rc == SHD_OK)
        rc = put_list(c, q, &h->dead, QUEUE_DEAD);
    if (rc == SHD_OK)
        rc = put_letters(c, q, &letters);
    return rc != SHD_OK || c->part.messages ==
                               (uint64_t)atomic_load32(&h->n_leased) +
                                   atomic_load32(&h->n_ready) +
                                   atomic_load32(&h->n_delayed) +
                                   atomic_load32(&h->n_dead) + letters
               ? rc
               : SHD_CORRUPT;
}

static int copy_queue(struct copy *c, const struct object *o)
{
    struct queue q;
    int rc = queue_view(o, &q);

    return rc == SHD_OK ? copy_run(c, o->env, object_guard(o, 0), o->name,
                                   queue_part, &q)
                        : rc;
}

/* ---- topics ------------------------------------------------------------ */

static int put_events(struct copy *c, const struct topic *t,
                      struct topic_span span)
{
    while (span.tail_at < span.head_at) {
        struct topic_event event;
        unsigned char *value;
        int rc;

        topic_event_at(t, span.tail_at, &event);
        if (!topic_event_is_sound(t, span.tail_at, span.tail_seq,
                                  span.head_at, &event))
            return SHD_CORRUPT;
        rc = c->part.events++ % COPY_LOOK == 0 || event.len > 65536
                 ? copy_still(c)
                 : SHD_OK;
        if (rc == SHD_OK)
            rc = record_begin(&c->out, RECORD_EVENT, &event.seq, 1, 0,
                              event.len, NULL, &value);
        if (rc != SHD_OK)
            return rc;
        topic_event_bytes_read(t, span.tail_at, value, event.len);
        span.tail_at += topic_event_bytes(event.len);
        span.tail_seq++;
    }
    return SHD_OK;
}

/* Of the names: the others are of subscribers that will be gone. */
static int put_cursors(struct copy *c, const struct topic *t)
{
    uint32_t used = atomic_load32(&t->header->cursors_used);

    if (used > t->cursors_max)
        return SHD_CORRUPT;
    for (uint32_t i = 0; i < used; i++) {
        struct topic_cursor k;
        int rc;

        reading_copy(&k, &t->cursors[i], sizeof(k));
        if (k.state != TOPIC_CURSOR_NAMED)
            continue;
        k.name[sizeof(k.name) - 1] = '\0';
        rc = record_add(&c->out, RECORD_CURSOR,
                        (const uint64_t[]){k.at, k.seq}, 2, k.name);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

static int topic_part(struct copy *c, const void *context)
{
    const struct topic *t = context;
    struct topic_span span;
    int rc;

    if (object_gone(&t->object, 0))
        return SHD_GONE;
    if (topic_span_load(t, &span) != SHD_OK)
        return SHD_CORRUPT;
    rc = record_add(&c->out, RECORD_TOPIC,
                    (const uint64_t[]){t->capacity, t->flags,
                                       t->cursors_max, span.tail_at,
                                       span.tail_seq},
                    5, t->object.name);
    c->part.objects++;
    if (rc == SHD_OK)
        rc = put_events(c, t, span);
    return rc == SHD_OK ? put_cursors(c, t) : rc;
}

static int copy_topic(struct copy *c, const struct object *o)
{
    struct topic t;
    int rc = topic_view(o, &t);

    return rc == SHD_OK ? copy_run(c, o->env, object_guard(o, 0), o->name,
                                   topic_part, &t)
                        : rc;
}

/* ---- locks, semaphores ------------------------------------------------- */

static int permits_part(struct copy *c, const void *context)
{
    const struct permits *p = context;

    if (object_gone(&p->object, 0))
        return SHD_GONE;
    c->part.objects++;
    return record_add(&c->out, RECORD_LOCK,
                      (const uint64_t[]){p->object.kind, p->permits,
                                         p->waiters_max,
                                         atomic_load64(&p->header->tokens)},
                      4, p->object.name);
}

static int copy_permits(struct copy *c, const struct object *o)
{
    struct permits p;
    int rc = permits_view(o, &p);

    return rc == SHD_OK ? copy_run(c, o->env, object_guard(o, 0), o->name,
                                   permits_part, &p)
                        : rc;
}

/* ---- mailboxes --------------------------------------------------------- */

static int mailbox_part(struct copy *c, const void *context)
{
    const struct mailbox *b = context;

    if (object_gone(&b->object, 0))
        return SHD_GONE;
    c->part.objects++;
    return record_add(&c->out, RECORD_MAILBOX,
                      (const uint64_t[]){b->header->capacity_bytes,
                                         b->header->message_bytes,
                                         b->header->box_bytes},
                      3, b->object.name);
}

static int copy_mailbox(struct copy *c, const struct object *o)
{
    struct mailbox b;
    int rc = mailbox_view(o, &b);

    return rc == SHD_OK ? copy_run(c, o->env, object_guard(o, 0), o->name,
                                   mailbox_part, &b)
                        : rc;
}

/* ---- any --------------------------------------------------------------- */

static const struct {
    uint32_t kind;
    int (*copy)(struct copy *c, const struct object *o);
} kinds[] = {{SHD_OBJECT_QUEUE, copy_queue},
             {SHD_OBJECT_TOPIC, copy_topic},
             {SHD_OBJECT_LOCK, copy_permits},
             {SHD_OBJECT_SEMAPHORE, copy_permits},
             {SHD_OBJECT_LEADER, copy_permits},
             {SHD_OBJECT_MAILBOX, copy_mailbox}};

int copy_object(struct copy *c, const struct guard_env *env,
                const struct catalogue_object *catalogued)
{
    struct object o;
    int rc = object_view(env, catalogued, &o);

    if (rc != SHD_OK)
        return rc;
    rc = error_set(SHD_UNSUPPORTED,
                   "'%s' is a %s, which snapshots do not know: destroy it "
                   "first",
                   o.name, object_kind_name(o.kind));
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (kinds[i].kind == o.kind)
            rc = kinds[i].copy(c, &o);
    if (rc == SHD_GONE)
        return object_gone_error(&o);
    return rc == SHD_CORRUPT ? object_damaged(&o, "its parts contradict each "
                                                  "other")
                             : rc;
}
