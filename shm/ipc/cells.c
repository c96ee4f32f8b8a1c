/* SPDX-License-Identifier: BSD-2-Clause */
/*
 *   cells:  | used | free | used | free | free | fresh ........... |
 *                     ^------- free list ----^     fresh counts from here
 *
 * The chaining word of a free cell must not change before the transaction that
 * takes it has it in its log; all else in it may. Where the free cells are too
 * few the chain goes on into fresh ones, which nobody can reach: the last free
 * cell's word that leads there is the run's joint.
 */
#include "shm/ipc/cells.h"
#include "shm/base/error.h"
#include "shm/memory/cell.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMIT_BYTES (1ull << 20) /* taken from the system at once */

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

uint64_t cells_bytes(uint64_t message_bytes)
{
    return round_up(sizeof(struct message) + message_bytes, 64);
}

void cells_initialize(const struct object *o, struct cells_header *h,
                      uint64_t own_at, uint64_t cell_bytes, uint32_t count)
{
    h->cell_bytes = cell_bytes;
    h->cells_at = o->own_at + own_at;
    h->count = count;
}

int cells_view(const struct object *o, struct cells_header *h,
               struct cells *out)
{
    uint64_t end = o->own_at + o->own_bytes;

    memset(out, 0, sizeof(*out));
    out->segment = o->env->segment;
    out->kind = o->kind;
    memcpy(out->name, o->name, sizeof(out->name));
    out->header = h;
    out->bytes = h->cell_bytes;
    out->at = h->cells_at;
    if (out->bytes % 64 != 0 || out->bytes <= sizeof(struct message) ||
        out->at % 64 != 0 || out->at < o->own_at || out->at > end ||
        h->count == 0 || h->count > UINT32_MAX - 1 ||
        h->count > (end - out->at) / out->bytes)
        return object_damaged(o, "its cells lie outside it");
    out->count = (uint32_t)h->count;
    out->inverse = UINT64_MAX / (out->bytes / 64) + 1;
    out->timed.links_at = offsetof(struct message, left);
    out->timed.colour_at = offsetof(struct message, state);
    out->timed.colour_mask = MESSAGE_RED;
    out->timed.node_bytes = sizeof(struct message);
    out->timed.first = out->at;
    out->timed.end = out->at + out->count * out->bytes;
    return SHD_OK;
}

uint64_t cells_of(const struct cells *c, uint64_t len)
{
    uint64_t first = cells_first_room(c), more = cells_more_room(c);

    return len <= first ? 1 : 1 + (len - first + more - 1) / more;
}

/* A cell by its number, fresh ones too. */
static struct message *cell_number(const struct cells *c, uint64_t n)
{
    return (struct message *)(void *)(c->segment->base + c->at +
                                      n * c->bytes);
}

static int damaged(const struct cells *c, const char *what)
{
    return error_set(SHD_CORRUPT, "%s '%s': %s", object_kind_name(c->kind),
                     c->name, what);
}

static int broken(const struct cells *c)
{
    return damaged(c, "a link leads to no message");
}

/* Where a link of a run leads, to a fresh one perhaps; NULL: the link has been
 * damaged since the run was found. */
static struct message *cell_of_run(const struct cells *c, uint32_t ref)
{
    uint64_t inside = (uint64_t)ref * SEGMENT_UNIT - c->at;

    if (inside >= c->count * c->bytes || inside % 64 != 0 ||
        inside / 64 * c->inverse >= c->inverse)
        return NULL;
    return cells_of_ref(c, ref);
}

/* ---- taking and giving back -------------------------------------------- */

