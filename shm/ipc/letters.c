/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A letter is pinned where it is, copied to where it goes, tagged there, taken
 * away here, and only then handed out there:
 *
 *   lock from   pin: out of the dead list, mover = this worker
 *   lock to     reserve room; the bytes are copied without a lock
 *   lock from   is it pinned still? A queue that has been destroyed meanwhile
 *               may have given zeroes
 *   lock to     tag: from here on a resumed move does not copy again
 *   lock from   land: it is gone here
 *   lock to     arrive: it is ready there
 *   lock from   the move is over, and the next letter's may begin
 *
 * Who goes on for a dead mover owns the move first, and looks at the other
 * queue then: nobody else can have put a tag there, or taken it away. A tag
 * whose queue is gone, or moves nothing, is of a move that ended with the queue
 * or its repair: the copy is all there is.
 */
#include "shm/ipc/letters.h"
#include "shm/base/error.h"
#include "shm/worker/registry.h"

#include <string.h>
#include <unistd.h>

#define STEP_MAX 64u  /* letters in one call */
#define PIECE 4096u   /* bytes on the stack */
#define TAGS_MAX 16u  /* of dead movers, in one look */

#define PIN_WORDS (MESSAGE_LIST_WORDS + 3u)
#define LAND_WORDS (CELLS_FREE_WORDS + 3u)

/* A letter on its way. */
struct letter {
    const struct message *m;
    uint64_t from, pushed_ms;
    uint32_t len, stage;
    bool resumed; /* somebody has begun with it: a copy may be there */
};

/* ---- one move at a time in this process --------------------------------- */

/* The pid of the process one of whose threads is at it. A worker's threads are
 * one mover: what bears this worker's name is then left of a call that failed.
 * In a child of fork it names the parent, and means nothing. */
static uint32_t mover_pid;

static bool enter(const struct queue *q)
{
    uint32_t own = (uint32_t)getpid(), is = atomic_load32(&mover_pid);

    return q->object.env->incarnation != 0 && is != own &&
           atomic_cas32(&mover_pid, is, own);
}

static void leave(void)
{
    atomic_store32_release(&mover_pid, 0);
}

/* ---- where it comes from ------------------------------------------------ */

static void begin(const struct queue *q, struct txn *t, uint32_t words)
{
    txn_begin(t, q->object.env->segment, object_guard(&q->object, 0), words);
}

static int end(struct txn *t, int rc)
{
    if (rc == SHD_OK)
        txn_commit(t);
    else
        txn_abort(t);
    return rc;
}

static void add64(struct txn *t, uint64_t *p, uint64_t n)
{
    txn_store64(t, p, atomic_load64(p) + n);
}

/* Both are one word. */
static void set_stage(const struct queue *q, struct txn *t, uint32_t stage,
                      uint32_t letter)
{
    struct queue_header *h = q->header;

    static_assert(offsetof(struct queue_header, stage) ==
                          offsetof(struct queue_header, letter) + 4 &&
                      offsetof(struct queue_header, letter) % 8 == 0,
                  "one word");
    txn_store64(t, (uint64_t *)(void *)&h->letter,
                (uint64_t)stage << 32 | letter);
}

static void describe(const struct message *m, uint32_t stage, bool resumed,
                     struct letter *l)
{
    l->resumed = resumed;
    l->m = m;
    l->stage = stage;
    l->len = m == NULL ? 0 : atomic_load32(&m->len);
    l->from = m == NULL ? 0 : atomic_load64(&m->from);
    l->pushed_ms = m == NULL ? 0 : atomic_load64(&m->pushed_ms);
}

/* With the lock: the letter that is pinned; NULL: damaged. */
static struct message *pinned(const struct queue *q)
{
    struct message *m = cells_at(&q->cells, atomic_load32(&q->header->letter));

    return m == NULL || atomic_load32(&m->state) != QUEUE_DEAD ? NULL : m;
}

