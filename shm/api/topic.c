/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The public topic: arguments, handles, and the loops around waiting. The
 * contracts are in shdict.h.
 */
#include "shm/api/object.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/ipc/topic.h"
#include "shm/worker/registry.h"

#include "shm/api/gates.h" /* last */

#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct topic) <= HANDLE_VIEW_BYTES, "a view of a handle");

/* A subscription keeps its topic open. */
struct shd_subscription {
    struct handle_object *topic;
    struct topic_subscriber s;
};

static struct handle_object *handle(shd_topic *topic)
{
    return (struct handle_object *)(void *)topic;
}

static const struct topic *view(const struct handle_object *h)
{
    return (const struct topic *)(const void *)h->view;
}

static int reader(shd_topic *topic)
{
    return handle_object_reader(handle(topic), SHD_OBJECT_TOPIC);
}

static int writer(shd_topic *topic)
{
    return handle_object_writer(handle(topic), SHD_OBJECT_TOPIC);
}

/* ---- handles ----------------------------------------------------------- */

static int open_view(const struct guard_env *env, const char *name,
                     const void *options, bool create, void *out)
{
    return topic_open(env, name, options, create, out);
}

int shd_topic_open(shd_segment *segment, const char *name,
                   const struct shd_topic_options *o, shd_topic **out)
{
    struct shd_topic_options options;
    struct handle_opening how = {.open = open_view, .options = &options};
    struct handle_object *h;
    int rc = handle_options(o, &options, sizeof(options),
                            "struct shd_topic_options");

    if (rc == SHD_OK && out == NULL)
        rc = error_set(SHD_INVAL, "shd_topic_open: out is NULL");
    if (rc == SHD_OK && (options.flags & ~(uint32_t)(SHD_TOPIC_CREATE |
                                                     SHD_TOPIC_LOSSLESS)) != 0)
        rc = error_set(SHD_INVAL, "shd_topic_open: unknown flags %u",
                       options.flags);
    if (rc != SHD_OK)
        return rc;
    how.may_create = (options.flags & SHD_TOPIC_CREATE) != 0;
    options.flags &= ~(uint32_t)SHD_TOPIC_CREATE;
    rc = handle_object_open(segment, name, &how, &h);
    if (rc == SHD_OK)
        *out = (shd_topic *)(void *)h;
    return rc;
}

int shd_topic_close(shd_topic *topic)
{
    return handle_object_close(handle(topic), SHD_OBJECT_TOPIC);
}

/* ---- publishing -------------------------------------------------------- */

/* There is no room for the next event: SHD_OK if there may be now. */
static int make_room(const struct topic *t, size_t len, uint64_t until_ms)
{
    /* The dead hold nobody up. */
    int rc = topic_bury_all(t);

    if (rc != 0)
        return rc < 0 ? rc : SHD_OK;
    if (until_ms == 0 || clock_now_ms() >= until_ms)
        return error_set(SHD_FULL,
                         "a subscriber of topic '%s' has not read what would "
                         "have to go",
                         t->object.name);
    return topic_wait_room(t, len, until_ms);
}

static int publish(const struct topic *t, uint32_t count,
                   const void *const *data, const size_t *len,
                   int64_t wait_ms, uint64_t *seqs, uint32_t *published)
{
    struct wait_end end;
    uint64_t first;
    uint32_t done = 0, n;
    int rc = wait_begin(&end, wait_ms);

    while (rc == SHD_OK && done < count) {
        rc = topic_publish_many(t, data + done, len + done, count - done, &n,
                                &first);
        for (uint32_t i = 0; rc == SHD_OK && seqs != NULL && i < n; i++)
            seqs[done + i] = first + i;
        done += n;
        if (rc == SHD_FULL)
            rc = make_room(t, len[done], wait_until(&end));
    }
    *published = done;
    return rc;
}

