/* SPDX-License-Identifier: BSD-2-Clause */
/* The objects that are no dicts: every call about them, which does not wait. */
#include "tests/wild/play.h"

#include <stdlib.h>
#include <string.h>

#define LONGEST 20000u

static const struct shd_queue_options QUEUE = {
    .struct_size = sizeof(QUEUE),
    .capacity_bytes = 40 << 10,
    .deliveries_max = 3};
static const struct shd_topic_options TOPIC = {
    .struct_size = sizeof(TOPIC),
    .flags = SHD_TOPIC_CREATE,
    .capacity_bytes = 4096,
    .subscribers_max = 6};
static const struct shd_topic_options LOSSLESS = {
    .struct_size = sizeof(LOSSLESS),
    .flags = SHD_TOPIC_CREATE | SHD_TOPIC_LOSSLESS,
    .capacity_bytes = 4096,
    .subscribers_max = 4};
static const struct shd_mailbox_options MAILBOX = {
    .struct_size = sizeof(MAILBOX), .capacity_bytes = 40 << 10};
static const struct shd_lock_options LOCK = {.struct_size = sizeof(LOCK),
                                             .flags = SHD_LOCK_CREATE,
                                             .waiters_max = 3};
static const struct shd_lock_options SEMAPHORE = {
    .struct_size = sizeof(SEMAPHORE),
    .flags = SHD_LOCK_CREATE,
    .permits = 2,
    .waiters_max = 3};

/* 1 is an answer of some of them. */
static int answer(struct play *p, int rc)
{
    (void)play_answer(p, rc == 1 ? 0 : rc);
    return rc;
}

static void open_in(struct play *p, shd_segment *s, struct play_objects *o,
                    bool make)
{
    if (o->queue == NULL &&
        answer(p, shd_queue_open(s, "queue", make ? &QUEUE : NULL,
                                 &o->queue)) != SHD_OK)
        o->queue = NULL;
    for (int i = 0; i < 2; i++) {
        if (o->topic[i] == NULL &&
            answer(p, shd_topic_open(s, i == 0 ? "topic" : "lossless",
                                     !make    ? NULL
                                     : i == 0 ? &TOPIC
                                              : &LOSSLESS,
                                     &o->topic[i])) != SHD_OK)
            o->topic[i] = NULL;
        if (o->lock[i] == NULL &&
            answer(p, shd_lock_open(s, i == 0 ? "lock" : "semaphore",
                                    i == 0 ? SHD_OBJECT_LOCK
                                           : SHD_OBJECT_SEMAPHORE,
                                    !make    ? NULL
                                    : i == 0 ? &LOCK
                                             : &SEMAPHORE,
                                    &o->lock[i])) != SHD_OK)
            o->lock[i] = NULL;
    }
    if (o->mailbox == NULL &&
        answer(p, shd_mailbox_open(s, "mailbox", make ? &MAILBOX : NULL,
                                   &o->mailbox)) != SHD_OK)
        o->mailbox = NULL;
}

void play_ipc_open(struct play *p)
{
    p->doing = "open";
    if (p->segment != NULL)
        open_in(p, p->segment, &p->own, false);
    if (p->readonly != NULL)
        open_in(p, p->readonly, &p->seen, false);
}

void play_ipc_create(struct play *p)
{
    uint64_t n;
    char text[200];

    memset(text, 'x', sizeof(text));
    open_in(p, p->segment, &p->own, true);
    if (p->own.queue == NULL || p->own.topic[1] == NULL ||
        p->own.lock[1] == NULL || p->own.mailbox == NULL)
        play_fail(p, "%s", shd_last_error());
    for (int i = 0; i < 6; i++) {
        if (shd_queue_push(p->own.queue, text, (size_t)(i * i * 8),
                           i % 3 == 2 ? 5000 : 0, 0, &n) != SHD_OK ||
            shd_topic_publish(p->own.topic[i % 2], text, (size_t)i * 30, 0,
                              &n) != SHD_OK)
            play_fail(p, "%s", shd_last_error());
    }
}

void play_ipc_forget(struct play *p)
{
    for (int i = 0; i < 2; i++) {
        if (p->subscription[i] != NULL)
            (void)play_answer(p, shd_subscription_close(p->subscription[i]));
        p->subscription[i] = NULL;
    }
    memset(p->name, 0, sizeof(p->name));
}

/* ---- what is used as a name of something ------------------------------------- */

/* What a call gave, not long ago; or something like it. */
static uint64_t some_name(struct play *p)
{
    uint64_t n = p->name[play_draw(p, PLAY_NAMED)];

    switch (play_draw(p, 16)) {
    case 14: return n + 1;
    case 15: return n ^ 1ull << play_draw(p, 64);
    default: return n;
    }
}