/* Memory for the cells up to number `end`. */
static int commit(const struct cells *c, uint64_t end)
{
    const struct segment *s = c->segment;
    uint64_t have = atomic_load64(&c->header->committed);
    uint64_t more = (COMMIT_BYTES + c->bytes - 1) / c->bytes;
    uint64_t to = have + more > end ? have + more : end;
    int rc;

    if (end <= have)
        return SHD_OK;
    if (to > c->count)
        to = c->count;
    rc = segment_commit(s, c->at + have * c->bytes, (to - have) * c->bytes);
    if (rc != SHD_OK && to > end) {
        to = end;
        rc = segment_commit(s, c->at + have * c->bytes,
                            (to - have) * c->bytes);
    }
    if (rc == SHD_OK)
        atomic_store64(&c->header->committed, to);
    return rc;
}

/* The rest of the run comes from the fresh ones. */
static int find_fresh(const struct cells *c, uint32_t want,
                      struct cells_run *run)
{
    uint64_t fresh = atomic_load64(&c->header->fresh);
    uint64_t end = fresh + want;
    int rc;

    if (fresh > c->count)
        return damaged(c, "more cells have been handed out than there are");
    if (end > c->count)
        return SHD_FULL;
    rc = commit(c, end);
    if (rc != SHD_OK)
        return rc;
    for (uint64_t i = fresh; i + 1 < end; i++)
        atomic_store32(&cell_number(c, i)->next,
                       cells_ref(c, cell_number(c, i + 1)));
    if (run->first == 0) {
        run->first = cells_ref(c, cell_number(c, fresh));
    } else {
        run->joint = run->last;
        run->joint_to = cells_ref(c, cell_number(c, fresh));
    }
    run->last = cells_ref(c, cell_number(c, end - 1));
    run->fresh_after = end;
    return SHD_OK;
}

int cells_find_cells(const struct cells *c, uint64_t n, struct cells_run *run)
{
    uint32_t ref = atomic_load32(&c->header->free), found = 0;

    if (n > cells_left(c))
        return SHD_FULL;
    memset(run, 0, sizeof(*run));
    run->n = (uint32_t)n;
    run->fresh_after = atomic_load64(&c->header->fresh);
    for (; found < n && ref != 0; found++) {
        const struct message *m = cells_at(c, ref);

        if (m == NULL)
            return broken(c);
        if (found == 0)
            run->first = ref;
        run->last = ref;
        ref = atomic_load32(&m->next);
    }
    run->free_after = ref;
    return found == n ? SHD_OK : find_fresh(c, run->n - found, run);
}

/* The cell after *ref, which it becomes, of a run that is not a message yet.
 * NULL, and *ref stays: as cell_of_run; who reads the message finds that it
 * has no end. */
static struct message *run_next(const struct cells *c,
                                const struct cells_run *run, uint32_t *ref)
{
    uint32_t next = run->joint != 0 && *ref == run->joint
                        ? run->joint_to
                        : atomic_load32(&cells_of_ref(c, *ref)->next);
    struct message *m = cell_of_run(c, next);

    if (m != NULL)
        *ref = next;
    return m;
}

/* The message that begins at *ref, which becomes its last cell. */
static struct message *fill(const struct cells *c, const struct cells_run *run,
                            uint32_t *ref, const void *data, uint64_t len)
{
    const unsigned char *from = data;
    struct message *first = cells_of_ref(c, *ref), *m;
    uint64_t room = cells_first_room(c);
    uint64_t n = len < room ? len : room;

    cell_fill(first + 1, from, n);
    while (len > n) {
        from += n;
        len -= n;
        n = len < cells_more_room(c) ? len : cells_more_room(c);
        m = run_next(c, run, ref);
        if (m == NULL)
            break;
        atomic_store32(&m->last, CELLS_CONTINUED);
        cell_fill((unsigned char *)m + CELLS_MORE_BYTES, from, n);
    }
    return first;
}

void cells_fill(const struct cells *c, const struct cells_run *run,
                const void *data, uint64_t len)
{
    uint32_t ref = run->first;

    (void)fill(c, run, &ref, data, len);
}

