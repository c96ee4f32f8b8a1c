/* SPDX-License-Identifier: BSD-2-Clause */
/*
 *   reserve --> RESERVED --commit--.        .--> DELAYED --its time--.
 *   push ---------------------------+------'                         |
 *                                   '-------------------> READY <----'
 *   READY --take--> LEASED --ack--> gone        ^   ^ requeue
 *                     |  nack, end of lease,    |   |
 *                     |  death of the holder ---'   |
 *                     '--- after N deliveries --> DEAD --drain--> gone
 *                                                  '-- to another queue
 *
 * What comes back goes to the front of the ready ones: it is the oldest.
 * Everything that takes time (copying what is long, asking the kernel who is
 * dead) is done without the lock, or in steps.
 */
#include "shm/ipc/queue.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/ipc/letters.h"
#include "shm/worker/registry.h"

#include <string.h>

#define CAPACITY_DEFAULT (1ull << 20)
#define MESSAGE_DEFAULT 160u
#define SETTLE_MAX 64u /* whose time has come, in one hold of the lock */
#define STEP_MAX 64u   /* of drain, requeue, reap */
#define LOOK_MS 10u    /* between two looks for dead holders */

#define PUT_WORDS (MESSAGE_LIST_WORDS + TREE_INSERT_WORDS + 4u)
#define PUSH_WORDS (CELLS_ALLOC_WORDS + PUT_WORDS + 6u)
#define OUT_WORDS (MESSAGE_LIST_WORDS + TREE_REMOVE_WORDS + 4u)
#define GONE_WORDS (OUT_WORDS + CELLS_FREE_WORDS + 4u)
#define MOVE_WORDS (OUT_WORDS + PUT_WORDS + 10u)

/* ---- small change ------------------------------------------------------ */

static void add32(struct txn *t, uint32_t *p, uint32_t n)
{
    txn_store32(t, p, atomic_load32(p) + n);
}

static void add64(struct txn *t, uint64_t *p, uint64_t n)
{
    txn_store64(t, p, atomic_load64(p) + n);
}

static struct guard *own_guard(const struct queue *q)
{
    return object_guard(&q->object, 0);
}

static void begin(const struct queue *q, struct txn *t, uint32_t words)
{
    txn_begin(t, q->object.env->segment, own_guard(q), words);
}

/* Commits, or takes back what has failed. */
static int end(struct txn *t, int rc)
{
    if (rc == SHD_OK)
        txn_commit(t);
    else
        txn_abort(t);
    return rc;
}

/* State and attempts are one word. A message that is in no tree. */
static void state_store(struct txn *t, struct message *m, uint32_t state,
                        uint32_t attempts)
{
    txn_store64(t, (uint64_t *)(void *)&m->state,
                (uint64_t)attempts << 32 | state);
}

static uint64_t after_ms(uint64_t now, uint64_t ms)
{
    return ms > UINT64_MAX / 2 ? UINT64_MAX / 2 : now + ms;
}

/* ---- open -------------------------------------------------------------- */

struct plan {
    uint64_t capacity, message_bytes, cell_bytes;
    uint32_t cells;
    uint64_t ids; /* that count as given */
    const struct shd_queue_options *o;
};

static int plan_make(const struct shd_queue_options *o, struct plan *p)
{
    p->o = o;
    p->capacity = o->capacity_bytes ? o->capacity_bytes : CAPACITY_DEFAULT;
    p->message_bytes = o->message_bytes ? o->message_bytes : MESSAGE_DEFAULT;
    if (p->capacity > SEGMENT_SIZE_MAX || p->message_bytes > p->capacity)
        return error_set(SHD_INVAL,
                         "a queue of %llu bytes for messages of %llu: at most "
                         "64 GiB, and one message must fit",
                         (unsigned long long)p->capacity,
                         (unsigned long long)p->message_bytes);
    p->cell_bytes = cells_bytes(p->message_bytes);
    p->cells = (uint32_t)(p->capacity / p->cell_bytes);
    if (p->cells == 0)
        return error_set(SHD_INVAL,
                         "a queue of %llu bytes holds no message of %llu: it "
                         "takes %llu",
                         (unsigned long long)p->capacity,
                         (unsigned long long)p->message_bytes,
                         (unsigned long long)p->cell_bytes);
    return SHD_OK;
}

static int initialize(const struct object *o, void *context)
{
    const struct plan *p = context;
    struct queue_header *h = object_own(o, 0, sizeof(*h));

    h->messages_max = p->o->messages_max;
    h->lease_ms = p->o->lease_ms;
    h->deliveries_max = p->o->deliveries_max;
    h->capacity_bytes = p->capacity;
    h->message_bytes = p->message_bytes;
    if (p->o->dead_to != NULL)
        memcpy(h->dead_to, p->o->dead_to, strlen(p->o->dead_to));
    h->ids = p->ids;
    cells_initialize(o, &h->cells, sizeof(*h), p->cell_bytes, p->cells);
    return SHD_OK;
}

int queue_view(const struct object *o, struct queue *out)
{
    if (&out->object != o)
        out->object = *o;
    out->header = object_own(o, 0, sizeof(*out->header));
    if (out->header == NULL)
        return object_damaged(o, "it has no room for its header");
    return cells_view(&out->object, &out->header->cells, &out->cells);
}

static int differs(const struct queue *q, const char *what, uint64_t is,
                   uint64_t asked)
{
    if (asked == 0 || asked == is)
        return SHD_OK;
    return error_set(SHD_MISMATCH, "queue '%s' exists with %s %llu, not %llu",
                     q->object.name, what, (unsigned long long)is,
                     (unsigned long long)asked);
}

static int compare(const struct queue *q, const struct shd_queue_options *o)
{
    const struct queue_header *h = q->header;
    int rc = differs(q, "capacity_bytes", h->capacity_bytes,
                     o->capacity_bytes);

    if (rc == SHD_OK)
        rc = differs(q, "message_bytes", h->message_bytes, o->message_bytes);
    if (rc == SHD_OK)
        rc = differs(q, "messages_max", h->messages_max, o->messages_max);
    if (rc == SHD_OK)
        rc = differs(q, "lease_ms", h->lease_ms, o->lease_ms);
    if (rc == SHD_OK)
        rc = differs(q, "deliveries_max", h->deliveries_max,
                     o->deliveries_max);
    if (rc == SHD_OK && o->dead_to != NULL &&
        strncmp(h->dead_to, o->dead_to, sizeof(h->dead_to)) != 0)
        rc = error_set(SHD_MISMATCH,
                       "queue '%s' exists with dead letters going to '%.64s', "
                       "not '%s'",
                       q->object.name, h->dead_to, o->dead_to);
    return rc;
}

