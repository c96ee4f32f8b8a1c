/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The textbook's red-black tree, bottom-up, with the path of the descent in
 * place of parent links. A step that changes several links of one node stores
 * them as one word, so a rotation costs one log entry a node.
 *
 * Inserting below a red parent p with grandparent g, on the side s of g:
 *
 *   uncle red: recolour, go on       outer, black uncle:     inner: n is on
 *   two levels up with g as n                                the other side
 *        G            g                  G         P             G         N
 *      p   u   ->   P   U              p   U  -> n   g         p   U  -> p   g
 *     n            n                  n               U         n U (capital:
 * black)
 *
 * Removing leaves a hole that lacks one black, on the side s of p; w is its
 * sibling, `near` and `far` are w's children as seen from the hole:
 *
 *   w red          rotate w over p; p is red now, w a black one, and one of
 *                  the two below ends it
 *   both black     w red; p red: p black, done; else the hole goes up to p
 *   far red        rotate w over p: done
 *   near red       near over both: done
 *
 * WORDS. A path has at most TREE_DEPTH_MAX nodes, whatever the segment holds.
 *   insert  node's links and colour, link above it: 3. A recolouring step goes
 *           up two levels for 3 words. It ends with a rotation: links of g, p,
 *           n, the link above, two colours: 6; or at the root for less.
 *   remove  unlinking: 4. A step up for 1 word a level, at most one red
 *           sibling: 5, a last rotation: 6.
 */
#include "shm/memory/tree.h"

#include <stdio.h>
#include <string.h>

static_assert(3 + 3 * (TREE_DEPTH_MAX / 2) + 6 <= TREE_INSERT_WORDS, "bound");
static_assert(4 + TREE_DEPTH_MAX + 5 + 6 <= TREE_REMOVE_WORDS, "bound");

static uint32_t *link_at(const struct tree_kind *k, unsigned char *node,
                         unsigned side)
{
    return (uint32_t *)(void *)(node + k->links_at) + side;
}

static uint32_t *colour_word(const struct tree_kind *k, unsigned char *node)
{
    return (uint32_t *)(void *)(node + k->colour_at);
}

static bool is_red(const struct tree_kind *k, unsigned char *node)
{
    return (atomic_load32(colour_word(k, node)) & k->colour_mask) != 0;
}

static void paint(struct txn *t, const struct tree_kind *k,
                  unsigned char *node, bool red)
{
    uint32_t *word = colour_word(k, node);
    uint32_t old = atomic_load32(word);
    uint32_t new = red ? old | k->colour_mask : old & ~k->colour_mask;

    if (new != old)
        txn_store32(t, word, new);
}

/* The children of a node: on `side`, and on the other. */
static void set_links(struct txn *t, const struct tree_kind *k,
                      unsigned char *node, unsigned side, uint32_t child,
                      uint32_t other)
{
    uint32_t links[2];
    uint64_t word;

    links[side] = child;
    links[!side] = other;
    memcpy(&word, links, sizeof(word));
    txn_store64(t, (uint64_t *)(void *)(node + k->links_at), word);
}

/* A child that may be absent: *node is NULL then. False: it leads outside. */
static bool child_of(const struct segment *s, const struct tree_kind *k,
                     const unsigned char *parent, unsigned side, uint32_t *ref,
                     unsigned char **node)
{
    *ref = tree_child(k, parent, side);
    *node = *ref != 0 ? tree_node(s, k, *ref) : NULL;
    return *ref == 0 || *node != NULL;
}

/* Puts ref where the path's entry i hangs: in its parent, or as the root. */
static bool hang(struct txn *t, const struct tree_kind *k, uint32_t *root,
                 const struct tree_path *path, uint32_t i, uint32_t ref)
{
    unsigned char *parent;

    if (i == 0) {
        txn_store32(t, root, ref);
        return true;
    }
    parent = tree_node(t->segment, k, path->ref[i - 1]);
    if (parent == NULL)
        return false;
    txn_store32(t, link_at(k, parent, path->side[i - 1]), ref);
    return true;
}