struct message *cells_fill_message(const struct cells *c,
                                   const struct cells_run *run, uint32_t *ref,
                                   const void *data, uint64_t len)
{
    struct message *m = cells_of_ref(c, *ref);
    uint64_t cells = 1;

    if (len <= cells_first_room(c)) {
        cell_fill(m + 1, data, len);
    } else {
        (void)fill(c, run, ref, data, len);
        cells = cells_of(c, len);
    }
    atomic_store32(&m->last, *ref);
    atomic_store64((uint64_t *)(void *)&m->cells, len << 32 | cells);
    if (*ref != run->last)
        (void)run_next(c, run, ref);
    return m;
}

/* The marks of a run's cells, where nothing is filled in. */
static void mark(const struct cells *c, const struct cells_run *run)
{
    uint32_t ref = run->first;

    for (uint32_t i = 1; i < run->n; i++) {
        struct message *m = run_next(c, run, &ref);

        if (m == NULL)
            return;
        atomic_store32(&m->last, CELLS_CONTINUED);
    }
}

static void heads_store(const struct cells *c, struct txn *t, uint32_t free,
                        uint32_t used)
{
    txn_store64(t, (uint64_t *)(void *)&c->header->free,
                (uint64_t)used << 32 | free);
}

struct message *cells_take(const struct cells *c, struct txn *t,
                           const struct cells_run *run, uint64_t len)
{
    struct message *m = cells_of_ref(c, run->first);
    uint64_t *word = (uint64_t *)(void *)m;

    cells_take_run(c, t, run);
    if (run->n > 1)
        mark(c, run);
    /* All but `next`: it is still the free list's if this is undone. */
    atomic_store32(&m->last, run->last);
    for (size_t i = 1; i < sizeof(*m) / 8; i++)
        atomic_store64(&word[i], 0);
    atomic_store32(&m->cells, run->n);
    atomic_store32(&m->len, (uint32_t)len);
    return m;
}

int cells_extend(const struct cells *c, struct txn *t, struct message *m,
                 const struct cells_run *run)
{
    struct message *last = cells_at(c, atomic_load32(&m->last));

    if (last == NULL)
        return broken(c);
    cells_take_run(c, t, run);
    atomic_store32(&cells_of_ref(c, run->first)->last, CELLS_CONTINUED);
    mark(c, run);
    txn_store32(t, &last->next, run->first);
    txn_store32(t, &m->last, run->last);
    txn_store32(t, &m->cells, atomic_load32(&m->cells) + run->n);
    return SHD_OK;
}

int cells_give(const struct cells *c, struct txn *t, struct message *m)
{
    struct message *last = cells_at(c, atomic_load32(&m->last));
    uint32_t used = atomic_load32(&c->header->used);
    uint32_t n = atomic_load32(&m->cells);

    if (last == NULL || n == 0 || n > used)
        return broken(c);
    txn_store32(t, &last->next, atomic_load32(&c->header->free));
    txn_store32(t, &m->state, 0);
    heads_store(c, t, cells_ref(c, m), used - n);
    return SHD_OK;
}

/* ---- bytes ------------------------------------------------------------- */

/* Where bytes from `from` on lie: the cell's bytes, and how many of them. */
static unsigned char *seek(const struct cells *c, const struct message *m,
                           uint64_t *from, uint32_t *ref, uint64_t *room)
{
    unsigned char *bytes = (unsigned char *)(uintptr_t)(m + 1);

    *ref = atomic_load32(&m->next);
    *room = cells_first_room(c);
    /* Each turn takes a cell's bytes off, so it ends. */
    while (*from >= *room) {
        const struct message *next = cells_at(c, *ref);

        if (next == NULL || atomic_load32(&next->last) != CELLS_CONTINUED)
            return NULL;
        *from -= *room;
        *room = cells_more_room(c);
        bytes = (unsigned char *)(uintptr_t)next + CELLS_MORE_BYTES;
        *ref = atomic_load32(&next->next);
    }
    return bytes;
}

