/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/modules.h"

#include <string.h>

#include "fuzz/locks.h"
#include "fuzz/workers.h"
#include "shm/memory/catalogue.h"
#include "shm/memory/tree.h"

static struct play *who, *other;
static uint32_t meddles;

static uint64_t draw(uint64_t below)
{
    return play_draw(who, below);
}

/* ---- a tree ----------------------------------------------------------------- */

#define NODES 64u
#define STEPS 40u

struct node {
    uint32_t links[2];
    uint32_t colour;
    uint32_t key; /* its number */
    uint64_t pad[2];
};
static_assert(sizeof(struct node) % SEGMENT_UNIT == 0, "layout");

static struct {
    struct guard *guard;
    uint32_t *root;
    struct node *node;
    uint64_t end;
    uint64_t in; /* a bit a node: is it in the tree? */
    bool spoilt;
} wood;
static struct tree_kind kind;

static uint32_t ref_of(uint64_t n)
{
    return (uint32_t)(segment_offset(&who->segment->segment, &wood.node[n]) /
                      SEGMENT_UNIT);
}

static int by_key(const void *context, const unsigned char *node)
{
    uint32_t wanted = *(const uint32_t *)context;
    uint32_t key = atomic_load32(&((const struct node *)(const void *)node)->key);

    return wanted < key ? -1 : wanted > key;
}

static int in_order(const void *context, const unsigned char *a,
                    const unsigned char *b)
{
    (void)context;
    return by_key(&((const struct node *)(const void *)a)->key, b);
}

/* A word of a node, or the root; or the room of the nodes ends elsewhere. */
static void spoil(void)
{
    struct node *n = &wood.node[draw(NODES)];
    uint32_t ref = draw(4) == 0 ? (uint32_t)draw(1 << 16) : ref_of(draw(NODES));

    wood.spoilt = true;
    switch (draw(8)) {
    case 0:
    case 1: n->links[draw(2)] = draw(3) == 0 ? 0 : ref; break;
    case 2: n->colour ^= 1; break;
    case 3: n->key = (uint32_t)draw(NODES); break;
    case 4: *wood.root = draw(4) == 0 ? 0 : ref; break;
    case 5: kind.end = wood.end; break;
    default:
        kind.end = kind.first + draw(NODES) * sizeof(struct node);
        break;
    }
}

static void spoil_now(const void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
    spoil();
    if (meddles++ < 8 && draw(2) == 0)
        workers_interrupt(1 + draw(64), spoil_now);
}

/* One of them goes in, or out, or another one takes its place. */
static int change(struct txn *t, uint32_t n)
{
    const struct segment *s = &who->segment->segment;
    struct tree_path path;
    int rc = tree_find(s, &kind, *wood.root, by_key, &n, &path);

    if (rc == 0)
        return tree_insert(t, &kind, wood.root, &path, ref_of(n));
    if (rc != 1)
        return rc;
    if (n % 8 != 7)
        return tree_remove(t, &kind, wood.root, &path);
    /* Its equal, for a moment. */
    wood.node[NODES].key = n;
    rc = tree_replace(t, &kind, wood.root, &path, ref_of(NODES));
    if (rc == SHD_OK)
        rc = tree_find(s, &kind, *wood.root, by_key, &n, &path);
    return rc == 1
               ? tree_replace(t, &kind, wood.root, &path, ref_of(n))
               : SHD_CORRUPT;
}

static void change_some(uint32_t n)
{
    const struct guard_env *env = &who->segment->env;
    struct txn t;
    int rc;

    if (guard_lock(env, wood.guard) != SHD_OK)
        return;
    txn_begin(&t, env->segment, wood.guard,
              TREE_INSERT_WORDS + TREE_REMOVE_WORDS);
    rc = change(&t, n);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    guard_unlock(wood.guard);
    if (rc == SHD_OK && n % 8 != 7)
        wood.in ^= 1ull << n;
    else if (rc == SHD_OK)
        wood.in |= 1ull << n;
    else if (!wood.spoilt)
        play_fail(who, "%d of a sound tree", rc);
}

