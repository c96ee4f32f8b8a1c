/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The naive queue: one array of messages, in no order; "the first" of anything
 * is found by looking at all of them. Places in the lists of the ready, the
 * held and the dead are numbers that only grow, or shrink at the front.
 */
#include "tests/model/ipc.h"

#include <stdlib.h>
#include <string.h>

#include "shm/base/clock.h"

#define MESSAGES 400u
#define LONGEST 20000u
#define LONG 16384u
#define AT_ONCE 64u
#define LOOK_MS 10u
#define CELL_HEAD 96u
#define CELL_MORE 8u

struct naive_message {
    bool there;
    uint32_t state, attempts;
    uint32_t slice;
    size_t len;
    uint64_t id, lease, holder, from;
    uint64_t when;  /* 0: none */
    int64_t place;  /* in its list */
};

struct naive_queue {
    shd_queue *queue;
    struct naive_message message[MESSAGES];
    struct shd_queue_info was; /* constants */
    int64_t front, back;
    uint64_t ids, looked;
    uint64_t pushed, popped, acked, redelivered, expired, orphaned, buried,
        drained;
};

static unsigned char out[4 * LONGEST];

typedef struct naive_message message;
typedef struct naive_queue naive;

/* ---- the model ------------------------------------------------------------ */

static uint64_t cells_of(const naive *n, size_t len)
{
    uint64_t first = n->was.cell_bytes - CELL_HEAD;
    uint64_t more = n->was.cell_bytes - CELL_MORE;

    return len <= first ? 1 : 1 + (len - first + more - 1) / more;
}

static uint64_t count(const naive *n, uint32_t state)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < MESSAGES; i++)
        sum += n->message[i].there &&
               (state == 0 || n->message[i].state == state);
    return sum;
}

static uint64_t cells_used(const naive *n)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < MESSAGES; i++)
        if (n->message[i].there)
            sum += cells_of(n, n->message[i].len);
    return sum;
}

/* The first by place of those in any of the states (a set of bits), after
 * `after` of them. */
static message *by_place(naive *n, uint32_t states, uint64_t after)
{
    int64_t last = INT64_MIN;

    for (;;) {
        message *first = NULL;

        for (uint32_t i = 0; i < MESSAGES; i++) {
            message *m = &n->message[i];

            if (m->there && (states >> m->state & 1) != 0 &&
                m->place > last && (first == NULL || m->place < first->place))
                first = m;
        }
        if (first == NULL || after-- == 0)
            return first;
        last = first->place;
    }
}

/* The same by time, then number. */
static message *by_time(naive *n, uint32_t states, uint64_t after)
{
    uint64_t when = 0, id = 0;

    for (;;) {
        message *first = NULL;

        for (uint32_t i = 0; i < MESSAGES; i++) {
            message *m = &n->message[i];

            if (!m->there || m->when == 0 || (states >> m->state & 1) == 0 ||
                m->when < when || (m->when == when && m->id <= id))
                continue;
            if (first == NULL || m->when < first->when ||
                (m->when == first->when && m->id < first->id))
                first = m;
        }
        if (first == NULL || after-- == 0)
            return first;
        when = first->when;
        id = first->id;
    }
}

static message *by_lease(naive *n, uint64_t lease)
{
    for (uint32_t i = 0; i < MESSAGES; i++)
        if (n->message[i].there && n->message[i].lease == lease &&
            (n->message[i].state == SHD_MESSAGE_LEASED ||
             n->message[i].state == SHD_MESSAGE_RESERVED))
            return &n->message[i];
    return NULL;
}

#define SET(state) (1u << (state))
#define READY SET(SHD_MESSAGE_READY)
#define DELAYED SET(SHD_MESSAGE_DELAYED)
#define LEASED SET(SHD_MESSAGE_LEASED)
#define RESERVED SET(SHD_MESSAGE_RESERVED)
#define DEAD SET(SHD_MESSAGE_DEAD)

static void append(naive *n, message *m, uint32_t state)
{
    m->state = state;
    m->when = 0;
    m->place = ++n->back;
}

static void make_ready(naive *n, message *m, uint64_t when)
{
    append(n, m, when != 0 ? SHD_MESSAGE_DELAYED : SHD_MESSAGE_READY);
    m->when = when;
}

static void put_back(naive *n, message *m, uint64_t when)
{
    if (n->was.deliveries_max != 0 && m->attempts >= n->was.deliveries_max) {
        append(n, m, SHD_MESSAGE_DEAD);
        n->buried++;
        return;
    }
    n->redelivered++;
    make_ready(n, m, when);
    if (when == 0)
        m->place = --n->front;
}