/* Where dead letters are to go. */
static int dead_to_check(const char *name, const char *dead_to)
{
    int rc = dead_to == NULL ? SHD_OK : catalogue_name_check(dead_to);

    if (rc == SHD_OK && dead_to != NULL && strcmp(dead_to, name) == 0)
        rc = error_set(SHD_INVAL,
                       "queue '%s': its dead letters cannot go to itself",
                       name);
    return rc;
}

static int find_or_make(const struct guard_env *env, const char *name,
                        const struct shd_queue_options *o, uint64_t ids,
                        bool create, struct queue *out)
{
    struct object_spec spec = {.kind = SHD_OBJECT_QUEUE,
                               .guards = 1,
                               .places = 2,
                               .own_commit = sizeof(struct queue_header),
                               .initialize = initialize};
    struct plan plan;
    int rc = o == NULL ? SHD_OK : dead_to_check(name, o->dead_to);

    if (rc == SHD_OK && create) {
        plan.ids = ids;
        rc = plan_make(o, &plan);
        spec.size_bytes = plan.capacity;
        spec.own_bytes = sizeof(struct queue_header) +
                         plan.cells * plan.cell_bytes;
        spec.context = &plan;
    }
    if (rc == SHD_OK)
        rc = object_open(env, name, SHD_OBJECT_QUEUE, create ? &spec : NULL,
                         &out->object, NULL);
    if (rc == SHD_OK)
        rc = queue_view(&out->object, out);
    if (rc == SHD_OK && o != NULL)
        rc = compare(out, o);
    return rc;
}

int queue_open(const struct guard_env *env, const char *name,
               const struct shd_queue_options *o, bool create,
               struct queue *out)
{
    return find_or_make(env, name, o, 0, create, out);
}

int queue_make(const struct guard_env *env, const char *name,
               const struct shd_queue_options *o, uint64_t ids,
               struct queue *out)
{
    return find_or_make(env, name, o, ids, true, out);
}

/* ---- moves, inside a transaction --------------------------------------- */

/* A message that is nowhere becomes ready, last or first of all. */
static int put_ready(const struct queue *q, struct txn *t, struct message *m,
                     bool first, uint32_t attempts)
{
    struct queue_header *h = q->header;

    state_store(t, m, QUEUE_READY, attempts);
    add32(t, &h->n_ready, 1);
    return first ? message_prepend(&q->cells, t, &h->ready, m)
                 : message_append(&q->cells, t, &h->ready, m);
}

static int put_delayed(const struct queue *q, struct txn *t,
                       struct message *m, uint64_t when, uint32_t attempts)
{
    state_store(t, m, QUEUE_DELAYED, attempts);
    txn_store64(t, &m->when, when);
    add32(t, &q->header->n_delayed, 1);
    return message_time(&q->cells, t, &q->header->timed, m);
}

/* What was delivered and came back. */
static int put_back(const struct queue *q, struct txn *t, struct message *m,
                    uint64_t when)
{
    struct queue_header *h = q->header;
    uint32_t attempts = atomic_load32(&m->attempts);
    uint32_t max = atomic_load32(&h->deliveries_max);

    if (max != 0 && attempts >= max) {
        state_store(t, m, QUEUE_DEAD, attempts);
        add32(t, &h->n_dead, 1);
        add64(t, &h->buried, 1);
        return message_append(&q->cells, t, &h->dead, m);
    }
    add64(t, &h->redelivered, 1);
    if (when != 0)
        return put_delayed(q, t, m, when, attempts);
    return put_ready(q, t, m, true, attempts);
}

/* A leased or reserved message is held no more. */
static int unhold(const struct queue *q, struct txn *t, struct message *m)
{
    struct queue_header *h = q->header;
    int rc = message_remove(&q->cells, t, &h->held, m);

    if (rc == SHD_OK && atomic_load64(&m->when) != 0) {
        rc = message_untime(&q->cells, t, &h->timed, m);
        txn_store64(t, &m->when, 0);
    }
    add32(t,
          queue_state(m) == QUEUE_LEASED ? &h->n_leased : &h->n_reserved,
          UINT32_MAX);
    return rc;
}

static int hold(const struct queue *q, struct txn *t, struct message *m,
                uint32_t state, uint32_t attempts, uint64_t when)
{
    struct queue_header *h = q->header;
    uint64_t lease = atomic_load64(&h->leases) + 1;
    int rc;

    state_store(t, m, state, attempts);
    txn_store64(t, &m->holder, q->object.env->incarnation);
    txn_store64(t, &m->lease, lease);
    txn_store64(t, &h->leases, lease);
    add32(t, state == QUEUE_LEASED ? &h->n_leased : &h->n_reserved, 1);
    rc = message_append(&q->cells, t, &h->held, m);
    if (rc == SHD_OK && when != 0) {
        txn_store64(t, &m->when, when);
        rc = message_time(&q->cells, t, &h->timed, m);
    }
    return rc;
}

static int drop(const struct queue *q, struct txn *t, struct message *m)
{
    add64(t, &q->header->bytes, -(uint64_t)atomic_load32(&m->len));
    return cells_give(&q->cells, t, m);
}

/* ---- whose time has come, and whose holder is dead ---------------------- */

static int due(const struct queue *q, struct message *m)
{
    struct queue_header *h = q->header;
    struct txn t;
    int rc;

    begin(q, &t, MOVE_WORDS);
    if (queue_state(m) == QUEUE_LEASED) {
        rc = unhold(q, &t, m);
        add64(&t, &h->expired, 1);
        if (rc == SHD_OK)
            rc = put_back(q, &t, m, 0);
    } else {
        rc = message_untime(&q->cells, &t, &h->timed, m);
        txn_store64(&t, &m->when, 0);
        add32(&t, &h->n_delayed, UINT32_MAX);
        if (rc == SHD_OK)
            rc = put_ready(q, &t, m, false, atomic_load32(&m->attempts));
    }
    return end(&t, rc);
}

/* With the lock. *moved: how many became ready; *next: when another look is
 * worth it. */
