/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making mailboxes, burying the dead in them, checking them. The kind's part
 * of the extent:
 *
 *   | header 256 | a box for each worker slot, 64 | cells, as needed |
 *
 * A burial first shuts the box, so that nothing comes any more; then empties
 * it; then takes what its owner has asked others for out of theirs; and gives
 * the box up at last, if no answer has come meanwhile. Cut off anywhere, it
 * begins again with what is left.
 */
#include "shm/ipc/mailbox.h"
#include "shm/base/error.h"
#include "shm/worker/registry.h"

#include <string.h>

#define CAPACITY_DEFAULT (1ull << 20)
#define MESSAGE_DEFAULT 160u
#define BOXES_DEFAULT 4u /* full ones make a full mailbox */
#define STEP_MAX 32u     /* in one hold of the lock */
#define ROUNDS_MAX 3

static_assert(STEP_MAX < MAIL_STEP_MAX, "each may be to be told");

/* ---- making and finding ------------------------------------------------ */

struct plan {
    uint64_t capacity, message_bytes, box_bytes, cell_bytes;
    uint32_t cells, box_cells, boxes;
};

static uint64_t boxes_bytes(uint64_t boxes)
{
    return boxes * sizeof(struct mailbox_box);
}

static int plan_make(const struct segment *s,
                     const struct shd_mailbox_options *o, struct plan *p)
{
    uint64_t n;

    p->boxes = s->workers_max;
    p->capacity = o->capacity_bytes ? o->capacity_bytes : CAPACITY_DEFAULT;
    p->message_bytes = o->message_bytes ? o->message_bytes : MESSAGE_DEFAULT;
    p->box_bytes = o->box_bytes ? o->box_bytes : p->capacity / BOXES_DEFAULT;
    if (p->capacity > SEGMENT_SIZE_MAX || p->message_bytes > p->capacity ||
        p->box_bytes > p->capacity)
        return error_set(SHD_INVAL,
                         "a mailbox of %llu bytes, boxes of %llu, messages of "
                         "%llu: at most 64 GiB, and what is in it must fit",
                         (unsigned long long)p->capacity,
                         (unsigned long long)p->box_bytes,
                         (unsigned long long)p->message_bytes);
    p->cell_bytes = cells_bytes(p->message_bytes);
    p->cells = (uint32_t)(p->capacity / p->cell_bytes);
    if (p->cells == 0)
        return error_set(SHD_INVAL,
                         "a mailbox of %llu bytes holds no message of %llu: "
                         "it takes %llu",
                         (unsigned long long)p->capacity,
                         (unsigned long long)p->message_bytes,
                         (unsigned long long)p->cell_bytes);
    n = p->box_bytes / p->cell_bytes;
    p->box_cells = n > 0 ? (uint32_t)n : 1;
    return SHD_OK;
}

static int initialize(const struct object *o, void *context)
{
    const struct plan *p = context;
    struct mailbox_header *h = object_own(o, 0, sizeof(*h));

    if (h == NULL)
        return object_damaged(o, "it has no room for its header");
    h->capacity_bytes = p->capacity;
    h->message_bytes = p->message_bytes;
    h->box_bytes = p->box_bytes;
    h->box_cells = p->box_cells;
    h->boxes = p->boxes;
    cells_initialize(o, &h->cells, sizeof(*h) + boxes_bytes(p->boxes),
                     p->cell_bytes, p->cells);
    return SHD_OK;
}

int mailbox_view(const struct object *o, struct mailbox *out)
{
    int rc;

    if (&out->object != o)
        out->object = *o;
    out->header = object_own(o, 0, sizeof(*out->header));
    if (out->header == NULL)
        return object_damaged(o, "it has no room for its header");
    out->count = atomic_load32(&out->header->boxes);
    out->box_cells = atomic_load32(&out->header->box_cells);
    if (out->count == 0 || out->count != o->env->segment->workers_max)
        return object_gone(o, 0)
                   ? object_gone_error(o)
                   : object_damaged(o, "its boxes are not the segment's "
                                       "workers'");
    out->boxes = object_own(o, sizeof(*out->header), boxes_bytes(out->count));
    if (out->boxes == NULL)
        return object_damaged(o, "it has no room for its boxes");
    rc = cells_view(&out->object, &out->header->cells, &out->cells);
    out->cells.spare = true;
    return rc;
}

static int differs(const struct mailbox *b, const char *what, uint64_t is,
                   uint64_t asked)
{
    if (asked == 0 || asked == is)
        return SHD_OK;
    return error_set(SHD_MISMATCH,
                     "mailbox '%s' exists with %s %llu, not %llu",
                     b->object.name, what, (unsigned long long)is,
                     (unsigned long long)asked);
}