static void reap(struct ipc *x, naive *n)
{
    for (uint64_t i = 0;;) {
        message *m = by_place(n, LEASED | RESERVED, i);

        if (m == NULL)
            return;
        if (ipc_lives(x, m->holder)) {
            i++;
        } else if (m->state == SHD_MESSAGE_RESERVED) {
            m->there = false;
        } else {
            n->orphaned++;
            put_back(n, m, 0);
        }
    }
}

/* Who finds nothing looks for dead holders, if it has been long. */
static bool looks(struct ipc *x, naive *n)
{
    if (count(n, SHD_MESSAGE_LEASED) + count(n, SHD_MESSAGE_RESERVED) == 0 ||
        ipc_now() - n->looked < LOOK_MS)
        return false;
    n->looked = ipc_now();
    reap(x, n);
    return true;
}

static void settle(naive *n)
{
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        message *m = by_time(n, DELAYED | LEASED, 0);

        if (m == NULL || m->when > ipc_now())
            return;
        if (m->state == SHD_MESSAGE_LEASED) {
            n->expired++;
            put_back(n, m, 0);
        } else {
            append(n, m, SHD_MESSAGE_READY);
        }
    }
}

static int room_for(struct ipc *x, naive *n, size_t len)
{
    uint64_t max = n->was.messages_max;

    if (cells_of(n, len) > n->was.cells)
        return SHD_TOOBIG;
    do {
        if ((max == 0 || count(n, 0) - count(n, SHD_MESSAGE_DEAD) < max) &&
            cells_used(n) + cells_of(n, len) <= n->was.cells)
            return SHD_OK;
    } while (looks(x, n));
    return SHD_FULL;
}

static message *new_message(struct ipc *x, naive *n, uint32_t slice,
                            size_t len)
{
    uint32_t i = 0;

    while (i < MESSAGES && n->message[i].there)
        i++;
    if (i == MESSAGES)
        ipc_fail(x, "the model is too small");
    n->message[i] = (message){.there = true,
                              .slice = slice,
                              .len = len,
                              .id = ++n->ids,
                              .from = ipc_self(x)};
    return &n->message[i];
}

static int push(struct ipc *x, naive *n, uint32_t slice, size_t len,
                int64_t delay, uint64_t *id)
{
    int rc = room_for(x, n, len);

    if (rc != SHD_OK)
        return rc;
    make_ready(n, new_message(x, n, slice, len),
               delay > 0 ? ipc_now() + (uint64_t)delay : 0);
    n->pushed++;
    *id = n->ids;
    return SHD_OK;
}

/* The first ready one, or NULL. */
static message *first_ready(struct ipc *x, naive *n)
{
    message *m;

    do {
        settle(n);
        m = by_place(n, READY, 0);
    } while (m == NULL && looks(x, n));
    return m;
}

/* ---- beside the queue ------------------------------------------------------ */

static void is_message(const struct ipc *x, const message *m,
                       const struct shd_message *got,
                       const unsigned char *bytes)
{
    ipc_same(x, "the number", got->id, m->id);
    ipc_same(x, "the length", got->len, m->len);
    ipc_same(x, "the sender", got->from, m->from);
    ipc_same(x, "the count of deliveries", got->attempts, m->attempts);
    if (memcmp(bytes, x->pool + m->slice, m->len) != 0)
        ipc_fail(x, "message %" PRIu64 " has other bytes", m->id);
}

static void op_push(struct ipc *x, naive *n)
{
    size_t len = ipc_length(x, LONGEST);
    uint32_t slice = ipc_slice(x, len);
    int64_t delay = ipc_one_in(x, 4) ? (int64_t)ipc_below(x, 60) : 0;
    uint64_t id = 0, wanted = 0;

    x->doing = "push";
    ipc_expect(x,
               shd_queue_push(n->queue, x->pool + slice, len, delay, 0, &id),
               push(x, n, slice, len, delay, &wanted));
    ipc_same(x, "the number", id, wanted);
}