int queue_settle(const struct queue *q, uint32_t *moved, uint64_t *next)
{
    uint64_t now;
    int rc = SHD_OK;

    *moved = 0;
    *next = WAIT_NEVER;
    if (atomic_load32(&q->header->timed) == 0)
        return SHD_OK;
    now = clock_now_ms();
    while (rc == SHD_OK && *moved < SETTLE_MAX) {
        struct message *m =
            message_first(&q->cells, atomic_load32(&q->header->timed));

        if (m == NULL)
            return atomic_load32(&q->header->timed) == 0
                       ? SHD_OK
                       : object_damaged(&q->object, "the tree of times leads "
                                                    "to no message");
        *next = atomic_load64(&m->when);
        if (*next > now)
            return SHD_OK;
        rc = due(q, m);
        ++*moved;
    }
    *next = now;
    return rc;
}

/* Holders that have been asked for, so that each is asked for once. */
struct asked {
    uint64_t holder[16];
    bool dead[16];
    uint32_t n;
};

static bool is_dead(const struct queue *q, uint64_t holder, struct asked *a)
{
    uint32_t i;

    for (i = 0; i < a->n && i < 16; i++)
        if (a->holder[i] == holder)
            return a->dead[i];
    i = a->n++ % 16;
    a->holder[i] = holder;
    a->dead[i] = registry_is_dead(q->object.env, holder);
    return a->dead[i];
}

static int orphan(const struct queue *q, struct message *m)
{
    bool leased = queue_state(m) == QUEUE_LEASED;
    struct txn t;
    int rc;

    begin(q, &t, MOVE_WORDS);
    rc = unhold(q, &t, m);
    if (rc == SHD_OK && leased) {
        add64(&t, &q->header->orphaned, 1);
        rc = put_back(q, &t, m, 0);
    } else if (rc == SHD_OK) {
        rc = drop(q, &t, m);
    }
    return end(&t, rc);
}

/* With the lock: gives back up to STEP_MAX. *given tells how many. */
static int reap_step(const struct queue *q, struct asked *a, uint32_t *given)
{
    const struct queue_header *h = q->header;
    uint32_t ref = atomic_load32(&h->held.first);
    uint32_t left = atomic_load32(&h->n_leased) +
                    atomic_load32(&h->n_reserved);
    int rc = SHD_OK;

    *given = 0;
    while (rc == SHD_OK && ref != 0 && left-- > 0 && *given < STEP_MAX) {
        struct message *m = cells_at(&q->cells, ref);

        if (m == NULL)
            return object_damaged(&q->object, "the list of what is held "
                                              "leads to no message");
        ref = atomic_load32(&m->after);
        /* What arrives is of its own queue's mover: letters_settle. */
        if (atomic_load64(&m->tag) != 0 ||
            !is_dead(q, atomic_load64(&m->holder), a))
            continue;
        rc = orphan(q, m);
        ++*given;
    }
    return rc;
}

int queue_reap_held(const struct queue *q)
{
    struct object_notice n;
    struct asked asked = {.n = 0};
    uint32_t given = STEP_MAX;
    int rc = SHD_OK;

    while (rc == SHD_OK && given == STEP_MAX) {
        object_notice_begin(&n);
        rc = object_lock(&q->object, 0);
        if (rc != SHD_OK)
            return rc;
        rc = reap_step(q, &asked, &given);
        if (given > 0) {
            object_post(&q->object, QUEUE_WAIT_MESSAGES, given, &n);
            object_post(&q->object, QUEUE_WAIT_ROOM, WAIT_ALL, &n);
        }
        object_unlock(&q->object, 0);
        object_deliver(&q->object, &n);
    }
    return rc == SHD_OK ? letters_look(q) : rc;
}

int queue_reap(const struct object *o)
{
    struct queue q;
    int rc = queue_view(o, &q);

    return rc == SHD_OK ? queue_reap_held(&q) : rc;
}

/* With the lock, finding nothing: is it time to look for dead holders? */
bool queue_should_look(const struct queue *q)
{
    struct queue_header *h = q->header;
    uint64_t now;

    if (atomic_load32(&h->n_leased) + atomic_load32(&h->n_reserved) == 0)
        return false;
    now = clock_coarse_ms();
    if (now - atomic_load64(&h->looked_ms) < LOOK_MS)
        return false;
    atomic_store64(&h->looked_ms, now);
    return true;
}

/* The first time it only looks a little while for somebody's transaction, for
 * who sleeps has to be woken. */
bool queue_wait(const struct queue *q, uint32_t place, struct wait_end *by,
                uint64_t next, bool *looked)
{
    struct guard_wait *w = object_place(&q->object, place);
    uint64_t seq = atomic_load64(&own_guard(q)->seq);
    uint64_t until = wait_until(by);
    uint32_t turn;

    if (until == 0 || (until != WAIT_NEVER && clock_now_ms() >= until)) {
        object_unlock(&q->object, 0);
        return false;
    }
    if (!*looked) {
        object_unlock(&q->object, 0);
        *looked = true;
        wait_look(own_guard(q), seq);
        return true;
    }
    turn = wait_arm(w);
    object_unlock(&q->object, 0);
    wait_sleep(w, turn, next < until ? next : until);
    *looked = false;
    /* Nobody has come by: perhaps the one who would have is dead. */
    if (atomic_load32(&w->turn) == turn)
        (void)queue_reap_held(q);
    return true;
}

/* ---- pushing ----------------------------------------------------------- */

uint64_t queue_messages_left(const struct queue *q)
{
    const struct queue_header *h = q->header;
    uint64_t max = atomic_load64(&h->messages_max), n;

    if (max == 0)
        return UINT64_MAX;
    n = (uint64_t)atomic_load32(&h->n_ready) + atomic_load32(&h->n_delayed) +
        atomic_load32(&h->n_leased) + atomic_load32(&h->n_reserved);
    return n < max ? max - n : 0;
}

static int find_room(const struct queue *q, size_t len, struct cells_run *run)
{
    return queue_messages_left(q) == 0 ? SHD_FULL
                                       : cells_find(&q->cells, len, run);
}

int queue_lock_with_room(const struct queue *q, size_t len,
                         struct wait_end *by, struct cells_run *run)
{
    bool looked = false;
    int rc = SHD_OK;

    if (len > cells_first_room(&q->cells) &&
        cells_of(&q->cells, len) > q->cells.count)
        rc = error_set(SHD_TOOBIG,
                       "a message of %zu bytes: queue '%s' holds %llu", len,
                       q->object.name,
                       (unsigned long long)q->header->capacity_bytes);
    while (rc == SHD_OK) {
        rc = object_lock(&q->object, 0);
        if (rc != SHD_OK)
            break;
        rc = find_room(q, len, run);
        if (rc == SHD_OK)
            return SHD_OK;
        if (rc == SHD_FULL && queue_should_look(q)) {
            object_unlock(&q->object, 0);
            rc = queue_reap_held(q);
        } else if (rc != SHD_FULL) {
            object_unlock(&q->object, 0);
        } else if (queue_wait(q, QUEUE_WAIT_ROOM, by, WAIT_NEVER,
                              &looked)) {
            rc = SHD_OK;
        }
    }
    return rc;
}

