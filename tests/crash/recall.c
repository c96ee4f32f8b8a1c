/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A node is a run of words with their values, all of which must be there; then
 * it is known what the recovery does (a leaf), or one more word is read, and
 * its value tells which node comes next:
 *
 *   node 1   word 7 is 3, word 9 is 0, word 1 is ?
 *              5: node 2   word 8 is 1, leaf
 *              6: node 3   leaf
 */
#include "tests/crash/recall.h"

#include <stdlib.h>
#include <string.h>

/* Beyond that all is forgotten, and learnt anew. */
#define BYTES_MAX (768ull << 20)

struct node {
    uint64_t first; /* entry */
    uint32_t count;
    uint32_t leaf;   /* + 1; 0: it goes on by */
    uint32_t branch; /* this word */
    uint32_t parent; /* node; 0: a root */
};

struct child {
    uint64_t value;
    uint32_t parent; /* 0: nothing */
    uint32_t node;
};

struct leaf {
    uint64_t first; /* store */
    uint64_t found[2];
    uint32_t count;
    uint32_t node;
    uint32_t mark; /* the last */
};

struct pool {
    void *item;
    uint64_t count, room;
    size_t bytes; /* of an item */
};

struct recall {
    struct pool nodes, entries, leaves, stores; /* node 0 is none */
    struct child *child;
    uint64_t children, child_room;
    uint32_t forgotten; /* times */
    uint32_t root[RECALL_KINDS];
};

/* ---- pools ---------------- */

/* Room for n items behind the last; NULL: no memory. */
static void *pool_add(struct pool *p, uint64_t n)
{
    void *at;

    if (p->count + n > p->room) {
        uint64_t room = (p->count + n) * 2;
        void *larger = realloc(p->item, room * p->bytes);

        if (larger == NULL)
            return NULL;
        p->item = larger;
        p->room = room;
    }
    at = (char *)p->item + p->count * p->bytes;
    p->count += n;
    return at;
}

static struct node *node_at(const struct recall *m, uint32_t n)
{
    return &((struct node *)m->nodes.item)[n];
}

static const struct read *entries_of(const struct recall *m,
                                     const struct node *n)
{
    return &((const struct read *)m->entries.item)[n->first];
}

struct recall *recall_new(void)
{
    struct recall *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->nodes.bytes = sizeof(struct node);
    m->entries.bytes = sizeof(struct read);
    m->leaves.bytes = sizeof(struct leaf);
    m->stores.bytes = sizeof(struct recall_store);
    m->child_room = 1024;
    m->child = calloc(m->child_room, sizeof(*m->child));
    if (m->child == NULL || pool_add(&m->nodes, 1) == NULL) {
        recall_free(m);
        return NULL;
    }
    return m;
}

void recall_free(struct recall *m)
{
    if (m == NULL)
        return;
    free(m->nodes.item);
    free(m->entries.item);
    free(m->leaves.item);
    free(m->stores.item);
    free(m->child);
    free(m);
}

static bool is_full(const struct recall *m)
{
    return m->nodes.count * m->nodes.bytes +
               m->entries.count * m->entries.bytes +
               m->leaves.count * m->leaves.bytes +
               m->stores.count * m->stores.bytes +
               m->children * 2 * sizeof(*m->child) >
           BYTES_MAX;
}

static void forget(struct recall *m)
{
    m->forgotten++;
    m->nodes.count = 1;
    m->entries.count = m->leaves.count = m->stores.count = 0;
    memset(m->child, 0, m->child_room * sizeof(*m->child));
    m->children = 0;
    memset(m->root, 0, sizeof(m->root));
}

/* ---- which node comes next ---------------- */

