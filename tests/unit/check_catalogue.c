/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite catalogue: memory/catalogue.c over a real segment of 6 slots, 12
 * locks (10 of them for objects) and 1 MiB of room. */
#include "shm/base/error.h"
#include "shm/guard/read.h"
#include "shm/guard/txn.h"
#include "tests/unit/support.h"

#define NAME support_name
#define ROOM (1u << 20)

static struct segment segment;
static struct guard_env env;

static void set_up(void)
{
    (void)unlink(support_file);
    support_segment(NAME, &segment, &env);
    env.incarnation = 0x10000;
}

static void tear_down(void)
{
    segment_close(&segment);
    (void)unlink(support_file);
}

static struct catalogue_object *slot(uint32_t index)
{
    return (struct catalogue_object *)(void *)(segment.base +
                                               segment.catalogue_at) +
           index;
}

/* Takes the whole extent, which must read as zeroes, and fills it. */
static int fill(const struct guard_env *e,
                const struct catalogue_object *object, void *context)
{
    unsigned char *p =
        segment_at(e->segment, object->extent_at, object->extent_bytes);
    int rc =
        segment_commit(e->segment, object->extent_at, object->extent_bytes);

    (void)context;
    for (uint64_t i = 0; rc == SHD_OK && i < object->extent_bytes; i++)
        if (p[i] != 0)
            rc = error_set(SHD_CORRUPT, "byte %llu is not 0",
                           (unsigned long long)i);
    if (rc == SHD_OK)
        memset(p, 0x5a, object->extent_bytes);
    return rc;
}

static struct catalogue_object wanted(const char *name, uint64_t bytes,
                                      uint32_t guards)
{
    struct catalogue_object want;

    memset(&want, 0, sizeof(want));
    snprintf(want.name, sizeof(want.name), "%s", name);
    want.kind = SHD_OBJECT_DICT;
    want.size_bytes = bytes;
    want.extent_bytes = bytes;
    want.guards = guards;
    return want;
}

static struct catalogue_object make(const char *name, uint64_t bytes,
                                    uint32_t guards)
{
    struct catalogue_object want = wanted(name, bytes, guards);

    expect(catalogue_create(&env, &want, fill, NULL), SHD_OK);
    return want;
}

static void expect_sound(void)
{
    char report[256] = "";
    int rc = catalogue_check(&env, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "%s: %s", shd_strerror_name(rc), report);
}

static uint64_t committed(void)
{
    uint64_t bytes;

    expect(segment_committed(&segment, &bytes), SHD_OK);
    return bytes;
}

/* ---- creating and finding --------------------------------------------- */

START_TEST(an_empty_catalogue_finds_nothing)
{
    struct catalogue_object o;

    expect(catalogue_find(&env, "a", &o), SHD_NOTFOUND);
    expect(catalogue_at(&env, 0, &o), SHD_NOTFOUND);
    expect(catalogue_at(&env, 5, &o), SHD_NOTFOUND);
    expect(catalogue_at(&env, 6, &o), SHD_INVAL);
    expect(catalogue_destroy(&env, "a"), SHD_NOTFOUND);
    ck_assert_uint_eq(catalogue_guards(&segment), GUARD_FIRST_OBJECT);
    expect_sound();
}
END_TEST

START_TEST(a_created_object_is_found_by_name_and_by_slot)
{
    struct catalogue_object made = make("pages", 8192, 2), o;

    expect(catalogue_find(&env, "pages", &o), SHD_OK);
    ck_assert_int_eq(memcmp(&o, &made, sizeof(o)), 0);
    expect(catalogue_at(&env, 0, &o), SHD_OK);
    ck_assert_int_eq(memcmp(&o, &made, sizeof(o)), 0);
    ck_assert_uint_eq(o.state, CATALOGUE_LIVE);
    ck_assert_uint_eq(o.generation, 1);
    ck_assert_uint_eq(o.extent_at, segment.extents_at);
    ck_assert_uint_eq(o.extent_bytes, 8192);
    ck_assert_uint_eq(o.guards_first, GUARD_FIRST_OBJECT);
    ck_assert_uint_eq(o.guards, 2);
    ck_assert_uint_gt(o.created_ms, 1700000000000ull);
    for (uint32_t i = 0; i < 2; i++)
        ck_assert_uint_eq(guard_at(&segment, GUARD_FIRST_OBJECT + i)->object,
                          1);
    expect(catalogue_find(&env, "page", &o), SHD_NOTFOUND);
    expect(catalogue_find(&env, "pagess", &o), SHD_NOTFOUND);
    expect_sound();
}
END_TEST

