/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite tree: memory/tree.c against a naive model (a table that says which
 * keys are in), over a private segment: anonymous memory with one guard.
 * After every change the log is counted, and the words beside the tree's own
 * must be what they were.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/memory/tree.h"

#define ARENA_BYTES (8u << 20)
#define GUARD_AT 8192u
#define ROOT_AT 4096u
#define NODES_AT 16384u
#define KEYS_MAX 100000u
#define NEIGHBOUR 0x5eed5eedu
#ifdef __SANITIZE_ADDRESS__
#define SHARE 5 /* of the work: every access costs as much more */
#else
#define SHARE 1
#endif

/* Two layouts: the colour below the links or above them, the low or the high
 * bit, in a word that holds other things. */
static const struct layout {
    struct tree_kind kind;
    uint32_t key_at, beside_at;
} layouts[] = {
    {{0, 8, 1u << 5, 32, 0, 0}, 16, 12},
    {{16, 4, 1u << 31, 48, 0, 0}, 32, 0},
};

static struct segment seg;
static const struct layout *lay;
static const struct tree_kind *kind;
static uint32_t *root;
static struct guard *guard;
static uint64_t rng;
static uint32_t most_insert, most_remove;

static uint32_t ref_of[KEYS_MAX + 1]; /* the model: 0 is not in */
static uint32_t model_count;

static uint32_t random_below(uint32_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 16) % n);
}

static void start(unsigned layout)
{
    void *p = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(p, MAP_FAILED);
    lay = &layouts[layout];
    kind = &lay->kind;
    memset(&seg, 0, sizeof(seg));
    seg.base = p;
    seg.size = ARENA_BYTES;
    seg.writable = true;
    seg.locks_max = 1;
    seg.guards_at = GUARD_AT;
    guard = guard_at(&seg, 0);
    root = segment_at(&seg, ROOT_AT, 8);
    root[1] = NEIGHBOUR;
    rng = 0x9e3779b97f4a7c15ull;
    memset(ref_of, 0, sizeof(ref_of));
    model_count = 0;
    most_insert = most_remove = 0;
}

static void stop(void)
{
    ck_assert_int_eq(munmap(seg.base, ARENA_BYTES), 0);
}

static unsigned char *at(uint32_t ref)
{
    unsigned char *node = tree_node(&seg, kind, ref);

    if (node == NULL)
        ck_abort_msg("the test's own reference %u is outside", ref);
    return node;
}

static uint32_t *word(uint32_t ref, uint32_t offset)
{
    return (uint32_t *)(void *)(at(ref) + offset);
}

static uint32_t key_of(const unsigned char *node)
{
    return *(const uint32_t *)(const void *)(node + lay->key_at);
}

/* A key has two places, so that replacing has somewhere to go. */
static uint32_t node_for(uint32_t key, uint32_t which)
{
    return (NODES_AT + (key * 2 + which) * kind->node_bytes) / SEGMENT_UNIT;
}

/* What a node's other words hold: known, and different for each. */
static uint32_t filler(uint32_t ref)
{
    return (ref * 2654435761u) & ~kind->colour_mask;
}

/* As a new cell would come: other bits set, a stale colour, stale links. */
static uint32_t make_node(uint32_t key, uint32_t which)
{
    uint32_t ref = node_for(key, which);

    memset(at(ref), 0xee, kind->node_bytes);
    *word(ref, lay->key_at) = key;
    *word(ref, lay->beside_at) = ~filler(ref);
    *word(ref, kind->colour_at) =
        filler(ref) | (random_below(2) != 0 ? kind->colour_mask : 0);
    return ref;
}

static void expect_beside_kept(uint32_t ref, uint32_t key)
{
    uint32_t rest = *word(ref, kind->colour_at) & ~kind->colour_mask;

    /* One assertion: each of Check's costs a system call. */
    ck_assert_msg(*word(ref, lay->key_at) == key &&
                      *word(ref, lay->beside_at) == ~filler(ref) &&
                      rest == filler(ref) && root[1] == NEIGHBOUR,
                  "a word beside the tree's own has changed, key %u", key);
}