static int compare(const struct mailbox *b,
                   const struct shd_mailbox_options *o)
{
    const struct mailbox_header *h = b->header;
    int rc = differs(b, "capacity_bytes", h->capacity_bytes,
                     o->capacity_bytes);

    if (rc == SHD_OK)
        rc = differs(b, "message_bytes", h->message_bytes, o->message_bytes);
    if (rc == SHD_OK)
        rc = differs(b, "box_bytes", h->box_bytes, o->box_bytes);
    return rc;
}

int mailbox_open(const struct guard_env *env, const char *name,
                 const struct shd_mailbox_options *o, bool create,
                 struct mailbox *out)
{
    struct object_spec spec = {.kind = SHD_OBJECT_MAILBOX,
                               .guards = 1,
                               .places = 1,
                               .initialize = initialize};
    struct plan plan;
    int rc = SHD_OK;

    if (create) {
        rc = plan_make(env->segment, o, &plan);
        spec.size_bytes = plan.capacity;
        spec.own_commit = sizeof(struct mailbox_header) +
                          boxes_bytes(plan.boxes);
        spec.own_bytes = spec.own_commit + plan.cells * plan.cell_bytes;
        spec.context = &plan;
    }
    if (rc == SHD_OK)
        rc = object_open(env, name, SHD_OBJECT_MAILBOX, create ? &spec : NULL,
                         &out->object, NULL);
    if (rc == SHD_OK)
        rc = mailbox_view(&out->object, out);
    if (rc == SHD_OK && o != NULL)
        rc = compare(out, o);
    return rc;
}

/* ---- burying ----------------------------------------------------------- */

static int broken(const struct mailbox *b)
{
    return object_damaged(&b->object, "a list of messages leads to none");
}

/* Gone, with what it counts as. */
static int discard(const struct mailbox *b, struct mailbox_box *box,
                   struct message *m, bool withdrawn, struct mail_notice *n)
{
    struct txn t;
    int rc;

    mail_begin(b, &t, MAIL_GONE_WORDS);
    if (mail_state(m) == MAIL_POST || mail_state(m) == MAIL_REQUEST)
        mail_add64(&t, &b->header->unread, 1);
    if (withdrawn)
        mail_add64(&t, &b->header->withdrawn, 1);
    rc = mail_unlist(b, &t, box, m);
    if (rc == SHD_OK)
        rc = mail_drop(b, &t, m);
    n->room = true;
    return mail_end(&t, rc);
}

/* With the lock: one message of a box whose owner is gone. 1: done. */
static int bury_one(const struct mailbox *b, struct mailbox_box *box,
                    uint32_t ref, bool left, struct mail_notice *n)
{
    struct message *m = cells_at(&b->cells, ref);

    if (m == NULL)
        return broken(b);
    switch (mail_state(m)) {
    case MAIL_REQUEST:
    case MAIL_TAKEN:
        return mail_settle(b, box, m, MAIL_FAILED, n);
    case MAIL_ANSWERING:
        return left ? 1 : mail_settle(b, box, m, MAIL_FAILED, n);
    case MAIL_POST:
        return discard(b, box, m, false, n);
    default: /* read, or written, or an answer */
        return left ? 1 : discard(b, box, m, false, n);
    }
}

/* A list of a box, up to STEP_MAX messages of it; those that one that lives
 * works on stay. *more: there is more to do. */
static int bury_list(const struct mailbox *b, struct mailbox_box *box,
                     const struct message_list *l, bool left,
                     struct mail_notice *n, uint32_t *done)
{
    uint32_t ref = atomic_load32(&l->first);
    int rc = SHD_OK;

    for (uint32_t i = 0; ref != 0 && *done < STEP_MAX && rc == SHD_OK &&
                         i <= b->cells.count;
         i++) {
        const struct message *m = cells_at(&b->cells, ref);
        uint32_t after;

        if (m == NULL)
            return broken(b);
        after = atomic_load32(&m->after);
        rc = bury_one(b, box, ref, left, n);
        if (rc == SHD_OK)
            ++*done;
        else if (rc == 1)
            rc = SHD_OK;
        ref = after;
    }
    return rc;
}

