/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The naive mailbox: one array of messages; an inbox is those of them that wait
 * for a worker, in the order of their numbers. The dead are reaped at once, so
 * that what is found of them does not hang on who has looked.
 */
#include "tests/model/ipc.h"

#include <stdlib.h>
#include <string.h>

#include "shm/base/clock.h"

#define MESSAGES 300u
#define LONGEST 2500u
#define CELL_HEAD 96u
#define CELL_MORE 8u

enum state { POST, REQUEST, TAKEN, ANSWERED, FAILED, DECLINED };

struct naive_mail {
    bool there, received;
    enum state state;
    uint32_t slice;
    size_t len;
    uint64_t cells; /* a request keeps room for its answer */
    uint64_t id, from, to, number;
};

struct naive_mailbox {
    shd_mailbox *mailbox;
    struct naive_mail mail[MESSAGES];
    struct shd_mailbox_info was;
    bool listening[IPC_WORKERS];
    uint64_t box_cells, last_dead;
    uint64_t ids, sent, received, unread, requests, answered, declined, failed,
        withdrawn;
};

typedef struct naive_mailbox naive;
typedef struct naive_mail mail;

static unsigned char out[2 * LONGEST];

/* ---- the model ------------------------------------------------------------ */

static uint64_t cells_of(const naive *n, size_t len)
{
    uint64_t first = n->was.cell_bytes - CELL_HEAD;
    uint64_t more = n->was.cell_bytes - CELL_MORE;

    return len <= first ? 1 : 1 + (len - first + more - 1) / more;
}

static bool waits(const mail *m)
{
    return m->there && (m->state == POST || m->state == REQUEST);
}

/* Cells in use: in the inbox of `to`, or 0: of all messages. */
static uint64_t cells(const naive *n, uint64_t to)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < MESSAGES; i++) {
        const mail *m = &n->mail[i];

        if (to == 0 ? m->there : waits(m) && m->to == to)
            sum += m->cells;
    }
    return sum;
}

/* The one that `to` receives next, or NULL. */
static mail *next_for(naive *n, uint64_t to)
{
    mail *first = NULL;

    for (uint32_t i = 0; i < MESSAGES; i++) {
        mail *m = &n->mail[i];

        if (waits(m) && m->to == to && (first == NULL || m->id < first->id))
            first = m;
    }
    return first;
}

static mail *by_number(naive *n, uint64_t number)
{
    for (uint32_t i = 0; i < MESSAGES; i++)
        if (n->mail[i].there && n->mail[i].number == number)
            return &n->mail[i];
    return NULL;
}

static bool is_listening(const struct ipc *x, const naive *n, uint64_t who)
{
    for (uint32_t i = 0; i < IPC_WORKERS; i++)
        if (x->worker[i].incarnation == who)
            return n->listening[i];
    return false;
}

/* Whether a message can go there: SHD_OK, or why not. */
static int can_send(const struct ipc *x, const naive *n, uint64_t to,
                    uint64_t need)
{
    if (need > n->box_cells)
        return SHD_TOOBIG;
    if (!ipc_lives(x, to))
        return SHD_DEAD;
    if (!is_listening(x, n, to))
        return SHD_NOTFOUND;
    return cells(n, to) + need > n->box_cells ||
                   cells(n, 0) + need > n->was.cells
               ? SHD_FULL
               : SHD_OK;
}

static void put(struct ipc *x, naive *n, const mail *m)
{
    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (n->mail[i].there)
            continue;
        n->mail[i] = *m;
        n->mail[i].there = true;
        n->mail[i].from = ipc_self(x);
        n->mail[i].id = ++n->ids;
        n->sent++;
        n->requests += m->state == REQUEST;
        return;
    }
    ipc_fail(x, "the model is too small");
}

/* Its receiver has gone. */
static void lose(naive *n, mail *m)
{
    n->unread += waits(m);
    if (m->state == POST) {
        m->there = false;
    } else {
        m->state = FAILED;
        n->failed++;
    }
}

/* Its sender does not want it. */
static void withdraw(naive *n, mail *m)
{
    n->unread += m->state == REQUEST;
    n->withdrawn += m->state == REQUEST || m->state == TAKEN;
    m->there = false;
}

