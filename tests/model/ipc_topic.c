/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The naive topic: every event there ever was, in an array, and how many bytes
 * of the ring the kept ones take.
 */
#include "tests/model/ipc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/clock.h"

#define EVENTS 4096u /* whose lengths are remembered: far more than are kept */
#define RING 8192u
#define SPARE (RING / 16) /* that the ring has besides */
#define VAIN 64u          /* looks in a row until what was read is told */
#define SUBSCRIBERS 6u
#define CURSORS 5u
#define NAMES 3u
#define STEP 16384u
#define LONGEST 3000u

struct naive_event {
    uint32_t slice;
    size_t len;
};

/* A place that is in the segment: of a name, or of a lossless subscriber. */
struct naive_cursor {
    bool there, named;
    uint32_t name;
    uint64_t owner; /* 0: nobody */
    uint64_t next;  /* number of the event it wants */
};

struct naive_subscriber {
    shd_subscription *subscription;
    uint64_t owner;
    uint64_t next, missed;
    uint32_t vain;
    struct naive_cursor *cursor; /* NULL: private */
};

struct naive_topic {
    shd_topic *topic;
    bool lossless;
    struct naive_event event[EVENTS];
    uint64_t published, oldest; /* numbers */
    struct naive_cursor cursor[CURSORS];
    struct naive_subscriber subscriber[SUBSCRIBERS];
};

typedef struct naive_topic naive;
typedef struct naive_subscriber subscriber;
typedef struct naive_cursor cursor;

static unsigned char out[1u << 16];

/* ---- the model ------------------------------------------------------------ */

static struct naive_event *event(naive *n, uint64_t seq)
{
    return &n->event[seq % EVENTS];
}

static uint64_t ring_bytes(size_t len)
{
    return 16 + (len + 15) / 16 * 16;
}

static uint64_t bytes_of(naive *n, uint64_t from, uint64_t to)
{
    uint64_t sum = 0;

    for (uint64_t s = from; s < to; s++)
        sum += ring_bytes(event(n, s)->len);
    return sum;
}

static uint64_t kept_bytes(naive *n)
{
    return bytes_of(n, n->oldest, n->published + 1);
}

/* The number that may not go: of the live subscriber furthest behind. */
static uint64_t bound(const naive *n)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; n->lossless && i < CURSORS; i++) {
        const cursor *c = &n->cursor[i];

        if (c->there && c->owner != 0 && c->next < least)
            least = c->next;
    }
    return least;
}

/* Whose owners are dead leave; true: there were some. */
static bool bury(struct ipc *x, naive *n)
{
    bool any = false;

    for (uint32_t i = 0; i < CURSORS; i++) {
        cursor *c = &n->cursor[i];

        if (!c->there || c->owner == 0 || ipc_lives(x, c->owner))
            continue;
        c->owner = 0;
        c->there = c->named;
        any = true;
    }
    return any;
}

/* Room in the ring for so many of these, at least one: what goes is gone, and
 * more of it than must if there is not room for all. 0: there is none. */
static uint32_t make_room(naive *n, const size_t *len, uint32_t count)
{
    uint64_t oldest = n->oldest, kept = kept_bytes(n), bytes = 0;

    for (uint32_t i = 0; i < count; i++)
        bytes += ring_bytes(len[i]);
    if (kept + bytes <= RING + SPARE)
        return count;
    while (kept + bytes > RING && oldest <= n->published && oldest < bound(n))
        kept -= ring_bytes(event(n, oldest++)->len);
    while (count > 0 && kept + bytes > RING + SPARE)
        bytes -= ring_bytes(len[--count]);
    if (count > 0)
        n->oldest = oldest;
    return count;
}