/* Shut, and emptied, in steps. */
static int bury_box(const struct mailbox *b, struct mailbox_box *box,
                    uint64_t incarnation, bool left)
{
    uint32_t done = STEP_MAX;
    int rc = SHD_OK;

    while (rc == SHD_OK && done == STEP_MAX) {
        struct mail_notice n;
        struct txn t;

        done = 0;
        mail_notice_begin(&n);
        rc = object_lock(&b->object, 0);
        if (rc != SHD_OK)
            return rc;
        if (atomic_load64(&box->owner) == incarnation) {
            if (atomic_load32(&box->listening) != 0 && !left) {
                mail_begin(b, &t, 1);
                txn_store32(&t, &box->listening, 0);
                txn_commit(&t);
            }
            rc = bury_list(b, box, &box->inbox, left, &n, &done);
            if (rc == SHD_OK)
                rc = bury_list(b, box, &box->taken, left, &n, &done);
            if (rc == SHD_OK && !left)
                rc = bury_list(b, box, &box->answers, left, &n, &done);
        }
        mail_notice_unlock(b, &n);
    }
    return rc;
}

/* What `incarnation` has asked for, out of a list of another's box. */
static int withdraw_list(const struct mailbox *b, struct mailbox_box *box,
                         const struct message_list *l, uint64_t incarnation,
                         struct mail_notice *n, uint32_t *done)
{
    uint32_t ref = atomic_load32(&l->first);
    int rc = SHD_OK;

    for (uint32_t i = 0; ref != 0 && *done < STEP_MAX && rc == SHD_OK &&
                         i <= b->cells.count;
         i++) {
        struct message *m = cells_at(&b->cells, ref);
        struct txn t;

        if (m == NULL)
            return broken(b);
        ref = atomic_load32(&m->after);
        if (atomic_load64(&m->from) != incarnation)
            continue;
        if (mail_state(m) == MAIL_REQUEST || mail_state(m) == MAIL_TAKEN) {
            rc = discard(b, box, m, true, n);
            ++*done;
        } else if (mail_state(m) == MAIL_ANSWERING) {
            /* Who writes the answer frees it. */
            mail_begin(b, &t, 2);
            mail_add64(&t, &b->header->withdrawn, 1);
            txn_store64(&t, &m->from, 0);
            txn_commit(&t);
        }
    }
    return rc;
}

static int withdraw(const struct mailbox *b, uint64_t incarnation)
{
    int rc = SHD_OK;

    for (uint32_t i = 0; i < b->count && rc == SHD_OK; i++) {
        struct mailbox_box *box = &b->boxes[i];
        uint32_t done = STEP_MAX;

        while (rc == SHD_OK && done == STEP_MAX) {
            struct mail_notice n;

            done = 0;
            if (atomic_load64(&box->owner) == 0)
                break;
            mail_notice_begin(&n);
            rc = object_lock(&b->object, 0);
            if (rc != SHD_OK)
                return rc;
            rc = withdraw_list(b, box, &box->inbox, incarnation, &n, &done);
            if (rc == SHD_OK)
                rc = withdraw_list(b, box, &box->taken, incarnation, &n,
                                   &done);
            mail_notice_unlock(b, &n);
        }
    }
    return rc;
}

/* 1: not yet, something has come meanwhile. */
static int give_up_box(const struct mailbox *b, struct mailbox_box *box,
                       uint64_t incarnation)
{
    struct txn t;
    int rc = object_lock(&b->object, 0);

    if (rc != SHD_OK)
        return rc;
    if (atomic_load64(&box->owner) == incarnation) {
        if (atomic_load32(&box->n_inbox) + atomic_load32(&box->n_taken) +
                atomic_load32(&box->n_answers) >
            0) {
            rc = 1;
        } else {
            mail_begin(b, &t, 2);
            txn_store64(&t, &box->owner, 0);
            txn_store32(&t, &box->listening, 0);
            txn_commit(&t);
        }
    }
    object_unlock(&b->object, 0);
    return rc;
}

int mailbox_bury(const struct mailbox *b, uint64_t incarnation, bool left)
{
    struct mailbox_box *box = mailbox_box_of(b, incarnation);
    int rc = 1;

    if (box == NULL || atomic_load64(&box->owner) != incarnation)
        return SHD_OK;
    if (left)
        return bury_box(b, box, incarnation, true);
    for (int i = 0; i < ROUNDS_MAX && rc == 1; i++) {
        rc = bury_box(b, box, incarnation, false);
        if (rc == SHD_OK)
            rc = withdraw(b, incarnation);
        if (rc == SHD_OK)
            rc = give_up_box(b, box, incarnation);
    }
    return rc == 1 ? SHD_OK : rc;
}

int mailbox_bury_all(const struct mailbox *b)
{
    int rc = SHD_OK;

    for (uint32_t i = 0; i < b->count && rc == SHD_OK; i++) {
        uint64_t owner = atomic_load64(&b->boxes[i].owner);

        if (owner != 0 && registry_is_dead(b->object.env, owner))
            rc = mailbox_bury(b, owner, false);
    }
    return rc;
}