int cells_read(const struct cells *c, const struct message *m, uint64_t from,
               void *to, uint64_t len)
{
    unsigned char *out = to;
    uint32_t ref;
    uint64_t room;
    const unsigned char *bytes;

    if (len == 0)
        return SHD_OK;
    if (from == 0 && len <= cells_first_room(c)) {
        cell_copy_out(out, m + 1, len);
        return SHD_OK;
    }
    bytes = seek(c, m, &from, &ref, &room);
    while (bytes != NULL) {
        uint64_t n = room - from < len ? room - from : len;
        const struct message *next;

        /* Cells and words are aligned; only a first piece may not be. */
        if (from % 8 == 0) {
            cell_copy_out(out, bytes + from, n);
        } else {
            for (uint64_t i = 0; i < n; i++)
                out[i] = atomic_load8(bytes + from + i);
        }
        out += n;
        len -= n;
        if (len == 0)
            return SHD_OK;
        from = 0;
        room = cells_more_room(c);
        next = cells_at(c, ref);
        if (next == NULL || atomic_load32(&next->last) != CELLS_CONTINUED)
            break;
        bytes = (const unsigned char *)next + CELLS_MORE_BYTES;
        ref = atomic_load32(&next->next);
    }
    return broken(c);
}

int cells_write(const struct cells *c, struct message *m, uint64_t from,
                const void *data, uint64_t len)
{
    const unsigned char *in = data;
    uint32_t ref;
    uint64_t room;
    unsigned char *bytes;

    if (len == 0)
        return SHD_OK;
    bytes = seek(c, m, &from, &ref, &room);
    while (bytes != NULL) {
        uint64_t n = room - from < len ? room - from : len;
        struct message *next;

        for (uint64_t i = 0; i < n; i++)
            atomic_store8(bytes + from + i, in[i]);
        in += n;
        len -= n;
        if (len == 0)
            return SHD_OK;
        from = 0;
        room = cells_more_room(c);
        next = cells_at(c, ref);
        if (next == NULL || atomic_load32(&next->last) != CELLS_CONTINUED)
            break;
        bytes = (unsigned char *)next + CELLS_MORE_BYTES;
        ref = atomic_load32(&next->next);
    }
    return broken(c);
}

/* ---- lists ------------------------------------------------------------- */

static void ends_store(struct txn *t, struct message_list *l, uint32_t first,
                       uint32_t last)
{
    txn_store64(t, (uint64_t *)(void *)l, (uint64_t)last << 32 | first);
}

static void links_store(struct txn *t, struct message *m, uint32_t prev,
                        uint32_t after)
{
    txn_store64(t, (uint64_t *)(void *)&m->prev, (uint64_t)after << 32 | prev);
}

int message_append(const struct cells *c, struct txn *t,
                   struct message_list *l, struct message *m)
{
    uint32_t first = atomic_load32(&l->first);
    uint32_t last = atomic_load32(&l->last), ref = cells_ref(c, m);

    links_store(t, m, last, 0);
    if (last != 0) {
        struct message *old = cells_at(c, last);

        if (old == NULL)
            return broken(c);
        txn_store32(t, &old->after, ref);
    }
    ends_store(t, l, last == 0 ? ref : first, ref);
    return SHD_OK;
}

int message_prepend(const struct cells *c, struct txn *t,
                    struct message_list *l, struct message *m)
{
    uint32_t first = atomic_load32(&l->first);
    uint32_t last = atomic_load32(&l->last), ref = cells_ref(c, m);

    links_store(t, m, 0, first);
    if (first != 0) {
        struct message *old = cells_at(c, first);

        if (old == NULL)
            return broken(c);
        txn_store32(t, &old->prev, ref);
    }
    ends_store(t, l, ref, first == 0 ? ref : last);
    return SHD_OK;
}

int message_remove(const struct cells *c, struct txn *t,
                   struct message_list *l, struct message *m)
{
    uint32_t first = atomic_load32(&l->first);
    uint32_t last = atomic_load32(&l->last), ref = cells_ref(c, m);
    uint32_t prev = atomic_load32(&m->prev), after = atomic_load32(&m->after);
    struct message *before = cells_at(c, prev), *behind = cells_at(c, after);