/* A step: all of it has its room together. *done: how many of them. */
static int publish(struct ipc *x, naive *n, const uint32_t *slice,
                   const size_t *len, uint32_t count, uint32_t *done)
{
    uint64_t bytes = 0;
    uint32_t step = 1;

    *done = 0;
    if (len[0] > RING - 16)
        return SHD_TOOBIG;
    for (bytes = ring_bytes(len[0]); step < count; step++) {
        bytes += ring_bytes(len[step]);
        if (bytes > STEP || bytes > RING)
            break;
    }
    while ((*done = make_room(n, len, step)) == 0)
        if (!bury(x, n))
            return SHD_FULL;
    for (uint32_t i = 0; i < *done; i++)
        *event(n, ++n->published) = (struct naive_event){slice[i], len[i]};
    return SHD_OK;
}

/* ---- beside the topic ------------------------------------------------------ */

static void op_publish(struct ipc *x, naive *n)
{
    size_t len = ipc_one_in(x, 50) ? RING - 16 + ipc_below(x, 3)
                                   : ipc_length(x, LONGEST);
    uint32_t slice = ipc_slice(x, len), done;
    uint64_t seq = 0;

    x->doing = "publish";
    int rc = shd_topic_publish(n->topic, x->pool + slice, len, 0, &seq);
    ipc_expect(x, rc, publish(x, n, &slice, &len, 1, &done));
    if (rc == SHD_OK)
        ipc_same(x, "the number", seq, n->published);
}

static void op_publish_many(struct ipc *x, naive *n)
{
    uint32_t total = (uint32_t)ipc_below(x, 40), done, wanted = 0;
    const void *data[40];
    uint32_t slice[40];
    size_t len[40];
    uint64_t seqs[40];
    int rc, should = SHD_OK;

    x->doing = "publish_many";
    for (uint32_t i = 0; i < total; i++) {
        len[i] = ipc_length(x, LONGEST);
        slice[i] = ipc_slice(x, len[i]);
        data[i] = x->pool + slice[i];
    }
    rc = shd_topic_publish_many(n->topic, total, data, len, 0, seqs, &done);
    while (should == SHD_OK && wanted < total) {
        uint64_t first = n->published + 1;
        uint32_t step;

        should = publish(x, n, slice + wanted, len + wanted, total - wanted,
                         &step);
        for (uint32_t i = 0; i < step && wanted + i < done; i++)
            ipc_same(x, "a number", seqs[wanted + i], first + i);
        wanted += step;
    }
    ipc_expect(x, rc, should);
    ipc_same(x, "how many", done, wanted);
}

static cursor *named(naive *n, uint32_t name)
{
    for (uint32_t i = 0; i < CURSORS; i++)
        if (n->cursor[i].there && n->cursor[i].named &&
            n->cursor[i].name == name)
            return &n->cursor[i];
    return NULL;
}

static cursor *free_cursor(naive *n)
{
    for (uint32_t i = 0; i < CURSORS; i++)
        if (!n->cursor[i].there)
            return &n->cursor[i];
    return NULL;
}

static void op_subscribe(struct ipc *x, naive *n)
{
    subscriber *s = &n->subscriber[ipc_below(x, SUBSCRIBERS)];
    uint32_t name = (uint32_t)ipc_below(x, NAMES + 2);
    bool oldest = ipc_one_in(x, 2), has_name = name < NAMES;
    char text[8];
    int rc;

    if (s->subscription != NULL)
        return;
    x->doing = "subscribe";
    snprintf(text, sizeof(text), "n%u", name);
    rc = shd_topic_subscribe(n->topic, has_name ? text : NULL,
                             oldest ? SHD_FROM_OLDEST : SHD_FROM_NOW,
                             &s->subscription);
    cursor *c = has_name ? named(n, name) : NULL;
    int wanted = SHD_OK;
    if (c != NULL && c->owner != 0 && ipc_lives(x, c->owner))
        wanted = SHD_EXISTS;
    else if (c == NULL && (has_name || n->lossless) && free_cursor(n) == NULL)
        wanted = SHD_FULL;
    ipc_expect(x, rc, wanted);
    if (rc != SHD_OK) {
        s->subscription = NULL;
        return;
    }
    s->owner = ipc_self(x);
    s->missed = 0;
    s->next = oldest ? n->oldest : n->published + 1;
    if (c != NULL) {
        s->next = c->next;
    } else if (has_name || n->lossless) {
        c = free_cursor(n);
        *c = (cursor){.there = true,
                      .named = has_name,
                      .name = name,
                      .next = s->next};
    }
    if (c != NULL)
        c->owner = s->owner;
    s->cursor = c;
    s->vain = 0;
}