static int order(const void *context, const unsigned char *node)
{
    uint32_t wanted = *(const uint32_t *)context, key = key_of(node);

    return wanted < key ? -1 : wanted > key;
}

static int compare(const void *context, const unsigned char *a,
                   const unsigned char *b)
{
    if (context != lay)
        ck_abort_msg("the context did not come through");
    return key_of(a) < key_of(b) ? -1 : key_of(a) > key_of(b);
}

static int find(uint32_t key, struct tree_path *path)
{
    return tree_find(&seg, kind, *root, order, &key, path);
}

static int check(char *report, size_t size, uint64_t *nodes)
{
    return tree_check(&seg, kind, *root, compare, lay, nodes, report, size);
}

static void expect_sound(void)
{
    char report[128] = "";
    uint64_t nodes = 0;
    int rc = check(report, sizeof(report), &nodes);

    ck_assert_msg(rc == SHD_OK, "%s", report);
    ck_assert_uint_eq(nodes, model_count);
}

static uint32_t commit(struct txn *t)
{
    uint32_t words = txn_words(t);

    txn_commit(t);
    ck_assert_uint_eq(guard->seq & 1, 0);
    return words;
}

static void insert(uint32_t key)
{
    struct tree_path path;
    struct txn t;
    uint32_t ref = make_node(key, 0), words;

    ck_assert_int_eq(find(key, &path), 0);
    txn_begin(&t, &seg, guard, TREE_INSERT_WORDS);
    ck_assert_int_eq(tree_insert(&t, kind, root, &path, ref), SHD_OK);
    words = commit(&t);
    if (words > most_insert)
        most_insert = words;
    ref_of[key] = ref;
    model_count++;
    expect_beside_kept(ref, key);
}

static void delete(uint32_t key)
{
    struct tree_path path;
    struct txn t;
    uint32_t words;

    ck_assert_int_eq(find(key, &path), 1);
    ck_assert_uint_eq(path.ref[path.depth - 1], ref_of[key]);
    txn_begin(&t, &seg, guard, TREE_REMOVE_WORDS);
    ck_assert_int_eq(tree_remove(&t, kind, root, &path), SHD_OK);
    words = commit(&t);
    if (words > most_remove)
        most_remove = words;
    expect_beside_kept(ref_of[key], key);
    ref_of[key] = 0;
    model_count--;
}

static void replace(uint32_t key)
{
    struct tree_path path;
    struct txn t;
    uint32_t which = ref_of[key] == node_for(key, 0);
    uint32_t ref = make_node(key, which);

    ck_assert_int_eq(find(key, &path), 1);
    txn_begin(&t, &seg, guard, TREE_REPLACE_WORDS);
    ck_assert_int_eq(tree_replace(&t, kind, root, &path, ref), SHD_OK);
    (void)commit(&t);
    expect_beside_kept(ref, key);
    ref_of[key] = ref;
}

/* Every key of the model, in order, and nothing else. */
static void expect_walk_is_the_model(uint32_t keys)
{
    struct tree_path path;
    int rc = tree_first(&seg, kind, *root, &path);

    for (uint32_t key = 1; key <= keys; key++) {
        if (ref_of[key] == 0)
            continue;
        ck_assert_int_eq(rc, 1);
        ck_assert_uint_eq(path.ref[path.depth - 1], ref_of[key]);
        expect_beside_kept(ref_of[key], key);
        rc = tree_next(&seg, kind, &path);
    }
    ck_assert_int_eq(rc, 0);
}