/* ---- beside the mailbox ----------------------------------------------------- */

static uint64_t somebody(struct ipc *x, const naive *n)
{
    if (n->last_dead != 0 && ipc_one_in(x, 20))
        return n->last_dead;
    return x->worker[ipc_below(x, IPC_WORKERS)].incarnation;
}

static void op_post(struct ipc *x, naive *n)
{
    size_t len = ipc_length(x, LONGEST);
    mail m = {.state = POST,
              .slice = ipc_slice(x, len),
              .len = len,
              .cells = cells_of(n, len),
              .to = somebody(x, n)};
    uint64_t id = 0;
    int wanted = can_send(x, n, m.to, m.cells);

    x->doing = "post";
    ipc_expect(x,
               shd_mailbox_post(n->mailbox, m.to, x->pool + m.slice, len, 0,
                                &id),
               wanted);
    if (wanted != SHD_OK)
        return;
    put(x, n, &m);
    ipc_same(x, "the number", id, n->ids);
}

static void op_post_all(struct ipc *x, naive *n)
{
    mail m = {.state = POST, .len = ipc_length(x, 300)};
    uint32_t reached = 0, wanted = 0;
    bool full = false;
    int rc;

    m.slice = ipc_slice(x, m.len);
    m.cells = cells_of(n, m.len);
    x->doing = "post_all";
    rc = shd_mailbox_post_all(n->mailbox, x->pool + m.slice, m.len, 0,
                              &reached);
    /* In the order of their boxes, which is that of their slots. */
    for (uint32_t slot = 0; slot < 16; slot++)
        for (uint32_t i = 0; i < IPC_WORKERS; i++) {
            m.to = x->worker[i].incarnation;
            if ((m.to & 0xffff) != slot || m.to == ipc_self(x) ||
                !n->listening[i])
                continue;
            if (can_send(x, n, m.to, m.cells) == SHD_OK) {
                put(x, n, &m);
                wanted++;
            } else {
                full = true;
            }
        }
    ipc_same(x, "how many", reached, wanted);
    ipc_expect(x, rc, full ? SHD_FULL : SHD_OK);
}

static void op_request(struct ipc *x, naive *n)
{
    size_t len = ipc_length(x, LONGEST), back = ipc_length(x, LONGEST);
    mail m = {.state = REQUEST,
              .slice = ipc_slice(x, len),
              .len = len,
              .cells = cells_of(n, back > len ? back : len),
              .to = somebody(x, n)};
    int wanted = can_send(x, n, m.to, m.cells);

    x->doing = "request";
    ipc_expect(x,
               shd_mailbox_request(n->mailbox, m.to, x->pool + m.slice, len,
                                   back, 0, &m.number),
               wanted);
    if (wanted != SHD_OK)
        return;
    if (by_number(n, m.number) != NULL)
        ipc_fail(x, "a number was given twice");
    put(x, n, &m);
}

static void is_mail(struct ipc *x, const mail *m, const struct shd_mail *got)
{
    ipc_same(x, "the number", got->id, m->id);
    ipc_same(x, "the length", got->len, m->len);
    ipc_same(x, "the sender", got->from, m->from);
    ipc_same(x, "the receiver", got->to, m->to);
    if (memcmp(out, x->pool + m->slice, m->len) != 0)
        ipc_fail(x, "message %" PRIu64 " has other bytes", m->id);
}

static void op_receive(struct ipc *x, naive *n)
{
    size_t size = ipc_one_in(x, 10) ? ipc_below(x, 300) : sizeof(out);
    mail *m = next_for(n, ipc_self(x));
    struct shd_mail got;
    int rc;

    x->doing = "receive";
    rc = shd_mailbox_receive(n->mailbox, out, size, 0, &got);
    n->listening[x->who] = true;
    ipc_expect(x, rc, m == NULL        ? SHD_NOTFOUND
                      : m->len > size ? SHD_SPACE
                                      : SHD_OK);
    if (rc == SHD_SPACE)
        ipc_same(x, "the need", got.len, m->len);
    if (rc != SHD_OK)
        return;
    is_mail(x, m, &got);
    ipc_same(x, "the request", got.request, m->number);
    n->received++;
    m->received = true;
    if (m->state == POST)
        m->there = false;
    else
        m->state = TAKEN;
}