static void keep(struct play *p, uint64_t name)
{
    p->name[p->named++ % PLAY_NAMED] = name;
}

static size_t some_len(struct play *p)
{
    switch (play_draw(p, 4)) {
    case 0: return 4;
    case 1: return play_draw(p, 300);
    case 2: return play_draw(p, 3000);
    default: return play_draw(p, 8) == 0 ? LONGEST : 40;
    }
}

struct buffer {
    unsigned char *bytes;
    size_t size;
};

static struct buffer buffer_of(size_t size)
{
    struct buffer b = {malloc(size + (size == 0)), size};

    if (b.bytes == NULL)
        abort();
    memset(b.bytes, 0x61, size);
    return b;
}

static void check_len(struct play *p, int rc, uint64_t len, size_t size)
{
    if (rc == SHD_OK && len > size)
        play_fail(p, "%llu bytes in a buffer of %zu", (unsigned long long)len,
                  size);
}

/* ---- looking ----------------------------------------------------------------- */

static void look_at_queue(struct play *p, const struct play_objects *o)
{
    struct shd_queue_info i = {.struct_size = sizeof(i)};
    struct buffer b = buffer_of(some_len(p));
    struct shd_message m;
    uint64_t which = 1 + play_draw(p, 5);

    p->doing = "queue_peek";
    (void)answer(p, shd_queue_info(o->queue, &i));
    for (uint64_t n = 0; n < 20; n++)
        if (answer(p, shd_queue_peek(o->queue, (uint32_t)which, n, b.bytes,
                                     b.size, &m)) != SHD_OK)
            break;
    free(b.bytes);
}

static void look_at_topic(struct play *p, const struct play_objects *o)
{
    struct shd_topic_info i = {.struct_size = sizeof(i)};
    struct shd_cursor_info c = {.struct_size = sizeof(c)};
    shd_topic *t = o->topic[play_draw(p, 2)];

    p->doing = "topic_info";
    if (t == NULL)
        return;
    (void)answer(p, shd_topic_info(t, &i));
    if (answer(p, shd_topic_cursor(t, (uint32_t)play_draw(p, 9), &c)) ==
            SHD_OK &&
        memchr(c.name, 0, sizeof(c.name)) == NULL)
        play_fail(p, "a name without an end");
}

static void look_at_lock(struct play *p, const struct play_objects *o)
{
    struct shd_lock_info i = {.struct_size = sizeof(i)};
    struct shd_holder h = {.struct_size = sizeof(h)};
    shd_lock *l = o->lock[play_draw(p, 2)];

    p->doing = "lock_info";
    if (l == NULL)
        return;
    (void)answer(p, shd_lock_info(l, &i));
    (void)answer(p, shd_lock_holder(l, (uint32_t)play_draw(p, 4), &h));
}

static void look_at_mailbox(struct play *p, const struct play_objects *o)
{
    struct shd_mailbox_info i = {.struct_size = sizeof(i)};
    struct shd_box_info box = {.struct_size = sizeof(box)};
    struct buffer b = buffer_of(some_len(p));
    uint32_t index = (uint32_t)play_draw(p, 18);
    struct shd_mail m;

    p->doing = "mailbox_peek";
    (void)answer(p, shd_mailbox_info(o->mailbox, &i));
    (void)answer(p, shd_mailbox_box(o->mailbox, index, &box));
    (void)answer(p, shd_mailbox_peek(o->mailbox, index, play_draw(p, 4),
                                     b.bytes, b.size, &m));
    free(b.bytes);
}

static void look(struct play *p, const struct play_objects *o)
{
    switch (play_draw(p, 4)) {
    case 0:
        if (o->queue != NULL)
            look_at_queue(p, o);
        break;
    case 1: look_at_topic(p, o); break;
    case 2: look_at_lock(p, o); break;
    default:
        if (o->mailbox != NULL)
            look_at_mailbox(p, o);
        break;
    }
}

/* ---- changing ---------------------------------------------------------------- */

static void reserve(struct play *p, struct buffer b)
{
    shd_queue *q = p->own.queue;
    uint64_t lease, id;

    p->doing = "queue_reserve";
    if (answer(p, shd_queue_reserve(q, b.size, 0, &lease)) != SHD_OK)
        return;
    keep(p, lease);
    (void)answer(p, shd_queue_write(q, lease, play_draw(p, 9) * b.size / 8,
                                    b.bytes, b.size / 2));
    if (play_draw(p, 3) == 0)
        (void)answer(p, shd_queue_cancel(q, lease));
    else if (play_draw(p, 4) != 0)
        (void)answer(p, shd_queue_commit(q, lease, 0, &id));
}

