/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sending, receiving, answering; mailbox_object.c makes, buries and checks.
 *
 * A request's number is the count of leases and the place of its first cell:
 * what it names is found without a search, and is another one's when the count
 * differs. Whoever holds a message (reads, writes, answers it) may touch its
 * bytes without the lock; so it is freed by its holder alone, or by who has
 * proved that one dead.
 *
 * Threads that wait for mail sleep at their worker's own place in the registry,
 * those that wait for room at the object's.
 */
#include "shm/ipc/mailbox.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/read.h"
#include "shm/worker/doorbell.h"
#include "shm/worker/registry.h"

#include <string.h>

/* More than this is copied without the lock. */
#define COPY_MAX 16384u
#define LOOK_MS 10u /* between two looks for the dead */

#define SEND_WORDS (CELLS_ALLOC_WORDS + MESSAGE_LIST_WORDS + 10u)

/* ---- small change ------------------------------------------------------ */

void mail_add32(struct txn *t, uint32_t *p, uint32_t n)
{
    txn_store32(t, p, atomic_load32(p) + n);
}

void mail_add64(struct txn *t, uint64_t *p, uint64_t n)
{
    txn_store64(t, p, atomic_load64(p) + n);
}

void mail_begin(const struct mailbox *b, struct txn *t, uint32_t words)
{
    txn_begin(t, b->object.env->segment, object_guard(&b->object, 0), words);
}

int mail_end(struct txn *t, int rc)
{
    if (rc == SHD_OK)
        txn_commit(t);
    else
        txn_abort(t);
    return rc;
}

uint32_t mail_state(const struct message *m)
{
    return atomic_load32(&m->state) & ~MESSAGE_RED;
}

static uint64_t self(const struct mailbox *b)
{
    return b->object.env->incarnation;
}

struct mailbox_box *mailbox_box_of(const struct mailbox *b,
                                   uint64_t incarnation)
{
    uint32_t index = registry_index(incarnation);

    return incarnation == 0 || index >= b->count ? NULL : &b->boxes[index];
}

static uint64_t number_of(const struct mailbox *b, const struct message *m)
{
    return (atomic_load64(&m->lease) & UINT32_MAX) << 32 |
           cells_ref(&b->cells, m);
}

/* ---- waking ------------------------------------------------------------ */

void mail_notice_box(const struct mailbox *b, struct mailbox_box *box,
                     struct mail_notice *n)
{
    struct mail_told *t = &n->told[n->count];
    struct guard_wait *w;

    t->index = (uint32_t)(box - b->boxes);
    w = registry_wait(b->object.env->segment, t->index);
    t->posted = w != NULL ? wait_post(w) : 0;
    t->bell = atomic_load32(&box->armed) != 0;
    if (t->bell)
        atomic_store32(&box->armed, 0);
    if (t->posted != 0 || t->bell)
        n->count++;
    assert(n->count < MAIL_STEP_MAX);
}

void mail_notice_unlock(const struct mailbox *b, struct mail_notice *n)
{
    const struct guard_env *env = b->object.env;
    struct object_notice room;
    bool awaited = n->room && object_awaited(&b->object, MAILBOX_WAIT_ROOM);

    if (awaited) {
        object_notice_begin(&room);
        object_post(&b->object, MAILBOX_WAIT_ROOM, WAIT_ALL, &room);
    }
    object_unlock(&b->object, 0);
    if (awaited)
        object_deliver(&b->object, &room);
    for (uint32_t i = 0; i < n->count; i++) {
        const struct mail_told *t = &n->told[i];

        if (t->posted != 0)
            wait_wake(registry_wait(env->segment, t->index), t->posted,
                      WAIT_ALL);
        if (t->bell)
            doorbell_ring(env, t->index);
    }
}

/* ---- moves, inside a transaction --------------------------------------- */

/* State and attempts are one word. */
static void state_store(struct txn *t, struct message *m, uint32_t state,
                        uint32_t attempts)
{
    txn_store64(t, (uint64_t *)(void *)&m->state,
                (uint64_t)attempts << 32 | state);
}

static bool in_inbox(const struct message *m)
{
    return mail_state(m) == MAIL_POST || mail_state(m) == MAIL_REQUEST;
}

static int put_inbox(const struct mailbox *b, struct txn *t,
                     struct mailbox_box *box, struct message *m,
                     uint32_t state)
{
    state_store(t, m, state, 0);
    mail_add32(t, &box->n_inbox, 1);
    mail_add32(t, &box->cells, atomic_load32(&m->cells));
    mail_add64(t, &b->header->sent, 1);
    if (state == MAIL_REQUEST)
        mail_add64(t, &b->header->requests, 1);
    return message_append(&b->cells, t, &box->inbox, m);
}

static int put_taken(const struct mailbox *b, struct txn *t,
                     struct mailbox_box *box, struct message *m,
                     uint32_t state, uint32_t attempts)
{
    state_store(t, m, state, attempts);
    mail_add32(t, &box->n_taken, 1);
    return message_append(&b->cells, t, &box->taken, m);
}

