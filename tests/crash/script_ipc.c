/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/crash/script_ipc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/api/handle.h"
#include "shm/base/clock.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"
#include "shm/worker/registry.h"

#define EVENT_MAX 65536u
#define CURSORS 3u
#define WAITERS 4u

static unsigned char data[EVENT_MAX];
static const char *const *words;
static int words_count;

static const char *word(int i)
{
    return i < words_count ? words[i] : "";
}

static uint64_t number(int i, uint64_t otherwise)
{
    return i < words_count ? strtoull(words[i], NULL, 10) : otherwise;
}

static bool is(const char *verb)
{
    return strcmp(word(0), verb) == 0;
}

static const struct guard_env *env_of(struct world *w)
{
    return &w->segment->env;
}

/* ---- topics -------------------------------------------------------------- */

static int make_topic(struct world *w)
{
    struct shd_topic_options o = {
        .struct_size = sizeof(o),
        .flags = words_count > 3 ? SHD_TOPIC_LOSSLESS : 0,
        .capacity_bytes = number(2, 4096),
        .subscribers_max = CURSORS};
    struct topic t;

    return topic_open(env_of(w), word(1), &o, true, &t);
}

static uint64_t head_number(const struct topic *t)
{
    struct topic_span span = {.head_seq = 0};

    return topic_look(t, &span) == SHD_OK ? span.head_seq : 0;
}

static int publish(const struct topic *t)
{
    int rc = SHD_OK;

    for (uint64_t i = 0; rc == SHD_OK && i < number(3, 1); i++) {
        /* Other bytes for each event: its number, and its length. */
        memset(data, (int)(head_number(t) + number(2, 0)), sizeof(data));
        rc = topic_publish(t, data, number(2, 0), NULL);
    }
    return rc;
}

static int publish_many(const struct topic *t)
{
    const void *all[64];
    size_t len[64];
    uint32_t count = (uint32_t)number(3, 1), n;
    uint64_t seq;

    for (uint32_t i = 0; i < count && i < 64; i++) {
        len[i] = number(2, 0) + i;
        all[i] = data + 100 * i;
    }
    memset(data, (int)head_number(t), sizeof(data));
    return topic_publish_many(t, all, len, count, &n, &seq);
}

/* The subscription of this worker that the table knows by that name. */
static int subscriber_of(const struct topic *t, const char *name,
                         struct topic_subscriber *s)
{
    uint64_t own = t->object.env->incarnation;
    struct topic_cursor c;

    memset(s, 0, sizeof(*s));
    for (uint32_t i = 0; i < t->cursors_max; i++) {
        if (topic_cursor_at(t, i, &c) != SHD_OK || c.owner != own ||
            strcmp(c.name, strcmp(name, "-") == 0 ? "" : name) != 0)
            continue;
        s->cursor = i + 1;
        s->owner = own;
        s->at = s->done_at = s->saved_at = c.at;
        s->seq = s->done_seq = c.seq;
        s->named = c.state == TOPIC_CURSOR_NAMED;
        return SHD_OK;
    }
    return SHD_NOTFOUND;
}

static int read_on(const struct topic *t, struct topic_subscriber *s)
{
    struct shd_event got[64];
    uint64_t missed;
    uint32_t count;
    int rc = topic_next(t, s, data, sizeof(data), got,
                        (uint32_t)number(3, 1), &count, &missed);

    return rc == SHD_OK ? topic_acknowledge(t, s) : rc;
}