/* keys in 1..keys; every so often everything is looked at. */
static void random_work(uint32_t keys, uint32_t operations, uint32_t every)
{
    struct tree_path path;
    uint32_t fill = 50; /* per cent of stores: grows and shrinks by turns */

    for (uint32_t i = 0; i < operations; i++) {
        uint32_t key = 1 + random_below(keys);

        if (i % (keys * 2 + 1) == 0)
            fill = 20 + random_below(61);
        if (random_below(100) >= fill) {
            if (ref_of[key] != 0)
                delete(key);
            else
                ck_assert_int_eq(find(key, &path), 0);
        } else if (ref_of[key] != 0) {
            replace(key);
        } else {
            insert(key);
        }
        if (i % every == 0)
            expect_sound();
        if (i % (every * 16) == 0)
            expect_walk_is_the_model(keys);
    }
    expect_sound();
    expect_walk_is_the_model(keys);
    for (uint32_t key = 1; key <= keys; key++) {
        if (ref_of[key] != 0)
            delete(key);
    }
    ck_assert_uint_eq(*root, 0);
    expect_sound();
}

static const struct {
    uint32_t keys, operations, every;
} workloads[] = {
    {1, 2000, 1},       {3, 20000, 1},       {10, 100000, 1},
    {100, 100000, 7},   {3000, 200000, 997}, {60000, 300000, 49999},
};

#define WORKLOADS (int)(sizeof(workloads) / sizeof(workloads[0]))

START_TEST(random_changes_agree_with_a_naive_model)
{
    int w = _i / 2;

    start((unsigned)_i % 2);
    random_work(workloads[w].keys, workloads[w].operations / SHARE,
                workloads[w].every);
    ck_assert_uint_le(most_insert, TREE_INSERT_WORDS);
    ck_assert_uint_le(most_remove, TREE_REMOVE_WORDS);
    stop();
}
END_TEST

START_TEST(keys_in_rising_and_falling_order_stay_balanced)
{
    struct tree_path path;

    start(0);
    for (uint32_t key = 1; key <= 40000; key++)
        insert(key);
    expect_sound();
    /* 2 log2(40001) is 30.6 */
    for (uint32_t key = 1; key <= 40000; key += 97) {
        ck_assert_int_eq(find(key, &path), 1);
        ck_assert_uint_le(path.depth, 30);
    }
    for (uint32_t key = 1; key <= 20000; key++)
        delete(key);
    expect_sound();
    for (uint32_t key = 20000; key > 0; key--)
        insert(key);
    expect_sound();
    for (uint32_t key = 40000; key > 0; key--)
        delete(key);
    ck_assert_uint_eq(*root, 0);
    stop();
}
END_TEST

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t x = *a;

    *a = *b;
    *b = x;
}

/* The next permutation in lexical order; false after the last. */
static bool permute(uint32_t *a, int n)
{
    int i = n - 2, j = n - 1;

    while (i >= 0 && a[i] > a[i + 1])
        i--;
    if (i < 0)
        return false;
    while (a[j] < a[i])
        j--;
    swap(&a[i], &a[j]);
    for (int l = i + 1, r = n - 1; l < r; l++, r--)
        swap(&a[l], &a[r]);
    return true;
}

START_TEST(every_order_of_seven_keys_and_every_removal_is_sound)
{
    uint32_t keys[7] = {1, 2, 3, 4, 5, 6, 7};

    start(1);
    do {
        for (int i = 0; i < 7; i++) {
            insert(keys[i]);
            expect_sound();
        }
        for (int i = 0; i < 7; i++) {
            delete(1 + (keys[i] + keys[0]) % 7);
            expect_sound();
        }
    } while (permute(keys, 7));
    stop();
}
END_TEST

START_TEST(replacing_keeps_the_shape_and_the_colour)
{
    struct tree_path before, after;

    start(1);
    for (uint32_t key = 1; key <= 500; key++)
        insert(1 + (key * 193) % 509);
    for (uint32_t key = 1; key < 509; key++) {
        uint32_t old = ref_of[key], red;

        if (old == 0)
            continue;
        ck_assert_int_eq(find(key, &before), 1);
        red = *word(old, kind->colour_at) & kind->colour_mask;
        replace(key);
        ck_assert_uint_ne(ref_of[key], old);
        ck_assert_int_eq(find(key, &after), 1);
        ck_assert_uint_eq(after.depth, before.depth);
        ck_assert_mem_eq(after.side, before.side, after.depth - 1);
        ck_assert_uint_eq(*word(ref_of[key], kind->colour_at) &
                              kind->colour_mask,
                          red);
    }
    expect_sound();
    stop();
}
END_TEST