/* Its worker acts, if it lives; a private one is anybody's. */
static bool become_owner(struct ipc *x, const subscriber *s)
{
    if (s->cursor == NULL)
        return true;
    if (!ipc_lives(x, s->owner))
        return false;
    while (ipc_self(x) != s->owner)
        ipc_switch(x);
    return true;
}

static void op_next(struct ipc *x, naive *n)
{
    subscriber *s = &n->subscriber[ipc_below(x, SUBSCRIBERS)];
    uint32_t max = 1 + (uint32_t)ipc_below(x, 12), got, wanted = 0;
    size_t size = ipc_one_in(x, 8) ? ipc_below(x, 500) : sizeof(out);
    uint64_t missed, used = 0;
    struct shd_event events[12];
    int rc;

    if (s->subscription == NULL || !become_owner(x, s))
        return;
    x->doing = "next";
    rc = shd_subscription_next(s->subscription, out, size, 0, events, max,
                               &got, &missed);
    /* A name's place is told at once, another's when it is much. What was
     * missed has no bytes any more, but a lossless topic does not lose. */
    if (s->cursor != NULL &&
        (s->cursor->named || s->vain >= VAIN ||
         bytes_of(n, s->cursor->next, s->next) >= SPARE))
        s->cursor->next = s->next;
    if (s->next < n->oldest) {
        s->missed += n->oldest - s->next;
        s->next = n->oldest;
    }
    while (wanted < max && s->next <= n->published &&
           event(n, s->next)->len <= size - used) {
        const struct naive_event *e = event(n, s->next);

        if (wanted >= got)
            ipc_fail(x, "only %u came", got);
        ipc_same(x, "a number", events[wanted].seq, s->next);
        ipc_same(x, "a length", events[wanted].len, e->len);
        ipc_same(x, "a place", events[wanted].at, used);
        if (memcmp(out + used, x->pool + e->slice, e->len) != 0)
            ipc_fail(x, "event %" PRIu64 " has other bytes", s->next);
        used += e->len;
        s->next++;
        wanted++;
    }
    s->vain = wanted == 0 ? s->vain + 1 : 0;
    if (wanted == 0 && s->next <= n->published) {
        ipc_expect(x, rc, SHD_SPACE);
        ipc_same(x, "the need", events[0].len, event(n, s->next)->len);
    } else if (wanted == 0 && s->missed == 0) {
        ipc_expect(x, rc, SHD_NOTFOUND);
    } else {
        ipc_expect(x, rc, SHD_OK);
        ipc_same(x, "how many", got, wanted);
    }
    ipc_same(x, "missed", missed, s->missed);
    s->missed = 0;
}

static void op_acknowledge(struct ipc *x, naive *n)
{
    subscriber *s = &n->subscriber[ipc_below(x, SUBSCRIBERS)];

    if (s->subscription == NULL || !become_owner(x, s))
        return;
    x->doing = "acknowledge";
    ipc_expect(x, shd_subscription_acknowledge(s->subscription), SHD_OK);
    if (s->cursor != NULL)
        s->cursor->next = s->next;
}

static void op_close(struct ipc *x, naive *n)
{
    subscriber *s = &n->subscriber[ipc_below(x, SUBSCRIBERS)];

    if (s->subscription == NULL || !become_owner(x, s))
        return;
    x->doing = "close";
    ipc_expect(x, shd_subscription_close(s->subscription), SHD_OK);
    s->subscription = NULL;
    if (s->cursor != NULL) {
        s->cursor->next = s->next;
        s->cursor->owner = 0;
        s->cursor->there = s->cursor->named;
    }
}