/* The message's own words, before anybody can reach it. */
static void describe(const struct queue *q, struct message *m)
{
    atomic_store64(&m->id, atomic_load64(&q->header->ids) + 1);
    atomic_store64(&m->from, q->object.env->incarnation);
    atomic_store64(&m->pushed_ms, clock_wall_coarse_ms());
}

static int put_new(const struct queue *q, struct txn *t, struct message *m,
                   int64_t delay_ms)
{
    add64(t, &q->header->pushed, 1);
    if (delay_ms > 0)
        return put_delayed(q, t, m,
                           after_ms(clock_now_ms(), (uint64_t)delay_ms), 0);
    return put_ready(q, t, m, false, 0);
}

/* With the lock, which is let go of: somebody may take something. */
void queue_unlock_and_wake(const struct queue *q, uint32_t messages,
                            bool room)
{
    struct object_notice n;

    if ((messages == 0 ||
         !object_awaited(&q->object, QUEUE_WAIT_MESSAGES)) &&
        (!room || !object_awaited(&q->object, QUEUE_WAIT_ROOM))) {
        object_unlock(&q->object, 0);
        return;
    }
    object_notice_begin(&n);
    if (messages > 0)
        object_post(&q->object, QUEUE_WAIT_MESSAGES, messages, &n);
    if (room)
        object_post(&q->object, QUEUE_WAIT_ROOM, WAIT_ALL, &n);
    object_unlock(&q->object, 0);
    object_deliver(&q->object, &n);
}

/* Its bytes are what was in the cells before. */
static int reserve(const struct queue *q, size_t len, struct wait_end *by,
                   uint64_t *lease)
{
    struct cells_run run;
    struct message *m;
    struct txn t;
    int rc = queue_lock_with_room(q, len, by, &run);

    if (rc != SHD_OK)
        return rc;
    begin(q, &t, PUSH_WORDS);
    m = cells_take(&q->cells, &t, &run, len);
    describe(q, m);
    txn_store64(&t, &q->header->ids, atomic_load64(&m->id));
    add64(&t, &q->header->bytes, len);
    rc = end(&t, hold(q, &t, m, QUEUE_RESERVED, 0, 0));
    if (rc == SHD_OK)
        *lease = queue_token(q, m);
    object_unlock(&q->object, 0);
    return rc;
}

static int push_long(const struct queue *q, const void *data, size_t len,
                     int64_t delay_ms, struct wait_end *by, uint64_t *id)
{
    uint64_t lease;
    int rc = reserve(q, len, by, &lease);

    if (rc != SHD_OK)
        return rc;
    rc = queue_write(q, lease, 0, data, len);
    if (rc == SHD_OK)
        rc = queue_commit(q, lease, delay_ms, id);
    if (rc != SHD_OK)
        (void)queue_cancel(q, lease);
    return rc;
}

int queue_push_apart(const struct queue *q, const void *data, size_t len,
                     int64_t delay_ms, struct wait_end *by, uint64_t *id)
{
    struct cells_run run;
    struct message *m;
    uint64_t number;
    struct txn t;
    int rc;

    if (len > QUEUE_COPY_MAX)
        return push_long(q, data, len, delay_ms, by, id);
    rc = queue_lock_with_room(q, len, by, &run);
    if (rc != SHD_OK)
        return rc;
    cells_fill(&q->cells, &run, data, len);
    begin(q, &t, PUSH_WORDS);
    m = cells_take(&q->cells, &t, &run, len);
    describe(q, m);
    number = atomic_load64(&m->id);
    txn_store64(&t, &q->header->ids, number);
    add64(&t, &q->header->bytes, len);
    rc = end(&t, put_new(q, &t, m, delay_ms));
    /* A delayed one shortens what the sleepers may sleep. */
    queue_unlock_and_wake(q, rc == SHD_OK, false);
    if (rc == SHD_OK && id != NULL)
        *id = number;
    return rc;
}

/* With the lock, inside the transaction: where it was. */
static int put_as_it_was(const struct queue *q, struct txn *t,
                         struct message *m, uint32_t state, uint32_t attempts,
                         uint64_t when)
{
    struct queue_header *h = q->header;

    add64(t, &h->pushed, 1);
    if (state == QUEUE_READY)
        return put_ready(q, t, m, false, attempts);
    if (state == QUEUE_DELAYED)
        return put_delayed(q, t, m, when, attempts);
    state_store(t, m, QUEUE_DEAD, attempts);
    add32(t, &h->n_dead, 1);
    add64(t, &h->buried, 1);
    return message_append(&q->cells, t, &h->dead, m);
}

int queue_put(const struct queue *q, const void *data, size_t len,
              uint32_t state, uint32_t attempts, uint64_t id,
              uint64_t pushed_ms, uint64_t when)
{
    struct cells_run run;
    struct message *m;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = cells_find(&q->cells, len, &run);
    if (rc == SHD_OK) {
        cells_fill(&q->cells, &run, data, len);
        begin(q, &t, PUSH_WORDS);
        m = cells_take(&q->cells, &t, &run, len);
        atomic_store64(&m->id, id);
        atomic_store64(&m->pushed_ms, pushed_ms);
        if (id > atomic_load64(&q->header->ids))
            txn_store64(&t, &q->header->ids, id);
        add64(&t, &q->header->bytes, len);
        rc = end(&t, put_as_it_was(q, &t, m, state, attempts, when));
    }
    queue_unlock_and_wake(q, rc == SHD_OK, false);
    return rc;
}

/* With the lock: the message that this worker holds by that token. */
int queue_find_held(const struct queue *q, uint64_t lease, uint32_t states,
                     struct message **out)
{
    struct message *m = cells_at(&q->cells, (uint32_t)lease);

    if (m == NULL || atomic_load32(&m->last) == CELLS_CONTINUED ||
        queue_state(m) > 31 || (states >> queue_state(m) & 1) == 0 ||
        (uint32_t)atomic_load64(&m->lease) != lease >> 32 ||
        atomic_load64(&m->holder) != q->object.env->incarnation)
        return SHD_LOST;
    *out = m;
    return SHD_OK;
}