START_TEST(a_name_can_be_63_bytes_and_no_more)
{
    struct catalogue_object o;
    char name[65];

    memset(name, 'n', 64);
    name[63] = '\0';
    make(name, 4096, 1);
    expect(catalogue_find(&env, name, &o), SHD_OK);
    name[63] = 'n';
    name[64] = '\0';
    expect(catalogue_find(&env, name, &o), SHD_NAME);
    expect_said("64 bytes");
    o = wanted("x", 4096, 1);
    memset(o.name, 'n', sizeof(o.name));
    expect(catalogue_create(&env, &o, fill, NULL), SHD_NAME);
}
END_TEST

START_TEST(names_with_slashes_or_control_bytes_are_refused)
{
    static const char *const bad[] = {"", "a/b", "/", "a\n", "\x01", "\x7f"};
    struct catalogue_object o;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        expect(catalogue_name_check(bad[i]), SHD_NAME);
        expect(catalogue_find(&env, bad[i], &o), SHD_NAME);
        expect(catalogue_destroy(&env, bad[i]), SHD_NAME);
        o = wanted(bad[i], 4096, 1);
        expect(catalogue_create(&env, &o, fill, NULL), SHD_NAME);
    }
    expect(catalogue_name_check(NULL), SHD_NAME);
    expect(catalogue_name_check("caf\xc3\xa9 x"), SHD_OK);
}
END_TEST

START_TEST(creating_twice_says_what_exists)
{
    struct catalogue_object made = make("a", 8192, 1);
    struct catalogue_object again = wanted("a", 4096, 2);

    expect(catalogue_create(&env, &again, fill, NULL), SHD_EXISTS);
    ck_assert_int_eq(memcmp(&again, &made, sizeof(made)), 0);
    ck_assert_uint_eq(segment_header(&segment)->generations, 1);
    expect_sound();
}
END_TEST

START_TEST(objects_never_share_room_or_locks)
{
    struct catalogue_object a = make("a", 8192, 2);
    struct catalogue_object b = make("b", 4096, 3);

    ck_assert_uint_eq(b.extent_at, a.extent_at + 8192);
    ck_assert_uint_eq(b.guards_first, a.guards_first + 2);
    ck_assert_uint_eq(catalogue_guards(&segment), GUARD_FIRST_OBJECT + 5);
    expect_sound();
}
END_TEST

START_TEST(a_gap_is_used_when_there_is_no_fresh_room_left)
{
    struct catalogue_object a = make("a", 8192, 1), o;

    make("b", 4096, 1);
    expect(catalogue_destroy(&env, "a"), SHD_OK);
    o = make("rest", ROOM - 12288, 1);
    ck_assert_uint_eq(o.extent_at, a.extent_at + 12288);
    o = make("small", 4096, 1);
    ck_assert_uint_eq(o.extent_at, a.extent_at);
    o = make("small2", 4096, 1);
    ck_assert_uint_eq(o.extent_at, a.extent_at + 4096);
    expect_sound();
}
END_TEST