/* A request that this worker has something to do with, or any at all. */
static mail *some_request(struct ipc *x, naive *n, bool asked_by)
{
    mail *any = NULL;

    for (uint32_t i = 0, at = (uint32_t)ipc_below(x, MESSAGES); i < MESSAGES;
         i++) {
        mail *m = &n->mail[(at + i) % MESSAGES];

        if (!m->there || m->number == 0)
            continue;
        any = m;
        if ((asked_by ? m->from : m->to) == ipc_self(x) &&
            (asked_by || m->state == TAKEN))
            break;
    }
    return any;
}

static uint64_t number_of(struct ipc *x, const mail *m)
{
    return m == NULL || ipc_one_in(x, 20) ? ipc_below(x, 1000) : m->number;
}

static void op_answer(struct ipc *x, naive *n)
{
    uint64_t number = number_of(x, some_request(x, n, false));
    mail *m = by_number(n, number);
    size_t len = ipc_length(x, LONGEST);
    uint32_t slice = ipc_slice(x, len);
    bool decline = ipc_one_in(x, 5);
    uint64_t need = cells_of(n, len);
    int wanted = SHD_OK;

    x->doing = decline ? "decline" : "answer";
    if (m == NULL || m->state != TAKEN || m->to != ipc_self(x))
        wanted = SHD_LOST;
    else if (!decline && need > m->cells &&
             cells(n, 0) + need - m->cells > n->was.cells)
        wanted = SHD_FULL;
    ipc_expect(x,
               decline ? shd_mailbox_decline(n->mailbox, number)
                       : shd_mailbox_answer(n->mailbox, number,
                                            x->pool + slice, len, 0),
               wanted);
    if (wanted != SHD_OK)
        return;
    m->state = decline ? DECLINED : ANSWERED;
    if (decline) {
        n->declined++;
        return;
    }
    n->answered++;
    m->slice = slice;
    m->len = len;
    m->cells = need > m->cells ? need : m->cells;
}

static void op_await(struct ipc *x, naive *n)
{
    uint64_t number = number_of(x, some_request(x, n, true));
    mail *m = by_number(n, number);
    size_t size = ipc_one_in(x, 10) ? ipc_below(x, 300) : sizeof(out);
    struct shd_mail got;
    int wanted = SHD_NOTFOUND;

    x->doing = "await";
    if (m != NULL && m->from == ipc_self(x))
        wanted = m->state == ANSWERED   ? m->len > size ? SHD_SPACE : SHD_OK
                 : m->state == FAILED   ? SHD_DEAD
                 : m->state == DECLINED ? SHD_LOST
                                        : 1;
    ipc_expect(x,
               shd_mailbox_await(n->mailbox, number, out, size, 0, &got),
               wanted);
    if (wanted == SHD_OK)
        is_mail(x, m, &got);
    if (wanted == SHD_OK || wanted == SHD_DEAD || wanted == SHD_LOST) {
        ipc_same(x, "whether it was received", got.received, m->received);
        m->there = false;
    }
}

static void op_cancel(struct ipc *x, naive *n)
{
    uint64_t number = number_of(x, some_request(x, n, true));
    mail *m = by_number(n, number);
    bool own = m != NULL && m->from == ipc_self(x);

    x->doing = "cancel";
    ipc_expect(x, shd_mailbox_cancel(n->mailbox, number),
               own ? SHD_OK : SHD_NOTFOUND);
    if (own)
        withdraw(n, m);
}

static void op_listen(struct ipc *x, naive *n)
{
    x->doing = "listen";
    ipc_expect(x, shd_mailbox_listen(n->mailbox), SHD_OK);
    n->listening[x->who] = true;
}

static void op_leave(struct ipc *x, naive *n)
{
    x->doing = "leave";
    ipc_expect(x, shd_mailbox_leave(n->mailbox), SHD_OK);
    n->listening[x->who] = false;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        mail *m = &n->mail[i];

        if (m->there && m->to == ipc_self(x) &&
            (waits(m) || m->state == TAKEN))
            lose(n, m);
    }
}