/* Without the lock nobody else touches the bytes of what this worker holds. */
static int look_held(const struct queue *q, uint64_t lease, uint32_t states,
                     struct message **m)
{
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = queue_find_held(q, lease, states, m);
    object_unlock(&q->object, 0);
    return rc;
}

int queue_write(const struct queue *q, uint64_t lease, uint64_t at,
                const void *data, size_t len)
{
    struct message *m;
    int rc = look_held(q, lease, QUEUE_RESERVED_SET, &m);

    if (rc != SHD_OK)
        return rc;
    if (at > atomic_load32(&m->len) || len > atomic_load32(&m->len) - at)
        return error_set(SHD_INVAL,
                         "%zu bytes at %llu of a message of %u bytes", len,
                         (unsigned long long)at, atomic_load32(&m->len));
    return cells_write(&q->cells, m, at, data, len);
}

/* What is never written must not be what others have sent before. */
int queue_reserve(const struct queue *q, size_t len, int64_t wait_ms,
                  uint64_t *lease)
{
    static const unsigned char zeroes[QUEUE_COPY_MAX];
    struct wait_end by;
    int rc = wait_begin(&by, wait_ms);

    if (rc == SHD_OK)
        rc = reserve(q, len, &by, lease);
    for (size_t at = 0; at < len && rc == SHD_OK; at += QUEUE_COPY_MAX) {
        size_t n = len - at < QUEUE_COPY_MAX ? len - at : QUEUE_COPY_MAX;

        rc = queue_write(q, *lease, at, zeroes, n);
        if (rc != SHD_OK)
            (void)queue_cancel(q, *lease);
    }
    return rc;
}

int queue_commit(const struct queue *q, uint64_t lease, int64_t delay_ms,
                 uint64_t *id)
{
    struct message *m;
    uint64_t number = 0;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = queue_find_held(q, lease, QUEUE_RESERVED_SET, &m);
    if (rc == SHD_OK) {
        number = atomic_load64(&m->id);
        begin(q, &t, MOVE_WORDS);
        rc = unhold(q, &t, m);
        if (rc == SHD_OK)
            rc = put_new(q, &t, m, delay_ms);
        rc = end(&t, rc);
    }
    queue_unlock_and_wake(q, rc == SHD_OK, false);
    if (rc == SHD_OK && id != NULL)
        *id = number;
    return rc;
}

/* ---- taking ------------------------------------------------------------ */

void queue_tell(const struct queue *q, const struct message *m,
                 struct shd_message *out)
{
    uint64_t when = atomic_load64(&m->when), now;

    out->len = atomic_load32(&m->len);
    out->id = atomic_load64(&m->id);
    out->lease = queue_token(q, m);
    out->state = queue_state(m);
    out->attempts = atomic_load32(&m->attempts);
    out->pushed_ms = atomic_load64(&m->pushed_ms);
    out->from = atomic_load64(&m->from);
    out->holder = out->state == QUEUE_LEASED || out->state == QUEUE_RESERVED
                      ? atomic_load64(&m->holder)
                      : 0;
    out->when_ms = -1;
    if (when != 0) {
        now = clock_now_ms();
        out->when_ms = when > now ? (int64_t)(when - now) : 0;
    }
}

static int unready(const struct queue *q, struct txn *t, struct message *m)
{
    add32(t, &q->header->n_ready, UINT32_MAX);
    return message_remove(&q->cells, t, &q->header->ready, m);
}

int queue_lease(const struct queue *q, struct message *m, uint64_t when)
{
    struct txn t;
    int rc;

    begin(q, &t, MOVE_WORDS);
    rc = unready(q, &t, m);
    if (rc == SHD_OK)
        rc = hold(q, &t, m, QUEUE_LEASED, atomic_load32(&m->attempts) + 1,
                  when);
    return end(&t, rc);
}

static int finish(const struct queue *q, uint64_t lease, uint32_t states,
                  uint64_t *counted);

int queue_take_long(const struct queue *q, struct message *m, void *buf,
                    size_t size, bool lease, uint32_t wake,
                    struct shd_message *out, bool *again)
{
    uint64_t lease_ms = atomic_load64(&q->header->lease_ms);
    struct message *held;
    int still, rc = queue_lease(q, m,
                                lease_ms == 0
                                    ? 0
                                    : after_ms(clock_now_ms(), lease_ms));

    if (rc == SHD_OK)
        queue_tell(q, m, out);
    /* It fitted before; what is copied is what is told now. */
    if (rc == SHD_OK && out->len > size)
        rc = object_damaged(&q->object, "a message is longer than it was");
    queue_unlock_and_wake(q, wake, false);
    if (rc != SHD_OK)
        return rc;
    rc = cells_read(&q->cells, m, 0, buf, out->len);
    if (rc == SHD_OK || rc == SHD_CORRUPT) {
        still = look_held(q, out->lease, QUEUE_LEASED_SET, &held);
        *again = still == SHD_LOST;
        rc = still != SHD_OK ? still : rc;
    }
    if (rc == SHD_OK && !lease) {
        rc = finish(q, out->lease, QUEUE_LEASED_SET, &q->header->popped);
        *again = rc == SHD_LOST;
    }
    return rc;
}

/* ---- what becomes of what is held -------------------------------------- */

int queue_done(const struct queue *q, struct message *m, uint64_t *counted)
{
    struct txn t;
    int rc;

    begin(q, &t, GONE_WORDS);
    rc = unhold(q, &t, m);
    if (counted != NULL)
        add64(&t, counted, 1);
    if (rc == SHD_OK)
        rc = drop(q, &t, m);
    return end(&t, rc);
}

/* A lease ends well, or a reservation in nothing; `counted`, if not NULL, tells
 * as what. */
static int finish(const struct queue *q, uint64_t lease, uint32_t states,
                  uint64_t *counted)
{
    struct message *m;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = queue_find_held(q, lease, states, &m);
    if (rc == SHD_OK)
        rc = queue_done(q, m, counted);
    queue_unlock_and_wake(q, 0, rc == SHD_OK);
    return rc;
}

int queue_cancel(const struct queue *q, uint64_t lease)
{
    return finish(q, lease, QUEUE_RESERVED_SET, NULL);
}

int queue_nack(const struct queue *q, uint64_t lease, int64_t delay_ms)
{
    struct message *m;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = queue_find_held(q, lease, QUEUE_LEASED_SET, &m);
    if (rc == SHD_OK) {
        begin(q, &t, MOVE_WORDS);
        rc = unhold(q, &t, m);
        if (rc == SHD_OK)
            rc = put_back(q, &t, m,
                          delay_ms > 0 ? after_ms(clock_now_ms(),
                                                  (uint64_t)delay_ms)
                                       : 0);
        rc = end(&t, rc);
    }
    queue_unlock_and_wake(q, rc == SHD_OK, false);
    return rc;
}

