/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pushing, taking and acknowledging, of one message or of many: one hold of the
 * lock, one transaction and one wake-up for up to QUEUE_BATCH_MAX of them.
 *
 *   push  The messages are filled in and linked to each other in cells that are
 *         still free. A handful of words then makes all of them the end of
 *         the ready ones.
 *   take  A row at the front of the ready ones becomes the end of the held
 *         ones, linked as it is; each gets a new state.
 *   ack   Messages that lie in a row in the list of the held, as those do that
 *         were taken together, leave it as one.
 *
 * What is delayed, has an end of its lease, or is long goes one by one: the
 * tree of times takes more records of the log, and long copies no lock.
 */
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/read.h"
#include "shm/ipc/queue.h"

#include <string.h>

#define PUSH_WORDS (CELLS_ALLOC_WORDS + 6u)
#define TAKE_WORDS (QUEUE_BATCH_MAX + 8u)
#define POP_WORDS (QUEUE_BATCH_MAX + 6u)
#define ROW_OUT_WORDS 3u
#define ACK_WORDS ((1u + ROW_OUT_WORDS) * QUEUE_BATCH_MAX + 4u)
static_assert(ACK_WORDS <= GUARD_UNDO_MAX, "a batch fits the log");

TXN_INLINE void begin(const struct queue *q, struct txn *t, uint32_t words)
{
    txn_begin(t, q->object.env->segment, object_guard(&q->object, 0), words);
}

/* These lines come together with the lock's, rather than one by one. */
static void ask_for_header(const struct queue *q)
{
    atomic_will_write(&q->header->cells.free);
    atomic_will_write(&q->header->ready);
}

/* Two neighbours of 32 bits, in one word. */
TXN_INLINE void store_pair(struct txn *t, uint32_t *first, uint32_t a,
                           uint32_t b)
{
    txn_store64(t, (uint64_t *)(void *)first, (uint64_t)b << 32 | a);
}

static int broken(const struct queue *q)
{
    return object_damaged(&q->object, "a link leads to no message");
}

/* ---- pushing ------------------------------------------------------------- */

/* With the lock and the run for the first message: how many go with it, and
 * the run for all of them. */
static uint32_t row_find(const struct queue *q, const size_t *len,
                         uint32_t count, struct cells_run *run)
{
    uint64_t room = queue_messages_left(q), left = cells_left(&q->cells);
    uint64_t bytes = len[0], cells = run->n;
    struct cells_run all;
    uint32_t n = 1;

    while (n < count && n < QUEUE_BATCH_MAX && n < room &&
           len[n] <= QUEUE_COPY_MAX - bytes) {
        uint64_t more = cells_of(&q->cells, len[n]);

        if (cells + more > left)
            break;
        cells += more;
        bytes += len[n++];
    }
    /* Where that fails there is still the first one. */
    if (n == 1 || cells_find_cells(&q->cells, cells, &all) != SHD_OK)
        return 1;
    *run = all;
    return n;
}

/* Fills the run's messages, who are not to be seen yet. Returns their bytes;
 * *last: where the last one begins. */
static uint64_t row_fill(const struct queue *q, const struct cells_run *run,
                         const void *const *data, const size_t *len,
                         uint32_t n, uint32_t *last)
{
    const struct queue_header *h = q->header;
    uint64_t now = clock_wall_coarse_ms(), id = atomic_load64(&h->ids);
    uint64_t bytes = 0;
    uint32_t prev = atomic_load32(&h->ready.last), ref = run->first;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t own = ref;
        struct message *m =
            cells_fill_message(&q->cells, run, &ref, data[i], len[i]);

        atomic_store64((uint64_t *)(void *)&m->left, 0);
        atomic_store64((uint64_t *)(void *)&m->prev,
                       (uint64_t)(i + 1 < n ? ref : 0) << 32 | prev);
        atomic_store64((uint64_t *)(void *)&m->state, QUEUE_READY);
        atomic_store64(&m->id, ++id);
        atomic_store64(&m->when, 0);
        atomic_store64(&m->holder, 0);
        atomic_store64(&m->lease, 0);
        atomic_store64(&m->pushed_ms, now);
        atomic_store64(&m->from, q->object.env->incarnation);
        atomic_store64(&m->tag, 0);
        bytes += len[i];
        prev = own;
    }
    *last = prev;
    return bytes;
}