static int damaged(const struct queue *q)
{
    return object_damaged(&q->object, "what is said of a letter on its way "
                                      "leads to no dead letter");
}

/* Goes on with the move that somebody has begun. 1: it is this worker's now.
 * 0: there is none. SHD_BUSY: a live worker is at it. */
static int take_over(const struct queue *q, struct letter *l)
{
    struct queue_header *h = q->header;
    uint64_t own = q->object.env->incarnation, mover;
    uint32_t stage;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    stage = atomic_load32(&h->stage);
    mover = atomic_load64(&h->mover);
    if (stage != LETTER_NONE)
        rc = mover != 0 && mover != own &&
                     !registry_is_dead(q->object.env, mover)
                 ? SHD_BUSY
                 : 1;
    if (rc == 1 && stage == LETTER_PINNED && pinned(q) == NULL)
        rc = damaged(q);
    if (rc == 1 && mover != own) {
        begin(q, &t, 1);
        txn_store64(&t, &h->mover, own);
        txn_commit(&t);
    }
    if (rc == 1)
        describe(stage == LETTER_PINNED ? pinned(q) : NULL, stage, true, l);
    object_unlock(&q->object, 0);
    return rc;
}

/* With the lock: the oldest that the other queue can hold at all. */
static struct message *first_for(const struct queue *q, const struct queue *to)
{
    uint32_t ref = atomic_load32(&q->header->dead.first);

    for (uint32_t i = 0; ref != 0 && i < q->cells.count; i++) {
        struct message *m = cells_at(&q->cells, ref);

        if (m == NULL)
            break;
        if (cells_of(&to->cells, atomic_load32(&m->len)) <= to->cells.count)
            return m;
        ref = atomic_load32(&m->after);
    }
    return NULL;
}

/* Begins a move. 1, or 0: nothing is to be moved; SHD_BUSY: as above. */
static int pin(const struct queue *q, const struct queue *to,
               struct letter *l)
{
    struct queue_header *h = q->header;
    struct message *m;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    m = first_for(q, to);
    if (atomic_load32(&h->stage) != LETTER_NONE) {
        rc = SHD_BUSY;
    } else if (m != NULL) {
        begin(q, &t, PIN_WORDS);
        txn_store32(&t, &h->n_dead, atomic_load32(&h->n_dead) - 1);
        txn_store64(&t, &h->mover, q->object.env->incarnation);
        set_stage(q, &t, LETTER_PINNED, cells_ref(&q->cells, m));
        rc = end(&t, message_remove(&q->cells, &t, &h->dead, m));
        if (rc == SHD_OK)
            rc = 1;
    }
    if (rc == 1)
        describe(m, LETTER_PINNED, false, l);
    object_unlock(&q->object, 0);
    return rc;
}

/* With the lock: is it this worker's to move, and that far? SHD_LOST. */
static int is_mine(const struct queue *q, uint32_t stage)
{
    const struct queue_header *h = q->header;

    return atomic_load32(&h->stage) == stage &&
                   atomic_load64(&h->mover) == q->object.env->incarnation
               ? SHD_OK
               : SHD_LOST;
}

static int is_pinned(const struct queue *q)
{
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = is_mine(q, LETTER_PINNED);
    object_unlock(&q->object, 0);
    return rc;
}

/* With the lock, which is let go of: there is room. */
static void unlock_and_wake(const struct queue *q)
{
    struct object_notice n;

    if (!object_awaited(&q->object, QUEUE_WAIT_ROOM)) {
        object_unlock(&q->object, 0);
        return;
    }
    object_notice_begin(&n);
    object_post(&q->object, QUEUE_WAIT_ROOM, WAIT_ALL, &n);
    object_unlock(&q->object, 0);
    object_deliver(&q->object, &n);
}