int queue_extend(const struct queue *q, uint64_t lease, int64_t lease_ms)
{
    struct queue_header *h = q->header;
    struct message *m;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = queue_find_held(q, lease, QUEUE_LEASED_SET, &m);
    if (rc == SHD_OK) {
        begin(q, &t, TREE_REMOVE_WORDS + TREE_INSERT_WORDS + 2);
        if (atomic_load64(&m->when) != 0)
            rc = message_untime(&q->cells, &t, &h->timed, m);
        txn_store64(&t, &m->when,
                    lease_ms == 0 ? 0
                                  : after_ms(clock_now_ms(),
                                             (uint64_t)lease_ms));
        if (rc == SHD_OK && lease_ms != 0)
            rc = message_time(&q->cells, &t, &h->timed, m);
        rc = end(&t, rc);
    }
    queue_unlock_and_wake(q, rc == SHD_OK, false);
    return rc;
}

/* ---- for event loops --------------------------------------------------- */

int queue_arm(const struct queue *q, uint32_t place, int64_t *again_ms)
{
    struct cells_run run;
    uint32_t moved;
    uint64_t next, now, lease_ms = atomic_load64(&q->header->lease_ms);
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    if (queue_should_look(q)) {
        object_unlock(&q->object, 0);
        rc = queue_reap_held(q);
        if (rc == SHD_OK)
            rc = object_lock(&q->object, 0);
        if (rc != SHD_OK)
            return rc;
    }
    rc = queue_settle(q, &moved, &next);
    if (rc == SHD_OK && place == QUEUE_WAIT_MESSAGES)
        rc = atomic_load32(&q->header->n_ready) > 0;
    else if (rc == SHD_OK) {
        rc = find_room(q, 0, &run);
        rc = rc == SHD_OK ? 1 : rc == SHD_FULL ? 0 : rc;
    }
    if (rc == 0)
        rc = object_arm_bell(&q->object, place);
    queue_unlock_and_wake(q, moved, false);
    if (again_ms != NULL) {
        now = clock_now_ms();
        /* Nobody rings at the end of a lease that somebody takes later on. */
        if (lease_ms != 0 && place == QUEUE_WAIT_MESSAGES &&
            after_ms(now, lease_ms) < next)
            next = after_ms(now, lease_ms);
        *again_ms = next == WAIT_NEVER ? -1
                    : next > now       ? (int64_t)(next - now)
                                       : 0;
    }
    return rc;
}

/* ---- letters from another queue (ipc/letters.c) ------------------------ */

int queue_letter_room(const struct queue *q, size_t len, uint64_t *lease)
{
    struct wait_end by;
    int rc = wait_begin(&by, 0);

    return rc == SHD_OK ? reserve(q, len, &by, lease) : rc;
}

int queue_letter_mark(const struct queue *q, uint64_t lease, uint64_t tag,
                      uint64_t from, uint64_t pushed_ms)
{
    struct message *m;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    rc = queue_find_held(q, lease, QUEUE_RESERVED_SET, &m);
    if (rc == SHD_OK) {
        begin(q, &t, 3);
        txn_store64(&t, &m->from, from);
        txn_store64(&t, &m->pushed_ms, pushed_ms);
        txn_store64(&t, &m->tag, tag);
        txn_commit(&t);
    }
    object_unlock(&q->object, 0);
    return rc;
}

/* The newest are last, and what arrives is new. */
struct message *queue_letter_find(const struct queue *q, uint64_t tag,
                                  uint64_t number)
{
    uint32_t ref = atomic_load32(&q->header->held.last);

    for (uint32_t i = 0; ref != 0 && i < q->cells.count; i++) {
        struct message *m = cells_at(&q->cells, ref);

        if (m == NULL)
            break;
        if (atomic_load64(&m->tag) == tag &&
            queue_state(m) == QUEUE_RESERVED &&
            (number == 0 || atomic_load64(&m->lease) == number))
            return m;
        ref = atomic_load32(&m->prev);
    }
    return NULL;
}

int queue_letter_arrive(const struct queue *q, uint64_t tag, uint64_t number)
{
    struct message *m;
    struct txn t;
    int rc = object_lock(&q->object, 0);

    if (rc != SHD_OK)
        return rc;
    m = queue_letter_find(q, tag, number);
    if (m == NULL)
        rc = SHD_NOTFOUND;
    if (rc == SHD_OK) {
        begin(q, &t, MOVE_WORDS + 1);
        txn_store64(&t, &m->tag, 0);
        rc = unhold(q, &t, m);
        if (rc == SHD_OK)
            rc = put_new(q, &t, m, 0);
        rc = end(&t, rc);
    }
    queue_unlock_and_wake(q, rc == SHD_OK, false);
    return rc;
}

/* ---- many at once ------------------------------------------------------ */

/* The next message that drain takes: a ready one, then a delayed one. */
static struct message *first_of(const struct queue *q, uint32_t which)
{
    const struct queue_header *h = q->header;
    struct tree_path path;
    int rc;

    if (which == QUEUE_DEAD)
        return cells_at(&q->cells, atomic_load32(&h->dead.first));
    if (which != QUEUE_DELAYED && atomic_load32(&h->ready.first) != 0)
        return cells_at(&q->cells, atomic_load32(&h->ready.first));
    if (which == QUEUE_READY || atomic_load32(&h->n_delayed) == 0)
        return NULL;
    /* Leased ones are in the tree as well. */
    rc = tree_first(q->object.env->segment, &q->cells.timed,
                    atomic_load32(&h->timed), &path);
    for (uint32_t i = 0; rc == 1 && i < q->cells.count; i++) {
        struct message *m = cells_at(&q->cells, path.ref[path.depth - 1]);

        if (m == NULL || queue_state(m) == QUEUE_DELAYED)
            return m;
        rc = tree_next(q->object.env->segment, &q->cells.timed, &path);
    }
    return NULL;
}

static int remove_it(const struct queue *q, struct message *m)
{
    struct queue_header *h = q->header;
    uint32_t state = queue_state(m);
    struct txn t;
    int rc;

    begin(q, &t, GONE_WORDS);
    add64(&t, &h->drained, 1);
    if (state == QUEUE_READY) {
        rc = unready(q, &t, m);
    } else if (state == QUEUE_DEAD) {
        add32(&t, &h->n_dead, UINT32_MAX);
        rc = message_remove(&q->cells, &t, &h->dead, m);
    } else {
        add32(&t, &h->n_delayed, UINT32_MAX);
        rc = message_untime(&q->cells, &t, &h->timed, m);
    }
    if (rc == SHD_OK)
        rc = drop(q, &t, m);
    return end(&t, rc);
}