/* With the lock, and what row_fill has filled. */
static int row_append(const struct queue *q, const struct cells_run *run,
                      uint32_t new_last, uint32_t n, uint64_t bytes)
{
    struct queue_header *h = q->header;
    uint32_t first = atomic_load32(&h->ready.first);
    uint32_t last = atomic_load32(&h->ready.last);
    struct message *before = cells_at(&q->cells, last);
    struct txn t;

    if (last != 0 && before == NULL)
        return broken(q);
    begin(q, &t, PUSH_WORDS);
    cells_take_run(&q->cells, &t, run);
    txn_store64(&t, &h->ids, atomic_load64(&h->ids) + n);
    txn_store64(&t, &h->bytes, atomic_load64(&h->bytes) + bytes);
    txn_store64(&t, &h->pushed, atomic_load64(&h->pushed) + n);
    txn_store32(&t, &h->n_ready, atomic_load32(&h->n_ready) + n);
    if (before != NULL)
        txn_store32(&t, &before->after, run->first);
    store_pair(&t, &h->ready.first, last == 0 ? run->first : first, new_last);
    txn_commit(&t);
    return SHD_OK;
}

/* Pushes some of them, at least the first. *n: how many. */
static int push_row(const struct queue *q, const void *const *data,
                    const size_t *len, uint32_t count, struct wait_end *by,
                    uint64_t *ids, uint32_t *n)
{
    struct cells_run run;
    uint32_t last;
    uint64_t id, bytes;
    int rc;

    ask_for_header(q);
    rc = queue_lock_with_room(q, len[0], by, &run);
    if (rc != SHD_OK)
        return rc;
    *n = count > 1 ? row_find(q, len, count, &run) : 1;
    id = atomic_load64(&q->header->ids);
    bytes = row_fill(q, &run, data, len, *n, &last);
    rc = row_append(q, &run, last, *n, bytes);
    queue_unlock_and_wake(q, rc == SHD_OK ? *n : 0, false);
    for (uint32_t i = 0; rc == SHD_OK && ids != NULL && i < *n; i++)
        ids[i] = ++id;
    return rc;
}

int queue_push_many(const struct queue *q, uint32_t count,
                    const void *const *data, const size_t *len,
                    int64_t delay_ms, int64_t wait_ms, uint64_t *ids,
                    uint32_t *pushed)
{
    uint32_t done = 0;
    struct wait_end by;
    int rc = wait_begin(&by, wait_ms);

    while (rc == SHD_OK && done < count) {
        uint64_t *id = ids == NULL ? NULL : ids + done;
        uint32_t n = 1;

        if (delay_ms > 0 || len[done] > QUEUE_COPY_MAX)
            rc = queue_push_apart(q, data[done], len[done], delay_ms, &by,
                                  id);
        else
            rc = push_row(q, data + done, len + done, count - done, &by, id,
                          &n);
        done += rc == SHD_OK ? n : 0;
    }
    *pushed = done;
    return rc;
}

/* ---- taking -------------------------------------------------------------- */

/* The front of the ready ones. */
struct row {
    struct message *m[QUEUE_BATCH_MAX];
    uint32_t n;
    uint32_t after;  /* ref of the first that stays ready; 0 */
    uint32_t cells;  /* of all */
    uint64_t bytes;  /* of all */
};

/* With the lock: as many as fit into size bytes, copied. */
static int row_gather(const struct queue *q, unsigned char *buf, size_t size,
                      uint32_t max, struct row *row, size_t *at)
{
    uint32_t ref = atomic_load32(&q->header->ready.first), prev = 0;
    uint64_t room = size < QUEUE_COPY_MAX ? size : QUEUE_COPY_MAX;
    int rc = SHD_OK;

    row->n = row->cells = row->after = 0;
    row->bytes = 0;
    while (rc == SHD_OK && ref != 0 && row->n < max) {
        struct message *m = cells_at(&q->cells, ref);
        uint32_t len;

        if (m == NULL || atomic_load32(&m->prev) != prev ||
            queue_state(m) != QUEUE_READY)
            return broken(q);
        prev = ref;
        len = atomic_load32(&m->len);
        if (len > room - row->bytes)
            break;
        ref = atomic_load32(&m->after);
        /* The next one's lines come while this one is copied. */
        if (ref != 0)
            atomic_will_write(&cells_of_ref(&q->cells, ref)->state);
        rc = cells_read(&q->cells, m, 0, buf + row->bytes, len);
        at[row->n] = row->bytes;
        row->m[row->n++] = m;
        row->bytes += len;
        row->cells += atomic_load32(&m->cells);
    }
    row->after = ref;
    return rc;
}