/* Out of the list of its box that it is in. */
int mail_unlist(const struct mailbox *b, struct txn *t,
                struct mailbox_box *box, struct message *m)
{
    if (in_inbox(m)) {
        mail_add32(t, &box->n_inbox, UINT32_MAX);
        mail_add32(t, &box->cells, -atomic_load32(&m->cells));
        return message_remove(&b->cells, t, &box->inbox, m);
    }
    if (mail_state(m) <= MAIL_ANSWERING) {
        mail_add32(t, &box->n_taken, UINT32_MAX);
        return message_remove(&b->cells, t, &box->taken, m);
    }
    mail_add32(t, &box->n_answers, UINT32_MAX);
    return message_remove(&b->cells, t, &box->answers, m);
}

int mail_drop(const struct mailbox *b, struct txn *t, struct message *m)
{
    mail_add64(t, &b->header->bytes,
               (uint64_t)0 - atomic_load32(&m->len));
    return cells_give(&b->cells, t, m);
}

int mail_settle(const struct mailbox *b, struct mailbox_box *box,
                struct message *m, uint32_t state, struct mail_notice *n)
{
    struct mailbox_header *h = b->header;
    uint64_t from = atomic_load64(&m->from);
    struct mailbox_box *asker = mailbox_box_of(b, from);
    bool wanted = asker != NULL && atomic_load64(&asker->owner) == from;
    struct txn t;
    int rc;

    mail_begin(b, &t, MAIL_MOVE_WORDS + CELLS_FREE_WORDS);
    if (mail_state(m) == MAIL_REQUEST)
        mail_add64(&t, &h->unread, 1);
    rc = mail_unlist(b, &t, box, m);
    if (from != 0)
        mail_add64(&t,
                   !wanted                  ? &h->withdrawn
                   : state == MAIL_ANSWERED ? &h->answered
                   : state == MAIL_FAILED   ? &h->failed
                                            : &h->declined,
                   1);
    if (rc == SHD_OK && wanted) {
        state_store(&t, m, state, atomic_load32(&m->attempts));
        mail_add32(&t, &asker->n_answers, 1);
        rc = message_append(&b->cells, &t, &asker->answers, m);
    } else if (rc == SHD_OK) {
        rc = mail_drop(b, &t, m);
    }
    rc = mail_end(&t, rc);
    if (rc == SHD_OK && wanted)
        mail_notice_box(b, asker, n);
    n->room = n->room || !wanted;
    return rc;
}

/* ---- a box of one's own ------------------------------------------------ */

/* With the lock: this worker's box. SHD_BUSY: it is another's still. */
static int own_box(const struct mailbox *b, bool listen,
                   struct mailbox_box **out)
{
    struct mailbox_box *box = mailbox_box_of(b, self(b));
    struct txn t;
    bool is_own;

    if (box == NULL)
        return error_set(SHD_INVAL, "this process is not registered");
    *out = box;
    is_own = atomic_load64(&box->owner) == self(b);
    if (!is_own && atomic_load64(&box->owner) != 0)
        return SHD_BUSY;
    if (is_own && (!listen || atomic_load32(&box->listening) != 0))
        return SHD_OK;
    if (!is_own)
        atomic_store32(&box->armed, 0);
    mail_begin(b, &t, 2);
    txn_store64(&t, &box->owner, self(b));
    txn_store32(&t, &box->listening, listen);
    txn_commit(&t);
    return SHD_OK;
}

/* Locks, with a box. Who had the slot before is gone. */
static int lock_own(const struct mailbox *b, bool listen,
                    struct mailbox_box **box)
{
    uint64_t before;
    int rc = object_lock(&b->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = own_box(b, listen, box);
    for (int i = 0; i < 3 && rc == SHD_BUSY; i++) {
        before = atomic_load64(&(*box)->owner);
        object_unlock(&b->object, 0);
        rc = mailbox_bury(b, before, false);
        if (rc == SHD_OK)
            rc = object_lock(&b->object, 0);
        if (rc != SHD_OK)
            return rc;
        rc = own_box(b, listen, box);
    }
    if (rc == SHD_BUSY)
        rc = object_damaged(&b->object, "the box of this worker is another's");
    if (rc != SHD_OK)
        object_unlock(&b->object, 0);
    return rc;
}

int mailbox_listen(const struct mailbox *b)
{
    struct mailbox_box *box;
    int rc = lock_own(b, true, &box);

    if (rc == SHD_OK)
        object_unlock(&b->object, 0);
    return rc;
}

int mailbox_leave(const struct mailbox *b)
{
    struct mailbox_box *box;
    struct txn t;
    int rc = lock_own(b, false, &box);

    if (rc != SHD_OK)
        return rc;
    mail_begin(b, &t, 1);
    txn_store32(&t, &box->listening, 0);
    txn_commit(&t);
    object_unlock(&b->object, 0);
    return mailbox_bury(b, self(b), true);
}

int mailbox_find(const struct mailbox *b, int32_t worker_id,
                 uint64_t *incarnation)
{
    const struct segment *s = b->object.env->segment;
    uint64_t best_rank = 0;

    *incarnation = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        const struct registry_slot *slot = registry_slot_at(s, i);
        uint64_t owner = atomic_load64(&b->boxes[i].owner), rank;

        if (owner == 0 || slot == NULL ||
            atomic_load32(&b->boxes[i].listening) == 0 ||
            atomic_load64(&slot->incarnation) != owner ||
            (int32_t)atomic_load32((const uint32_t *)&slot->worker_id) !=
                worker_id)
            continue;
        /* One that drains only if there is no other; then the newest. */
        rank = (uint64_t)(atomic_load32(&slot->phase) != SHD_PHASE_DRAINING)
                   << 40 |
               ((uint64_t)atomic_load32(&slot->generation) + 1);
        if (rank > best_rank) {
            best_rank = rank;
            *incarnation = owner;
        }
    }
    if (best_rank == 0)
        return error_set(SHD_NOTFOUND, "no worker %d listens to mailbox '%s'",
                         (int)worker_id, b->object.name);
    return SHD_OK;
}