static int on_topic(struct world *w, bool *known)
{
    struct topic_subscriber s;
    struct shd_topic_options any = {.struct_size = sizeof(any)};
    struct topic t;
    int rc;

    *known = is("pub") || is("pubs") || is("sub") || is("subnow") || is("read") || is("unsub") ||
             is("forget");
    if (!*known)
        return SHD_OK;
    rc = topic_open(env_of(w), word(1), &any, false, &t);
    if (rc != SHD_OK)
        return rc;
    if (is("pub"))
        return publish(&t);
    if (is("pubs"))
        return publish_many(&t);
    if (is("subnow"))
        return topic_subscribe(&t, word(2), SHD_FROM_NOW, &s);
    if (is("sub")) {
        rc = topic_subscribe(&t, strcmp(word(2), "-") == 0 ? NULL : word(2),
                             SHD_FROM_OLDEST, &s);
        for (uint64_t i = 0; rc == SHD_OK && i < number(3, 0); i++)
            rc = topic_publish(&t, data, 20, NULL);
        return rc;
    }
    if (is("forget"))
        return topic_forget(&t, word(2));
    rc = subscriber_of(&t, word(2), &s);
    if (rc != SHD_OK)
        return rc;
    return is("read") ? read_on(&t, &s) : topic_unsubscribe(&t, &s);
}

/* ---- locks --------------------------------------------------------------- */

static int make_lock(struct world *w)
{
    struct permits p;
    uint32_t n = (uint32_t)number(2, 1);

    return permits_open(env_of(w), word(1),
                        n > 1 ? SHD_OBJECT_SEMAPHORE : SHD_OBJECT_LOCK,
                        n, WAITERS, true, &p);
}

static int make_leader(struct world *w)
{
    struct permits p;

    return permits_open(env_of(w), word(1), SHD_OBJECT_LEADER, 1, WAITERS,
                        true, &p);
}

static int open_lock(struct world *w, struct permits *p)
{
    static const uint32_t KINDS[] = {SHD_OBJECT_LOCK, SHD_OBJECT_SEMAPHORE,
                                     SHD_OBJECT_LEADER};
    int rc = SHD_MISMATCH;

    for (int i = 0; i < 3 && rc == SHD_MISMATCH; i++)
        rc = permits_open(env_of(w), word(1), KINDS[i], 0, WAITERS, false, p);
    return rc;
}

/* A token of this worker's; 0: it holds none. */
static uint64_t own_token(const struct permits *p)
{
    struct permit_slot slot;

    for (uint32_t i = 0; i < p->permits; i++)
        if (permits_slot_at(p, i, &slot) == SHD_OK &&
            slot.owner == p->object.env->incarnation)
            return slot.token;
    return 0;
}

static int cancel(const struct permits *p)
{
    struct permit_grant grant;
    struct permit_waiter waiter;

    for (uint32_t i = 0; i < p->waiters_max; i++) {
        if (permits_waiter_at(p, i, &waiter) == SHD_OK &&
            waiter.owner == p->object.env->incarnation) {
            struct permit_place place = {i, waiter.ticket};
            int rc = permits_leave(p, &place, &grant);
            return rc == 1 ? SHD_OK : rc;
        }
    }
    return SHD_NOTFOUND;
}

static int acquire(const struct permits *p, int64_t ttl_ms)
{
    struct permit_grant grant;
    int rc = SHD_OK;

    for (uint64_t i = 0; rc == SHD_OK && i < (ttl_ms > 0 ? 1 : number(2, 1));
         i++)
        rc = permits_try(p, ttl_ms, &grant);
    return rc;
}

static int on_lock(struct world *w, bool *known)
{
    struct permit_grant grant;
    struct permit_place place;
    struct permits p;
    int rc;

    *known = is("acquire") || is("acquirettl") || is("release") ||
             is("request") || is("cancel") || is("extend") ||
             is("expireall") || is("lead") || is("handover") || is("resign");
    if (!*known)
        return SHD_OK;
    rc = open_lock(w, &p);
    if (rc != SHD_OK)
        return rc;
    if (is("acquire"))
        return acquire(&p, 0);
    if (is("acquirettl"))
        return acquire(&p, (int64_t)number(2, 1));
    if (is("release"))
        return permits_release(&p, own_token(&p));
    if (is("extend"))
        return permits_extend(&p, own_token(&p), (int64_t)number(2, 0));
    if (is("cancel"))
        return cancel(&p);
    if (is("resign"))
        return permits_resign(&p);
    if (is("lead") || is("handover")) {
        rc = is("lead") ? permits_stand(&p, &grant, &place)
                        : permits_hand_over(&p, &grant);
        return rc == 1 ? SHD_OK : rc;
    }
    if (is("request")) {
        rc = permits_enter(&p, 0, false, &grant, &place);
        return rc == 1 ? SHD_OK : rc;
    }
    rc = permits_expire(&p, NULL);
    return rc > 0 ? SHD_OK : rc;
}