static struct child *slot_of(struct child *table, uint64_t room,
                             uint32_t parent, uint64_t value)
{
    uint64_t h =
        (value ^ parent * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
    uint64_t i = (h ^ h >> 32) & (room - 1);

    while (table[i].parent != 0 &&
           (table[i].parent != parent || table[i].value != value))
        i = (i + 1) & (room - 1);
    return &table[i];
}

static struct child *child_of(const struct recall *m, uint32_t parent,
                              uint64_t value)
{
    return slot_of(m->child, m->child_room, parent, value);
}

static bool make_room(struct recall *m)
{
    uint64_t room = m->child_room * 2;
    struct child *larger;

    if (m->children * 2 < m->child_room)
        return true;
    larger = calloc(room, sizeof(*larger));
    if (larger == NULL)
        return false;
    for (uint64_t i = 0; i < m->child_room; i++) {
        if (m->child[i].parent != 0)
            *slot_of(larger, room, m->child[i].parent, m->child[i].value) =
                m->child[i];
    }
    free(m->child);
    m->child = larger;
    m->child_room = room;
    return true;
}

static bool adopt(struct recall *m, uint32_t parent, uint64_t value,
                  uint32_t node)
{
    struct child *c;

    if (node == 0 || !make_room(m))
        return false;
    c = child_of(m, parent, value);
    m->children += c->parent == 0;
    *c = (struct child){.value = value, .parent = parent, .node = node};
    return true;
}

bool recall_find(const struct recall *m, uint32_t kind, struct recalled *out)
{
    const uint64_t *words = trace_at(0);
    uint32_t n = m->root[kind];

    while (n != 0) {
        const struct node *node = node_at(m, n);
        const struct read *r = entries_of(m, node);

        for (uint32_t i = 0; i < node->count; i++) {
            if (words[r[i].at] != r[i].value)
                return false;
        }
        if (node->leaf != 0) {
            const struct leaf *l =
                &((const struct leaf *)m->leaves.item)[node->leaf - 1];

            out->store =
                &((const struct recall_store *)m->stores.item)[l->first];
            out->count = l->count;
            out->name = (uint64_t)m->forgotten << 32 | node->leaf;
            memcpy(out->found, l->found, sizeof(out->found));
            return true;
        }
        n = child_of(m, n, words[node->branch])->node;
    }
    return false;
}

bool recall_mark(const struct recall *m, uint64_t name,
                 const struct marks *marks)
{
    struct leaf *leaf;
    uint32_t n, below = 0;

    if (name >> 32 != m->forgotten || (uint32_t)name == 0)
        return false;
    leaf = &((struct leaf *)m->leaves.item)[(uint32_t)name - 1];
    if (leaf->mark == marks->mark)
        return true;
    leaf->mark = marks->mark;
    for (n = leaf->node; n != 0; n = node_at(m, n)->parent) {
        const struct node *node = node_at(m, n);
        const struct read *r = entries_of(m, node);

        for (uint32_t i = 0; i < node->count; i++)
            trace_mark_word(marks, r[i].at);
        if (below != 0)
            trace_mark_word(marks, node->branch);
        below = n;
    }
    return true;
}

/* ---- learning ---------------- */

struct lesson {
    const struct reads *reads;
    const struct trace *stores;
    const uint64_t *found;
};

static uint32_t new_leaf(struct recall *m, const struct lesson *what,
                         uint32_t node)
{
    uint64_t first = m->stores.count;
    uint32_t count = what->stores != NULL ? what->stores->count : 0;
    struct recall_store *store = pool_add(&m->stores, count);
    struct leaf *leaf = pool_add(&m->leaves, 1);

    if ((store == NULL && count > 0) || leaf == NULL)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct trace_word *w = &what->stores->word[i];

        store[i] = (struct recall_store){w->new, w->at, w->flags};
    }
    *leaf = (struct leaf){.first = first,
                          .found = {what->found[0], what->found[1]},
                          .count = count,
                          .node = node};
    return (uint32_t)m->leaves.count;
}

/* What it read from number i on, to the end, below that parent. 0: no
 * memory. */