static void op_push_many(struct ipc *x, naive *n)
{
    uint32_t total = (uint32_t)ipc_below(x, 90), done, wanted_done = 0;
    const void *data[90];
    uint32_t slice[90];
    size_t len[90];
    uint64_t ids[90], wanted[90];
    int64_t delay = ipc_one_in(x, 8) ? (int64_t)ipc_below(x, 60) : 0;
    int rc = SHD_OK, got;

    x->doing = "push_many";
    for (uint32_t i = 0; i < total; i++) {
        len[i] = ipc_length(x, LONGEST);
        slice[i] = ipc_slice(x, len[i]);
        data[i] = x->pool + slice[i];
    }
    got = shd_queue_push_many(n->queue, total, data, len, delay, 0, ids,
                              &done);
    while (rc == SHD_OK && wanted_done < total) {
        rc = push(x, n, slice[wanted_done], len[wanted_done], delay,
                  &wanted[wanted_done]);
        wanted_done += rc == SHD_OK;
    }
    ipc_expect(x, got, rc);
    ipc_same(x, "how many", done, wanted_done);
    for (uint32_t i = 0; i < done; i++)
        ipc_same(x, "a number", ids[i], wanted[i]);
}

static size_t some_size(struct ipc *x)
{
    return ipc_one_in(x, 10) ? (size_t)ipc_below(x, 300) : sizeof(out);
}

/* What has been given out, by pop or take. */
static void given(struct ipc *x, naive *n, message *m, bool lease,
                  const struct shd_message *got, const unsigned char *bytes)
{
    m->attempts++;
    is_message(x, m, got, bytes);
    if (!lease) {
        n->popped++;
        m->there = false;
        return;
    }
    if (by_lease(n, got->lease) != NULL)
        ipc_fail(x, "a lease was given twice");
    append(n, m, SHD_MESSAGE_LEASED);
    m->lease = got->lease;
    m->holder = ipc_self(x);
    m->when = n->was.lease_ms == 0 ? 0 : ipc_now() + n->was.lease_ms;
}

static void op_take(struct ipc *x, naive *n)
{
    bool lease = !ipc_one_in(x, 3);
    size_t size = some_size(x);
    struct shd_message got;
    int rc;

    x->doing = lease ? "take" : "pop";
    rc = lease ? shd_queue_take(n->queue, out, size, 0, &got)
               : shd_queue_pop(n->queue, out, size, 0, &got);
    message *m = first_ready(x, n);
    ipc_expect(x, rc, m == NULL        ? SHD_NOTFOUND
                      : m->len > size ? SHD_SPACE
                                      : SHD_OK);
    if (rc == SHD_OK)
        given(x, n, m, lease, &got, out);
    else if (rc == SHD_SPACE)
        ipc_same(x, "the need", got.len, m->len);
}

static void op_take_many(struct ipc *x, naive *n)
{
    bool lease = !ipc_one_in(x, 3);
    size_t size = some_size(x), room = size < LONG ? size : LONG, used = 0;
    uint32_t max = 1 + (uint32_t)ipc_below(x, 90), taken, wanted = 0;
    struct shd_message got[90];
    size_t at[90];
    int rc;

    x->doing = lease ? "take_many" : "pop_many";
    rc = lease ? shd_queue_take_many(n->queue, max, out, size, 0, got, at,
                                     &taken)
               : shd_queue_pop_many(n->queue, max, out, size, 0, got, at,
                                    &taken);
    message *m = first_ready(x, n);
    ipc_expect(x, rc, m == NULL        ? SHD_NOTFOUND
                      : m->len > size ? SHD_SPACE
                                      : SHD_OK);
    if (rc != SHD_OK) {
        ipc_same(x, "how many", taken, 0);
        return;
    }
    if (m->len > LONG)
        room = m->len;
    while (m != NULL && wanted < max && wanted < AT_ONCE &&
           m->len <= room - used) {
        bool is_long = m->len > LONG;

        if (wanted >= taken)
            ipc_fail(x, "only %u were given", taken);
        ipc_same(x, "a place", at[wanted], used);
        used += m->len;
        given(x, n, m, lease, &got[wanted], out + at[wanted]);
        wanted++;
        m = is_long ? NULL : by_place(n, READY, 0);
    }
    ipc_same(x, "how many", taken, wanted);
}

/* A lease that somebody has, had, or nobody ever had. */
static uint64_t some_lease(struct ipc *x, naive *n, uint32_t states)
{
    message *m = by_place(n, states, ipc_below(x, 6));

    if (m == NULL || ipc_one_in(x, 20))
        m = &n->message[ipc_below(x, MESSAGES)];
    return m->lease;
}