/* ---- mailboxes ------------------------------------------------------------ */

static int make_mailbox(struct world *w)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o),
                                    .capacity_bytes = number(2, 16) * 1024,
                                    .box_bytes = number(3, 4) * 1024};
    struct mailbox b;

    return mailbox_open(env_of(w), word(1), &o, true, &b);
}

static const unsigned char *mail_bytes(const struct mailbox *b, size_t len)
{
    memset(data, (int)(b->header->ids + len + 1), sizeof(data));
    for (size_t i = 0; i < len; i += 64)
        data[i] = (unsigned char)(i / 64);
    return data;
}

/* The first message with that worker as sender or holder, in those states. */
static uint64_t mail_number(const struct mailbox *b, uint32_t states,
                            bool holds)
{
    uint64_t own = b->object.env->incarnation;

    for (uint32_t i = 0; i < b->cells.count; i++) {
        const struct message *m =
            cells_at(&b->cells, (uint32_t)((b->cells.at + i * b->cells.bytes) /
                                           SEGMENT_UNIT));

        if (m != NULL && m->last != CELLS_CONTINUED && m->state <= 31 &&
            (states >> m->state & 1) != 0 &&
            (holds ? m->holder : m->from) == own)
            return (m->lease & UINT32_MAX) << 32 | cells_ref(&b->cells, m);
    }
    return 0;
}

/* Is asked by that worker, and answers: to be cut off in the middle of it. */
static int serve(struct world *w, const struct mailbox *b, uint64_t asker)
{
    struct guard_env *env = &w->segment->env;
    uint64_t own = env->incarnation, n;
    size_t len = number(3, 0);
    struct shd_mail m;
    int rc = mailbox_listen(b);

    env->incarnation = asker;
    if (rc == SHD_OK)
        rc = mailbox_send(b, own, mail_bytes(b, 30), 30, 0, true, 0, &n);
    env->incarnation = own;
    if (rc == SHD_OK)
        rc = mailbox_receive(b, data, sizeof(data), 0, &m);
    return rc == SHD_OK ? mailbox_answer(b, m.request, mail_bytes(b, len),
                                         len, 0)
                        : rc;
}

static int send_mail(const struct mailbox *b, uint64_t to, size_t len,
                     uint64_t count)
{
    int rc = SHD_OK;
    uint64_t n;

    for (uint64_t i = 0; rc == SHD_OK && i < count; i++)
        rc = mailbox_send(b, to, mail_bytes(b, len), len, 0, is("asks"), 0,
                          &n);
    return rc;
}