/* Inside a transaction: the row is not ready any more. Three words. */
TXN_INLINE int row_unready(const struct queue *q, struct txn *t,
                           const struct row *row, uint32_t leased)
{
    struct queue_header *h = q->header;
    struct message *behind = cells_at(&q->cells, row->after);

    if (row->after != 0 && behind == NULL)
        return broken(q);
    store_pair(t, &h->n_ready, atomic_load32(&h->n_ready) - row->n,
               atomic_load32(&h->n_leased) + leased);
    if (behind != NULL)
        txn_store32(t, &behind->prev, 0);
    store_pair(t, &h->ready.first, row->after,
               behind == NULL ? 0 : atomic_load32(&h->ready.last));
    return SHD_OK;
}

/* Inside a transaction: the row, linked as it is, ends the list of the held.
 * Four words. */
TXN_INLINE int row_hold(const struct queue *q, struct txn *t,
                        const struct row *row)
{
    struct queue_header *h = q->header;
    struct message *first = row->m[0], *last = row->m[row->n - 1];
    uint32_t held = atomic_load32(&h->held.first);
    uint32_t before = atomic_load32(&h->held.last);
    uint32_t ref = cells_ref(&q->cells, first);
    struct message *old = cells_at(&q->cells, before);

    if (before != 0 && old == NULL)
        return broken(q);
    txn_store32(t, &first->prev, before);
    txn_store32(t, &last->after, 0);
    if (old != NULL)
        txn_store32(t, &old->after, ref);
    store_pair(t, &h->held.first, old == NULL ? ref : held,
               cells_ref(&q->cells, last));
    return SHD_OK;
}

/* Leases without an end. */
static int row_lease(const struct queue *q, const struct row *row)
{
    struct queue_header *h = q->header;
    uint64_t lease = atomic_load64(&h->leases);
    struct txn t;
    int rc;

    begin(q, &t, TAKE_WORDS);
    rc = row_unready(q, &t, row, row->n);
    for (uint32_t i = 0; rc == SHD_OK && i < row->n; i++) {
        struct message *m = row->m[i];

        atomic_store64(&m->holder, q->object.env->incarnation);
        atomic_store64(&m->lease, ++lease);
        atomic_compiler_barrier();
        store_pair(&t, &m->state, QUEUE_LEASED,
                   atomic_load32(&m->attempts) + 1);
    }
    if (rc == SHD_OK)
        rc = row_hold(q, &t, row);
    if (rc != SHD_OK) {
        txn_abort(&t);
        return rc;
    }
    txn_store64(&t, &h->leases, lease);
    txn_commit(&t);
    return SHD_OK;
}

/* Leases that end: one by one. *n: how many were given, with an error too. */
static int row_lease_timed(const struct queue *q, const struct row *row,
                           uint64_t lease_ms, uint32_t *n)
{
    uint64_t when = clock_now_ms() +
                    (lease_ms < UINT64_MAX / 2 ? lease_ms : UINT64_MAX / 2);
    int rc = SHD_OK;

    for (*n = 0; rc == SHD_OK && *n < row->n; *n += rc == SHD_OK)
        rc = queue_lease(q, row->m[*n], when);
    return *n > 0 ? SHD_OK : rc;
}

/* Inside a transaction: a message's cells go in front of the free ones. One
 * word: where its last cell leads to means nothing while it is in a message. */
TXN_INLINE int give(const struct queue *q, struct txn *t, struct message *m,
                    uint32_t *free)
{
    struct message *last = cells_at(&q->cells, atomic_load32(&m->last));

    if (last == NULL)
        return broken(q);
    atomic_store32(&last->next, *free);
    txn_store32(t, &m->state, 0);
    *free = cells_ref(&q->cells, m);
    return SHD_OK;
}