START_TEST(no_room_is_no_memory)
{
    struct catalogue_object o = wanted("a", ROOM + 4096, 1);

    expect(catalogue_create(&env, &o, fill, NULL), SHD_NOMEM);
    expect_said("address room");
    o = wanted("a", UINT64_MAX - 4095, 1);
    expect(catalogue_create(&env, &o, fill, NULL), SHD_NOMEM);
    make("a", ROOM - 4096, 1);
    o = wanted("b", 8192, 1);
    expect(catalogue_create(&env, &o, fill, NULL), SHD_NOMEM);
    make("b", 4096, 1);
    expect_sound();
}
END_TEST

START_TEST(no_slot_and_no_lock_is_full)
{
    struct catalogue_object o = wanted("locks", 4096, 11);
    char name[2] = "0";

    expect(catalogue_create(&env, &o, fill, NULL), SHD_FULL);
    expect_said("locks_max");
    o = wanted("locks", 4096, UINT32_MAX);
    expect(catalogue_create(&env, &o, fill, NULL), SHD_FULL);
    for (; name[0] < '6'; name[0]++)
        make(name, 4096, 1);
    o = wanted("6", 4096, 1);
    expect(catalogue_create(&env, &o, fill, NULL), SHD_FULL);
    expect_said("objects_max");
    expect(catalogue_destroy(&env, "3"), SHD_OK);
    make("6", 4096, 1);
    expect_sound();
}
END_TEST

START_TEST(an_object_needs_kind_room_and_locks)
{
    struct catalogue_object o = wanted("a", 4096, 0);

    expect(catalogue_create(&env, &o, fill, NULL), SHD_INVAL);
    o = wanted("a", 4097, 1);
    expect(catalogue_create(&env, &o, fill, NULL), SHD_INVAL);
    o = wanted("a", 0, 1);
    expect(catalogue_create(&env, &o, fill, NULL), SHD_INVAL);
    o = wanted("a", 4096, 1);
    o.kind = 0;
    expect(catalogue_create(&env, &o, fill, NULL), SHD_INVAL);
}
END_TEST

static int refuse(const struct guard_env *e,
                  const struct catalogue_object *object, void *context)
{
    (void)context;
    expect(fill(e, object, NULL), SHD_OK);
    return error_set(SHD_TOOBIG, "refused");
}

START_TEST(an_object_that_cannot_be_filled_leaves_nothing)
{
    struct catalogue_object o;

    make("first", 4096, 3);
    expect(catalogue_destroy(&env, "first"), SHD_OK);
    uint64_t before = committed();
    o = wanted("a", 65536, 3);
    expect(catalogue_create(&env, &o, refuse, NULL), SHD_TOOBIG);
    expect(catalogue_find(&env, "a", &o), SHD_NOTFOUND);
    ck_assert_uint_eq(committed(), before);
    ck_assert_uint_eq(slot(0)->state, CATALOGUE_FREE);
    ck_assert_uint_eq(guard_at(&segment, 2)->object, 0);
    expect_sound();
    o = make("a", 65536, 3);
    ck_assert_uint_gt(o.generation, 1);
}
END_TEST

/* ---- destroying ------------------------------------------------------- */

START_TEST(destroying_gives_everything_back)
{
    struct catalogue_object o;
    uint64_t before, seq;

    make("warm", 4096, 2); /* its locks stay */
    expect(catalogue_destroy(&env, "warm"), SHD_OK);
    before = committed();
    make("a", 131072, 2);
    ck_assert_uint_eq(committed(), before + 131072);
    seq = guard_at(&segment, 2)->seq;
    expect(catalogue_destroy(&env, "a"), SHD_OK);
    ck_assert_uint_eq(committed(), before);
    expect(catalogue_find(&env, "a", &o), SHD_NOTFOUND);
    expect(catalogue_destroy(&env, "a"), SHD_NOTFOUND);
    for (uint32_t i = 2; i < 4; i++)
        ck_assert_uint_eq(guard_at(&segment, i)->object, 0);
    /* A reader that was inside sees that it must not believe. */
    ck_assert(!read_valid(guard_at(&segment, 2), seq));
    expect_sound();
}
END_TEST