    if ((prev == 0) != (first == ref) || (after == 0) != (last == ref) ||
        (prev != 0 && before == NULL) || (after != 0 && behind == NULL))
        return broken(c);
    if (before != NULL)
        txn_store32(t, &before->after, after);
    if (behind != NULL)
        txn_store32(t, &behind->prev, prev);
    if (prev == 0 || after == 0)
        ends_store(t, l, prev == 0 ? after : first,
                   after == 0 ? prev : last);
    return SHD_OK;
}

/* ---- by time ----------------------------------------------------------- */

struct time_key {
    uint64_t when, id;
};

static int time_order(const void *context, const unsigned char *node)
{
    const struct time_key *k = context;
    const struct message *m = (const struct message *)(const void *)node;
    uint64_t when = atomic_load64(&m->when), id = atomic_load64(&m->id);

    if (k->when != when)
        return k->when < when ? -1 : 1;
    return k->id == id ? 0 : k->id < id ? -1 : 1;
}

static int time_compare(const void *context, const unsigned char *a,
                        const unsigned char *b)
{
    const struct message *m = (const struct message *)(const void *)a;
    struct time_key k = {atomic_load64(&m->when), atomic_load64(&m->id)};

    (void)context;
    return time_order(&k, b);
}

int message_time(const struct cells *c, struct txn *t, uint32_t *root,
                 struct message *m)
{
    struct time_key k = {atomic_load64(&m->when), atomic_load64(&m->id)};
    struct tree_path path;
    int rc = tree_find(c->segment, &c->timed,
                       atomic_load32(root), time_order, &k, &path);

    if (rc == 1)
        return damaged(c, "two messages have one number");
    return rc != 0 ? rc : tree_insert(t, &c->timed, root, &path,
                                      cells_ref(c, m));
}

int message_untime(const struct cells *c, struct txn *t, uint32_t *root,
                   struct message *m)
{
    struct time_key k = {atomic_load64(&m->when), atomic_load64(&m->id)};
    struct tree_path path;
    int rc = tree_find(c->segment, &c->timed,
                       atomic_load32(root), time_order, &k, &path);

    if (rc == 0 || (rc == 1 && path.ref[path.depth - 1] != cells_ref(c, m)))
        return damaged(c, "a message is not in the tree of "
                                         "times");
    return rc != 1 ? rc : tree_remove(t, &c->timed, root, &path);
}

struct message *message_first(const struct cells *c, uint32_t root)
{
    struct tree_path path;

    if (root == 0 || tree_first(c->segment, &c->timed, root,
                                &path) != 1)
        return NULL;
    return cells_at(c, path.ref[path.depth - 1]);
}

/* ---- checking ---------------------------------------------------------- */

int cells_check_failed(struct cells_check *k, const struct message *m,
                       const char *what)
{
    const struct cells *c = k->cells;
    uint64_t at = m == NULL ? c->at : segment_offset(c->segment, m);

    snprintf(k->report, k->size, "%s '%s': cell %llu: %s",
             object_kind_name(c->kind), c->name,
             (unsigned long long)((at - c->at) / c->bytes), what);
    return SHD_CORRUPT;
}

int cells_check_begin(struct cells_check *k, const struct cells *c,
                      char *report, size_t size)
{
    memset(k, 0, sizeof(*k));
    k->cells = c;
    k->report = report;
    k->size = size;
    if (atomic_load64(&c->header->fresh) > c->count ||
        atomic_load64(&c->header->committed) > c->count ||
        atomic_load64(&c->header->fresh) >
            atomic_load64(&c->header->committed))
        return cells_check_failed(k, NULL, "more cells than there are");
    k->seen = calloc(c->count, 1);
    return k->seen != NULL ? SHD_OK
                           : error_set(SHD_NOMEM, "this process has no memory");
}