/* ---- sending ----------------------------------------------------------- */

static int no_box(const struct mailbox *b, uint64_t to)
{
    if (registry_is_dead(b->object.env, to))
        return error_set(SHD_DEAD, "worker %llu is dead",
                         (unsigned long long)to);
    return error_set(SHD_NOTFOUND,
                     "worker %llu does not listen to mailbox '%s'",
                     (unsigned long long)to, b->object.name);
}

/* What a message takes, and whether it can be at all. */
static int plan_cells(const struct mailbox *b, size_t len, size_t answer,
                      uint64_t *cells)
{
    *cells = cells_of(&b->cells, answer > len ? answer : len);
    if (*cells > b->cells.count || *cells > b->box_cells)
        return error_set(SHD_TOOBIG,
                         "a message of %zu bytes: a box of mailbox '%s' holds "
                         "%llu",
                         answer > len ? answer : len, b->object.name,
                         (unsigned long long)b->header->box_bytes);
    return SHD_OK;
}

/* With the lock: room for so many cells in the box of `to`. */
static int find_room(const struct mailbox *b, uint64_t to, uint64_t cells,
                     struct mailbox_box **box, struct cells_run *run)
{
    *box = mailbox_box_of(b, to);
    if (*box == NULL || atomic_load64(&(*box)->owner) != to ||
        atomic_load32(&(*box)->listening) == 0)
        return no_box(b, to);
    if (atomic_load32(&(*box)->cells) + cells > b->box_cells)
        return SHD_FULL;
    return cells_find_cells(&b->cells, cells, run);
}

/* With the lock: is it time to look whether the dead have the room? */
static bool should_look(const struct mailbox *b)
{
    uint64_t now = clock_coarse_ms();

    if (now - atomic_load64(&b->header->looked_ms) < LOOK_MS)
        return false;
    atomic_store64(&b->header->looked_ms, now);
    return true;
}

/* With the lock, which is let go of, and finding no room: true once it is
 * worth another look. */
static bool wait_for_room(const struct mailbox *b, struct wait_end *by,
                          int *rc)
{
    uint64_t until = wait_until(by);
    struct guard_wait *w = object_place(&b->object, MAILBOX_WAIT_ROOM);
    bool look = should_look(b);
    uint32_t turn;

    if (!look && (until == 0 ||
                  (until != WAIT_NEVER && clock_now_ms() >= until))) {
        object_unlock(&b->object, 0);
        return false;
    }
    turn = look ? 0 : wait_arm(w);
    object_unlock(&b->object, 0);
    if (!look)
        wait_sleep(w, turn, until);
    if (look || atomic_load32(&w->turn) == turn)
        *rc = mailbox_bury_all(b);
    return *rc == SHD_OK;
}

/* The message's own words, before anybody can reach it. */
static void describe(const struct mailbox *b, struct txn *t, struct message *m,
                     uint64_t to)
{
    struct mailbox_header *h = b->header;
    uint64_t lease = atomic_load64(&h->leases) + 1;

    atomic_store64(&m->id, atomic_load64(&h->ids) + 1);
    atomic_store64(&m->from, self(b));
    atomic_store64(&m->holder, to);
    atomic_store64(&m->lease, lease);
    atomic_store64(&m->pushed_ms, clock_wall_ms());
    txn_store64(t, &h->ids, atomic_load64(&m->id));
    txn_store64(t, &h->leases, lease);
    mail_add64(t, &h->bytes, atomic_load32(&m->len));
}

/* Locks, with a box of its own and room in the other's. */
static int lock_with_room(const struct mailbox *b, uint64_t to, uint64_t cells,
                          struct wait_end *by, struct mailbox_box **own,
                          struct mailbox_box **box, struct cells_run *run)
{
    int rc = SHD_OK;

    while (rc == SHD_OK) {
        rc = lock_own(b, false, own);
        if (rc != SHD_OK)
            return rc;
        rc = find_room(b, to, cells, box, run);
        if (rc == SHD_OK)
            return SHD_OK;
        if (rc != SHD_FULL) {
            object_unlock(&b->object, 0);
            return rc;
        }
        rc = SHD_OK;
        if (wait_for_room(b, by, &rc) || rc != SHD_OK)
            continue;
        if (!registry_is_dead(b->object.env, to))
            return SHD_FULL;
        rc = mailbox_bury(b, to, false);
        return rc != SHD_OK ? rc : no_box(b, to);
    }
    return rc;
}

/* With the lock: the message of that number, in one of those states, that
 * `who` at that word of it is. */