/* That this worker has, or NULL. */
static message *own(struct ipc *x, naive *n, uint64_t lease, uint32_t state)
{
    message *m = by_lease(n, lease);

    return m != NULL && m->state == state && m->holder == ipc_self(x) ? m
                                                                      : NULL;
}

static int ack(struct ipc *x, naive *n, uint64_t lease)
{
    message *m = own(x, n, lease, SHD_MESSAGE_LEASED);

    if (m == NULL)
        return SHD_LOST;
    m->there = false;
    n->acked++;
    return SHD_OK;
}

/* Whoever has it, mostly. */
static void become_holder(struct ipc *x, naive *n, uint64_t lease)
{
    message *m = by_lease(n, lease);

    for (uint32_t i = 0; m != NULL && i < 40 && ipc_self(x) != m->holder &&
                         ipc_lives(x, m->holder);
         i++)
        ipc_switch(x);
}

static void op_ack(struct ipc *x, naive *n)
{
    uint64_t lease = some_lease(x, n, LEASED);

    x->doing = "ack";
    if (!ipc_one_in(x, 10))
        become_holder(x, n, lease);
    ipc_expect(x, shd_queue_ack(n->queue, lease), ack(x, n, lease));
}

static void op_ack_many(struct ipc *x, naive *n)
{
    uint32_t total = (uint32_t)ipc_below(x, 90);
    uint64_t from = ipc_below(x, 10);
    bool in_order = !ipc_one_in(x, 4);
    uint64_t leases[90];
    int32_t codes[90];
    int rc, first = SHD_OK;

    x->doing = "ack_many";
    for (uint32_t i = 0; i < total; i++) {
        message *m = in_order ? by_place(n, LEASED, from + i) : NULL;

        leases[i] = m != NULL ? m->lease : some_lease(x, n, LEASED);
        if (i == 0)
            become_holder(x, n, leases[0]);
    }
    rc = shd_queue_ack_many(n->queue, total, leases, codes);
    for (uint32_t i = 0; i < total; i++) {
        int wanted = ack(x, n, leases[i]);

        ipc_expect(x, codes[i], wanted);
        if (first == SHD_OK)
            first = wanted;
    }
    ipc_expect(x, rc, first);
}

static void op_nack(struct ipc *x, naive *n)
{
    uint64_t lease = some_lease(x, n, LEASED);
    int64_t delay = ipc_one_in(x, 2) ? (int64_t)ipc_below(x, 60) : 0;

    x->doing = "nack";
    become_holder(x, n, lease);
    message *m = own(x, n, lease, SHD_MESSAGE_LEASED);
    ipc_expect(x, shd_queue_nack(n->queue, lease, delay),
               m == NULL ? SHD_LOST : SHD_OK);
    if (m != NULL)
        put_back(n, m, delay > 0 ? ipc_now() + (uint64_t)delay : 0);
}

static void op_extend(struct ipc *x, naive *n)
{
    uint64_t lease = some_lease(x, n, LEASED);
    int64_t ms = ipc_one_in(x, 3) ? 0 : (int64_t)ipc_below(x, 200);

    x->doing = "extend";
    become_holder(x, n, lease);
    message *m = own(x, n, lease, SHD_MESSAGE_LEASED);
    ipc_expect(x, shd_queue_extend(n->queue, lease, ms),
               m == NULL ? SHD_LOST : SHD_OK);
    if (m != NULL)
        m->when = ms == 0 ? 0 : ipc_now() + (uint64_t)ms;
}

static void op_reserve(struct ipc *x, naive *n)
{
    size_t len = ipc_length(x, LONGEST);
    uint32_t slice = ipc_slice(x, len);
    uint64_t lease = 0;
    int wanted, rc;

    x->doing = "reserve";
    rc = shd_queue_reserve(n->queue, len, 0, &lease);
    wanted = room_for(x, n, len);
    ipc_expect(x, rc, wanted);
    if (rc != SHD_OK)
        return;
    message *m = new_message(x, n, slice, len);
    append(n, m, SHD_MESSAGE_RESERVED);
    m->lease = lease;
    m->holder = ipc_self(x);
    ipc_expect(x, shd_queue_write(n->queue, lease, 0, x->pool + slice, len),
               SHD_OK);
    ipc_expect(x, shd_queue_write(n->queue, lease, len, x->pool, 1),
               SHD_INVAL);
}

