/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/api/holds.h"
#include "shm/base/error.h"
#include "shm/dict/lease.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"
#include "shm/worker/registry.h"

#include <string.h>

static uint64_t locks_among(const struct segment *s, uint64_t incarnation,
                            uint32_t first, uint32_t count)
{
    uint32_t guards = catalogue_guards(s);
    uint64_t n = 0;

    for (uint32_t i = first; i < guards && i - first < count; i++)
        n += guard_holder(guard_at(s, i)) == incarnation;
    return n;
}

/* What a worker holds of one object. SHD_OK and the count, which may be 0. */
typedef int holds_counter(const struct guard_env *env,
                          const struct catalogue_object *object,
                          uint64_t incarnation, uint64_t *count);

static int messages_of(const struct guard_env *env,
                       const struct catalogue_object *object,
                       uint64_t incarnation, uint64_t *count)
{
    struct object o;
    struct queue q;
    int rc = object_view(env, object, &o);

    if (rc == SHD_OK)
        rc = queue_view(&o, &q);
    return rc == SHD_OK ? queue_held(&q, incarnation, count) : rc;
}

static int cursors_of(const struct guard_env *env,
                      const struct catalogue_object *object,
                      uint64_t incarnation, uint64_t *count)
{
    struct object o;
    struct topic t;
    int rc = object_view(env, object, &o);

    if (rc == SHD_OK)
        rc = topic_view(&o, &t);
    return rc == SHD_OK ? topic_held(&t, incarnation, count) : rc;
}

static int permits_of(const struct guard_env *env,
                      const struct catalogue_object *object,
                      uint64_t incarnation, uint64_t *count)
{
    struct object o;
    struct permits p;
    int rc = object_view(env, object, &o);

    if (rc == SHD_OK)
        rc = permits_view(&o, &p);
    return rc == SHD_OK ? permits_held(&p, incarnation, count) : rc;
}

/* Requests that it has taken. */
static int requests_of(const struct guard_env *env,
                       const struct catalogue_object *object,
                       uint64_t incarnation, uint64_t *count)
{
    struct mailbox_box box;
    struct mailbox b;
    struct object o;
    int rc = object_view(env, object, &o);

    *count = 0;
    if (rc == SHD_OK)
        rc = mailbox_view(&o, &b);
    if (rc == SHD_OK)
        rc = mailbox_box_at(&b, registry_index(incarnation), &box);
    if (rc == SHD_OK && box.owner == incarnation)
        *count = box.n_taken;
    return rc == SHD_NOTFOUND ? SHD_OK : rc;
}

/* Elements of lists. */
static int leases_of(const struct guard_env *env,
                     const struct catalogue_object *object,
                     uint64_t incarnation, uint64_t *count)
{
    struct dict d;
    int rc = dict_view(env, object, &d);

    return rc == SHD_OK ? leases_held(&d, incarnation, count) : rc;
}

static const struct {
    uint32_t kind;
    holds_counter *count;
} COUNTERS[] = {
    {SHD_OBJECT_DICT, leases_of},
    {SHD_OBJECT_QUEUE, messages_of},
    {SHD_OBJECT_TOPIC, cursors_of},
    {SHD_OBJECT_LOCK, permits_of},
    {SHD_OBJECT_SEMAPHORE, permits_of},
    {SHD_OBJECT_LEADER, permits_of},
    {SHD_OBJECT_MAILBOX, requests_of},
};

static holds_counter *counter_of(uint32_t kind)
{
    for (size_t i = 0; i < sizeof(COUNTERS) / sizeof(COUNTERS[0]); i++) {
        if (COUNTERS[i].kind == kind)
            return COUNTERS[i].count;
    }
    return NULL;
}

static int nothing(uint64_t incarnation)
{
    return error_set(SHD_NOTFOUND, "worker %llu holds nothing there",
                     (unsigned long long)incarnation);
}

int holds_at(const struct guard_env *env, uint64_t incarnation,
             uint32_t index, struct shd_hold *hold)
{
    struct catalogue_object o;
    holds_counter *counter = NULL;
    uint64_t count = 0, locks = 0;
    int rc = SHD_OK;

    if (incarnation == 0)
        return error_set(SHD_INVAL, "no worker has the incarnation 0");
    memset(&o, 0, sizeof(o));
    if (index == 0) {
        locks = locks_among(env->segment, incarnation, 0, GUARD_FIRST_OBJECT);
    } else {
        rc = catalogue_at(env, index - 1, &o);
        if (rc == SHD_OK) {
            counter = counter_of(o.kind);
            locks = locks_among(env->segment, incarnation, o.guards_first,
                                o.guards);
        }
    }
    if (rc == SHD_OK)
        rc = counter == NULL ? SHD_OK
                             : counter(env, &o, incarnation, &count);
    /* Destroyed meanwhile: it holds nothing of it. */
    if (rc == SHD_NOTFOUND || rc == SHD_GONE)
        return nothing(incarnation);
    if (rc != SHD_OK)
        return rc;
    if (count + locks == 0)
        return nothing(incarnation);
    if (counter == NULL || o.kind == SHD_OBJECT_DICT)
        count += locks;
    memset(hold, 0, sizeof(*hold));
    hold->struct_size = sizeof(*hold);
    hold->kind = o.kind;
    hold->count = count;
    hold->locks = locks;
    memcpy(hold->object, o.name, sizeof(hold->object));
    return SHD_OK;
}

uint32_t holds_locks(const struct segment *s, uint64_t incarnation)
{
    return (uint32_t)locks_among(s, incarnation, 0, s->locks_max);
}