START_TEST(a_walk_goes_on_from_where_a_key_would_be)
{
    struct tree_path path;

    start(0);
    for (uint32_t key = 2; key <= 2000; key += 2)
        insert(key);
    for (uint32_t key = 1; key <= 2001; key += 2) {
        int rc;

        ck_assert_int_eq(find(key, &path), 0);
        if (path.side[path.depth - 1] == 0)
            rc = 1; /* the parent to be comes after it */
        else
            rc = tree_next(&seg, kind, &path);
        if (key == 2001) {
            ck_assert_int_eq(rc, 0);
        } else {
            ck_assert_int_eq(rc, 1);
            ck_assert_uint_eq(key_of(at(path.ref[path.depth - 1])), key + 1);
        }
    }
    stop();
}
END_TEST

START_TEST(an_empty_tree_has_no_first_and_finds_nothing)
{
    struct tree_path path;

    start(0);
    ck_assert_int_eq(tree_first(&seg, kind, *root, &path), 0);
    ck_assert_int_eq(find(1, &path), 0);
    ck_assert_uint_eq(path.depth, 0);
    expect_sound();
    stop();
}
END_TEST

/* A chain of TREE_DEPTH_MAX nodes that goes right all the way, each with a
 * left child: deeper than a tree of this segment could get, and the worst
 * that a path can make a change log. */
static void forge_spine(bool red_pairs)
{
    uint32_t depth = TREE_DEPTH_MAX;

    for (uint32_t i = 0; i < depth; i++) {
        uint32_t spine = make_node(i * 2 + 2, 0);
        uint32_t twig = make_node(i * 2 + 1, 0);
        bool red = red_pairs && i % 2 == 1;
        bool twig_red = red_pairs && i % 2 == 0;
        uint32_t *links = word(spine, kind->links_at);

        links[0] = twig;
        links[1] = i + 1 < depth ? node_for(i * 2 + 4, 0) : 0;
        word(twig, kind->links_at)[0] = 0;
        word(twig, kind->links_at)[1] = 0;
        *word(spine, kind->colour_at) =
            filler(spine) | (red ? kind->colour_mask : 0);
        *word(twig, kind->colour_at) =
            filler(twig) | (twig_red ? kind->colour_mask : 0);
    }
    *root = node_for(2, 0);
}

START_TEST(the_longest_path_logs_no_more_words_than_promised)
{
    struct tree_path path;
    struct txn t;
    uint32_t key = TREE_DEPTH_MAX * 2 + 1, words;

    /* Every uncle red: recoloured all the way up. */
    start((unsigned)_i);
    forge_spine(true);
    ck_assert_int_eq(find(key, &path), 0);
    ck_assert_uint_eq(path.depth, TREE_DEPTH_MAX);
    txn_begin(&t, &seg, guard, TREE_INSERT_WORDS);
    ck_assert_int_eq(
        tree_insert(&t, kind, root, &path, make_node(key, 0)), SHD_OK);
    words = commit(&t);
    ck_assert_uint_ge(words, 3 * (TREE_DEPTH_MAX / 2 - 1));
    ck_assert_uint_le(words, TREE_INSERT_WORDS);
    stop();

    /* Everything black: the hole goes up to the root. */
    start((unsigned)_i);
    forge_spine(false);
    key = TREE_DEPTH_MAX * 2;
    word(node_for(key, 0), kind->links_at)[0] = 0;
    ck_assert_int_eq(find(key, &path), 1);
    ck_assert_uint_eq(path.depth, TREE_DEPTH_MAX);
    txn_begin(&t, &seg, guard, TREE_REMOVE_WORDS);
    ck_assert_int_eq(tree_remove(&t, kind, root, &path), SHD_OK);
    words = commit(&t);
    ck_assert_uint_ge(words, TREE_DEPTH_MAX - 1);
    ck_assert_uint_le(words, TREE_REMOVE_WORDS);
    stop();
}
END_TEST