static void look(bool died, uint32_t at)
{
    const struct segment *s = &who->segment->segment;
    struct tree_path path;
    uint64_t nodes = 0, walked = 0, want;
    char report[100];
    int rc = tree_check(s, &kind, *wood.root, in_order, NULL,
                        draw(8) == 0 ? NULL : &nodes, report, sizeof(report));

    if (!wood.spoilt && rc != SHD_OK)
        play_fail(who, "%s", report);
    rc = tree_first(s, &kind, *wood.root, &path);
    for (; rc == 1 && walked <= 2 * NODES; walked++)
        rc = tree_next(s, &kind, &path);
    want = (uint64_t)__builtin_popcountll(wood.in);
    if (wood.spoilt)
        return;
    if (died && walked != want) { /* done when it died */
        wood.in ^= 1ull << at;
        want = (uint64_t)__builtin_popcountll(wood.in);
    }
    if (walked != want)
        play_fail(who, "%llu nodes of %llu", (unsigned long long)walked,
                  (unsigned long long)want);
}

/* As a repair does. */
static void build(void)
{
    uint32_t refs[NODES], n = 0, root = 0;
    int rc;

    for (uint32_t i = 0; i < NODES; i++) {
        wood.node[i].key = i;
        if ((wood.in >> i & 1) != 0)
            refs[n++] = ref_of(i);
    }
    rc = tree_build(&who->segment->segment, &kind, refs, n, &root);
    if (rc == SHD_OK) {
        *wood.root = root;
        wood.spoilt = kind.end != wood.end;
    }
}

static void step_in_the_wood(void)
{
    volatile bool died = true;
    uint32_t n = (uint32_t)draw(NODES);
    uint64_t what = draw(16);

    if (what == 0) {
        spoil();
    } else if (what == 1) {
        build();
    } else {
        if (what == 2)
            workers_interrupt(1 + draw(200), spoil_now);
        if (workers_try(what == 3 ? 1 + draw(120) : 0)) {
            if (what < 14)
                change_some(n);
            workers_done();
            died = false;
        }
        if (died && guard_reap(&who->segment->env, wood.guard) < 0 &&
            !wood.spoilt)
            play_fail(who, "no recovery");
        if (what >= 13 || what < 4)
            look(died, n);
        workers_interrupt(0, NULL);
    }
}

void modules_tree(struct play *p)
{
    struct guard *nodes;

    who = p;
    meddles = 0;
    if (!locks_take(p, &wood.guard, &nodes))
        return;
    p->doing = "tree";
    wood.root = (uint32_t *)(void *)&nodes->undo[0];
    wood.node = (struct node *)(void *)&nodes->undo[2];
    wood.in = 0;
    wood.spoilt = false;
    kind = (struct tree_kind){.links_at = offsetof(struct node, links),
                              .colour_at = offsetof(struct node, colour),
                              .colour_mask = 1,
                              .node_bytes = sizeof(struct node)};
    kind.first = segment_offset(&p->segment->segment, wood.node);
    kind.end = wood.end = kind.first + (NODES + 1) * sizeof(struct node);
    for (uint32_t i = 0; i <= NODES; i++)
        wood.node[i].key = i;
    if (draw(2) == 0) { /* many at once */
        wood.in = ~0ull >> draw(64);
        build();
    }
    for (uint32_t i = 1 + (uint32_t)draw(STEPS); i > 0; i--)
        step_in_the_wood();
    locks_give_back();
}

/* ---- the catalogue ------------------------------------------------------------ */

#define NAMES 4u

static bool may_damage;

static const char *some_name(void)
{
    static const char *const NAME[] = {"a", "b", "c", "d"};
    static const char *const WRONG[] = {
        NULL, "", "x/y", "\x01", "\x7f",
        "0123456789012345678901234567890123456789012345678901234567890123"};

    return draw(8) == 0 ? WRONG[draw(6)] : NAME[draw(NAMES)];
}

static struct catalogue_object *some_slot(void)
{
    const struct segment *s = &who->segment->segment;

    return (struct catalogue_object *)(void *)(s->base + s->catalogue_at) +
           draw(s->objects_max);
}

static void damage_slot(void)
{
    struct catalogue_object *o = some_slot();
    uint64_t some = draw(4) == 0 ? draw(UINT64_MAX) : draw(4);

    workers_wrote(o, sizeof(*o));
    switch (draw(12)) {
    case 0:
    case 1: o->state = (uint32_t)some; break;
    case 2: o->kind = (uint32_t)some; break;
    case 3: o->generation = some; break;
    case 4: o->extent_at += draw(2) == 0 ? SEGMENT_PAGE : some; break;
    case 5: o->extent_bytes += draw(2) == 0 ? SEGMENT_PAGE : some; break;
    case 6: o->extent_bytes = some; break;
    case 7: o->guards_first += (uint32_t)some; break;
    case 8: o->guards = (uint32_t)some; break;
    case 9: o->name[0] = (char)some; break;
    case 10: memset(o->name, 'x', sizeof(o->name)); break;
    default:
        /* The same object twice. */
        if (o > (struct catalogue_object *)(void *)
                    (who->segment->segment.base +
                     who->segment->segment.catalogue_at))
            *o = o[-1];
        break;
    }
}