/* It lies in the other queue: gone here. */
static int land(const struct queue *q)
{
    struct queue_header *h = q->header;
    struct message *m;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = is_mine(q, LETTER_PINNED);
    m = pinned(q);
    if (rc == SHD_OK && m == NULL)
        rc = damaged(q);
    if (rc == SHD_OK) {
        begin(q, &t, LAND_WORDS);
        add64(&t, &h->forwarded, 1);
        add64(&t, &h->bytes, -(uint64_t)atomic_load32(&m->len));
        set_stage(q, &t, LETTER_LANDED, 0);
        rc = end(&t, cells_give(&q->cells, &t, m));
    }
    unlock_and_wake(q);
    return rc;
}

/* Nothing is on its way any more: what is pinned is a dead letter again. */
static int over(const struct queue *q)
{
    struct queue_header *h = q->header;
    struct message *m = NULL;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    if (is_mine(q, LETTER_PINNED) == SHD_OK) {
        m = pinned(q);
        rc = m == NULL ? damaged(q) : SHD_OK;
    } else {
        rc = is_mine(q, LETTER_LANDED);
    }
    if (rc == SHD_OK) {
        begin(q, &t, PIN_WORDS);
        set_stage(q, &t, LETTER_NONE, 0);
        txn_store64(&t, &h->mover, 0);
        if (m != NULL) {
            txn_store32(&t, &h->n_dead, atomic_load32(&h->n_dead) + 1);
            rc = message_prepend(&q->cells, &t, &h->dead, m);
        }
        rc = end(&t, rc);
    }
    object_unlock(&q->object, 0);
    return rc;
}

/* This call fails; who comes next goes on. If that fails too, this worker's
 * next call does, or who finds it dead. */
static void let_go(const struct queue *q)
{
    struct queue_header *h = q->header;
    struct txn t;

    if (object_lock(&q->object, 0) != SHD_OK)
        return;
    if (atomic_load64(&h->mover) == q->object.env->incarnation) {
        begin(q, &t, 1);
        txn_store64(&t, &h->mover, 0);
        txn_commit(&t);
    }
    object_unlock(&q->object, 0);
}

/* ---- where it goes ------------------------------------------------------ */