static int on_mailbox(struct world *w, bool *known)
{
    uint64_t to = w->incarnation != NULL ? w->incarnation[number(2, 0)] : 0;
    size_t len = number(3, 0);
    struct shd_mail m;
    struct mailbox b;
    uint64_t n;
    int rc;

    *known = is("listen") || is("mleave") || is("post") || is("ask") ||
             is("fetch") || is("answer") || is("decline") || is("look") ||
             is("giveup") || is("serve") || is("posts") || is("asks");
    if (!*known)
        return SHD_OK;
    rc = mailbox_open(env_of(w), word(1), NULL, false, &b);
    if (rc != SHD_OK)
        return rc;
    if (is("listen"))
        return mailbox_listen(&b);
    if (is("mleave"))
        return mailbox_leave(&b);
    if (is("post") || is("ask"))
        return mailbox_send(&b, to, mail_bytes(&b, len), len, number(4, 0),
                            is("ask"), 0, &n);
    if (is("posts") || is("asks"))
        return send_mail(&b, to, len, number(4, 1));
    if (is("serve"))
        return serve(w, &b, to);
    if (is("fetch"))
        return mailbox_receive(&b, data, sizeof(data), 0, &m);
    if (is("answer")) {
        len = number(2, 0);
        return mailbox_answer(&b, mail_number(&b, 1u << MAIL_TAKEN, true),
                              mail_bytes(&b, len), len, 0);
    }
    if (is("decline"))
        return mailbox_decline(&b, mail_number(&b, 1u << MAIL_TAKEN, true));
    n = mail_number(&b, UINT32_MAX & ~(1u << MAIL_POST | 1u), false);
    if (is("giveup"))
        return mailbox_cancel(&b, n);
    rc = mailbox_await(&b, n, data, sizeof(data), 0, &m);
    return rc == SHD_DEAD || rc == SHD_LOST ? SHD_OK : rc;
}

/* A message as a restore puts it. */
static int put_message(struct world *w)
{
    size_t len = number(2, 0);
    struct queue q;
    int rc = queue_open(env_of(w), word(1), NULL, false, &q);

    memset(data, (int)(len + number(5, 1)), sizeof(data));
    return rc == SHD_OK
               ? queue_put(&q, data, len, (uint32_t)number(3, QUEUE_READY),
                           (uint32_t)number(4, 0), number(5, 1), 1,
                           clock_now_ms() + number(6, 50))
               : rc;
}

/* Another queue in the place of the one that is there, as a restore does. */
static int replace_queue(struct world *w)
{
    struct guard_env *env = &w->segment->env;
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = number(2, 8) * 1024};
    struct catalogue_object c;
    struct queue q;
    int rc = catalogue_find(env, word(1), &c);

    if (rc != SHD_OK)
        return rc;
    env->replacing = c.generation;
    rc = queue_open(env, word(1), &o, true, &q);
    env->replacing = 0;
    return rc;
}

int script_ipc(struct world *w, char *const word_of[], int count, bool *known)
{
    int rc;

    words = (const char *const *)word_of;
    words_count = count;
    *known = true;
    if (is("topic"))
        return make_topic(w);
    if (is("lock"))
        return make_lock(w);
    if (is("leader"))
        return make_leader(w);
    if (is("mailbox"))
        return make_mailbox(w);
    if (is("put"))
        return put_message(w);
    if (is("replaceq"))
        return replace_queue(w);
    if (is("drop"))
        return shd_object_destroy(w->segment, word(1));
    rc = on_topic(w, known);
    if (!*known)
        rc = on_mailbox(w, known);
    return *known ? rc : on_lock(w, known);
}

/* ---- states -------------------------------------------------------------- */

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3ull;
    return h ^ h >> 31;
}

static uint64_t mix_number(uint64_t h, uint64_t n)
{
    return mix(h, &n, sizeof(n));
}

static int add(struct state *s, const char *object, const char *what,
               uint64_t number_of, uint64_t content)
{
    struct state_entry *e = &s->entry[s->entries];

    if (s->entries == STATE_ENTRIES) {
        printf("    more entries than this test can hold\n");
        return -1;
    }
    memset(e, 0, sizeof(*e));
    snprintf(e->key, sizeof(e->key), "%.6s.%.4s%" PRIu64, object, what,
             number_of);
    e->content = content;
    s->entries++;
    return 0;
}

static int complain(const char *what, int rc)
{
    printf("    %s gave %s: %s\n", what, shd_strerror_name(rc),
           shd_last_error());
    return -1;
}