static uint32_t new_tail(struct recall *m, const struct lesson *what,
                         uint32_t i, uint32_t parent)
{
    uint32_t count = what->reads->count - i;
    uint64_t first = m->entries.count;
    struct read *r = pool_add(&m->entries, count);
    uint32_t leaf = new_leaf(m, what, (uint32_t)m->nodes.count);
    struct node *n = pool_add(&m->nodes, 1);

    if ((r == NULL && count > 0) || leaf == 0 || n == NULL)
        return 0;
    if (count > 0)
        memcpy(r, &what->reads->read[i], count * sizeof(*r));
    *n = (struct node){
        .first = first, .count = count, .leaf = leaf, .parent = parent};
    return (uint32_t)m->nodes.count - 1;
}

/* Entry i of node n becomes what the new node above it goes on by: that node,
 * 0 if there is no memory. */
static uint32_t split(struct recall *m, uint32_t n, uint32_t i)
{
    struct node *upper = pool_add(&m->nodes, 1);
    struct node *lower = node_at(m, n);
    struct read at;

    if (upper == NULL)
        return 0;
    at = entries_of(m, lower)[i];
    *upper = (struct node){.first = lower->first,
                           .count = i,
                           .branch = at.at,
                           .parent = lower->parent};
    lower->first += i + 1;
    lower->count -= i + 1;
    lower->parent = (uint32_t)m->nodes.count - 1;
    n = (uint32_t)(lower - node_at(m, 0));
    return adopt(m, (uint32_t)m->nodes.count - 1, at.value, n)
               ? (uint32_t)m->nodes.count - 1
               : 0;
}

/* How far what was read is as in node n; false: another word was read. */
static bool compare(const struct recall *m, const struct node *node,
                    const struct reads *reads, uint32_t from, uint32_t *same)
{
    const struct read *r = entries_of(m, node);

    for (*same = 0; *same < node->count; ++*same) {
        uint32_t i = from + *same;

        if (i == reads->count || reads->read[i].at != r[*same].at)
            return false;
        if (reads->read[i].value != r[*same].value)
            return true;
    }
    return true;
}

enum place { STRANGE, KNOWN, BRANCHES, SPLITS };

/* Where it leaves what is known: at branch or entry `same` of node *n, whose
 * parent and value are *above, with what it read as number *i. */
static enum place descend(const struct recall *m, const struct reads *reads,
                          uint32_t *n, struct child *above, uint32_t *same,
                          uint32_t *i)
{
    for (;;) {
        const struct node *node = node_at(m, *n);
        uint32_t next;

        if (!compare(m, node, reads, *i, same))
            return STRANGE;
        *i += *same;
        if (*same < node->count)
            return SPLITS;
        if (node->leaf != 0)
            return *i == reads->count ? KNOWN : STRANGE;
        if (*i == reads->count || reads->read[*i].at != node->branch)
            return STRANGE;
        next = child_of(m, *n, reads->read[*i].value)->node;
        if (next == 0)
            return BRANCHES;
        *above = (struct child){reads->read[*i].value, *n, next};
        *n = next;
        ++*i;
    }
}

bool recall_learn(struct recall *m, uint32_t kind, const struct reads *reads,
                  const struct trace *stores, const uint64_t found[2])
{
    const struct lesson what = {reads, stores, found};
    struct child above = {.parent = 0};
    uint32_t n = m->root[kind], i = 0, same;
    bool good = true;

    if (is_full(m)) {
        forget(m);
        n = 0;
    }
    if (n == 0) {
        m->root[kind] = new_tail(m, &what, 0, 0);
        return true;
    }
    switch (descend(m, reads, &n, &above, &same, &i)) {
    case STRANGE:
        return false;
    case KNOWN:
        return true;
    case SPLITS:
        n = split(m, n, same);
        if (n != 0 && above.parent == 0)
            m->root[kind] = n;
        else
            good = adopt(m, above.parent, above.value, n);
        break;
    case BRANCHES:
        break;
    }
    if (!good || n == 0 ||
        !adopt(m, n, reads->read[i].value, new_tail(m, &what, i + 1, n)))
        forget(m);
    return true;
}