/* 1: a copy is there and tagged, 0. */
static int has_copy(const struct queue *to, uint64_t tag)
{
    int rc = object_lock(&to->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = queue_letter_find(to, tag, 0) != NULL;
    object_unlock(&to->object, 0);
    return rc;
}

static int copy_bytes(const struct queue *q, const struct queue *to,
                      const struct letter *l, uint64_t lease)
{
    unsigned char piece[PIECE];
    int rc = SHD_OK;

    for (uint32_t at = 0; rc == SHD_OK && at < l->len; at += PIECE) {
        uint32_t n = l->len - at < PIECE ? l->len - at : PIECE;

        rc = cells_read(&q->cells, l->m, at, piece, n);
        if (rc == SHD_OK)
            rc = queue_write(to, lease, at, piece, n);
    }
    return rc;
}

static int copy(const struct queue *q, const struct queue *to,
                const struct letter *l)
{
    uint64_t lease;
    int rc = queue_letter_room(to, l->len, &lease);

    if (rc != SHD_OK)
        return rc;
    rc = copy_bytes(q, to, l, lease);
    if (rc == SHD_OK)
        rc = is_pinned(q);
    if (rc == SHD_OK)
        rc = queue_letter_mark(to, lease, q->object.generation, l->from,
                               l->pushed_ms);
    if (rc != SHD_OK)
        (void)queue_cancel(to, lease);
    return rc;
}

/* ---- all of it ---------------------------------------------------------- */

static int open_target(const struct queue *q, struct queue *to)
{
    char name[sizeof(q->header->dead_to)];

    memcpy(name, q->header->dead_to, sizeof(name));
    name[sizeof(name) - 1] = '\0';
    return queue_open(q->object.env, name, NULL, false, to);
}

static bool is_missing(int rc)
{
    return rc == SHD_NOTFOUND || rc == SHD_MISMATCH || rc == SHD_GONE;
}

/* 1: there may be more. 0: the other queue takes no more just now. */
static int carry(const struct queue *q, const struct queue *to,
                 const struct letter *l)
{
    uint64_t tag = q->object.generation;
    int rc = SHD_OK;

    if (l->stage == LETTER_PINNED) {
        rc = l->resumed ? has_copy(to, tag) : 0;
        if (rc == 0)
            rc = copy(q, to, l);
        if (rc == SHD_FULL || rc == SHD_NOMEM || rc == SHD_TOOBIG ||
            is_missing(rc)) {
            rc = over(q);
            return rc == SHD_GONE ? SHD_OK : rc;
        }
        if (rc >= 0)
            rc = land(q);
    }
    /* A queue that goes in the middle of it leaves the copy. */
    if (rc >= 0 || rc == SHD_GONE)
        rc = queue_letter_arrive(to, tag, 0);
    if (rc == SHD_OK || is_missing(rc))
        rc = over(q);
    if (rc != SHD_OK && rc != SHD_GONE)
        let_go(q);
    return rc == SHD_OK ? 1 : rc == SHD_GONE ? SHD_OK : rc;
}

static int move_all(const struct queue *q)
{
    struct queue to;
    struct letter l;
    int rc = 1;

    for (uint32_t i = 0; rc == 1 && i < STEP_MAX; i++) {
        bool resumed;

        rc = take_over(q, &l);
        resumed = rc == 1;
        if (rc < 0)
            break;
        /* Only who owns the move knows that the other queue is not there. */
        rc = open_target(q, &to);
        if (is_missing(rc))
            return resumed ? over(q) : SHD_OK;
        if (rc == SHD_OK)
            rc = resumed ? 1 : pin(q, &to, &l);
        if (rc == 1)
            rc = carry(q, &to, &l);
        else if (rc < 0 && resumed)
            let_go(q);
    }
    return rc > 0 || rc == SHD_BUSY || rc == SHD_GONE ? SHD_OK : rc;
}

int letters_forward(const struct queue *q)
{
    int rc;

    if (!letters_wait(q) || !enter(q))
        return SHD_OK;
    rc = move_all(q);
    leave();
    return rc;
}

/* ---- who sends letters to a queue --------------------------------------- */

/* What is known of a queue without its lock. */
struct sender {
    uint64_t generation;
    uint32_t stage;
    bool waits;
    char dead_to[64];
};

/* The queue in that slot of the catalogue. SHD_NOTFOUND: none. */
static int sender_at(const struct guard_env *env, uint32_t index,
                     struct queue *q, struct sender *s)
{
    struct catalogue_object c;
    struct object o;
    struct reading r;
    int rc = catalogue_at(env, index, &c);

    if (rc == SHD_OK && c.kind != SHD_OBJECT_QUEUE)
        rc = SHD_NOTFOUND;
    if (rc == SHD_OK)
        rc = object_view(env, &c, &o);
    if (rc != SHD_OK)
        return rc;
    reading_begin(&r, env, object_guard(&o, 0));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = object_gone(&o, 0) ? SHD_NOTFOUND : queue_view(&o, q);
        if (rc == SHD_OK) {
            s->generation = o.generation;
            s->stage = atomic_load32(&q->header->stage);
            s->waits = letters_wait(q);
            memcpy(s->dead_to, q->header->dead_to, sizeof(s->dead_to));
        }
    } while (!reading_done(&r));
    return rc;
}

static bool sends_to(const struct sender *s, const struct queue *to)
{
    return strncmp(s->dead_to, to->object.name, sizeof(s->dead_to)) == 0;
}

/* A look at every queue of the catalogue. One that cannot be looked at tells
 * that by itself, when it is used. */
static int gather(const struct queue *to)
{
    const struct guard_env *env = to->object.env;

    for (uint32_t i = 0; i < env->segment->objects_max; i++) {
        struct sender s;
        struct queue q;
        int rc = sender_at(env, i, &q, &s);

        if (rc == SHD_INVAL)
            break;
        if (rc == SHD_OK && s.waits && sends_to(&s, to))
            (void)move_all(&q);
    }
    return SHD_OK;
}