static bool push(struct tree_path *path, uint32_t ref)
{
    if (path->depth >= TREE_DEPTH_MAX)
        return false;
    path->ref[path->depth] = ref;
    path->side[path->depth] = 0;
    path->depth++;
    return true;
}

/* Adds ref and what lies to the left below it. */
static int push_leftmost(const struct segment *s, const struct tree_kind *k,
                         struct tree_path *path, uint32_t ref)
{
    while (ref != 0) {
        const unsigned char *node = tree_node(s, k, ref);

        if (node == NULL || !push(path, ref))
            return SHD_CORRUPT;
        ref = tree_child(k, node, 0);
    }
    return SHD_OK;
}

int tree_find(const struct segment *s, const struct tree_kind *k,
              uint32_t root,
              int (*order)(const void *context, const unsigned char *node),
              const void *context, struct tree_path *path)
{
    uint32_t ref = root;

    path->depth = 0;
    while (ref != 0) {
        const unsigned char *node = tree_node(s, k, ref);
        int rc;

        if (node == NULL || !push(path, ref))
            return SHD_CORRUPT;
        rc = order(context, node);
        if (rc == 0)
            return 1;
        path->side[path->depth - 1] = rc > 0;
        ref = tree_child(k, node, rc > 0);
    }
    return 0;
}

/* ---- insert ----------------------------------------------------------- */

/* The two kinds of rotation that end an insertion; g is the path's entry i. */
static bool insert_rotate(struct txn *t, const struct tree_kind *k,
                          uint32_t *root, const struct tree_path *path,
                          uint32_t i, uint32_t n_ref)
{
    unsigned gs = path->side[i], ps = path->side[i + 1];
    uint32_t g_ref = path->ref[i], p_ref = path->ref[i + 1];
    unsigned char *g = tree_node(t->segment, k, g_ref);
    unsigned char *p = tree_node(t->segment, k, p_ref);
    unsigned char *n = tree_node(t->segment, k, n_ref);

    if (g == NULL || p == NULL || n == NULL)
        return false;
    if (ps == gs) {
        set_links(t, k, g, gs, tree_child(k, p, !gs), tree_child(k, g, !gs));
        set_links(t, k, p, gs, n_ref, g_ref);
        paint(t, k, p, false);
    } else {
        uint32_t inner = tree_child(k, n, gs), outer = tree_child(k, n, !gs);

        set_links(t, k, p, gs, tree_child(k, p, gs), inner);
        set_links(t, k, g, gs, outer, tree_child(k, g, !gs));
        set_links(t, k, n, gs, p_ref, g_ref);
        paint(t, k, n, false);
    }
    paint(t, k, g, true);
    return hang(t, k, root, path, i, ps == gs ? p_ref : n_ref);
}

/* n_ref is red and hangs below the path's last entry. */
static int insert_balance(struct txn *t, const struct tree_kind *k,
                          uint32_t *root, const struct tree_path *path,
                          uint32_t n_ref)
{
    const struct segment *s = t->segment;

    for (uint32_t i = path->depth; i > 0; i -= 2) {
        unsigned char *p = tree_node(s, k, path->ref[i - 1]), *g, *u;
        uint32_t u_ref;

        if (p == NULL)
            return SHD_CORRUPT;
        if (!is_red(k, p))
            return SHD_OK;
        /* A red parent is not the root, and its own parent is black. */
        if (i == 1)
            return SHD_CORRUPT;
        g = tree_node(s, k, path->ref[i - 2]);
        if (g == NULL || is_red(k, g) ||
            !child_of(s, k, g, !path->side[i - 2], &u_ref, &u))
            return SHD_CORRUPT;
        if (u == NULL || !is_red(k, u)) {
            bool ok = insert_rotate(t, k, root, path, i - 2, n_ref);

            return ok ? SHD_OK : SHD_CORRUPT;
        }
        paint(t, k, p, false);
        paint(t, k, u, false);
        if (i == 2) /* g is the root, which stays black */
            return SHD_OK;
        paint(t, k, g, true);
        n_ref = path->ref[i - 2];
    }
    return SHD_OK;
}