START_TEST(a_successor_gets_zeroes_a_new_generation_and_the_old_locks)
{
    struct catalogue_object a = make("a", 8192, 2), b;
    struct guard *g = guard_at(&segment, a.guards_first);

    g->recoveries = 41; /* a mutex that is initialised again loses this */
    make("rest", ROOM - 8192, 1); /* no other room than a's */
    expect(catalogue_destroy(&env, "a"), SHD_OK);
    b = make("a", 8192, 2); /* fill() looks for the zeroes */
    ck_assert_uint_eq(b.extent_at, a.extent_at);
    ck_assert_uint_eq(b.guards_first, a.guards_first);
    ck_assert_uint_eq(b.generation, a.generation + 2);
    ck_assert_uint_eq(g->recoveries, 41);
    ck_assert_uint_eq(g->object, b.generation);
    ck_assert_uint_eq(catalogue_guards(&segment), 5);
    expect_sound();
}
END_TEST

START_TEST(what_a_late_writer_left_in_free_room_is_gone)
{
    /* A hit mark of an object that is no more, set after its end. */
    expect(segment_commit(&segment, segment.extents_at, 4096), SHD_OK);
    segment.base[segment.extents_at + 100] = 1;
    make("a", 8192, 1); /* fill() looks for the zeroes */
}
END_TEST

START_TEST(the_largest_piece_of_room_is_known)
{
    uint64_t all, room;

    expect(catalogue_room(&env, &all), SHD_OK);
    ck_assert_uint_eq(all, segment.size - segment.extents_at);
    make("a", 8192, 1);
    make("b", 40960, 1);
    make("c", 4096, 1);
    expect(catalogue_room(&env, &room), SHD_OK);
    ck_assert_uint_eq(room, all - 53248);
    make("rest", room - 8192, 1);
    expect(catalogue_room(&env, &room), SHD_OK);
    ck_assert_uint_eq(room, 8192);
    expect(catalogue_destroy(&env, "b"), SHD_OK);
    expect(catalogue_room(&env, &room), SHD_OK);
    ck_assert_uint_eq(room, 40960);
    slot(0)->extent_at += 1;
    expect(catalogue_room(&env, &room), SHD_CORRUPT);
    slot(0)->extent_at -= 1;
    expect_sound();
}
END_TEST

START_TEST(free_locks_at_the_end_are_joined_by_new_ones)
{
    struct catalogue_object o;

    make("a", 4096, 2);
    make("b", 4096, 2);
    expect(catalogue_destroy(&env, "b"), SHD_OK);
    o = make("c", 4096, 8);
    ck_assert_uint_eq(o.guards_first, 4);
    ck_assert_uint_eq(catalogue_guards(&segment), 12);
    expect_sound();
}
END_TEST

START_TEST(a_damaged_lock_is_never_given_out_again)
{
    struct catalogue_object o = make("a", 4096, 2);

    guard_at(&segment, o.guards_first)->damaged = 1;
    expect(catalogue_destroy(&env, "a"), SHD_OK);
    ck_assert_uint_eq(guard_at(&segment, o.guards_first)->object, 0);
    ck_assert_uint_eq(slot(0)->state, CATALOGUE_FREE);
    o = make("b", 4096, 2);
    ck_assert_uint_eq(o.guards_first, 3);
    expect_sound();
}
END_TEST

START_TEST(a_large_extent_is_given_back_piece_by_piece)
{
    struct shd_segment_options options = support_options();
    struct segment large;
    struct guard_env e = {.segment = &large, .wait_ms = 2000};
    struct catalogue_object o = wanted("a", 600ull << 20, 1);
    uint64_t before, after;

    options.size_bytes = 1ull << 30;
    expect(segment_create(NULL, &options, FINGERPRINT, support_initialize,
                          &large),
           SHD_OK);
    expect(catalogue_create(&e, &o, fill, (void *)&large), SHD_OK);
    expect(segment_committed(&large, &before), SHD_OK);
    expect(catalogue_destroy(&e, "a"), SHD_OK);
    expect(segment_committed(&large, &after), SHD_OK);
    ck_assert_uint_eq(before - after, 600ull << 20);
    segment_close(&large);
}
END_TEST