int letters_gather(const struct queue *q)
{
    int rc;

    if (!letters_come(q) || !enter(q))
        return SHD_OK;
    rc = gather(q);
    leave();
    return rc;
}

/* ---- what dead movers have left ----------------------------------------- */

/* A tagged copy whose holder is not at it. It alone may be handed out: until
 * this looks, another worker may have ended its move, and a letter of the next
 * one, pinned where it comes from, has the same tag. */
static int settle_one(const struct queue *to, uint64_t tag, uint64_t number)
{
    const struct guard_env *env = to->object.env;
    bool moves = false;
    int rc;

    for (uint32_t i = 0; i < env->segment->objects_max; i++) {
        struct sender s;
        struct queue q;

        rc = sender_at(env, i, &q, &s);
        if (rc == SHD_INVAL)
            break;
        if (rc != SHD_OK && rc != SHD_NOTFOUND)
            return rc;
        if (rc != SHD_OK || s.generation != tag)
            continue;
        moves = s.stage != LETTER_NONE && sends_to(&s, to);
        if (moves)
            return move_all(&q);
        break;
    }
    rc = queue_letter_arrive(to, tag, number);
    return rc == SHD_NOTFOUND ? SHD_OK : rc;
}

static int settle(const struct queue *to)
{
    const struct guard_env *env = to->object.env;
    uint64_t tag[TAGS_MAX], number[TAGS_MAX];
    uint32_t tags = 0, ref;
    int rc = object_lock(&to->object, 0);

    if (rc != SHD_OK)
        return rc;
    ref = atomic_load32(&to->header->n_reserved) == 0
              ? 0
              : atomic_load32(&to->header->held.first);
    for (uint32_t i = 0; ref != 0 && i < to->cells.count && tags < TAGS_MAX;
         i++) {
        const struct message *m = cells_at(&to->cells, ref);
        uint64_t holder;

        if (m == NULL)
            break;
        holder = atomic_load64(&m->holder);
        if (atomic_load64(&m->tag) != 0 &&
            (holder == env->incarnation || registry_is_dead(env, holder))) {
            number[tags] = atomic_load64(&m->lease);
            tag[tags++] = atomic_load64(&m->tag);
        }
        ref = atomic_load32(&m->after);
    }
    object_unlock(&to->object, 0);
    for (uint32_t i = 0; rc == SHD_OK && i < tags; i++)
        rc = settle_one(to, tag[i], number[i]);
    return rc;
}

int letters_look(const struct queue *q)
{
    int rc;

    if ((!letters_wait(q) && atomic_load32(&q->header->n_reserved) == 0 &&
         !letters_come(q)) ||
        !enter(q))
        return SHD_OK;
    rc = settle(q);
    if (rc == SHD_OK && letters_wait(q))
        rc = move_all(q);
    if (rc == SHD_OK && letters_come(q))
        rc = gather(q);
    leave();
    return rc;
}

/* ---- opening ------------------------------------------------------------ */

static void mark_fed(const struct queue *q)
{
    if (letters_come(q) || object_lock(&q->object, 0) != SHD_OK)
        return;
    atomic_store32(&q->header->fed, 1);
    object_unlock(&q->object, 0);
}

void letters_introduce(const struct queue *q)
{
    const struct guard_env *env = q->object.env;
    struct queue other;
    struct sender s;

    /* Who makes a queue is a worker, so one of two that belong together
     * comes by here. */
    if (env->incarnation == 0)
        return;
    if (q->header->dead_to[0] != '\0' && open_target(q, &other) == SHD_OK)
        mark_fed(&other);
    for (uint32_t i = 0;
         !letters_come(q) && i < env->segment->objects_max; i++) {
        int rc = sender_at(env, i, &other, &s);

        if (rc == SHD_OK && sends_to(&s, q))
            mark_fed(q);
    }
}