int tree_insert(struct txn *t, const struct tree_kind *k, uint32_t *root,
                struct tree_path *path, uint32_t ref)
{
    unsigned char *node = tree_node(t->segment, k, ref), *parent;
    uint32_t there;

    assert(ref != 0 && path->depth <= TREE_DEPTH_MAX);
    if (node == NULL)
        return SHD_CORRUPT;
    if (path->depth == 0) {
        there = atomic_load32(root);
    } else {
        parent = tree_node(t->segment, k, path->ref[path->depth - 1]);
        if (parent == NULL)
            return SHD_CORRUPT;
        there = tree_child(k, parent, path->side[path->depth - 1]);
    }
    if (there != 0) /* the path is not from a descent of this tree */
        return SHD_CORRUPT;
    set_links(t, k, node, 0, 0, 0);
    paint(t, k, node, path->depth > 0);
    if (!hang(t, k, root, path, path->depth, ref))
        return SHD_CORRUPT;
    return insert_balance(t, k, root, path, ref);
}

/* ---- remove ----------------------------------------------------------- */

/* Rotates the sibling w (on the side !s) over p, the path's entry i. */
static bool rotate_over(struct txn *t, const struct tree_kind *k,
                        uint32_t *root, const struct tree_path *path,
                        uint32_t i, uint32_t w_ref, unsigned char *w)
{
    unsigned s = path->side[i];
    uint32_t p_ref = path->ref[i];
    unsigned char *p = tree_node(t->segment, k, p_ref);
    uint32_t near = tree_child(k, w, s), far = tree_child(k, w, !s);

    if (p == NULL)
        return false;
    set_links(t, k, p, s, tree_child(k, p, s), near);
    set_links(t, k, w, s, p_ref, far);
    return hang(t, k, root, path, i, w_ref);
}

/* The sibling is red: makes it the parent of p, and the path longer by it.
 * The new sibling is one of its children, and must be black. */
static bool remove_red_sibling(struct txn *t, const struct tree_kind *k,
                               uint32_t *root, struct tree_path *path,
                               uint32_t i, uint32_t *w_ref, unsigned char **w)
{
    unsigned char *p = tree_node(t->segment, k, path->ref[i]);

    if (p == NULL || is_red(k, p) || i + 1 >= TREE_DEPTH_MAX ||
        !rotate_over(t, k, root, path, i, *w_ref, *w))
        return false;
    paint(t, k, *w, false);
    paint(t, k, p, true);
    path->ref[i + 1] = path->ref[i];
    path->side[i + 1] = path->side[i];
    path->ref[i] = *w_ref;
    return child_of(t->segment, k, p, !path->side[i], w_ref, w) &&
           *w != NULL && !is_red(k, *w);
}

/* A child of the sibling w is red: a rotation, one way or the other, ends
 * it. */
static bool remove_rotate(struct txn *t, const struct tree_kind *k,
                          uint32_t *root, const struct tree_path *path,
                          uint32_t i, uint32_t w_ref, unsigned char *w)
{
    unsigned s = path->side[i];
    uint32_t p_ref = path->ref[i], near_ref, far_ref;
    unsigned char *p = tree_node(t->segment, k, p_ref), *near, *far;

    if (p == NULL || !child_of(t->segment, k, w, s, &near_ref, &near) ||
        !child_of(t->segment, k, w, !s, &far_ref, &far))
        return false;
    if (far != NULL && is_red(k, far)) {
        paint(t, k, far, false);
        paint(t, k, w, is_red(k, p));
        paint(t, k, p, false);
        return rotate_over(t, k, root, path, i, w_ref, w);
    }
    if (near == NULL)
        return false;
    set_links(t, k, p, s, tree_child(k, p, s), tree_child(k, near, s));
    set_links(t, k, w, s, tree_child(k, near, !s), tree_child(k, w, !s));
    set_links(t, k, near, s, p_ref, w_ref);
    paint(t, k, near, is_red(k, p));
    paint(t, k, p, false);
    return hang(t, k, root, path, i, near_ref);
}