static struct message *find(const struct mailbox *b, uint64_t number,
                            uint32_t states, bool holds)
{
    struct message *m = cells_at(&b->cells, (uint32_t)number);

    if (m == NULL || atomic_load32(&m->last) == CELLS_CONTINUED ||
        mail_state(m) > 31 || (states >> mail_state(m) & 1) == 0 ||
        (uint32_t)atomic_load64(&m->lease) != number >> 32 || self(b) == 0 ||
        atomic_load64(holds ? &m->holder : &m->from) != self(b))
        return NULL;
    return m;
}

#define STATE(s) (1u << (s))

/* With the lock: what was written goes, to the box or to nowhere. */
static int move_written(const struct mailbox *b, struct mailbox_box *own,
                        struct mailbox_box *box, struct message *m,
                        uint32_t state, struct mail_notice *n)
{
    struct txn t;
    int rc;

    mail_begin(b, &t, SEND_WORDS + MAIL_GONE_WORDS);
    rc = mail_unlist(b, &t, own, m);
    if (rc == SHD_OK && box == NULL) {
        rc = mail_drop(b, &t, m);
    } else if (rc == SHD_OK) {
        txn_store64(&t, &m->holder, atomic_load64(&box->owner));
        rc = put_inbox(b, &t, box, m, state);
    }
    rc = mail_end(&t, rc);
    if (rc == SHD_OK && box != NULL)
        mail_notice_box(b, box, n);
    n->room = n->room || box == NULL;
    return rc;
}

/* The bytes are written; now it is sent. What cannot be is dropped. The box had
 * room before, and may be full by now. */
static int send_written(const struct mailbox *b, uint64_t to, uint64_t number,
                        uint32_t state, struct wait_end *by)
{
    struct mailbox_box *own, *box;
    struct mail_notice n;
    struct message *m;
    bool too_late = false;
    int rc, failed = SHD_OK;

    mail_notice_begin(&n);
    for (;;) {
        struct cells_run run;

        rc = lock_own(b, false, &own);
        if (rc != SHD_OK)
            return rc;
        m = find(b, number, STATE(MAIL_WRITING), false);
        if (m == NULL) {
            object_unlock(&b->object, 0);
            return object_damaged(&b->object,
                                  "what is being sent is not there");
        }
        if (failed == SHD_OK)
            failed = find_room(b, to, 0, &box, &run);
        if (failed == SHD_OK && atomic_load32(&box->cells) +
                                        (uint64_t)atomic_load32(&m->cells) >
                                    b->box_cells)
            failed = SHD_FULL;
        if (failed != SHD_FULL || too_late || wait_until(by) == 0)
            break;
        failed = SHD_OK;
        if (!wait_for_room(b, by, &failed)) {
            too_late = true; /* once more, to drop it */
            if (failed == SHD_OK)
                failed = SHD_FULL;
        }
    }
    rc = move_written(b, own, failed == SHD_OK ? box : NULL, m, state, &n);
    mail_notice_unlock(b, &n);
    return failed != SHD_OK ? failed : rc;
}

int mailbox_send(const struct mailbox *b, uint64_t to, const void *data,
                 size_t len, size_t answer_bytes, bool request,
                 int64_t wait_ms, uint64_t *number)
{
    uint32_t state = request ? MAIL_REQUEST : MAIL_POST;
    struct mailbox_box *own, *box;
    bool is_long = len > COPY_MAX;
    struct mail_notice n;
    struct cells_run run;
    struct message *m;
    struct wait_end by;
    uint64_t cells;
    struct txn t;
    int rc = plan_cells(b, len, answer_bytes, &cells);

    if (rc == SHD_OK)
        rc = wait_begin(&by, wait_ms);
    if (rc == SHD_OK)
        rc = lock_with_room(b, to, cells, &by, &own, &box, &run);
    if (rc != SHD_OK)
        return rc;
    mail_notice_begin(&n);
    if (!is_long)
        cells_fill(&b->cells, &run, data, len);
    mail_begin(b, &t, SEND_WORDS);
    m = cells_take(&b->cells, &t, &run, len);
    describe(b, &t, m, is_long ? self(b) : to);
    rc = is_long ? put_taken(b, &t, own, m, MAIL_WRITING, 0)
                 : put_inbox(b, &t, box, m, state);
    rc = mail_end(&t, rc);
    if (rc == SHD_OK)
        *number = request || is_long ? number_of(b, m)
                                     : atomic_load64(&m->id);
    if (rc == SHD_OK && !is_long)
        mail_notice_box(b, box, &n);
    mail_notice_unlock(b, &n);
    if (rc != SHD_OK || !is_long)
        return rc;
    rc = cells_write(&b->cells, m, 0, data, len);
    if (rc == SHD_OK)
        rc = send_written(b, to, *number, state, &by);
    return rc;
}

/* ---- receiving --------------------------------------------------------- */

static void tell(const struct mailbox *b, const struct message *m,
                 struct shd_mail *out)
{
    uint32_t state = mail_state(m);

    memset(out, 0, sizeof(*out));
    out->len = atomic_load32(&m->len);
    out->id = atomic_load64(&m->id);
    out->from = atomic_load64(&m->from);
    out->to = atomic_load64(&m->holder);
    out->sent_ms = atomic_load64(&m->pushed_ms);
    out->received = atomic_load32(&m->attempts);
    if (state != MAIL_POST && state != MAIL_READING)
        out->request = number_of(b, m);
}