START_TEST(an_aborted_change_leaves_every_byte_as_it_was)
{
    unsigned char *image = malloc(ARENA_BYTES);
    struct tree_path path;
    struct txn t;

    ck_assert_ptr_nonnull(image);
    start((unsigned)_i);
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t key = 1 + random_below(400), fresh = 0;
        int rc = find(key, &path);

        if (rc == 0)
            fresh = make_node(key, 0);
        if (i % 8 == 0) { /* else the segment is only what the last one was */
            memcpy(image, seg.base + NODES_AT, 1u << 20);
            memcpy(image + (1u << 20), root, 8);
        }
        txn_begin(&t, &seg, guard, TREE_INSERT_WORDS);
        if (rc == 0)
            rc = tree_insert(&t, kind, root, &path, fresh);
        else
            rc = tree_remove(&t, kind, root, &path);
        ck_assert_int_eq(rc, SHD_OK);
        ck_assert_uint_gt(txn_words(&t), 0);
        if (i % 8 == 0) {
            bool by_recovery = i % 16 == 0; /* the same, as a successor */

            if (by_recovery)
                ck_assert_int_eq(txn_recover(&seg, guard), SHD_OK);
            else
                txn_abort(&t);
            ck_assert_int_eq(guard->seq & 1, 0);
            ck_assert_mem_eq(image, seg.base + NODES_AT, 1u << 20);
            ck_assert_mem_eq(image + (1u << 20), root, 8);
        } else {
            model_count += fresh != 0 ? 1u : -1u;
            txn_commit(&t);
        }
        if (i % 64 == 0)
            expect_sound();
    }
    stop();
    free(image);
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

/* Keys 10, 20 .. 10 * n. */
static void plant(uint32_t n)
{
    for (uint32_t i = 1; i <= n; i++)
        insert(i * 10);
    expect_sound();
}

static void expect_damage(const char *name, uint32_t ref)
{
    char report[128] = "", where[32];

    ck_assert_int_eq(check(report, sizeof(report), NULL), SHD_CORRUPT);
    ck_assert_msg(strstr(report, name) != NULL, "says: %s", report);
    if (ref != 0) {
        snprintf(where, sizeof(where), "reference %u", ref);
        ck_assert_msg(strstr(report, where) != NULL, "says: %s", report);
    }
}

/* The first node, in order, of that colour; with a parent of that colour. */
static uint32_t some_node(bool red, bool parent_red)
{
    struct tree_path path;

    for (int rc = tree_first(&seg, kind, *root, &path); rc == 1;
         rc = tree_next(&seg, kind, &path)) {
        uint32_t d = path.depth;

        if (d > 2 &&
            ((*word(path.ref[d - 1], kind->colour_at) & kind->colour_mask) !=
             0) == red &&
            ((*word(path.ref[d - 2], kind->colour_at) & kind->colour_mask) !=
             0) == parent_red)
            return path.ref[d - 1];
    }
    ck_abort_msg("no such node");
}

START_TEST(check_names_a_red_root)
{
    start(0);
    plant(20);
    *word(*root, kind->colour_at) |= kind->colour_mask;
    expect_damage("the root is red", *root);
    stop();
}
END_TEST

START_TEST(check_names_two_reds_in_a_row)
{
    uint32_t ref;

    start(0);
    plant(40);
    ref = some_node(false, true);
    *word(ref, kind->colour_at) |= kind->colour_mask;
    expect_damage("a red node has a red child", ref);
    stop();
}
END_TEST