/* The hole below the path's entry depth - 1 lacks one black. */
static int remove_balance(struct txn *t, const struct tree_kind *k,
                          uint32_t *root, struct tree_path *path)
{
    const struct segment *s = t->segment;

    for (uint32_t i = path->depth; i-- > 0;) {
        unsigned char *p = tree_node(s, k, path->ref[i]), *w, *near, *far;
        uint32_t w_ref, near_ref, far_ref;
        unsigned side = path->side[i];

        if (p == NULL || !child_of(s, k, p, !side, &w_ref, &w) || w == NULL)
            return SHD_CORRUPT;
        if (is_red(k, w)) {
            if (!remove_red_sibling(t, k, root, path, i, &w_ref, &w))
                return SHD_CORRUPT;
            i++;
        }
        if (!child_of(s, k, w, side, &near_ref, &near) ||
            !child_of(s, k, w, !side, &far_ref, &far))
            return SHD_CORRUPT;
        if ((near != NULL && is_red(k, near)) ||
            (far != NULL && is_red(k, far))) {
            bool ok = remove_rotate(t, k, root, path, i, w_ref, w);

            return ok ? SHD_OK : SHD_CORRUPT;
        }
        paint(t, k, w, true);
        if (is_red(k, p)) {
            paint(t, k, p, false);
            return SHD_OK;
        }
    }
    return SHD_OK;
}

/* The node z at the path's end has two children: its successor takes its
 * place, links and colour, and the path goes on to where the successor was.
 * *red tells the successor's old colour, *child its only child. */
static int remove_swap(struct txn *t, const struct tree_kind *k,
                       uint32_t *root, struct tree_path *path,
                       unsigned char *z, bool *red, uint32_t *child)
{
    uint32_t at = path->depth - 1, right = tree_child(k, z, 1), last;
    unsigned char *y;

    path->side[at] = 1;
    if (push_leftmost(t->segment, k, path, right) != SHD_OK)
        return SHD_CORRUPT;
    last = path->depth - 1;
    y = tree_node(t->segment, k, path->ref[last]);
    if (y == NULL)
        return SHD_CORRUPT;
    *red = is_red(k, y);
    *child = tree_child(k, y, 1);
    if (last == at + 1)
        right = *child;
    else if (!hang(t, k, root, path, last, *child))
        return SHD_CORRUPT;
    set_links(t, k, y, 0, tree_child(k, z, 0), right);
    paint(t, k, y, is_red(k, z));
    path->ref[at] = path->ref[last];
    path->depth = last;
    return hang(t, k, root, path, at, path->ref[at]) ? SHD_OK : SHD_CORRUPT;
}

int tree_remove(struct txn *t, const struct tree_kind *k, uint32_t *root,
                struct tree_path *path)
{
    uint32_t left, right, child;
    unsigned char *z;
    bool red;

    assert(path->depth > 0 && path->depth <= TREE_DEPTH_MAX);
    z = tree_node(t->segment, k, path->ref[path->depth - 1]);
    if (z == NULL)
        return SHD_CORRUPT;
    left = tree_child(k, z, 0);
    right = tree_child(k, z, 1);
    if (left != 0 && right != 0) {
        int rc = remove_swap(t, k, root, path, z, &red, &child);

        if (rc != SHD_OK)
            return rc;
    } else {
        red = is_red(k, z);
        child = left != 0 ? left : right;
        path->depth--;
        if (!hang(t, k, root, path, path->depth, child))
            return SHD_CORRUPT;
    }
    if (child != 0) {
        unsigned char *c = tree_node(t->segment, k, child);

        /* An only child is red, else the black heights differed. */
        if (c == NULL || red || !is_red(k, c))
            return SHD_CORRUPT;
        paint(t, k, c, false);
        return SHD_OK;
    }
    return red ? SHD_OK : remove_balance(t, k, root, path);
}

