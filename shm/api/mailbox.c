/* SPDX-License-Identifier: BSD-2-Clause */
/* The public mailbox: checks arguments and handles, and calls the floor below.
 * The contracts are in shdict.h. */
#include "shm/api/object.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/ipc/mailbox.h"

#include "shm/api/gates.h" /* last */

#include <string.h>

struct shd_mailbox {
    struct handle_object h;
};

static_assert(sizeof(struct mailbox) <= HANDLE_VIEW_BYTES, "a view has room");

static const struct mailbox *view(const shd_mailbox *mailbox)
{
    return (const struct mailbox *)(const void *)mailbox->h.view;
}

static int writer(shd_mailbox *mailbox)
{
    return handle_object_writer(mailbox == NULL ? NULL : &mailbox->h,
                                SHD_OBJECT_MAILBOX);
}

static int reader(shd_mailbox *mailbox)
{
    return handle_object_reader(mailbox == NULL ? NULL : &mailbox->h,
                                SHD_OBJECT_MAILBOX);
}

/* ---- handles ----------------------------------------------------------- */

static int open_view(const struct guard_env *env, const char *name,
                     const void *options, bool create, void *out)
{
    return mailbox_open(env, name, options, create, out);
}

int shd_mailbox_open(shd_segment *segment, const char *name,
                     const struct shd_mailbox_options *o, shd_mailbox **out)
{
    struct shd_mailbox_options options;
    struct handle_opening how = {.open = open_view,
                                 .options = o == NULL ? NULL : &options,
                                 .may_create = o != NULL};
    struct handle_object *h;
    int rc = handle_options(o, &options, sizeof(options),
                            "struct shd_mailbox_options");

    if (rc == SHD_OK && out == NULL)
        rc = error_set(SHD_INVAL, "out is NULL");
    if (rc == SHD_OK)
        rc = handle_object_open(segment, name, &how, &h);
    if (rc == SHD_OK)
        *out = (shd_mailbox *)(void *)h;
    return rc;
}

int shd_mailbox_close(shd_mailbox *mailbox)
{
    return handle_object_close(mailbox == NULL ? NULL : &mailbox->h,
                               SHD_OBJECT_MAILBOX);
}

int shd_mailbox_listen(shd_mailbox *mailbox)
{
    int rc = writer(mailbox);

    return rc != SHD_OK ? rc : mailbox_listen(view(mailbox));
}

int shd_mailbox_leave(shd_mailbox *mailbox)
{
    int rc = writer(mailbox);

    return rc != SHD_OK ? rc : mailbox_leave(view(mailbox));
}

int shd_mailbox_find(shd_mailbox *mailbox, int32_t worker_id,
                     uint64_t *incarnation)
{
    int rc = reader(mailbox);

    if (rc == SHD_OK && (incarnation == NULL || worker_id < 0))
        rc = error_set(SHD_INVAL,
                       "incarnation is NULL, or %d is no worker's id",
                       (int)worker_id);
    return rc != SHD_OK ? rc
                        : mailbox_find(view(mailbox), worker_id, incarnation);
}

/* ---- sending ----------------------------------------------------------- */

static int bytes_check(const void *data, size_t len)
{
    if (data == NULL && len > 0)
        return error_set(SHD_INVAL, "data is NULL");
    return len <= UINT32_MAX
               ? SHD_OK
               : error_set(SHD_TOOBIG, "a message of %zu bytes: at most 4 GiB "
                                       "- 1",
                           len);
}

int shd_mailbox_post(shd_mailbox *mailbox, uint64_t to, const void *data,
                     size_t len, int64_t wait_ms, uint64_t *id)
{
    uint64_t number;
    int rc = writer(mailbox);

    if (rc == SHD_OK)
        rc = bytes_check(data, len);
    if (rc == SHD_OK)
        rc = mailbox_send(view(mailbox), to, data, len, 0, false, wait_ms,
                          &number);
    if (rc == SHD_OK && id != NULL)
        *id = number;
    return rc;
}

/* What is left of a wait. */
static int64_t left_of(int64_t wait_ms, uint64_t since)
{
    uint64_t gone = clock_now_ms() - since;

    if (wait_ms <= 0)
        return wait_ms;
    return gone >= (uint64_t)wait_ms ? 0 : wait_ms - (int64_t)gone;
}

int shd_mailbox_post_all(shd_mailbox *mailbox, const void *data, size_t len,
                         int64_t wait_ms, uint32_t *reached)
{
    uint64_t since = clock_now_ms(), number;
    const struct mailbox *b;
    uint32_t n = 0;
    int rc = writer(mailbox), full = SHD_OK;

    if (rc == SHD_OK)
        rc = bytes_check(data, len);
    if (rc != SHD_OK)
        return rc;
    b = view(mailbox);
    for (uint32_t i = 0; i < b->count && rc == SHD_OK; i++) {
        struct mailbox_box box;

        if (atomic_load64(&b->boxes[i].owner) == 0)
            continue;
        rc = mailbox_box_at(b, i, &box);
        if (rc == SHD_OK && box.listening != 0 &&
            box.owner != b->object.env->incarnation) {
            rc = mailbox_send(b, box.owner, data, len, 0, false,
                              left_of(wait_ms, since), &number);
            n += rc == SHD_OK;
        }
        if (rc == SHD_FULL)
            full = rc;
        if (rc == SHD_FULL || rc == SHD_NOTFOUND || rc == SHD_DEAD)
            rc = SHD_OK;
    }
    if (reached != NULL)
        *reached = n;
    return rc != SHD_OK ? rc : full;
}

/* ---- receiving and answering ------------------------------------------- */

