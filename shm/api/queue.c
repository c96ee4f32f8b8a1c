/* SPDX-License-Identifier: BSD-2-Clause */
/* The public queue: checks arguments and handles, and calls the floor below.
 * The contracts are in shdict.h. */
#include "shm/api/object.h"
#include "shm/base/error.h"
#include "shm/ipc/letters.h"

#include <string.h>

struct shd_queue {
    struct handle_object h;
};

static_assert(sizeof(struct queue) <= HANDLE_VIEW_BYTES, "a view has room");

static const struct queue *view(const shd_queue *queue)
{
    return (const struct queue *)(const void *)queue->h.view;
}

static int writer(shd_queue *queue)
{
    return handle_object_writer(queue == NULL ? NULL : &queue->h,
                                SHD_OBJECT_QUEUE);
}

static int reader(shd_queue *queue)
{
    return handle_object_reader(queue == NULL ? NULL : &queue->h,
                                SHD_OBJECT_QUEUE);
}

static int open_view(const struct guard_env *env, const char *name,
                     const void *options, bool create, void *out)
{
    return queue_open(env, name, options, create, out);
}

int shd_queue_open(shd_segment *segment, const char *name,
                   const struct shd_queue_options *o, shd_queue **out)
{
    struct shd_queue_options options;
    struct handle_opening how = {.open = open_view,
                                 .options = o == NULL ? NULL : &options,
                                 .may_create = o != NULL};
    struct handle_object *h;
    int rc = handle_options(o, &options, sizeof(options),
                            "struct shd_queue_options");

    if (rc == SHD_OK && out == NULL)
        rc = error_set(SHD_INVAL, "out is NULL");
    if (rc == SHD_OK)
        rc = handle_object_open(segment, name, &how, &h);
    if (rc == SHD_OK) {
        *out = (shd_queue *)(void *)h;
        letters_introduce(view(*out));
    }
    return rc;
}

int shd_queue_close(shd_queue *queue)
{
    return handle_object_close(queue == NULL ? NULL : &queue->h,
                               SHD_OBJECT_QUEUE);
}

int shd_queue_destroy(shd_segment *segment, const char *name)
{
    return handle_object_destroy(segment, name, SHD_OBJECT_QUEUE);
}

int shd_queue_info(shd_queue *queue, struct shd_queue_info *info)
{
    int rc = reader(queue);

    if (rc != SHD_OK)
        return rc;
    if (info == NULL || info->struct_size != sizeof(*info))
        return error_set(SHD_INVAL,
                         "info is NULL, or its struct_size is not %zu",
                         sizeof(*info));
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    return queue_info(view(queue), info);
}

/* ---- pushing ----------------------------------------------------------- */

static int length_check(size_t len)
{
    return len <= UINT32_MAX
               ? SHD_OK
               : error_set(SHD_TOOBIG, "a message of %zu bytes: at most 4 GiB "
                                       "- 1",
                           len);
}

static int time_check(const char *what, int64_t ms)
{
    return ms >= 0 ? SHD_OK
                   : error_set(SHD_INVAL, "%s of %lld ms: it must not be "
                                          "negative",
                               what, (long long)ms);
}

int shd_queue_push(shd_queue *queue, const void *data, size_t len,
                   int64_t delay_ms, int64_t wait_ms, uint64_t *id)
{
    uint32_t ignored;
    int rc = writer(queue);

    if (rc == SHD_OK && data == NULL && len > 0)
        rc = error_set(SHD_INVAL, "data is NULL");
    if (rc == SHD_OK)
        rc = length_check(len);
    if (rc == SHD_OK)
        rc = time_check("a delay", delay_ms);
    if (rc != SHD_OK)
        return rc;
    return queue_push_many(view(queue), 1, &data, &len, delay_ms, wait_ms, id,
                           &ignored);
}