static int row_pop(const struct queue *q, const struct row *row)
{
    struct queue_header *h = q->header;
    uint32_t free = atomic_load32(&h->cells.free);
    uint32_t used = atomic_load32(&h->cells.used);
    struct txn t;
    int rc;

    if (row->cells > used)
        return broken(q);
    begin(q, &t, POP_WORDS);
    rc = row_unready(q, &t, row, 0);
    for (uint32_t i = row->n; rc == SHD_OK && i-- > 0;)
        rc = give(q, &t, row->m[i], &free);
    if (rc != SHD_OK) {
        txn_abort(&t);
        return rc;
    }
    store_pair(&t, &h->cells.free, free, used - row->cells);
    txn_store64(&t, &h->bytes, atomic_load64(&h->bytes) - row->bytes);
    txn_store64(&t, &h->popped, atomic_load64(&h->popped) + row->n);
    txn_commit(&t);
    return SHD_OK;
}

/* What was copied of number i; its own word may have been damaged since. */
static uint64_t row_len(const struct row *row, const size_t *at, uint32_t i)
{
    return (i + 1 < row->n ? at[i + 1] : row->bytes) - at[i];
}

/* With the lock and a first message that is not long. *n: how many were
 * taken; *wake: how many of the ready ones are left to others. */
static int take_row(const struct queue *q, void *buf, size_t size, bool lease,
                    uint32_t max, struct shd_message *out, size_t *at,
                    uint32_t *n)
{
    uint64_t lease_ms = atomic_load64(&q->header->lease_ms);
    struct row row;
    int rc = row_gather(q, buf, size,
                        max < QUEUE_BATCH_MAX ? max : QUEUE_BATCH_MAX, &row,
                        at);

    *n = row.n;
    if (rc == SHD_OK && row.n == 0)
        rc = object_damaged(&q->object, "a message is longer than it was");
    if (rc != SHD_OK)
        return rc;
    /* What is popped is in nobody's reach afterwards. */
    for (uint32_t i = 0; !lease && i < row.n; i++) {
        queue_tell(q, row.m[i], &out[i]);
        out[i].len = row_len(&row, at, i);
        out[i].attempts++;
    }
    if (!lease)
        return row_pop(q, &row);
    rc = lease_ms == 0 ? row_lease(q, &row)
                       : row_lease_timed(q, &row, lease_ms, n);
    for (uint32_t i = 0; rc == SHD_OK && i < *n; i++) {
        queue_tell(q, row.m[i], &out[i]);
        out[i].len = row_len(&row, at, i);
    }
    return rc;
}

/* With the lock, which is let go of, and a message that is ready. */
static int take_first(const struct queue *q, struct message *m, void *buf,
                      size_t size, bool lease, uint32_t max, uint32_t moved,
                      struct shd_message *out, size_t *at, uint32_t *n,
                      bool *again)
{
    uint32_t len = atomic_load32(&m->len), left;
    int rc;

    if (len > size) {
        queue_tell(q, m, out);
        /* Another, who sleeps, may have more space. */
        queue_unlock_and_wake(q, moved > 0 ? moved : 1, false);
        return SHD_SPACE;
    }
    if (len > QUEUE_COPY_MAX) {
        *n = 1;
        at[0] = 0;
        queue_tell(q, m, out);
        return queue_take_long(q, m, buf, size, lease,
                               moved > 1 ? moved - 1 : 0, out, again);
    }
    rc = take_row(q, buf, size, lease, max, out, at, n);
    left = rc == SHD_OK && moved > *n ? moved - *n : 0;
    queue_unlock_and_wake(q, left, rc == SHD_OK && !lease);
    return rc;
}

/* Without the lock, for who asks again and again, and would keep from it those
 * who push: nothing to take, and nobody whose death would bring anything. */