static void op_commit(struct ipc *x, naive *n)
{
    uint64_t lease = some_lease(x, n, RESERVED), id = 0;
    int64_t delay = ipc_one_in(x, 4) ? (int64_t)ipc_below(x, 60) : 0;
    bool commit = !ipc_one_in(x, 4);

    x->doing = commit ? "commit" : "cancel";
    become_holder(x, n, lease);
    message *m = own(x, n, lease, SHD_MESSAGE_RESERVED);
    ipc_expect(x,
               commit ? shd_queue_commit(n->queue, lease, delay, &id)
                      : shd_queue_cancel(n->queue, lease),
               m == NULL ? SHD_LOST : SHD_OK);
    if (m == NULL)
        return;
    if (!commit) {
        m->there = false;
        return;
    }
    ipc_same(x, "the number", id, m->id);
    make_ready(n, m, delay > 0 ? ipc_now() + (uint64_t)delay : 0);
    n->pushed++;
}

static void op_drain(struct ipc *x, naive *n)
{
    static const uint32_t WHICH[] = {0, SHD_MESSAGE_READY, SHD_MESSAGE_DELAYED,
                                     SHD_MESSAGE_DEAD};
    uint32_t which = WHICH[ipc_below(x, 4)];
    uint64_t max = ipc_below(x, 20), got = 0, done = 0;

    x->doing = "drain";
    ipc_expect(x, shd_queue_drain(n->queue, which, max, &got), SHD_OK);
    for (; max == 0 || done < max; done++) {
        message *m = which == SHD_MESSAGE_DEAD ? by_place(n, DEAD, 0) : NULL;

        if (which == 0 || which == SHD_MESSAGE_READY)
            m = by_place(n, READY, 0);
        if (m == NULL && (which == 0 || which == SHD_MESSAGE_DELAYED))
            m = by_time(n, DELAYED, 0);
        if (m == NULL)
            break;
        m->there = false;
        n->drained++;
    }
    ipc_same(x, "how many", got, done);
}

static void op_requeue(struct ipc *x, naive *n)
{
    uint64_t max = ipc_below(x, 5), got = 0, done = 0;
    message *m;

    x->doing = "requeue";
    ipc_expect(x, shd_queue_requeue(n->queue, max, &got), SHD_OK);
    while ((max == 0 || done < max) && (m = by_place(n, DEAD, 0)) != NULL) {
        append(n, m, SHD_MESSAGE_READY);
        m->attempts = 0;
        done++;
    }
    ipc_same(x, "how many", got, done);
}

static void op_arm(struct ipc *x, naive *n)
{
    bool room = ipc_one_in(x, 2), wanted;
    int rc;

    x->doing = "arm";
    rc = shd_queue_arm(n->queue, room, NULL);
    (void)looks(x, n);
    settle(n);
    wanted = room ? cells_used(n) < n->was.cells &&
                        (n->was.messages_max == 0 ||
                         count(n, 0) - count(n, SHD_MESSAGE_DEAD) <
                             n->was.messages_max)
                  : count(n, SHD_MESSAGE_READY) > 0;
    ipc_same(x, "the answer", (uint64_t)rc, wanted);
}

static void op_death(struct ipc *x, naive *n)
{
    x->doing = "a death";
    (void)ipc_death(x);
    if (ipc_one_in(x, 2)) {
        ipc_expect(x, shd_reap(x->segment, NULL) < 0, 0);
        reap(x, n);
    }
}

/* ---- looking ---------------------------------------------------------------- */

static void check_info(const struct ipc *x, const naive *n)
{
    struct shd_queue_info i = {.struct_size = sizeof(i)};
    uint64_t bytes = 0;

    for (uint32_t k = 0; k < MESSAGES; k++)
        bytes += n->message[k].there ? n->message[k].len : 0;
    ipc_expect(x, shd_queue_info(n->queue, &i), SHD_OK);
    ipc_same(x, "ready", i.ready, count(n, SHD_MESSAGE_READY));
    ipc_same(x, "delayed", i.delayed, count(n, SHD_MESSAGE_DELAYED));
    ipc_same(x, "leased", i.leased, count(n, SHD_MESSAGE_LEASED));
    ipc_same(x, "reservations", i.reservations,
             count(n, SHD_MESSAGE_RESERVED));
    ipc_same(x, "dead", i.dead, count(n, SHD_MESSAGE_DEAD));
    ipc_same(x, "bytes", i.bytes, bytes);
    ipc_same(x, "cells_used", i.cells_used, cells_used(n));
    ipc_same(x, "pushed", i.pushed, n->pushed);
    ipc_same(x, "popped", i.popped, n->popped);
    ipc_same(x, "acked", i.acked, n->acked);
    ipc_same(x, "redelivered", i.redelivered, n->redelivered);
    ipc_same(x, "expired", i.expired, n->expired);
    ipc_same(x, "orphaned", i.orphaned, n->orphaned);
    ipc_same(x, "buried", i.buried, n->buried);
    ipc_same(x, "drained", i.drained, n->drained);
}