/* ---- deaths ----------------------------------------------------------- */

static int die(const struct guard_env *e,
               const struct catalogue_object *object, void *context)
{
    if (fill(e, object, context) != SHD_OK)
        _exit(1);
    kill(getpid(), SIGKILL);
    return SHD_OK;
}

START_TEST(a_maker_that_dies_leaves_an_object_that_is_finished_off)
{
    struct catalogue_object o;
    uint64_t before;
    pid_t child;

    make("warm", 4096, 2);
    expect(catalogue_destroy(&env, "warm"), SHD_OK);
    before = committed();
    dying_child(child, {
        o = wanted("a", 65536, 2);
        (void)catalogue_create(&env, &o, die, NULL);
        _exit(1);
    });
    support_wait_killed(child);
    expect(catalogue_find(&env, "a", &o), SHD_NOTFOUND);
    ck_assert_uint_eq(slot(0)->state, CATALOGUE_DYING);
    expect_sound();
    if (_i == 0) {
        expect(catalogue_sweep(&env), SHD_OK);
        ck_assert_uint_eq(slot(0)->state, CATALOGUE_FREE);
        ck_assert_uint_eq(committed(), before);
        ck_assert_uint_eq(guard_at(&segment, 2)->object, 0);
    } else {
        /* Whoever creates next does it. */
        o = make("a", 65536, 2);
        ck_assert_uint_eq(committed(), before + 65536);
        ck_assert_uint_eq(o.generation, 3);
    }
    expect_sound();
}
END_TEST

/* The words a transaction on the catalogue stores are cut off after each. */
START_TEST(a_death_inside_a_transaction_undoes_it)
{
    pid_t child;

    make("a", 4096, 1);
    dying_child(child, {
        struct guard *g = guard_at(&segment, GUARD_CATALOGUE);
        struct txn t;

        if (guard_lock(&env, g) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment, g, 16);
        txn_store32(&t, &slot(0)->state, CATALOGUE_FREE);
        for (int i = 1; i < _i; i++)
            txn_store64(&t, (uint64_t *)(void *)slot(0) + i, ~0ull);
    });
    support_wait_killed(child);
    /* The look-up, too, is one that recovers. */
    struct catalogue_object o;
    expect(catalogue_find(&env, "a", &o), SHD_OK);
    ck_assert_uint_eq(o.extent_bytes, 4096);
    expect_sound();
}
END_TEST

START_TEST(a_stopped_lock_holder_delays_the_destroyer_not_for_ever)
{
    struct catalogue_object o = make("a", 65536, 2), copy;
    uint64_t before = committed();
    pid_t child;

    env.wait_ms = 50;
    dying_child(child, {
        if (guard_lock(&env, guard_at(&segment, o.guards_first + 1)) != SHD_OK)
            _exit(1);
        raise(SIGSTOP);
    });
    support_wait_stopped(child);
    expect(catalogue_destroy(&env, "a"), SHD_BUSY);
    /* Nobody finds it, its room is not given out, and others go on. */
    expect(catalogue_find(&env, "a", &copy), SHD_NOTFOUND);
    ck_assert_uint_eq(committed(), before);
    expect(catalogue_sweep(&env), SHD_BUSY);
    copy = make("a", 65536, 2);
    ck_assert_uint_eq(copy.extent_at, o.extent_at + 65536);
    ck_assert_uint_eq(copy.guards_first, o.guards_first + 2);
    expect_sound();
    support_kill(child);
    expect(catalogue_sweep(&env), SHD_OK);
    ck_assert_uint_eq(slot(0)->state, CATALOGUE_FREE);
    expect(catalogue_find(&env, "a", &copy), SHD_OK);
    ck_assert_uint_eq(guard_at(&segment, o.guards_first)->object, 0);
    expect_sound();
}
END_TEST