int shd_topic_publish(shd_topic *topic, const void *data, size_t len,
                      int64_t wait_ms, uint64_t *seq)
{
    uint32_t ignored;
    int rc = writer(topic);

    if (rc == SHD_OK && data == NULL && len > 0)
        rc = error_set(SHD_INVAL, "shd_topic_publish: data is NULL");
    if (rc == SHD_OK && wait_ms >= SHD_FOREVER)
        rc = topic_publish(view(handle(topic)), data, len, seq);
    else if (rc == SHD_OK)
        rc = SHD_FULL; /* publish looks at wait_ms */
    return rc != SHD_FULL ? rc
                          : publish(view(handle(topic)), 1, &data, &len,
                                    wait_ms, seq, &ignored);
}

int shd_topic_publish_many(shd_topic *topic, uint32_t count,
                           const void *const *data, const size_t *len,
                           int64_t wait_ms, uint64_t *seqs,
                           uint32_t *published)
{
    int rc = writer(topic);

    if (published != NULL)
        *published = 0;
    if (rc == SHD_OK &&
        (published == NULL || (count > 0 && (data == NULL || len == NULL))))
        rc = error_set(SHD_INVAL, "data, len or published is NULL");
    for (uint32_t i = 0; rc == SHD_OK && i < count; i++)
        if (data[i] == NULL && len[i] > 0)
            rc = error_set(SHD_INVAL, "data[%u] is NULL", i);
    if (rc != SHD_OK)
        return rc;
    return publish(view(handle(topic)), count, data, len, wait_ms, seqs,
                   published);
}

/* ---- subscribing ------------------------------------------------------- */

static int name_check(const char *name)
{
    return name == NULL ? SHD_OK : catalogue_name_check(name);
}

int shd_topic_subscribe(shd_topic *topic, const char *name, uint32_t from,
                        shd_subscription **out)
{
    const struct topic *t;
    shd_subscription *s;
    int rc = reader(topic);

    if (rc == SHD_OK)
        rc = name_check(name);
    if (rc == SHD_OK && (out == NULL || from > SHD_FROM_OLDEST))
        rc = error_set(SHD_INVAL, "shd_topic_subscribe: out is NULL, or from "
                                  "is unknown");
    if (rc != SHD_OK)
        return rc;
    t = view(handle(topic));
    if (name != NULL || (t->flags & SHD_TOPIC_LOSSLESS) != 0)
        rc = writer(topic);
    if (rc != SHD_OK)
        return rc;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_set(SHD_NOMEM, "no memory for a subscription");
    s->topic = handle(topic);
    rc = topic_subscribe(t, name, from, &s->s);
    if (rc != SHD_OK) {
        free(s);
        return rc;
    }
    *out = s;
    return SHD_OK;
}

static int subscription_check(shd_subscription *s)
{
    if (s == NULL)
        return error_set(SHD_INVAL, "the subscription is NULL");
    return s->s.cursor != 0
               ? handle_object_writer(s->topic, SHD_OBJECT_TOPIC)
               : handle_object_reader(s->topic, SHD_OBJECT_TOPIC);
}

int shd_subscription_close(shd_subscription *s)
{
    int rc;

    if (s == NULL)
        return error_set(SHD_INVAL, "the subscription is NULL");
    rc = subscription_check(s);
    /* Another worker's, or one that is gone, is nothing to end. */
    if (rc == SHD_OK)
        rc = topic_unsubscribe(view(s->topic), &s->s);
    free(s);
    return rc == SHD_LOST || rc == SHD_GONE || rc == SHD_CLOSED ? SHD_OK : rc;
}

/* Of what is not there yet, waits for it. */
static int wait_for_news(const struct topic *t, shd_subscription *s,
                         uint64_t until_ms)
{
    if (until_ms == 0 || clock_now_ms() >= until_ms)
        return SHD_NOTFOUND;
    if (t->object.env->segment->writable)
        return topic_look_for_news(t, &s->s)
                   ? SHD_OK
                   : topic_wait_news(t, &s->s, until_ms);
    topic_nap(t, &s->s, until_ms);
    return SHD_OK;
}