/* Out of an inbox, to be read, or answered. */
static int take(const struct mailbox *b, struct mailbox_box *box,
                struct message *m, uint32_t state)
{
    struct txn t;
    int rc;

    mail_begin(b, &t, MAIL_MOVE_WORDS);
    mail_add64(&t, &b->header->received, 1);
    rc = mail_unlist(b, &t, box, m);
    if (rc == SHD_OK)
        rc = put_taken(b, &t, box, m, state, 1);
    return mail_end(&t, rc);
}

/* A message that its holder is done with. */
static int done_with(const struct mailbox *b, struct mailbox_box *box,
                     struct message *m)
{
    struct txn t;
    int rc;

    mail_begin(b, &t, MAIL_GONE_WORDS);
    if (in_inbox(m))
        mail_add64(&t, &b->header->received, 1);
    rc = mail_unlist(b, &t, box, m);
    if (rc == SHD_OK)
        rc = mail_drop(b, &t, m);
    return mail_end(&t, rc);
}

/* What was copied without the lock is what it should be, if it is still held;
 * a post is done with then. SHD_LOST: it was withdrawn meanwhile. */
static int after_copy(const struct mailbox *b, uint64_t number, bool post)
{
    struct mailbox_box *box;
    struct mail_notice n;
    struct message *m;
    int rc = lock_own(b, false, &box);

    if (rc != SHD_OK)
        return rc;
    mail_notice_begin(&n);
    m = find(b, number, STATE(post ? MAIL_READING : MAIL_TAKEN), true);
    if (m == NULL) {
        rc = SHD_LOST;
    } else if (post) {
        rc = done_with(b, box, m);
        n.room = true;
    }
    mail_notice_unlock(b, &n);
    return rc;
}

/* With the lock, which is let go of. SHD_LOST: look for another. */
static int deliver(const struct mailbox *b, struct mailbox_box *box,
                   struct message *m, void *buf, size_t size,
                   struct shd_mail *out)
{
    bool is_long = atomic_load32(&m->len) > COPY_MAX;
    bool post = mail_state(m) == MAIL_POST;
    uint64_t number = number_of(b, m);
    struct mail_notice n;
    int rc = SHD_OK;

    mail_notice_begin(&n);
    tell(b, m, out);
    out->received = 1;
    if (out->len > size) {
        object_unlock(&b->object, 0);
        return SHD_SPACE;
    }
    if (!is_long)
        rc = cells_read(&b->cells, m, 0, buf, out->len);
    if (rc == SHD_OK)
        rc = post && !is_long ? done_with(b, box, m)
                              : take(b, box, m,
                                     post ? MAIL_READING : MAIL_TAKEN);
    n.room = rc == SHD_OK; /* in the box, at least */
    mail_notice_unlock(b, &n);
    if (rc != SHD_OK || !is_long)
        return rc;
    rc = cells_read(&b->cells, m, 0, buf, out->len);
    if (rc == SHD_OK || rc == SHD_CORRUPT) {
        int still = after_copy(b, number, post);

        rc = still != SHD_OK ? still : rc;
    }
    return rc;
}

/* With the lock, which is let go of: sleeps at this worker's place, unless it
 * is too late (false); the first time it only looks a little while for
 * somebody's transaction. *idle: nobody has come by. */
static bool wait_for_mail(const struct mailbox *b, struct wait_end *by,
                          bool *idle, bool *peeped)
{
    const struct guard *g = object_guard(&b->object, 0);
    struct guard_wait *w = registry_wait(b->object.env->segment,
                                         registry_index(self(b)));
    uint64_t seq = atomic_load64(&g->seq), until = wait_until(by);
    uint32_t turn;

    if (w == NULL || until == 0 ||
        (until != WAIT_NEVER && clock_now_ms() >= until)) {
        object_unlock(&b->object, 0);
        return false;
    }
    *idle = false;
    if (!*peeped) {
        object_unlock(&b->object, 0);
        *peeped = true;
        wait_look(g, seq);
        return true;
    }
    turn = wait_arm(w);
    object_unlock(&b->object, 0);
    wait_sleep(w, turn, until);
    *peeped = false;
    *idle = atomic_load32(&w->turn) == turn;
    return true;
}

/* Without the lock, for who asks again and again, and would keep from it those
 * who send: this worker listens, and has no mail. */
static bool is_idle(const struct mailbox *b)
{
    const struct guard *g = object_guard(&b->object, 0);
    const struct mailbox_box *box = mailbox_box_of(b, self(b));
    uint64_t seq;
    bool idle;

    if (box == NULL || !read_begin(g, &seq))
        return false;
    idle = atomic_load32(&box->inbox.first) == 0 &&
           atomic_load32(&box->listening) == 1 &&
           atomic_load64(&box->owner) == self(b);
    idle = idle && !object_gone(&b->object, 0);
    return idle && read_valid(g, seq);
}