START_TEST(racing_creators_and_destroyers_keep_it_sound)
{
    pid_t child[4];
    int status;

    for (int i = 0; i < 4; i++) {
        child[i] = fork();
        ck_assert_int_ge(child[i], 0);
        if (child[i] != 0)
            continue;
        for (int n = 0; n < 200; n++) {
            const char *name = (n + i) % 3 ? "a" : "b";
            struct catalogue_object o = wanted(name, 4096u << i, 1);
            int rc = catalogue_create(&env, &o, fill, NULL);

            if (rc != SHD_OK && rc != SHD_EXISTS)
                _exit(1);
            rc = catalogue_destroy(&env, name);
            if (rc != SHD_OK && rc != SHD_NOTFOUND)
                _exit(2);
        }
        _exit(0);
    }
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(waitpid(child[i], &status, 0), child[i]);
        ck_assert_int_eq(status, 0);
    }
    expect_sound();
    for (uint32_t i = 0; i < segment.objects_max; i++)
        ck_assert_uint_eq(slot(i)->state, CATALOGUE_FREE);
}
END_TEST

/* Processes that create and destroy and are killed at any moment. */
START_TEST(a_storm_of_deaths_leaks_nothing)
{
    const struct segment_header *header = segment_header(&segment);
    uint64_t before;

    make("warm", 4096, 10); /* all locks there will ever be */
    expect(catalogue_destroy(&env, "warm"), SHD_OK);
    before = committed();
    for (int n = 0; n < 100; n++) {
        uint64_t generations = atomic_load64(&header->generations);
        pid_t child[2];

        for (int i = 0; i < 2; i++) {
            child[i] = fork();
            ck_assert_int_ge(child[i], 0);
            while (child[i] == 0) {
                struct catalogue_object o =
                    wanted(i ? "a" : "b", 4096u << i, 2);

                (void)!catalogue_create(&env, &o, fill, NULL);
                (void)!catalogue_destroy(&env, i ? "b" : "a");
            }
        }
        /* On a busy machine the first may be long in coming. */
        for (int ms = 0; ms < 10000 &&
                         atomic_load64(&header->generations) < generations + 2;
             ms++)
            support_sleep_ms(1);
        support_sleep_ms(n % 4);
        ck_assert_uint_ge(atomic_load64(&header->generations),
                          generations + 2);
        for (int i = 0; i < 2; i++)
            support_kill(child[i]);
        expect_sound();
    }
    (void)!catalogue_destroy(&env, "a");
    (void)!catalogue_destroy(&env, "b");
    expect(catalogue_sweep(&env), SHD_OK);
    expect_sound();
    for (uint32_t i = 0; i < segment.objects_max; i++)
        ck_assert_uint_eq(slot(i)->state, CATALOGUE_FREE);
    ck_assert_uint_eq(committed(), before);
}
END_TEST

/* ---- read-only -------------------------------------------------------- */