int shd_subscription_next(shd_subscription *s, void *buf, size_t size,
                          int64_t wait_ms, struct shd_event *events,
                          uint32_t max, uint32_t *count, uint64_t *missed)
{
    struct wait_end end;
    const struct topic *t;
    int rc = subscription_check(s);

    if (rc == SHD_OK)
        rc = wait_begin(&end, wait_ms);
    if (rc == SHD_OK && (events == NULL || max == 0 || count == NULL ||
                         missed == NULL || (buf == NULL && size > 0)))
        rc = error_set(SHD_INVAL, "shd_subscription_next: a pointer is NULL, "
                                  "or max is 0");
    if (rc != SHD_OK)
        return rc;
    t = view(s->topic);
    for (;;) {
        rc = topic_next(t, &s->s, buf, size, events, max, count, missed);
        if (rc == SHD_SPACE)
            return error_set(rc, "an event of %llu bytes, and room for %zu",
                             (unsigned long long)events[0].len, size);
        if (rc != SHD_OK || *count > 0 || *missed > 0)
            return rc;
        rc = wait_for_news(t, s, wait_until(&end));
        if (rc != SHD_OK)
            return rc;
    }
}

int shd_subscription_acknowledge(shd_subscription *s)
{
    int rc = subscription_check(s);

    return rc == SHD_OK ? topic_acknowledge(view(s->topic), &s->s) : rc;
}

int shd_subscription_arm(shd_subscription *s)
{
    int rc = subscription_check(s);

    if (rc == SHD_OK)
        rc = handle_object_writer(s->topic, SHD_OBJECT_TOPIC);
    return rc == SHD_OK ? topic_arm(view(s->topic), &s->s) : rc;
}

int shd_topic_forget(shd_topic *topic, const char *name)
{
    int rc = writer(topic);

    if (rc == SHD_OK)
        rc = catalogue_name_check(name);
    return rc == SHD_OK ? topic_forget(view(handle(topic)), name) : rc;
}

/* ---- looking ----------------------------------------------------------- */

int shd_topic_info(shd_topic *topic, struct shd_topic_info *info)
{
    struct topic_span span;
    const struct topic *t;
    int rc = reader(topic);

    if (rc == SHD_OK && (info == NULL || info->struct_size != sizeof(*info)))
        rc = error_set(SHD_INVAL,
                       "info is NULL, or its struct_size is not %zu",
                       sizeof(*info));
    if (rc != SHD_OK)
        return rc;
    t = view(handle(topic));
    rc = topic_look(t, &span);
    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    info->lossless = (t->flags & SHD_TOPIC_LOSSLESS) != 0;
    info->generation = t->object.generation;
    info->capacity_bytes = t->capacity;
    info->kept_bytes = span.head_at - span.tail_at;
    info->published = span.head_seq;
    info->oldest = span.tail_seq;
    info->cursors = atomic_load32(&t->header->subscribers);
    info->cursors_max = t->cursors_max;
    memcpy(info->name, t->object.name, sizeof(info->name));
    return SHD_OK;
}

int shd_topic_cursor(shd_topic *topic, uint32_t index,
                     struct shd_cursor_info *info)
{
    struct topic_cursor copy;
    struct topic_span span;
    const struct topic *t;
    int rc = reader(topic);

    if (rc == SHD_OK && (info == NULL || info->struct_size != sizeof(*info)))
        rc = error_set(SHD_INVAL,
                       "info is NULL, or its struct_size is not %zu",
                       sizeof(*info));
    if (rc != SHD_OK)
        return rc;
    t = view(handle(topic));
    rc = topic_cursor_at(t, index, &copy);
    if (rc == SHD_OK)
        rc = topic_look(t, &span);
    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    info->owner = copy.owner;
    info->dead = copy.owner != 0 && registry_is_dead(t->object.env, copy.owner);
    info->next = copy.seq;
    info->behind =
        span.head_seq + 1 > copy.seq ? span.head_seq + 1 - copy.seq : 0;
    memcpy(info->name, copy.name, sizeof(info->name));
    return SHD_OK;
}