static void check_all(struct ipc *x, naive *n)
{
    char report[256] = "";

    x->doing = "peek";
    for (uint32_t state = SHD_MESSAGE_READY; state <= SHD_MESSAGE_DEAD;
         state++) {
        for (uint64_t i = 0;; i++) {
            struct shd_message got;
            message *m = state == SHD_MESSAGE_DELAYED
                             ? by_time(n, SET(state), i)
                             : by_place(n, SET(state), i);
            int rc = shd_queue_peek(n->queue, state, i, out, sizeof(out),
                                    &got);

            ipc_expect(x, rc, m == NULL ? SHD_NOTFOUND : SHD_OK);
            if (m == NULL)
                break;
            is_message(x, m, &got, out);
            ipc_same(x, "the state", got.state, state);
            ipc_same(x, "the holder", got.holder,
                     state == SHD_MESSAGE_LEASED ||
                             state == SHD_MESSAGE_RESERVED
                         ? m->holder
                         : 0);
            ipc_same(x, "the time", (uint64_t)got.when_ms,
                     m->when == 0           ? UINT64_MAX
                     : m->when > ipc_now() ? m->when - ipc_now()
                                           : 0);
        }
    }
    if (shd_segment_check(x->segment, report, sizeof(report)) != SHD_OK)
        ipc_fail(x, "check: %s", report);
}

static const struct {
    void (*act)(struct ipc *x, naive *n);
    unsigned share;
} OPERATIONS[] = {{op_push, 16},    {op_push_many, 3}, {op_take, 18},
                  {op_take_many, 4}, {op_ack, 14},      {op_ack_many, 4},
                  {op_nack, 6},      {op_extend, 4},    {op_reserve, 4},
                  {op_commit, 4},    {op_drain, 1},     {op_requeue, 2},
                  {op_arm, 3},       {op_death, 2}};

static void random_op(struct ipc *x, naive *n)
{
    unsigned pick = (unsigned)ipc_below(x, 100), sum = 0;

    ipc_switch(x);
    for (size_t i = 0; i < sizeof(OPERATIONS) / sizeof(OPERATIONS[0]); i++) {
        sum += OPERATIONS[i].share;
        if (pick < sum) {
            OPERATIONS[i].act(x, n);
            return;
        }
    }
    ipc_advance(x);
}

/* All dead, all given back, all taken: nothing must be left. */
static void end(struct ipc *x, naive *n)
{
    x->doing = "end";
    for (uint32_t i = 0; i < IPC_WORKERS; i++) {
        ipc_switch(x);
        (void)ipc_death(x);
        ipc_expect(x, shd_reap(x->segment, NULL) < 0, 0);
        reap(x, n);
    }
    for (uint32_t i = 0; i < 200 && count(n, 0) > 0; i++) {
        clock_test_advance(1000);
        reap(x, n);
        ipc_expect(x, shd_reap(x->segment, NULL) < 0, 0);
        op_take_many(x, n);
        op_requeue(x, n);
        op_ack_many(x, n);
        op_drain(x, n);
    }
}

static void run(struct ipc *x, uint64_t ops, uint64_t lease_ms)
{
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = 48 << 10,
                                  .deliveries_max = 3,
                                  .messages_max = 100,
                                  .lease_ms = lease_ms};
    naive *n = calloc(1, sizeof(*n));

    if (n == NULL)
        ipc_fail(x, "no memory for the test");
    ipc_expect(x, shd_queue_open(x->segment, "q", &o, &n->queue), SHD_OK);
    n->was.struct_size = sizeof(n->was);
    ipc_expect(x, shd_queue_info(n->queue, &n->was), SHD_OK);
    for (; x->op < ops; x->op++) {
        random_op(x, n);
        check_info(x, n);
        if (x->op % 64 == 0)
            check_all(x, n);
    }
    end(x, n);
    check_info(x, n);
    check_all(x, n);
}

void ipc_queue(struct ipc *x, uint64_t ops)
{
    run(x, ops, 0);
}

void ipc_queue_leases_end(struct ipc *x, uint64_t ops)
{
    run(x, ops, 50);
}