START_TEST(a_read_only_attachment_finds_and_checks)
{
    struct shd_segment_options options = support_options();
    struct segment r;
    struct guard_env e = {.segment = &r, .wait_ms = 2000};
    struct catalogue_object o;
    char report[256];
    pid_t child;

    options.flags = SHD_ATTACH_READONLY;
    make("a", 4096, 1);
    expect(segment_attach(NAME, &options, FINGERPRINT, &r), SHD_OK);
    expect(catalogue_find(&e, "a", &o), SHD_OK);
    expect(catalogue_at(&e, 0, &o), SHD_OK);
    expect(catalogue_check(&e, report, sizeof(report)), SHD_OK);
    dying_child(child, {
        struct guard *g = guard_at(&segment, GUARD_CATALOGUE);
        struct txn t;

        if (guard_lock(&env, g) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment, g, 1);
        txn_store32(&t, &slot(0)->state, CATALOGUE_FREE);
    });
    support_wait_killed(child);
    /* Nobody has recovered yet, and it sees past that. */
    ck_assert_uint_eq(slot(0)->state, CATALOGUE_FREE);
    expect(catalogue_find(&e, "a", &o), SHD_OK);
    expect(catalogue_check(&e, report, sizeof(report)), SHD_OK);
    ck_assert_uint_eq(slot(0)->state, CATALOGUE_FREE);
    expect(catalogue_find(&env, "a", &o), SHD_OK);
    expect(catalogue_find(&e, "a", &o), SHD_OK);
    segment_close(&r);
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

static void damage_state(void)
{
    slot(1)->state = 7;
}
static void damage_kind(void)
{
    slot(1)->kind = 0;
}
static void damage_generation(void)
{
    slot(1)->generation = 3;
}
static void damage_generation_to_none(void)
{
    slot(1)->generation = 0;
}
static void damage_extent_start(void)
{
    slot(1)->extent_at = segment.workers_at;
}
static void damage_extent_end(void)
{
    slot(1)->extent_bytes = segment.size;
}
static void damage_extent_page(void)
{
    slot(1)->extent_at += 16;
}
static void damage_extent_empty(void)
{
    slot(1)->extent_bytes = 0;
}
static void damage_guards_first(void)
{
    slot(1)->guards_first = GUARD_CATALOGUE;
}
static void damage_guards_count(void)
{
    slot(1)->guards = ~0u;
}
static void damage_guards_none(void)
{
    slot(1)->guards = 0;
}
static void damage_name(void)
{
    memset(slot(1)->name, 'x', sizeof(slot(1)->name));
}
static void damage_name_empty(void)
{
    memset(slot(1)->name, 0, sizeof(slot(1)->name));
}

static const struct {
    void (*damage)(void);
    const char *says;
} object_damages[] = {
    {damage_state, "slot 1: state"},
    {damage_kind, "slot 1: kind"},
    {damage_generation, "slot 1: generation was never given"},
    {damage_generation_to_none, "slot 1: generation was never given"},
    {damage_extent_start, "slot 1: extent"},
    {damage_extent_end, "slot 1: extent"},
    {damage_extent_page, "slot 1: extent"},
    {damage_extent_empty, "slot 1: extent"},
    {damage_guards_first, "slot 1: guards are not in use"},
    {damage_guards_count, "slot 1: guards are not in use"},
    {damage_guards_none, "slot 1: guards are not in use"},
    {damage_name, "slot 1: name"},
    {damage_name_empty, "slot 1: name"},
};

START_TEST(a_damaged_slot_is_named_and_not_followed)
{
    struct catalogue_object o;

    make("a", 4096, 1);
    make("b", 4096, 1);
    object_damages[_i].damage();
    expect_named(catalogue_check(&env, report_, sizeof(report_)),
                 object_damages[_i].says);
    expect(catalogue_at(&env, 1, &o), SHD_CORRUPT);
    expect_said(object_damages[_i].says);
    o = wanted("c", 4096, 1);
    expect(catalogue_create(&env, &o, fill, NULL), SHD_CORRUPT);
    expect(catalogue_find(&env, "a", &o), SHD_OK);
}
END_TEST

static void damage_same_generation(void)
{
    slot(1)->generation = 1;
}
static void damage_same_extent(void)
{
    slot(1)->extent_at = slot(0)->extent_at + 4096;
}
static void damage_same_guards(void)
{
    slot(1)->guards_first = slot(0)->guards_first + 1;
}
static void damage_same_name(void)
{
    strcpy(slot(1)->name, "a");
}
static void damage_guard_object(void)
{
    guard_at(&segment, slot(1)->guards_first)->object = 99;
}
static void damage_guard_object_none(void)
{
    guard_at(&segment, slot(1)->guards_first)->object = 0;
}

static const struct {
    void (*damage)(void);
    const char *says;
} relations[] = {
    {damage_same_generation, "slot 1: another object has its generation"},
    {damage_same_extent, "slot 1: its extent overlaps"},
    {damage_same_guards, "slot 1: its guards are another's"},
    {damage_same_name, "slot 1: another object has its name"},
    {damage_guard_object, "slot 1: a guard of it serves another"},
    {damage_guard_object_none, "slot 1: a guard of it serves another"},
};

START_TEST(objects_that_contradict_each_other_are_named)
{
    make("a", 8192, 2);
    make("b", 4096, 1);
    relations[_i].damage();
    expect_named(catalogue_check(&env, report_, sizeof(report_)),
                 relations[_i].says);
}
END_TEST

START_TEST(a_damaged_count_of_guards_is_named)
{
    make("a", 4096, 1);
    segment_header(&segment)->guards_used = 13;
    ck_assert_uint_eq(catalogue_guards(&segment), 12);
    expect_named(catalogue_check(&env, report_, sizeof(report_)), "13 guards");
    segment_header(&segment)->guards_used = 1;
    expect_named(catalogue_check(&env, report_, sizeof(report_)), "1 guards");
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);

    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return c;
}