static int read_events(const struct topic *t, struct state *s)
{
    struct topic_subscriber all;
    struct shd_event got;
    uint64_t missed;
    uint32_t count = 1;
    struct topic plain = *t;
    int rc;

    /* A look at a lossless topic leaves no cursor. */
    plain.flags = 0;
    rc = topic_subscribe(&plain, NULL, SHD_FROM_OLDEST, &all);
    while (rc == SHD_OK && count > 0) {
        rc = topic_next(&plain, &all, data, sizeof(data), &got, 1, &count,
                        &missed);
        if (rc == SHD_OK && missed > 0)
            return complain("events missed", rc);
        if (rc == SHD_OK && count > 0 &&
            add(s, t->object.name, "e", got.seq, mix(5, data, got.len)) != 0)
            return -1;
    }
    return rc == SHD_OK ? 0 : complain("topic_next", rc);
}

static int read_topic(struct world *w, const char *name, struct state *s)
{
    struct shd_topic_options any = {.struct_size = sizeof(any)};
    struct topic_cursor c;
    struct topic_span span;
    struct topic t;
    int rc = topic_open(env_of(w), name, &any, false, &t);

    if (rc == SHD_OK)
        rc = topic_look(&t, &span);
    if (rc != SHD_OK)
        return complain("topic_open", rc);
    if (add(s, name, "head", 0, span.head_seq) != 0)
        return -1;
    for (uint32_t i = 0; i < t.cursors_max; i++) {
        uint64_t h = 11;

        if (topic_cursor_at(&t, i, &c) != SHD_OK)
            continue;
        h = mix(h, c.name, strlen(c.name));
        h = mix_number(mix_number(mix_number(h, c.owner), c.at), c.seq);
        if (add(s, name, "c", i, h) != 0)
            return -1;
    }
    return read_events(&t, s);
}

static int read_lock(struct world *w, const struct shd_object_info *o,
                     struct state *s)
{
    struct permits_header h;
    struct permit_waiter waiter;
    struct permit_slot slot;
    uint64_t content = 3;
    struct permits p;
    int rc = permits_open(env_of(w), o->name, o->kind, 0, WAITERS, false, &p);

    if (rc == SHD_OK)
        rc = permits_header_look(&p, &h);
    if (rc != SHD_OK)
        return complain("permits_open", rc);
    content = mix_number(content, h.tokens);
    content = mix_number(content, h.tickets);
    content = mix_number(content, h.deaths);
    content = mix_number(content, h.expirations);
    content = mix_number(content, h.slots_taken);
    content = mix_number(content, h.waiting);
    for (uint32_t i = 0; i < p.permits; i++) {
        memset(&slot, 0, sizeof(slot));
        (void)!permits_slot_at(&p, i, &slot);
        content = mix_number(mix_number(content, slot.owner), slot.mark);
        content = mix_number(content, slot.owner ? slot.token : 0);
        content = mix_number(content, slot.expires_ms);
    }
    for (uint32_t i = 0; i < p.waiters_max; i++) {
        memset(&waiter, 0, sizeof(waiter));
        if (permits_waiter_at(&p, i, &waiter) != SHD_OK)
            continue;
        content = mix_number(mix_number(content, waiter.owner), waiter.ticket);
        content = mix_number(mix_number(content, waiter.state), waiter.mark);
    }
    return add(s, o->name, "lock", 0, content);
}

static int read_mail(const struct mailbox *b, const struct message_list *l,
                     uint64_t h, struct state *s)
{
    for (uint32_t ref = l->first; ref != 0;) {
        const struct message *m = cells_at(&b->cells, ref);
        uint64_t content = mix_number(h, m->state);

        if (m->len > sizeof(data) ||
            cells_read(&b->cells, m, 0, data, m->len) != SHD_OK)
            return complain("cells_read", SHD_CORRUPT);
        /* Of what has failed only that it has is told. */
        if (m->state != MAIL_FAILED)
            content = mix(content, data, m->len);
        content = mix_number(mix_number(content, m->from), m->holder);
        content = mix_number(mix_number(content, m->lease), m->attempts);
        if (add(s, b->object.name, "m", m->id, content) != 0)
            return -1;
        s->order = mix_number(s->order, m->id);
        ref = m->after;
    }
    return 0;
}