static bool is_idle(const struct queue *q)
{
    const struct queue_header *h = q->header;
    const struct guard *g = object_guard(&q->object, 0);
    uint64_t seq;
    bool idle;

    if (!read_begin(g, &seq))
        return false;
    idle = (atomic_load32(&h->ready.first) | atomic_load32(&h->timed) |
            atomic_load32(&h->n_leased) | atomic_load32(&h->n_reserved)) == 0;
    idle = idle && !object_gone(&q->object, 0);
    return idle && read_valid(g, seq);
}

int queue_take_many(const struct queue *q, void *buf, size_t size,
                    int64_t wait_ms, bool lease, uint32_t max,
                    struct shd_message *out, size_t *at, uint32_t *taken)
{
    struct wait_end by;
    uint64_t next = WAIT_NEVER;
    bool looked = false;
    int rc = wait_begin(&by, wait_ms);

    *taken = 0;
    if (wait_ms == 0 && is_idle(q))
        return SHD_NOTFOUND;
    while (rc == SHD_OK) {
        uint32_t moved = 0, first;
        bool again = false;

        ask_for_header(q);
        rc = object_lock(&q->object, 0);
        if (rc != SHD_OK)
            break;
        next = WAIT_NEVER;
        if (atomic_load32(&q->header->timed) != 0)
            rc = queue_settle(q, &moved, &next);
        first = atomic_load32(&q->header->ready.first);
        if (rc == SHD_OK && first != 0) {
            struct message *m = cells_at(&q->cells, first);
            uint32_t n = 0;

            if (m != NULL) {
                rc = take_first(q, m, buf, size, lease, max, moved, out, at,
                                &n, &again);
                *taken = rc == SHD_OK ? n : 0;
                if (!again)
                    return rc;
                rc = SHD_OK;
                continue;
            }
            rc = object_damaged(&q->object, "the list of the ready leads to "
                                            "no message");
        }
        if (rc != SHD_OK) {
            object_unlock(&q->object, 0);
        } else if (queue_should_look(q)) {
            object_unlock(&q->object, 0);
            rc = queue_reap_held(q);
        } else if (!queue_wait(q, QUEUE_WAIT_MESSAGES, &by, next,
                               &looked)) {
            rc = SHD_NOTFOUND;
        }
    }
    return rc;
}

/* ---- acknowledging ------------------------------------------------------- */

/* A transaction that takes message after message out. */
struct leaving {
    struct txn t;
    bool open;
    uint32_t n, cells, free;
    uint64_t bytes;
};

static void leave_begin(const struct queue *q, struct leaving *l)
{
    begin(q, &l->t, ACK_WORDS);
    l->open = true;
    l->n = l->cells = 0;
    l->bytes = 0;
    l->free = atomic_load32(&q->header->cells.free);
}

static int leave_end(const struct queue *q, struct leaving *l, int rc)
{
    struct queue_header *h = q->header;
    uint32_t used = atomic_load32(&h->cells.used);

    l->open = false;
    if (rc == SHD_OK && l->cells > used)
        rc = broken(q);
    if (rc != SHD_OK) {
        txn_abort(&l->t);
        return rc;
    }
    store_pair(&l->t, &h->cells.free, l->free, used - l->cells);
    txn_store32(&l->t, &h->n_leased, atomic_load32(&h->n_leased) - l->n);
    txn_store64(&l->t, &h->bytes, atomic_load64(&h->bytes) - l->bytes);
    txn_store64(&l->t, &h->acked, atomic_load64(&h->acked) + l->n);
    txn_commit(&l->t);
    return SHD_OK;
}

/* The held ones from first to last, who are neighbours, leave the list. At
 * most ROW_OUT_WORDS. */
static int unhold_row(const struct queue *q, struct txn *t,
                      const struct message *first, const struct message *last)
{
    struct queue_header *h = q->header;
    uint32_t held_first = atomic_load32(&h->held.first);
    uint32_t held_last = atomic_load32(&h->held.last);
    uint32_t prev = atomic_load32(&first->prev);
    uint32_t after = atomic_load32(&last->after);
    struct message *before = cells_at(&q->cells, prev);
    struct message *behind = cells_at(&q->cells, after);

    if ((prev == 0) != (held_first == cells_ref(&q->cells, first)) ||
        (after == 0) != (held_last == cells_ref(&q->cells, last)) ||
        (prev != 0 && before == NULL) || (after != 0 && behind == NULL))
        return broken(q);
    if (before != NULL)
        txn_store32(t, &before->after, after);
    if (behind != NULL)
        txn_store32(t, &behind->prev, prev);
    if (prev == 0 || after == 0)
        store_pair(t, &h->held.first, prev == 0 ? after : held_first,
                   after == 0 ? prev : held_last);
    return SHD_OK;
}

