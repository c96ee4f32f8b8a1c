/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/ipc/remake.h"
#include "shm/base/error.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"

#include <string.h>

/* A number that has been counted up to is less; a scribbled one seldom is. */
#define COUNTED_MAX (1ull << 56)

/* What an object is made from. */
struct recipe {
    const struct guard_env *env;
    const struct catalogue_object *object;
    union {
        struct shd_queue_options queue;
        struct shd_topic_options topic;
        struct shd_mailbox_options mailbox;
        struct {
            uint32_t permits, waiters_max;
        } lock;
    } o;
    char dead_to[64]; /* of a queue */
    uint64_t at;      /* of a topic: where the next event goes */
    uint64_t counted; /* the last number that was given */
};

static uint64_t believed(uint64_t counted)
{
    return counted < COUNTED_MAX ? counted : 0;
}

/* ---- queues ------------------------------------------------------------ */

static void plain_queue(struct recipe *r)
{
    memset(&r->o, 0, sizeof(r->o));
    r->o.queue.struct_size = sizeof(r->o.queue);
    r->o.queue.capacity_bytes = r->object->size_bytes;
}

static void read_queue(struct recipe *r, const struct object *o)
{
    const struct queue_header *h = object_own(o, 0, sizeof(*h));

    plain_queue(r);
    if (h == NULL || h->capacity_bytes != r->object->size_bytes)
        return;
    r->o.queue.message_bytes = h->message_bytes;
    r->o.queue.messages_max = h->messages_max;
    r->o.queue.lease_ms = h->lease_ms;
    r->o.queue.deliveries_max = h->deliveries_max;
    memcpy(r->dead_to, h->dead_to, sizeof(r->dead_to) - 1);
    if (catalogue_name_check(r->dead_to) == SHD_OK &&
        strcmp(r->dead_to, r->object->name) != 0)
        r->o.queue.dead_to = r->dead_to;
    r->counted = believed(atomic_load64(&h->ids));
}

static int make_queue(const struct recipe *r)
{
    struct queue q;

    return queue_make(r->env, r->object->name, &r->o.queue, r->counted, &q);
}

/* ---- topics ------------------------------------------------------------ */

static void plain_topic(struct recipe *r)
{
    memset(&r->o, 0, sizeof(r->o));
    r->o.topic.struct_size = sizeof(r->o.topic);
    r->o.topic.capacity_bytes = r->object->size_bytes;
}

static void read_topic(struct recipe *r, const struct object *o)
{
    struct topic_span span;
    struct topic t;

    plain_topic(r);
    if (topic_view(o, &t) != SHD_OK)
        return;
    r->o.topic.capacity_bytes = t.capacity;
    r->o.topic.subscribers_max = t.cursors_max;
    r->o.topic.flags = t.flags;
    /* As far as it can be followed, sound or not. */
    (void)topic_span_load(&t, &span);
    r->counted = believed(span.head_seq);
    r->at = span.head_at;
    if (r->at % TOPIC_UNIT != 0 || r->at >= COUNTED_MAX)
        r->at = 0;
}

static int make_topic(const struct recipe *r)
{
    struct topic t;

    return topic_make(r->env, r->object->name, &r->o.topic, r->at,
                      r->counted + 1, &t);
}

/* ---- locks, semaphores, leaders ---------------------------------------- */

static void plain_lock(struct recipe *r)
{
    memset(&r->o, 0, sizeof(r->o));
    r->o.lock.permits = r->object->size_bytes <= PERMITS_MAX
                            ? (uint32_t)r->object->size_bytes
                            : 1;
}

static void read_lock(struct recipe *r, const struct object *o)
{
    struct permits p;

    plain_lock(r);
    if (permits_view(o, &p) != SHD_OK)
        return;
    r->o.lock.permits = p.permits;
    r->o.lock.waiters_max = p.waiters_max;
    r->counted = believed(atomic_load64(&p.header->tokens));
}

static int make_lock(const struct recipe *r)
{
    return permits_make(r->env, r->object->name, r->object->kind,
                        r->o.lock.permits, r->o.lock.waiters_max, r->counted);
}

/* ---- mailboxes --------------------------------------------------------- */

static void plain_mailbox(struct recipe *r)
{
    memset(&r->o, 0, sizeof(r->o));
    r->o.mailbox.struct_size = sizeof(r->o.mailbox);
    r->o.mailbox.capacity_bytes = r->object->size_bytes;
}

static void read_mailbox(struct recipe *r, const struct object *o)
{
    const struct mailbox_header *h = object_own(o, 0, sizeof(*h));

    plain_mailbox(r);
    if (h == NULL || h->capacity_bytes != r->object->size_bytes)
        return;
    r->o.mailbox.message_bytes = h->message_bytes;
    r->o.mailbox.box_bytes = h->box_bytes;
}

static int make_mailbox(const struct recipe *r)
{
    struct mailbox b;

    return mailbox_open(r->env, r->object->name, &r->o.mailbox, true, &b);
}

/* ---- any --------------------------------------------------------------- */

static const struct remaker {
    uint32_t kind;
    void (*read)(struct recipe *r, const struct object *o);
    void (*plain)(struct recipe *r);
    int (*make)(const struct recipe *r);
} REMAKERS[] = {
    {SHD_OBJECT_QUEUE, read_queue, plain_queue, make_queue},
    {SHD_OBJECT_TOPIC, read_topic, plain_topic, make_topic},
    {SHD_OBJECT_LOCK, read_lock, plain_lock, make_lock},
    {SHD_OBJECT_SEMAPHORE, read_lock, plain_lock, make_lock},
    {SHD_OBJECT_LEADER, read_lock, plain_lock, make_lock},
    {SHD_OBJECT_MAILBOX, read_mailbox, plain_mailbox, make_mailbox},
};

static int make(const struct remaker *m, struct recipe *r)
{
    int rc = m->make(r);

    /* Properties that nobody can have asked for: they were scribbled. */
    if (rc == SHD_INVAL || rc == SHD_NOMEM) {
        m->plain(r);
        rc = m->make(r);
    }
    return rc;
}

int remake_object(const struct guard_env *env,
                  const struct catalogue_object *c)
{
    struct guard_env replacing = *env;
    struct recipe r = {.env = &replacing, .object = c}, alone;
    const struct remaker *m = NULL;
    struct object o;
    int rc;

    for (size_t i = 0; i < sizeof(REMAKERS) / sizeof(REMAKERS[0]); i++)
        if (REMAKERS[i].kind == c->kind)
            m = &REMAKERS[i];
    if (m == NULL)
        return error_set(SHD_UNSUPPORTED, "'%s' is of no kind there is",
                         c->name);
    if (object_view(env, c, &o) == SHD_OK)
        m->read(&r, &o);
    else
        m->plain(&r);
    alone = r;
    alone.env = env;
    replacing.replacing = c->generation;
    rc = make(m, &r);
    if (rc != SHD_NOMEM && rc != SHD_FULL)
        return rc;
    rc = object_destroy(env, c->name);
    return rc == SHD_OK ? make(m, &alone) : rc;
}