int mailbox_reap(const struct object *o)
{
    struct mailbox b;
    int rc = mailbox_view(o, &b);

    return rc == SHD_OK ? mailbox_bury_all(&b) : rc;
}

/* ---- checking ---------------------------------------------------------- */

#define STATE(s) (1u << (s))
#define INBOX (STATE(MAIL_POST) | STATE(MAIL_REQUEST))
#define TAKEN                                                                \
    (STATE(MAIL_TAKEN) | STATE(MAIL_READING) | STATE(MAIL_WRITING) |         \
     STATE(MAIL_ANSWERING))
#define ANSWERS                                                              \
    (STATE(MAIL_ANSWERED) | STATE(MAIL_FAILED) | STATE(MAIL_DECLINED))

struct tally {
    uint64_t inboxes, pending, cells;
};

/* Each of a list that is sound: is it its box's? */
static int check_messages(const struct mailbox *b, struct cells_check *k,
                          const struct mailbox_box *box,
                          const struct message_list *l, bool asker,
                          struct tally *sum)
{
    for (uint32_t ref = l->first; ref != 0;) {
        const struct message *m = cells_at(&b->cells, ref);
        uint32_t state;

        if (m == NULL)
            return cells_check_failed(k, m, "is no message");
        state = mail_state(m);
        if ((asker ? m->from : m->holder) != box->owner)
            return cells_check_failed(k, m, "is in the box of another");
        if (m->lease == 0 || m->lease > b->header->leases ||
            m->id > b->header->ids)
            return cells_check_failed(k, m, "its number was never given");
        sum->pending += state == MAIL_REQUEST || state == MAIL_TAKEN ||
                        (state == MAIL_ANSWERING && m->from != 0);
        sum->cells += m->cells;
        ref = m->after;
    }
    return SHD_OK;
}

static int check_box(const struct mailbox *b, struct cells_check *k,
                     const struct mailbox_box *box, struct tally *sum)
{
    uint64_t before;
    int rc;

    if (box->owner == 0 && (box->n_inbox | box->n_taken | box->n_answers |
                            box->listening) != 0)
        return cells_check_failed(k, NULL, "nobody's box is not empty");
    if (box->owner != 0 && mailbox_box_of(b, box->owner) != box)
        return cells_check_failed(k, NULL, "a box has the owner of another");
    rc = cells_check_list(k, &box->inbox, box->n_inbox, INBOX, "inbox");
    if (rc == SHD_OK)
        rc = cells_check_list(k, &box->taken, box->n_taken, TAKEN, "taken");
    if (rc == SHD_OK)
        rc = cells_check_list(k, &box->answers, box->n_answers, ANSWERS,
                              "answers");
    before = sum->cells;
    if (rc == SHD_OK)
        rc = check_messages(b, k, box, &box->inbox, false, sum);
    if (rc == SHD_OK && sum->cells - before != box->cells)
        rc = cells_check_failed(k, NULL, "the number of cells in an inbox is "
                                         "wrong");
    if (rc == SHD_OK)
        rc = check_messages(b, k, box, &box->taken, false, sum);
    if (rc == SHD_OK)
        rc = check_messages(b, k, box, &box->answers, true, sum);
    sum->inboxes += box->n_inbox;
    return rc;
}

static int check_sums(const struct mailbox *b, struct cells_check *k,
                      const struct tally *sum)
{
    const struct mailbox_header *h = b->header;

    if (k->bytes != h->bytes)
        return cells_check_failed(k, NULL, "the number of bytes is wrong");
    if (h->sent != h->received + h->unread + sum->inboxes)
        return cells_check_failed(k, NULL, "what was sent is not what was "
                                           "received and what is there");
    if (h->requests != h->answered + h->declined + h->failed + h->withdrawn +
                           sum->pending)
        return cells_check_failed(k, NULL, "the requests are not those that "
                                           "ended and those that wait");
    return SHD_OK;
}

int mailbox_check(const struct object *o, char *report, size_t size)
{
    struct tally sum = {0, 0, 0};
    struct cells_check k;
    struct mailbox b;
    int rc = mailbox_view(o, &b);

    if (rc == SHD_OK)
        rc = cells_check_begin(&k, &b.cells, report, size);
    if (rc != SHD_OK)
        return rc;
    for (uint32_t i = 0; i < b.count && rc == SHD_OK; i++)
        rc = check_box(&b, &k, &b.boxes[i], &sum);
    if (rc == SHD_OK)
        rc = check_sums(&b, &k, &sum);
    return cells_check_end(&k, rc);
}