static int revive(const struct queue *q, struct message *m)
{
    struct queue_header *h = q->header;
    struct txn t;
    int rc;

    begin(q, &t, MOVE_WORDS);
    add32(&t, &h->n_dead, UINT32_MAX);
    rc = message_remove(&q->cells, &t, &h->dead, m);
    if (rc == SHD_OK)
        rc = put_ready(q, &t, m, false, 0);
    return end(&t, rc);
}

/* Steps of STEP_MAX, with the lock let go in between. */
static int many(const struct queue *q, uint32_t which, uint64_t max,
                int (*act)(const struct queue *q, struct message *m),
                uint64_t *n)
{
    bool more = true;
    int rc = SHD_OK;

    *n = 0;
    while (rc == SHD_OK && more) {
        uint32_t done = 0;

        rc = object_lock(&q->object, 0);
        if (rc != SHD_OK)
            return rc;
        while (rc == SHD_OK && done < STEP_MAX && (max == 0 || *n < max)) {
            struct message *m = first_of(q, which);

            if (m == NULL)
                break;
            rc = act(q, m);
            done += rc == SHD_OK;
            *n += rc == SHD_OK;
        }
        more = done == STEP_MAX;
        queue_unlock_and_wake(q, act == revive ? done : 0,
                        act != revive && done > 0);
    }
    return rc;
}

int queue_drain(const struct queue *q, uint32_t which, uint64_t max,
                uint64_t *n)
{
    return many(q, which, max, remove_it, n);
}

int queue_requeue(const struct queue *q, uint64_t max, uint64_t *n)
{
    return many(q, QUEUE_DEAD, max, revive, n);
}

/* ---- looking ----------------------------------------------------------- */

/* The index-th of a list with that state; torn data leads to NULL. */
static const struct message *nth_of_list(const struct queue *q,
                                         const struct message_list *l,
                                         uint32_t state, uint64_t index)
{
    uint32_t ref = atomic_load32(&l->first);

    for (uint64_t i = 0; ref != 0 && i <= q->cells.count; i++) {
        const struct message *m = cells_at(&q->cells, ref);

        if (m == NULL)
            return NULL;
        if (queue_state(m) == state && index-- == 0)
            return m;
        ref = atomic_load32(&m->after);
    }
    return NULL;
}

static const struct message *nth_delayed(const struct queue *q,
                                         uint64_t index)
{
    const struct segment *s = q->object.env->segment;
    struct tree_path path;
    int rc = atomic_load32(&q->header->timed) == 0
                 ? 0
                 : tree_first(s, &q->cells.timed,
                              atomic_load32(&q->header->timed), &path);

    for (uint64_t i = 0; rc == 1 && i <= q->cells.count; i++) {
        const struct message *m =
            cells_at(&q->cells, path.ref[path.depth - 1]);

        if (m == NULL)
            return NULL;
        if (queue_state(m) == QUEUE_DELAYED && index-- == 0)
            return m;
        rc = tree_next(s, &q->cells.timed, &path);
    }
    return NULL;
}

static int peek(const struct queue *q, uint32_t which, uint64_t index,
                void *buf, size_t size, struct shd_message *out)
{
    const struct queue_header *h = q->header;
    const struct message *m =
        which == QUEUE_DELAYED ? nth_delayed(q, index)
        : which == QUEUE_DEAD  ? nth_of_list(q, &h->dead, which, index)
        : which == QUEUE_READY ? nth_of_list(q, &h->ready, which, index)
                               : nth_of_list(q, &h->held, which, index);

    if (m == NULL)
        return SHD_NOTFOUND;
    queue_tell(q, m, out);
    return cells_read(&q->cells, m, 0, buf,
                      out->len < size ? out->len : size);
}

int queue_peek(const struct queue *q, uint32_t which, uint64_t index,
               void *buf, size_t size, struct shd_message *out)
{
    struct reading r;
    int rc;

    reading_begin(&r, q->object.env, own_guard(q));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = object_gone(&q->object, 0)
                 ? object_gone_error(&q->object)
                 : peek(q, which, index, buf, size, out);
    } while (!reading_done(&r));
    return rc;
}

static void info(const struct queue *q, struct shd_queue_info *i)
{
    const struct queue_header *h = q->header;

    i->capacity_bytes = h->capacity_bytes;
    i->message_bytes = h->message_bytes;
    i->messages_max = h->messages_max;
    i->lease_ms = h->lease_ms;
    i->deliveries_max = h->deliveries_max;
    i->cell_bytes = (uint32_t)q->cells.bytes;
    i->cells = q->cells.count;
    i->cells_used = atomic_load32(&h->cells.used);
    i->bytes = atomic_load64(&h->bytes);
    i->ready = atomic_load32(&h->n_ready);
    i->delayed = atomic_load32(&h->n_delayed);
    i->leased = atomic_load32(&h->n_leased);
    i->reservations = atomic_load32(&h->n_reserved);
    i->dead = atomic_load32(&h->n_dead) +
              (atomic_load32(&h->stage) == LETTER_PINNED);
    i->pushed = atomic_load64(&h->pushed);
    i->popped = atomic_load64(&h->popped);
    i->acked = atomic_load64(&h->acked);
    i->redelivered = atomic_load64(&h->redelivered);
    i->expired = atomic_load64(&h->expired);
    i->orphaned = atomic_load64(&h->orphaned);
    i->buried = atomic_load64(&h->buried);
    i->drained = atomic_load64(&h->drained);
    i->forwarded = atomic_load64(&h->forwarded);
    memcpy(i->dead_to, h->dead_to, sizeof(i->dead_to) - 1);
}

int queue_info(const struct queue *q, struct shd_queue_info *out)
{
    struct reading r;
    int rc;

    reading_begin(&r, q->object.env, own_guard(q));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        if (object_gone(&q->object, 0))
            rc = object_gone_error(&q->object);
        else
            info(q, out);
    } while (!reading_done(&r));
    out->generation = q->object.generation;
    memcpy(out->name, q->object.name, sizeof(out->name));
    return rc;
}