static void take(struct play *p, struct buffer b)
{
    struct shd_message m = {0};
    bool pop = play_draw(p, 2) != 0;
    int rc;

    p->doing = pop ? "queue_pop" : "queue_take";
    rc = answer(p, (pop ? shd_queue_pop : shd_queue_take)(
                       p->own.queue, b.bytes, b.size, 0, &m));
    check_len(p, rc, m.len, b.size);
    if (rc == SHD_OK)
        keep(p, m.lease);
}

static void use_queue(struct play *p)
{
    shd_queue *q = p->own.queue;
    struct buffer b = buffer_of(some_len(p));
    uint64_t n;
    int64_t again;

    switch (play_draw(p, 16)) {
    case 0:
    case 1:
    case 2:
        p->doing = "queue_push";
        (void)answer(p, shd_queue_push(q, b.bytes, b.size,
                                       (int64_t)play_draw(p, 2) * 300, 0, &n));
        break;
    case 3: reserve(p, b); break;
    case 4:
    case 5:
    case 6:
    case 7: take(p, b); break;
    case 8:
        p->doing = "queue_ack";
        (void)answer(p, shd_queue_ack(q, some_name(p)));
        break;
    case 9:
        p->doing = "queue_nack";
        (void)answer(p, shd_queue_nack(q, some_name(p),
                                       (int64_t)play_draw(p, 2) * 500));
        break;
    case 10:
        p->doing = "queue_extend";
        (void)answer(p, shd_queue_extend(q, some_name(p),
                                         (int64_t)play_draw(p, 900)));
        break;
    case 11:
        p->doing = "queue_drain";
        (void)answer(p, shd_queue_drain(
                            q, (uint32_t[]){0, SHD_MESSAGE_READY,
                                            SHD_MESSAGE_DELAYED,
                                            SHD_MESSAGE_DEAD}[play_draw(p, 4)],
                            play_draw(p, 3), &n));
        break;
    case 12:
        p->doing = "queue_requeue";
        (void)answer(p, shd_queue_requeue(q, play_draw(p, 3), &n));
        break;
    case 13:
        p->doing = "queue_arm";
        (void)answer(p, shd_queue_arm(q, (int)play_draw(p, 2), &again));
        break;
    case 14:
        p->doing = "queue_commit";
        (void)answer(p, shd_queue_commit(q, some_name(p), 0, &n));
        break;
    default: look(p, &p->own); break;
    }
    free(b.bytes);
}

static void read_events(struct play *p, shd_subscription *s, struct buffer b)
{
    struct shd_event e[4];
    uint64_t missed;
    uint32_t n = 0;
    int rc;

    p->doing = "subscription_next";
    rc = answer(p, shd_subscription_next(s, b.bytes, b.size, 0, e, 4, &n,
                                         &missed));
    for (uint32_t i = 0; rc == SHD_OK && i < n; i++)
        if (n > 4 || e[i].at > b.size || e[i].len > b.size - e[i].at)
            play_fail(p, "event %u of %zu bytes", i, b.size);
    if (play_draw(p, 2) == 0)
        (void)answer(p, shd_subscription_acknowledge(s));
}

static void use_topic(struct play *p)
{
    static const char *const NAMES[] = {NULL, "a", "b"};
    uint64_t which = play_draw(p, 2);
    shd_topic *t = p->own.topic[which];
    shd_subscription **s = &p->subscription[which];
    struct buffer b = buffer_of(some_len(p));
    uint64_t n;

    switch (t == NULL ? 9 : play_draw(p, 9)) {
    case 0:
    case 1:
    case 2:
        p->doing = "topic_publish";
        (void)answer(p, shd_topic_publish(t, b.bytes, b.size, 0, &n));
        break;
    case 3:
        p->doing = "topic_subscribe";
        if (*s != NULL)
            (void)play_answer(p, shd_subscription_close(*s));
        if (answer(p, shd_topic_subscribe(t, NAMES[play_draw(p, 3)],
                                          (uint32_t)play_draw(p, 2), s)) !=
            SHD_OK)
            *s = NULL;
        break;
    case 4:
    case 5:
    case 6:
        if (*s != NULL)
            read_events(p, *s, b);
        break;
    case 7:
        p->doing = "topic_forget";
        (void)answer(p, shd_topic_forget(t, NAMES[1 + play_draw(p, 2)]));
        if (*s != NULL)
            (void)answer(p, shd_subscription_arm(*s));
        break;
    default: look(p, &p->own); break;
    }
    free(b.bytes);
}