/* Marks a cell; NULL: it is none, or has been seen. */
static const struct message *see(struct cells_check *k, uint32_t ref)
{
    const struct message *m = cells_at(k->cells, ref);
    uint64_t n;

    if (m == NULL)
        return NULL;
    n = ((uint64_t)ref * SEGMENT_UNIT - k->cells->at) / k->cells->bytes;
    if (k->seen[n] != 0)
        return NULL;
    k->seen[n] = 1;
    return m;
}

int cells_check_message(struct cells_check *k, const struct message *m)
{
    uint32_t ref = cells_ref(k->cells, m), n = atomic_load32(&m->cells);
    uint64_t need = cells_of(k->cells, atomic_load32(&m->len));
    const struct message *cell = see(k, ref);

    if (cell == NULL)
        return cells_check_failed(k, m, "is in two places");
    if (n < need || (n > need && !k->cells->spare))
        return cells_check_failed(k, m, "its length and its cells differ");
    for (uint32_t i = 1; i < n; i++) {
        ref = atomic_load32(&cell->next);
        cell = see(k, ref);
        if (cell == NULL || atomic_load32(&cell->last) != CELLS_CONTINUED)
            return cells_check_failed(k, m, "its chain leads to a cell that "
                                            "is not its own");
    }
    if (atomic_load32(&m->last) != ref)
        return cells_check_failed(k, m, "its last cell is another");
    k->used += n;
    k->bytes += atomic_load32(&m->len);
    return SHD_OK;
}

int cells_check_list(struct cells_check *k, const struct message_list *l,
                     uint64_t count, uint32_t states, const char *name)
{
    uint32_t prev = 0, ref = atomic_load32(&l->first);
    uint64_t seen = 0;
    char what[80];

    while (ref != 0 && seen <= count) {
        const struct message *m = cells_at(k->cells, ref);
        uint32_t state;
        int rc;

        if (m == NULL || atomic_load32(&m->prev) != prev)
            break;
        state = atomic_load32(&m->state) & ~MESSAGE_RED;
        if (state > 31 || (states >> state & 1) == 0) {
            snprintf(what, sizeof(what), "its state is not one of the %s",
                     name);
            return cells_check_failed(k, m, what);
        }
        rc = cells_check_message(k, m);
        if (rc != SHD_OK)
            return rc;
        seen++;
        prev = ref;
        ref = atomic_load32(&m->after);
    }
    if (ref == 0 && seen == count && atomic_load32(&l->last) == prev)
        return SHD_OK;
    snprintf(what, sizeof(what), "the list of the %s is broken, or has "
                                 "another length",
             name);
    return cells_check_failed(k, prev == 0 ? NULL : cells_at(k->cells, prev),
                              what);
}

int cells_check_tree(struct cells_check *k, uint32_t root, uint64_t *nodes)
{
    return tree_check(k->cells->segment, &k->cells->timed, root,
                      time_compare, NULL, nodes, k->report, k->size);
}

static int check_free(struct cells_check *k)
{
    uint32_t ref = atomic_load32(&k->cells->header->free);
    uint64_t n = 0;

    while (ref != 0) {
        const struct message *m = see(k, ref);

        if (m == NULL)
            return cells_check_failed(k, cells_at(k->cells, ref),
                                      "is free, and elsewhere");
        n++;
        ref = atomic_load32(&m->next);
    }
    if (k->used != atomic_load32(&k->cells->header->used))
        return cells_check_failed(k, NULL, "the number of cells in messages "
                                           "is wrong");
    if (n + k->used != atomic_load64(&k->cells->header->fresh))
        return cells_check_failed(k, NULL, "cells are lost");
    return SHD_OK;
}

int cells_check_end(struct cells_check *k, int rc)
{
    if (rc == SHD_OK)
        rc = check_free(k);
    free(k->seen);
    return rc;
}