static int read_mailbox(struct world *w, const char *name, struct state *s)
{
    struct mailbox b;
    int rc = mailbox_open(env_of(w), name, NULL, false, &b);

    if (rc != SHD_OK)
        return complain("mailbox_open", rc);
    for (uint32_t i = 0; i < b.count; i++) {
        const struct mailbox_box *box = &b.boxes[i];

        if (box->owner != 0 &&
            add(s, name, "box", i,
                mix_number(box->owner, box->listening)) != 0)
            return -1;
        if (read_mail(&b, &box->inbox, i * 3, s) != 0 ||
            read_mail(&b, &box->taken, i * 3 + 1, s) != 0 ||
            read_mail(&b, &box->answers, i * 3 + 2, s) != 0)
            return -1;
    }
    return 0;
}

int state_read_ipc(struct world *w, struct state *s)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    int rc;

    for (uint32_t i = 0;
         (rc = shd_object_info(w->segment, i, &o)) != SHD_INVAL; i++) {
        int bad = 0;

        if (rc != SHD_OK)
            continue;
        if (o.kind == SHD_OBJECT_TOPIC)
            bad = read_topic(w, o.name, s);
        else if (o.kind == SHD_OBJECT_LOCK ||
                 o.kind == SHD_OBJECT_SEMAPHORE ||
                 o.kind == SHD_OBJECT_LEADER)
            bad = read_lock(w, &o, s);
        else if (o.kind == SHD_OBJECT_MAILBOX)
            bad = read_mailbox(w, o.name, s);
        if (bad != 0)
            return -1;
    }
    return 0;
}

/* ---- what the dead have -------------------------------------------------- */

static bool is_of_dead(struct world *w, uint64_t owner)
{
    return owner != 0 && registry_is_dead(env_of(w), owner);
}

static bool lock_of_dead(struct world *w, const struct shd_object_info *o)
{
    struct permit_waiter waiter;
    struct permit_slot slot;
    struct permits p;
    bool any = false;

    if (permits_open(env_of(w), o->name, o->kind, 0, WAITERS, false, &p) !=
        SHD_OK)
        return false;
    for (uint32_t i = 0; i < p.permits; i++)
        any |= permits_slot_at(&p, i, &slot) == SHD_OK &&
               is_of_dead(w, slot.owner);
    for (uint32_t i = 0; i < p.waiters_max; i++)
        any |= permits_waiter_at(&p, i, &waiter) == SHD_OK &&
               is_of_dead(w, waiter.owner);
    return any;
}

static bool topic_of_dead(struct world *w, const struct shd_object_info *o)
{
    struct shd_topic_options options = {.struct_size = sizeof(options)};
    struct topic_cursor c;
    struct topic t;
    bool any = false;

    if (topic_open(env_of(w), o->name, &options, false, &t) != SHD_OK)
        return false;
    for (uint32_t i = 0; i < t.cursors_max; i++)
        any |= topic_cursor_at(&t, i, &c) == SHD_OK && is_of_dead(w, c.owner);
    return any;
}

const char *script_left_by_dead(struct world *w)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    int rc;

    for (uint32_t i = 0;
         (rc = shd_object_info(w->segment, i, &o)) != SHD_INVAL; i++) {
        if (rc != SHD_OK)
            continue;
        if (o.kind == SHD_OBJECT_TOPIC && topic_of_dead(w, &o))
            return "a dead worker still has a topic's cursor";
        if ((o.kind == SHD_OBJECT_LOCK || o.kind == SHD_OBJECT_SEMAPHORE) &&
            lock_of_dead(w, &o))
            return "a dead worker still has a permit, or a place in line";
    }
    return NULL;
}