static void use_lock(struct play *p)
{
    shd_lock *l = p->own.lock[play_draw(p, 2)];
    int64_t ttl = play_draw(p, 3) == 0 ? 1 + (int64_t)play_draw(p, 900) : 0;
    struct shd_grant g = {0};
    uint64_t ticket = 0;

    if (l == NULL)
        return;
    switch (play_draw(p, 9)) {
    case 0:
    case 1:
        p->doing = "lock_acquire";
        if (answer(p, shd_lock_acquire(l, 0, ttl, &g)) == SHD_OK)
            keep(p, g.token);
        break;
    case 2:
    case 3:
        p->doing = "lock_release";
        (void)answer(p, shd_lock_release(l, some_name(p)));
        break;
    case 4:
        p->doing = "lock_check";
        (void)answer(p, shd_lock_check(l, some_name(p), &ttl));
        break;
    case 5:
        p->doing = "lock_extend";
        (void)answer(p, shd_lock_extend(l, some_name(p), ttl));
        break;
    case 6:
        p->doing = "lock_request";
        (void)answer(p, shd_lock_request(l, ttl, &g, &ticket));
        keep(p, ticket);
        break;
    case 7:
        p->doing = "lock_poll";
        (void)answer(p, shd_lock_poll(l, some_name(p), &g));
        break;
    default:
        p->doing = "lock_cancel";
        (void)answer(p, shd_lock_cancel(l, some_name(p), &g));
        break;
    }
}

static void send_mail(struct play *p, struct buffer b)
{
    shd_mailbox *m = p->own.mailbox;
    uint64_t to = 1 + play_draw(p, 6), id;
    uint32_t reached;

    if (play_draw(p, 3) != 0)
        (void)answer(p, shd_mailbox_find(m, (int32_t)play_draw(p, 3) - 1,
                                         &to));
    p->doing = "mailbox_post";
    switch (play_draw(p, 4)) {
    case 0:
        (void)answer(p, shd_mailbox_post_all(m, b.bytes, b.size, 0,
                                             &reached));
        break;
    case 1:
        p->doing = "mailbox_request";
        if (answer(p, shd_mailbox_request(m, to, b.bytes, b.size,
                                          play_draw(p, 500), 0, &id)) ==
            SHD_OK)
            keep(p, id);
        break;
    default:
        (void)answer(p, shd_mailbox_post(m, to, b.bytes, b.size, 0, &id));
        break;
    }
}

static void use_mailbox(struct play *p)
{
    shd_mailbox *m = p->own.mailbox;
    struct buffer b = buffer_of(some_len(p));
    struct shd_mail mail = {0};
    int rc;

    switch (play_draw(p, 12)) {
    case 0:
        p->doing = "mailbox_listen";
        (void)answer(p, shd_mailbox_listen(m));
        break;
    case 1:
        p->doing = "mailbox_leave";
        (void)answer(p, shd_mailbox_leave(m));
        break;
    case 2:
    case 3:
    case 4: send_mail(p, b); break;
    case 5:
    case 6:
        p->doing = "mailbox_receive";
        rc = answer(p, shd_mailbox_receive(m, b.bytes, b.size, 0, &mail));
        check_len(p, rc, mail.len, b.size);
        if (rc == SHD_OK)
            keep(p, mail.request);
        break;
    case 7:
        p->doing = "mailbox_answer";
        (void)answer(p, shd_mailbox_answer(m, some_name(p), b.bytes, b.size,
                                           0));
        break;
    case 8:
        p->doing = "mailbox_await";
        rc = answer(p, shd_mailbox_await(m, some_name(p), b.bytes, b.size, 0,
                                         &mail));
        check_len(p, rc, mail.len, b.size);
        break;
    case 9:
        p->doing = "mailbox_cancel";
        (void)answer(p, shd_mailbox_cancel(m, some_name(p)));
        break;
    case 10:
        p->doing = "mailbox_decline";
        (void)answer(p, shd_mailbox_decline(m, some_name(p)));
        break;
    default:
        p->doing = "mailbox_arm";
        (void)answer(p, shd_mailbox_arm(m));
        (void)answer(p, shd_mailbox_arm_room(m, some_name(p), b.size));
        break;
    }
    free(b.bytes);
}

void play_ipc_op(struct play *p)
{
    switch (play_draw(p, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        if (p->own.queue != NULL)
            use_queue(p);
        break;
    case 4:
    case 5: use_topic(p); break;
    case 6:
    case 7: use_lock(p); break;
    case 8:
    case 9:
        if (p->own.mailbox != NULL)
            use_mailbox(p);
        break;
    case 10: look(p, &p->own); break;
    default:
        if (p->readonly != NULL)
            play_ipc_read(p);
        break;
    }
}

void play_ipc_read(struct play *p)
{
    look(p, &p->seen);
}