int shd_queue_push_many(shd_queue *queue, uint32_t count,
                        const void *const *data, const size_t *len,
                        int64_t delay_ms, int64_t wait_ms, uint64_t *ids,
                        uint32_t *pushed)
{
    int rc = writer(queue);

    if (pushed != NULL)
        *pushed = 0;
    if (rc == SHD_OK &&
        (pushed == NULL || (count > 0 && (data == NULL || len == NULL))))
        rc = error_set(SHD_INVAL, "data, len or pushed is NULL");
    for (uint32_t i = 0; rc == SHD_OK && i < count; i++) {
        if (data[i] == NULL && len[i] > 0)
            rc = error_set(SHD_INVAL, "data[%u] is NULL", i);
        else
            rc = length_check(len[i]);
    }
    if (rc == SHD_OK)
        rc = time_check("a delay", delay_ms);
    if (rc != SHD_OK)
        return rc;
    return queue_push_many(view(queue), count, data, len, delay_ms, wait_ms,
                           ids, pushed);
}

int shd_queue_reserve(shd_queue *queue, size_t len, int64_t wait_ms,
                      uint64_t *lease)
{
    int rc = writer(queue);

    if (rc == SHD_OK && lease == NULL)
        rc = error_set(SHD_INVAL, "lease is NULL");
    if (rc == SHD_OK)
        rc = length_check(len);
    if (rc != SHD_OK)
        return rc;
    return queue_reserve(view(queue), len, wait_ms, lease);
}

int shd_queue_write(shd_queue *queue, uint64_t lease, uint64_t at,
                    const void *data, size_t len)
{
    int rc = writer(queue);

    if (rc == SHD_OK && data == NULL && len > 0)
        rc = error_set(SHD_INVAL, "data is NULL");
    return rc != SHD_OK ? rc : queue_write(view(queue), lease, at, data, len);
}

int shd_queue_commit(shd_queue *queue, uint64_t lease, int64_t delay_ms,
                     uint64_t *id)
{
    int rc = writer(queue);

    if (rc == SHD_OK)
        rc = time_check("a delay", delay_ms);
    return rc != SHD_OK ? rc : queue_commit(view(queue), lease, delay_ms, id);
}

int shd_queue_cancel(shd_queue *queue, uint64_t lease)
{
    int rc = writer(queue);

    return rc != SHD_OK ? rc : queue_cancel(view(queue), lease);
}

/* ---- taking ------------------------------------------------------------ */

/* Whoever comes by sends on what has become a dead letter: it is no matter of
 * the caller's if that fails. */
static void send_on(const struct queue *q)
{
    if (letters_wait(q))
        (void)letters_forward(q);
}

/* Where letters come in, an empty queue has them come first. */
static int gather_and_take(const struct queue *q, void *buf, size_t size,
                           int64_t wait_ms, bool lease, uint32_t max,
                           struct shd_message *m, size_t *at, uint32_t *taken)
{
    int rc = queue_take_many(q, buf, size, 0, lease, max, m, at, taken);

    if (rc != SHD_NOTFOUND)
        return rc;
    (void)letters_gather(q);
    return queue_take_many(q, buf, size, wait_ms, lease, max, m, at, taken);
}

static int take(shd_queue *queue, uint32_t max, void *buf, size_t size,
                int64_t wait_ms, bool lease, struct shd_message *m, size_t *at,
                uint32_t *taken)
{
    const struct queue *q;
    int rc = writer(queue);

    if (taken != NULL)
        *taken = 0;
    if (rc == SHD_OK && (max == 0 || m == NULL || at == NULL ||
                         taken == NULL || (buf == NULL && size > 0)))
        rc = error_set(SHD_INVAL, "m or buf is NULL, or at or taken, or max "
                                  "is 0");
    if (rc != SHD_OK)
        return rc;
    q = view(queue);
    rc = letters_come(q) ? gather_and_take(q, buf, size, wait_ms, lease, max,
                                           m, at, taken)
                         : queue_take_many(q, buf, size, wait_ms, lease, max,
                                           m, at, taken);
    if (rc == SHD_OK || rc == SHD_NOTFOUND)
        send_on(q);
    return rc;
}

int shd_queue_pop_many(shd_queue *queue, uint32_t max, void *buf, size_t size,
                       int64_t wait_ms, struct shd_message *m, size_t *at,
                       uint32_t *taken)
{
    return take(queue, max, buf, size, wait_ms, false, m, at, taken);
}