int tree_replace(struct txn *t, const struct tree_kind *k, uint32_t *root,
                 const struct tree_path *path, uint32_t ref)
{
    unsigned char *new = tree_node(t->segment, k, ref), *old;

    assert(ref != 0 && path->depth > 0 && path->depth <= TREE_DEPTH_MAX);
    old = tree_node(t->segment, k, path->ref[path->depth - 1]);
    if (new == NULL || old == NULL)
        return SHD_CORRUPT;
    set_links(t, k, new, 0, tree_child(k, old, 0), tree_child(k, old, 1));
    paint(t, k, new, is_red(k, old));
    return hang(t, k, root, path, path->depth - 1, ref) ? SHD_OK : SHD_CORRUPT;
}

/* ---- walks ------------------------------------------------------------ */

int tree_first(const struct segment *s, const struct tree_kind *k,
               uint32_t root, struct tree_path *path)
{
    path->depth = 0;
    if (push_leftmost(s, k, path, root) != SHD_OK)
        return SHD_CORRUPT;
    return path->depth > 0;
}

int tree_next(const struct segment *s, const struct tree_kind *k,
              struct tree_path *path)
{
    const unsigned char *node;
    uint32_t right;

    assert(path->depth > 0 && path->depth <= TREE_DEPTH_MAX);
    node = tree_node(s, k, path->ref[path->depth - 1]);
    if (node == NULL)
        return SHD_CORRUPT;
    right = tree_child(k, node, 1);
    if (right != 0) {
        path->side[path->depth - 1] = 1;
        return push_leftmost(s, k, path, right) == SHD_OK ? 1 : SHD_CORRUPT;
    }
    while (--path->depth > 0) {
        if (path->side[path->depth - 1] == 0)
            return 1;
    }
    return 0;
}

/* ---- rebuilding ------------------------------------------------------- */

struct build {
    const struct segment *segment;
    const struct tree_kind *kind;
    const uint32_t *refs;
    uint32_t full; /* levels that have all their nodes; those below are red */
    bool fault;
};

static uint32_t build_part(struct build *b, uint32_t from, uint32_t to,
                           uint32_t depth)
{
    uint32_t middle = from + (to - from) / 2, left, right;
    unsigned char *node;
    uint32_t *links, *colour;

    if (from == to)
        return 0;
    node = tree_node(b->segment, b->kind, b->refs[middle]);
    if (node == NULL) {
        b->fault = true;
        return 0;
    }
    left = build_part(b, from, middle, depth + 1);
    right = build_part(b, middle + 1, to, depth + 1);
    links = (uint32_t *)(void *)(node + b->kind->links_at);
    colour = (uint32_t *)(void *)(node + b->kind->colour_at);
    atomic_store32(&links[0], left);
    atomic_store32(&links[1], right);
    atomic_store32(colour,
                   (atomic_load32(colour) & ~b->kind->colour_mask) |
                       (depth >= b->full ? b->kind->colour_mask : 0));
    return b->refs[middle];
}

int tree_build(const struct segment *s, const struct tree_kind *k,
               const uint32_t *refs, uint32_t n, uint32_t *root)
{
    struct build b = {s, k, refs, 0, false};

    while ((2ull << b.full) - 1 <= n)
        b.full++;
    *root = build_part(&b, 0, n, 0);
    return b.fault ? SHD_CORRUPT : SHD_OK;
}

/* ---- check ------------------------------------------------------------ */

struct check {
    const struct segment *segment;
    const struct tree_kind *kind;
    struct tree_path path;
    uint32_t blacks[TREE_DEPTH_MAX]; /* from the root to the path's entry */
    uint32_t height;                 /* blacks at every end, once known */
    bool height_known;
    const char *what; /* the first thing that is wrong, */
    uint32_t where;   /* and the node that shows it */
};

static bool failed(struct check *c, const char *what, uint32_t where)
{
    c->what = what;
    c->where = where;
    return false;
}

/* The path ends with a node that lacks a child: all such have the same count
 * of blacks above them. */