static void op_death(struct ipc *x, naive *n)
{
    uint64_t before[IPC_WORKERS], dead;

    for (uint32_t i = 0; i < IPC_WORKERS; i++)
        before[i] = x->worker[i].incarnation;
    x->doing = "a death";
    dead = ipc_death(x);
    ipc_expect(x, shd_reap(x->segment, NULL) < 0, 0);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        mail *m = &n->mail[i];

        if (m->there && m->to == dead && (waits(m) || m->state == TAKEN))
            lose(n, m);
        if (m->there && m->number != 0 && m->from == dead)
            withdraw(n, m);
    }
    for (uint32_t i = 0; i < IPC_WORKERS; i++)
        n->listening[i] = n->listening[i] &&
                          before[i] == x->worker[i].incarnation;
    n->last_dead = dead;
}

static void op_arm(struct ipc *x, naive *n)
{
    bool any = next_for(n, ipc_self(x)) != NULL;

    x->doing = "arm";
    for (uint32_t i = 0; i < MESSAGES; i++)
        any = any || (n->mail[i].there && n->mail[i].from == ipc_self(x) &&
                      n->mail[i].state >= ANSWERED);
    ipc_same(x, "the answer", (uint64_t)shd_mailbox_arm(n->mailbox), any);
}

/* ---- looking ---------------------------------------------------------------- */

static void check(struct ipc *x, naive *n)
{
    struct shd_mailbox_info i = {.struct_size = sizeof(i)};
    uint64_t waiting = 0, working = 0, answers = 0, bytes = 0;
    char report[256] = "";

    for (uint32_t k = 0; k < MESSAGES; k++) {
        const mail *m = &n->mail[k];

        if (!m->there)
            continue;
        waiting += waits(m);
        working += m->state == TAKEN;
        answers += m->state >= ANSWERED;
        bytes += m->len;
    }
    ipc_expect(x, shd_mailbox_info(n->mailbox, &i), SHD_OK);
    ipc_same(x, "waiting", i.waiting, waiting);
    ipc_same(x, "working", i.working, working);
    ipc_same(x, "answers", i.answers, answers);
    ipc_same(x, "bytes", i.bytes, bytes);
    ipc_same(x, "cells_used", i.cells_used, cells(n, 0));
    ipc_same(x, "sent", i.sent, n->sent);
    ipc_same(x, "received", i.received, n->received);
    ipc_same(x, "unread", i.unread, n->unread);
    ipc_same(x, "requests", i.requests, n->requests);
    ipc_same(x, "answered", i.answered, n->answered);
    ipc_same(x, "declined", i.declined, n->declined);
    ipc_same(x, "failed", i.failed, n->failed);
    ipc_same(x, "withdrawn", i.withdrawn, n->withdrawn);
    if (x->op % 64 == 0 &&
        shd_segment_check(x->segment, report, sizeof(report)) != SHD_OK)
        ipc_fail(x, "check: %s", report);
}

static void random_op(struct ipc *x, naive *n)
{
    static const struct {
        void (*act)(struct ipc *x, naive *n);
        unsigned share;
    } OPERATIONS[] = {{op_post, 18},   {op_post_all, 2}, {op_request, 18},
                      {op_receive, 26}, {op_answer, 14},  {op_await, 10},
                      {op_cancel, 2},   {op_listen, 3},   {op_leave, 1},
                      {op_arm, 3},      {op_death, 2}};
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

void ipc_mailbox(struct ipc *x, uint64_t ops)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o),
                                    .capacity_bytes = 32 << 10,
                                    .box_bytes = 8 << 10};
    naive *n = calloc(1, sizeof(*n));

    if (n == NULL)
        ipc_fail(x, "no memory for the test");
    ipc_expect(x, shd_mailbox_open(x->segment, "m", &o, &n->mailbox), SHD_OK);
    n->was.struct_size = sizeof(n->was);
    ipc_expect(x, shd_mailbox_info(n->mailbox, &n->was), SHD_OK);
    n->box_cells = n->was.box_bytes / n->was.cell_bytes;
    for (; x->op < ops; x->op++) {
        random_op(x, n);
        check(x, n);
    }
}
