/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Elements of lists on a lease, and from list to list. Beside the map there is
 * an array of what is leased: an element, and which list it is of. That is
 * lost when the list is no longer that one: deleted, expired and gone,
 * evicted, stored over.
 */
#include "tests/model/world.h"

#include <string.h>

#define ROUNDING 64u /* bytes of a lease's cell */

static bool has_element(const struct naive_entry *e)
{
    return naive_is_live(e, now()) && e->type == SHD_LIST && e->list_len > 0;
}

static struct naive_value end_of(const struct naive_entry *e, bool left)
{
    return has_element(e) ? e->list[left ? 0 : e->list_len - 1]
                          : (struct naive_value){0};
}

/* Did the buffer not do? Then nothing has changed. */
static bool was_small(struct world *w, uint32_t k, int rc,
                      const struct naive_value *n, size_t size,
                      const struct shd_value *v)
{
    if (n->type != SHD_STRING || n->len <= size)
        return false;
    expect(w, rc, SHD_SPACE);
    if (v->len != n->len)
        fail(w, "needs %zu bytes, and says %" PRIu64, n->len, v->len);
    w->no_space++;
    compare(w, k);
    return true;
}

static void op_ltake(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    struct model_lease *l = &w->lease[w->leases];
    bool left = one_in(w, 2);
    size_t size = some_buffer_size(w);
    struct naive_value n;
    struct shd_value v;
    int rc;

    learn(w, k);
    n = end_of(e, left);
    canary_set(w, size);
    rc = shd_ltake(w->dict, left, w->keys[k].bytes, w->keys[k].len, w->buffer,
                   size, &v, &l->number);
    canary_check(w, size);
    if (was_small(w, k, rc, &n, size, &v))
        return;
    if (rc == SHD_NOMEM) {
        /* As long as what a lease takes. */
        struct naive_value as_long = {
            .type = SHD_STRING, .bytes = w->pool, .len = ROUNDING - 32};

        check_no_element(w, k, &as_long);
        compare(w, k);
        return;
    }
    l->k = k;
    l->left = left;
    expect(w, rc, naive_take(e, now(), left, &l->value, &l->list));
    if (rc != SHD_OK)
        return;
    w->leases++;
    check_value(w, &l->value, &v, w->buffer);
    e->changed_since = true;
}

/* One of those that are leased is done, or goes back. */
static void op_lease_end(struct world *w)
{
    uint32_t i = (uint32_t)below(w, w->leases);
    struct model_lease l = w->lease[i];
    struct naive_entry *e = entry(w, l.k);
    bool done = one_in(w, 2);
    int rc;

    w->key = l.k;
    w->keys[l.k].disturbed = true;
    w->lease[i] = w->lease[--w->leases];
    learn(w, l.k);
    rc = done ? shd_lack(w->dict, l.number) : shd_lnack(w->dict, l.number);
    expect(w, rc,
           done ? naive_done(e, l.list)
                : naive_back(e, l.list, l.left, &l.value));
    expect(w,
           done ? shd_lnack(w->dict, l.number) : shd_lack(w->dict, l.number),
           SHD_LOST);
    e->changed_since = true;
    if (!e->stored)
        learn(w, l.k);
    else
        compare(w, l.k);
}

static int naive_move(struct naive_entry *from, struct naive_entry *to,
                      bool left, bool to_left)
{
    struct naive_value v;
    uint64_t length;
    int rc;

    if (!has_element(from))
        return naive_pop(from, now(), left, &v);
    if (naive_is_live(to, now()) && to->type != SHD_LIST)
        return SHD_NOTLIST;
    if (from == to && from->list_len == 1)
        return SHD_OK;
    rc = naive_pop(from, now(), left, &v);
    return rc == SHD_OK ? naive_push(to, now(), to_left, &v, &length) : rc;
}

static void op_lmove(struct world *w, uint32_t k)
{
    uint32_t other = one_in(w, 8) ? k : random_key(w, true);
    struct naive_entry *from = entry(w, k), *to = entry(w, other);
    bool left = one_in(w, 2), to_left = one_in(w, 2);
    size_t size = some_buffer_size(w);
    struct naive_value n;
    struct shd_value v;
    int rc;

    w->keys[other].disturbed = true;
    learn(w, k);
    learn(w, other);
    n = end_of(from, left);
    canary_set(w, size);
    rc = shd_lmove(w->dict, left, w->keys[k].bytes, w->keys[k].len, to_left,
                   w->keys[other].bytes, w->keys[other].len, w->buffer, size,
                   &v);
    canary_check(w, size);
    if (was_small(w, k, rc, &n, size, &v))
        return;
    if (rc == SHD_NOMEM) {
        w->nomem++;
        if (!w->config->evicts)
            fail(w, "no memory though there is room");
        compare(w, k);
        compare(w, other);
        return;
    }
    expect(w, rc, naive_move(from, to, left, to_left));
    if (rc != SHD_OK)
        return;
    check_value(w, &n, &v, w->buffer);
    refresh(w);
    saw(w, to);
    from->changed_since = to->changed_since = true;
    if (!from->stored)
        learn(w, k);
    compare(w, other);
}

void lease_op(struct world *w, uint32_t k)
{
    /* A fuzzer's operations are of several workers, and these of one. */
    if (w->data != NULL) {
        w->doing = "lmove";
        op_lmove(w, k);
    } else if (w->leases > 0 && (w->leases == LEASES_MAX || one_in(w, 3))) {
        w->doing = "end of a lease";
        op_lease_end(w);
    } else if (one_in(w, 2)) {
        w->doing = "ltake";
        op_ltake(w, k);
    } else {
        w->doing = "lmove";
        op_lmove(w, k);
    }
}