START_TEST(check_names_a_black_too_many)
{
    uint32_t ref;

    start(0);
    plant(40);
    ref = some_node(true, false);
    *word(ref, kind->colour_at) &= ~kind->colour_mask;
    expect_damage("the black heights differ", 0);
    stop();
}
END_TEST

START_TEST(check_names_a_subtree_that_is_gone)
{
    start(1);
    plant(40);
    word(*root, kind->links_at)[1] = 0;
    expect_damage("the black heights differ", *root);
    stop();
}
END_TEST

START_TEST(check_names_a_key_out_of_order)
{
    start(1);
    plant(40);
    *word(ref_of[170], lay->key_at) = 190;
    expect_damage("out of order", 0);
    *word(ref_of[170], lay->key_at) = 160; /* the same as its neighbour */
    expect_damage("out of order", ref_of[170]);
    stop();
}
END_TEST

START_TEST(check_names_a_link_that_leads_outside)
{
    uint32_t outside = ARENA_BYTES / SEGMENT_UNIT;

    start(1);
    plant(40);
    word(ref_of[10], kind->links_at)[0] = outside;
    expect_damage("a link leads outside", outside);
    /* Its beginning is inside, its end is not. */
    word(ref_of[10], kind->links_at)[0] = outside - 2;
    expect_damage("a link leads outside", outside - 2);
    word(ref_of[10], kind->links_at)[0] = UINT32_MAX;
    expect_damage("a link leads outside", UINT32_MAX);
    *root = outside;
    expect_damage("a link leads outside", outside);
    stop();
}
END_TEST

/* Somebody makes the room of the nodes smaller. */
static struct tree_kind shrinking;

static int compare_and_shrink(const void *context, const unsigned char *a,
                              const unsigned char *b)
{
    shrinking.end = shrinking.first + kind->node_bytes;
    return compare(context, a, b);
}

START_TEST(a_check_sees_the_room_end_nearer_meanwhile)
{
    char report[200];

    start(1);
    plant(40);
    shrinking = *kind;
    shrinking.first = 0;
    shrinking.end = ARENA_BYTES;
    ck_assert_int_eq(tree_check(&seg, &shrinking, *root, compare_and_shrink,
                                lay, NULL, report, sizeof(report)),
                     SHD_CORRUPT);
    ck_assert_ptr_nonnull(strstr(report, "a link leads outside"));
    stop();
}
END_TEST

START_TEST(check_names_a_cycle)
{
    start(0);
    plant(40);
    word(ref_of[10], kind->links_at)[0] = *root;
    expect_damage("a cycle", *root);
    word(ref_of[10], kind->links_at)[0] = ref_of[10];
    expect_damage("a cycle", ref_of[10]);
    stop();
}
END_TEST

START_TEST(check_names_a_tree_too_deep)
{
    uint32_t last = TREE_DEPTH_MAX + 1;

    start(0);
    for (uint32_t key = 1; key <= last; key++) {
        uint32_t ref = make_node(key, 0);

        word(ref, kind->links_at)[0] = key > 1 ? node_for(key - 1, 0) : 0;
        word(ref, kind->links_at)[1] = 0;
        *word(ref, kind->colour_at) = filler(ref);
    }
    *root = node_for(last, 0);
    expect_damage("too deep", node_for(1, 0));
    stop();
}
END_TEST

/* Insert, remove and replace beside the damage; true if one said corrupt.
 * Each is aborted when it did, as its caller has to. */
static bool change_says_corrupt(uint32_t key)
{
    struct tree_path path;
    struct txn t;
    int rc = find(key, &path);

    if (rc < 0)
        return rc == SHD_CORRUPT;
    txn_begin(&t, &seg, guard, TREE_INSERT_WORDS);
    if (rc == 0)
        rc = tree_insert(&t, kind, root, &path, make_node(key, 1));
    else
        rc = tree_remove(&t, kind, root, &path);
    ck_assert(rc == SHD_OK || rc == SHD_CORRUPT);
    txn_abort(&t);
    return rc == SHD_CORRUPT;
}