static void op_forget(struct ipc *x, naive *n)
{
    uint32_t name = (uint32_t)ipc_below(x, NAMES);
    cursor *c = named(n, name);
    char text[8];

    x->doing = "forget";
    snprintf(text, sizeof(text), "n%u", name);
    ipc_expect(x, shd_topic_forget(n->topic, text),
               c == NULL                                    ? SHD_NOTFOUND
               : c->owner != 0 && ipc_lives(x, c->owner) ? SHD_EXISTS
                                                            : SHD_OK);
    if (c != NULL && (c->owner == 0 || !ipc_lives(x, c->owner)))
        c->there = false;
}

/* What the dead had subscribed to is gone with them, but for its cursors. */
static void op_death(struct ipc *x, naive *n)
{
    uint64_t dead;

    x->doing = "a death";
    dead = ipc_death(x);
    for (uint32_t i = 0; i < SUBSCRIBERS; i++) {
        subscriber *s = &n->subscriber[i];

        if (s->subscription == NULL || s->cursor == NULL || s->owner != dead)
            continue;
        /* As its process would be: closing it by another changes nothing. */
        ipc_expect(x, shd_subscription_close(s->subscription), SHD_OK);
        s->subscription = NULL;
    }
    if (ipc_one_in(x, 2)) {
        ipc_expect(x, shd_reap(x->segment, NULL) < 0, 0);
        (void)bury(x, n);
    }
}

/* ---- looking ---------------------------------------------------------------- */

static void check(struct ipc *x, naive *n)
{
    struct shd_topic_info i = {.struct_size = sizeof(i)};
    uint32_t there = 0;
    char report[256] = "";

    ipc_expect(x, shd_topic_info(n->topic, &i), SHD_OK);
    for (uint32_t k = 0; k < CURSORS; k++)
        there += n->cursor[k].there;
    ipc_same(x, "published", i.published, n->published);
    ipc_same(x, "oldest", i.oldest, n->oldest);
    ipc_same(x, "kept_bytes", i.kept_bytes, kept_bytes(n));
    ipc_same(x, "cursors", i.cursors, there);
    if (x->op % 64 == 0 &&
        shd_segment_check(x->segment, report, sizeof(report)) != SHD_OK)
        ipc_fail(x, "check: %s", report);
}

static void random_op(struct ipc *x, naive *n)
{
    static const struct {
        void (*act)(struct ipc *x, naive *n);
        unsigned share;
    } OPERATIONS[] = {{op_publish, 30},   {op_publish_many, 6},
                      {op_next, 42},      {op_acknowledge, 6},
                      {op_subscribe, 8},  {op_close, 3},
                      {op_forget, 2},     {op_death, 3}};
    unsigned pick = (unsigned)ipc_below(x, 100), sum = 0;

    ipc_switch(x);
    for (size_t i = 0; i < sizeof(OPERATIONS) / sizeof(OPERATIONS[0]); i++) {
        sum += OPERATIONS[i].share;
        if (pick < sum) {
            OPERATIONS[i].act(x, n);
            return;
        }
    }
}

static void run(struct ipc *x, uint64_t ops, bool lossless)
{
    struct shd_topic_options o = {
        .struct_size = sizeof(o),
        .flags = SHD_TOPIC_CREATE | (lossless ? SHD_TOPIC_LOSSLESS : 0),
        .capacity_bytes = RING,
        .subscribers_max = CURSORS};
    naive *n = calloc(1, sizeof(*n));

    if (n == NULL)
        ipc_fail(x, "no memory for the test");
    n->lossless = lossless;
    n->oldest = 1;
    ipc_expect(x, shd_topic_open(x->segment, "t", &o, &n->topic), SHD_OK);
    for (; x->op < ops; x->op++) {
        random_op(x, n);
        check(x, n);
    }
}

void ipc_topic(struct ipc *x, uint64_t ops)
{
    run(x, ops, false);
}

void ipc_topic_lossless(struct ipc *x, uint64_t ops)
{
    run(x, ops, true);
}