static int buffer_check(const void *buf, size_t size, const struct shd_mail *m)
{
    return m == NULL || (buf == NULL && size > 0)
               ? error_set(SHD_INVAL, "m or buf is NULL")
               : SHD_OK;
}

int shd_mailbox_receive(shd_mailbox *mailbox, void *buf, size_t size,
                        int64_t wait_ms, struct shd_mail *m)
{
    int rc = writer(mailbox);

    if (rc == SHD_OK)
        rc = buffer_check(buf, size, m);
    return rc != SHD_OK
               ? rc
               : mailbox_receive(view(mailbox), buf, size, wait_ms, m);
}

int shd_mailbox_answer(shd_mailbox *mailbox, uint64_t request,
                       const void *data, size_t len, int64_t wait_ms)
{
    int rc = writer(mailbox);

    if (rc == SHD_OK)
        rc = bytes_check(data, len);
    return rc != SHD_OK ? rc
                        : mailbox_answer(view(mailbox), request, data, len,
                                         wait_ms);
}

int shd_mailbox_decline(shd_mailbox *mailbox, uint64_t request)
{
    int rc = writer(mailbox);

    return rc != SHD_OK ? rc : mailbox_decline(view(mailbox), request);
}

/* ---- asking ------------------------------------------------------------ */

int shd_mailbox_request(shd_mailbox *mailbox, uint64_t to, const void *data,
                        size_t len, size_t answer_bytes, int64_t wait_ms,
                        uint64_t *request)
{
    int rc = writer(mailbox);

    if (rc == SHD_OK && request == NULL)
        rc = error_set(SHD_INVAL, "request is NULL");
    if (rc == SHD_OK)
        rc = bytes_check(data, len);
    return rc != SHD_OK ? rc
                        : mailbox_send(view(mailbox), to, data, len,
                                       answer_bytes, true, wait_ms, request);
}

int shd_mailbox_await(shd_mailbox *mailbox, uint64_t request, void *buf,
                      size_t size, int64_t wait_ms, struct shd_mail *m)
{
    int rc = writer(mailbox);

    if (rc == SHD_OK)
        rc = buffer_check(buf, size, m);
    return rc != SHD_OK ? rc
                        : mailbox_await(view(mailbox), request, buf, size,
                                        wait_ms, m);
}

int shd_mailbox_cancel(shd_mailbox *mailbox, uint64_t request)
{
    int rc = writer(mailbox);

    return rc != SHD_OK ? rc : mailbox_cancel(view(mailbox), request);
}

int shd_mailbox_call(shd_mailbox *mailbox, uint64_t to, const void *data,
                     size_t len, void *buf, size_t size, int64_t wait_ms,
                     struct shd_mail *m)
{
    uint64_t since = clock_now_ms(), request;
    int rc = writer(mailbox);

    if (rc == SHD_OK)
        rc = bytes_check(data, len);
    if (rc == SHD_OK)
        rc = buffer_check(buf, size, m);
    if (rc == SHD_OK)
        rc = mailbox_send(view(mailbox), to, data, len, 0, true, wait_ms,
                          &request);
    if (rc != SHD_OK)
        return rc;
    rc = mailbox_await(view(mailbox), request, buf, size,
                       left_of(wait_ms, since), m);
    if (rc == 1 || rc == SHD_BUSY) {
        (void)mailbox_cancel(view(mailbox), request);
        rc = error_set(SHD_BUSY, "worker %llu has not answered in time",
                       (unsigned long long)to);
    }
    return rc;
}

/* ---- the rest ---------------------------------------------------------- */

int shd_mailbox_arm(shd_mailbox *mailbox)
{
    int rc = writer(mailbox);

    return rc != SHD_OK ? rc : mailbox_arm(view(mailbox));
}

int shd_mailbox_arm_room(shd_mailbox *mailbox, uint64_t to, size_t len)
{
    int rc = writer(mailbox);

    return rc != SHD_OK ? rc : mailbox_arm_room(view(mailbox), to, len);
}

int shd_mailbox_info(shd_mailbox *mailbox, struct shd_mailbox_info *info)
{
    int rc = reader(mailbox);

    if (rc == SHD_OK &&
        (info == NULL || info->struct_size != sizeof(*info)))
        rc = error_set(SHD_INVAL,
                       "info is NULL, or its struct_size is not %zu",
                       sizeof(*info));
    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    return mailbox_info(view(mailbox), info);
}

int shd_mailbox_box(shd_mailbox *mailbox, uint32_t index,
                    struct shd_box_info *info)
{
    const struct mailbox *b;
    struct mailbox_box box;
    int rc = reader(mailbox);

    if (rc == SHD_OK &&
        (info == NULL || info->struct_size != sizeof(*info)))
        rc = error_set(SHD_INVAL,
                       "info is NULL, or its struct_size is not %zu",
                       sizeof(*info));
    if (rc != SHD_OK)
        return rc;
    b = view(mailbox);
    rc = mailbox_box_at(b, index, &box);
    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    info->dead = registry_is_dead(b->object.env, box.owner);
    info->owner = box.owner;
    info->listening = box.listening;
    info->waiting = box.n_inbox;
    info->working = box.n_taken;
    info->answers = box.n_answers;
    return SHD_OK;
}

int shd_mailbox_peek(shd_mailbox *mailbox, uint32_t index, uint64_t at,
                     void *buf, size_t size, struct shd_mail *m)
{
    int rc = reader(mailbox);

    if (rc == SHD_OK)
        rc = buffer_check(buf, size, m);
    return rc != SHD_OK
               ? rc
               : mailbox_peek(view(mailbox), index, at, buf, size, m);
}