START_TEST(nothing_follows_a_link_outside)
{
    uint32_t outside = ARENA_BYTES / SEGMENT_UNIT;
    struct tree_path path, copy;
    struct txn t;

    start(0);
    plant(40);
    word(ref_of[10], kind->links_at)[0] = outside;
    ck_assert_int_eq(find(5, &path), SHD_CORRUPT);
    ck_assert_int_eq(tree_first(&seg, kind, *root, &path), SHD_CORRUPT);
    word(ref_of[10], kind->links_at)[0] = 0;
    expect_sound();

    ck_assert_int_eq(find(400, &path), 1);
    word(ref_of[400], kind->links_at)[1] = outside;
    copy = path;
    ck_assert_int_eq(tree_next(&seg, kind, &copy), SHD_CORRUPT);
    /* Removing makes its only child black: that it cannot. */
    copy = path;
    txn_begin(&t, &seg, guard, TREE_REMOVE_WORDS);
    ck_assert_int_eq(tree_remove(&t, kind, root, &copy), SHD_CORRUPT);
    txn_abort(&t);
    word(ref_of[400], kind->links_at)[1] = 0;
    expect_sound();

    /* The successor that would take the root's place. */
    path.depth = 1;
    path.ref[0] = *root;
    word(*root, kind->links_at)[1] = outside;
    copy = path;
    txn_begin(&t, &seg, guard, TREE_REMOVE_WORDS);
    ck_assert_int_eq(tree_remove(&t, kind, root, &copy), SHD_CORRUPT);
    txn_abort(&t);

    /* A node that is itself outside, and a path that ends there. */
    path.ref[0] = outside;
    copy = path;
    txn_begin(&t, &seg, guard, TREE_INSERT_WORDS);
    ck_assert_int_eq(tree_remove(&t, kind, root, &copy), SHD_CORRUPT);
    ck_assert_int_eq(
        tree_replace(&t, kind, root, &path, make_node(7, 0)), SHD_CORRUPT);
    copy = path;
    ck_assert_int_eq(
        tree_insert(&t, kind, root, &copy, make_node(7, 0)), SHD_CORRUPT);
    path.ref[0] = *root;
    ck_assert_int_eq(tree_replace(&t, kind, root, &path, outside),
                     SHD_CORRUPT);
    path.depth = 0;
    ck_assert_int_eq(tree_insert(&t, kind, root, &path, outside),
                     SHD_CORRUPT);
    txn_abort(&t);
    stop();
}
END_TEST

START_TEST(inserting_where_something_hangs_already_is_corrupt)
{
    struct tree_path path = {.depth = 0};
    struct txn t;

    start(0);
    plant(3);
    txn_begin(&t, &seg, guard, TREE_INSERT_WORDS);
    ck_assert_int_eq(
        tree_insert(&t, kind, root, &path, make_node(5, 0)), SHD_CORRUPT);
    path.depth = 1;
    path.ref[0] = *root;
    path.side[0] = 0;
    ck_assert_int_eq(
        tree_insert(&t, kind, root, &path, make_node(5, 0)), SHD_CORRUPT);
    txn_abort(&t);
    expect_sound();
    stop();
}
END_TEST

START_TEST(a_descent_in_a_cycle_ends)
{
    struct tree_path path;

    start(0);
    plant(40);
    word(ref_of[10], kind->links_at)[0] = *root;
    ck_assert_int_eq(find(1, &path), SHD_CORRUPT);
    ck_assert_int_eq(tree_first(&seg, kind, *root, &path), SHD_CORRUPT);
    word(ref_of[10], kind->links_at)[0] = 0;
    word(ref_of[400], kind->links_at)[1] = *root;
    ck_assert_int_eq(find(999, &path), SHD_CORRUPT);
    stop();
}
END_TEST