int mailbox_receive(const struct mailbox *b, void *buf, size_t size,
                    int64_t wait_ms, struct shd_mail *out)
{
    struct mailbox_box *box;
    bool peeped = false;
    struct wait_end by;
    int rc = wait_begin(&by, wait_ms);

    if (wait_ms == 0 && is_idle(b))
        return SHD_NOTFOUND;
    while (rc == SHD_OK) {
        bool idle;
        uint32_t first;

        rc = lock_own(b, true, &box);
        if (rc != SHD_OK)
            return rc;
        first = atomic_load32(&box->inbox.first);
        if (first != 0) {
            struct message *m = cells_at(&b->cells, first);

            if (m == NULL || !in_inbox(m)) {
                object_unlock(&b->object, 0);
                return object_damaged(&b->object,
                                      "an inbox leads to no message");
            }
            rc = deliver(b, box, m, buf, size, out);
            if (rc != SHD_LOST)
                return rc;
            rc = SHD_OK;
        } else if (!wait_for_mail(b, &by, &idle, &peeped)) {
            rc = SHD_NOTFOUND;
        }
    }
    return rc;
}

/* ---- answering --------------------------------------------------------- */

static int not_taken(const struct mailbox *b)
{
    return error_set(SHD_LOST,
                     "no such request to this worker in mailbox '%s': its "
                     "sender gave up, or it has been answered",
                     b->object.name);
}

/* With the lock: cells for an answer that is longer than what the request
 * has. */
static int lengthen(const struct mailbox *b, struct message *m, size_t len)
{
    uint64_t need = cells_of(&b->cells, len);
    uint32_t have = atomic_load32(&m->cells);
    struct cells_run run;
    struct txn t;
    int rc;

    if (need <= have)
        return SHD_OK;
    rc = cells_find_cells(&b->cells, need - have, &run);
    if (rc != SHD_OK)
        return rc;
    mail_begin(b, &t, CELLS_EXTEND_WORDS);
    return mail_end(&t, cells_extend(&b->cells, &t, m, &run));
}

/* Locks, with the request found and room for its answer. */
static int lock_to_answer(const struct mailbox *b, uint64_t request,
                          size_t len, int64_t wait_ms,
                          struct mailbox_box **box, struct message **m)
{
    struct wait_end by;
    int rc = wait_begin(&by, wait_ms);

    *m = NULL;
    if (rc == SHD_OK && cells_of(&b->cells, len) > b->cells.count)
        return error_set(SHD_TOOBIG,
                         "an answer of %zu bytes: mailbox '%s' holds %llu",
                         len, b->object.name,
                         (unsigned long long)b->header->capacity_bytes);
    while (rc == SHD_OK) {
        rc = lock_own(b, false, box);
        if (rc != SHD_OK)
            return rc;
        *m = find(b, request, STATE(MAIL_TAKEN), true);
        rc = *m == NULL ? not_taken(b) : lengthen(b, *m, len);
        if (rc == SHD_OK)
            return SHD_OK;
        if (rc != SHD_FULL) {
            object_unlock(&b->object, 0);
            return rc;
        }
        rc = SHD_OK;
        if (!wait_for_room(b, &by, &rc))
            return rc == SHD_OK ? SHD_FULL : rc;
    }
    return rc;
}

/* With the lock: the answer, which has been written over the request, is its
 * sender's. *lost: that one does not want it any more. */
static int answer_it(const struct mailbox *b, struct mailbox_box *box,
                     struct message *m, size_t len, struct mail_notice *n,
                     bool *lost)
{
    struct txn t;

    *lost = atomic_load64(&m->from) == 0;
    mail_begin(b, &t, 2);
    mail_add64(&t, &b->header->bytes,
               (uint64_t)len - atomic_load32(&m->len));
    txn_store32(&t, &m->len, (uint32_t)len);
    txn_commit(&t);
    return mail_settle(b, box, m, MAIL_ANSWERED, n);
}

static int answer_long(const struct mailbox *b, uint64_t request,
                       const void *data, size_t len, struct message *m)
{
    struct mailbox_box *box;
    struct mail_notice n;
    bool lost = false;
    int rc = cells_write(&b->cells, m, 0, data, len);

    if (rc == SHD_OK)
        rc = lock_own(b, false, &box);
    if (rc != SHD_OK)
        return rc;
    mail_notice_begin(&n);
    m = find(b, request, STATE(MAIL_ANSWERING), true);
    if (m == NULL)
        rc = object_damaged(&b->object, "what is being answered is not "
                                        "there");
    else
        rc = answer_it(b, box, m, len, &n, &lost);
    mail_notice_unlock(b, &n);
    return rc == SHD_OK && lost ? not_taken(b) : rc;
}

int mailbox_answer(const struct mailbox *b, uint64_t request,
                   const void *data, size_t len, int64_t wait_ms)
{
    bool is_long = len > COPY_MAX, lost = false;
    struct mailbox_box *box;
    struct mail_notice n;
    struct message *m;
    struct txn t;
    int rc = lock_to_answer(b, request, len, wait_ms, &box, &m);

    if (rc != SHD_OK)
        return rc;
    mail_notice_begin(&n);
    if (is_long) {
        mail_begin(b, &t, 1);
        state_store(&t, m, MAIL_ANSWERING, 1);
        txn_commit(&t);
    } else {
        rc = cells_write(&b->cells, m, 0, data, len);
        if (rc == SHD_OK)
            rc = answer_it(b, box, m, len, &n, &lost);
    }
    mail_notice_unlock(b, &n);
    return rc == SHD_OK && is_long ? answer_long(b, request, data, len, m)
                                   : rc;
}