/* As many of the leases as are of neighbours without an end. *n: how many. */
static int leave_row(const struct queue *q, struct leaving *l,
                     struct message *first, const uint64_t *leases,
                     uint32_t count, uint32_t *n)
{
    struct message *m[QUEUE_BATCH_MAX];
    int rc;

    m[0] = first;
    for (*n = 1; *n < count; ++*n) {
        if (atomic_load32(&m[*n - 1]->after) != (uint32_t)leases[*n] ||
            queue_find_held(q, leases[*n], QUEUE_LEASED_SET, &m[*n]) !=
                SHD_OK ||
            atomic_load64(&m[*n]->when) != 0)
            break;
    }
    if (!l->open)
        leave_begin(q, l);
    rc = unhold_row(q, &l->t, m[0], m[*n - 1]);
    for (uint32_t i = *n; rc == SHD_OK && i-- > 0;) {
        l->bytes += atomic_load32(&m[i]->len);
        l->cells += atomic_load32(&m[i]->cells);
        rc = give(q, &l->t, m[i], &l->free);
    }
    l->n += *n;
    return rc;
}

static void tell_codes(int32_t *codes, uint32_t from, uint32_t to, int rc)
{
    for (uint32_t i = from; codes != NULL && i < to; i++)
        codes[i] = rc;
}

/* With the lock: up to QUEUE_BATCH_MAX. *done: how many are done with. *first:
 * of what is not well, what came first. */
static int ack_some(const struct queue *q, const uint64_t *leases,
                    uint32_t count, int32_t *codes, int *first,
                    uint32_t *done)
{
    struct leaving l = {.open = false};
    uint32_t from = 0; /* of what the open transaction has */
    int rc = SHD_OK;

    for (uint32_t i = 0, n = 1; rc == SHD_OK && i < count; i += n) {
        struct message *m;
        int found = queue_find_held(q, leases[i], QUEUE_LEASED_SET, &m);

        n = 1;
        tell_codes(codes, i, i + 1, found);
        if (found != SHD_OK) {
            *first = *first == SHD_OK ? found : *first;
        } else if (atomic_load64(&m->when) == 0) {
            rc = leave_row(q, &l, m, leases + i, count - i, &n);
            tell_codes(codes, i, i + n, rc);
        } else {
            rc = l.open ? leave_end(q, &l, SHD_OK) : SHD_OK;
            if (rc == SHD_OK) {
                from = i;
                rc = queue_done(q, m, &q->header->acked);
                from += rc == SHD_OK;
            }
            tell_codes(codes, i, i + 1, rc);
        }
        *done = i + n;
    }
    if (l.open)
        rc = leave_end(q, &l, rc);
    /* What its transaction had has been taken back. */
    for (uint32_t i = from; rc != SHD_OK && codes != NULL && i < *done; i++)
        codes[i] = codes[i] == SHD_OK ? rc : codes[i];
    return rc;
}

int queue_ack_many(const struct queue *q, uint32_t count,
                   const uint64_t *leases, int32_t *codes)
{
    int rc = SHD_OK, first = SHD_OK;

    for (uint32_t at = 0; rc == SHD_OK && at < count;) {
        uint32_t n = count - at < QUEUE_BATCH_MAX ? count - at
                                                  : QUEUE_BATCH_MAX;
        uint32_t done = 0;

        ask_for_header(q);
        rc = object_lock(&q->object, 0);
        if (rc == SHD_OK) {
            rc = ack_some(q, leases + at, n,
                          codes == NULL ? NULL : codes + at, &first, &done);
            queue_unlock_and_wake(q, 0, rc == SHD_OK);
        }
        if (rc != SHD_OK)
            tell_codes(codes, at + done, count, rc);
        at += n;
    }
    return rc != SHD_OK ? rc : first;
}