/* What is torn leads nowhere, or round in a circle of at most all cells. */
static uint64_t count_held(const struct queue *q, uint64_t incarnation)
{
    uint32_t ref = atomic_load32(&q->header->held.first);
    uint64_t n = 0;

    for (uint64_t i = 0; ref != 0 && i <= q->cells.count; i++) {
        const struct message *m = cells_at(&q->cells, ref);

        if (m == NULL)
            break;
        n += atomic_load64(&m->holder) == incarnation;
        ref = atomic_load32(&m->after);
    }
    return n;
}

int queue_held(const struct queue *q, uint64_t incarnation, uint64_t *count)
{
    struct reading r;
    bool gone;

    reading_begin(&r, q->object.env, own_guard(q));
    do {
        int rc = reading_try(&r);

        if (rc != SHD_OK)
            return rc;
        gone = object_gone(&q->object, 0);
        if (!gone)
            *count = count_held(q, incarnation);
    } while (!reading_done(&r));
    return gone ? object_gone_error(&q->object) : SHD_OK;
}

/* ---- checking ---------------------------------------------------------- */

/* The held ones by their states, and how many of them have an end. */
static int check_held(const struct queue *q, struct cells_check *k,
                      uint64_t *timed)
{
    const struct queue_header *h = q->header;
    uint32_t leased = 0, reserved = 0;
    int rc = cells_check_list(k, &h->held,
                              (uint64_t)h->n_leased + h->n_reserved,
                              QUEUE_LEASED_SET | QUEUE_RESERVED_SET, "held");

    if (rc != SHD_OK)
        return rc;
    for (uint32_t ref = h->held.first; ref != 0;) {
        const struct message *m = cells_at(&q->cells, ref);

        if (m == NULL || leased + reserved > q->cells.count)
            return cells_check_failed(k, m, "the list of the held is broken");
        if (m->holder == 0)
            return cells_check_failed(k, m, "is held by nobody");
        if (m->lease == 0 || m->lease > h->leases)
            return cells_check_failed(k, m, "its lease was never given");
        leased += queue_state(m) == QUEUE_LEASED;
        reserved += queue_state(m) == QUEUE_RESERVED;
        if (m->tag != 0 && queue_state(m) != QUEUE_RESERVED)
            return cells_check_failed(k, m, "has arrived, and is not taken "
                                            "in");
        *timed += m->when != 0;
        ref = m->after;
    }
    if (leased != h->n_leased || reserved != h->n_reserved)
        return cells_check_failed(k, NULL, "the numbers of leased and "
                                           "reserved messages are wrong");
    return SHD_OK;
}

/* The tree: delayed ones, which are nowhere else, and leased ones. */
static int check_timed(const struct queue *q, struct cells_check *k,
                       uint64_t leased)
{
    const struct segment *s = q->object.env->segment;
    const struct queue_header *h = q->header;
    uint64_t nodes = 0, delayed = 0;
    struct tree_path path;
    int rc = cells_check_tree(k, h->timed, &nodes), more = 0;

    if (rc == SHD_OK && h->timed != 0)
        more = tree_first(s, &q->cells.timed, h->timed, &path);
    for (uint64_t i = 0; rc == SHD_OK && more == 1 && i < nodes; i++) {
        const struct message *m =
            cells_at(&q->cells, path.ref[path.depth - 1]);

        if (m == NULL || m->when == 0)
            return cells_check_failed(k, m, "is in the tree of times and has "
                                            "none");
        if (queue_state(m) == QUEUE_DELAYED) {
            delayed++;
            rc = cells_check_message(k, m);
        } else if (queue_state(m) != QUEUE_LEASED) {
            return cells_check_failed(k, m, "is in the tree of times and is "
                                            "neither delayed nor leased");
        }
        more = tree_next(s, &q->cells.timed, &path);
    }
    if (rc == SHD_OK && (delayed != h->n_delayed || nodes != delayed + leased))
        return cells_check_failed(k, NULL, "the tree of times has not what is "
                                           "delayed and leased");
    return rc;
}

/* The letter that is on its way is nowhere else. */
static int check_letter(const struct queue *q, struct cells_check *k)
{
    const struct queue_header *h = q->header;
    const struct message *m = cells_at(&q->cells, h->letter);

    if (memchr(h->dead_to, '\0', sizeof(h->dead_to)) == NULL)
        return cells_check_failed(k, NULL, "the name that its dead letters "
                                           "go to has no end");
    if (h->stage > LETTER_LANDED ||
        (h->stage == LETTER_NONE && h->mover != 0) ||
        (h->stage == LETTER_PINNED) != (h->letter != 0))
        return cells_check_failed(k, NULL, "what is said of a letter on its "
                                           "way contradicts itself");
    if (h->stage != LETTER_PINNED)
        return SHD_OK;
    if (m == NULL || queue_state(m) != QUEUE_DEAD)
        return cells_check_failed(k, m, "is on its way to another queue, and "
                                        "is no dead letter");
    return cells_check_message(k, m);
}

static int check_sums(const struct queue *q, struct cells_check *k)
{
    const struct queue_header *h = q->header;

    if (k->bytes != h->bytes)
        return cells_check_failed(k, NULL, "the number of bytes is wrong");
    if (h->pushed !=
        h->popped + h->acked + h->drained + h->forwarded + h->n_ready +
            h->n_delayed + h->n_leased + h->n_dead +
            (h->stage == LETTER_PINNED))
        return cells_check_failed(k, NULL, "what was pushed is not what was "
                                           "taken and what is there");
    if (h->expired + h->orphaned > h->redelivered + h->buried)
        return cells_check_failed(k, NULL, "more came back than were given "
                                           "back");
    return SHD_OK;
}

int queue_check(const struct object *o, char *report, size_t size)
{
    struct queue q;
    struct cells_check k;
    uint64_t timed = 0;
    int rc = queue_view(o, &q);

    if (rc == SHD_OK)
        rc = cells_check_begin(&k, &q.cells, report, size);
    if (rc != SHD_OK)
        return rc;
    rc = cells_check_list(&k, &q.header->ready, q.header->n_ready,
                          1u << QUEUE_READY, "ready");
    if (rc == SHD_OK)
        rc = cells_check_list(&k, &q.header->dead, q.header->n_dead,
                              1u << QUEUE_DEAD, "dead");
    if (rc == SHD_OK)
        rc = check_held(&q, &k, &timed);
    if (rc == SHD_OK)
        rc = check_timed(&q, &k, timed);
    if (rc == SHD_OK)
        rc = check_letter(&q, &k);
    if (rc == SHD_OK)
        rc = check_sums(&q, &k);
    return cells_check_end(&k, rc);
}