int mailbox_decline(const struct mailbox *b, uint64_t request)
{
    struct mailbox_box *box;
    struct mail_notice n;
    struct message *m;
    int rc = lock_own(b, false, &box);

    if (rc != SHD_OK)
        return rc;
    mail_notice_begin(&n);
    m = find(b, request, STATE(MAIL_TAKEN), true);
    rc = m == NULL ? not_taken(b)
                   : mail_settle(b, box, m, MAIL_DECLINED, &n);
    mail_notice_unlock(b, &n);
    return rc;
}

/* ---- the requester ----------------------------------------------------- */

#define UNTAKEN STATE(MAIL_REQUEST)
#define PENDING (UNTAKEN | STATE(MAIL_TAKEN) | STATE(MAIL_ANSWERING))
#define ENDED                                                                \
    (STATE(MAIL_ANSWERED) | STATE(MAIL_FAILED) | STATE(MAIL_DECLINED))

static int no_request(const struct mailbox *b)
{
    return error_set(SHD_NOTFOUND,
                     "no such request of this worker in mailbox '%s'",
                     b->object.name);
}

/* With the lock, which is let go of: gives the answer of a request that has
 * ended. */
static int collect(const struct mailbox *b, struct mailbox_box *box,
                   struct message *m, void *buf, size_t size,
                   struct shd_mail *out)
{
    uint32_t state = mail_state(m);
    uint64_t number = number_of(b, m);
    struct mail_notice n;
    int rc = SHD_OK;

    mail_notice_begin(&n);
    tell(b, m, out);
    if (state != MAIL_ANSWERED)
        out->len = 0;
    if (out->len > size) {
        object_unlock(&b->object, 0);
        return SHD_SPACE;
    }
    if (out->len > COPY_MAX) {
        object_unlock(&b->object, 0);
        rc = cells_read(&b->cells, m, 0, buf, out->len);
        if (rc == SHD_OK)
            rc = lock_own(b, false, &box);
        if (rc != SHD_OK)
            return rc;
        m = find(b, number, ENDED, false);
        if (m == NULL)
            rc = no_request(b);
    } else {
        rc = cells_read(&b->cells, m, 0, buf, out->len);
    }
    if (rc == SHD_OK) {
        rc = done_with(b, box, m);
        n.room = true;
    }
    mail_notice_unlock(b, &n);
    if (rc == SHD_OK && state == MAIL_FAILED)
        return error_set(SHD_DEAD,
                         "worker %llu died, or left, %s the request",
                         (unsigned long long)out->to,
                         out->received ? "after it had taken"
                                       : "before it took");
    if (rc == SHD_OK && state == MAIL_DECLINED)
        return error_set(SHD_LOST, "worker %llu declined the request",
                         (unsigned long long)out->to);
    return rc;
}

int mailbox_await(const struct mailbox *b, uint64_t request, void *buf,
                  size_t size, int64_t wait_ms, struct shd_mail *out)
{
    bool looked = false, peeped = false;
    struct wait_end by;
    int rc = wait_begin(&by, wait_ms);

    while (rc == SHD_OK) {
        struct mailbox_box *box;
        const struct message *m;
        struct message *ended;
        bool idle = false, late;
        uint64_t peer;

        rc = lock_own(b, false, &box);
        if (rc != SHD_OK)
            return rc;
        ended = find(b, request, ENDED, false);
        if (ended != NULL)
            return collect(b, box, ended, buf, size, out);
        m = find(b, request, PENDING, false);
        if (m == NULL) {
            object_unlock(&b->object, 0);
            return no_request(b);
        }
        peer = atomic_load64(&m->holder);
        late = !wait_for_mail(b, &by, &idle, &peeped);
        /* Nobody has come by: perhaps the one who should answer is dead. */
        if ((late && !looked) || (!late && idle)) {
            looked = true;
            if (registry_is_dead(b->object.env, peer))
                rc = mailbox_bury(b, peer, false);
        } else if (late) {
            return 1;
        }
    }
    return rc;
}

int mailbox_cancel(const struct mailbox *b, uint64_t request)
{
    struct mailbox_header *h = b->header;
    struct mailbox_box *box;
    struct mail_notice n;
    struct message *m;
    struct txn t;
    int rc = lock_own(b, false, &box);

    if (rc != SHD_OK)
        return rc;
    mail_notice_begin(&n);
    m = find(b, request, PENDING | ENDED, false);
    if (m == NULL) {
        rc = no_request(b);
    } else {
        uint32_t state = mail_state(m);

        if (state < MAIL_ANSWERED) {
            box = mailbox_box_of(b, atomic_load64(&m->holder));
            if (box == NULL) {
                object_unlock(&b->object, 0);
                return object_damaged(&b->object, "a request is to nobody");
            }
        }
        mail_begin(b, &t, MAIL_GONE_WORDS);
        if (state == MAIL_REQUEST)
            mail_add64(&t, &h->unread, 1);
        if (state < MAIL_ANSWERED)
            mail_add64(&t, &h->withdrawn, 1);
        if (state == MAIL_ANSWERING) {
            txn_store64(&t, &m->from, 0);
        } else {
            rc = mail_unlist(b, &t, box, m);
            if (rc == SHD_OK)
                rc = mail_drop(b, &t, m);
        }
        rc = mail_end(&t, rc);
        n.room = true;
    }
    mail_notice_unlock(b, &n);
    return rc;
}