static bool check_end(struct check *c)
{
    uint32_t blacks = c->blacks[c->path.depth - 1];

    if (!c->height_known) {
        c->height = blacks;
        c->height_known = true;
    }
    if (blacks != c->height)
        return failed(c, "the black heights differ",
                      c->path.ref[c->path.depth - 1]);
    return true;
}

static bool check_push(struct check *c, uint32_t ref)
{
    uint32_t depth = c->path.depth;
    unsigned char *node = tree_node(c->segment, c->kind, ref), *above = NULL;
    bool red; /* as it was at one moment */

    if (node == NULL)
        return failed(c, "a link leads outside the segment", ref);
    red = is_red(c->kind, node);
    for (uint32_t i = 0; i < depth; i++) {
        if (c->path.ref[i] == ref)
            return failed(c, "a cycle", ref);
    }
    if (depth > 0)
        above = tree_node(c->segment, c->kind, c->path.ref[depth - 1]);
    if (red && above == NULL)
        return failed(c, "the root is red", ref);
    if (red && is_red(c->kind, above))
        return failed(c, "a red node has a red child", ref);
    if (!push(&c->path, ref))
        return failed(c, "too deep for a red-black tree", ref);
    c->blacks[depth] =
        (depth > 0 ? c->blacks[depth - 1] : 0) + !red;
    return true;
}

/* The child of a node of the path. It was inside when it was pushed; the end of
 * what is may have come nearer since. */
static bool check_child(struct check *c, uint32_t ref, unsigned side,
                        uint32_t *child)
{
    const unsigned char *node = tree_node(c->segment, c->kind, ref);

    if (node == NULL)
        return failed(c, "a link leads outside the segment", ref);
    *child = tree_child(c->kind, node, side);
    return true;
}

/* Adds ref and what lies to the left below it. */
static bool check_descend(struct check *c, uint32_t ref)
{
    while (ref != 0) {
        if (!check_push(c, ref) || !check_child(c, ref, 0, &ref))
            return false;
    }
    return check_end(c);
}

/* From the node at the path's end to the next one; *end when there is none. */
static bool check_step(struct check *c, bool *end)
{
    struct tree_path *path = &c->path;
    uint32_t last = path->depth - 1;
    uint32_t right;

    *end = false;
    if (!check_child(c, path->ref[last], 1, &right))
        return false;
    if (right != 0) {
        path->side[last] = 1;
        return check_descend(c, right);
    }
    if (!check_end(c))
        return false;
    while (--path->depth > 0) {
        if (path->side[path->depth - 1] == 0)
            return true;
    }
    *end = true;
    return true;
}

static bool check_walk(struct check *c, uint32_t root,
                       int (*compare)(const void *context,
                                      const unsigned char *a,
                                      const unsigned char *b),
                       const void *context, uint64_t *nodes)
{
    const unsigned char *before = NULL, *node;
    bool end = root == 0;

    if (root != 0 && !check_descend(c, root))
        return false;
    while (!end) {
        uint32_t ref = c->path.ref[c->path.depth - 1];

        node = tree_node(c->segment, c->kind, ref);
        if (node == NULL)
            return failed(c, "a link leads outside the segment", ref);
        if (before != NULL && compare(context, before, node) >= 0)
            return failed(c, "out of order", ref);
        before = node;
        /* For an order that is none: more nodes than there is room for. */
        if (++*nodes > c->segment->size / c->kind->node_bytes)
            return failed(c, "a cycle", ref);
        if (!check_step(c, &end))
            return false;
    }
    return true;
}

int tree_check(const struct segment *s, const struct tree_kind *k,
               uint32_t root,
               int (*compare)(const void *context, const unsigned char *a,
                              const unsigned char *b),
               const void *context, uint64_t *nodes, char *report, size_t size)
{
    struct check c = {.segment = s, .kind = k};
    uint64_t count = 0;
    bool sound = check_walk(&c, root, compare, context, &count);

    if (nodes != NULL)
        *nodes = count;
    if (sound)
        return SHD_OK;
    snprintf(report, size, "tree: %s, at reference %u", c.what, c.where);
    return SHD_CORRUPT;
}