int shd_queue_take_many(shd_queue *queue, uint32_t max, void *buf, size_t size,
                        int64_t wait_ms, struct shd_message *m, size_t *at,
                        uint32_t *taken)
{
    return take(queue, max, buf, size, wait_ms, true, m, at, taken);
}

int shd_queue_pop(shd_queue *queue, void *buf, size_t size, int64_t wait_ms,
                  struct shd_message *m)
{
    uint32_t ignored;
    size_t at;

    return take(queue, 1, buf, size, wait_ms, false, m, &at, &ignored);
}

int shd_queue_take(shd_queue *queue, void *buf, size_t size, int64_t wait_ms,
                   struct shd_message *m)
{
    uint32_t ignored;
    size_t at;

    return take(queue, 1, buf, size, wait_ms, true, m, &at, &ignored);
}

int shd_queue_ack(shd_queue *queue, uint64_t lease)
{
    int rc = writer(queue);

    return rc != SHD_OK ? rc : queue_ack_many(view(queue), 1, &lease, NULL);
}

int shd_queue_ack_many(shd_queue *queue, uint32_t count,
                       const uint64_t *leases, int32_t *codes)
{
    int rc = writer(queue);

    if (rc == SHD_OK && leases == NULL && count > 0)
        rc = error_set(SHD_INVAL, "leases is NULL");
    return rc != SHD_OK ? rc
                        : queue_ack_many(view(queue), count, leases, codes);
}

int shd_queue_nack(shd_queue *queue, uint64_t lease, int64_t delay_ms)
{
    int rc = writer(queue);

    if (rc == SHD_OK)
        rc = time_check("a delay", delay_ms);
    if (rc == SHD_OK)
        rc = queue_nack(view(queue), lease, delay_ms);
    if (rc == SHD_OK)
        send_on(view(queue));
    return rc;
}

int shd_queue_extend(shd_queue *queue, uint64_t lease, int64_t lease_ms)
{
    int rc = writer(queue);

    if (rc == SHD_OK)
        rc = time_check("a lease", lease_ms);
    return rc != SHD_OK ? rc : queue_extend(view(queue), lease, lease_ms);
}

/* ---- the rest ---------------------------------------------------------- */

int shd_queue_peek(shd_queue *queue, uint32_t which, uint64_t index, void *buf,
                   size_t size, struct shd_message *m)
{
    int rc = reader(queue);

    if (rc == SHD_OK && (m == NULL || (buf == NULL && size > 0)))
        rc = error_set(SHD_INVAL, "m or buf is NULL");
    if (rc == SHD_OK &&
        (which < SHD_MESSAGE_READY || which > SHD_MESSAGE_DEAD))
        rc = error_set(SHD_INVAL, "there are no messages of kind %u", which);
    if (rc != SHD_OK)
        return rc;
    return queue_peek(view(queue), which, index, buf, size, m);
}

int shd_queue_drain(shd_queue *queue, uint32_t which, uint64_t max,
                    uint64_t *n)
{
    uint64_t ignored;
    int rc = writer(queue);

    if (rc == SHD_OK && which != 0 && which != SHD_MESSAGE_READY &&
        which != SHD_MESSAGE_DELAYED && which != SHD_MESSAGE_DEAD)
        rc = error_set(SHD_INVAL, "messages of kind %u are not drained",
                       which);
    if (rc != SHD_OK)
        return rc;
    return queue_drain(view(queue), which, max, n != NULL ? n : &ignored);
}

int shd_queue_requeue(shd_queue *queue, uint64_t max, uint64_t *n)
{
    uint64_t ignored;
    int rc = writer(queue);

    if (rc != SHD_OK)
        return rc;
    return queue_requeue(view(queue), max, n != NULL ? n : &ignored);
}

int shd_queue_arm(shd_queue *queue, int room, int64_t *again_ms)
{
    int rc = writer(queue);

    if (rc != SHD_OK)
        return rc;
    if (!room)
        (void)letters_gather(view(queue));
    return queue_arm(view(queue),
                     room ? QUEUE_WAIT_ROOM : QUEUE_WAIT_MESSAGES, again_ms);
}