/* ---- for event loops --------------------------------------------------- */

int mailbox_arm(const struct mailbox *b)
{
    struct mailbox_box *box;
    int rc = lock_own(b, false, &box);

    if (rc != SHD_OK)
        return rc;
    rc = atomic_load32(&box->n_inbox) + atomic_load32(&box->n_answers) > 0;
    if (rc == 0)
        atomic_store32(&box->armed, 1);
    object_unlock(&b->object, 0);
    return rc;
}

int mailbox_arm_room(const struct mailbox *b, uint64_t to, size_t len)
{
    struct mailbox_box *own, *box;
    struct cells_run run;
    uint64_t cells;
    int rc = plan_cells(b, len, 0, &cells);

    if (rc == SHD_OK)
        rc = lock_own(b, false, &own);
    if (rc != SHD_OK)
        return rc;
    rc = find_room(b, to, cells, &box, &run);
    rc = rc == SHD_OK ? 1 : rc == SHD_FULL ? 0 : rc;
    if (rc == 0)
        rc = object_arm_bell(&b->object, MAILBOX_WAIT_ROOM);
    object_unlock(&b->object, 0);
    return rc;
}

/* ---- looking ----------------------------------------------------------- */

static int peek(const struct mailbox *b, uint32_t box, uint64_t index,
                void *buf, size_t size, struct shd_mail *out)
{
    uint32_t ref = atomic_load32(&b->boxes[box].inbox.first);

    for (uint64_t i = 0; ref != 0 && i <= b->cells.count; i++) {
        const struct message *m = cells_at(&b->cells, ref);

        if (m == NULL)
            break;
        if (index-- == 0) {
            tell(b, m, out);
            return cells_read(&b->cells, m, 0, buf,
                              out->len < size ? out->len : size);
        }
        ref = atomic_load32(&m->after);
    }
    return SHD_NOTFOUND;
}

int mailbox_peek(const struct mailbox *b, uint32_t box, uint64_t index,
                 void *buf, size_t size, struct shd_mail *out)
{
    struct reading r;
    int rc;

    if (box >= b->count)
        return error_set(SHD_INVAL, "mailbox '%s' has %u boxes, no number %u",
                         b->object.name, b->count, box);
    reading_begin(&r, b->object.env, object_guard(&b->object, 0));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = object_gone(&b->object, 0)
                 ? object_gone_error(&b->object)
                 : peek(b, box, index, buf, size, out);
    } while (!reading_done(&r));
    return rc;
}

int mailbox_box_at(const struct mailbox *b, uint32_t index,
                   struct mailbox_box *copy)
{
    struct reading r;
    bool gone;
    int rc;

    if (index >= b->count)
        return error_set(SHD_INVAL, "mailbox '%s' has %u boxes, no number %u",
                         b->object.name, b->count, index);
    reading_begin(&r, b->object.env, object_guard(&b->object, 0));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        gone = object_gone(&b->object, 0);
        if (!gone)
            reading_copy(copy, &b->boxes[index], sizeof(*copy));
    } while (!reading_done(&r));
    if (gone)
        return object_gone_error(&b->object);
    return copy->owner != 0 ? SHD_OK : SHD_NOTFOUND;
}

static void info(const struct mailbox *b, struct shd_mailbox_info *i)
{
    const struct mailbox_header *h = b->header;

    i->capacity_bytes = h->capacity_bytes;
    i->message_bytes = h->message_bytes;
    i->box_bytes = h->box_bytes;
    i->cell_bytes = (uint32_t)b->cells.bytes;
    i->boxes_max = b->count;
    i->cells = b->cells.count;
    i->cells_used = atomic_load32(&h->cells.used);
    i->bytes = atomic_load64(&h->bytes);
    i->sent = atomic_load64(&h->sent);
    i->received = atomic_load64(&h->received);
    i->unread = atomic_load64(&h->unread);
    i->requests = atomic_load64(&h->requests);
    i->answered = atomic_load64(&h->answered);
    i->declined = atomic_load64(&h->declined);
    i->failed = atomic_load64(&h->failed);
    i->withdrawn = atomic_load64(&h->withdrawn);
    i->waiting = i->working = i->answers = 0;
    i->boxes = i->listening = 0;
    for (uint32_t n = 0; n < b->count; n++) {
        const struct mailbox_box *box = &b->boxes[n];

        if (atomic_load64(&box->owner) == 0)
            continue;
        i->boxes++;
        i->listening += atomic_load32(&box->listening) != 0;
        i->waiting += atomic_load32(&box->n_inbox);
        i->working += atomic_load32(&box->n_taken);
        i->answers += atomic_load32(&box->n_answers);
    }
}

int mailbox_info(const struct mailbox *b, struct shd_mailbox_info *out)
{
    struct reading r;
    int rc;

    reading_begin(&r, b->object.env, object_guard(&b->object, 0));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        if (object_gone(&b->object, 0))
            rc = object_gone_error(&b->object);
        else
            info(b, out);
    } while (!reading_done(&r));
    out->generation = b->object.generation;
    memcpy(out->name, b->object.name, sizeof(out->name));
    return rc;
}