/* Any link or colour may be anything: changes come to an end, log no more
 * than they may (the log asserts it), touch nothing outside, and can be
 * undone; the check finds fault or the damage made no difference. */
START_TEST(changes_in_a_tree_damaged_at_random_end_and_can_be_undone)
{
    static unsigned char image[64 * 1024];
    uint32_t corrupt = 0, named = 0, rounds = 20000 / SHARE;
    char report[128];

    start((unsigned)_i);
    for (uint32_t i = 1; i <= 60; i++)
        insert(i * 3);
    memcpy(image, seg.base + NODES_AT, sizeof(image));
    for (uint32_t i = 0; i < rounds; i++) {
        uint32_t hits = 1 + random_below(4), old_root = *root;

        for (uint32_t h = 0; h < hits; h++) {
            uint32_t ref = ref_of[3 * (1 + random_below(60))];
            uint32_t side = random_below(2);
            uint32_t *p = word(ref, kind->links_at) + side;

            switch (random_below(5)) {
            case 0:
                *p = random_below(UINT32_MAX);
                break;
            case 1:
                *p = random_below(ARENA_BYTES / SEGMENT_UNIT);
                break;
            case 2:
                *p = ref_of[3 * (1 + random_below(60))];
                break;
            case 3:
                *p = 0;
                break;
            default:
                *word(ref, kind->colour_at) ^= kind->colour_mask;
            }
        }
        for (int n = 0; n < 4; n++)
            corrupt += change_says_corrupt(1 + random_below(190));
        named += check(report, sizeof(report), NULL) == SHD_CORRUPT;
        memcpy(seg.base + NODES_AT, image, sizeof(image));
        ck_assert_uint_eq(*root, old_root);
        ck_assert_uint_eq(root[1], NEIGHBOUR);
    }
    expect_sound();
    expect_walk_is_the_model(180);
    /* Were these small, the damage would not have been looked at. */
    ck_assert_uint_gt(corrupt, rounds / 10);
    ck_assert_uint_gt(named, rounds * 9 / 10);
    stop();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tree");
    TCase *c = tcase_create("changes");
    SRunner *r;
    int bad;

    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, random_changes_agree_with_a_naive_model, 0,
                        2 * WORKLOADS);
    tcase_add_test(c, keys_in_rising_and_falling_order_stay_balanced);
    tcase_add_test(c, every_order_of_seven_keys_and_every_removal_is_sound);
    tcase_add_test(c, replacing_keeps_the_shape_and_the_colour);
    tcase_add_test(c, a_walk_goes_on_from_where_a_key_would_be);
    tcase_add_test(c, an_empty_tree_has_no_first_and_finds_nothing);
    tcase_add_loop_test(
        c, the_longest_path_logs_no_more_words_than_promised, 0, 2);
    tcase_add_loop_test(c, an_aborted_change_leaves_every_byte_as_it_was, 0,
                        2);
    suite_add_tcase(s, c);

    c = tcase_create("damage");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, check_names_a_red_root);
    tcase_add_test(c, check_names_two_reds_in_a_row);
    tcase_add_test(c, check_names_a_black_too_many);
    tcase_add_test(c, check_names_a_subtree_that_is_gone);
    tcase_add_test(c, check_names_a_key_out_of_order);
    tcase_add_test(c, check_names_a_link_that_leads_outside);
    tcase_add_test(c, a_check_sees_the_room_end_nearer_meanwhile);
    tcase_add_test(c, check_names_a_cycle);
    tcase_add_test(c, check_names_a_tree_too_deep);
    tcase_add_test(c, nothing_follows_a_link_outside);
    tcase_add_test(c, inserting_where_something_hangs_already_is_corrupt);
    tcase_add_test(c, a_descent_in_a_cycle_ends);
    tcase_add_loop_test(
        c, changes_in_a_tree_damaged_at_random_end_and_can_be_undone, 0, 2);
    suite_add_tcase(s, c);

    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad != 0;
}