static void work(const struct guard_env *env);

static void interfere(const void *at, size_t bytes)
{
    uint32_t before;

    (void)at;
    (void)bytes;
    if (may_damage && draw(2) == 0) {
        damage_slot();
    } else {
        before = workers_enter_beside();
        work(&other->segment->env);
        workers_leave_beside(before);
    }
    if (meddles++ < 8 && draw(2) == 0)
        workers_interrupt(1 + draw(256), interfere);
}

static int initialize(const struct guard_env *env,
                      const struct catalogue_object *o, void *context)
{
    (void)env;
    (void)o;
    return *(const int *)context;
}

static void create(const struct guard_env *env)
{
    static const uint64_t BYTES[] = {4096, 8192, 65536, 1 << 19, 1 << 21, 0,
                                     100};
    const char *name = some_name();
    struct guard_env how = *env;
    struct catalogue_object o, was;
    int rc = draw(6) == 0 ? SHD_NOMEM : SHD_OK;

    memset(&o, 0, sizeof(o));
    if (name != NULL)
        strncpy(o.name, name, sizeof(o.name));
    o.kind = draw(16) == 0 ? 0 : SHD_OBJECT_LOCK;
    o.guards = draw(8) == 0 ? (uint32_t)draw(24) : 1;
    o.extent_bytes = BYTES[draw(16) % (draw(4) == 0 ? 7 : 4)];
    o.size_bytes = o.extent_bytes;
    if (name != NULL && draw(4) == 0 &&
        catalogue_find(env, name, &was) == SHD_OK)
        how.replacing = draw(4) == 0 ? 1 : was.generation;
    (void)play_answer(who, catalogue_create(&how, &o, initialize, &rc));
}

static void work(const struct guard_env *env)
{
    struct catalogue_object o;
    const char *name;
    char report[100];
    uint64_t bytes;
    uint32_t n;

    switch (draw(10)) {
    case 0:
    case 1:
    case 2: create(env); break;
    case 3:
    case 4:
        name = some_name();
        (void)play_answer(who, catalogue_destroy(env, name));
        break;
    case 5: (void)play_answer(who, catalogue_sweep(env)); break;
    case 6: {
        name = some_name();
        (void)play_answer(who, catalogue_find(env, name, &o));
        break;
    }
    case 7:
        (void)play_answer(who, catalogue_at(env, (uint32_t)draw(14), &o));
        (void)play_answer(who, catalogue_room(env, &bytes));
        break;
    case 8:
        (void)play_answer(who, catalogue_check(env, report, sizeof(report)));
        break;
    default:
        (void)play_answer(who, catalogue_mend_guards(
                                   env,
                                   (uint32_t)draw(env->segment->objects_max),
                                   &n));
        break;
    }
}

void modules_catalogue(struct play *p, struct play *beside, bool damages)
{
    struct guard_env env;
    char name[2] = "a";

    who = p;
    other = beside;
    may_damage = damages;
    meddles = 0;
    p->ops++;
    p->doing = "catalogue";
    for (uint64_t n = 1 + draw(8); n > 0; n--) {
        volatile uint64_t stop = draw(4) == 0 ? 1 + draw(300) : 0;

        if (damages && draw(3) == 0)
            damage_slot();
        if (draw(4) == 0)
            workers_refuse(0, 1 + (uint32_t)draw(4));
        if (draw(8) == 0)
            workers_refuse(1 + (uint32_t)draw(3), 0);
        if (draw(4) == 0)
            workers_interrupt(1 + draw(draw(4) == 0 ? 2000 : 200), interfere);
        if (workers_try(stop)) {
            env = who->segment->env;
            env.wait_ms = 10;
            work(&env);
            workers_done();
        }
        workers_interrupt(0, NULL);
        workers_refuse(0, 0);
    }
    for (; name[0] <= 'd'; name[0]++)
        (void)play_answer(p, catalogue_destroy(&p->segment->env, name));
}