static void add_create_cases(TCase *c)
{
    tcase_add_test(c, an_empty_catalogue_finds_nothing);
    tcase_add_test(c, a_created_object_is_found_by_name_and_by_slot);
    tcase_add_test(c, a_name_can_be_63_bytes_and_no_more);
    tcase_add_test(c, names_with_slashes_or_control_bytes_are_refused);
    tcase_add_test(c, creating_twice_says_what_exists);
    tcase_add_test(c, objects_never_share_room_or_locks);
    tcase_add_test(c, a_gap_is_used_when_there_is_no_fresh_room_left);
    tcase_add_test(c, no_room_is_no_memory);
    tcase_add_test(c, no_slot_and_no_lock_is_full);
    tcase_add_test(c, an_object_needs_kind_room_and_locks);
    tcase_add_test(c, an_object_that_cannot_be_filled_leaves_nothing);
}

static void add_destroy_cases(TCase *c)
{
    tcase_add_test(c, destroying_gives_everything_back);
    tcase_add_test(c,
                   a_successor_gets_zeroes_a_new_generation_and_the_old_locks);
    tcase_add_test(c, what_a_late_writer_left_in_free_room_is_gone);
    tcase_add_test(c, the_largest_piece_of_room_is_known);
    tcase_add_test(c, free_locks_at_the_end_are_joined_by_new_ones);
    tcase_add_test(c, a_damaged_lock_is_never_given_out_again);
    tcase_add_test(c, a_large_extent_is_given_back_piece_by_piece);
}

static void add_death_cases(TCase *c)
{
    tcase_add_loop_test(
        c, a_maker_that_dies_leaves_an_object_that_is_finished_off, 0, 2);
    tcase_add_loop_test(c, a_death_inside_a_transaction_undoes_it, 1, 17);
    tcase_add_test(c, a_stopped_lock_holder_delays_the_destroyer_not_for_ever);
    tcase_add_test(c, racing_creators_and_destroyers_keep_it_sound);
    tcase_add_test(c, a_storm_of_deaths_leaks_nothing);
    tcase_add_test(c, a_read_only_attachment_finds_and_checks);
}

static void add_damage_cases(TCase *c)
{
    tcase_add_loop_test(c, a_damaged_slot_is_named_and_not_followed, 0,
                        COUNT(object_damages));
    tcase_add_loop_test(c, objects_that_contradict_each_other_are_named, 0,
                        COUNT(relations));
    tcase_add_test(c, a_damaged_count_of_guards_is_named);
}

int main(void)
{
    Suite *suite = suite_create("catalogue");

    support_names("catalogue");
    add_create_cases(new_case(suite, "create"));
    add_destroy_cases(new_case(suite, "destroy"));
    add_death_cases(new_case(suite, "death"));
    add_damage_cases(new_case(suite, "damage"));
    return support_run(suite);
}
